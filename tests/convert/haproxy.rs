//! Rules for HAProxy.

use evenkeel::convert::{Conversion, Format};

use super::{convert, differing, has, lacks, refusal, reported, urgent};

/// Converts a proxy below defaults that leave nothing to say.
fn below_defaults(text: &str) -> Conversion {
    let defaults = "defaults\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n";
    convert(Format::Haproxy, &format!("{defaults}{text}")).unwrap()
}

/// A `listen` section with these lines; the first is line 6.
fn listen(lines: &str) -> Conversion {
    below_defaults(&format!("listen x\n{lines}"))
}

/// A frontend with these lines and two backends behind it; the first is line 6.
fn frontend(lines: &str) -> Conversion {
    below_defaults(&format!(
        "frontend x\n{lines}backend a\n server s a:1\nbackend b\n server s b:1\n"
    ))
}

#[test]
fn a_plain_file_is_converted_without_a_note() {
    let text = "global\n maxconn 1000\n nbthread 2\n user haproxy\n hard-stop-after 1m\n\
                frontend web\n bind *:80\n bind [::]:80 v6only\n default_backend web\n \
                maxconn 500\n\
                backend web\n timeout connect 5000\n timeout server 50s\n balance leastconn\n\
                default-server inter 10s fall 5 maxconn 9\n server a a:80 check weight 2\n \
                server b [2001:db8::1]:80 check rise 1 fall 5 disabled\n";
    let conversion = convert(Format::Haproxy, text).unwrap();
    has(&conversion, &["sessions_max = 1000", "workers = 2", "user = \"haproxy\""]);
    has(&conversion, &["drain_timeout = \"1m\""]);
    has(
        &conversion,
        &[
            "[frontend.web]",
            "bind = [\"0.0.0.0:80\", \"[::]:80\"]",
            "backend = \"web\"",
            "sessions_max = 500",
            "idle_timeout = \"50s\"",
            "[backend.web]",
            "balance = \"leastconn\"",
            "connect_timeout = \"5s\"",
            "retries = 3",
            "queue_timeout = \"5s\"",
            "[backend.web.health]",
            "check = \"tcp\"",
            "interval = \"10s\"",
            "interval_down = \"10s\"",
            "timeout = \"10s\"",
            "fall = 5",
            "[[backend.web.server]]",
            "name = \"a\"",
            "address = \"a:80\"",
            "weight = 2",
            "sessions_max = 9",
            "address = \"[2001:db8::1]:80\"",
            "weight = 1",
            "state = \"maint\"",
        ],
    );
    // rise differs between the servers.
    assert_eq!(reported(&conversion).len(), 1, "{:?}", conversion.report);
}

#[test]
fn without_timeouts_sessions_never_end_and_without_check_servers_are_not_probed() {
    let text = "listen x\n bind :1\n server a a:1\n";
    let conversion = convert(Format::Haproxy, text).unwrap();
    has(&conversion, &["idle_timeout = \"off\"", "retries = 3", "check = \"off\""]);
    assert_eq!(differing(&conversion), [1], "no timeout connect");
}

#[test]
fn the_shorter_timeout_acts_and_a_tunnel_replaces_both() {
    let differ = listen(" bind :1\n timeout client 30s\n server a a:1\n");
    has(&differ, &["idle_timeout = \"30s\""]);
    assert_eq!(differing(&differ), [4, 7]);
    let tunnel = listen(" bind :1\n timeout client 30s\n timeout tunnel 1h\n server a a:1\n");
    has(&tunnel, &["idle_timeout = \"1h\""]);
    assert_eq!(differing(&tunnel), Vec::<usize>::new());
    // One backend of two has it.
    let lost = frontend(
        " bind :1\n default_backend a\n use_backend c if { req.ssl_sni x }\n\
         backend c\n timeout tunnel 1h\n server s c:1\n",
    );
    has(&lost, &["idle_timeout = \"1m\""]);
    assert_eq!(reported(&lost), [10]);
    let http = listen(" bind :1\n mode http\n timeout tunnel 1h\n server a a:1\n");
    has(&http, &["idle_timeout = \"1m\""]);
    assert_eq!(differing(&http), [7, 8], "requests, and tunnels");
    let never = listen(" bind :1\n timeout client 0\n timeout server 0\n server a a:1\n");
    has(&never, &["idle_timeout = \"off\""]);
    let fin = listen(" bind :1\n timeout client-fin 5s\n timeout server-fin 3s\n server a a:1\n");
    has(&fin, &["half_closed_timeout = \"3s\""]);
    assert_eq!(differing(&fin), [7, 8]);
}

#[test]
fn addresses_of_every_family_are_listened_on() {
    let conversion = frontend(
        " bind *:21,*:21000-22000\n bind unix@/run/x.sock mode 600\n bind :::443 v4v6\n \
         bind localhost:90\n default_backend a\n",
    );
    has(
        &conversion,
        &["bind = [\"0.0.0.0:21\", \"0.0.0.0:21000-22000\", \"unix:/run/x.sock\", \
            \"0.0.0.0:443\", \
         \"[::]:443\", \"127.0.0.1:90\"]"],
    );
    assert_eq!(reported(&conversion), Vec::<usize>::new());
    assert_eq!(differing(&conversion), [7], "the mode of the socket");
    let wide = frontend(" bind :80,:10000-20000\n bind unix@x.sock\n default_backend a\n");
    has(&wide, &["bind = [\"0.0.0.0:80\"]"]);
    assert_eq!(reported(&wide), [6, 7], "too many ports, and a relative path");
    let other = frontend(
        " bind :80 transparent\n bind abns@x\n bind quic4@:443\n bind :81 interface eth0\n \
         default_backend a\n",
    );
    has(&other, &["bind = [\"0.0.0.0:80\", \"0.0.0.0:81\"]"]);
    assert_eq!(reported(&other), [6, 7, 8, 9]);
}

#[test]
fn a_frontend_that_ends_tls_is_left_out_and_said_first() {
    let conversion = frontend(" bind :80\n bind :443 ssl crt x.pem alpn h2\n default_backend a\n");
    has(&conversion, &["[frontend.x]", "bind = [\"0.0.0.0:80\"]"]);
    has(&conversion, &["# [frontend.x-443]", "# bind = [\"0.0.0.0:443\"]"]);
    assert_eq!(reported(&conversion), [7]);
    assert!(conversion.report[0].is_urgent);
    // Alone, it stays and refuses every client: a file has a frontend.
    let alone = frontend(" bind :443 ssl crt x.pem\n default_backend a\n");
    has(&alone, &["[frontend.x]", "deny = [\"0.0.0.0/0\", \"::/0\"]"]);
    // The servers speak TLS themselves.
    let both = listen(" bind :443 ssl crt x.pem\n server a a:443 ssl verify none\n");
    has(&both, &["[frontend.x]", "bind = [\"0.0.0.0:443\"]"]);
    lacks(&both, "\ndeny = ");
    assert_eq!(reported(&both), [6, 7]);
}

