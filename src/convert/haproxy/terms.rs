//! The tests of ACLs, as far as evenkeel has the same ones.

use crate::config;
use crate::convert::networks::{Clients, Network};

/// A test of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Term {
    /// Always true, or always false.
    Constant(bool),
    /// True once the inspection delay has passed.
    Wait,
    /// The first bytes are a `ClientHello`.
    Hello,
    Source(Vec<Clients>),
    /// The same, or a counter of it, after a rule that sets the source.
    OtherSource,
    /// Ports of the frontend: first and last of each range.
    Port(Vec<(u16, u16)>),
    /// TLS server names; true: the match is wider than the names say.
    ServerName(Vec<String>, bool),
    Alpn(Vec<String>),
    /// A rate or a count that has grown beyond a number.
    Limit(Limit),
    /// It needs a request.
    Http,
    /// It needs the first bytes of the client.
    Payload,
    /// Something else, in the words of the file.
    Other(String),
}

/// The quantity that a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// New connections of a client over the period of a table.
    ClientRate,
    /// Connections of a client that are open.
    ClientConnections,
    /// New sessions of the frontend in a second.
    FrontendRate,
    /// Sessions of the frontend that are open.
    FrontendSessions,
    /// Another counter of a table, over its period.
    Counter,
}

/// "more than `most`".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) counted: Counted,
    /// The counter as a table stores it: `conn_rate`, `gpc0_rate`.
    pub(super) stored: String,
    /// The tracked counter (`sc0`), where one is named.
    pub(super) tracker: Option<u8>,
    /// The table, where one is named.
    pub(super) table: Option<String>,
    pub(super) most: u64,
}

impl Limit {
    /// Whether it counts the connections of each source.
    pub(super) const fn is_of_client(&self) -> bool {
        matches!(self.counted, Counted::ClientRate | Counted::ClientConnections)
    }
}

/// The term of a criterion with its flags and values: `src -n -f FILE`, `req.ssl_sni -m end NAME`.
pub(super) fn term(words: &[String]) -> Term {
    let text = words.join(" ");
    let Some(first) = words.first() else { return Term::Other(text) };
    let (sample, suffix) = sample(first);
    let Words { method, files, values } = read(&words[1..]);
    let method = method.unwrap_or_else(|| suffix.unwrap_or_default().to_owned());
    match sample {
        "src" if !first.contains(',') => source(&values, &files).unwrap_or(Term::Other(text)),
        "always_true" => Term::Constant(true),
        "always_false" => Term::Constant(false),
        "wait_end" => Term::Wait,
        "dst_port" | "fc_dst_port" => ports(&values).unwrap_or(Term::Other(text)),
        "req.ssl_hello_type" | "req_ssl_hello_type" => Term::Hello,
        "req.ssl_sni" | "req_ssl_sni" if files.is_empty() => {
            server_names(&method, &values).unwrap_or(Term::Other(text))
        }
        "req.ssl_alpn" if files.is_empty() && matches!(method.as_str(), "" | "str" | "sub") => {
            let is_known = values.iter().all(|value| config::protocol(value).is_ok());
            if is_known { Term::Alpn(values) } else { Term::Other(text) }
        }
        _ if sample.starts_with("sc")
            || sample.starts_with("src_")
            || sample.starts_with("fe_") =>
        {
            limit(first, sample, &values).map_or(Term::Other(text), Term::Limit)
        }
        _ if is_http(sample) => Term::Http,
        _ if sample.starts_with("req.")
            || sample.starts_with("req_")
            || sample.starts_with("payload") =>
        {
            Term::Payload
        }
        _ => Term::Other(text),
    }
}

/// The words after the criterion of an ACL.
#[derive(Debug, Default)]
struct Words {
    method: Option<String>,
    files: Vec<String>,
    values: Vec<String>,
}

fn read(words: &[String]) -> Words {
    let (mut found, mut is_value) = (Words::default(), false);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-i" | "-n" | "-u" if !is_value => {}
            "-m" if !is_value => found.method = Some(rest.next().cloned().unwrap_or_default()),
            "-f" | "-M" if !is_value => found.files.extend(rest.next().cloned()),
            "--" if !is_value => is_value = true,
            value => {
                is_value = true;
                found.values.push(value.to_owned());
            }
        }
    }
    found
}

