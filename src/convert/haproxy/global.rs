//! The `global` section, and the name servers.

use super::arguments;
use super::keywords::{self, Treatment};
use super::lexer::{self, Line};
use super::sections::Sections;
use crate::convert::draft::Setting;
use crate::convert::literal;
use crate::convert::report::Report;

/// Keys of `[global]`, `[observe]` and `[observe.log]`.
pub(super) fn convert(sections: &Sections, report: &Report) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    for line in sections.global.iter().filter(|line| !line.is_no) {
        if let Some(name) = line.words.iter().find_map(|word| lexer::unset(word)) {
            let keyword = keywords::global(line.word(0), line.word(1));
            if keyword.is_none_or(|keyword| keyword.treatment != Treatment::Drop) {
                let reason = format!("the environment variable {name} has no value here");
                report.report(line.place, reason);
            }
            continue;
        }
        for setting in one(line, report) {
            // The last line acts, except for sockets: evenkeel has one.
            settings.retain(|other| other.key != setting.key || other.table != setting.table);
            settings.push(setting);
        }
    }
    control(sections, &mut settings, report);
    resolver(sections, &mut settings, report);
    settings
}

fn one(line: &Line, report: &Report) -> Vec<Setting> {
    const SESSIONS_MAX: u64 = 10_000_000;
    let setting = |key, value| vec![Setting { table: "global", key, value }];
    let number = arguments::integer(line.word(1)).and_then(|it| u64::try_from(it).ok());
    match (line.word(0), number) {
        ("maxconn", Some(number)) if number > SESSIONS_MAX => {
            report.near(line.place, format!("{SESSIONS_MAX}, the most that evenkeel accepts"));
            setting("sessions_max", SESSIONS_MAX.to_string())
        }
        ("maxconn", Some(number)) if number > 0 => setting("sessions_max", number.to_string()),
        ("nbthread", Some(number)) => setting("workers", number.clamp(1, 256).to_string()),
        ("nbproc", Some(number)) => {
            report.near(line.place, "processes become threads");
            setting("workers", number.clamp(1, 256).to_string())
        }
        ("cpu-map", _) => {
            report.near(line.place, "global.pin is a switch; the map cannot be given");
            setting("pin", "true".to_owned())
        }
        ("user", _) => setting("user", literal::quoted(line.word(1))),
        ("group", _) => setting("group", literal::quoted(line.word(1))),
        ("hard-stop-after", _) => {
            let millis = literal::millis(line.word(1), 1).unwrap_or_default();
            setting("drain_timeout", literal::duration(millis))
        }
        ("grace", _) => {
            report.near(line.place, "global.drain_delay: /readyz answers 503 meanwhile");
            let millis = literal::millis(line.word(1), 1).unwrap_or_default();
            setting("drain_delay", literal::duration(millis))
        }
        ("log", _) if is_stream(line.word(1)) => {
            let value = literal::quoted("text");
            vec![Setting { table: "observe.log", key: "format", value }]
        }
        ("stats", _) => Vec::new(),
        (first, _) => {
            if let Some(keyword) = keywords::global(first, line.word(1))
                && keyword.treatment == Treatment::Report
            {
                report.report(line.place, keyword.text);
            }
            Vec::new()
        }
    }
}

/// A log target that is a standard stream.
fn is_stream(target: &str) -> bool {
    matches!(target, "stdout" | "stderr" | "/dev/stdout" | "/dev/stderr" | "fd@1" | "fd@2")
}

/// The first socket with a path becomes the control socket: in the folder of evenkeel, the only one
/// in which its systemd unit may write.
fn control(sections: &Sections, settings: &mut Vec<Setting>, report: &Report) {
    const PATH_MAX: usize = 107;
    const FOLDER: &str = "/run/evenkeel/";
    const DEFAULT: &str = "/run/evenkeel/control.sock";
    let mut has_one = false;
    let sockets = sections.global.iter();
    for line in sockets.filter(|line| line.word(0) == "stats" && line.word(1) == "socket") {
        let word = line.word(2);
        let path = ["unix@", "uxst@"].iter().find_map(|it| word.strip_prefix(it)).unwrap_or(word);
        if !path.starts_with('/') || path.len() > PATH_MAX || path.ends_with('/') {
            let reason =
                "the control socket has an absolute path, and is reached on this machine only";
            report.report(line.place, reason);
        } else if has_one {
            report.report(line.place, "evenkeel has one control socket");
        } else {
            has_one = true;
            let is_own = path.strip_prefix(FOLDER).is_some_and(|name| !name.contains('/'));
            if is_own {
                report
                    .near(line.place, "observe.control: the path is kept; level and mode are not");
                let value = literal::quoted(path);
                settings.push(Setting { table: "observe", key: "control", value });
            } else {
                let remark = "the service may write only there; level and mode are not kept";
                report.near(line.place, format!("observe.control: {DEFAULT}, as {remark}"));
            }
        }
    }
}

/// The name servers of the `resolvers` sections that servers name.
fn resolver(sections: &Sections, settings: &mut Vec<Setting>, report: &Report) {
    let mut servers: Vec<String> = Vec::new();
    let mut first: Option<&str> = None;
    for section in sections.others.iter().filter(|other| other.kind == "resolvers") {
        let uses = |line: &std::rc::Rc<Line>| {
            let words = line.words.windows(2);
            words.into_iter().any(|pair| pair[0] == "resolvers" && pair[1] == section.name)
        };
        if !sections.proxies.iter().any(|proxy| proxy.lines.iter().any(uses)) {
            report.near(section.place, "no server uses it: left out");
            continue;
        }
        if let Some(first) = first {
            let reason = format!("evenkeel has one list of name servers, that of {first}");
            report.report(section.place, reason);
            continue;
        }
        let own = section.lines.iter().filter(|line| line.word(0) == "nameserver");
        for line in own {
            match name_server(line.word(2)) {
                Some(address) => servers.push(address),
                None => report.report(line.place, "evenkeel asks name servers by IP address"),
            }
        }
        if !servers.is_empty() {
            first = Some(&section.name);
        }
        // evenkeel reads that file where there is no list of its own.
        let parses = |line: &&std::rc::Rc<Line>| line.word(0) == "parse-resolv-conf";
        if let Some(line) = section.lines.iter().find(parses).filter(|_| !servers.is_empty()) {
            let reason = "the name servers of /etc/resolv.conf are not asked beside those of \
                          global.resolver";
            report.near(line.place, reason);
        }
        if section.lines.iter().any(|line| line.word(0) == "hold") {
            report
                .near(section.place, "evenkeel follows the TTL of each answer, without hold times");
        }
    }
    if !servers.is_empty() {
        let value = literal::list(&servers);
        settings.push(Setting { table: "global", key: "resolver", value });
    }
}

/// "IP:PORT" of a name server; none: it is not an address.
fn name_server(word: &str) -> Option<String> {
    let word = ["udp@", "tcp@", "ipv4@", "ipv6@", "udp4@", "udp6@"]
        .iter()
        .find_map(|prefix| word.strip_prefix(prefix))
        .unwrap_or(word);
    let (host, port) = word.rsplit_once(':').filter(|(_, port)| !port.contains(']'))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse().ok()?;
    let port: u16 = port.parse().ok()?;
    Some(format!("{}:{port}", super::address::ip_text(ip)))
}