#[test]
fn tls_to_a_server_is_reported_and_its_probe_speaks_tls() {
    let conversion = listen(" bind :1\n server a a:443 ssl verify none check check-sni www.x\n");
    has(&conversion, &["tls = { verify = false, name = \"www.x\" }"]);
    assert_eq!(reported(&conversion), [7]);
    let check = listen(" bind :1\n server a a:1 check check-ssl verify required ca-file x\n");
    has(&check, &["tls = { verify = true }"]);
    assert_eq!((reported(&check), differing(&check)), (vec![], vec![7]));
}

#[test]
fn probes_with_tls_of_some_servers_only_are_urgent() {
    let servers = " server a a:1 check check-ssl\n server b b:2 check\n server c c:3\n";
    let connect = listen(&format!(" bind :1\n{servers}"));
    lacks(&connect, "tls = ");
    assert_eq!(urgent(&connect), [7]);
    let request = listen(&format!(" bind :1\n option httpchk\n{servers}"));
    has(&request, &["tls = { verify = false }"]);
    assert_eq!(urgent(&request), [9, 10]);
    let all = listen(" bind :1\n option ssl-hello-chk\n server a a:1 check\n server b b:2 check\n");
    has(&all, &["tls = { verify = false }"]);
    assert_eq!(urgent(&all), [] as [usize; 0]);
}

#[test]
fn server_names_choose_backends() {
    let conversion = frontend(
        " bind :443\n tcp-request inspect-delay 5s\n \
         tcp-request content accept if { req_ssl_hello_type 1 }\n \
         acl one req.ssl_sni -i www.one.org one.org\n use_backend a if one\n \
         use_backend b if { req.ssl_sni -m end .two.org } or { req_ssl_sni -i three.org }\n \
         use_backend a if { req.ssl_alpn acme-tls/1 }\n default_backend b\n",
    );
    has(
        &conversion,
        &[
            "backend = \"b\"",
            "preface_timeout = \"5s\"",
            "[frontend.x.sni]",
            "\"www.one.org\" = \"a\"",
            "\"one.org\" = \"a\"",
            "\"*.two.org\" = \"b\"",
            "\"three.org\" = \"b\"",
            "[frontend.x.alpn]",
            "\"acme-tls/1\" = \"a\"",
        ],
    );
    assert_eq!(conversion.report, []);
    let no_default = frontend(" bind :443\n use_backend a if { req.ssl_sni -m end one.org }\n");
    has(&no_default, &["[frontend.x]", "\"one.org\" = \"a\"", "\"*.one.org\" = \"a\""]);
    lacks(&no_default, "\nbackend = ");
    assert_eq!(differing(&no_default), [7]);
}

#[test]
fn other_conditions_of_routing_are_reported() {
    let conversion = frontend(
        " bind :443\n acl admin src 10.0.0.0/8\n use_backend a if admin\n \
         use_backend a if { path_beg /x }\n use_backend %[req.ssl_sni,lower] if TRUE\n \
         use_backend a unless { req.ssl_sni www }\n use_backend a if { req.ssl_hello_type 1 }\n \
         use_backend a if { req.ssl_sni -m beg www }\n default_backend b\n",
    );
    has(&conversion, &["backend = \"b\""]);
    lacks(&conversion, "sni]");
    assert_eq!(reported(&conversion), [8, 9, 10, 11, 12, 13]);
}

#[test]
fn a_rule_on_ports_makes_frontends() {
    let conversion = frontend(
        " bind :80\n bind :443\n bind :8000-8010\n use_backend a if { dst_port 443 8005:8010 }\n \
         default_backend b\n",
    );
    has(
        &conversion,
        &[
            "[frontend.x]",
            "bind = [\"0.0.0.0:80\", \"0.0.0.0:8000-8004\"]",
            "backend = \"b\"",
            "[frontend.x-443]",
            "bind = [\"0.0.0.0:443\", \"0.0.0.0:8005-8010\"]",
            "backend = \"a\"",
        ],
    );
    assert_eq!(conversion.report, []);
}

#[test]
fn rules_on_client_addresses_become_lists() {
    let conversion = frontend(
        " bind :1\n acl lan src 10.0.0.0/8 192.168.0.0/255.255.0.0\n acl bad src -f /etc/bad\n \
         tcp-request connection reject if bad\n tcp-request connection reject if !lan\n \
         default_backend a\n",
    );
    has(
        &conversion,
        &["allow = [\"10.0.0.0/8\", \"192.168.0.0/16\"]", "deny = { file = \"/etc/bad\" }"],
    );
    // The file is not here.
    assert_eq!((reported(&conversion), differing(&conversion)), (vec![], vec![9]));
    let accept = frontend(
        " bind :1\n tcp-request content accept if { src 10.0.0.0/8 }\n \
         tcp-request content reject\n default_backend a\n",
    );
    has(&accept, &["allow = [\"10.0.0.0/8\"]"]);
    let unless = frontend(
        " bind :1\n tcp-request connection reject unless { src 10.0.0.1 } or LOCALHOST\n \
         default_backend a\n",
    );
    has(&unless, &["allow = [\"10.0.0.1/32\", \"127.0.0.0/8\", \"::1/128\"]"]);
    let moot =
        frontend(" bind :1\n tcp-request content accept if { src 10.0.0.1 }\n default_backend a\n");
    lacks(&moot, "allow");
}

#[test]
fn a_rule_of_a_backend_belongs_to_its_frontends() {
    let conversion = below_defaults(
        "frontend x\n bind :1\n default_backend b\nbackend b\n acl lan src 10.0.0.0/8\n \
         tcp-request content reject if ! lan\n server s b:1\n",
    );
    has(&conversion, &["[frontend.x]", "allow = [\"10.0.0.0/8\"]"]);
    assert_eq!(conversion.report, []);
}

#[test]
fn only_tls_passes_if_nothing_else_has_a_backend() {
    for rules in [
        " tcp-request content accept if { req.ssl_hello_type 1 }\n tcp-request content reject\n",
        " tcp-request content reject unless { req.ssl_hello_type 1 }\n",
    ] {
        let start = format!(" bind :1\n{rules} use_backend a if {{ req.ssl_sni w.x }}\n");
        let alone = frontend(&start);
        has(&alone, &["[frontend.x.sni]", "\"w.x\" = \"a\""]);
        assert_eq!(alone.report, []);
        lacks(&alone, "\ndeny = ");
        let default = frontend(&format!("{start} default_backend b\n"));
        assert_eq!(reported(&default).len(), 1, "{rules}");
        lacks(&default, "\ndeny = ");
    }
    let unknown = frontend(
        " bind :1\n tcp-request content accept if { req.len 0 }\n tcp-request content reject\n \
         default_backend a\n",
    );
    lacks(&unknown, "\ndeny = ");
    assert_eq!(reported(&unknown), [7, 8]);
}

