//! Rules for nginx.

use std::fs;
use std::process;

use evenkeel::convert::{Conversion, Format};

use super::{convert, differing, has, lacks, refusal, reported, urgent};

/// A `stream` block with these lines; the first is line 2.
fn stream(lines: &str) -> Conversion {
    convert(Format::Nginx, &format!("stream {{\n{lines}}}\n")).unwrap()
}

#[test]
fn what_nginx_does_not_say_is_written() {
    let conversion =
        stream("upstream u {\nserver a:1;\nserver b:1;\n}\nserver { listen 80; proxy_pass u; }\n");
    has(
        &conversion,
        &[
            "[backend.u]",
            "balance = \"roundrobin\"",
            "connect_timeout = \"1m\"",
            "retries = 1",
            "[backend.u.health]",
            "check = \"off\"",
            "errors = { count = 1, within = \"10s\", down = \"10s\" }",
            "[[backend.u.server]]",
            "name = \"server1\"",
            "address = \"a:1\"",
            "[frontend.server-80]",
            "bind = [\"0.0.0.0:80\"]",
            "backend = \"u\"",
            "idle_timeout = \"10m\"",
        ],
    );
    assert_eq!(conversion.report, []);
}

#[test]
fn the_process_and_its_workers_are_kept() {
    let text = "user www data;\nworker_processes 4;\nworker_shutdown_timeout \
    30s;\nworker_cpu_affinity auto;\n\
                pid x;\nerror_log x;\nevents { worker_connections 1000; }\nhttp { include nope; }\n\
                stream { server { listen 1; proxy_pass a:2; } }\n";
    let conversion = convert(Format::Nginx, text).unwrap();
    has(
        &conversion,
        &["user = \"www\"", "group = \"data\"", "workers = 4", "drain_timeout = \"30s\""],
    );
    has(&conversion, &["pin = true", "sessions_max = 2000"]);
    has(&conversion, &["[\"0.0.0.0:1\"]".replace("[", "bind = [").as_str(), "backend = \"a:2\""]);
    assert_eq!((differing(&conversion), reported(&conversion)), (vec![7], vec![8]));
    let auto = convert(
        Format::Nginx,
        "worker_processes auto;\nevents {\nworker_connections 9;\n}\nstream { server { listen 1; \
        proxy_pass a:2; } }\n",
    )
    .unwrap();
    has(&auto, &["workers = \"auto\""]);
    lacks(&auto, "sessions_max =");
    assert_eq!(differing(&auto), [3]);
}

#[test]
fn upstreams_keep_their_algorithm_and_their_servers() {
    let conversion = stream(
        "upstream u {\nleast_conn;\nzone u 64k;\nserver a:1 weight=3 max_conns=9;\n\
         server [2001:db8::1]:1 backup;\nserver unix:/run/x down;\n}\n\
         server { listen 1; proxy_pass u; }\n",
    );
    has(
        &conversion,
        &["balance = \"leastconn\"", "address = \"a:1\"", "weight = 3", "sessions_max = 9"],
    );
    has(&conversion, &["address = \"[2001:db8::1]:1\"", "weight = 1", "backup = true"]);
    has(&conversion, &["address = \"unix:/run/x\"", "state = \"maint\""]);
    for (line, balance, is_near) in [
        ("hash $remote_addr consistent;", "source", true),
        ("hash $binary_remote_addr;", "source", true),
        ("random two least_conn;", "random", false),
        ("hash $ssl_preread_server_name;", "roundrobin", false),
    ] {
        let text = format!(
            "upstream u {{\n{line}\nserver a:1;\n}}\nserver {{ listen 1; proxy_pass u; }}\n"
        );
        let conversion = stream(&text);
        has(&conversion, &[&format!("balance = \"{balance}\"")]);
        assert_eq!(differing(&conversion), if is_near { vec![3] } else { vec![] }, "{line}");
    }
}

