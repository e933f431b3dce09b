//! The directives of nginx outside of `http`, and the treatment of each.

use crate::convert::keyword::{Keyword, Table, drop, find, keep, near, remedy, report};

/// Every table.
pub(crate) const TABLES: &[Table] = &[
    Table { title: "main and events", keywords: MAIN },
    Table { title: "stream and server", keywords: STREAM },
    Table { title: "upstream", keywords: UPSTREAM },
    Table { title: "Parameters of listen", keywords: LISTEN },
    Table { title: "Parameters of server in upstream", keywords: SERVER },
];

const MAIN: &[Keyword] = &[
    keep("stream", "frontend, backend", ""),
    drop("events", ""),
    report("http", "everything in http {} is HTTP: left out"),
    report("mail", "everything in mail {} is a proxy for mail: left out"),
    keep("user", "global.user, group", ""),
    keep("worker_processes", "global.workers", ""),
    near(
        "worker_connections",
        "global.sessions_max",
        "for each worker, and a session takes two: workers x N / 2",
    ),
    keep("worker_cpu_affinity", "global.pin", "pinning is a switch; a mask cannot be given"),
    keep("worker_shutdown_timeout", "global.drain_timeout", ""),
    drop(
        "error_log, debug_connection, debug_points, log_not_found",
        "evenkeel writes to its standard streams",
    ),
    drop(
        "daemon, pid, master_process, lock_file, working_directory, env",
        "the service manager does it",
    ),
    drop("load_module, include", "of the process"),
    drop(
        "worker_priority, worker_rlimit_nofile, worker_rlimit_core, worker_aio_requests",
        "tuning",
    ),
    drop(
        "timer_resolution, thread_pool, pcre_jit, ssl_engine, multi_accept, accept_mutex",
        "tuning",
    ),
    drop(
        "accept_mutex_delay, use, google_perftools_profiles, ssl_object_cache_inheritable",
        "tuning",
    ),
    drop("worker_rlimit_sigpending, quic_bpf, mgmt, wasm_modules", "tuning"),
];