#[test]
fn a_rule_that_lists_cannot_say_is_urgent() {
    for rules in [
        " tcp-request connection accept if { src 10.0.0.1 }\n \
         tcp-request connection reject if { src 10.0.0.0/8 }\n",
        " tcp-request content reject if { req.len gt 0 }\n",
        " tcp-request connection reject if { src 10.0.0.0/8 } !{ src 10.0.0.1 }\n",
        " tcp-request content reject if { req.ssl_sni w.x }\n",
    ] {
        let conversion = frontend(&format!(" bind :1\n{rules} default_backend a\n"));
        assert!(!reported(&conversion).is_empty(), "{rules}");
        assert!(conversion.report.iter().any(|note| note.is_urgent), "{rules}");
        lacks(&conversion, "\ndeny = ");
    }
}

#[test]
fn rates_of_a_client_become_limits_where_they_say_the_same() {
    let conversion = frontend(
        " bind :1\n stick-table type ip size 1m expire 10s store conn_rate(1s),conn_cur\n \
         tcp-request connection track-sc0 src\n \
         tcp-request connection reject if { sc0_conn_rate gt 20 }\n \
         tcp-request connection reject if { src_conn_cur ge 11 }\n rate-limit sessions 100\n \
         default_backend a\n",
    );
    has(&conversion, &["rate.sessions = \"100/s\""]);
    has(&conversion, &["rate.per_client = \"20/s\""]);
    has(&conversion, &["clients_max = 10"]);
    assert_eq!(conversion.report, []);
    let longer = frontend(
        " bind :1\n stick-table type ip size 1m expire 10s store conn_rate(10s)\n \
         tcp-request connection track-sc0 src\n \
         tcp-request connection reject if { sc0_conn_rate gt 50 }\n default_backend a\n",
    );
    has(&longer, &["rate.per_client = \"50/10s\""]);
    assert_eq!(longer.report, []);
    let minute = frontend(
        " bind :1\n stick-table type ip size 1m expire 1m store conn_rate(1m)\n \
         tcp-request connection track-sc0 src\n \
         tcp-request connection reject if { sc0_conn_rate gt 12 }\n default_backend a\n",
    );
    has(&minute, &["rate.per_client = \"12/m\""]);
    assert_eq!(minute.report, []);
    let five = frontend(
        " bind :1\n stick-table type ip size 1m expire 1m store conn_rate(5m)\n \
         tcp-request connection track-sc0 src\n \
         tcp-request connection reject if { sc0_conn_rate gt 12 }\n default_backend a\n",
    );
    has(&five, &["rate.per_client = \"12/5m\""]);
    let slow = frontend(
        " bind :1\n stick-table type ip size 1m expire 1m store conn_rate(2d)\n \
         tcp-request connection track-sc0 src\n \
         tcp-request connection reject if { sc0_conn_rate gt 12 }\n default_backend a\n",
    );
    lacks(&slow, "rate.");
    assert_eq!(reported(&slow), [7, 8, 9]);
}

#[test]
fn the_last_check_option_acts() {
    let conversion = listen(
        " bind :1\n option tcp-check\n option httpchk GET /health HTTP/1.1\\r\\nHost:\\ www.x\n \
         http-check expect status 200-299\n server a a:1 check port 81\n \
         server b b:1 check port 81\n",
    );
    has(
        &conversion,
        &[
            "check = \"http\"",
            "http = { method = \"GET\", path = \"/health\", host = \"www.x\", status = \
            \"200-299\" }",
            "port = 81",
        ],
    );
    assert_eq!(conversion.report, []);
    let send = listen(
        " bind :1\n option httpchk\n http-check send meth HEAD uri /x ver HTTP/1.1 hdr Host w.x\n \
         http-check expect rstatus ^[23]\n server a a:1 check\n",
    );
    has(
        &send,
        &["http = { method = \"HEAD\", path = \"/x\", host = \"w.x\", status = \"200-399\" }"],
    );
    let other = listen(
        " bind :1\n option httpchk\n http-check expect string OK\n \
         http-check disable-on-404\n server a a:1 check\n",
    );
    has(&other, &["http = { method = \"OPTIONS\", path = \"/\" }"]);
    assert_eq!(reported(&other), [8, 9]);
    let none = listen(" bind :1\n option httpchk\n no option httpchk\n server a a:1 check\n");
    has(&none, &["check = \"tcp\""]);
}

#[test]
fn dialogues_become_steps() {
    let conversion = listen(
        " bind :1\n option tcp-check\n tcp-check connect port 99\n \
         tcp-check send AUTH\\ x\\r\\n\n tcp-check expect string +OK\n \
         tcp-check send-binary 50494e470d0a\n tcp-check expect rstring ^\\+PONG\n \
         server a a:1 check\n",
    );
    has(
        &conversion,
        &[
            "check = \"exchange\"",
            "exchange = [",
            "    { send = \"AUTH x\\r\\n\", contains = \"+OK\" },",
            "    { send = \"PING\\r\\n\", expect = \"+PONG\" },",
            "]",
            "port = 99",
        ],
    );
    assert_eq!(conversion.report, []);
    let other =
        listen(" bind :1\n option tcp-check\n tcp-check expect rstring a|b\n server a a:1 check\n");
    has(&other, &["check = \"tcp\""]);
    assert_eq!(reported(&other), [8]);
    for (option, kind) in
        [("redis-check", "exchange"), ("smtpchk", "exchange"), ("ssl-hello-chk", "tcp")]
    {
        let conversion = listen(&format!(" bind :1\n option {option}\n server a a:1 check\n"));
        has(&conversion, &[&format!("check = \"{kind}\"")]);
        assert_eq!(differing(&conversion), [7], "{option}");
    }
    for option in ["mysql-check user x", "pgsql-check user x", "ldap-check", "external-check"] {
        let conversion = listen(&format!(" bind :1\n option {option}\n server a a:1 check\n"));
        has(&conversion, &["check = \"tcp\""]);
        assert_eq!(reported(&conversion), [7], "{option}");
    }
}

#[test]
fn the_proxy_header_is_sent_to_servers_and_in_probes_of_the_same_port() {
    let conversion = listen(" bind :1 accept-proxy\n server a a:1 check send-proxy-v2\n");
    has(
        &conversion,
        &[
            "proxy_protocol = \"required\"",
            "proxy_protocol_from = [\"0.0.0.0/0\", \"::/0\"]",
            "send_proxy = \"v2\"",
            "[backend.x.health]",
            "send_proxy = true",
        ],
    );
    let port = listen(" bind :1\n server a a:1 check port 2 send-proxy\n");
    lacks(&port, "send_proxy = true");
    let forced = listen(" bind :1\n server a a:1 check port 2 send-proxy check-send-proxy\n");
    has(&forced, &["send_proxy = \"v1\"", "send_proxy = true"]);
    let mixed = listen(" bind :1\n server a a:1 send-proxy\n server b b:1\n");
    assert_eq!(reported(&mixed), [8]);
}

