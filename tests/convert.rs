//! `evenkeel convert`: configurations of HAProxy and nginx as TOML, rule by rule.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "convert/checks.rs"]
mod checks;
#[path = "convert/corpus.rs"]
mod corpus;
#[path = "convert/haproxy.rs"]
mod haproxy;
#[path = "convert/limits.rs"]
mod limits;
#[path = "convert/nginx.rs"]
mod nginx;
#[path = "convert/refused.rs"]
mod refused;

use std::fs;
use std::path::Path;
use std::time::Duration;

use evenkeel::config;
use evenkeel::convert::{self, Conversion, Format, Kind, Refused};

/// Converts a text as a file of its own, with one environment variable: `WEB=web1`.
fn convert(format: Format, text: &str) -> Result<Conversion, Refused> {
    let variables = |name: &str| (name == "WEB").then(|| "web1".to_owned());
    convert::convert_text(format, text, Path::new("x.cfg"), &variables)
}

/// What a conversion has to be: TOML that has each of these lines, in this order.
fn has(conversion: &Conversion, lines: &[&str]) {
    let table = toml::from_str::<toml::Table>(&conversion.toml);
    assert!(table.is_ok(), "{table:?}\n{}", conversion.toml);
    let mut written = conversion.toml.lines();
    for line in lines {
        let found = written.any(|written| written.split(" #").next() == Some(*line));
        assert!(found, "{line} is not there, or not in its place:\n{}", conversion.toml);
    }
}

fn lacks(conversion: &Conversion, text: &str) {
    assert!(!conversion.toml.contains(text), "{text} is there:\n{}", conversion.toml);
}

/// The lines with a note of a kind.
fn lines(conversion: &Conversion, kind: Kind) -> Vec<usize> {
    let notes = conversion.report.iter().filter(|note| note.kind == kind);
    let mut lines: Vec<usize> = notes.map(|note| note.line).collect();
    lines.dedup();
    lines
}

/// The lines that are not converted.
fn reported(conversion: &Conversion) -> Vec<usize> {
    lines(conversion, Kind::Report)
}

/// The lines whose meaning differs.
fn differing(conversion: &Conversion) -> Vec<usize> {
    lines(conversion, Kind::Near)
}

/// The lines that an operator has to know before the result is used.
fn urgent(conversion: &Conversion) -> Vec<usize> {
    let notes = conversion.report.iter().filter(|note| note.is_urgent);
    let mut lines: Vec<usize> = notes.map(|note| note.line).collect();
    lines.dedup();
    lines
}

/// The problems of a file that is refused, a line each.
fn refusal(format: Format, text: &str) -> String {
    match convert(format, text) {
        Ok(conversion) => panic!("{text}\nis accepted:\n{}", conversion.toml),
        Err(refused) => refused.to_string(),
    }
}

#[test]
fn every_keyword_of_the_guide_is_one_that_convert_knows() {
    let guide = fs::read_to_string("docs/coming-from-haproxy.md").unwrap();
    let tables = convert::reference(Format::Haproxy);
    // After a keyword was added: EVENKEEL_BLESS=1 cargo test --test convert.
    let (before, rest) = guide.split_once("<!-- begin: convert -->\n").unwrap();
    let (inside, after) = rest.split_once("<!-- end: convert -->\n").unwrap();
    if std::env::var_os("EVENKEEL_BLESS").is_some() {
        let whole =
            format!("{before}<!-- begin: convert -->\n{tables}<!-- end: convert -->\n{after}");
        fs::write("docs/coming-from-haproxy.md", whole).unwrap();
        return;
    }
    assert!(inside == tables, "docs/coming-from-haproxy.md is not what convert does");
    for keyword in ["`timeout tunnel`", "`option tcp-check`", "`send-proxy-v2`", "`accept-proxy`"] {
        assert!(inside.contains(keyword), "{keyword}");
    }
}

/// The problems that `evenkeel check` has with a result.
fn problems(toml: &str) -> Vec<String> {
    let Err(problems) = config::parse(toml, "x") else { return Vec::new() };
    problems.to_string().lines().map(ToOwned::to_owned).collect()
}

#[test]
fn a_file_that_breaks_off_anywhere_is_converted_or_refused_and_never_a_panic() {
    for (format, whole) in [
        (Format::Haproxy, include_str!("convert/every-form.cfg")),
        (Format::Nginx, include_str!("convert/every-form.conf")),
    ] {
        let conversion = convert(format, whole).unwrap();
        assert_eq!(problems(&conversion.toml), Vec::<String>::new(), "{}", conversion.toml);
        for end in (0..whole.len()).step_by(7) {
            drop(convert(format, &whole[..end]));
            drop(convert(format, &whole[end..]));
        }
    }
}

