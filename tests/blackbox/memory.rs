//! Memory: what all workers together may use, in a cgroup with a limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::balancer::{PROGRAM, write_config};
use crate::common::client::{connect, exchange};
use crate::common::wait::{until, until_some};
use crate::common::{Balancer, Config, Place, Server, skip};

/// A memory cgroup below that of this process; removed when it is dropped.
struct MemoryCgroup(PathBuf);

impl MemoryCgroup {
    /// With this limit; or why there cannot be one.
    fn new(name: &str, bytes: u64) -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        // `ID:CONTROLLERS:PATH`, of version 2 without controllers (cgroups(7)).
        let path_of = |controller: &str| {
            let lines = own.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
            let mut paths =
                lines.filter(|fields| fields[1].split(',').any(|one| one == controller));
            paths.next().map(|fields| fields[2].trim_start_matches('/').to_owned())
        };
        let hierarchies = [
            (Path::new("/sys/fs/cgroup/memory"), path_of("memory"), "memory.limit_in_bytes"),
            (Path::new("/sys/fs/cgroup"), path_of(""), "memory.max"),
        ];
        let mut why = "no memory cgroup is mounted".to_owned();
        for (mount, path, limit) in hierarchies {
            let Some(path) = path.filter(|_| mount.join("cgroup.procs").exists()) else { continue };
            let group = mount.join(path).join(name);
            if let Err(error) = fs::create_dir(&group) {
                why = format!("{}: {error}", group.display());
                continue;
            }
            let group = Self(group);
            match fs::write(group.0.join(limit), bytes.to_string()) {
                Ok(()) => return Ok(group),
                Err(error) => why = format!("{}: {error}", group.0.join(limit).display()),
            }
        }
        Err(why)
    }

    /// The program, in this cgroup.
    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg("echo $$ >\"$0\" && exec \"$@\"");
        command.arg(self.0.join("cgroup.procs")).arg(PROGRAM);
        command
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // A process that has just ended may be in it for another moment.
        until("the cgroup is removed", || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn the_buffers_of_all_workers_take_a_quarter_of_the_memory_of_the_cgroup_at_most() {
    let limit = 64 << 20;
    let name = format!("evenkeel-{}", std::process::id());
    let cgroup = match MemoryCgroup::new(&name, limit) {
        Ok(cgroup) => cgroup,
        Err(why) => {
            let test =
                "the_buffers_of_all_workers_take_a_quarter_of_the_memory_of_the_cgroup_at_most";
            return skip(test, &why);
        }
    };
    let place = Place::new();
    let server = Server::echo(place.port(9001));
    let config = Config::new(&place).workers(2).server("a", server.address);
    let mut command = cgroup.command();
    command.args(["run", "-c"]).arg(write_config(&place, &config.text()));
    let balancer = Balancer::start_command(&place, command);
    let of_each = until_some("each worker has served a client", || {
        assert_eq!(exchange(&connect(place.frontend()), b"in"), b"in");
        let metrics = balancer.metrics();
        let of = |worker| metrics.value("evenkeel_buffers", &[("worker", worker)]);
        Some([of("0"), of("1")]).filter(|buffers| !buffers.contains(&0.0))
    });
    let (kib, quarter) = (16.0, 16.0 * 1024.0);
    assert_eq!(of_each.iter().sum::<f64>() * kib, quarter);
}
