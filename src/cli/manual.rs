//! The manual pages: one of the program, and one of each command.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::arguments::{Arguments, FILE};

/// What precedes the example in the help text of a command.
const EXAMPLE: &str = "Example: ";

/// A section of the page of the program: its title, and each of its terms with a text.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

const SECTIONS: [Section; 4] = [
    (
        "EXIT STATUS",
        &[
            ("0", "Success."),
            (
                "1",
                "Failure: evenkeel cannot start, or stopped because of an error; no running \
                 balancer was reached, or it refused the command; \"drain --wait\" timed out; \
                 \"doctor\" found a problem that keeps evenkeel from running.",
            ),
            ("2", "\"convert\" only: something in the file has no equivalent."),
            (
                "64",
                "The arguments or the configuration are invalid, or the file cannot be read. That \
                 includes a command that cannot read the path of the control socket from its \
                 configuration file.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "RUST_LOG",
                "Level of the application log, such as evenkeel=debug: a list of directives of the \
                 Rust crate tracing-subscriber (default: error,evenkeel=info).",
            ),
            ("NO_COLOR", "If set, the application log has no colours, also on a terminal."),
            (
                "SSL_CERT_FILE",
                "File with the root certificates for health checks that verify the server (PEM), \
                 instead of those of the machine.",
            ),
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS",
                "Set by systemd: see sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).",
            ),
        ],
    ),
    (
        "FILES",
        &[
            (
                FILE,
                "The configuration, unless -c names another file. \"evenkeel schema --reference\" \
                 prints every key.",
            ),
            ("/run/evenkeel/control.sock", "The control socket (observe.control)."),
            ("/etc/hosts, /etc/resolv.conf", "For the host names of servers."),
        ],
    ),
    (
        "SIGNALS",
        &[
            (
                "SIGHUP",
                "Reload the configuration. If the file has a problem, nothing changes, and the \
                 log has the problem.",
            ),
            (
                "SIGTERM, SIGINT, SIGQUIT, SIGUSR1",
                "Drain and stop: no new connections; existing sessions continue for \
                 global.drain_timeout at most. A second signal stops at once.",
            ),
            (
                "SIGUSR2",
                "Replace the program, as \"evenkeel upgrade\" does: a new process takes the \
                 listening sockets, and this one drains.",
            ),
        ],
    ),
];

/// The page of the program.
pub(super) fn page() -> io::Result<Vec<u8>> {
    let mut program = Arguments::command();
    program.build();
    page_of(program)
}

/// Writes the page of the program and that of each command to a directory.
pub(super) fn write_to(dir: &Path) -> io::Result<()> {
    // "evenkeel help COMMAND" prints what "evenkeel COMMAND --help" prints.
    let mut program = Arguments::command().disable_help_subcommand(true);
    program.build();
    let commands: Vec<Command> = program.get_subcommands().cloned().collect();
    for command in commands.into_iter().chain([program]) {
        let file = dir.join(Man::new(command.clone()).get_filename());
        fs::write(file, page_of(command)?)?;
    }
    Ok(())
}

/// The page of a command that is built. The sections are in the order of man-pages(7).
fn page_of(command: Command) -> io::Result<Vec<u8>> {
    let is_program = command.has_subcommands();
    let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if is_program {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    for (title, terms) in SECTIONS.iter().filter(|_| is_program) {
        rest.control("SH", [*title]);
        for (term, text) in *terms {
            rest.control("TP", []).text([bold(*term)]).text([roman(*text)]);
        }
    }
    let example = example.strip_prefix(EXAMPLE).unwrap_or(&example);
    rest.control("SH", ["EXAMPLES"]).text([roman(example)]);
    if !is_program {
        let see = "evenkeel(1) has the exit status, the environment, the files and the signals.";
        rest.control("SH", ["SEE ALSO"]).text([roman(see)]);
    }
    rest.to_writer(&mut page)?;
    Ok(page)
}
