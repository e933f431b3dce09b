//! The command line: parses the arguments and calls the command.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{self, AdminState, Config, Observe};
use crate::control::signals;
use crate::doctor::lookups::{self, Warning};
use crate::observe::{admin, application_log};
use crate::shared::orders::{Order, ServerName};
use crate::{demo, doctor, run};

/// Where packages put the configuration.
pub const FILE: &str = "/etc/evenkeel/evenkeel.toml";

/// The result of a command; `main` turns it into an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Success.
    Done,
    /// Failure, already reported.
    Failed,
    /// Wrong configuration or usage, already reported.
    Refused,
}

/// A Layer-4 TCP load balancer for small clusters.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Example: evenkeel run --bind 0.0.0.0:80 --server web1:80 --server web2:80")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
struct FileArguments {
    /// Configuration file [default: /etc/evenkeel/evenkeel.toml].
    #[arg(short = 'c', long = "config", visible_short_alias = 'f', value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RunArguments {
    #[command(flatten)]
    config: FileArguments,
    /// Instead of a file: address for clients, IP:PORT; may be given several times.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "file", requires = "server")]
    bind: Vec<String>,
    /// Instead of a file: a server, HOST:PORT or IP:PORT; may be given several times.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "file", requires = "bind")]
    server: Vec<String>,
}

#[derive(Debug, Args)]
struct ControlArguments {
    /// Configuration file that names the control socket [default: /etc/evenkeel/evenkeel.toml].
    #[arg(short = 'c', long = "config", visible_short_alias = 'f', value_name = "FILE")]
    file: Option<PathBuf>,
    /// Control socket of the running balancer.
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    control: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ServerArguments {
    /// The server, as BACKEND/SERVER; applies to every address of it.
    #[arg(value_name = "BACKEND/SERVER")]
    server: ServerName,
    #[command(flatten)]
    control: ControlArguments,
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

/// Runs the command of `arguments`; the first is the name of the program.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Outcome {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match Arguments::try_parse_from(&arguments) {
        Ok(arguments) => dispatch(arguments.command),
        Err(mut error) => {
            suggest_file_option(&mut error);
            suggest_run(&mut error, &arguments);
            // A closed pipe has no reader to report to.
            drop(error.print());
            if error.use_stderr() { Outcome::Refused } else { Outcome::Done }
        }
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

fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Run(arguments) => start(&arguments),
        Command::Check(FileArguments { file }) => check(file.as_deref()),
        Command::Demo { once } => match demo::demo(once) {
            Ok(true) => Outcome::Done,
            Ok(false) => Outcome::Failed,
            Err(error) => failed(&error),
        },
        Command::Doctor(FileArguments { file }) => examine(file.as_deref()),
        Command::Status { json, control } => ask(&control, |socket| admin::status(socket, json)),
        Command::Drain(server) => set_state(server, AdminState::Drain),
        Command::Ready(server) => set_state(server, AdminState::Ready),
        Command::Maint(server) => set_state(server, AdminState::Maint),
        Command::Weight { server, weight, control } => {
            ask(&control, |socket| admin::order(socket, Order::SetWeight(server, weight)))
        }
        Command::Reload { control } => ask(&control, |socket| admin::order(socket, Order::Reload)),
        Command::Schema { example: true, .. } => print(config::example().as_bytes()),
        Command::Schema { reference: true, .. } => print(config::reference().as_bytes()),
        Command::Schema { .. } => print(format!("{:#}\n", config::schema()).as_bytes()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "evenkeel", &mut script);
            print(&script)
        }
        Command::Man { dir } => manual(dir.as_deref()),
    }
}

fn start(arguments: &RunArguments) -> Outcome {
    // First, so that a signal that comes while the file is read ends nothing half done.
    if let Err(error) = signals::block() {
        return failed(&format!("signals cannot be blocked ({error})"));
    }
    let config = if arguments.bind.is_empty() {
        load(arguments.config.file.as_deref())
    } else {
        config::from_arguments(&arguments.bind, &arguments.server)
    };
    let config = match config {
        Ok(config) => config,
        Err(problems) => return refused(&problems),
    };
    match run::run(config) {
        Ok(()) => Outcome::Done,
        Err(failure) => {
            application_log::write_final(&format!("{failure}\n"));
            if failure.is_configuration() { Outcome::Refused } else { Outcome::Failed }
        }
    }
}