#[test]
fn settings_that_servers_do_not_share_are_reported() {
    let conversion = listen(
        " bind :1\n server a a:1 check inter 1s\n server b b:1 check inter 1s\n \
         server c c:1 check inter 9s\n server d d:1\n",
    );
    has(&conversion, &["interval = \"1s\""]);
    assert_eq!(reported(&conversion), [9, 10]);
    let other = listen(
        " bind :1\n server a a:1 check addr 10.0.0.1 fastinter 1s agent-check agent-port 2 \
         observe layer4 socks4 10.0.0.2:1080 cookie a\n",
    );
    assert_eq!(reported(&other), [7]);
    assert_eq!(other.report.len(), 6, "{:?}", other.report);
}

#[test]
fn the_first_backup_is_used_unless_all_are() {
    let servers = " server a a:1\n server b b:1 backup\n server c c:1 backup\n";
    has(&listen(&format!(" bind :1\n{servers}")), &["backups = \"first\"", "backup = true"]);
    let all = listen(&format!(" bind :1\n option allbackups\n{servers}"));
    has(&all, &["backups = \"all\""]);
}

#[test]
fn servers_without_a_port_keep_that_of_the_client() {
    let one = listen(" bind :7000\n server a 10.0.0.1\n");
    has(&one, &["address = \"10.0.0.1:7000\""]);
    let range = listen(" bind :7000-7010\n server a 10.0.0.1 check port 22\n");
    has(&range, &["address = \"10.0.0.1\""]);
    assert_eq!(range.report, []);
    for word in ["0.0.0.0:0", "*:80", "a:+5", "abns@x"] {
        let other = listen(&format!(" bind :1\n server a a:1\n server b {word}\n"));
        assert_eq!(reported(&other), [8], "{word}");
        lacks(&other, "\"b\"");
    }
}

#[test]
fn environment_variables_are_replaced_or_reported() {
    let conversion = listen(" bind :1\n server a \"${WEB}:80\"\n server b ${WEB}:81\n");
    has(&conversion, &["address = \"web1:80\"", "address = \"web1:81\""]);
    let missing = listen(" bind :1\n server a \"${NOT_SET}:80\"\n");
    has(&missing, &["address = \"not-set.invalid:80\""]);
    assert_eq!(reported(&missing), [7]);
    let timeout = listen(" bind :1\n timeout client \"$NOT_SET\"\n server a a:1\n");
    assert_eq!(reported(&timeout), [7]);
}

#[test]
fn a_template_is_one_server_or_an_srv_name() {
    let conversion = listen(
        " bind :1\n server-template w 1-5 web.x:80 check resolvers r\nresolvers r\n \
         nameserver a 192.0.2.1:53\n hold valid 10s\n",
    );
    has(&conversion, &["resolver = [\"192.0.2.1:53\"]", "name = \"w\"", "address = \"web.x:80\""]);
    assert_eq!(differing(&conversion), [7, 8]);
    let srv = listen(
        " bind :1\n server-template w 5 _http._tcp.web.x check resolvers r\nresolvers r\n \
        parse-resolv-conf\n",
    );
    has(&srv, &["srv = \"_http._tcp.web.x\"", "check = \"tcp\""]);
}

#[test]
fn a_statistics_page_without_its_password_stays_on_this_machine() {
    let page = |lines: &str| {
        listen(&format!(
            " bind :1\n server a a:1\nlisten stats\n bind *:9000\n mode http\n stats \
            enable\n{lines}"
        ))
    };
    let open = page("");
    has(&open, &["[observe]", "bind = \"0.0.0.0:9000\""]);
    assert_eq!(differing(&open), [8, 9, 11]);
    for line in
        [" stats auth a:b\n", " stats http-request deny unless LOCALHOST\n", " http-request auth\n"]
    {
        let closed = page(line);
        has(&closed, &["[observe]", "bind = \"127.0.0.1:9000\""]);
        assert_eq!(reported(&closed), [12], "{line}");
        lacks(&closed, "a:b");
    }
}

#[test]
fn an_address_is_bound_once() {
    let conversion = below_defaults(
        "listen a\n bind :80\n bind 127.0.0.1:80\n server a a:1\nlisten b\n bind 10.0.0.1:80\n \
         bind :81\n server b b:1\nlisten c\n bind 127.0.0.1:8404\n server c c:1\n",
    );
    has(&conversion, &["[observe]", "bind = false"]);
    has(&conversion, &["[frontend.a]", "bind = [\"0.0.0.0:80\"]"]);
    has(&conversion, &["[frontend.b]", "bind = [\"0.0.0.0:81\"]"]);
    assert_eq!(reported(&conversion), [10]);
}

#[test]
fn mode_http_names_what_is_lost() {
    let conversion = listen(
        " mode http\n bind :80\n option forwardfor\n http-request set-header A b\n cookie S \
        insert\n \
         server a a:1 cookie a\n",
    );
    assert_eq!(reported(&conversion), [8, 9, 10, 11]);
    assert_eq!(differing(&conversion), [6]);
    assert!(
        conversion.report[0].reason.ends_with("lost: lines 8, 9, 10"),
        "{:?}",
        conversion.report
    );
    let tcp = below_defaults("listen x\n mode tcp\n bind :1\n server a a:1\n");
    assert_eq!(tcp.report, []);
}

#[test]
fn a_frontend_without_a_destination_is_left_out() {
    let conversion = below_defaults(
        "frontend r\n mode http\n bind :80\n redirect scheme https\nlisten x\n bind :443\n server \
        a a:1\n",
    );
    has(&conversion, &["# [frontend.r]", "[frontend.x]"]);
    assert_eq!(reported(&conversion), [5, 8]);
    let off = below_defaults(
        "listen y\n disabled\n bind :1\n server a a:1\nlisten x\n bind :2\n server a a:1\n",
    );
    has(&off, &["# [frontend.y]", "[frontend.x]"]);
    lacks(&off, "[backend.y]");
}

