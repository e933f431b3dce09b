//! Builds a configuration. Unless a test sets it otherwise, it has one worker, one frontend `web`
//! with one backend `web`, and no health checks.

use std::fmt::Write;
use std::net::SocketAddr;

use super::TestEnv;

/// A configuration that is being built.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    workers: usize,
    global: String,
    observe: String,
    log: String,
    bind: SocketAddr,
    frontend: String,
    backend: String,
    health: String,
    servers: String,
    more: String,
}

impl Config {
    pub(crate) fn new(env: &TestEnv) -> Self {
        let observe = format!(
            "bind = \"{}\"\ncontrol = \"{}\"\n",
            env.observe(),
            env.file("control.sock").display()
        );
        Self {
            workers: 1,
            global: String::new(),
            observe,
            log: String::new(),
            bind: env.frontend(),
            frontend: String::new(),
            backend: String::new(),
            health: "check = \"off\"\n".to_owned(),
            servers: String::new(),
            more: String::new(),
        }
    }

    pub(crate) fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Adds lines to `[global]`.
    pub(crate) fn global(mut self, lines: &str) -> Self {
        push(&mut self.global, lines);
        self
    }

    /// Adds lines to `[observe.log]`.
    pub(crate) fn log(mut self, lines: &str) -> Self {
        push(&mut self.log, lines);
        self
    }

    pub(crate) fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = address;
        self
    }

    /// Adds lines to `[frontend.web]`.
    pub(crate) fn frontend(mut self, lines: &str) -> Self {
        push(&mut self.frontend, lines);
        self
    }

    /// Adds lines to `[backend.web]`.
    pub(crate) fn backend(mut self, lines: &str) -> Self {
        push(&mut self.backend, lines);
        self
    }

    /// Replaces all lines of `[backend.web.health]`.
    pub(crate) fn health(mut self, lines: &str) -> Self {
        self.health.clear();
        push(&mut self.health, lines);
        self
    }

    /// Probes that notice a change within a third of a second.
    pub(crate) fn quick_health(self, check: &str) -> Self {
        self.health(&format!(
            "check = \"{check}\"\ninterval = \"100ms\"\ninterval_down = \"100ms\"\n\
             timeout = \"1s\"\nrise = 2\nfall = 2"
        ))
    }

    pub(crate) fn server(self, name: &str, address: SocketAddr) -> Self {
        self.server_with(name, address, "")
    }

    /// Adds a server with further lines.
    pub(crate) fn server_with(mut self, name: &str, address: SocketAddr, lines: &str) -> Self {
        let head = format!("\n[[backend.web.server]]\nname = \"{name}\"\naddress = \"{address}\"");
        push(&mut self.servers, &head);
        push(&mut self.servers, lines);
        self
    }

    /// Adds text at the end: more frontends and backends.
    pub(crate) fn more(mut self, text: &str) -> Self {
        push(&mut self.more, text);
        self
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let Self { workers, global, observe, log, bind, frontend, backend, .. } = self;
        // Writing to a String cannot fail.
        write!(
            text,
            "[global]\nworkers = {workers}\n{global}\n[observe]\n{observe}\n[observe.log]\n{log}\n\
             [frontend.web]\nbind = [\"{bind}\"]\nbackend = \"web\"\n{frontend}\n\
             [backend.web]\n{backend}\n[backend.web.health]\n{}{}\n{}",
            self.health, self.servers, self.more
        )
        .unwrap();
        text
    }
}

fn push(text: &mut String, lines: &str) {
    text.push_str(lines);
    if !lines.is_empty() {
        text.push('\n');
    }
}
