//! Health checks whose keys do not go together.

use super::addresses::ServerAddress;
use super::backend_settings::BackendSettings;
use super::enums::{Check, SendProxy};
use super::problems::{Sink, Span};

/// Steps of one dialogue: each takes a round trip of `timeout`, which is a minute at most.
const STEPS_MAX: usize = 64;

/// Reports keys of `health` that contradict each other.
pub(super) fn check(backend: &BackendSettings, sink: &Sink<'_>) {
    let health = &backend.health;
    let http = health.http.span;
    if health.check != Check::Http && http != Span::default() {
        let text = "health.http is only used with check = \"http\"; write that, or remove this";
        sink.push_at(http, text);
    }
    let (steps, span) = &health.exchange;
    if health.check == Check::Exchange && *span == Span::default() {
        let text = "check = \"exchange\" has no dialogue; add exchange = { send = \"PING\\r\\n\", \
                    expect = \"+PONG\" } to its health table";
        sink.push_at(backend.span, text);
    }
    if health.check != Check::Exchange && *span != Span::default() {
        let text = "health.exchange is only used with check = \"exchange\"; write that, or remove \
                    this";
        sink.push_at(*span, text);
    }
    if steps.len() > STEPS_MAX {
        let text = format!("health.exchange has more than {STEPS_MAX} steps; write fewer");
        sink.push_at(*span, text);
    }
    for (step, number) in steps.iter().zip(1..=STEPS_MAX) {
        if step.blank {
            let text = format!(
                "step {number} of health.exchange is empty; write send, expect or contains"
            );
            sink.push_at(*span, text);
        }
    }
    if health.send_proxy && backend.send_proxy == SendProxy::Off {
        let text = "health.send_proxy has no header to send; add send_proxy = \"v1\" or \"v2\" to \
                    the backend, or remove it";
        sink.push_at(backend.span, text);
    }
    if let Some((_, span)) = health.tls.as_ref().filter(|_| health.check == Check::Off) {
        let text = "health.tls is not used with check = \"off\"; write check = \"tcp\", or remove \
                    this";
        sink.push_at(*span, text);
    }
    let unix = backend.servers.iter().find(|one| matches!(one.address, ServerAddress::Unix(_)));
    let unnamed = health.tls.as_ref().filter(|(tls, _)| tls.name.is_none());
    if let (Some(server), Some((_, span)), true) = (unix, unnamed, health.check != Check::Off) {
        let text = format!(
            "health.tls has no name, and server {:?} is a unix socket, which has none either; add \
             name = \"www.example.org\" to it",
            server.name
        );
        sink.push_at(*span, text);
    }
}