#[test]
fn other_keys_of_a_backend_are_kept() {
    let conversion = listen(
        " bind :1 backlog 99 tfo defer-accept\n balance random(2)\n timeout queue 7s\n timeout \
        check 9s\n retries 5\n \
         source 192.0.2.9:0\n option srvtcpka\n srvtcpka-idle 60\n \
         server a a:1 check slowstart 10s maxqueue 5 on-marked-down shutdown-sessions tfo\n",
    );
    has(&conversion, &["backlog = 99", "defer_accept = true", "fast_open = true"]);
    has(&conversion, &["balance = \"random\"", "retries = 5", "queue_timeout = \"7s\""]);
    has(&conversion, &["queue_max = 5", "on_down = \"close\"", "slow_start = \"10s\""]);
    has(&conversion, &["fast_open = true", "source = [\"192.0.2.9\"]", "keepalive = \"1m\""]);
    has(&conversion, &["timeout = \"9s\""]);
    assert_eq!(differing(&conversion), [14]);
    let client = listen(" bind :1\n source 0.0.0.0 usesrc clientip\n server a a:1\n");
    has(&client, &["source = [\"client\"]"]);
}

#[test]
fn persistence_by_address_is_source_and_any_other_is_reported() {
    let sticky =
        listen(" bind :1\n stick-table type ip size 1m expire 1h\n stick on src\n server a a:1\n");
    has(&sticky, &["balance = \"source\""]);
    assert_eq!(differing(&sticky), [7, 8]);
    let other = listen(
        " bind :1\n balance uri\n stick-table type string size 1m\n stick on req.cook(x)\n server \
        a a:1\n",
    );
    has(&other, &["balance = \"roundrobin\""]);
    assert_eq!(reported(&other), [7, 8, 9]);
}

#[test]
fn sections_without_an_equivalent_are_reported_and_old_spellings_are_read() {
    let conversion = convert(
        Format::Haproxy,
        "defaults\n contimeout 5000\n clitimeout 50000\n srvtimeout 50000\n\
         listen x 192.0.2.1:80\n server a a:1\npeers p\n peer a 192.0.2.1:1024\nuserlist u\n \
         user a password b\n",
    )
    .unwrap();
    has(
        &conversion,
        &["bind = [\"192.0.2.1:80\"]", "idle_timeout = \"50s\"", "connect_timeout = \"5s\""],
    );
    assert_eq!(reported(&conversion), [7, 9]);
}

#[test]
fn named_defaults_and_conditional_blocks_are_followed() {
    let conversion = convert(
        Format::Haproxy,
        "defaults tcp\n timeout client 9s\n timeout server 9s\n timeout connect 1s\n\
         defaults other from tcp\n timeout client 3s\n timeout server 3s\n\
         listen x from tcp\n bind :1\n.if defined(WEB)\n server a \"$WEB:1\"\n.else\n server b \
         b:1\n.endif\n\
         listen y\n bind :2\n server a a:1\n",
    )
    .unwrap();
    has(&conversion, &["[frontend.x]", "idle_timeout = \"9s\"", "address = \"web1:1\""]);
    has(&conversion, &["[frontend.y]", "idle_timeout = \"3s\""]);
    lacks(&conversion, "b:1");
}

#[test]
fn what_haproxy_refuses_is_refused_with_its_line() {
    for (text, place) in [
        ("listen x\n bind :1\n server a a:1 chek\n", "x.cfg:3: "),
        (
            "listen x\n bind :1\n tcp-request connection reject if nope\n server a a:1\n",
            "x.cfg:3: ",
        ),
        ("listen x\n bind :1\n server a a:99999\n", "x.cfg:3: "),
        ("listen x\n bind *\n server a a:1\n", "x.cfg:2: "),
        ("frontend x\n bind :1\n use_backend nope if TRUE\n", "x.cfg:3: "),
        ("listen x\n bind \":1\n server a a:1\n", "x.cfg:2: "),
    ] {
        let problem = refusal(Format::Haproxy, text);
        assert!(problem.contains(place) && problem.contains("; "), "{problem}");
    }
}

#[test]
fn a_queue_has_no_limit_and_the_timeout_that_haproxy_has() {
    let servers = " server a a:1 maxconn 5\n server b b:1 maxconn 5\n";
    let queue = listen(&format!(" bind :1\n timeout queue 9s\n{servers}"));
    has(&queue, &["queue_timeout = \"9s\"", "queue_max = 10000000"]);
    let connect = listen(&format!(" bind :1\n{servers}"));
    has(&connect, &["queue_timeout = \"5s\"", "queue_max = 10000000"]);
    let none = convert(Format::Haproxy, &format!("listen x\n bind :1\n{servers}")).unwrap();
    has(&none, &["queue_timeout = \"24d\"", "queue_max = 10000000"]);
    lacks(&listen(" bind :1\n server a a:1\n"), "queue_");
}

#[test]
fn a_client_that_closes_in_the_queue_stays_there() {
    let conversion = listen(" bind :1\n option abortonclose\n server a a:1 maxconn 5\n");
    assert_eq!((differing(&conversion), reported(&conversion)), (vec![7], vec![]));
}

#[test]
fn retries_on_another_server_are_said_where_haproxy_stays() {
    let servers = " server a a:1\n server b b:1\n";
    let stays = listen(&format!(" bind :1\n{servers}"));
    assert!(stays.toml.contains("retries = 3 # each on another server"), "{}", stays.toml);
    let moves = listen(&format!(" bind :1\n option redispatch\n{servers}"));
    assert!(moves.toml.contains("retries = 3\n"), "{}", moves.toml);
    let alone = listen(" bind :1\n retries 1\n server a a:1\n");
    assert!(alone.toml.contains("retries = 1\n"), "{}", alone.toml);
}

#[test]
fn the_server_name_of_a_tls_check_is_kept() {
    let tcp = listen(
        " bind :1\n option tcp-check\n tcp-check connect port 6443 ssl sni api.x\n \
         server a a:1 check\n",
    );
    has(&tcp, &["port = 6443", "tls = { verify = false, name = \"api.x\" }"]);
    assert_eq!(tcp.report, []);
    let http = listen(
        " bind :1\n option httpchk\n http-check connect ssl sni w.x alpn h2\n server a a:1 check\n",
    );
    has(&http, &["tls = { verify = false, name = \"w.x\" }"]);
    assert_eq!(reported(&http), [8]);
    let verified = listen(
        " bind :1\n server a a:1 check check-ssl check-sni w.x verify required ca-file /ca\n",
    );
    has(&verified, &["tls = { verify = true, name = \"w.x\" }"]);
    assert_eq!(differing(&verified), [7]);
}

#[test]
fn a_tls_check_of_a_unix_socket_gets_a_name() {
    let text = " bind :1\n server a /run/a.sock check check-ssl verify none\n";
    let plain = listen(text);
    has(&plain, &["tls = { verify = false, name = \"localhost\" }"]);
    assert_eq!(differing(&plain), [7]);
    assert_eq!(super::problems(&plain.toml), Vec::<String>::new());
    let verified = listen(&text.replace("verify none", "verify required ca-file /ca"));
    lacks(&verified, "tls = ");
    assert_eq!(reported(&verified), [7]);
    assert_eq!(super::problems(&verified.toml), Vec::<String>::new());
}