#[test]
fn failures_take_servers_down_unless_there_is_one() {
    let text = |parameters: &str, more: &str| {
        format!(
            "upstream u {{\nserver a:1 {parameters};\n{more}}}\nserver {{ listen 1; proxy_pass u; \
            }}\n"
        )
    };
    let explicit =
        stream(&text("max_fails=3 fail_timeout=30s", "server b:1 max_fails=3 fail_timeout=30s;\n"));
    has(&explicit, &["errors = { count = 3, within = \"30s\", down = \"30s\" }"]);
    let never = stream(&text("max_fails=0", "server b:1 max_fails=0;\n"));
    lacks(&never, "errors");
    let alone = stream(&text("max_fails=3", ""));
    lacks(&alone, "errors =");
    assert_eq!(differing(&alone), [3]);
    let differ = stream(&text("max_fails=3", "server b:1;\nserver c:1;\n"));
    assert_eq!(reported(&differ), [3]);
}

#[test]
fn keys_of_stream_hold_for_every_server() {
    let conversion = stream(
        "proxy_protocol on;\nproxy_timeout 12h;\nproxy_next_upstream_tries 10;\n\
         upstream u { server a:1; server b:1; }\nserver { listen 1; proxy_pass u; }\n\
         server { listen 2; proxy_pass u; proxy_timeout 3s; }\n\
         server { listen 3; proxy_pass u; proxy_protocol off; proxy_next_upstream off; }\n",
    );
    has(
        &conversion,
        &["[backend.u]", "send_proxy = \"v1\"", "retries = 9", "[backend.u-3]", "retries = 0"],
    );
    has(&conversion, &["[frontend.server-1]", "backend = \"u\"", "idle_timeout = \"12h\""]);
    has(&conversion, &["[frontend.server-2]", "backend = \"u\"", "idle_timeout = \"3s\""]);
    has(&conversion, &["[frontend.server-3]", "backend = \"u-3\""]);
}

#[test]
fn maps_choose_backends_by_server_name() {
    let conversion = stream(
        "map $ssl_preread_server_name $u {\nhostnames;\nwww.x web;\n.y.org web;\n*.z.org web;\n\
         ~^(.+\\.)?w\\.org$ web;\ndefault other;\n}\nupstream web { server a:1; }\n\
         upstream other { server unix:/run/o; }\nserver {\nlisten 443;\nlisten [::]:443;\n\
         ssl_preread on;\n\
         proxy_pass $u;\n}\n",
    );
    has(
        &conversion,
        &[
            "[frontend.server-443]",
            "bind = [\"0.0.0.0:443\", \"[::]:443\"]",
            "backend = \"other\"",
            "[frontend.server-443.sni]",
            "\"www.x\" = \"web\"",
            "\"y.org\" = \"web\"",
            "\"*.y.org\" = \"web\"",
            "\"*.z.org\" = \"web\"",
            "\"w.org\" = \"web\"",
            "\"*.w.org\" = \"web\"",
        ],
    );
    assert_eq!(conversion.report, []);
    let direct = stream(
        "map $ssl_preread_server_name $u {\nwww.x 192.0.2.1:443;\n~^w[0-9] web:1;\n}\n\
         server { listen 443; ssl_preread on; proxy_pass $u; }\n",
    );
    has(&direct, &["\"www.x\" = \"192.0.2.1:443\"", "address = \"192.0.2.1:443\""]);
    lacks(&direct, "\nbackend =");
    assert_eq!(reported(&direct), [4]);
    let alpn = stream(
        "map $ssl_preread_alpn_protocols $p {\nacme-tls/1 acme:1;\ndefault web:1;\n}\n\
         map $ssl_preread_server_name $u {\nwww.x x:1;\ndefault $p;\n}\n\
         server { listen 443; ssl_preread on; proxy_pass $u; }\n",
    );
    has(&alpn, &["backend = \"web:1\"", "\"www.x\" = \"x:1\"", "\"acme-tls/1\" = \"acme:1\""]);
}

