//! The arguments of every command, and what is suggested for those that are not understood.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::shared::orders::ServerName;

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
    /// SIGTERM drains it: no new connections, existing sessions continue. A second SIGTERM stops it
    /// at once. SIGHUP reloads the file; a file with problems changes nothing.
    #[command(after_help = "Example: evenkeel run -c /etc/evenkeel/evenkeel.toml")]
    Run(RunArguments),
    /// Check a configuration file and report every problem, with its line and a remedy.
    ///
    /// Also looks up addresses, accounts and host names on this machine; what is missing is a
    /// warning. Exit code: 0 if the file is valid, 64 if not.
    #[command(after_help = "Example: evenkeel check -c evenkeel.toml")]
    Check(FileArguments),
    /// Start a balancer and three servers on loopback, and stop a server without a failed request.
    ///
    /// Needs no privileges and no file. Stays up until Ctrl-C.
    #[command(after_help = "Example: evenkeel demo --once")]
    Demo {
        /// Exit after the tour; exit code 0 if every step succeeded.
        #[arg(long)]
        once: bool,
    },
    /// Check the kernel, the limits and the settings of this machine, and print how to fix them.
    ///
    /// Exit code 1 if something that evenkeel needs is missing.
    #[command(after_help = "Example: evenkeel doctor -c evenkeel.toml")]
    Doctor(FileArguments),
    /// Show the frontends, the servers and the sessions of a running balancer.
    #[command(after_help = "Example: evenkeel status --json")]
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Drain a server: no new sessions, existing ones continue, and so do probes.
    #[command(after_help = "Example: evenkeel drain web/web1")]
    Drain(ServerArguments),
    /// Return a server to service after drain or maint.
    #[command(after_help = "Example: evenkeel ready web/web1")]
    Ready(ServerArguments),
    /// Put a server into maintenance: as drain, and not probed.
    #[command(after_help = "Example: evenkeel maint web/web1")]
    Maint(ServerArguments),
    /// Set the weight of a server: 0 (no new sessions) to 1000.
    #[command(after_help = "Example: evenkeel weight web/web1 50")]
    Weight {
        /// The server, as BACKEND/SERVER; applies to every address of it.
        #[arg(value_name = "BACKEND/SERVER")]
        server: ServerName,
        /// 0 to 1000; the default of a server is 100.
        #[arg(value_name = "N", value_parser = weight)]
        weight: u32,
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Reload the configuration of a running balancer and print the result.
    #[command(after_help = "Example: evenkeel reload")]
    Reload {
        #[command(flatten)]
        control: ControlArguments,
    },
    /// Print the JSON schema of the configuration, for editors.
    ///
    /// Draft 2020-12; for example with `#:schema evenkeel.schema.json` in the first line of a file.
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
    /// Instead of a file: address for clients, IP:PORT; may be given several times.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "file", requires = "server")]
    pub(super) bind: Vec<String>,
    /// Instead of a file: a server, HOST:PORT or IP:PORT; may be given several times.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "file", requires = "bind")]
    pub(super) server: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ControlArguments {
    /// Configuration file that names the control socket [default: /etc/evenkeel/evenkeel.toml].
    #[arg(short = 'c', long = "config", visible_short_alias = 'f', value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Control socket of the running balancer.
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

/// Parses a weight.
fn weight(text: &str) -> Result<u32, String> {
    if let Some(percent) = text.strip_suffix('%') {
        return Err(format!("percentages are not supported; write {percent}, where 100 is usual"));
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
        suggest(error, format!("the configuration is given as '-c {argument}'"));
    }
}

/// A file without a command, as `haproxy -f FILE` has it: suggests the command.
fn suggest_run(error: &mut clap::Error, arguments: &[OsString]) {
    let [_, first, rest @ ..] = arguments else { return };
    let first = first.to_string_lossy();
    let file = match (error.kind(), first.as_ref()) {
        (ErrorKind::UnknownArgument, "-c" | "-f" | "--config") => {
            rest.first().map_or_else(|| "FILE".into(), |file| file.to_string_lossy())
        }
        (ErrorKind::InvalidSubcommand, file) if is_file(file) => file.into(),
        _ => return,
    };
    suggest(error, format!("a configuration is run by 'evenkeel run -f {file}'"));
}

fn is_file(argument: &str) -> bool {
    argument.ends_with(".toml") || Path::new(argument).is_file()
}

fn suggest(error: &mut clap::Error, tip: String) {
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
}