#[test]
fn the_control_socket_is_where_the_service_may_write() {
    let text = |path: &str| {
        format!(
            "global\n stats socket {path} mode 660 level admin\nlisten x\n bind :1\n \
             timeout connect 1s\n server a a:1\n"
        )
    };
    for (path, expected) in [
        // The default path, which may be missing for a plain user.
        ("/run/haproxy/admin.sock", None),
        ("/run/evenkeel/../x", None),
        ("unix@/run/evenkeel/own.sock", Some("/run/evenkeel/own.sock")),
    ] {
        let conversion = convert(Format::Haproxy, &text(path)).unwrap();
        match expected {
            Some(expected) => has(&conversion, &[&format!("control = \"{expected}\"")]),
            None => assert!(!conversion.toml.contains("control = "), "{}", conversion.toml),
        }
        assert!(differing(&conversion).contains(&2), "{path}");
        assert_eq!(super::problems(&conversion.toml), Vec::<String>::new());
    }
}

#[test]
fn values_beyond_the_range_of_a_key_are_the_nearest_ones_and_said() {
    let conversion = listen(
        " bind :1\n server a a:1 check rise 200 slowstart 200ms\n \
         server b b:1 check rise 200 slowstart 200ms\n",
    );
    has(&conversion, &["slow_start = \"1s\"", "rise = 100"]);
    assert_eq!(differing(&conversion), [7, 8]);
    assert_eq!(super::problems(&conversion.toml), Vec::<String>::new());
}

#[test]
fn rules_that_refuse_requests_are_urgent() {
    let conversion = listen(
        " mode http\n bind :80\n http-request deny if { path_beg /admin }\n \
         http-request set-header A b\n server a a:1\n",
    );
    let urgent: Vec<usize> =
        conversion.report.iter().filter(|note| note.is_urgent).map(|note| note.line).collect();
    assert_eq!(
        (urgent.as_slice(), reported(&conversion).as_slice()),
        ([8].as_slice(), [8, 9].as_slice())
    );
}

#[test]
fn a_server_that_would_be_probed_on_the_port_of_another_is_urgent() {
    let conversion =
        listen(" bind :1\n server a a:1 check port 8008\n server b b:2 check port 8009\n");
    lacks(&conversion, "port = ");
    assert_eq!((reported(&conversion), urgent(&conversion)), (vec![7, 8], vec![7, 8]));
    // The port of a server does not answer requests of the check.
    let http = listen(
        " bind :1\n option httpchk\n server a a:1 check port 8008\n \
         server b b:2 check port 8008\n server c c:3 check port 8009\n",
    );
    has(&http, &["port = 8008"]);
    assert_eq!((reported(&http), urgent(&http)), (vec![10], vec![10]));
}

#[test]
fn frontends_that_are_all_left_out_bind_an_address_once() {
    let conversion = below_defaults(
        "frontend x\n mode http\n bind :80\n redirect scheme https\n\
         frontend y\n mode http\n bind :80\n redirect scheme https\n",
    );
    assert_eq!(super::problems(&conversion.toml), Vec::<String>::new(), "{}", conversion.toml);
    assert_eq!(conversion.toml.matches("\nbind = ").count(), 1, "{}", conversion.toml);
}

#[test]
fn a_client_that_one_phase_accepts_is_still_refused_by_the_next() {
    let conversion = frontend(
        " bind :1\n tcp-request connection accept if { src 10.0.0.0/8 }\n \
         tcp-request connection reject if { src 192.0.2.0/24 }\n \
         tcp-request content accept if { src 192.0.2.1 }\n \
         tcp-request content reject if { src 10.1.0.0/16 }\n default_backend a\n",
    );
    has(&conversion, &["deny = [\"192.0.2.0/24\", \"10.1.0.0/16\"]"]);
    assert_eq!(conversion.report, []);
    let backend = below_defaults(
        "frontend x\n bind :1\n tcp-request content accept\n default_backend b\n\
         backend b\n tcp-request content reject if { src 10.0.0.0/8 }\n server s b:1\n",
    );
    has(&backend, &["deny = [\"10.0.0.0/8\"]"]);
}

#[test]
fn a_placeholder_of_a_template_is_no_address() {
    for word in ["<node-ip>:443", "{{ip}}:443", "@IP@:443"] {
        let conversion = listen(&format!(" bind :1\n server a {word}\n"));
        has(&conversion, &["address = \"a.invalid:443\""]);
        assert_eq!(reported(&conversion), [7], "{word}");
    }
}

#[test]
fn a_rule_on_requests_that_looks_at_addresses_alone_becomes_a_list() {
    let http = " bind :1\n mode http\n acl lan src 10.0.0.0/8\n";
    let only = listen(&format!("{http} http-request deny unless lan\n server a a:1\n"));
    has(&only, &["allow = [\"10.0.0.0/8\"]"]);
    assert_eq!((reported(&only), differing(&only)), (vec![], vec![7, 9]));
    lacks(&only, "is lost");
    let some =
        listen(&format!("{http} http-request tarpit deny_status 403 if lan\n server a a:1\n"));
    has(&some, &["deny = [\"10.0.0.0/8\"]"]);
    // The clients that a path admits cannot be listed.
    let path = listen(&format!(
        "{http} http-request allow if {{ path /x }}\n http-request deny unless lan\n server a a:1\n"
    ));
    lacks(&path, "allow = ");
    assert!(path.report.iter().any(|note| note.line == 10 && note.is_urgent), "{:?}", path.report);
    // The address is another one than that of the connection.
    let other = listen(&format!(
        "{http} http-request set-src hdr(x)\n http-request deny unless lan\n server a a:1\n"
    ));
    lacks(&other, "allow = ");
    // In mode tcp HAProxy ignores such rules.
    let tcp = listen(" bind :1\n http-request deny if { src 10.0.0.0/8 }\n server a a:1\n");
    lacks(&tcp, "deny = ");
    // A rule of a backend holds for the frontend that uses it.
    let behind = below_defaults(
        "frontend x\n mode http\n bind :1\n default_backend b\n\
         backend b\n mode http\n http-request deny if { src 192.0.2.0/24 }\n server s b:1\n",
    );
    has(&behind, &["deny = [\"192.0.2.0/24\"]"]);
    assert_eq!(reported(&behind), Vec::<usize>::new());
}

#[test]
fn servers_with_one_address_are_one_with_the_limits_of_both() {
    let both = listen(" bind :1\n server a a:1 maxconn 5\n server b a:1 maxconn 7\n");
    has(&both, &["name = \"a\"", "sessions_max = 12"]);
    let one = listen(" bind :1\n server a a:1 maxconn 5\n server b a:1\n");
    lacks(&one, "sessions_max");
    // A server that is switched off does not switch off another one.
    let out = listen(" bind :1\n server a a:1 disabled\n server b a:1\n server c c:1\n");
    has(&out, &["name = \"b\"", "name = \"c\""]);
    lacks(&out, "maint");
    assert_eq!(differing(&out), [8]);
}

