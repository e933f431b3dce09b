//! Confines the process once it has bound its sockets and changed its user: Landlock restricts
//! files, seccomp system calls. Both set `no_new_privs`: no program that is executed gains rights.
//!
//! A kernel or a container may not have them. evenkeel then runs without, and says so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::prctl;

use crate::config::{BindAddress, Config, Global};
use crate::sys::capability::Capabilities;
use crate::sys::landlock::{Landlock, Rules};
use crate::sys::seccomp::{self, Seccomp};

/// What is in force; none: its key turns it off.
#[derive(Debug)]
pub(crate) struct Confinement {
    pub(crate) landlock: Option<Result<Landlock, String>>,
    pub(crate) seccomp: Option<Result<Seccomp, String>>,
}

/// Confines this process for good, and logs what is in force. To be called while it has one thread,
/// after everything that needs more rights.
pub(super) fn confine(config: &Config) {
    if let Err(error) = prctl::set_no_new_privs() {
        tracing::warn!("no_new_privs is not in force: {error}");
    }
    let rules = rules(config);
    let Global { landlock, seccomp, .. } = config.global;
    let in_force = Confinement {
        landlock: landlock.then(|| rules.confine_process()),
        // Last: Landlock and what came before need no place in the list of a filter.
        seccomp: seccomp.then(seccomp::confine_thread),
    };
    let capabilities = Capabilities::permitted();
    let capabilities = capabilities.map_or_else(|error| error.to_string(), |all| all.to_string());
    tracing::info!(
        "confined: capabilities: {capabilities}; Landlock: {}; seccomp: {}",
        landlock_text(in_force.landlock.as_ref(), &rules),
        seccomp_text(in_force.seccomp.as_ref()),
    );
    if !matches!(in_force.landlock, None | Some(Ok(Landlock::InForce(_) | Landlock::Inherited))) {
        tracing::warn!("Landlock is not in force; `evenkeel doctor` says why");
    }
    if !matches!(in_force.seccomp, None | Some(Ok(Seccomp::InForce(_) | Seccomp::Inherited))) {
        tracing::warn!("the seccomp filter is not in force; `evenkeel doctor` says why");
    }
}

/// Confines a thread as [`confine`] would confine the process. The thread ends.
pub(crate) fn try_in_thread(config: &Config) -> Confinement {
    let rules = rules(config);
    let Global { landlock, seccomp, .. } = config.global;
    let try_both = move || Confinement {
        landlock: landlock.then(|| rules.confine_thread()),
        seccomp: seccomp.then(seccomp::confine_thread),
    };
    let ended = thread::Builder::new().spawn(try_both).ok().and_then(|thread| thread.join().ok());
    ended.unwrap_or_else(|| Confinement {
        landlock: landlock.then(no_thread),
        seccomp: seccomp.then(no_thread),
    })
}

fn no_thread<T>() -> Result<T, String> {
    Err("no thread to try it in".to_owned())
}

/// What Landlock leaves to a process with this configuration.
pub(crate) fn rules(config: &Config) -> Rules {
    let control = config.observe.control.as_ref().map(|(path, _)| path.as_path());
    let binds = config.frontends.iter().flat_map(|frontend| &frontend.bind);
    let binds = binds.filter_map(|(bind, _)| match bind {
        BindAddress::Unix(path) => Some(&**path),
        BindAddress::Ip(..) => None,
    });
    let folders = control.into_iter().chain(binds).filter_map(Path::parent);
    Rules::new(folders.map(Path::to_owned).collect())
}

fn landlock_text(state: Option<&Result<Landlock, String>>, rules: &Rules) -> String {
    match state {
        None => "off (global.landlock)".to_owned(),
        Some(Ok(Landlock::InForce(abi))) => {
            format!("ABI {abi}, files are created {}", only_in(&rules.creates_in))
        }
        Some(Ok(Landlock::Inherited)) => "inherited".to_owned(),
        Some(Ok(Landlock::Missing | Landlock::NotEnabled)) => "missing".to_owned(),
        Some(Err(error)) => format!("failed ({error})"),
    }
}

/// "only in /run/evenkeel", or "nowhere".
pub(crate) fn only_in(folders: &BTreeSet<PathBuf>) -> String {
    let folders: Vec<String> = folders.iter().map(|path| path.display().to_string()).collect();
    if folders.is_empty() {
        "nowhere".to_owned()
    } else {
        format!("only in {}", folders.join(", "))
    }
}

fn seccomp_text(state: Option<&Result<Seccomp, String>>) -> String {
    match state {
        None => "off (global.seccomp)".to_owned(),
        Some(Ok(Seccomp::InForce(allowed))) => format!("{allowed} system calls are allowed"),
        Some(Ok(Seccomp::Inherited)) => "inherited".to_owned(),
        Some(Ok(Seccomp::Missing | Seccomp::OtherArchitecture)) => "missing".to_owned(),
        Some(Err(error)) => format!("failed ({error})"),
    }
}