/// Processor time of this thread in nanoseconds (proc(5), schedstat).
fn processor_time() -> u64 {
    let times = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_time_of_a_conversion_grows_with_the_file_and_not_with_its_square() {
    let servers = |number: usize| {
        let line = |at: usize| format!(" server s{at} s{at}:80 check inter 1{at} observe layer4\n");
        format!("listen x\n bind :80\n{}", (0..number).map(line).collect::<String>())
    };
    let proxies = |number: usize| {
        let proxy = |at: usize| {
            format!(
                "frontend f{at}\n bind :{} transparent\n default_backend b{at}\n\
                 backend b{at}\n server s s\n",
                at + 1
            )
        };
        (0..number).map(proxy).collect::<String>()
    };
    let upstreams = |number: usize| {
        let pair = |at: usize| {
            format!(
                "upstream u{at} {{ server a{at}:1 max_fails={at}; server b:1; }}\n\
                 server {{ listen {}; proxy_pass u{at}; }}\n",
                at + 1
            )
        };
        format!("stream {{\n{}}}\n", (0..number).map(pair).collect::<String>())
    };
    let cost = |format: Format, text: &str| {
        let before = processor_time();
        drop(convert(format, text).unwrap());
        processor_time() - before
    };
    let cases: [(Format, &dyn Fn(usize) -> String); 3] =
        [(Format::Haproxy, &servers), (Format::Haproxy, &proxies), (Format::Nginx, &upstreams)];
    for (format, text) in cases {
        let (small, large) = (cost(format, &text(125)), cost(format, &text(2000)));
        // 16 times the file: 16 times the time, not 256 times.
        assert!(large < 64 * small, "{small} ns and {large} ns: {}", text(2));
    }
}

#[test]
fn a_hostile_file_takes_little_time_and_its_messages_are_short() {
    let many = |text: &str| text.repeat(200_000);
    let word = "x".repeat(1 << 20);
    for (format, text) in [
        (Format::Nginx, many("{")),
        (Format::Nginx, many("}")),
        (Format::Nginx, many("a{")),
        (Format::Nginx, many("a\n{\n;")),
        (Format::Nginx, word.clone()),
        (Format::Nginx, format!("stream {{ {word} 1; }}")),
        (Format::Haproxy, many(".if 1\n")),
        (Format::Haproxy, format!(".if {}1\n", many("!"))),
        (Format::Haproxy, format!(".if {}1\n", many("1||"))),
        (Format::Haproxy, format!(".alert \"{word}\"\n.{word}\n")),
        (Format::Haproxy, format!("listen x\n {word}\n bind :80\n server {word} {word}:80\n")),
    ] {
        let before = processor_time();
        let lines: Vec<String> = match convert(format, &text) {
            Ok(conversion) => {
                let notes = conversion.report.iter().map(ToString::to_string);
                notes.chain(conversion.toml.lines().map(ToOwned::to_owned)).collect()
            }
            Err(refused) => refused.to_string().lines().map(ToOwned::to_owned).collect(),
        };
        let spent = Duration::from_nanos(processor_time() - before);
        let start: String = text.chars().take(20).collect();
        assert!(spent < Duration::from_secs(3), "{start:?}: {spent:?}");
        let longest = lines.iter().map(String::len).max().unwrap_or_default();
        assert!(longest <= 600, "{start:?}: {longest}");
    }
    let listed = refusal(Format::Nginx, &many("{\n"));
    assert_eq!(listed.lines().count(), 101);
    assert!(listed.ends_with("x.cfg: and 199900 more problems"), "{listed}");
}

#[test]
fn a_result_that_evenkeel_would_not_read_is_refused() {
    let server = |at: usize| format!(" server s{at} host-with-a-name-{at}.example.net:80\n");
    let servers: String = (0..20_000).map(server).collect();
    let text = format!("listen x\n bind :80\n timeout connect 1s\n{servers}");
    let refused = refusal(Format::Haproxy, &text);
    assert!(refused.contains("evenkeel reads at most 1048576"), "{refused}");
    // Without the notes it is short enough.
    let server = |at: usize| format!(" server s{at} s{at}:80 observe layer4\n");
    let servers: String = (0..6000).map(server).collect();
    let text = format!("listen x\n bind :80\n timeout connect 1s\n{servers}");
    let conversion = convert(Format::Haproxy, &text).unwrap();
    assert!(conversion.toml.len() <= 1 << 20 && conversion.report.len() >= 6000);
    assert!(conversion.toml.starts_with("# The notes on lines are on standard error only"));
    assert_eq!(problems(&conversion.toml), Vec::<String>::new());
}

#[test]
fn options_of_sockets_are_accepted_as_they_are_converted() {
    let haproxy = "defaults\n mode tcp\n timeout connect 3s\n timeout client 1m\n \
                   timeout server 1m\n\
                   frontend f\n bind 127.0.0.1:80 tfo defer-accept\n option clitcpka\n \
                   clitcpka-idle 30s\n default_backend b\n\
                   backend b\n option srvtcpka\n source 192.0.2.9\n server a 192.0.2.1:80 tfo\n\
                   frontend g\n bind 127.0.0.1:81\n default_backend c\n\
                   backend c\n source 0.0.0.0 usesrc client\n server a 192.0.2.1:80\n";
    let nginx = "stream {\n server {\n listen 127.0.0.1:80 fastopen=16 deferred \
                 so_keepalive=30s::;\n proxy_bind $remote_addr transparent;\n \
                 proxy_socket_keepalive on;\n proxy_pass 192.0.2.1:80;\n }\n}\n";
    for (format, text) in [(Format::Haproxy, haproxy), (Format::Nginx, nginx)] {
        let conversion = convert(format, text).unwrap();
        let config = config::parse(&conversion.toml, "x");
        let config = config.unwrap_or_else(|problems| panic!("{problems}\n{}", conversion.toml));
        let frontend = &config.frontends[0];
        assert!(frontend.fast_open && frontend.defer_accept, "{}", conversion.toml);
        assert_eq!(frontend.keepalive, Some(Duration::from_secs(30)));
        assert!(config.backends.iter().any(|backend| backend.source.client().is_some()));
        assert_eq!(config.backends[0].keepalive, Some(Duration::from_secs(2 * 60 * 60)));
    }
}

#[test]
fn the_configuration_that_evenkeel_replaces_is_converted_without_a_loss() {
    // From the first page of the design: the balancer of a few Raspberry Pis.
    let text = "frontend http\n    bind *:80\n    mode http\n    default_backend web-backend\n\
                backend web-backend\n    balance roundrobin\n    server web1 rpi-b:80 check\n    \
                server web2 rpi-c:80 check\n";
    let conversion = convert(Format::Haproxy, text).unwrap();
    assert!(!conversion.has_losses(), "{:?}", conversion.report);
    let config = config::parse(&conversion.toml, "x");
    let config = config.unwrap_or_else(|problems| panic!("{problems}\n{}", conversion.toml));
    assert_eq!((config.frontends.len(), config.backends.len()), (1, 1));
    has(
        &conversion,
        &[
            "[frontend.http]",
            "bind = [\"0.0.0.0:80\"]",
            "backend = \"web-backend\"",
            "[backend.web-backend]",
            "balance = \"roundrobin\"",
            "check = \"tcp\"",
            "address = \"rpi-b:80\"",
            "address = \"rpi-c:80\"",
        ],
    );
}

#[test]
fn the_format_is_told_by_the_text() {
    assert_eq!(Format::of("global\n  daemon\nlisten x\n"), Format::Haproxy);
    assert_eq!(Format::of("stream {\n  server { listen 1; proxy_pass x:1; }\n}\n"), Format::Nginx);
    assert_eq!(Format::of("upstream backend {\n server x:1;\n}\n"), Format::Nginx);
}

#[test]
fn a_file_without_a_frontend_is_refused() {
    assert!(refusal(Format::Haproxy, "global\n daemon\n").contains("no frontend"));
    assert!(
        refusal(Format::Nginx, "events { }\nhttp { server { listen 80; } }\n")
            .contains("no frontend")
    );
    let missing = convert::convert(None, Path::new("does-not-exist.cfg")).unwrap_err();
    assert!(missing.to_string().contains("does-not-exist.cfg: cannot be read"), "{missing}");
}

#[test]
fn a_result_says_where_it_comes_from_and_what_must_be_read_first() {
    let text = "listen x\n bind :443 ssl crt x\n bind :80\n timeout connect 1s\n server a b:1\n";
    let conversion = convert(Format::Haproxy, text).unwrap();
    let head: Vec<&str> = conversion.toml.lines().take(4).collect();
    assert_eq!(head[0], "# Converted from x.cfg by `evenkeel convert`.");
    assert!(head[3].starts_with("# line 2: not converted: bind :443 ssl crt x: TLS"), "{head:?}");
    assert!(conversion.has_losses());
    let note = conversion.report[0].to_string();
    assert!(note.starts_with("x.cfg:2: not converted: bind :443 ssl crt x: TLS"), "{note}");
}