/// The value that HAProxy refuses after a criterion for addresses or numbers.
pub(super) fn refused(words: &[String]) -> Option<String> {
    const METHODS: &[&str] = &[
        "found", "bool", "int", "ip", "bin", "len", "str", "beg", "sub", "dir", "dom", "end", "reg",
    ];
    let first = words.first()?;
    let Words { method, values, .. } = read(&words[1..]);
    if let Some(method) = method.as_ref().filter(|method| !METHODS.contains(&method.as_str())) {
        return Some(method.clone());
    }
    let is_number = |sample: &str| {
        matches!(sample, "dst_port" | "fc_dst_port" | "src_port" | "fe_conn")
            || (["sc", "src_", "fe_"].iter().any(|it| sample.starts_with(it))
                && ["_rate", "_cur", "_cnt"].iter().any(|it| sample.ends_with(it)))
    };
    let name = &first[..first.find('(').unwrap_or(first.len())];
    let is_wrong = |value: &&String| match name {
        _ if method.is_some() || first.contains("),") || name.contains(',') => false,
        "src" | "dst" => Network::is_too_long(value),
        name if is_number(name) => {
            let is_operator = ["eq", "ge", "gt", "le", "lt"].contains(&value.as_str());
            let number = |text: &str| text.parse::<u64>().ok();
            let range = value.split_once([':', '-']).map(|(a, b)| (number(a), number(b)));
            let is_backwards = matches!(range, Some((Some(a), Some(b))) if a > b);
            is_backwards || (value.starts_with(|c: char| c.is_ascii_alphabetic()) && !is_operator)
        }
        _ => false,
    };
    values.iter().find(is_wrong).cloned()
}

/// The name of the fetch, and the match method that its suffix stands for.
fn sample(word: &str) -> (&str, Option<&str>) {
    let end = word.find(['(', ',']).unwrap_or(word.len());
    let name = &word[..end];
    for method in ["beg", "dir", "dom", "end", "len", "reg", "sub"] {
        if let Some(bare) = name.strip_suffix(method).and_then(|name| name.strip_suffix('_')) {
            return (bare, Some(method));
        }
    }
    (name, None)
}

fn is_http(sample: &str) -> bool {
    const FAMILIES: &[&str] = &[
        "hdr",
        "path",
        "url",
        "base",
        "cook",
        "scook",
        "shdr",
        "http_",
        "method",
        "req.hdr",
        "req.fhdr",
        "req.cook",
        "req.body",
        "req.ver",
        "req_ver",
        "res.",
        "status",
        "query",
        "capture.",
        "req_proto_http",
        "req.proto_http",
        "unique",
    ];
    FAMILIES.iter().any(|family| sample.starts_with(family))
}

fn source(values: &[String], files: &[String]) -> Option<Term> {
    let mut clients: Vec<Clients> = files.iter().map(|it| Clients::File(it.clone())).collect();
    for value in values {
        clients.push(Clients::Network(Network::parse(value)?));
    }
    Some(Term::Source(clients))
}

fn ports(values: &[String]) -> Option<Term> {
    let mut ports = Vec::new();
    let mut values = values.iter();
    while let Some(value) = values.next() {
        let number = |text: &str| text.parse::<u16>().ok();
        let range = match value.as_str() {
            "eq" => values.next().and_then(|it| number(it)).map(|it| (it, it))?,
            "ge" => (values.next().and_then(|it| number(it))?, u16::MAX),
            "gt" => (values.next().and_then(|it| number(it))?.checked_add(1)?, u16::MAX),
            "le" => (0, values.next().and_then(|it| number(it))?),
            "lt" => (0, values.next().and_then(|it| number(it))?.checked_sub(1)?),
            value => match value.split_once([':', '-']) {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(value)?, number(value)?),
            },
        };
        ports.push(range);
    }
    Some(Term::Port(ports))
}

/// The names that a match stands for: exact ones and `*.name`.
fn server_names(method: &str, values: &[String]) -> Option<Term> {
    let mut names = Vec::new();
    let mut is_wider = false;
    for value in values {
        match method {
            "" | "str" => names.push(name(value)?),
            "end" => match value.strip_prefix('.') {
                Some(domain) => names.push(format!("*.{}", name(domain)?)),
                None => {
                    is_wider = true;
                    names.extend([name(value)?, format!("*.{}", name(value)?)]);
                }
            },
            "dom" => {
                is_wider = true;
                let domain = value.trim_matches('.');
                names.extend([name(domain)?, format!("*.{}", name(domain)?)]);
            }
            "reg" => names.extend(names_of_pattern(value)?),
            _ => return None,
        }
    }
    (!names.is_empty()).then_some(Term::ServerName(names, is_wider))
}

/// A host name that `frontend.sni` may have, also behind `*.`, in lower case.
fn name(text: &str) -> Option<String> {
    let name = config::server_name(text).ok()?;
    (!name.starts_with('*') && config::server_name(&format!("*.{name}")).is_ok()).then_some(name)
}

/// The names of a regular expression that says nothing else than a name, or a domain:
/// `^www\.example\.org$`, `\.example\.org$`, `^(.*\.)?example\.org$`.
pub(crate) fn names_of_pattern(pattern: &str) -> Option<Vec<String>> {
    let body = pattern.strip_suffix('$')?;
    let literal = |text: &str| {
        let bare = text.replace("\\.", ".");
        (!text.replace("\\.", "").contains('.')).then(|| name(&bare)).flatten()
    };
    for any in ["^(.*\\.)?", "^(.+\\.)?", "^([^.]+\\.)?", "^(?:.*\\.)?", "^(?:.+\\.)?"] {
        if let Some(domain) = body.strip_prefix(any) {
            let domain = literal(domain)?;
            return Some(vec![domain.clone(), format!("*.{domain}")]);
        }
    }
    for any in ["^.*\\.", "^.+\\.", ".*\\.", ".+\\.", "^(.*)\\.", "^(.+)\\.", "\\."] {
        if let Some(domain) = body.strip_prefix(any) {
            return Some(vec![format!("*.{}", literal(domain)?)]);
        }
    }
    Some(vec![literal(body.strip_prefix('^')?)?])
}

