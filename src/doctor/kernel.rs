//! The kernel and its io_uring.

use std::io;

use nix::sys::utsname;

use crate::doctor::finding::Finding;
use crate::sys::features::{RingProblem, try_multishot_accept, try_multishot_receive};
use crate::sys::kernel_version::KernelVersion;
use crate::sys::ring::RingFeatures;

/// The oldest kernel that has all that a worker needs: `SINGLE_ISSUER` with `DEFER_TASKRUN`.
const FLOOR: KernelVersion = KernelVersion(6, 1, 0);

pub(super) fn examine(available: Result<(), RingProblem>) -> Vec<Finding> {
    let release = utsname::uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let version = KernelVersion::parse(&release);
    let mut findings = vec![version_finding(&release, version)];
    match available {
        Ok(()) => {
            let text = "available, with SINGLE_ISSUER and DEFER_TASKRUN";
            findings.push(Finding::ok("io_uring", text));
            findings.extend(feature_findings(RingFeatures::of_this_kernel()));
            // A worker does not use it on the kernels that invent descriptors.
            let invents = version.is_some_and(KernelVersion::invents_descriptors);
            let accept = if invents { Ok(()) } else { try_multishot_accept() };
            findings.push(trial_finding(
                "io_uring multishot accept",
                &accept,
                "works (tried on loopback): one submission accepts many connections",
            ));
            findings.push(trial_finding(
                "io_uring multishot receive",
                &try_multishot_receive(),
                "works (tried on loopback): idle sessions hold no buffer",
            ));
        }
        Err(problem) => {
            findings.push(Finding::failed("io_uring", problem.cause(), problem.remedy()));
        }
    }
    findings
}

fn version_finding(release: &str, version: Option<KernelVersion>) -> Finding {
    let subject = "kernel";
    let upgrade = "apt-get install --only-upgrade 'linux-image-*' && reboot";
    match version {
        None => Finding::unknown(
            subject,
            format!("{release:?} has no version number; evenkeel needs 6.1 or newer"),
        ),
        Some(version) if version < FLOOR => {
            Finding::failed(subject, format!("{release}; evenkeel needs 6.1 or newer"), upgrade)
        }
        Some(version) if version.invents_descriptors() => Finding::warning(
            subject,
            format!(
                "{release}; from 6.6.1 to 6.7.4 a multishot accept may return a descriptor that \
                 does not exist, so evenkeel accepts connections one at a time"
            ),
            upgrade,
        ),
        Some(_) => Finding::ok(subject, format!("{release} (evenkeel needs 6.1 or newer)")),
    }
}

fn feature_findings(features: io::Result<RingFeatures>) -> Vec<Finding> {
    let subject = "io_uring operations";
    let RingFeatures { ext_arg, operations } = match features {
        Ok(features) => features,
        Err(error) => {
            let text = format!("the kernel does not list them: {error}");
            let remedy = "allow io_uring_register in the sandbox (seccomp)";
            return vec![Finding::failed(subject, text, remedy)];
        }
    };
    let upgrade = "boot kernel 6.1 or newer, or allow it in the sandbox";
    let names = |wanted: bool| {
        let some = operations.iter().filter(|(_, known)| *known == wanted);
        some.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    };
    let unknown = names(false);
    let operations = if unknown.is_empty() {
        Finding::ok(subject, names(true))
    } else {
        Finding::failed(subject, format!("not supported by this kernel: {unknown}"), upgrade)
    };
    let subject = "io_uring EXT_ARG";
    let ext_arg = if ext_arg {
        Finding::ok(subject, "one system call submits and waits with a timeout")
    } else {
        Finding::failed(subject, "missing: a worker cannot wait with a timeout", upgrade)
    };
    vec![operations, ext_arg]
}

fn trial_finding(subject: &'static str, outcome: &io::Result<()>, works: &str) -> Finding {
    let Err(error) = outcome else { return Finding::ok(subject, works) };
    let remedy = match error.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => "ip link set lo up",
        _ => "boot another kernel, 6.1 or newer",
    };
    Finding::failed(subject, format!("does not work (tried on loopback): {error}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn an_old_kernel_fails_and_one_that_invents_descriptors_is_a_warning() {
        for (release, verdict) in [
            ("5.15.0-91-generic", Verdict::Failed),
            ("6.0.19", Verdict::Failed),
            ("6.1.0-18-amd64", Verdict::Ok),
            ("6.6.0", Verdict::Ok),
            ("6.6.1", Verdict::Warning),
            ("6.7.4", Verdict::Warning),
            ("6.7.5", Verdict::Ok),
            ("6.18.44", Verdict::Ok),
        ] {
            let finding = version_finding(release, KernelVersion::parse(release));
            assert_eq!(finding.verdict, verdict, "{release}");
        }
    }

    #[test]
    fn missing_features_are_named() {
        let operations = vec![("accept", true), ("connect", false)];
        let findings = feature_findings(Ok(RingFeatures { ext_arg: true, operations }));
        let verdicts: Vec<Verdict> = findings.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Failed, Verdict::Ok]);
        assert!(findings[0].text.ends_with(": connect"), "{}", findings[0].text);
        let error = io::Error::from(nix::errno::Errno::ENETUNREACH);
        let finding = trial_finding("a trial", &Err(error), "it works");
        assert_eq!(finding.remedy.as_deref(), Some("ip link set lo up"));
    }
}