#[test]
fn other_destinations_are_reported_and_left_out() {
    for (before, target) in [
        ("", "$ssl_preread_server_name:443"),
        ("map $ssl_preread_protocol $u { default a:1; }\n", "$u"),
        ("split_clients $remote_addr $u { 50% a:1; * b:1; }\n", "$u"),
        ("geo $u { default a:1; }\n", "$u"),
    ] {
        let conversion = stream(&format!(
            "{before}server {{ listen 1; proxy_pass {target}; }}\nserver {{ listen 2; proxy_pass \
            a:1; }}\n"
        ));
        has(&conversion, &["# [frontend.server-1]", "[frontend.server-2]"]);
        assert!(
            conversion.has_losses() && conversion.report.iter().any(|note| note.is_urgent),
            "{target}"
        );
    }
    // Alone, it refuses every client.
    let alone = stream("server { listen 1; proxy_pass $ssl_preread_server_name:443; }\n");
    has(&alone, &["[frontend.server-1]", "deny = [\"0.0.0.0/0\", \"::/0\"]"]);
    let port = stream("server { listen 1-9; proxy_pass 10.0.0.1:$server_port; }\n");
    has(&port, &["bind = [\"0.0.0.0:1-9\"]", "address = \"10.0.0.1\""]);
    let set = stream("server { listen 1; set $u a:1; proxy_pass $u; }\n");
    has(&set, &["backend = \"a:1\""]);
}

#[test]
fn tls_and_udp_are_left_out() {
    let conversion = stream(
        "upstream u { server a:1; }\nserver {\nlisten 443 ssl;\nssl_certificate x;\nproxy_pass \
        u;\n}\n\
         server {\nlisten 53 udp;\nlisten 53;\nproxy_pass u;\n}\nserver {\nlisten 54 udp;\n\
         proxy_pass u;\n}\n\
         server {\nlisten 444 ssl;\nproxy_ssl on;\nproxy_pass u;\n}\n",
    );
    has(&conversion, &["# [frontend.server-443]", "[frontend.server-53]", "[frontend.server-444]"]);
    lacks(&conversion, "server-54");
    lacks(&conversion, "\ndeny = ");
    let reported = reported(&conversion);
    for line in [4, 9, 14, 18, 19] {
        assert!(reported.contains(&line), "{line} of {reported:?}");
    }
}

#[test]
fn rules_on_clients_become_lists() {
    let server =
        |lines: &str| stream(&format!("server {{\nlisten 1;\n{lines}proxy_pass a:1;\n}}\n"));
    let lists = server("deny 10.0.0.1;\nallow 10.0.0.0/8;\nallow 2001:db8::/32;\ndeny all;\n");
    has(&lists, &["allow = [\"10.0.0.0/8\", \"2001:db8::/32\"]", "deny = [\"10.0.0.1/32\"]"]);
    has(&server("deny 10.0.0.1;\nallow all;\n"), &["deny = [\"10.0.0.1/32\"]"]);
    let exception = server("allow 10.0.0.1;\ndeny 10.0.0.0/8;\n");
    assert_eq!(reported(&exception), [5]);
    let limit = stream(
        "limit_conn_zone $binary_remote_addr zone=z:10m;\nlimit_conn z 5;\nserver { listen 1; \
        proxy_pass a:1; }\n",
    );
    has(&limit, &["clients_max = 5"]);
    assert_eq!(limit.report, []);
    let other = stream(
        "limit_conn_zone $server_addr zone=z:10m;\nserver {\nlisten 1;\nlimit_conn z \
        5;\nproxy_pass a:1;\n}\n",
    );
    assert_eq!(reported(&other), [5]);
}