#[test]
fn lost_choices_of_a_server_are_urgent() {
    let urgent = |text: &str| listen(text).report.iter().filter(|it| it.is_urgent).count();
    assert_eq!(urgent(" bind :1\n stick-table type ip size 1\n stick on dst\n server a a:1\n"), 1);
    assert_eq!(urgent(" bind :1\n use-server a if { src 10.0.0.1 }\n server a a:1\n"), 1);
    assert_eq!(urgent(" bind :1\n server a a:1 check addr 10.0.0.1\n"), 1);
}

#[test]
fn the_host_of_an_http_check_may_follow_its_version() {
    let conversion =
        listen(" bind :1\n option httpchk GET /x HTTP/1.1 www.x\n server a a:1 check\n");
    has(&conversion, &["http = { method = \"GET\", path = \"/x\", host = \"www.x\" }"]);
}

#[test]
fn a_list_that_is_not_here_and_a_last_line_that_may_be_cut_are_said() {
    let file = listen(
        " bind :1\n tcp-request connection reject if { src -f /nowhere/list }\n server a a:1\n",
    );
    has(&file, &["deny = { file = \"/nowhere/list\" }"]);
    assert_eq!(differing(&file), [7]);
    assert_eq!(differing(&listen(" bind :1\n server a a:1")), [7]);
}

#[test]
fn a_redirect_to_https_that_is_lost_is_urgent() {
    let urgent = |rule: &str| {
        let conversion = listen(&format!(" bind :1\n mode http\n {rule}\n server a a:1\n"));
        conversion.report.iter().any(|note| note.line == 8 && note.is_urgent)
    };
    assert!(urgent("http-request redirect scheme https code 301 unless { ssl_fc }"));
    assert!(urgent("redirect scheme https if !{ ssl_fc }"));
    assert!(urgent("http-request redirect location https://%[hdr(host)]%[path]"));
    assert!(!urgent("http-request redirect prefix /new if { path /old }"));
}

#[test]
fn a_page_becomes_public_only_if_all_statistics_were() {
    let server = "listen x\n bind :1\n server a a:1\n";
    let page = "listen s\n mode http\n bind :9000\n stats enable\n";
    let public = below_defaults(&format!("{server}{page}"));
    has(&public, &["bind = \"0.0.0.0:9000\""]);
    let metrics = "listen m\n mode http\n bind :9001\n \
                   http-request use-service prometheus-exporter\n";
    for restricted in [
        // The page of metrics has none of the statistics that the password protects.
        format!("{server}{metrics}{page} stats auth a:b\n"),
        format!("{server}{page} tcp-request connection silent-drop unless {{ src 10.0.0.1 }}\n"),
        format!("{server}{page} http-request return status 403 unless {{ src 10.0.0.1 }}\n"),
        // HAProxy serves no page here.
        format!("{server}listen s\n bind :9000\n stats enable\n"),
    ] {
        let conversion = below_defaults(&restricted);
        has(&conversion, &["[observe]"]);
        lacks(&conversion, "0.0.0.0:900");
    }
}

#[test]
fn rules_on_the_peer_that_sends_the_proxy_header_are_a_list_of_peers() {
    let peers = frontend(
        " bind :80 accept-proxy\n tcp-request connection reject unless { src 10.0.0.1 }\n \
         tcp-request content reject if { src 192.0.2.0/24 }\n default_backend a\n",
    );
    has(&peers, &["deny = [\"192.0.2.0/24\"]", "proxy_protocol_from = [\"10.0.0.1/32\"]"]);
    lacks(&peers, "\nallow = ");
    let some = frontend(
        " bind :80\n tcp-request connection reject unless { src 10.0.0.0/8 }\n \
         tcp-request connection expect-proxy layer4\n default_backend a\n",
    );
    has(&some, &["proxy_protocol_from = [\"10.0.0.0/8\"]"]);
    lacks(&some, "\nallow = ");
    let denied = frontend(
        " bind :80 accept-proxy\n tcp-request connection reject if { src 10.0.0.1 }\n \
         default_backend a\n",
    );
    lacks(&denied, "\ndeny = ");
    assert!(denied.report.iter().any(|note| note.line == 7 && note.is_urgent));
    let nobody =
        frontend(" bind :80 accept-proxy\n tcp-request connection reject\n default_backend a\n");
    has(&nobody, &["deny = [\"0.0.0.0/0\", \"::/0\"]"]);
}

#[test]
fn rules_of_a_backend_that_only_some_clients_reach_are_not_rules_of_the_frontend() {
    let backends = "backend b\n mode http\n tcp-request content silent-drop if { src 192.0.2.1 }\n \
                    http-request deny unless { src 10.0.0.0/8 }\n server s b:1\n\
                    backend c\n server s c:1\n";
    for route in [
        " use_backend b if { req.ssl_sni a.test }\n default_backend c\n",
        " use_backend b if { req.ssl_sni a.test }\n use_backend c if { req.ssl_alpn h2 }\n",
    ] {
        let some = below_defaults(&format!("frontend f\n bind :1\n{route}{backends}"));
        lacks(&some, "\nallow = ");
        lacks(&some, "\ndeny = ");
        assert_eq!((reported(&some), urgent(&some)), (vec![11, 12], vec![11, 12]));
        assert_eq!(some.report.len(), 3, "{:?}", some.report);
    }
    // So it is if the rule of the route is lost.
    for rule in ["b if { src 10.0.0.0/8 }", "%[req.ssl_sni]"] {
        let lost = below_defaults(&format!(
            "frontend f\n bind :1\n use_backend {rule}\n default_backend c\n\
             backend c\n tcp-request content reject if {{ src 192.0.2.1 }}\n server s c:1\n\
             backend b\n server s b:1\n"
        ));
        lacks(&lost, "\ndeny = ");
        assert_eq!(urgent(&lost), [7, 10], "{rule}");
    }
    // Clients of one port have one backend.
    let port = below_defaults(&format!(
        "frontend f\n bind :1\n bind :2\n use_backend b if {{ dst_port 2 }}\n \
         default_backend c\n{backends}"
    ));
    has(&port, &["[frontend.f-2]", "allow = [\"10.0.0.0/8\"]", "deny = [\"192.0.2.1/32\"]"]);
    assert_eq!(port.toml.matches("\nallow = ").count(), 1, "{}", port.toml);
    assert_eq!(reported(&port), Vec::<usize>::new());
    // So has each part of a range that a rule of the backend divides.
    let part = below_defaults(
        "frontend f\n bind :1-9\n use_backend b if { dst_port 5:9 }\n default_backend c\n\
         backend b\n tcp-request content reject if { dst_port 7 } { src 10.0.0.0/8 }\n \
         server s b:1\nbackend c\n server s c:1\n",
    );
    has(&part, &["[frontend.f-7]", "bind = [\"0.0.0.0:7\"]", "deny = [\"10.0.0.0/8\"]"]);
}

