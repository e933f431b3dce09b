//! Configurations of a simulated process, each a reload of the others: names stay, and frontends,
//! addresses, servers, limits and checks come, change and go.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use evenkeel::config::{
    AdminState, AllDown, BackendSettings, Check, Config, ConnectErrors, FrontendSettings, Health,
    ProxyProtocol, SendProxy, Server, ServerAddress, Span,
};

use crate::random::Random;

/// Sessions over all frontends: few, so that accepting pauses; or more than there are clients.
pub(crate) fn sessions_max(random: &mut Random) -> u32 {
    if random.one_in(3) { 5000 } else { 1 + random.below(12) as u32 }
}

pub(crate) fn random(random: &mut Random) -> Config {
    let backends = 1 + random.below(2);
    let frontends = 1 + random.below(2);
    Config {
        frontends: (0..frontends).map(|n| Arc::new(frontend(n, backends, random))).collect(),
        backends: (0..backends).map(|n| Arc::new(backend(n, random))).collect(),
        ..Config::default()
    }
}

fn frontend(number: u64, backends: u64, random: &mut Random) -> FrontendSettings {
    let port = 80 + 10 * number as u16;
    let ports = port..=port + random.below(2) as u16;
    let bind = |port| (SocketAddr::from(([127, 0, 0, 1], port)).into(), Span::default());
    FrontendSettings {
        name: format!("f{number}").into(),
        bind: ports.map(bind).collect(),
        backend: Some((format!("b{}", random.below(backends)), Span::default())),
        sessions_max: limit(6, random),
        idle_timeout: Some(Duration::from_millis(300)),
        half_closed_timeout: Duration::from_millis(200),
        preface_timeout: Duration::from_millis(50),
        proxy_protocol: [ProxyProtocol::Off, ProxyProtocol::Required]
            [usize::from(random.one_in(3))],
        ..FrontendSettings::default()
    }
}

fn backend(number: u64, random: &mut Random) -> BackendSettings {
    let servers = 2 + random.below(3);
    BackendSettings {
        name: format!("b{number}").into(),
        connect_timeout: Duration::from_millis(100),
        queue_timeout: Duration::from_millis(if random.one_in(2) { 80 } else { 2000 }),
        queue_max: [0, 1, 2, 1024, 1024, 1024][random.below(6) as usize],
        retries: random.below(4) as u32,
        send_proxy: if random.one_in(3) { SendProxy::V2 } else { SendProxy::Off },
        all_down: if random.one_in(2) { AllDown::Try } else { AllDown::Refuse },
        health: Health {
            check: if random.one_in(8) { Check::Off } else { Check::Tcp },
            rise: 1 + random.below(2) as u32,
            fall: 1 + random.below(3) as u32,
            errors: random.one_in(2).then(|| ConnectErrors {
                count: 1 + random.below(4) as u32,
                within: Duration::from_millis(500),
                down: Duration::from_millis(200),
            }),
            ..Health::default()
        },
        srv: random.one_in(2).then(|| format!("_b{number}.test")),
        servers: (0..servers).map(|n| server(number, n, random)).collect(),
        ..BackendSettings::default()
    }
}

fn server(backend: u64, number: u64, random: &mut Random) -> Server {
    let moved = random.one_in(6);
    let ip = SocketAddr::from(([10, moved.into(), backend as u8, number as u8], 80));
    let host = || ServerAddress::Name { host: format!("h{backend}.test"), port: 80 };
    Server {
        name: format!("s{number}"),
        address: if number == 1 { host() } else { ServerAddress::Ip(ip) },
        weight: [0, 1, 50, 100, 100][random.below(5) as usize],
        sessions_max: limit(4, random),
        backup: random.one_in(4),
        state: if random.one_in(8) { AdminState::Drain } else { AdminState::Ready },
        ..Server::default()
    }
}

fn limit(most: u64, random: &mut Random) -> Option<NonZeroU32> {
    random.one_in(2).then(|| 1 + random.below(most) as u32).and_then(NonZeroU32::new)
}
