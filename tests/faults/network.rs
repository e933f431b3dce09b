//! Faults of the network: a network namespace of the thread, in which nftables drops or rejects the
//! packets of one connection. Each rule counts, so that a fault that hit no packet is noticed.

use std::process::Command;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::common::wait::pause;

/// How long a link that comes back is dead: longer than the first retransmission (200 ms).
const STALL: Duration = Duration::from_millis(300);

/// A link that flaps: so many times dead and alive, for so long each.
const FLAPS: u32 = 6;
const FLAP: Duration = Duration::from_millis(40);

/// Moves this thread to a network namespace of its own that has only loopback, with a chain for the
/// rules.
///
/// # Errors
/// Why that is not possible here.
pub(crate) fn enter() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("only root may create a network namespace".to_owned());
    }
    for program in ["ip", "nft"] {
        if Command::new(program).arg("-V").output().is_err() {
            return Err(format!("not installed: {program} (tests/run installs it)"));
        }
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|why| format!("no network namespace: {why}"))?;
    run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    nft("add table inet faults; \
         add chain inet faults input { type filter hook input priority 0; }")
    .map_err(|why| format!("this kernel has no nftables: {why}"))?;
    Ok(())
}

/// The rules of one scenario. They are removed by `heal`.
#[derive(Debug, Default)]
pub(crate) struct Network {
    used: bool,
    /// Packets that were dropped or rejected before the rules were last removed.
    hit: u64,
    timed: Option<JoinHandle<Result<u64, String>>>,
}

/// A namespace has one chain; a thread that removes rules works beside the script.
static CHAIN: Mutex<()> = Mutex::new(());

impl Network {
    /// Does what the script says. `port` is that of the frontend (`to_server`: of the server): one
    /// end of every packet of the connection.
    ///
    /// # Errors
    /// An unknown word, or nft failed.
    pub(crate) fn act(&mut self, verb: &str, port: u16, to_server: bool) -> Result<(), String> {
        self.used = true;
        let both = format!("meta l4proto tcp th sport {port}");
        let back = format!("meta l4proto tcp th dport {port}");
        match verb {
            "drop" => add(&[(&both, "drop"), (&back, "drop")]),
            // Only what the balancer sends.
            "drop-out" => add(&[(if to_server { &back } else { &both }, "drop")]),
            "loss" => {
                let some = "numgen inc mod 4 == 0";
                add(&[(&format!("{both} {some}"), "drop"), (&format!("{back} {some}"), "drop")])
            }
            "reset" => {
                let reject = "reject with tcp reset";
                // The RST itself passes.
                let first = "tcp flags & rst == 0";
                add(&[(&format!("{both} {first}"), reject), (&format!("{back} {first}"), reject)])
            }
            "stall" => {
                add(&[(&both, "drop"), (&back, "drop")])?;
                self.timed = Some(std::thread::spawn(|| {
                    pause(STALL);
                    flush()
                }));
                Ok(())
            }
            "flap" => {
                let rules = [(both, "drop"), (back, "drop")];
                add(&rules.each_ref().map(|(what, then)| (&**what, *then)))?;
                self.timed = Some(std::thread::spawn(move || {
                    let mut hit = 0;
                    for _ in 1..FLAPS {
                        pause(FLAP);
                        hit += flush()?;
                        pause(FLAP);
                        add(&rules.each_ref().map(|(what, then)| (&**what, *then)))?;
                    }
                    pause(FLAP);
                    hit += flush()?;
                    Ok(hit)
                }));
                Ok(())
            }
            "heal" => self.heal(),
            _ => Err(format!("unknown word: n.{verb}")),
        }
    }

    /// Removes all rules.
    ///
    /// # Errors
    /// nft failed.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        if let Some(timed) = self.timed.take() {
            self.hit += timed.join().map_err(|_| "the thread of a rule panicked")??;
        }
        if self.used {
            self.hit += flush()?;
        }
        Ok(())
    }

    /// Removes all rules, and checks that they hit something.
    ///
    /// # Errors
    /// They did not: nothing was tested.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        self.heal()?;
        if self.used && self.hit == 0 {
            return Err("no packet was dropped or rejected: the fault was not injected".to_owned());
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A script that failed leaves rules.
        drop(self.heal());
    }
}

fn add(rules: &[(&str, &str)]) -> Result<(), String> {
    let rules: Vec<String> = rules
        .iter()
        .map(|(what, then)| format!("add rule inet faults input {what} counter {then}"))
        .collect();
    nft(&rules.join("; ")).map(drop)
}

/// Removes all rules: how many packets they hit.
fn flush() -> Result<u64, String> {
    let _guard = CHAIN.lock().map_err(|_| "a thread that changes rules panicked")?;
    let listed = nft("list chain inet faults input")?;
    nft("flush chain inet faults input")?;
    let counts = listed.split("counter packets ").skip(1);
    Ok(counts.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum())
}

fn nft(commands: &str) -> Result<String, String> {
    run(Command::new("nft").arg(commands))
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}
