//! The keywords of `defaults`, `frontend`, `backend` and `listen`.

use crate::convert::keyword::{Keyword, drop, http, keep, near, report};

pub(super) const PROXY: &[Keyword] = &[
    keep("bind", "frontend.bind", "each address; parameters are in the table below"),
    near("mode", "-", "mode http: connections are balanced, not requests"),
    keep("default_backend", "frontend.backend", ""),
    keep(
        "use_backend",
        "frontend.sni, alpn, backend",
        "by req.ssl_sni, req.ssl_alpn and dst_port; other conditions are reported",
    ),
    keep("acl", "frontend.sni, alpn, allow, deny", "src, dst_port, req.ssl_sni, req.ssl_alpn"),
    keep("server", "backend.server", "parameters are in the table below"),
    near(
        "server-template",
        "backend.server, backend.srv",
        "one server whose name has several addresses; the number of slots is lost",
    ),
    keep("default-server", "-", "written into the servers or the health checks of the backend"),
    near("dispatch", "backend.server", "a server without health checks"),
    keep(
        "balance",
        "backend.balance",
        "roundrobin, leastconn, first, random; source uses another hash, so clients move once",
    ),
    drop(
        "hash-type, hash-balance-factor, hash-preserve-affinity",
        "source is a consistent hash, similar to Maglev",
    ),
    keep("maxconn", "frontend.sessions_max", ""),
    keep("backlog", "frontend.backlog", ""),
    report("fullconn", "dynamic limits of a server: sessions_max is constant"),
    keep("retries", "backend.retries", "each attempt is on another server"),
    drop("retry-on", "evenkeel tries another server when a connect fails"),
    keep("source", "backend.source", "usesrc client is \"client\": transparent"),
    keep("rate-limit", "frontend.rate.sessions", ""),
    keep("clitcpka-idle", "frontend.keepalive", ""),
    keep("srvtcpka-idle", "backend.keepalive", ""),
    drop(
        "clitcpka-cnt, clitcpka-intvl, srvtcpka-cnt, srvtcpka-intvl",
        "evenkeel derives them from keepalive",
    ),
    near("contimeout", "backend.connect_timeout", "old spelling"),
    near("clitimeout, srvtimeout", "frontend.idle_timeout", "old spelling"),
    keep("http-check", "backend.health.http", "send, expect status, connect port"),
    keep("tcp-check", "backend.health.exchange", "send, expect, connect port"),
    report("external-check", "evenkeel starts no program; write a health check of its own"),
    near("disabled", "-", "the section is left out"),
    drop("enabled", "the default"),
    report("use-server", "servers are chosen by balance"),
    report(
        "monitor-uri, monitor-net, monitor",
        "the page for monitors is /healthz and /readyz of observe.bind",
    ),
    report("email-alert", "evenkeel sends no mail; alert on evenkeel_server_up"),
    report("filter", "evenkeel has no filters"),
    report("transparent", "the address that the client connected to is not used as a server"),
    report("redispatch", "evenkeel always tries another server"),
    drop("grace", "global.drain_delay is for all frontends"),
    drop(
        "log, log-format, log-format-sd, log-tag, error-log-format, log-steps, unique-id-format, \
        unique-id-header",
        "evenkeel writes records of its own",
    ),
    drop("description, id, bind-process, guid", "of the process"),
    drop("errorfile, errorfiles, errorloc, errorloc302, errorloc303, http-error", "HTTP only"),
    drop(
        "force-persist, ignore-persist, persist, max-keep-alive-queue, http-reuse, hash-key",
        "HTTP only",
    ),
    drop(
        "max-session-srv-conns, load-server-state-from-file, server-state-file-name",
        "a reload keeps the state of servers",
    ),
    http(
        "http-request, http-response, http-after-response",
        "HTTP: evenkeel does not look at requests",
    ),
    http(
        "redirect, reqadd, reqallow, reqdel, reqdeny, reqiallow, reqidel, reqideny, reqipass, \
        reqirep",
        "HTTP: evenkeel does not look at requests",
    ),
    http(
        "reqisetbe, reqitarpit, reqpass, reqrep, reqsetbe, reqtarpit, rspadd, rspdel, rspdeny",
        "HTTP: evenkeel does not look at requests",
    ),
    http(
        "rspidel, rspideny, rspirep, rsprep, capture, declare, block, compression",
        "HTTP: evenkeel does not look at requests",
    ),
    http(
        "http-send-name-header, use-fcgi-app, quic-initial",
        "HTTP: evenkeel does not look at requests",
    ),
    http(
        "cookie, appsession, dynamic-cookie-key",
        "persistence by cookie: evenkeel does not look at requests",
    ),
];

pub(super) const TIMEOUTS: &[Keyword] = &[
    keep("timeout connect", "backend.connect_timeout", ""),
    keep(
        "timeout client, timeout server",
        "frontend.idle_timeout",
        "the shorter one; neither: \"off\"",
    ),
    keep("timeout clitimeout, timeout srvtimeout, timeout contimeout", "-", "old spelling"),
    keep(
        "timeout tunnel",
        "frontend.idle_timeout",
        "in mode tcp, instead of client and server, if every backend of the frontend has it",
    ),
    near(
        "timeout client-fin, timeout server-fin",
        "frontend.half_closed_timeout",
        "one value for both sides",
    ),
    keep("timeout queue", "backend.queue_timeout", ""),
    keep("timeout check", "backend.health.timeout", "for the whole probe"),
    drop("timeout http-request, timeout http-keep-alive, timeout tarpit", "HTTP only"),
    drop("timeout client-hs", "TLS is not ended by evenkeel"),
];

