//! The parameters of `bind` and `server` lines.

use crate::convert::keyword::{Keyword, drop, keep, near, report};

const TLS: &str = "TLS is not ended by evenkeel";
const TO_SERVER: &str = "TLS to the server";

pub(super) const BIND: &[Keyword] = &[
    report("ssl", "TLS is not ended: the frontend is left out"),
    drop(
        "crt, ca-file, alpn, npn, ciphers, ciphersuites, curves, ecdhe, crl-file, crt-list, \
    verify",
        TLS,
    )
    .with(1),
    drop(
        "ca-ignore-err, ca-sign-file, ca-sign-pass, ca-verify-file, crt-ignore-err, ssl-min-ver, \
    ssl-max-ver",
        TLS,
    )
    .with(1),
    drop(
        "tls-ticket-keys, client-sigalgs, sigalgs, ocsp-update, default-crt, \
    ssl-f-use",
        TLS,
    )
    .with(1),
    drop(
        "allow-0rtt, force-sslv3, force-tlsv10, force-tlsv11, force-tlsv12, force-tlsv13, \
    generate-certificates",
        TLS,
    ),
    drop(
        "no-alpn, no-ca-names, no-sslv3, no-tls-tickets, no-tlsv10, no-tlsv11, no-tlsv12, \
    no-tlsv13, no-strict-sni",
        TLS,
    ),
    drop("prefer-client-ciphers, prefer-server-ciphers, strict-sni, tls-tickets", TLS),
    keep("accept-proxy", "frontend.proxy_protocol", "\"required\", from everybody"),
    report("accept-netscaler-cip", "evenkeel reads PROXY v1 and v2 only").with(1),
    keep("backlog", "frontend.backlog", "").with(1),
    keep("defer-accept", "frontend.defer_accept", ""),
    keep("tfo", "frontend.fast_open", ""),
    near("v4v6", "frontend.bind", "an address for each family"),
    drop("v6only", "evenkeel's IPv6 sockets take IPv6 only"),
    report("transparent", "evenkeel binds only addresses that this machine has"),
    report("interface", "evenkeel binds addresses, not interfaces").with(1),
    report("namespace", "evenkeel runs in one network namespace").with(1),
    report("maxconn", "sessions_max is of the whole frontend").with(1),
    report("tcp-ut", "evenkeel sets TCP_USER_TIMEOUT together with keepalive").with(1),
    report("mss", "evenkeel leaves the segment size to the kernel").with(1),
    report("tcp-md5sig, cc", "evenkeel leaves it to the kernel").with(1),
    drop("name, id, label, guid-prefix, idle-ping", "label").with(1),
    drop(
        "mode, user, group, uid, gid, level, severity-output, expose-fd",
        "of the socket \
    file",
    )
    .with(1),
    drop(
        "process, thread, shards, nice, nbconn, proto, ktls, quic-cc-algo, \
    quic-socket",
        "tuning",
    )
    .with(1),
    drop("quic-force-retry", "tuning"),
];

