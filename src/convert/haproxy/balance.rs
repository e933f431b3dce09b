//! How a server is chosen: `balance`, and persistence.

use super::sections::Proxy;
use crate::convert::literal;
use crate::convert::report::{Place, Report};

/// The algorithm; persistence by client address is one.
pub(super) fn balance(proxy: &Proxy, report: &Report) -> String {
    const MOVES: &str = "\"source\": another hash, so clients move once";
    let sticky = stick(proxy, report);
    let line = proxy.last(&["balance"]);
    let place = line.map(|line| line.place).unwrap_or_default();
    let (word, argument) = line.map_or(("roundrobin", ""), |line| (line.word(1), line.word(2)));
    let name = word.split('(').next().unwrap_or_default();
    let algorithm = match name {
        "roundrobin" | "" => "roundrobin",
        "static-rr" => {
            report.near(place, "\"roundrobin\": weights may change while it runs");
            "roundrobin"
        }
        "leastconn" => "leastconn",
        "first" => "first",
        "random" => "random",
        "source" => {
            report.near(place, MOVES);
            "source"
        }
        "hash" if argument == "src" => {
            report.near(place, MOVES);
            "source"
        }
        "rdp-cookie" => {
            report.report(place, "persistence by RDP cookie: servers take turns");
            "roundrobin"
        }
        _ => {
            report.report(place, "a choice by request: servers take turns");
            "roundrobin"
        }
    };
    match sticky {
        Some(rule) if algorithm != "source" => {
            if line.is_some() {
                report.near(place, "\"source\" instead, because of stick on src");
            }
            report.near(rule, MOVES);
            literal::quoted("source")
        }
        _ => literal::quoted(algorithm),
    }
}

/// Where `stick on src` is. Other persistence is reported.
fn stick(proxy: &Proxy, report: &Report) -> Option<Place> {
    let mut sticky = None;
    for line in proxy.all("stick") {
        let key = line.word(2);
        let is_source = line.word(1) == "on" && (key == "src" || key.starts_with("src,ipmask"));
        if is_source && !line.words.iter().any(|word| matches!(word.as_str(), "if" | "unless")) {
            report.near(line.place, "balance = \"source\": without a table");
            sticky = Some(line.place);
        } else {
            // Clients change their servers.
            report
                .urgent(line.place, format!("persistence by {key}: evenkeel has no stick tables"));
        }
    }
    let table = proxy.last(&["stick-table"]).filter(|_| proxy.all("stick").next().is_some())?;
    if sticky.is_some() {
        let reason =
            "balance = \"source\" keeps a client on its server, without a table and its times";
        report.near(table.place, reason);
    } else {
        report.report(table.place, "persistence: evenkeel has no stick tables");
    }
    sticky
}