pub(super) const OPTIONS: &[Keyword] = &[
    keep("option tcp-check", "backend.health.check", "\"tcp\"; with rules \"exchange\""),
    keep("option httpchk", "backend.health.check, backend.health.http", "check = \"http\""),
    near("option smtpchk", "backend.health.exchange", "a dialogue of the same steps"),
    near("option redis-check", "backend.health.exchange", "a dialogue of the same steps"),
    near("option ssl-hello-chk", "backend.health.tls", "a whole handshake of today's TLS"),
    report(
        "option mysql-check, option pgsql-check, option ldap-check, option spop-check",
        "evenkeel has no such check: the probe only connects (check = \"tcp\")",
    ),
    report(
        "option external-check",
        "evenkeel starts no program: the probe only connects (check = \"tcp\")",
    ),
    keep("option redispatch", "backend.retries", "evenkeel always tries another server"),
    keep("option allbackups", "backend.backups", "\"all\"; without it \"first\""),
    near(
        "option tcpka",
        "frontend.keepalive, backend.keepalive",
        "without clitcpka-idle, the time of the kernel: 2h",
    ),
    near(
        "option clitcpka",
        "frontend.keepalive",
        "without clitcpka-idle, the time of the kernel: 2h",
    ),
    near(
        "option srvtcpka",
        "backend.keepalive",
        "without srvtcpka-idle, the time of the kernel: 2h",
    ),
    keep("option dontlognull", "observe.log.empty", "false, if every proxy has it"),
    report(
        "option transparent",
        "the address that the client connected to is not used as a server",
    ),
    report("option nolinger", "evenkeel resets a session only if one side was reset"),
    report(
        "option independent-streams, option independant-streams",
        "idle_timeout is for both directions together",
    ),
    drop(
        "option tcplog, option httplog, option httpslog, option logasap, option log-health-checks",
        "log",
    ),
    drop(
        "option log-separate-errors, option dontlog-normal, option contstats, option socket-stats",
        "log",
    ),
    drop(
        "option splice-auto, option splice-request, option splice-response",
        "evenkeel splices by itself",
    ),
    near(
        "option abortonclose",
        "-",
        "a client that closes while it waits in the queue stays there; one that resets does not",
    ),
    drop("option tcp-smart-accept, option tcp-smart-connect, option persist", "tuning"),
    drop(
        "option http-server-close, option httpclose, option forceclose, option http-keep-alive, \
        option http-tunnel",
        "HTTP only",
    ),
    drop(
        "option http-ignore-probes, option http-no-delay, option http-pretend-keepalive, option \
        http-buffer-request",
        "HTTP only",
    ),
    drop(
        "option http-use-proxy-header, option http-use-htx, option http-restrict-req-hdr-names, \
        option checkcache",
        "HTTP only",
    ),
    drop(
        "option http-drop-request-trailers, option http-drop-response-trailers, option \
        idle-close-on-response",
        "HTTP only",
    ),
    drop("option accept-invalid-http-request, option accept-invalid-http-response", "HTTP only"),
    drop(
        "option accept-unsafe-violations-in-http-request, option \
        accept-unsafe-violations-in-http-response",
        "HTTP only",
    ),
    drop(
        "option h1-case-adjust-bogus-client, option h1-case-adjust-bogus-server, option \
        disable-h2-upgrade",
        "HTTP only",
    ),
    drop(
        "option prefer-last-server, option tcp-reset, option http-enable-htx, option \
        use-small-buffers",
        "HTTP only",
    ),
    http(
        "option forwardfor, option originalto, option forwarded",
        "the server no longer learns the client's address; send_proxy or source = \"client\" of \
        the backend can tell it",
    ),
    http("option http_proxy", "HTTP proxy: evenkeel does not look at requests"),
];

pub(super) const RULES: &[Keyword] = &[
    keep(
        "tcp-request connection, tcp-request session, tcp-request content",
        "frontend.allow, deny, rate, clients_max",
        "accept and reject by src, and by rates and counts of stick tables; the rest is reported",
    ),
    keep("tcp-request inspect-delay", "frontend.preface_timeout", "if a ClientHello is read"),
    report(
        "tcp-response inspect-delay, tcp-response content",
        "evenkeel does not look at what servers send",
    ),
    near("stick-table", "backend.balance", "with stick on src; counters for rules on connections"),
    near(
        "stick on",
        "backend.balance",
        "src: \"source\", without a table; anything else is reported",
    ),
    report(
        "stick match, stick store-request, stick store-response",
        "evenkeel has no stick tables",
    ),
    near(
        "stats enable, stats uri",
        "observe.bind",
        "status page of evenkeel, with its own address and path",
    ),
    report(
        "stats auth, stats http-request",
        "evenkeel's status page has no password: it is kept on 127.0.0.1",
    ),
    report("stats admin", "commands go through the control socket only"),
    drop(
        "stats hide-version, stats realm, stats refresh, stats scope, stats show-desc, stats \
        show-legends",
        "look of the page",
    ),
    drop("stats show-modules, stats show-node, stats timeout, stats maxconn", "look of the page"),
];
