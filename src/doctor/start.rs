//! What else `evenkeel run` refuses on this machine: too few file descriptors, and the path of the
//! control socket.

use nix::sys::resource::{Resource, getrlimit};

use crate::config::{Config, Span};
use crate::control::budget::Budget;
use crate::doctor::listening;
use crate::doctor::lookups::{Severity, Warning};
use crate::observe::{CONNECTIONS_MAX, admin};
use crate::proxy::PIPES_PER_WORKER;
use crate::run::limits;
use crate::sys::address::Address;

/// The descriptors of `evenkeel run` in this environment: the hard limit, to which it raises its
/// own.
pub(super) fn budget(config: &Config) -> Budget {
    Budget {
        descriptors: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard),
        workers: config
            .global
            .workers
            .map_or_else(|| limits::cores().len(), |workers| workers.get() as usize),
        inherited: 0,
        pipes_per_worker: PIPES_PER_WORKER,
        observe_connections: CONNECTIONS_MAX,
    }
}

/// What `evenkeel run` would refuse.
#[must_use]
pub fn refusals(config: &Config) -> Vec<Warning> {
    descriptors(config).into_iter().chain(control(config)).collect()
}

fn descriptors(config: &Config) -> Option<Warning> {
    let problem = budget(config).sessions_max(config, |_| 1).err()?;
    let span = config.global.sessions_max.map_or_else(Span::default, |(_, span)| span);
    // It begins with the place, which is printed with each warning.
    let text = problem.strip_prefix(&config.locate(span)).unwrap_or(&problem);
    let text = text.strip_prefix("evenkeel: ").unwrap_or(text).to_owned();
    Some(Warning { subject: "descriptors", span, text, severity: Severity::Refused })
}

/// A control socket that the file asks for; without a default one, evenkeel runs.
pub(super) fn control(config: &Config) -> Option<Warning> {
    let (path, span) = config.observe.control.as_ref()?;
    let span = Some(*span).filter(|span| *span != Span::default())?;
    // A trial of a socket in use would be a connection there.
    let running = listening::evenkeel_at(&Address::Unix(path.as_path().into()));
    let (text, severity) = match running {
        Some(pid) => {
            let path = path.display();
            let text = format!("{path} is in use by the running evenkeel (process {pid})");
            (text, Severity::Note)
        }
        None => (admin::try_bind(path).err()?, Severity::Refused),
    };
    Some(Warning { subject: "control", span, text, severity })
}
