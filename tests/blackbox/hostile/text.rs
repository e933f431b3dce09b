//! Text from elsewhere: what servers answer to probes, and names with characters that logs, metrics
//! and terminals give a meaning (case 97). It adds no line, no series and no element.

use std::io::Write;

use serde_json::Value;

use crate::common::client::{connect, exchange};
use crate::common::wait::until_some;
use crate::common::{Balancer, Config, Server, TestEnv, http};
use crate::health_exchange::{exchange as exchange_check, until_logged};

/// Answers to a probe that expects "+OK".
const ANSWERS: [&[u8]; 4] = [
    b"x\r\n2026-12-01T00:00:00Z  INFO server web/0 is up: connected\r\n",
    b"x\"} 1\nevenkeel_planted{server=\"a\\\",\x1b[2J\x1b]0;title\x07\x08\x00\x7f\xc2\x9b1m\xff",
    b"x</td><script>alert(1)</script>&lt;'\"><img src=x onerror=alert(1)>\x85\xe2\x80\xa8y",
    b"x\",\"level\":\"INFO\",\"planted\":\"\\u000a\\\"}\n{\"level\":\"INFO\",\"message\":\"up\"}\n",
];

fn has_control(text: &str) -> bool {
    text.contains(|c: char| c.is_control() && c != '\n')
}

/// What an operator is shown, wherever it looks.
struct Shown {
    log: String,
    metrics: String,
    page: String,
    status: String,
    report: Value,
}

impl Shown {
    fn by(balancer: &Balancer<'_>, env: &TestEnv) -> Self {
        let document = |path| {
            let (status, text) = http::get(env.observe(), path).unwrap();
            assert_eq!(status, 200, "{text}");
            text
        };
        let report = balancer.control_ok(&["status", "--json"]);
        assert!(!has_control(&report), "{report:?}");
        let shown = Self {
            log: balancer.application_log(),
            metrics: document("/metrics"),
            page: document("/"),
            status: balancer.control_ok(&["status"]),
            report: serde_json::from_str(&report).unwrap(),
        };
        for text in [&shown.log, &shown.metrics, &shown.page, &shown.status] {
            assert!(!has_control(text), "{text:?}");
        }
        assert!(!shown.page.contains("<script") && !shown.page.contains("<img"), "{}", shown.page);
        shown
    }

    /// The row of a server in `evenkeel status`.
    fn row(&self, server: &str) -> &str {
        let rows: Vec<&str> = self.status.lines().filter(|line| line.starts_with(server)).collect();
        assert_eq!(rows.len(), 1, "{server}: {}", self.status);
        rows[0]
    }
}

#[test]
fn the_answer_of_a_server_adds_no_line_no_series_and_no_element() {
    for format in ["text", "json"] {
        let env = TestEnv::new();
        let mut config = Config::new(&env)
            .health(&exchange_check("{ expect = \"+OK\" }"))
            .log(&format!("format = \"{format}\""));
        let servers: Vec<Server> = (9001..)
            .zip(ANSWERS)
            .map(|(port, answer)| {
                Server::start(env.port(port), move |mut stream| drop(stream.write_all(answer)))
            })
            .collect();
        for (number, server) in servers.iter().enumerate() {
            config = config.server(&number.to_string(), server.address);
        }
        let balancer = Balancer::start(&env, &config);
        for number in 0..servers.len() {
            until_logged(&balancer, &format!("server web/{number} is down: "));
        }
        let shown = Shown::by(&balancer, &env);
        for line in shown.log.lines() {
            if format == "json" {
                let line: Value = serde_json::from_str(line).unwrap();
                assert!(line["message"].is_string() && line.get("planted").is_none(), "{line}");
            }
            // A line that a server made would begin with its text.
            assert!(line.starts_with(if format == "json" { "{\"timestamp\"" } else { "20" }));
            let is_one = line.matches("is down: ").count() <= 1;
            assert!(
                is_one && (!line.contains("web/0 is up") || line.contains("is down: ")),
                "{line}"
            );
        }
        let downs = shown.log.lines().filter(|line| line.contains(" is down: ")).count();
        assert_eq!(downs, servers.len(), "{}", shown.log);
        assert!(!shown.metrics.contains("planted"), "an answer is no label: {}", shown.metrics);
        for (number, answer) in ANSWERS.iter().enumerate() {
            let found = &shown.report["servers"][number];
            assert_eq!(found["state"], "down");
            let detail = found["last_probe"].as_str().unwrap();
            let begin = answer[..answer.len().min(40)].escape_ascii();
            assert!(detail.contains(&format!("received \"{begin}")), "{detail}");
            shown.row(&format!("web/{number} "));
        }
    }
}

#[test]
fn names_with_quotes_and_marks_are_escaped_wherever_they_are_shown() {
    const NAME: &str = r#"a"b"\n<img,src=x>&{c="d",}'1"#;
    let env = TestEnv::new();
    let echo = Server::echo(env.port(9001));
    let quoted = serde_json::to_string(NAME).unwrap();
    let config = |format: &str| {
        Config::new(&env).log(&format!("format = \"{format}\"")).server("a", echo.address).more(
            &format!(
                "[frontend.{quoted}]\nbind = [\"{}\"]\nbackend = {quoted}\n[backend.{quoted}]\n\
                 [backend.{quoted}.health]\ncheck = \"off\"\n[[backend.{quoted}.server]]\n\
                 name = {quoted}\naddress = \"{}\"\n",
                env.port(8001),
                echo.address
            ),
        )
    };
    for format in ["text", "json"] {
        let balancer = Balancer::start(&env, &config(format));
        assert_eq!(exchange(&connect(env.port(8001)), b"hello"), b"hello");
        let record = until_some("the session is logged", || balancer.sessions().pop());
        if format == "json" {
            let record: Value = serde_json::from_str(&record).unwrap();
            assert_eq!((&record["frontend"], &record["server"]), (&NAME.into(), &NAME.into()));
        } else {
            drop(connect(env.frontend()));
            let usual =
                until_some("a session is logged", || balancer.sessions().into_iter().nth(1));
            let words = |line: &str| line.split(' ').count();
            assert_eq!(words(&record), words(&usual), "{record}\n{usual}");
        }
        let shown = Shown::by(&balancer, &env);
        let label = NAME.replace('\\', r"\\").replace('"', "\\\"");
        let series = format!("evenkeel_sessions_total{{frontend=\"{label}\"}} 1\n");
        assert!(shown.metrics.contains(&series), "{series}{}", shown.metrics);
        assert_eq!(shown.report["servers"][1]["name"], NAME);
        balancer.control_ok(&["drain", &format!("{NAME}/{NAME}")]);
        balancer.assert_no_leaks();
    }
}