const STREAM: &[Keyword] = &[
    keep("server", "frontend.NAME", ""),
    keep("upstream", "backend.NAME", ""),
    keep("listen", "frontend.bind", "parameters are in the table below"),
    keep("proxy_pass", "frontend.backend", "an upstream, an address, or the variable of a map"),
    keep(
        "map",
        "frontend.sni, alpn, backend",
        "of $ssl_preread_server_name and $ssl_preread_alpn_protocols",
    ),
    keep("ssl_preread", "frontend.sni", ""),
    keep("set", "frontend.backend", "a constant for proxy_pass"),
    keep("proxy_timeout", "frontend.idle_timeout", "10m if it is absent"),
    keep("proxy_connect_timeout", "backend.connect_timeout", "60s if it is absent"),
    keep(
        "proxy_half_close",
        "frontend.half_closed_timeout",
        "on: as long as proxy_timeout; evenkeel always carries over the end of a direction",
    ),
    keep(
        "preread_timeout, proxy_protocol_timeout",
        "frontend.preface_timeout",
        "30s if it is absent",
    ),
    keep(
        "proxy_next_upstream, proxy_next_upstream_tries",
        "backend.retries",
        "tries count the first one; without them every server is tried once",
    ),
    report("proxy_next_upstream_timeout", "time for all attempts together: evenkeel limits each"),
    keep("proxy_protocol", "backend.send_proxy", "\"v1\""),
    keep("proxy_protocol_version", "backend.send_proxy", "\"v1\" or \"v2\""),
    keep("proxy_bind", "backend.source", "$remote_addr transparent is \"client\""),
    near("proxy_socket_keepalive", "backend.keepalive", "the time of the kernel: 2h"),
    keep("set_real_ip_from", "frontend.proxy_protocol_from", ""),
    keep(
        "allow, deny",
        "frontend.allow, deny",
        "first match first, as far as two lists can say it",
    ),
    keep(
        "limit_conn, limit_conn_zone",
        "frontend.clients_max",
        "by $remote_addr and $binary_remote_addr",
    ),
    report("limit_conn_dry_run", "evenkeel has no dry run of limits"),
    keep("resolver", "global.resolver", ""),
    keep("health_check", "backend.health", "interval, fails, passes, port"),
    keep("health_check_timeout", "backend.health.timeout", ""),
    report("match", "write health.exchange by hand"),
    report("include", "another file: its content is needed; convert it where the file is"),
    report("return, pass", "nothing is forwarded: left out"),
    report("proxy_ssl", "TLS to the server: evenkeel forwards bytes as they are"),
    report(
        "proxy_upload_rate, proxy_download_rate, proxy_limit_rate",
        "bytes a second: evenkeel does not limit them",
    ),
    report(
        "geo, split_clients, keyval, keyval_zone, geoip_country, geoip_city, geoip_org, geoip2",
        "variables: evenkeel routes by port, TLS server name and ALPN",
    ),
    report(
        "js_access, js_filter, js_preread, js_set, js_var, js_include, js_path, js_import, \
        js_periodic",
        "scripts: evenkeel runs none",
    ),
    report(
        "js_fetch_trusted_certificate, js_fetch_verify, js_fetch_timeout, js_shared_dict_zone, \
        js_preload_object",
        "scripts: evenkeel runs none",
    ),
    report(
        "lua_package_path, lua_package_cpath, lua_shared_dict, init_by_lua_block, \
        init_worker_by_lua_block",
        "scripts: evenkeel runs none",
    ),
    report(
        "preread_by_lua_block, content_by_lua_block, log_by_lua_block, balancer_by_lua_block, \
        preread_by_lua_file, content_by_lua_file",
        "scripts: evenkeel runs none",
    ),
    report(
        "ssl_certificate_by_lua_block, init_by_lua_file, init_worker_by_lua_file, \
        log_by_lua_file, balancer_by_lua_file",
        "scripts: evenkeel runs none",
    ),
    report("zone_sync, zone_sync_server", "tables are not shared between balancers"),
    report(
        "mqtt, mqtt_preread, mqtt_set_connect, mqtt_buffers, mqtt_rewrite_buffer_size, rtmp",
        "evenkeel does not look at what clients send",
    ),
    drop(
        "access_log, error_log, log_format, open_log_file_cache, limit_conn_log_level, \
        limit_conn_status",
        "log",
    ),
    drop(
        "ssl_certificate, ssl_certificate_key, ssl_protocols, ssl_ciphers, ssl_session_cache, \
        ssl_session_timeout",
        "of listen ... ssl",
    ),
    drop(
        "ssl_session_tickets, ssl_session_ticket_key, ssl_prefer_server_ciphers, ssl_dhparam, \
        ssl_ecdh_curve",
        "of listen ... ssl",
    ),
    drop(
        "ssl_client_certificate, ssl_trusted_certificate, ssl_verify_client, ssl_verify_depth, \
        ssl_crl, ssl_alpn",
        "of listen ... ssl",
    ),
    drop(
        "ssl_handshake_timeout, ssl_password_file, ssl_conf_command, ssl_ocsp, ssl_ocsp_cache, \
        ssl_ocsp_responder",
        "of listen ... ssl",
    ),
    drop(
        "ssl_stapling, ssl_stapling_file, ssl_stapling_responder, ssl_stapling_verify, \
        ssl_reject_handshake, ssl_key_log",
        "of listen ... ssl",
    ),
    drop(
        "ssl_certificate_cache, ssl_certificate_compression, ssl_ntls, ssl_buffer_size, \
        ssl_early_data",
        "of listen ... ssl",
    ),
    drop(
        "proxy_ssl_certificate, proxy_ssl_certificate_key, proxy_ssl_ciphers, \
        proxy_ssl_conf_command, proxy_ssl_crl",
        "of proxy_ssl",
    ),
    drop(
        "proxy_ssl_name, proxy_ssl_password_file, proxy_ssl_protocols, proxy_ssl_server_name, \
        proxy_ssl_session_reuse",
        "of proxy_ssl",
    ),
    drop(
        "proxy_ssl_trusted_certificate, proxy_ssl_verify, proxy_ssl_verify_depth, \
        proxy_ssl_key_log, proxy_ssl_alpn",
        "of proxy_ssl",
    ),
    drop("proxy_ssl_certificate_cache, proxy_ssl_ntls", "of proxy_ssl"),
    drop(
        "proxy_buffer_size, proxy_downstream_buffer, proxy_upstream_buffer, preread_buffer_size",
        "buffers are evenkeel's own (global.buffers)",
    ),
    drop("proxy_responses, proxy_requests", "UDP only"),
    drop("resolver_timeout, proxy_session_drop, tcp_nodelay, status_zone, status_format", "tuning"),
    drop(
        "variables_hash_bucket_size, variables_hash_max_size, map_hash_bucket_size, \
        map_hash_max_size",
        "tuning",
    ),
    drop(
        "server_names_hash_bucket_size, server_names_hash_max_size, server_traffic_status_zone, \
        vhost_traffic_status_zone",
        "tuning",
    ),
    drop("server_name", "one server on this address only"),
];