fn check(file: Option<&Path>) -> Outcome {
    let config = match load(file) {
        Ok(config) => config,
        Err(problems) => return refused(&problems),
    };
    let warnings = match lookups::look_up(&config) {
        Ok(warnings) => warnings,
        Err(error) => return failed(&error),
    };
    for Warning { span, text, .. } in warnings {
        let place = config.locate(span);
        complain(&format_args!("{place}warning: {text} (looked up on this machine)"));
    }
    let servers = config.backends.iter().map(|backend| backend.servers.len()).sum();
    let line = format!(
        "{}: valid: {}, {}, {}\n",
        file.unwrap_or_else(|| Path::new(FILE)).display(),
        counted(config.frontends.len(), "frontend"),
        counted(config.backends.len(), "backend"),
        counted(servers, "server"),
    );
    print(line.as_bytes())
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

fn examine(file: Option<&Path>) -> Outcome {
    // Without -c, a machine without a configuration file is checked as well.
    let asked = file.is_some() || Path::new(FILE).exists();
    let config = asked.then(|| load(file)).transpose();
    let config = match config {
        Ok(config) => config,
        Err(problems) => return refused(&problems),
    };
    match doctor::doctor(&mut io::stdout().lock(), config.as_ref()) {
        Ok(true) => Outcome::Done,
        Ok(false) => Outcome::Failed,
        Err(error) => unwritten(&error),
    }
}

fn load(file: Option<&Path>) -> Result<Config, config::Problems> {
    config::load(file.unwrap_or_else(|| Path::new(FILE)))
}

fn set_state(ServerArguments { server, control }: ServerArguments, state: AdminState) -> Outcome {
    ask(&control, |socket| admin::order(socket, Order::SetState(server, state)))
}

/// Asks the running balancer over its control socket, and prints the answer.
fn ask(
    control: &ControlArguments,
    question: impl FnOnce(&Path) -> Result<String, String>,
) -> Outcome {
    let socket = match &control.control {
        Some(socket) => socket.clone(),
        None => match socket_of(control.file.as_deref()) {
            Ok(Some(socket)) => socket,
            Ok(None) => return failed(&"the control socket is off (observe.control = false)"),
            Err(problems) => return refused(&problems),
        },
    };
    match question(&socket) {
        Ok(answer) => print(format!("{}\n", answer.trim_end_matches('\n')).as_bytes()),
        Err(problem) => failed(&problem),
    }
}

/// The control socket of a configuration, whatever other problems it has; none: it is off. Without
/// any file, the default: the balancer was started with `--bind`.
fn socket_of(file: Option<&Path>) -> Result<Option<PathBuf>, config::Problems> {
    if file.is_none() && !Path::new(FILE).exists() {
        return Ok(Observe::default().control.map(|(path, _)| path));
    }
    config::control_socket(file.unwrap_or_else(|| Path::new(FILE)))
}

fn manual(dir: Option<&Path>) -> Outcome {
    let command = Arguments::command();
    if let Some(dir) = dir {
        return match clap_mangen::generate_to(command, dir) {
            Ok(()) => Outcome::Done,
            Err(error) => failed(&format!("{}: cannot be written ({error})", dir.display())),
        };
    }
    let mut page = Vec::new();
    match clap_mangen::Man::new(command).render(&mut page) {
        Ok(()) => print(&page),
        Err(error) => failed(&error),
    }
}

fn print(bytes: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Outcome::Done,
        Err(error) => unwritten(&error),
    }
}

/// A reader that closes standard output (`| head`) is no failure.
fn unwritten(error: &io::Error) -> Outcome {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Outcome::Done;
    }
    failed(&format!("standard output cannot be written ({error})"))
}

fn refused(problems: &config::Problems) -> Outcome {
    complain(problems);
    Outcome::Refused
}

fn failed(problem: &dyn Display) -> Outcome {
    complain(&format_args!("evenkeel: {problem}"));
    Outcome::Failed
}

fn complain(problem: &dyn Display) {
    // If standard error is closed, the exit code still reports it.
    drop(writeln!(io::stderr().lock(), "{problem}"));
}
