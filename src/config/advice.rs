//! What is allowed in a configuration, and seldom meant.

use super::addresses::ServerAddress;
use super::backend_settings::BackendSettings;
use super::enums::{Check, SendProxy};
use super::problems::Span;
use super::settings::Config;

/// Each with its place: "what is unusual; what to do".
#[must_use]
pub fn advice(config: &Config) -> Vec<(Span, String)> {
    let probes = config.backends.iter().filter_map(|backend| probes_without_header(backend));
    group_without_user(config).into_iter().chain(probes).collect()
}

/// A group alone drops no privileges.
fn group_without_user(config: &Config) -> Option<(Span, String)> {
    let (group, span) = config.global.group.as_ref().filter(|_| config.global.user.is_none())?;
    let text = format!(
        "global.group = {group:?} without global.user: started as root, evenkeel stays root in \
         this group; set global.user as well"
    );
    Some((*span, text))
}

/// Servers that expect a PROXY header, and get probes without one. A plain probe by TCP is never
/// accepted by a server, except at a unix socket; another port may expect no header.
fn probes_without_header(backend: &BackendSettings) -> Option<(Span, String)> {
    let health = &backend.health;
    if backend.send_proxy == SendProxy::Off || health.send_proxy || health.port.is_some() {
        return None;
    }
    let is_seen = match health.check {
        Check::Off => false,
        Check::Tcp => {
            let is_unix = |address: &ServerAddress| matches!(address, ServerAddress::Unix(_));
            health.tls.is_some() || backend.servers.iter().any(|one| is_unix(&one.address))
        }
        Check::Http | Check::Exchange => true,
    };
    is_seen.then(|| {
        let name = &backend.name;
        let text = format!(
            "backend {name} has send_proxy, and its probes send no PROXY header: servers that \
             require it are down or log errors; set health.send_proxy = true, or health.port to a \
             port that expects none"
        );
        (backend.span, text)
    })
}

#[cfg(test)]
mod tests {
    use crate::config;

    fn advice(backend: &str, health: &str, address: &str) -> usize {
        let text = format!(
            "[frontend.f]\nbind = [\"127.0.0.1:1\"]\nbackend = \"b\"\n[backend.b]\n{backend}\n\
             [backend.b.health]\n{health}\n[[backend.b.server]]\nname = \"s\"\n\
             address = \"{address}\"\n"
        );
        config::advice(&config::parse(&text, "x").unwrap()).len()
    }

    #[test]
    fn probes_that_a_server_sees_need_the_header_of_sessions() {
        let (sends, tcp) = ("send_proxy = \"v2\"", "127.0.0.1:2");
        assert_eq!(advice(sends, "check = \"http\"", tcp), 1);
        assert_eq!(advice(sends, "tls = {}", tcp), 1);
        assert_eq!(advice(sends, "", "unix:/run/s"), 1);
        for health in [
            "",
            "check = \"off\"",
            "check = \"http\"\nsend_proxy = true",
            "check = \"http\"\nport = 3",
        ] {
            assert_eq!(advice(sends, health, tcp), 0, "{health}");
        }
        assert_eq!(advice("", "check = \"http\"", tcp), 0);
    }

    #[test]
    fn a_group_without_a_user_is_pointed_out() {
        let advice = |global: &str| {
            let text = format!(
                "[global]\n{global}\n[frontend.f]\nbind = [\"127.0.0.1:1\"]\nbackend = \"b\"\n\
                 [[backend.b.server]]\nname = \"s\"\naddress = \"192.0.2.1:1\"\n"
            );
            config::advice(&config::parse(&text, "x").unwrap()).len()
        };
        assert_eq!(advice("group = \"www-data\""), 1);
        assert_eq!(advice("user = \"www-data\"\ngroup = \"www-data\""), 0);
        assert_eq!(advice("user = \"www-data\""), 0);
    }
}
