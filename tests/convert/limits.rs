//! Limits of sessions and rates, and what happens to the second one of a kind.

use evenkeel::convert::{Conversion, Format};

use super::{convert, differing, has, lacks, reported, urgent};

/// A `listen` section with a table that stores these counters; the first of these lines is line 8.
fn listen(stored: &str, lines: &str) -> Conversion {
    let text = format!(
        "defaults\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n\
         listen x\n stick-table type ip size 1m expire 1h store {stored}\n \
         tcp-request connection track-sc0 src\n{lines} bind :1\n server s a:1\n\
         backend y\n server s a:1\n"
    );
    convert(Format::Haproxy, &text).unwrap()
}

fn none() -> Vec<usize> {
    Vec::new()
}

#[test]
fn a_rate_has_the_period_of_the_counter_that_the_rule_names() {
    for (stored, counter, rate) in [
        ("conn_rate(10s),sess_rate(1h),conn_cur", "sess_rate", "30/h"),
        ("conn_rate(10s),sess_rate(1h),conn_cur", "conn_rate", "30/10s"),
        ("sess_rate(1h),conn_rate(10s)", "conn_rate", "30/10s"),
        ("sess_rate(1h) store conn_rate(10s)", "conn_rate", "30/10s"),
    ] {
        let rule = format!(" tcp-request connection reject if {{ sc0_{counter} gt 30 }}\n");
        let conversion = listen(stored, &rule);
        has(&conversion, &[&format!("rate.per_client = \"{rate}\"")]);
        assert_eq!(conversion.report, [], "{stored}");
    }
    // A counter that the table does not store is 0 in HAProxy.
    let rule = " tcp-request connection reject if { sc0_sess_rate gt 30 }\n";
    let other = listen("conn_rate(10s)", rule);
    lacks(&other, "rate.per_client");
    assert_eq!(urgent(&other), [8]);
    // A counter of the user's own.
    let text = "listen x\n bind :1\n timeout connect 1s\n\
                stick-table type integer size 1 store gpc0_rate(10s),gpc1_rate(1h)\n\
                tcp-request connection track-sc1 int(1)\n\
                tcp-request connection reject if { sc1_gpc1_rate gt 30 }\n server s a:1\n";
    let own = convert(Format::Haproxy, text).unwrap();
    has(&own, &["rate.sessions = \"30/h\""]);
}

#[test]
fn of_two_rates_the_stricter_one_acts_and_none_is_lost_silently() {
    let stored = "conn_rate(10s),sess_rate(1h)";
    let rules = |conn: u32, sess: u32| {
        format!(
            " tcp-request connection reject if {{ sc0_conn_rate gt {conn} }}\n \
             tcp-request connection reject if {{ sc0_sess_rate gt {sess} }}\n"
        )
    };
    // 30 in an hour is less than 20 in 10 seconds; but 30 may come at once.
    let neither = listen(stored, &rules(20, 30));
    has(&neither, &["rate.per_client = \"30/h\""]);
    assert_eq!((urgent(&neither), differing(&neither)), (vec![8], none()));
    let implied = listen(stored, &rules(20, 10));
    has(&implied, &["rate.per_client = \"10/h\""]);
    assert_eq!((reported(&implied), differing(&implied)), (none(), vec![8]));
}

#[test]
fn of_a_limit_and_a_rule_the_stricter_one_acts() {
    let rules = |connections: u32, rate: u32| {
        format!(
            " maxconn 100\n rate-limit sessions 40\n \
             tcp-request connection reject if {{ fe_conn gt {connections} }}\n \
             tcp-request connection reject if {{ fe_sess_rate gt {rate} }}\n"
        )
    };
    let rare = listen("conn_rate(10s)", &rules(500, 50));
    has(&rare, &["rate.sessions = \"40/s\""]);
    has(&rare, &["sessions_max = 100"]);
    assert_eq!(differing(&rare), [10, 11]);
    let strict = listen("conn_rate(10s)", &rules(50, 30));
    has(&strict, &["rate.sessions = \"30/s\""]);
    has(&strict, &["sessions_max = 50"]);
    assert_eq!(differing(&strict), [8, 9, 10]);
    let clients = " tcp-request connection reject if { src_conn_cur gt 20 }\n \
                   tcp-request connection reject if { src_conn_cur gt 10 }\n";
    let clients = listen("conn_cur", clients);
    has(&clients, &["clients_max = 10"]);
    assert_eq!(differing(&clients), [8]);
}

#[test]
fn counters_that_frontends_share_are_said() {
    let frontend = |name: &str, port: u16| {
        format!(
            "frontend {name}\n bind :{port}\n tcp-request connection track-sc0 src table t\n \
             tcp-request connection reject if {{ sc0_conn_cur gt 5 }}\n default_backend b\n"
        )
    };
    let rest = "backend t\n timeout connect 1s\n stick-table type ip size 1 store conn_cur\n\
                backend b\n timeout connect 1s\n server s a:1\n";
    let one = convert(Format::Haproxy, &format!("{}{rest}", frontend("f", 1))).unwrap();
    assert_eq!(one.report, []);
    let text = format!("{}{}{rest}", frontend("f", 1), frontend("g", 2));
    let two = convert(Format::Haproxy, &text).unwrap();
    has(&two, &["clients_max = 5", "clients_max = 5"]);
    assert_eq!((differing(&two), reported(&two)), (vec![4, 9], none()));
    // One section that becomes two frontends.
    let parts = listen(
        "conn_cur",
        " maxconn 100\n tcp-request connection reject if { sc0_conn_cur gt 5 }\n \
         bind :2\n use_backend y if { dst_port 2 }\n",
    );
    has(&parts, &["[frontend.x]", "[frontend.x-1]"]);
    assert_eq!(differing(&parts), [8, 9]);
}
