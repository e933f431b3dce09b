//! The arguments of every command, and what is suggested for those that are not understood.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::config;
use crate::convert::Format;
use crate::shared::orders::ServerName;
use crate::shared::sessions::SessionId;

/// Where packages put the configuration.
pub(super) const FILE: &str = "/etc/evenkeel/evenkeel.toml";

/// A Layer-4 TCP load balancer for small clusters.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Example: evenkeel run --bind 0.0.0.0:80 --server web1:80 --server web2:80")]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Arguments {
    /// Parses a command line; an error suggests what was probably meant.
    pub(super) fn parse_from_line(line: &[OsString]) -> Result<Self, clap::Error> {
        Self::try_parse_from(line).map_err(|mut error| {
            suggest_file_option(&mut error);
            suggest_run(&mut error, line);
            error
        })
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the balancer in the foreground.
    ///
    /// SIGTERM or Ctrl-C starts a drain: evenkeel accepts no new connections, and existing sessions
    /// continue until the drain times out. A second signal closes them at once. SIGHUP reloads the
    /// file; if it has a problem, evenkeel keeps the active configuration.
    #[command(after_help = "Example: evenkeel run -c /etc/evenkeel/evenkeel.toml")]
    Run(RunArguments),
    /// Check a configuration file and report every problem, with its line and a remedy.
    ///
    /// Also looks up addresses, accounts, limits and host names on this machine, and prints a
    /// warning for each problem; a warning says if `evenkeel run` would not start here. Exit code:
    /// 0 if the file is valid, also with warnings (it may be meant for another machine); 64 if not.
    #[command(after_help = "Example: evenkeel check -c evenkeel.toml")]
    Check(FileArguments),
    /// Start a balancer and three web servers on loopback; stop one without a failed request.
    ///
    /// Needs no privileges and no configuration file. Runs until Ctrl-C.
    #[command(after_help = "Example: evenkeel demo --once")]
    Demo {
        /// Exit after the last step; the exit code is 0 if every step succeeded.
        #[arg(long)]
        once: bool,
    },
    /// Check the kernel, limits and settings of this machine, with a remedy for each problem.
    ///
    /// Without -c, checks what /etc/evenkeel/evenkeel.toml needs if that file exists, otherwise
    /// what the defaults need. Exit code: 1 if evenkeel cannot run here, or not as configured.
    #[command(after_help = "Example: evenkeel doctor -c evenkeel.toml")]
    Doctor(FileArguments),
    /// Convert a configuration of HAProxy, or the stream block of nginx, to TOML.
    ///
    /// Prints the result to standard output. A line without an equivalent becomes a comment with
    /// the reason, and is listed on standard error with its number; the exit code is then 2.
    #[command(after_help = "Example: evenkeel convert /etc/haproxy/haproxy.cfg > evenkeel.toml")]
    Convert {
        /// Format of the file; without it, evenkeel detects the format.
        #[arg(long, value_name = "haproxy|nginx", value_parser = format)]
        from: Option<Format>,
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show the frontends, the servers and the sessions of a running balancer.
    ///
    /// ACTIVE: open sessions. SESSIONS: all sessions. FAILED: failed attempts to connect. FOR: time
    /// in the current state. CONNECT: mean connect time of the last minute.
    #[command(after_help = "Example: evenkeel status --json")]
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// List the open sessions, oldest first.
    ///
    /// IDLE is the time since bytes last moved. `evenkeel kill` closes a session by its ID.
    #[command(after_help = "Example: evenkeel sessions --json")]
    Sessions {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Close a session: both sides are reset.
    #[command(after_help = "Example: evenkeel kill 0-12-3")]
    Kill {
        /// The session, as `evenkeel sessions` shows it.
        #[arg(value_name = "ID")]
        id: SessionId,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Drain a server: no new sessions; existing sessions and probes continue.
    #[command(after_help = "Example: evenkeel drain web/web1 --wait --timeout 5m")]
    Drain {
        #[command(flatten)]
        server: ServerArguments,
        /// Return when the last session of the server has ended.
        #[arg(long)]
        wait: bool,
        /// With --wait: give up after this time, with exit code 1.
        #[arg(long, value_name = "TIME", value_parser = duration, requires = "wait")]
        timeout: Option<Duration>,
    },
    /// Return a server to service after drain or maint.
    #[command(after_help = "Example: evenkeel ready web/web1")]
    Ready(ServerArguments),
    /// Put a server into maintenance: no new sessions, no probes; existing sessions continue.
    #[command(after_help = "Example: evenkeel maint web/web1")]
    Maint(ServerArguments),
    /// Set the weight of a server: 0 (no new sessions) to 1000.
    #[command(after_help = "Example: evenkeel weight web/web1 50")]
    Weight {
        /// The server, as BACKEND/SERVER; applies to every address of it.
        #[arg(value_name = "BACKEND/SERVER")]
        server: ServerName,
        /// Weight, 0 to 1000; the default is 100.
        #[arg(value_name = "N", value_parser = weight)]
        weight: u32,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Reload the configuration of a running balancer and print the result.
    ///
    /// Exit code: 0 if the file is in force now, 1 if the reload was rejected, for whatever reason.
    /// With --dry-run, nothing changes: prints what a reload would change. Exit code then: 0 if a
    /// reload would succeed, 1 if it would be rejected.
    #[command(after_help = "Example: evenkeel reload --dry-run")]
    Reload {
        /// Print what would change, by name, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Replace the binary of a running balancer without losing a connection, and print the result.
    ///
    /// The running process starts the file that is now at its path, with the same arguments, and
    /// passes its listening sockets. If the new process does not start, nothing changes. Otherwise
    /// the old one stops accepting, and its sessions continue until the drain times out.
    #[command(after_help = "Example: evenkeel upgrade")]
    Upgrade {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Show which server a client would get now, and why.
    ///
    /// Shows the rules that a connection has to pass, the algorithm, and for each server why it is
    /// chosen or not. Nothing is counted, and the rotation does not move on.
    #[command(after_help = "Example: evenkeel explain http 192.0.2.7")]
    Explain {
        /// The frontend.
        #[arg(value_name = "FRONTEND")]
        frontend: String,
        /// The address of the client, if the answer depends on it: allow, deny, limits of each
        /// client, balance = "source".
        #[arg(value_name = "CLIENT", value_parser = client)]
        client: Option<IpAddr>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Print the JSON schema of the configuration, for editors.
    ///
    /// JSON schema draft 2020-12. Editors with Taplo use it if `#:schema ./evenkeel.schema.json` is
    /// the first line of the file.
    #[command(after_help = "Example: evenkeel schema > evenkeel.schema.json")]
    Schema {
        /// Print a configuration file with every key and its default instead.
        #[arg(long, conflicts_with = "reference")]
        example: bool,
        /// Print the reference of every key (Markdown) instead.
        #[arg(long)]
        reference: bool,
    },
    /// Print a completion script for a shell.
    #[command(after_help = "Example: evenkeel completions bash > evenkeel.bash")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, or write one for each command.
    #[command(after_help = "Example: evenkeel man --dir /usr/share/man/man1")]
    Man {
        /// Write evenkeel.1, evenkeel-run.1 and so on to this directory.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct FileArguments {
    /// Configuration file [default: /etc/evenkeel/evenkeel.toml].
    #[arg(short = 'c', long = "config", visible_short_alias = 'f', value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    pub(super) config: FileArguments,
    /// Address to listen on, IP:PORT, IP:FIRST-LAST or unix:PATH, instead of a configuration file;
    /// may be repeated.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "file", requires = "server")]
    pub(super) bind: Vec<String>,
    /// Server, IP[:PORT], HOST[:PORT] or unix:PATH, instead of a configuration file; may be
    /// repeated.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "file", requires = "bind")]
    pub(super) server: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ControlArguments {
    /// Configuration file with the path of the control socket (observe.control) [default:
    /// /etc/evenkeel/evenkeel.toml].
    #[arg(short = 'c', long = "config", visible_short_alias = 'f', value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Path of the control socket, instead of a configuration file.
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    pub(super) control: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ServerArguments {
    /// The server, as BACKEND/SERVER; applies to every address of it.
    #[arg(value_name = "BACKEND/SERVER")]
    pub(super) server: ServerName,
    #[command(flatten)]
    pub(super) control: ControlArguments,
}

impl FromStr for ServerName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((backend, server))
                if !backend.is_empty() && !server.is_empty() && !server.contains('/') =>
            {
                Ok(Self { backend: backend.to_owned(), server: server.to_owned() })
            }
            _ => Err("write BACKEND/SERVER, such as web/web1"),
        }
    }
}

/// Parses the name of a format.
fn format(text: &str) -> Result<Format, &'static str> {
    match text {
        "haproxy" => Ok(Format::Haproxy),
        "nginx" => Ok(Format::Nginx),
        _ => Err("write haproxy or nginx"),
    }
}

/// Parses the address of a client, with or without a port, as the logs have it.
fn client(text: &str) -> Result<IpAddr, &'static str> {
    let without_port =
        text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    without_port.map_err(|_| "write an IP address, such as 192.0.2.7")
}

/// Parses a duration.
fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text)
}

/// Parses a weight.
fn weight(text: &str) -> Result<u32, String> {
    if let Some(percent) = text.strip_suffix('%') {
        return Err(format!(
            "percentages are not supported; write {percent} (the default weight is 100)"
        ));
    }
    match text.parse() {
        Ok(weight @ 0..=1000) => Ok(weight),
        _ => Err("a weight is a whole number, 0 to 1000".to_owned()),
    }
}

/// A file without `-c`: suggests the option.
fn suggest_file_option(error: &mut clap::Error) {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return };
    if error.kind() == ErrorKind::UnknownArgument && is_file(argument) {
        suggest(error, format!("give the configuration file with '-c {argument}'"));
    }
}

/// A file without a command, as `haproxy -f FILE` has it: suggests the command.
fn suggest_run(error: &mut clap::Error, arguments: &[OsString]) {
    let [_, first, rest @ ..] = arguments else { return };
    let first = first.to_string_lossy();
    let (command, file) = match (error.kind(), first.as_ref(), rest) {
        // HAProxy's -c checks the file that -f names.
        (ErrorKind::UnknownArgument, "-c", [option, file @ ..]) if option == "-f" => {
            ("check", file.first())
        }
        (ErrorKind::UnknownArgument, "-c" | "-f" | "--config", file) => ("run", file.first()),
        (ErrorKind::InvalidSubcommand, file, _) if is_file(file) => ("run", arguments.get(1)),
        _ => return,
    };
    let file = file.map_or_else(|| "FILE".into(), |file| file.to_string_lossy());
    suggest(
        error,
        format!("to {command} a configuration file, use 'evenkeel {command} -c {file}'"),
    );
}

fn is_file(argument: &str) -> bool {
    argument.ends_with(".toml") || Path::new(argument).is_file()
}

fn suggest(error: &mut clap::Error, tip: String) {
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
}
