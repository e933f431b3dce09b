//! Lines that HAProxy 2.6 and nginx 1.22 refuse, or accept, whatever they look like. `haproxy -c`
//! and `nginx -t` were asked for each.

use evenkeel::convert::Format;

use super::{convert, has, lacks, reported};

/// A section whose third line is the one in question.
fn proxy(line: &str) -> String {
    format!("listen x\n timeout connect 1s\n {line}\n bind :1\n server s a:1 check\n")
}

/// Lines of a proxy that HAProxy refuses.
const REFUSED: &[&str] = &[
    // Conditions.
    "tcp-request content reject if { src 1.2.3.4",
    "tcp-request content reject if { src 1.2.3.4 } { dst_port 5",
    "tcp-request content reject if { }",
    "tcp-request content reject if }",
    "http-request deny if { src 1.2.3.4",
    "use_backend x if { src 1.2.3.4",
    "acl or src 1.1.1.1",
    "acl OR src 1.1.1.1",
    "acl x/y src 1.1.1.1",
    "acl x src 10.0.0.0/33",
    "acl x src 10.0.0.1 ::1/129",
    "acl x dst_port abc",
    "acl x dst_port gt abc",
    "acl x dst_port 5:3",
    "acl x fe_conn gt abc",
    "acl x req.ssl_sni -m foo x",
    "tcp-request content reject if { src 10.0.0.0/33 }",
    "tcp-request content reject if { dst_port abc }",
    // Health checks.
    "http-check expect status abc",
    "http-check expect status 200,abc",
    "http-check expect status 200-",
    "http-check expect status",
    "http-check expect ! status",
    "http-check expect foo bar",
    "http-check expect",
    "http-check foo",
    "http-check send foo",
    "http-check send meth",
    "http-check connect foo",
    "http-check connect port 99999",
    "tcp-check expect foo bar",
    "tcp-check expect string",
    "tcp-check expect ! string",
    "tcp-check expect binary 123",
    "tcp-check expect comment x",
    "tcp-check expect string a b",
    "tcp-check send a b",
    "tcp-check connect port 99999",
    "tcp-check connect port 0",
    "tcp-check connect port abc",
    "tcp-check connect port",
    "tcp-check connect foo",
    "tcp-check foo",
    "tcp-check comment",
    "option mysql-check user",
    "option mysql-check foo",
    "option mysql-check user x foo",
    "option pgsql-check",
    "option pgsql-check foo x",
    // Algorithms and tables.
    "balance random(0)",
    "balance random(x)",
    "balance leastconn(2)",
    "balance hdr",
    "balance url_param",
    "balance hash",
    "hash-type foo",
    "hash-type consistent foo",
    "hash-type map-based crc32 foo",
    "hash-type",
    "hash-balance-factor 5",
    "stick-table type foo size 1",
    "stick-table type ip",
    "stick-table type ip size 0",
    "stick-table type ip size 1k expire x",
    "stick-table type ip size 1k store foo",
    "stick-table type ip size 1k store conn_rate",
    "stick-table type ip size 1k store conn_cur,conn_rate(x)",
    // The rest.
    "source 127.0.0.1:5-9",
    "source 127.0.0.1 usesrc foo",
    "source 127.0.0.1 usesrc",
    "source 127.0.0.1 foo",
    "source 127.0.0.1 interface",
    "retry-on foo",
    "clitcpka-idle x",
    "clitcpka-idle",
    "clitcpka-cnt x",
    "srvtcpka-intvl x",
    "bind ipv4@[::1]:1026",
    "bind ipv6@127.0.0.1:1026",
    "bind ,:1026",
    "bind :1026,,:1027",
    "rate-limit sessions 5x",
    "rate-limit sessions",
    "rate-limit foo 5",
    "tcp-request connection foo",
    "tcp-request content",
    "tcp-request connection track-sc0",
    "tcp-request connection silent-drop foo",
    "server a b:1 init-addr foo",
    "server a b:1 init-addr last,foo",
    "server a b:1 observe foo",
    "server a b:1 on-error foo",
    "server a b:1 resolve-prefer foo",
    "server a b:1 source 1.2.3.4 usesrc foo",
];

#[test]
fn words_out_of_a_closed_set_and_values_out_of_range_are_refused() {
    for line in REFUSED {
        let refused = convert(Format::Haproxy, &proxy(line)).map(|conversion| conversion.toml);
        let problem = refused.expect_err(line).to_string();
        assert!(problem.starts_with("x.cfg:3: ") && problem.contains("; "), "{problem}");
    }
}

