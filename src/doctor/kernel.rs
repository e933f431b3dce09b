//! The kernel and its io_uring.

use std::io;

use nix::sys::utsname;

use crate::doctor::finding::Finding;
use crate::sys::features::{RingFeatures, RingProblem, ring_features};
use crate::sys::release::Release;

/// The oldest kernel that has all that a worker needs: `SINGLE_ISSUER` with `DEFER_TASKRUN`.
const FLOOR: Release = Release(6, 1, 0);

pub(super) fn examine(available: Result<(), RingProblem>) -> Vec<Finding> {
    let release = utsname::uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let version = Release::parse(&release);
    let mut findings = vec![release_finding(&release, version)];
    match available {
        Ok(()) => {
            findings.push(Finding::ok(
                "io_uring",
                "there and allowed, with SINGLE_ISSUER and DEFER_TASKRUN",
            ));
            match ring_features() {
                Ok(mut features) => {
                    if version.is_some_and(Release::invents_descriptors) {
                        // Whatever the trial gave, it is not used on this kernel.
                        features.multishot_accept = Ok(());
                    }
                    findings.extend(feature_findings(&features));
                }
                Err(error) => findings.push(Finding::failed(
                    "io_uring operations",
                    format!("the ring does not list them: {error}"),
                    "let the sandbox allow io_uring_register",
                )),
            }
        }
        Err(problem) => {
            findings.push(Finding::failed("io_uring", problem.cause(), problem.remedy()));
        }
    }
    findings
}

fn release_finding(release: &str, version: Option<Release>) -> Finding {
    let subject = "kernel";
    match version {
        None => Finding::unknown(subject, format!("{release}: no version; 6.1 is needed")),
        Some(version) if version < FLOOR => Finding::failed(
            subject,
            format!("{release}; 6.1 or newer is needed"),
            "apt-get install --only-upgrade 'linux-image-*' && reboot",
        ),
        Some(version) if version.invents_descriptors() => Finding::warning(
            subject,
            format!(
                "{release}; 6.6.1 to 6.7.4 may answer a multishot accept with a descriptor that \
                 is none, so that evenkeel accepts one at a time"
            ),
            "apt-get install --only-upgrade 'linux-image-*' && reboot",
        ),
        Some(_) => Finding::ok(subject, format!("{release}; 6.1 or newer is needed")),
    }
}

fn feature_findings(features: &RingFeatures) -> Vec<Finding> {
    let upgrade = "boot kernel 6.1 or newer, or let the sandbox allow it";
    let (known, unknown): (Vec<_>, Vec<_>) = features.operations.iter().partition(|(_, k)| *k);
    let names = |list: &[(&'static str, bool)]| {
        list.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    };
    let operations = if unknown.is_empty() {
        Finding::ok("io_uring operations", names(&known))
    } else {
        let text = format!("the ring does not know: {}", names(&unknown));
        Finding::failed("io_uring operations", text, upgrade)
    };
    let ext_arg = if features.ext_arg {
        Finding::ok("io_uring EXT_ARG", "one system call submits and waits with a timeout")
    } else {
        Finding::failed("io_uring EXT_ARG", "missing: a worker cannot wait with a timeout", upgrade)
    };
    vec![
        operations,
        ext_arg,
        tried(
            "io_uring multishot accept",
            &features.multishot_accept,
            "tried on loopback: one submission accepts every connection",
        ),
        tried(
            "io_uring multishot receive",
            &features.multishot_receive,
            "tried on loopback: into a buffer ring, so that idle sessions hold no buffer",
        ),
    ]
}

fn tried(subject: &'static str, outcome: &io::Result<()>, works: &str) -> Finding {
    let failed = |error: &io::Error, remedy: &str| {
        Finding::failed(subject, format!("tried on loopback, and failed: {error}"), remedy)
    };
    match outcome {
        Ok(()) => Finding::ok(subject, works),
        Err(error) => match error.kind() {
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => {
                failed(error, "ip link set lo up")
            }
            _ => failed(error, "boot another kernel, 6.1 or newer"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn old_kernels_fail_and_the_bogus_ones_are_warned_of() {
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
            let finding = release_finding(release, Release::parse(release));
            assert_eq!(finding.verdict, verdict, "{release}");
        }
    }

    #[test]
    fn what_the_ring_lacks_is_named() {
        let features = RingFeatures {
            ext_arg: true,
            operations: vec![("accept", true), ("connect", false)],
            multishot_accept: Ok(()),
            multishot_receive: Err(io::Error::from(nix::errno::Errno::ENETUNREACH)),
        };
        let findings = feature_findings(&features);
        assert_eq!(findings[0].verdict, Verdict::Failed);
        assert!(findings[0].text.ends_with(": connect"), "{}", findings[0].text);
        assert_eq!(findings[2].verdict, Verdict::Ok);
        assert_eq!(findings[3].remedy.as_deref(), Some("ip link set lo up"));
    }
}
