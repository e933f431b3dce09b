//! The tools behind `bench/run`: a generator, responders, and the rounds that compare subjects.
//!
//! They use little CPU time on purpose: what they use hides differences between subjects.

mod charts;
mod configuration;
mod control_plane;
mod cpu;
mod disturbance;
mod exchange;
mod features;
mod generator;
mod growth;
mod idle;
mod latencies;
mod latency;
mod machine;
mod neighbours;
mod network;
mod output;
mod pace;
mod process;
mod relay;
mod report;
mod responder;
mod rounds;
mod run;
mod subject;
mod table;
mod targets;
mod two;
mod work;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "bench-tools", about = "The tools behind bench/run")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Compare the subjects; print tables and write a JSON file.
    #[command(override_usage = "bench/run [--before=COMMIT] [OPTIONS] [WORK]...")]
    Run(Box<run::Options>),
    /// Draw the charts of a result file.
    Charts {
        #[arg(default_value = "target/bench/latest.json")]
        file: PathBuf,
        #[arg(default_value = "bench/charts")]
        folder: PathBuf,
    },
    /// Put a result into result.json, the charts and the tables of README.md.
    Publish {
        #[arg(default_value = "target/bench/latest.json")]
        file: PathBuf,
        #[arg(default_value = "bench")]
        folder: PathBuf,
    },
    /// Answer exchanges on a free port of an address of this host; print the port.
    Responder {
        /// The number that its answers begin with.
        number: u8,
        bind: IpAddr,
    },
    /// Relay each connection to one of the servers in turn.
    Relay {
        library: relay::Library,
        listen: SocketAddr,
        #[arg(required = true)]
        servers: Vec<SocketAddr>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Run(options) => run::run(&options),
        Verb::Charts { file, folder } => run::draw(&file, &folder).map(|()| true),
        Verb::Publish { file, folder } => run::publish(&file, &folder).map(|()| true),
        Verb::Responder { number, bind } => responder::serve(number, bind).map(|()| true),
        Verb::Relay { library, listen, servers } => {
            relay::relay(library, listen, &servers).map(|()| true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output::log(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}