#[test]
fn a_source_that_a_rule_sets_is_not_that_of_the_client() {
    let deny = " http-request deny unless { src 10.0.0.0/8 }\n";
    let reject = " tcp-request content reject unless { src 10.0.0.0/8 }\n";
    let rate = " stick-table type ip size 1m expire 10s store conn_rate(10s)\n \
                tcp-request content track-sc0 src\n \
                tcp-request content reject if { sc0_conn_rate gt 10 }\n";
    let file = |front: &str, back: &str| {
        below_defaults(&format!(
            "frontend f\n mode http\n bind :1\n{front} default_backend b\n\
             backend b\n mode http\n{back} server s b:1\n"
        ))
    };
    for (front, back) in [
        (" tcp-request connection set-src hdr(x)\n".to_owned() + reject, ""),
        (" tcp-request session set-src src\n".to_owned() + deny, ""),
        (" tcp-request content set-src src\n".to_owned() + reject, ""),
        (" tcp-request content set-src src if TRUE\n".to_owned() + rate, ""),
        (" http-request set-src hdr(x)\n".to_owned() + deny, ""),
        (" http-request set-src hdr(x)\n".to_owned(), deny),
        (" http-request set-src hdr(x)\n".to_owned(), reject),
        // A rule that ends the rules on requests does not end the search.
        (" http-request allow if { path /x }\n http-request set-src hdr(x)\n".to_owned(), deny),
        // The clients of the accept are not known.
        (
            " tcp-request content set-src src\n \
             tcp-request content accept if { src 10.0.0.0/8 }\n tcp-request content reject\n"
                .to_owned(),
            "",
        ),
    ] {
        let conversion = file(&front, back);
        lacks(&conversion, "\nallow = ");
        lacks(&conversion, "\ndeny = ");
        lacks(&conversion, "rate.per_client");
        assert!(!urgent(&conversion).is_empty(), "{front}{back}{:?}", conversion.report);
    }
    let before = file(&format!("{deny} http-request set-src hdr(x)\n"), "");
    has(&before, &["allow = [\"10.0.0.0/8\"]"]);
    let port = file(" http-request set-src-port int(1)\n", deny);
    has(&port, &["allow = [\"10.0.0.0/8\"]"]);
}

#[test]
fn a_limit_on_the_peer_that_sends_the_proxy_header_is_none_of_its_clients() {
    let table = " stick-table type ip size 1m expire 10s store conn_rate(10s),conn_cur\n";
    let first = " tcp-request connection track-sc0 src\n";
    for (bind, rules) in [
        ("accept-proxy", " tcp-request connection reject if { sc0_conn_rate gt 10 }\n"),
        ("accept-proxy", " tcp-request connection reject if { src_conn_cur gt 10 }\n"),
        ("accept-proxy", " tcp-request content reject if { sc0_conn_rate gt 10 }\n"),
        (
            "",
            " tcp-request connection reject if { sc0_conn_rate gt 10 }\n \
             tcp-request connection expect-proxy layer4\n",
        ),
    ] {
        let conversion = frontend(&format!(
            " bind :1 {bind}\n{table}{first}{rules} \
                                            default_backend a\n"
        ));
        lacks(&conversion, "rate.per_client");
        lacks(&conversion, "clients_max");
        assert_eq!((reported(&conversion), urgent(&conversion)), (vec![7, 8, 9], vec![9]));
    }
    let second = frontend(&format!(
        " bind :1 accept-proxy\n{table} tcp-request session track-sc0 src\n \
         tcp-request content reject if {{ sc0_conn_rate gt 10 }}\n default_backend a\n"
    ));
    has(&second, &["rate.per_client = \"10/10s\""]);
    assert_eq!(second.report, []);
}

#[test]
fn a_rule_that_one_of_the_addresses_needs_is_converted_and_not_reported() {
    let conversion = listen(
        " mode http\n bind :8081\n bind :8083\n \
         http-request deny if { dst_port 8083 } { src 10.0.0.0/8 }\n server a a:1\n",
    );
    has(&conversion, &["[frontend.x-8083]", "deny = [\"10.0.0.0/8\"]"]);
    assert_eq!(reported(&conversion), Vec::<usize>::new());
    let allow = listen(
        " mode http\n bind :1\n http-request allow if { src 10.0.0.0/8 }\n http-request deny\n \
         server a a:1\n",
    );
    has(&allow, &["allow = [\"10.0.0.0/8\"]"]);
    assert_eq!(reported(&allow), Vec::<usize>::new());
    let limit = frontend(
        " bind :1\n bind :2\n stick-table type ip size 1m expire 10s store conn_rate(10s)\n \
         tcp-request connection track-sc0 src\n \
         tcp-request connection reject if { dst_port 2 } { sc0_conn_rate gt 10 }\n \
         default_backend a\n",
    );
    has(&limit, &["[frontend.x-2]", "rate.per_client = \"10/10s\""]);
    assert_eq!(limit.report, []);
}

#[test]
fn numbers_are_read_as_haproxy_reads_them() {
    let conversion = listen(
        " bind :1 backlog abc\n maxconn 10abc\n retries x\n \
         server a a:1 check weight 5x maxconn 7x rise 4x port 80x\n \
         server b b:1 check weight x maxconn x rise 4x port 80x\n",
    );
    has(&conversion, &["sessions_max = 10", "retries = 0", "rise = 4", "port = 80"]);
    has(&conversion, &["name = \"a\"", "weight = 5", "sessions_max = 7"]);
    has(&conversion, &["name = \"b\"", "weight = 0"]);
    assert_eq!((differing(&conversion), reported(&conversion)), (vec![7, 8, 9, 10], vec![]));
    assert_eq!(super::problems(&conversion.toml), Vec::<String>::new());
    let unset = listen(" bind :1\n retries \"$NOT_SET\"\n server a a:1 weight \"$NOT_SET\"\n");
    has(&unset, &["retries = 3"]);
    lacks(&unset, "weight = 0");
}

#[test]
fn name_servers_of_the_system_beside_others_are_said() {
    let text = |nameserver: &str| {
        format!(
            "resolvers r\n{nameserver} parse-resolv-conf\n\
             listen x\n bind :1\n timeout connect 1s\n server s a:1 resolvers r\n"
        )
    };
    let both = convert(Format::Haproxy, &text(" nameserver a 192.0.2.1:53\n")).unwrap();
    has(&both, &["resolver = [\"192.0.2.1:53\"]"]);
    assert_eq!(differing(&both), [3]);
    let alone = convert(Format::Haproxy, &text("")).unwrap();
    assert_eq!(alone.report, []);
}
