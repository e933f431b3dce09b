//! The version of a kernel.

use nix::sys::utsname::uname;

/// Ordered as versions are: 6.12 is newer than 6.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u32, pub u32, pub u32);

impl KernelVersion {
    /// The version of the running kernel; none if its release is not a version.
    #[must_use]
    pub fn of_this_kernel() -> Option<Self> {
        Self::parse(&uname().ok()?.release().to_string_lossy())
    }

    /// Reads a release as uname(2) returns it: "6.12.25+rpt-rpi-v8".
    #[must_use]
    pub fn parse(release: &str) -> Option<Self> {
        let numbers = release.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?;
        let mut numbers = numbers.split('.').map(str::parse);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self(major, minor, numbers.next().and_then(Result::ok).unwrap_or(0)))
    }

    /// Whether the memory of rings counts against `RLIMIT_MEMLOCK`: from 6.14 on.
    #[must_use]
    pub fn charges_rings(self) -> bool {
        self >= Self(6, 14, 0)
    }

    /// Whether a multishot accept on this kernel may return a descriptor that does not exist: 6.6.1
    /// to 6.7.4, with deferred task work, after an overflow (liburing issue 1062).
    #[must_use]
    pub fn invents_descriptors(self) -> bool {
        (Self(6, 6, 1)..=Self(6, 7, 4)).contains(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_distributions_write_them() {
        assert_eq!(KernelVersion::parse("6.1.0-18-arm64"), Some(KernelVersion(6, 1, 0)));
        assert_eq!(KernelVersion::parse("6.12.25+rpt-rpi-v8"), Some(KernelVersion(6, 12, 25)));
        assert_eq!(KernelVersion::parse("7.0-rc1"), Some(KernelVersion(7, 0, 0)));
        assert_eq!(KernelVersion::parse("unknown"), None);
        assert!(KernelVersion::of_this_kernel() > Some(KernelVersion(2, 6, 0)));
        assert!(KernelVersion(6, 12, 0) > KernelVersion(6, 6, 30));
    }

    #[test]
    fn kernels_that_invent_descriptors_are_known() {
        let invents =
            |release| KernelVersion::parse(release).is_some_and(KernelVersion::invents_descriptors);
        assert!(invents("6.6.1") && invents("6.7.4-arch1") && invents("6.6.30-rpi"));
        assert!(!invents("6.6.0") && !invents("6.7.5") && !invents("6.18.44-x") && !invents("6.1"));
    }
}
