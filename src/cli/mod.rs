//! The command line: parses the arguments and calls the command.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::CommandFactory;

use crate::config::{self, AdminState, Config, Observe};
use crate::control::signals;
use crate::control::upgrade::Start;
use crate::convert::{self, Format};
use crate::doctor::lookups::{self, Severity, Warning};
use crate::observe::{admin, application_log};
use crate::shared::orders::Order;
use crate::shared::plan::ReloadPlan;
use crate::terms::counted;
use crate::{demo, doctor, run};
use arguments::{
    Arguments, Command, ControlArguments, FILE, FileArguments, RunArguments, ServerArguments,
};

mod arguments;
mod manual;

/// The result of a command; `main` turns it into an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Success.
    Done,
    /// Failure, already reported.
    Failed,
    /// A conversion that left something out, already reported.
    Incomplete,
    /// Wrong configuration or usage, already reported.
    Refused,
}

/// Runs the command of `arguments`; the first is the name of the program.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Outcome {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match Arguments::parse_from_line(&arguments) {
        Ok(arguments) => dispatch(arguments.command),
        Err(error) => {
            // A closed pipe has no reader to report to.
            drop(error.print());
            if error.use_stderr() { Outcome::Refused } else { Outcome::Done }
        }
    }
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
        Command::Convert { from, file } => convert_file(from, &file),
        Command::Status { json, control } => ask(&control, |socket| admin::status(socket, json)),
        Command::Sessions { json, control } => {
            ask(&control, |socket| admin::sessions(socket, json))
        }
        Command::Kill { id, control } => ask(&control, |socket| admin::kill(socket, id)),
        Command::Drain { server, wait, timeout } => drain(server, wait, timeout),
        Command::Ready(server) => set_state(server, AdminState::Ready),
        Command::Maint(server) => set_state(server, AdminState::Maint),
        Command::Weight { server, weight, control } => {
            ask(&control, |socket| admin::order(socket, Order::SetWeight(server, weight)))
        }
        Command::Reload { dry_run: true, control } => plan_reload(&control),
        Command::Reload { control, .. } => {
            ask(&control, |socket| admin::order(socket, Order::Reload))
        }
        Command::Upgrade { control } => {
            ask(&control, |socket| admin::order(socket, Order::Upgrade))
        }
        Command::Explain { frontend, client, json, control } => {
            ask(&control, |socket| admin::explain(socket, &frontend, client, json))
        }
        Command::Schema { example: true, .. } => print(config::example().as_bytes()),
        Command::Schema { reference: true, .. } => print(config::reference().as_bytes()),
        Command::Schema { .. } => print(format!("{:#}\n", config::schema()).as_bytes()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "evenkeel", &mut script);
            print(&script)
        }
        Command::Man { dir } => print_manual(dir.as_deref()),
    }
}

