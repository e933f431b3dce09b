//! Health checks, beyond what one probe of evenkeel does.

use evenkeel::convert::{Conversion, Format};

use super::{convert, has, lacks, reported, urgent};

/// A `listen` section with these lines; the first is line 6, and a server that is checked the last.
fn listen(lines: &str) -> Conversion {
    let text = format!(
        "defaults\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n\
         listen x\n{lines} bind :1\n server s a:1 check\n"
    );
    convert(Format::Haproxy, &text).unwrap()
}

#[test]
fn a_check_has_the_steps_of_its_first_connection() {
    // The example of HAProxy's manual.
    let mail = listen(
        " option tcp-check\n tcp-check connect port 110 linger\n \
         tcp-check expect string +OK\\ POP3\\ ready\n tcp-check connect port 143\n \
         tcp-check expect string *\\ OK\\ IMAP4\\ ready\n",
    );
    has(&mail, &["exchange = { contains = \"+OK POP3 ready\" }", "port = 110"]);
    lacks(&mail, "contains = \"* OK");
    assert_eq!((urgent(&mail), reported(&mail)), (vec![9], vec![9, 10]));
    let http = listen(
        " mode http\n option httpchk\n http-check connect port 81\n \
         http-check send meth GET uri /a\n http-check expect status 200\n \
         http-check connect ssl port 82\n http-check send meth HEAD uri /b\n \
         http-check expect status 204\n",
    );
    has(&http, &["http = { method = \"GET\", path = \"/a\", status = \"200\" }", "port = 81"]);
    lacks(&http, "tls = ");
    assert_eq!((urgent(&http), reported(&http)), (vec![11], vec![11, 12, 13]));
}

#[test]
fn every_status_but_a_range_is_a_range_or_is_said() {
    let check = |rule: &str| listen(&format!(" mode http\n option httpchk\n http-check {rule}\n"));
    for (rule, status) in [
        ("expect ! rstatus ^5", "100-499"),
        ("expect ! status 500-599", "100-499"),
        ("expect ! status 100-199", "200-599"),
    ] {
        let conversion = check(rule);
        let line = format!("path = \"/\", status = \"{status}\" }}");
        assert!(conversion.toml.contains(&line), "{line}\n{}", conversion.toml);
        assert_eq!(reported(&conversion), Vec::<usize>::new());
    }
    for rule in ["expect ! status 404", "expect ! rstatus ^4", "expect string OK"] {
        let conversion = check(rule);
        lacks(&conversion, "status = ");
        assert_eq!(urgent(&conversion), [8], "{rule}");
        let reason = &conversion.report.iter().find(|note| note.is_urgent).unwrap().reason;
        assert!(reason.contains("200 to 399 is up and any other is down"), "{reason}");
    }
}

#[test]
fn a_number_of_bytes_to_wait_for_is_reported() {
    let conversion = listen(
        " option tcp-check\n tcp-check expect min-recv 64 comment x string OK\n \
         tcp-check expect comment x string OK\n",
    );
    has(&conversion, &["    { contains = \"OK\" },"]);
    assert_eq!(reported(&conversion), [7]);
}