pub(super) const SERVER: &[Keyword] = &[
    keep("check", "backend.health.check", "on every server of a backend, or \"off\""),
    keep("inter", "backend.health.interval, interval_down", "").with(1),
    keep("downinter", "backend.health.interval_down", "").with(1),
    report("fastinter", "evenkeel has no third interval for servers that change").with(1),
    keep("rise", "backend.health.rise", "").with(1),
    keep("fall", "backend.health.fall", "").with(1),
    keep("port", "backend.health.port", "").with(1),
    report("addr", "the probe goes to the address of the server, not to another one").with(1),
    keep(
        "check-send-proxy",
        "backend.health.send_proxy",
        "implied by send-proxy, unless a port is given",
    ),
    keep("check-ssl", "backend.health.tls", ""),
    keep("check-sni", "backend.health.tls", "name").with(1),
    report("check-alpn, check-proto, check-pool-conn-name", "the probe offers no protocol").with(1),
    report("check-via-socks4", "evenkeel connects directly"),
    drop("check-reuse-pool", "a probe has its own connection"),
    keep("weight", "backend.server.weight", "").with(1),
    keep("maxconn", "backend.server.sessions_max", "").with(1),
    report("minconn", "sessions_max is constant").with(1),
    near("maxqueue", "backend.queue_max", "the queue belongs to the backend, not to the server")
        .with(1),
    keep("slowstart", "backend.slow_start", "").with(1),
    keep("backup", "backend.server.backup", ""),
    keep("disabled", "backend.server.state", "\"maint\""),
    drop("enabled", "the default"),
    keep("on-marked-down", "backend.on_down", "shutdown-sessions: \"close\"").with(1),
    report("on-marked-up", "sessions of backups go on").with(1),
    report(
        "observe, on-error, error-limit",
        "failures in a row; evenkeel counts them in a time: backend.health.errors",
    )
    .with(1),
    keep("send-proxy", "backend.send_proxy", "\"v1\""),
    keep("send-proxy-v2", "backend.send_proxy", "\"v2\""),
    near(
        "send-proxy-v2-ssl, send-proxy-v2-ssl-cn",
        "backend.send_proxy",
        "\"v2\", without what it says of TLS",
    ),
    report("proxy-v2-options, set-proxy-v2-tlv-fmt", "the PROXY header has the addresses only")
        .with(1),
    keep("source", "backend.source", "usesrc client is \"client\"").with(1),
    keep("tfo", "backend.fast_open", ""),
    report("tcp-ut", "evenkeel sets TCP_USER_TIMEOUT together with keepalive").with(1),
    report("tcp-md5sig, cc", "evenkeel leaves it to the kernel").with(1),
    report("namespace", "evenkeel runs in one network namespace").with(1),
    report("socks4", "evenkeel connects directly, not through a proxy").with(1),
    report("track", "each server has its own probes").with(1),
    report("agent-check", "evenkeel asks no agent"),
    drop("agent-addr, agent-inter, agent-port, agent-send", "of agent-check").with(1),
    keep("resolvers", "global.resolver", "").with(1),
    keep(
        "init-addr",
        "-",
        "a name without an answer at start is a server that is down, and is asked again",
    )
    .with(1),
    drop("resolve-opts", "a name with several addresses is one server").with(1),
    report("resolve-prefer", "address family: evenkeel uses every address of a name").with(1),
    report("resolve-net", "evenkeel uses every address of a name").with(1),
    report("ssl", "TLS to the server: evenkeel forwards bytes as they are"),
    drop(
        "alpn, npn, ca-file, ciphers, ciphersuites, crl-file, crt, curves, sigalgs, client-sigalgs",
        TO_SERVER,
    )
    .with(1),
    drop("sni, verify, verifyhost, ssl-min-ver, ssl-max-ver, sni-auto, renegotiate", TO_SERVER)
        .with(1),
    drop(
        "allow-0rtt, force-sslv3, force-tlsv10, force-tlsv11, force-tlsv12, force-tlsv13, no-sslv3",
        TO_SERVER,
    ),
    drop(
        "no-tls-tickets, no-tlsv10, no-tlsv11, no-tlsv12, no-tlsv13, no-ssl-reuse, ssl-reuse, \
        tls-tickets",
        TO_SERVER,
    ),
    drop("no-verifyhost, no-sni-auto, no-renegotiate, no-check-sni-auto", TO_SERVER),
    report("cookie", "persistence by cookie: evenkeel does not look at requests").with(1),
    report("redir", "HTTP: evenkeel does not look at requests").with(1),
    report("proto", "evenkeel forwards bytes as they are").with(1),
    drop(
        "ws, max-reuse, pool-low-conn, pool-max-conn, pool-purge-delay, pool-conn-name",
        "HTTP only",
    )
    .with(1),
    drop("id, guid, log-proto, log-bufsize, hash-key, idle-ping, shard, healthcheck", "label")
        .with(1),
    drop("stick, non-stick", "no stick tables"),
];
