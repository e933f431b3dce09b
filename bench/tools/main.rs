//! The tools behind `bench/run`: a responder, a generator, and the rounds that compare subjects.
//!
//! They are thin on purpose: every microsecond spent here hides a difference between subjects.

mod charts;
mod configuration;
mod cpu;
mod exchange;
mod generator;
mod growth;
mod histogram;
mod idle;
mod latency;
mod machine;
mod pi;
mod recorded;
mod relay;
mod report;
mod responder;
mod rounds;
mod run;
mod segments;
mod subject;
mod table;
mod targets;
mod two;
mod work;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::generator::{Arrivals, Generator};
use crate::histogram::Quantiles;

#[derive(Debug, Parser)]
#[command(name = "bench-tools", about = "A responder, a generator, and the rounds of bench/run")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Compares the subjects on one core; prints a table, writes a JSON file.
    #[command(override_usage = "bench/run [--before=COMMIT] [OPTIONS] [WORK]...")]
    Run(run::Options),
    /// Draws charts of a result file.
    Charts {
        /// As `run` wrote it.
        #[arg(default_value = "target/bench/latest.json")]
        file: PathBuf,
        /// Where they go.
        #[arg(default_value = "bench/charts")]
        folder: PathBuf,
    },
    /// Answers exchanges on a free port of 127.0.0.1, which it prints.
    Responder {
        /// The number that its answers begin with.
        #[arg(long, default_value_t = 1)]
        number: u8,
        /// The address of this host.
        #[arg(long, default_value = "127.0.0.1")]
        bind: IpAddr,
    },
    /// Relays each connection to a server, in turn: what a page of Rust does.
    Relay {
        /// What it is written with.
        library: relay::Library,
        /// Where it listens.
        listen: SocketAddr,
        /// Where it connects to.
        #[arg(required = true)]
        servers: Vec<SocketAddr>,
    },
    /// Drives addresses by hand with one kind of work; prints the rate of each second.
    Generator {
        /// A kind of work, as in `run`.
        #[arg(long, default_value = "keepalive")]
        work: String,
        /// How long.
        #[arg(long, default_value_t = 5)]
        seconds: u32,
        /// An open loop of so many exchanges a second; prints their latencies in the end.
        #[arg(long)]
        rate: Option<f64>,
        /// Where to connect to, in turn.
        #[arg(required = true)]
        addresses: Vec<SocketAddr>,
    },
    /// Becomes another program that dies with its parent.
    #[command(hide = true)]
    Tether {
        /// The program and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Run(options) => run::run(&options),
        Verb::Charts { file, folder } => charts::draw(&file, &folder).map(|names| {
            names.iter().for_each(|name| say(&format!("{}/{name}.svg", folder.display())));
            true
        }),
        Verb::Responder { number, bind } => responder::serve(number, bind).map(|()| true),
        Verb::Relay { library, listen, servers } => {
            relay::relay(library, listen, &servers).map(|()| true)
        }
        Verb::Generator { work, seconds, rate, addresses } => {
            generate(&work, seconds, rate, &addresses).map(|()| true)
        }
        Verb::Tether { command } => tether(&command).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn generate(
    work: &str,
    seconds: u32,
    rate: Option<f64>,
    addresses: &[SocketAddr],
) -> io::Result<()> {
    let kinds = work::find(&[work.to_owned()], false)?;
    let Some(work::Way::Throughput(load)) = kinds.first().map(|kind| kind.way) else {
        return Err(io::Error::other(format!("{work} has no load to drive")));
    };
    let mut generator = Generator::open(addresses, &[load])?;
    if let Some(rate) = rate {
        if load.exchange.last {
            let why = format!("{work} ends its connections: it has no rate");
            return Err(io::Error::other(why));
        }
        generator.pace(0, rate, Arrivals::Poisson { seed: 0 })?;
        generator.drive(Duration::from_millis(200))?;
        generator.keep_latencies(0);
    }
    for _ in 0..seconds {
        let before = generator.exchanges(0);
        generator.drive(Duration::from_secs(1))?;
        say(&format!("{:.0} a second", generator.exchanges(0) - before));
    }
    if let Some(Quantiles { p50, p99, p999, .. }) = generator.latencies(0) {
        say(&format!("p50 {p50:.1} µs, p99 {p99:.1}, p99.9 {p999:.1}"));
    }
    Ok(())
}

fn tether(command: &[String]) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::other("nothing to run"));
    };
    let error = Command::new(program).args(arguments).exec();
    Err(io::Error::new(error.kind(), format!("{program}: {error}")))
}

/// One line on standard output.
#[expect(clippy::print_stdout, reason = "the one place where the bench prints its results")]
fn say(line: &str) {
    println!("{line}");
}

/// One line on standard error.
#[expect(clippy::print_stderr, reason = "the one place where the bench prints its troubles")]
fn complain(line: &str) {
    eprintln!("{line}");
}