#[test]
fn other_keys_of_a_server_are_kept() {
    let conversion = stream(
        "resolver 192.0.2.53 [2001:db8::53]:5353 valid=10s;\nserver {\nlisten 1 proxy_protocol \
        so_keepalive=30m:: backlog=9 fastopen=3;\n\
         set_real_ip_from 10.0.0.0/8;\nproxy_bind $remote_addr transparent;\n\
         proxy_connect_timeout 1s;\n\
         proxy_pass a:1;\nproxy_upload_rate 10k;\nproxy_download_rate 0;\n\
         proxy_next_upstream_timeout 5s;\n}\n",
    );
    has(&conversion, &["resolver = [\"192.0.2.53:53\", \"[2001:db8::53]:5353\"]"]);
    has(&conversion, &["source = [\"client\"]"]);
    has(&conversion, &["keepalive = \"30m\"", "backlog = 9", "fast_open = true"]);
    has(&conversion, &["proxy_protocol = \"required\"", "proxy_protocol_from = [\"10.0.0.0/8\"]"]);
    assert_eq!(reported(&conversion), [9, 11]);
    let address = stream("server { listen 1; proxy_bind 192.0.2.1; proxy_pass a:1; }\n");
    has(&address, &["source = [\"192.0.2.1\"]"]);
}

#[test]
fn a_fragment_of_a_stream_block_is_read_and_a_template_is_reported() {
    let fragment = convert(
        Format::Nginx,
        "upstream u {\nserver ${HOST}:80;\n}\nserver { listen 1; proxy_pass u; }\n",
    )
    .unwrap();
    has(&fragment, &["[backend.u]", "address = \"host.invalid:80\"", "[frontend.server-1]"]);
    assert_eq!(reported(&fragment), [2]);
    let twice =
        stream("upstream u {\nserver a:1;\nserver a:1;\n}\nserver { listen 1; proxy_pass u; }\n");
    assert_eq!(twice.toml.matches("[[backend.u.server]]").count(), 1);
    assert_eq!(differing(&twice), [4]);
}