const UPSTREAM: &[Keyword] = &[
    keep("server", "backend.server", "parameters are in the table below"),
    keep("least_conn", "backend.balance", "\"leastconn\""),
    near(
        "hash",
        "backend.balance",
        "by the client address: \"source\", another hash, so clients move once",
    ),
    keep("random", "backend.balance", "\"random\": the better one of two"),
    report("least_time", "evenkeel does not choose by time: servers take turns"),
    report("sticky", "persistence by what the client sends: servers take turns"),
    report("state", "the servers are in another file"),
    keep("queue", "backend.queue_max", ""),
    keep("resolver", "global.resolver", ""),
    report("check", "write backend.health by hand"),
    report("include", "another file: its content is needed; convert it where the file is"),
    drop(
        "zone, resolver_timeout, keepalive, keepalive_timeout, keepalive_requests, ntlm, \
        upstream_conf",
        "workers share state anyway",
    ),
];

const LISTEN: &[Keyword] = &[
    report("ssl", "TLS is not ended: the frontend is left out"),
    report("udp", "UDP: evenkeel balances TCP"),
    report("quic", "QUIC: evenkeel balances TCP"),
    keep("proxy_protocol", "frontend.proxy_protocol", "\"required\""),
    keep("backlog", "frontend.backlog", ""),
    keep("so_keepalive", "frontend.keepalive", "on is the time of the kernel: 2h"),
    keep("fastopen", "frontend.fast_open", ""),
    keep("deferred", "frontend.defer_accept", ""),
    keep("ipv6only", "frontend.bind", "off: an address for each family"),
    drop("reuseport, bind, default_server", "built in"),
    drop("rcvbuf, sndbuf, setfib, accept_filter, multipath", "tuning"),
];

const SERVER: &[Keyword] = &[
    keep("weight", "backend.server.weight", ""),
    keep("max_conns", "backend.server.sessions_max", ""),
    keep(
        "max_fails, fail_timeout",
        "backend.health.errors",
        "count, within and down; 1 and 10s if absent",
    ),
    keep("backup", "backend.server.backup", ""),
    keep("down", "backend.server.state", "\"maint\""),
    keep("drain", "backend.server.state", "\"drain\""),
    keep("slow_start", "backend.slow_start", ""),
    keep("service", "backend.srv", ""),
    drop("resolve", "evenkeel follows every name"),
    report("route, sid", "persistence by what the client sends"),
];

/// A directive outside of every block, or in `events`.
pub(super) fn main(name: &str) -> Option<&'static Keyword> {
    find(MAIN, name)
}

/// A directive in `stream`, or in a `server` of it.
pub(super) fn stream(name: &str) -> Option<&'static Keyword> {
    find(STREAM, name)
}

/// A directive in `upstream`.
pub(super) fn upstream(name: &str) -> Option<&'static Keyword> {
    find(UPSTREAM, name)
}

/// A parameter of `listen`, without its value.
pub(super) fn listen(name: &str) -> Option<&'static Keyword> {
    find(LISTEN, name)
}

/// A parameter of a `server` in `upstream`, without its value.
pub(super) fn server(name: &str) -> Option<&'static Keyword> {
    find(SERVER, name)
}

/// Where an unknown word stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    Main,
    Stream,
    Upstream,
    Listen,
    Server,
}

/// What to do about an unknown word.
pub(super) fn remedy_in(block: Block, word: &str) -> String {
    match block {
        Block::Main => remedy(word, &[MAIN, STREAM]),
        Block::Stream => remedy(word, &[STREAM]),
        Block::Upstream => remedy(word, &[UPSTREAM]),
        Block::Listen => remedy(word, &[LISTEN]),
        Block::Server => remedy(word, &[SERVER]),
    }
}
