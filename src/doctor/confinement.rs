//! What confines evenkeel on this machine: user, Landlock, seccomp. Landlock and the filter are
//! tried in a thread.

use std::path::Path;

use crate::config::{BindAddress, Config, Span};
use crate::doctor::finding::Finding;
use crate::doctor::listening;
use crate::run::confinement::{Confinement, only_in, rules, try_in_thread};
use crate::sys::address::Address;
use crate::sys::capability::Capabilities;
use crate::sys::landlock::Landlock;
use crate::sys::seccomp::Seccomp;

const LANDLOCK: &str = "Landlock";
const SECCOMP: &str = "seccomp";

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let Confinement { landlock, seccomp } = try_in_thread(config);
    vec![user(config), landlock_finding(config, landlock), seccomp_finding(seccomp)]
}

fn user(config: &Config) -> Finding {
    let kept = |stays| {
        let transparent = config.backends.iter().any(|backend| backend.source.client().is_some());
        Capabilities::needed(stays, transparent)
    };
    let text = match (&config.global.user, &config.global.group) {
        (Some((name, _)), _) => format!(
            "global.user and global.group: started as root, evenkeel becomes {name} after binding, \
             with the capabilities: {}",
            kept(false)
        ),
        (None, Some((name, _))) => format!(
            "started as root, evenkeel stays root in the group {name}, as global.user is not set, \
             with the capabilities: {}",
            kept(true)
        ),
        (None, None) => format!(
            "evenkeel stays the user that starts it (global.user is not set), and keeps at most \
             the capabilities {}",
            kept(true)
        ),
    };
    Finding::ok("privileges", text)
}

fn landlock_finding(config: &Config, state: Option<Result<Landlock, String>>) -> Finding {
    match state {
        None => Finding::ok(LANDLOCK, "off (global.landlock = false)"),
        Some(Ok(state @ (Landlock::InForce(_) | Landlock::Inherited))) => {
            let rules = rules(config);
            let abi = match state {
                Landlock::InForce(abi) => format!("ABI {abi}"),
                _ => "16 layers are in force already".to_owned(),
            };
            let programs: Vec<String> =
                rules.executes.iter().map(|path| path.display().to_string()).collect();
            Finding::ok(
                LANDLOCK,
                format!(
                    "{abi} (tried in a thread): unix sockets can be created {}, and programs be \
                     executed only from {}; a unix socket that a reload adds in another directory \
                     needs a restart",
                    only_in(&rules.creates_in),
                    programs.join(", ")
                ),
            )
        }
        Some(Ok(Landlock::NotEnabled)) => Finding::warning(
            LANDLOCK,
            "the kernel has it, and it was not enabled at boot: evenkeel runs without it",
            "add landlock to the list lsm= of the kernel command line, and reboot",
        ),
        Some(Ok(Landlock::Missing)) => Finding::warning(
            LANDLOCK,
            "this kernel does not have it, or a sandbox hides it: evenkeel runs without it",
            "boot a kernel with CONFIG_SECURITY_LANDLOCK, or set global.landlock = false",
        ),
        Some(Err(error)) => Finding::warning(
            LANDLOCK,
            format!("does not work ({error}): evenkeel runs without it"),
            "set global.landlock = false",
        ),
    }
}

fn seccomp_finding(state: Option<Result<Seccomp, String>>) -> Finding {
    let (text, remedy) = match state {
        None => return Finding::ok(SECCOMP, "off (global.seccomp = false)"),
        Some(Ok(Seccomp::InForce(allowed))) => {
            let text = format!("a filter of {allowed} system calls (tried in a thread)");
            return Finding::ok(SECCOMP, text);
        }
        Some(Ok(Seccomp::Inherited)) => {
            return Finding::ok(
                SECCOMP,
                "as many filters as the kernel allows are in force already",
            );
        }
        Some(Ok(Seccomp::Missing)) => (
            "this kernel does not have it, or a sandbox forbids it".to_owned(),
            "boot a kernel with CONFIG_SECCOMP_FILTER, or set global.seccomp = false",
        ),
        Some(Ok(Seccomp::OtherArchitecture)) => {
            ("there is no filter for this architecture".to_owned(), "set global.seccomp = false")
        }
        Some(Err(error)) => (format!("does not work ({error})"), "set global.seccomp = false"),
    };
    Finding::warning(SECCOMP, format!("{text}: evenkeel runs without it"), remedy)
}

/// The unix sockets of `config` that a running evenkeel could not create in a reload: it was
/// started without a socket in their directory.
pub(super) fn needs_restart(config: &Config) -> Vec<(Span, String)> {
    let Some(pid) = config.observe.control.as_ref().and_then(|(path, _)| running_at(path)) else {
        return Vec::new();
    };
    if !config.global.landlock {
        return Vec::new();
    }
    let binds = config.frontends.iter().flat_map(|frontend| &frontend.bind);
    let unix = binds.filter_map(|(bind, span)| match bind {
        BindAddress::Unix(path) => Some((path, *span)),
        BindAddress::Ip(..) => None,
    });
    let (bound, new): (Vec<_>, Vec<_>) = unix.partition(|(path, _)| running_at(path) == Some(pid));
    let control = config.observe.control.iter().map(|(path, _)| path.as_path());
    let known = control.chain(bound.iter().map(|(path, _)| &***path)).filter_map(Path::parent);
    let known: Vec<&Path> = known.collect();
    let beneath = |path: &Path| known.iter().any(|folder| path.starts_with(folder));
    let unknown = new.into_iter().filter(|(path, _)| !beneath(path));
    let text = |path: &Path| {
        format!(
            "unix:{} is in a directory that the running evenkeel (process {pid}) has no socket in: \
             a reload cannot create it if Landlock confines that process; restart it",
            path.display()
        )
    };
    unknown.map(|(path, span)| (span, text(path))).collect()
}

fn running_at(path: &Path) -> Option<u32> {
    listening::evenkeel_at(&Address::Unix(path.into()))
}
