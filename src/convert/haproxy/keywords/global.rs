//! Sections, and the keywords of `global` and `resolvers`.

use crate::convert::keyword::{Keyword, drop, keep, near, report};

pub(super) const SECTIONS: &[Keyword] = &[
    keep("global", "global, observe", ""),
    keep("defaults", "-", "written into each section that uses it"),
    keep("frontend", "frontend.NAME", ""),
    keep("backend", "backend.NAME", ""),
    keep("listen", "frontend.NAME and backend.NAME", ""),
    keep("resolvers", "global.resolver", "of the servers that name it; evenkeel has one list"),
    report("peers", "tables are not shared between balancers"),
    report("userlist", "evenkeel's status page has no password"),
    report("cache", "HTTP cache"),
    report("mailers", "evenkeel sends no mail; alert on evenkeel_server_up"),
    report("program", "evenkeel starts no other program"),
    report("fcgi-app", "HTTP"),
    report("log-forward", "evenkeel forwards no log messages"),
    drop("ring, log-profile, traces", "log: evenkeel writes to its standard streams"),
    drop("http-errors", "HTTP only"),
    drop("crt-store, acme", "TLS is not ended by evenkeel"),
];

pub(super) const GLOBAL: &[Keyword] = &[
    keep("maxconn", "global.sessions_max", ""),
    keep("nbthread", "global.workers", ""),
    near("nbproc", "global.workers", "processes become threads"),
    near("cpu-map", "global.pin", "pinning is a switch; the map cannot be given"),
    keep("user", "global.user", ""),
    keep("group", "global.group", ""),
    report("uid, gid", "evenkeel takes the name of a user or group, not its number"),
    keep("hard-stop-after", "global.drain_timeout", ""),
    near("grace", "global.drain_delay", "/readyz answers 503 meanwhile"),
    near(
        "stats socket",
        "observe.control",
        "below /run/evenkeel, where the service may write; level and mode are not kept",
    ),
    drop(
        "stats timeout, stats maxconn, stats bind-process",
        "the control socket has its own limits",
    ),
    drop("log, log-tag, log-send-hostname", "evenkeel writes to its standard streams"),
    drop("chroot", "the service unit restricts the file system"),
    drop("daemon, pidfile, master-worker, mworker-max-reloads", "the service manager does it"),
    drop(
        "ulimit-n, fd-hard-limit, strict-limits, no-strict-limits",
        "evenkeel raises its own limit",
    ),
    drop("maxpipes, maxsslconn, maxsslrate, maxzlibmem, maxcomprate, maxcompcpuusage", "tuning"),
    report(
        "maxconnrate, maxsessrate",
        "rates are limited for each frontend: frontend.rate.sessions",
    ),
    drop("spread-checks, max-spread-checks", "evenkeel spreads probes over the interval"),
    drop("noepoll, nokqueue, noevports, nopoll, nosplice, nogetaddrinfo, noreuseport", "tuning"),
    drop("no-memory-trimming, busy-polling, prealloc-fd, insecure-setuid-wanted", "tuning"),
    drop("insecure-fork-wanted, set-dumpable, zero-warning, quiet, debug", "of the process"),
    drop(
        "numa-cpu-mapping, thread-group, thread-groups, thread-hard-limit, cpu-policy, cpu-set",
        "tuning",
    ),
    drop(
        "close-spread-time, pp2-never-send-local, limited-quic, no-quic, tune.*, profiling.*, \
        quic*",
        "tuning",
    ),
    drop(
        "ca-base, crt-base, key-base, issuers-chain-path, ssl-*, ocsp-update.*, acme.*",
        "default for TLS, which evenkeel does not end",
    ),
    drop(
        "node, description, localpeer, cluster-secret, anonkey, default-path, unix-bind",
        "of the process",
    ),
    drop(
        "server-state-base, server-state-file, stats-*, shm-stats-file",
        "a reload keeps the state of servers",
    ),
    drop("setenv, presetenv, unsetenv, resetenv", "variables are replaced while the file is read"),
    drop("external-check, insecure-setuid", "used by option external-check only"),
    report("lua-*", "evenkeel runs no Lua"),
    report("set-var, set-var-fmt", "evenkeel has no variables"),
    drop(
        "h1-case-*, h1-accept-payload-with-any-method, h2-workaround-bogus-websocket-clients",
        "HTTP only",
    ),
    drop("httpclient.*, deviceatlas-*, 51degrees-*, wurfl-*, harden.*", "HTTP only"),
    drop(
        "expose-experimental-directives, expose-deprecated-directives, force-cfg-parser-pause",
        "of the process",
    ),
    drop("warn-blocked-traffic-after, dns-accept-family, uxst", "of the process"),
];

pub(super) const RESOLVERS: &[Keyword] = &[
    keep("nameserver", "global.resolver", ""),
    near(
        "parse-resolv-conf",
        "-",
        "evenkeel reads /etc/resolv.conf by itself, but not beside global.resolver",
    ),
    drop(
        "hold, timeout, resolve_retries, accepted_payload_size",
        "evenkeel follows the TTL of each answer",
    ),
];