/// Lines of a proxy that HAProxy accepts.
const ACCEPTED: &[&str] = &[
    "tcp-request connection accept if",
    "tcp-request content reject if !",
    "tcp-request content reject if TRUE or",
    "acl and src 1.1.1.1",
    "acl x src localhost",
    "acl x src 10.0.0",
    "acl x src",
    "acl x dst_port 99999",
    "acl x dst_port gt",
    "acl x dst_port 5-9",
    "acl x fe_conn 5 lt",
    "acl x always_true foo",
    "acl x src,map(/x) -m str abc",
    "http-check expect status 99999",
    "http-check expect ! rstatus ^5",
    "http-check expect !rstatus ^5",
    "http-check expect hdr name x",
    "http-check expect min-recv 5 comment a string x",
    "http-check send meth GET uri / ver HTTP/1.1 hdr Host x",
    "http-check connect port 81 ssl sni x alpn h2 linger default comment a",
    "tcp-check expect min-recv x string a",
    "tcp-check expect !rstring ^a",
    "tcp-check connect port dst_port",
    "tcp-check set-var(check.x) int(1)",
    "tcp-check send-lf a",
    "tcp-check send a comment b",
    "tcp-check expect string a comment b on-error x",
    "option mysql-check",
    "option mysql-check user x post-41",
    "option pgsql-check user x",
    "balance random(2)",
    "balance random()",
    "balance roundrobin x",
    "balance hdr(x)",
    "balance hash src",
    "hash-type consistent sdbm avalanche",
    "hash-type map-based",
    "hash-balance-factor 150",
    "stick-table type string len 5 size 1",
    "stick-table type ip size 1k expire 10s nopurge store gpc0,gpc0_rate(10s),conn_cur",
    "stick-table type ip size 128K expire 30m store gpc(2),gpc_rate(2,10s),conn_rate(1m)",
    "source 127.0.0.1:5",
    "source 0.0.0.0 usesrc clientip",
    "source 0.0.0.0 usesrc hdr_ip(x-forwarded-for,-1) interface eth0",
    "retry-on conn-failure 503",
    "clitcpka-idle 10s",
    "clitcpka-cnt 3",
    "bind :1026,",
    "rate-limit sessions -1",
    "tcp-request connection expect-proxy layer4",
    "tcp-request connection silent-drop",
    "tcp-request content sc-inc-gpc0(0)",
    "server a b:1 init-addr last,libc,none,1.2.3.4",
    "server a b:1 observe layer4 on-error mark-down",
    "server a b:1 source 0.0.0.0 usesrc client",
];

#[test]
fn unusual_lines_that_haproxy_accepts_are_not_refused() {
    for line in ACCEPTED {
        let refused = convert(Format::Haproxy, &proxy(line)).map(drop);
        assert!(refused.is_ok(), "{line}: {refused:?}");
    }
}

#[test]
fn a_condition_without_a_criterion_never_holds() {
    let empty = convert(Format::Haproxy, &proxy("tcp-request connection reject if")).unwrap();
    lacks(&empty, "deny");
    let unless = proxy("tcp-request connection reject unless");
    has(&convert(Format::Haproxy, &unless).unwrap(), &["deny = [\"0.0.0.0/0\", \"::/0\"]"]);
    let last = proxy("tcp-request connection reject if { src 10.0.0.0/8 } or");
    has(&convert(Format::Haproxy, &last).unwrap(), &["deny = [\"10.0.0.0/8\"]"]);
    let rate = convert(Format::Haproxy, &proxy("rate-limit sessions -1")).unwrap();
    lacks(&rate, "rate.");
    let comma = convert(Format::Haproxy, &proxy("bind :1026,")).unwrap();
    has(&comma, &["bind = [\"0.0.0.0:1026\", \"0.0.0.0:1\"]"]);
    assert_eq!(reported(&comma), Vec::<usize>::new());
}

#[test]
fn arguments_that_nginx_refuses_are_refused() {
    let upstream = |line: &str| {
        format!(
            "stream {{\nupstream u {{\n{line}\nserver a:1; }}\n\
             server {{ listen 1; proxy_pass u; }}\n}}\n"
        )
    };
    let server = |line: &str| {
        let zone = "limit_conn_zone $remote_addr zone=z:1m;";
        format!("stream {{ {zone}\nserver {{ listen 1; proxy_pass a:1;\n{line}\n}}\n}}\n")
    };
    let alone =
        |line: &str| format!("stream {{\n\n{line}\nserver {{ listen 1; proxy_pass a:1; }}\n}}\n");
    let refused = [
        "random three;",
        "random two foo;",
        "random two least_conn x;",
        "hash;",
        "hash $remote_addr foo;",
        "ip_hash;",
    ];
    let refused = refused.iter().map(|line| upstream(line));
    let lines = [
        "allow 10.0.0.0/33;",
        "allow 10.0.0.0/x;",
        "allow foo;",
        "deny ::1/129;",
        "set_real_ip_from 10.0.0.0/33;",
        "limit_conn z 0;",
        "limit_conn z 65536;",
        "limit_conn z x;",
        "limit_conn z;",
        "limit_conn z 1; limit_conn z 2;",
        "proxy_next_upstream_tries x;",
        "proxy_bind 127.0.0.1:5 foo;",
        "listen 2 so_keepalive=foo;",
        "listen 2 so_keepalive=::;",
        "listen 2 backlog=x;",
        "listen 2 backlog=0;",
        "listen 2 ipv6only=foo;",
        "listen 2 reuseport=1;",
    ];
    let refused = refused.chain(lines.iter().map(|line| server(line)));
    let lines = [
        "resolver valid=foo;",
        "resolver 127.0.0.1 valid=foo;",
        "resolver 127.0.0.1 ipv6=foo;",
        "resolver 127.0.0.1 foo=x;",
        "resolver;",
        "limit_conn_zone $remote_addr zone=z;",
    ];
    for text in refused.chain(lines.iter().map(|line| alone(line))) {
        let refused = convert(Format::Nginx, &text).map(|conversion| conversion.toml);
        let problem = refused.expect_err(&text).to_string();
        assert!(problem.starts_with("x.cfg:3: ") && problem.contains("; "), "{text}{problem}");
    }
    for text in [
        upstream("random;"),
        upstream("random two;"),
        upstream("random two least_conn;"),
        upstream("hash $remote_addr consistent;"),
        server("allow 10.0.0.1/8; allow unix:; allow all;"),
        server("limit_conn z 65535;"),
        server("proxy_bind $remote_addr transparent;"),
        server("listen 2 so_keepalive=:5s: backlog=5 fastopen=5 deferred reuseport;"),
        alone("resolver 127.0.0.1 [::1]:5353 valid=5s ipv6=off;"),
    ] {
        let refused = convert(Format::Nginx, &text).map(drop);
        assert!(refused.is_ok(), "{text}{refused:?}");
    }
}
