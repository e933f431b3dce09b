//! A configuration that runs in another balancer and, converted, in evenkeel.

use std::fs;
use std::net::{IpAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use evenkeel::sys::child::die_with_parent;

use crate::common::balancer::{PROGRAM, printed, write_config};
use crate::common::wait::until;
use crate::common::{Balancer, TestEnv, skip};

/// The balancer that a configuration was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Original {
    Haproxy,
    Nginx,
}

/// Global settings of each HAProxy configuration. The addresses that tests of evenkeel read are
/// those of its statistics page and of its socket.
const HAPROXY: &str = "global
    maxconn 2000
    nbthread 1
    stats socket {folder}/control.sock
defaults
    mode tcp
    timeout connect 2s
    timeout client 30s
    timeout server 30s
listen status
    mode http
    bind {ip}:8404
    stats enable
";

/// nginx's `stream` is a module of its own in Debian.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Settings around the `stream` block of each nginx configuration.
const NGINX: &str = "load_module {module};
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events { worker_connections 2000; }
";

/// A server of nginx that tells whether it runs; evenkeel has its status page there.
const PAGE: &str = "server { listen {ip}:8404; return ok; }\n";

/// What nginx has no line for.
const OBSERVE: &str = "\n[observe]\nbind = \"{ip}:8404\"\ncontrol = \"{folder}/control.sock\"\n";

/// A test of this file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The proxies, or the inside of `stream`.
    pub(super) config: &'static str,
}

impl Case {
    /// Runs a scene with both balancers, and compares its outcomes.
    #[track_caller]
    pub(super) fn run<T: PartialEq + std::fmt::Debug>(
        self,
        original: Original,
        scene: impl Fn(&TestEnv) -> T,
    ) {
        let Self { name, .. } = self;
        let program = if original == Original::Haproxy { "haproxy" } else { "nginx" };
        let has_module = original == Original::Haproxy || Path::new(MODULE).exists();
        if Command::new(program).arg("-v").output().is_err() || !has_module {
            return skip(name, &format!("not installed: {program} (tests/run installs it)"));
        }
        let env = TestEnv::new();
        let toml = self.converted(original, &env);
        let evenkeel = {
            let _balancer = Balancer::start_text(&env, &toml);
            scene(&env)
        };
        drop(env);
        let env = TestEnv::new();
        let theirs = {
            let _process = Process::start(original, &env, &self.text(original, &env));
            scene(&env)
        };
        assert_eq!(evenkeel, theirs, "evenkeel, then {program}, with\n{}\n{toml}", self.config);
    }

    fn text(&self, original: Original, env: &TestEnv) -> String {
        let text = match original {
            Original::Haproxy => format!("{HAPROXY}{}", self.config),
            Original::Nginx => format!("{NGINX}stream {{\n{PAGE}{}\n}}\n", self.config),
        };
        filled(&text, env)
    }

    /// The configuration of evenkeel.
    #[track_caller]
    fn converted(&self, original: Original, env: &TestEnv) -> String {
        let file = env.file("original.conf");
        fs::write(&file, self.text(original, env)).unwrap();
        let output = Command::new(PROGRAM).arg("convert").arg(&file).output().unwrap();
        assert!(matches!(output.status.code(), Some(0 | 2)), "{}", printed(&output));
        let mut toml = String::from_utf8(output.stdout).unwrap();
        if original == Original::Nginx {
            toml.push_str(&filled(OBSERVE, env));
        }
        let file = write_config(env, &toml);
        let check = Command::new(PROGRAM).arg("check").arg("-c").arg(file).output().unwrap();
        assert!(check.status.success(), "{}\n{toml}", printed(&check));
        toml
    }
}

fn filled(text: &str, env: &TestEnv) -> String {
    let ip = env.frontend().ip().to_string();
    let other = other_ip(env).to_string();
    let folder = env.folder().display().to_string();
    let text = text.replace("{ip}", &ip).replace("{other}", &other).replace("{module}", MODULE);
    text.replace("{folder}", &folder)
}

/// A second address of a test, in 127.128.0.0/10: as unique as its first.
pub(super) fn other_ip(env: &TestEnv) -> IpAddr {
    let IpAddr::V4(ip) = env.frontend().ip() else { panic!("an IPv6 address") };
    IpAddr::from((ip.to_bits() + (64 << 16)).to_be_bytes())
}

/// A running HAProxy or nginx. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Process(Child);

impl Process {
    #[track_caller]
    fn start(original: Original, env: &TestEnv, text: &str) -> Self {
        let file = env.file("original.conf");
        fs::write(&file, text).unwrap();
        let command = match original {
            Original::Haproxy => {
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(&file);
                command
            }
            Original::Nginx => {
                let mut command = Command::new("nginx");
                command.arg("-p").arg(env.folder()).arg("-c").arg(&file);
                command
            }
        };
        Self::ready(env, command)
    }

    /// Starts `command`, and waits until it listens on the address for metrics. Every program here
    /// binds all its addresses before it serves one.
    #[track_caller]
    pub(super) fn ready(env: &TestEnv, mut command: Command) -> Self {
        let log = fs::File::create(env.file("original.log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        die_with_parent(&mut command);
        let mut process = Self(command.spawn().unwrap());
        until("the balancer is ready", || {
            if let Some(status) = process.0.try_wait().unwrap() {
                let log = fs::read_to_string(env.file("original.log")).unwrap_or_default();
                panic!("{command:?} has ended ({status}):\n{log}");
            }
            TcpStream::connect(env.observe()).is_ok()
        });
        process
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