#[test]
fn included_files_are_read_and_missing_ones_are_reported() {
    let folder = std::env::temp_dir().join(format!("evenkeel-convert-{}", process::id()));
    fs::create_dir_all(folder.join("stream.d")).unwrap();
    let main = "stream {\ninclude stream.d/*.conf;\ninclude nope/*.conf;\nserver { listen 1; \
    proxy_pass u; }\n}\n";
    fs::write(folder.join("nginx.conf"), main).unwrap();
    fs::write(folder.join("stream.d/u.conf"), "upstream u {\nserver a:1;\nstate x;\n}\n").unwrap();
    let conversion = convert::convert(None, &folder.join("nginx.conf")).unwrap();
    has(&conversion, &["[backend.u]", "address = \"a:1\""]);
    let places: Vec<(bool, usize)> =
        conversion.report.iter().map(|note| (note.file.ends_with("u.conf"), note.line)).collect();
    assert_eq!(places, [(false, 3), (true, 3)]);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_nginx_refuses_is_refused_with_its_line() {
    for (text, place) in [
        ("stream {\nserver {\nlisten 80\nproxy_pass a:1;\n}\n}\n", "x.cfg:3: "),
        ("stream {\nserver {\nlisten 80;\nproxy_pas a:1;\n}\n}\n", "x.cfg:2: "),
        ("stream {\nserver {\nlisten 80;\nproxy_pass nope;\n}\n}\n", "x.cfg:4: "),
        ("stream {\nserver {\nlisten 80;\nproxy_pass $nope;\n}\n}\n", "x.cfg:4: "),
        ("stream {\nserver {\nproxy_pass a:1;\n}\n}\n", "x.cfg:2: "),
        ("stream {\nupstream u {\n}\n}\n", "x.cfg:2: "),
        ("stream {\nupstream u {\nserver a:1 wieght=2;\n}\n}\n", "x.cfg:3: "),
        ("stream {\nserver {\nlisten 80;\nproxy_pass a:1;\n}\n", "x.cfg:1: "),
        ("stream {\nserver {\nlisten 80;\nproxy_pass a:1;\nproxy_pass b:1;\n}\n}\n", "x.cfg:5: "),
        ("stream {\nserver {\nlisten 80;\nproxy_pass a:1 b:1;\n}\n}\n", "x.cfg:4: "),
        ("stream {\nserver {\nlisten 80;\nproxy_pass a:1;\nssl_preread yes;\n}\n}\n", "x.cfg:5: "),
        (
            "stream {\nserver {\nlisten 80;\nproxy_pass a:1;\nallow 1.1.1.1, 1.1.1.2;\n}\n}\n",
            "x.cfg:5: ",
        ),
        ("stream {\nserver {\nlisten 80;\nproxy_pass a:1;\nserver {\n}\n}\n}\n", "x.cfg:5: "),
        ("stream {\nlisten 80;\n}\n", "x.cfg:2: "),
        (
            "stream {\nserver {\nlisten 80;\nlisten 0.0.0.0:80;\nproxy_pass a:1;\n}\n}\n",
            "x.cfg:4: ",
        ),
        ("stream {\nupstream u {\nserver a:1 weight=0;\n}\n}\n", "x.cfg:3: "),
        ("stream {\nupstream u {\nserver a:1 backup;\n}\n}\n", "x.cfg:2: "),
        ("stream {\nupstream u {\nrandom;\nserver a:1;\nserver b:1 backup;\n}\n}\n", "x.cfg:5: "),
        ("stream {\nmap $ssl_preread_server_name $n {\na u;\na v;\n}\n}\n", "x.cfg:4: "),
        ("stream {\nmap $ssl_preread_server_name $n {\na u;\nA v;\n}\n}\n", "x.cfg:4: "),
        ("stream {\nmap $ssl_preread_server_name n {\na u;\n}\n}\n", "x.cfg:2: "),
    ] {
        let problem = refusal(Format::Nginx, text);
        assert!(problem.contains(place) && problem.contains("; "), "{text}{problem}");
    }
}

#[test]
fn blocks_that_are_nested_too_deeply_are_refused() {
    let text = format!("stream {{ {} {} }}", "a { ".repeat(100_000), "} ".repeat(100_000));
    let refused = refusal(Format::Nginx, &text);
    assert!(refused.contains("more than 100 blocks"), "{refused}");
}

#[test]
fn addresses_of_a_server_that_differ_become_frontends() {
    let conversion = stream(
        "server {\nlisten 80;\nlisten 443 ssl;\nlisten 81 proxy_protocol;\nlisten 53 udp;\n\
         proxy_pass web:1;\n}\n",
    );
    has(&conversion, &["[frontend.server-80]", "bind = [\"0.0.0.0:80\"]"]);
    has(&conversion, &["# [frontend.server-443]", "# bind = [\"0.0.0.0:443\"]"]);
    has(
        &conversion,
        &["[frontend.server-81]", "bind = [\"0.0.0.0:81\"]", "proxy_protocol = \"required\""],
    );
    assert_eq!(conversion.toml.matches("proxy_protocol = ").count(), 1, "{}", conversion.toml);
}

#[test]
fn the_first_bytes_may_take_as_long_as_in_nginx() {
    let header = "server { listen 1 proxy_protocol; proxy_pass a:1; }\n";
    has(&stream(header), &["preface_timeout = \"30s\""]);
    has(&stream(&format!("proxy_protocol_timeout 2s;\n{header}")), &["preface_timeout = \"2s\""]);
    let hello = "map $ssl_preread_server_name $u { w.x a:1; }\n\
                 server { listen 1; ssl_preread on; proxy_pass $u; }\n";
    has(&stream(hello), &["preface_timeout = \"30s\""]);
    has(&stream(&format!("preread_timeout 5s;\n{hello}")), &["preface_timeout = \"5s\""]);
    lacks(&stream("server { listen 1; proxy_pass a:1; }\n"), "preface_timeout");
    let half = stream("server { listen 1; proxy_pass a:1; proxy_half_close on; }\n");
    has(&half, &["half_closed_timeout = \"10m\""]);
}

#[test]
fn an_unknown_directive_is_answered_with_the_nearest_known_one() {
    for (text, known) in [
        ("server { listne 1; proxy_pass a:1; }\n", "listen"),
        ("upstream u { sever a:1; }\nserver { listen 1; proxy_pass u; }\n", "server"),
        ("server { listen 1 proxy_protcol; proxy_pass a:1; }\n", "proxy_protocol"),
        ("upstream u { server a:1 wieght=1; }\nserver { listen 1; proxy_pass u; }\n", "weight"),
    ] {
        let problem = refusal(Format::Nginx, &format!("stream {{\n{text}}}\n"));
        assert!(problem.contains(&format!("; did you mean {known:?}?")), "{problem}");
    }
}

#[test]
fn lists_of_peers_that_send_the_proxy_header_are_not_lists_of_clients() {
    let server = |lines: &str| {
        stream(&format!("server {{\nlisten 1 proxy_protocol;\n{lines}proxy_pass a:1;\n}}\n"))
    };
    let peers = server("allow 10.0.0.0/8;\ndeny all;\n");
    has(&peers, &["proxy_protocol_from = [\"10.0.0.0/8\"]"]);
    lacks(&peers, "\nallow = ");
    let clients = server("set_real_ip_from 192.0.2.1;\nallow 10.0.0.0/8;\ndeny all;\n");
    has(&clients, &["proxy_protocol_from = [\"192.0.2.1/32\"]", "allow = [\"10.0.0.0/8\"]"]);
    let denied = server("deny 10.0.0.1;\n");
    lacks(&denied, "\ndeny = ");
    assert!(denied.report.iter().any(|note| note.is_urgent), "{:?}", denied.report);
    has(&server("deny all;\n"), &["deny = [\"0.0.0.0/0\", \"::/0\"]"]);
}

#[test]
fn peers_by_name_are_not_trusted_and_the_lists_stay_those_of_the_clients() {
    let server = |lines: &str| {
        let rules = "allow 203.0.113.0/24;\ndeny all;\n";
        stream(&format!(
            "server {{\nlisten 8091 proxy_protocol;\n{lines}{rules}proxy_pass a:1;\n}}\n"
        ))
    };
    let name = server("set_real_ip_from localhost;\n");
    has(&name, &["proxy_protocol_from = [\"255.255.255.255/32\"]", "allow = [\"203.0.113.0/24\"]"]);
    assert_eq!((reported(&name), urgent(&name)), (vec![4], vec![4]));
    assert_eq!(super::problems(&name.toml), Vec::<String>::new());
    let both = server("set_real_ip_from localhost;\nset_real_ip_from 192.0.2.1;\n");
    has(&both, &["proxy_protocol_from = [\"192.0.2.1/32\"]", "allow = [\"203.0.113.0/24\"]"]);
    assert_eq!(urgent(&both), [4]);
    let unix = server("set_real_ip_from unix:;\n");
    has(&unix, &["proxy_protocol_from = [\"255.255.255.255/32\"]", "allow = [\"203.0.113.0/24\"]"]);
    let none = server("");
    has(&none, &["proxy_protocol_from = [\"203.0.113.0/24\"]"]);
    lacks(&none, "\nallow = ");
}

#[test]
fn a_limit_on_peers_is_none_of_the_clients_behind_them() {
    let server = |lines: &str| {
        stream(&format!(
            "limit_conn_zone $binary_remote_addr zone=z:10m;\nserver {{\nlisten 1 proxy_protocol;\n\
             limit_conn z 5;\n{lines}proxy_pass a:1;\n}}\n"
        ))
    };
    let peers = server("");
    lacks(&peers, "clients_max");
    assert_eq!(urgent(&peers), [5]);
    has(&server("set_real_ip_from 192.0.2.1;\n"), &["clients_max = 5"]);
}

#[test]
fn what_nginx_accepts_is_not_refused() {
    let server = "server { listen 1; proxy_pass u; }\n";
    for method in ["hash $remote_addr;", "random;", "random;\nleast_conn;"] {
        let backup = stream(&format!(
            "upstream u {{\nserver a:1;\nserver b:1 backup;\n{method}\n}}\n{server}"
        ));
        has(&backup, &["backup = true"]);
        assert!(differing(&backup).contains(&4), "{method}");
    }
    let redefined = format!(
        "upstream u {{\nhash $remote_addr;\nleast_conn;\nserver a:1;\nserver b:1 backup;\n}}\n\
         {server}"
    );
    has(&stream(&redefined), &["balance = \"leastconn\"", "backup = true"]);
    let expressions = stream(
        "map $ssl_preread_server_name $u {\n~^w\\.x$ a:1;\n~^w\\.x$ b:1;\ndefault c:1;\n}\n\
         server { listen 1; ssl_preread on; proxy_pass $u; }\n",
    );
    has(&expressions, &["\"w.x\" = \"a:1\""]);
    lacks(&expressions, "\"w.x\" = \"b:1\"");
}

#[test]
fn switches_may_have_capitals() {
    let conversion = stream(
        "upstream u { server a:1; server b:1; }\nserver {\nlisten 1;\nproxy_pass u;\n\
         tcp_nodelay ON;\nproxy_protocol On;\nproxy_half_close oN;\nproxy_next_upstream OFF;\n\
         proxy_ssl Off;\n}\n",
    );
    has(&conversion, &["send_proxy = \"v1\"", "retries = 0"]);
    has(&conversion, &["half_closed_timeout = \"10m\""]);
    assert_eq!(conversion.report, []);
    let tls = stream("server {\nlisten 1;\nproxy_pass a:1;\nproxy_ssl ON;\n}\n");
    assert_eq!(urgent(&tls), [5]);
}

#[test]
fn one_of_the_servers_of_an_address_serves() {
    let two = |first: &str, second: &str| {
        stream(&format!(
            "server {{ listen {first}; proxy_pass a:1; }}\n\
             server {{ listen {second}; listen 81; proxy_pass b:1; }}\n"
        ))
    };
    for (first, second) in [("80", "80"), ("*:80", "0.0.0.0:80"), ("[::]:80", "[::]:80")] {
        let conversion = two(first, second);
        has(&conversion, &["[frontend.server-80]", "backend = \"a:1\""]);
        has(&conversion, &["[frontend.server-81]", "bind = [\"0.0.0.0:81\"]", "backend = \"b:1\""]);
        assert_eq!((reported(&conversion), urgent(&conversion)), (vec![3], vec![3]));
        assert_eq!(conversion.report.len(), 1, "{:?}", conversion.report);
    }
    let default = two("80", "80 default_server");
    has(&default, &["[frontend.server-80]", "bind = [\"0.0.0.0:80\", \"0.0.0.0:81\"]"]);
    lacks(&default, "\"a:1\"");
    assert_eq!(urgent(&default), [2]);
    let names = stream(
        "server { listen 80; proxy_pass a:1; }\n\
         server { listen 80; server_name b.x; proxy_pass b:1; }\n",
    );
    assert_eq!(urgent(&names), [3]);
    assert!(names.report[0].reason.starts_with("server_name"), "{:?}", names.report);
    // One for TCP and one for UDP.
    assert_eq!(urgent(&two("80", "80 udp")), [3]);
    has(&two("80 udp", "80"), &["bind = [\"0.0.0.0:80\", \"0.0.0.0:81\"]"]);
    let both = "server { listen 80; proxy_pass a:1; }\nserver {\nlisten 80;\nlisten 80 udp;\n\
                listen 81;\nproxy_pass b:1;\n}\n";
    assert_eq!(urgent(&stream(both)), [4, 5]);
}

#[test]
fn without_preread_every_client_goes_where_one_without_a_name_goes() {
    let map = "map $ssl_preread_server_name $name {\ndefault u:1;\na.example v:1;\n}\n";
    let server = |rest: &str| format!("{map}server {{\nlisten 1;\nproxy_pass $name;\n{rest}}}\n");
    let off = stream(&server(""));
    has(&off, &["backend = \"u:1\""]);
    lacks(&off, "sni");
    assert_eq!((differing(&off), reported(&off)), (vec![8], vec![]));
    has(&stream(&server("ssl_preread on;\n")), &["\"a.example\" = \"v:1\""]);
    let outside = stream(&format!("ssl_preread on;\n{}", server("")));
    has(&outside, &["\"a.example\" = \"v:1\""]);
    let empty = server("").replace("a.example", "\"\"");
    has(&stream(&empty), &["backend = \"v:1\""]);
}

#[test]
fn clients_that_several_servers_count_together_are_said() {
    let zone = "limit_conn_zone $binary_remote_addr zone=z:1m;\n";
    let server =
        |port: u16| format!("server {{\nlisten {port};\nproxy_pass a:1;\nlimit_conn z 5;\n}}\n");
    assert_eq!(stream(&format!("{zone}{}", server(1))).report, []);
    let two = stream(&format!("{zone}{}{}", server(1), server(2)));
    has(&two, &["clients_max = 5", "clients_max = 5"]);
    assert_eq!(differing(&two), [6, 11]);
    let around = stream(&format!(
        "{zone}limit_conn z 5;\nserver {{ listen 1; proxy_pass a:1; }}\n\
         server {{ listen 2; proxy_pass a:1; }}\n"
    ));
    assert_eq!(differing(&around), [3]);
}

#[test]
fn weights_keep_their_proportion() {
    let conversion = stream(
        "upstream u {\nserver a:1 weight=5000;\nserver b:1 weight=2500;\nserver c:1;\n}\n\
         server { listen 1; proxy_pass u; }\n",
    );
    has(&conversion, &["weight = 1000", "weight = 500", "weight = 1"]);
    assert_eq!(differing(&conversion), [3, 4, 5]);
    // The same server several times.
    let line = "server a:1 weight=600;\n";
    let twice = stream(&format!(
        "upstream u {{\n{line}{line}server b:1 weight=600;\n}}\n\
         server {{ listen 1; proxy_pass u; }}\n"
    ));
    has(&twice, &["weight = 1000", "weight = 500"]);
}

#[test]
fn an_upstream_that_becomes_two_backends_is_said() {
    let server = |port: u16, timeout: &str| {
        format!("server {{\nlisten {port};\nproxy_connect_timeout {timeout};\nproxy_pass u;\n}}\n")
    };
    let text = |other: &str| {
        let upstream = "upstream u {\nserver a:1 max_conns=5;\n}\n";
        format!("{upstream}{}{}", server(1, "1s"), server(2, other))
    };
    assert_eq!(stream(&text("1s")).report, []);
    let two = stream(&text("2s"));
    has(&two, &["[backend.u]", "[backend.u-2]"]);
    assert_eq!(differing(&two), [13]);
}

#[test]
fn addresses_with_other_options_of_sockets_are_frontends_of_their_own() {
    let listen = |lines: &str| stream(&format!("server {{\n{lines}proxy_pass a:1;\n}}\n"));
    let conversion = listen("listen 1025 so_keepalive=off;\nlisten 1026 so_keepalive=7s::;\n");
    let parts: Vec<&str> = conversion.toml.split("[frontend.server-1026]").collect();
    assert!(parts.len() == 2 && !parts[0].contains("keepalive"), "{}", conversion.toml);
    assert!(parts[1].contains("keepalive = \"7s\""), "{}", conversion.toml);
    let same = listen("listen 1025 so_keepalive=7s::;\nlisten 1026 so_keepalive=7s;\n");
    has(&same, &["bind = [\"0.0.0.0:1025\", \"0.0.0.0:1026\"]"]);
}