fn start(arguments: &RunArguments) -> Outcome {
    // First, so that a signal that comes while the file is read ends nothing half done.
    if let Err(error) = signals::block() {
        return failed(&format!("signals cannot be blocked ({error})"));
    }
    // Before anything opens a descriptor or starts a thread.
    let mut start = match Start::of_this_process() {
        Ok(start) => start,
        Err(why) => return failed(&why),
    };
    let config = if arguments.bind.is_empty() {
        load(arguments.config.file.as_deref())
    } else {
        config::from_arguments(&arguments.bind, &arguments.server)
    };
    let config = match config {
        Ok(config) => config,
        Err(problems) => {
            start.fail(&problems.to_string());
            return refused(&problems);
        }
    };
    match run::run(config, &mut start) {
        Ok(()) => Outcome::Done,
        Err(failure) => {
            start.fail(&failure.to_string());
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
    for (span, text) in config::advice(&config) {
        complain(&format_args!("{}warning: {text}", config.locate(span)));
    }
    let warnings = match lookups::look_up(&config) {
        Ok(warnings) => warnings.into_iter().chain(doctor::start::refusals(&config)),
        Err(error) => return failed(&error),
    };
    for Warning { span, text, severity, .. } in warnings {
        let place = config.locate(span);
        let (kind, rest) = match severity {
            Severity::Note => ("note", ""),
            Severity::Warning => ("warning", ""),
            Severity::Refused => ("warning", "; here, `evenkeel run` would not start"),
        };
        complain(&format_args!("{place}{kind}: {text} (looked up on this machine{rest})"));
    }
    let servers = config.backends.iter().map(|backend| backend.servers.len()).sum();
    let srv = config.backends.iter().filter(|backend| backend.srv.is_some()).count();
    let srv = if srv == 0 { String::new() } else { format!(" and {}", counted(srv, "SRV name")) };
    let line = format!(
        "{}: valid: {}, {}, {}{srv}\n",
        file.unwrap_or_else(|| Path::new(FILE)).display(),
        counted(config.frontends.len(), "frontend"),
        counted(config.backends.len(), "backend"),
        counted(servers, "server"),
    );
    print(line.as_bytes())
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

fn drain(server: ServerArguments, wait: bool, timeout: Option<Duration>) -> Outcome {
    let ServerArguments { server, control } = server;
    ask(&control, |socket| {
        let done = admin::order(socket, Order::SetState(server.clone(), AdminState::Drain))?;
        if !wait {
            return Ok(done);
        }
        let ended = admin::wait_for_sessions(socket, &server, timeout)?;
        Ok(format!("{done}\n{ended}"))
    })
}

fn set_state(ServerArguments { server, control }: ServerArguments, state: AdminState) -> Outcome {
    ask(&control, |socket| admin::order(socket, Order::SetState(server, state)))
}

/// Asks the running balancer over its control socket, and prints the answer.
fn ask(
    control: &ControlArguments,
    question: impl FnOnce(&Path) -> Result<String, String>,
) -> Outcome {
    match socket_of(control).map(|socket| question(&socket)) {
        Ok(Ok(answer)) => print(format!("{}\n", answer.trim_end_matches('\n')).as_bytes()),
        Ok(Err(problem)) => failed(&problem),
        Err(outcome) => outcome,
    }
}

/// Prints what a reload would change.
fn plan_reload(control: &ControlArguments) -> Outcome {
    let plan = match socket_of(control).map(|socket| admin::plan_reload(&socket)) {
        Ok(Ok(plan)) => plan,
        Ok(Err(problem)) => return failed(&problem),
        Err(outcome) => return outcome,
    };
    let ReloadPlan { changes, after_restart } = plan;
    let mut out = String::new();
    for (head, lines) in [
        ("a reload would change:", changes),
        ("takes effect after a restart or `evenkeel upgrade`:", after_restart),
    ] {
        if !lines.is_empty() {
            out += &format!("{head}\n  {}\n", lines.join("\n  "));
        }
    }
    if out.is_empty() {
        out.push_str("a reload would change nothing\n");
    }
    print(out.as_bytes())
}

/// The control socket that the arguments name.
fn socket_of(control: &ControlArguments) -> Result<PathBuf, Outcome> {
    if let Some(socket) = &control.control {
        return Ok(socket.clone());
    }
    match configured_socket(control.file.as_deref()) {
        Ok(Some(socket)) => Ok(socket),
        Ok(None) => Err(failed(&"the control socket is off (observe.control = false)")),
        Err(problems) => Err(refused(&problems)),
    }
}

/// The control socket of a configuration, whatever other problems it has; none: it is off. Without
/// any file, the default: the balancer was started with `--bind`.
fn configured_socket(file: Option<&Path>) -> Result<Option<PathBuf>, config::Problems> {
    if file.is_none() && !Path::new(FILE).exists() {
        return Ok(Observe::default().control.map(|(path, _)| path));
    }
    // While the usual file is bad, the balancer that it has started is that of the default socket.
    let file = file.unwrap_or_else(|| Path::new(FILE));
    config::control_socket(file, file == Path::new(FILE))
}

fn print_manual(dir: Option<&Path>) -> Outcome {
    if let Some(dir) = dir {
        return match manual::write_to(dir) {
            Ok(()) => Outcome::Done,
            Err(error) => {
                let dir = dir.display();
                let remedy = match error.kind() {
                    io::ErrorKind::NotFound => format!("create the directory: mkdir -p {dir}"),
                    io::ErrorKind::NotADirectory => "name a directory".to_owned(),
                    io::ErrorKind::PermissionDenied => {
                        "run as a user that may write there, or name another directory".to_owned()
                    }
                    _ => "name another directory".to_owned(),
                };
                failed(&format!("{dir}: cannot be written ({error}); {remedy}"))
            }
        };
    }
    match manual::page() {
        Ok(page) => print(&page),
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

/// Prints the configuration at `path` as TOML, and what it has no equivalent for.
fn convert_file(from: Option<Format>, path: &Path) -> Outcome {
    let conversion = match convert::convert(from, path) {
        Ok(conversion) => conversion,
        Err(refused) => {
            complain(&refused);
            return Outcome::Refused;
        }
    };
    conversion.report.iter().for_each(|note| complain(note));
    // Keys of a later version, above all.
    let refused = config::parse(&conversion.toml, "the result").err();
    refused.iter().flat_map(config::Problems::lines).for_each(|line| complain(&line));
    match print(conversion.toml.as_bytes()) {
        Outcome::Done if conversion.has_losses() || refused.is_some() => Outcome::Incomplete,
        outcome => outcome,
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