fn limit(first: &str, sample: &str, values: &[String]) -> Option<Limit> {
    let arguments = first.split_once('(').and_then(|(_, rest)| rest.split(')').next());
    let arguments: Vec<&str> = arguments
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .collect();
    let (mut tracker, mut table) = (None, None);
    let kind = if let Some(kind) = sample.strip_prefix("src_") {
        table = arguments.first().map(|it| (*it).to_owned());
        kind
    } else if let Some(kind) = sample.strip_prefix("fe_") {
        kind
    } else if let Some(kind) = sample.strip_prefix("sc_") {
        tracker = arguments.iter().find_map(|it| it.parse().ok());
        table = arguments
            .iter()
            .skip(1)
            .find(|it| it.parse::<u8>().is_err())
            .map(|it| (*it).to_owned());
        kind
    } else {
        let (number, kind) = sample.strip_prefix("sc")?.split_once('_')?;
        tracker = number.parse().ok();
        table = arguments.first().map(|it| (*it).to_owned());
        kind
    };
    let is_frontend = sample.starts_with("fe_");
    let counted = match kind {
        "conn_rate" | "sess_rate" if !is_frontend => Counted::ClientRate,
        "conn_cur" if !is_frontend => Counted::ClientConnections,
        "sess_rate" => Counted::FrontendRate,
        "conn" => Counted::FrontendSessions,
        _ if kind.ends_with("_rate") => Counted::Counter,
        _ => return None,
    };
    let (operator, number) = match values {
        [operator, number] => (operator.as_str(), number),
        [number] => ("ge", number),
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    let most = match operator {
        "gt" => number,
        "ge" => number.checked_sub(1)?,
        _ => return None,
    };
    Some(Limit { counted, stored: kind.to_owned(), tracker, table, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Term {
        term(&text.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn server_names_are_exact_or_a_domain() {
        let names = |text: &str| match read(text) {
            Term::ServerName(names, wider) => (names.join(","), wider),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(names("req.ssl_sni -i WWW.a.b c.d"), ("www.a.b,c.d".into(), false));
        assert_eq!(names("req_ssl_sni -m end .a.b"), ("*.a.b".into(), false));
        assert_eq!(names("req.ssl_sni -m end a.b"), ("a.b,*.a.b".into(), true));
        assert_eq!(names("req.ssl_sni,lower -m str a.b"), ("a.b".into(), false));
        assert_eq!(names("req_ssl_sni_end .a.b"), ("*.a.b".into(), false));
        assert_eq!(names(r"req.ssl_sni -m reg ^(.*\.)?a\.b$"), ("a.b,*.a.b".into(), false));
        assert_eq!(names(r"req.ssl_sni -m reg ^www\.a$"), ("www.a".into(), false));
        for other in [r"req.ssl_sni -m reg ^w.*\.a\.b$", "req.ssl_sni -m beg a", "req.ssl_sni -f x"]
        {
            assert!(matches!(read(other), Term::Other(_) | Term::Payload), "{other}");
        }
    }

    #[test]
    fn sources_ports_and_limits_are_read() {
        assert!(matches!(read("src 10.0.0.0/8 192.0.2.1"), Term::Source(it) if it.len() == 2));
        assert_eq!(read("src -n -f /x"), Term::Source(vec![Clients::File("/x".into())]));
        assert_eq!(read("dst_port 443 8000:8010"), Term::Port(vec![(443, 443), (8000, 8010)]));
        let Term::Limit(limit) = read("sc0_conn_rate gt 10") else { panic!() };
        assert_eq!((limit.counted, limit.tracker, limit.most), (Counted::ClientRate, Some(0), 10));
        let Term::Limit(limit) = read("src_conn_cur(t) ge 10") else { panic!() };
        assert_eq!((limit.table.as_deref(), limit.most), (Some("t"), 9));
        let Term::Limit(limit) = read("sc1_gpc1_rate(T) gt 256") else { panic!() };
        assert_eq!((limit.counted, limit.table.as_deref()), (Counted::Counter, Some("T")));
        assert_eq!(limit.stored, "gpc1_rate");
        assert_eq!(read("hdr(host) -i x"), Term::Http);
        assert_eq!(read("path_beg /x"), Term::Http);
        assert_eq!(read("req.payload(0,0),mqtt_is_valid"), Term::Payload);
        assert!(matches!(read("nbsrv(b) lt 1"), Term::Other(_)));
        assert!(matches!(read("sc0_get_gpc1() ge 1"), Term::Other(_)));
    }
}
