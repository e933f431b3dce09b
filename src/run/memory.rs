//! How much memory this process may use: that of the machine, or the limit of a memory cgroup.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::sysinfo::sysinfo;

/// Bytes that this process may use: the lowest limit of its memory cgroups and their ancestors, or
/// the machine's memory where that is less.
pub(crate) fn available() -> u64 {
    let machine = sysinfo().map_or(u64::MAX, |info| info.ram_total());
    let read = |path: &Path| fs::read_to_string(path).ok();
    let of_process = |name: &str| read(&Path::new("/proc/self").join(name)).unwrap_or_default();
    machine.min(cgroup_limit(&of_process("cgroup"), &of_process("mountinfo"), read))
}

/// The lowest limit of all memory cgroups of a process with this `/proc/PID/cgroup` and
/// `/proc/PID/mountinfo`; `u64::MAX` if there is none. See cgroups(7) and proc(5).
fn cgroup_limit(cgroup: &str, mountinfo: &str, read: impl Fn(&Path) -> Option<String>) -> u64 {
    let groups = mountinfo.lines().filter_map(|mount| memory_cgroup(mount, cgroup));
    let limits = groups.flat_map(|(mount, group, file)| {
        // Folders above the mount point are not cgroups.
        let above = group.ancestors().take_while(|folder| folder.starts_with(&mount));
        above.map(|folder| folder.join(file)).collect::<Vec<_>>()
    });
    // "No limit" is "max" in version 2, which is not a number, and a very large number in version
    // 1.
    limits.filter_map(|file| read(&file)?.trim().parse().ok()).min().unwrap_or(u64::MAX)
}

/// The mount point, the folder of the process's cgroup below it, and the file with its limit; none
/// if this line of mountinfo is not a hierarchy that limits memory.
fn memory_cgroup(mount: &str, cgroup: &str) -> Option<(PathBuf, PathBuf, &'static str)> {
    let (fields, kind) = mount.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let (controller, file) = match kind.next()? {
        "cgroup2" => ("", "memory.max"),
        "cgroup" if kind.nth(1)?.split(',').any(|option| option == "memory") => {
            ("memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let mut fields = fields.split(' ').skip(3);
    let (root, mount) = (fields.next()?, PathBuf::from(fields.next()?));
    let own = cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|one| one == controller).then_some(path)
    })?;
    // In a container without a cgroup namespace, the path is the host's, and so is the root.
    let group = match Path::new(own).strip_prefix(root) {
        Ok(below) => mount.join(below),
        Err(_) => mount.clone(),
    };
    Some((mount, group, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
    const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";

    fn limit(cgroup: &str, mountinfo: &str, files: &[(&str, &str)]) -> u64 {
        cgroup_limit(cgroup, mountinfo, |path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_lowest_limit_of_a_cgroup_and_its_ancestors_applies() {
        let own = "/sys/fs/cgroup/system.slice/evenkeel.service/memory.max";
        let parent = "/sys/fs/cgroup/system.slice/memory.max";
        let of = |files: &[_]| limit("0::/system.slice/evenkeel.service", V2, files);
        assert_eq!(of(&[(own, "67108864\n"), (parent, "max\n")]), 64 << 20);
        assert_eq!(of(&[(own, "67108864\n"), (parent, "33554432\n")]), 32 << 20);
        assert_eq!(of(&[(own, "max\n"), (parent, "33554432\n")]), 32 << 20);
        assert_eq!(of(&[(own, "max\n"), (parent, "max\n")]), u64::MAX);
        assert_eq!(of(&[]), u64::MAX, "the root cgroup has no such file");
    }

    #[test]
    fn cgroup_version_1_has_a_path_for_each_controller() {
        let cgroup = "5:cpu,cpuacct:/other\n4:memory:/web\n0::/";
        let own = "/sys/fs/cgroup/memory/web/memory.limit_in_bytes";
        let root = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        let files = [(own, "67108864\n"), (root, "9223372036854771712\n")];
        assert_eq!(limit(cgroup, V1, &files), 64 << 20);
        let hybrid = format!("{V1}\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw");
        assert_eq!(limit(cgroup, &hybrid, &files), 64 << 20);
    }

    #[test]
    fn a_container_sees_its_own_cgroup_at_the_mount_point() {
        let file = [("/sys/fs/cgroup/memory.max", "67108864\n")];
        assert_eq!(limit("0::/", V2, &file), 64 << 20, "with a cgroup namespace");
        let host = V2.replacen("/ /sys", "/docker/1f2e /sys", 1);
        assert_eq!(limit("0::/docker/1f2e", &host, &file), 64 << 20, "without one");
        assert_eq!(limit("0::/../elsewhere", V2, &file), 64 << 20, "moved out of it");
    }

    #[test]
    fn without_cgroups_the_memory_of_the_machine_is_the_limit() {
        assert_eq!(limit("", "", &[]), u64::MAX);
        assert!((1 << 20..=u64::MAX - 1).contains(&available()));
    }
}
