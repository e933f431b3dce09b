//! Binding: of two processes, one gets an address, and one that was killed does not keep it.

use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use evenkeel::sys::child::die_with_parent;
use socket2::{Domain, Socket, Type};

use crate::common::balancer::{PROGRAM, printed, write_config};
use crate::common::client::{connect, exchange};
use crate::common::wait::until;
use crate::common::{Balancer, TestEnv, echoing};

#[test]
fn it_starts_at_once_after_it_was_killed() {
    let env = TestEnv::new(); // case 67
    let (config, _server) = echoing(&env);
    let config = config.workers(2);
    for _ in 0..5 {
        let balancer = Balancer::start(&env, &config);
        // The more sessions, the longer the kernel takes to close the rings.
        let clients: Vec<_> = (0..300).map(|_| connect(env.frontend())).collect();
        for client in &clients {
            assert_eq!(exchange(client, b"in"), b"in");
        }
        // SIGKILL.
        drop(balancer);
    }
}

/// evenkeel with its own files, and an address that another one wants too.
struct Rival {
    child: Child,
    log: PathBuf,
}

impl Rival {
    fn start(env: &TestEnv, name: &str, bind: &str) -> Self {
        let text = format!(
            "[global]\nworkers = 2\n[observe]\nbind = false\ncontrol = false\n[frontend.f]\n\
             bind = [\"{bind}\"]\nbackend = \"b\"\n[backend.b.health]\ncheck = \"off\"\n\
             [[backend.b.server]]\nname = \"s\"\naddress = \"{}\"\n",
            env.port(9001)
        );
        let (file, log) = (env.file(&format!("{name}.toml")), env.file(&format!("{name}.log")));
        fs::write(&file, text).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["run", "-c"]).arg(file).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).unwrap());
        die_with_parent(&mut command);
        Self { child: command.spawn().unwrap(), log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn runs(&self) -> bool {
        self.log().contains(" runs: ")
    }

    fn is_refused(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some_and(|status| {
            assert_eq!(status.code(), Some(1));
            let said = self.log();
            assert!(said.contains(" is in use") || said.contains(" is used by another"), "{said}");
            true
        })
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn of_two_processes_that_start_at_once_on_one_address_one_runs() {
    let env = TestEnv::exclusive();
    for round in 0..3 {
        // All of them at a time: the more there is to do, the more often two meet.
        let mut pairs: Vec<[Rival; 2]> = (0..8)
            .map(|pair| {
                let bind = if pair % 4 == 0 {
                    // The file of a process that is gone.
                    let path = env.file(&format!("{round}-{pair}.sock"));
                    drop(UnixListener::bind(&path).unwrap());
                    format!("unix:{}", path.display())
                } else {
                    env.port(8100 + pair).to_string()
                };
                let name = |rival| format!("{round}-{pair}-{rival}");
                ["a", "b"].map(|rival| Rival::start(&env, &name(rival), &bind))
            })
            .collect();
        for pair in &mut pairs {
            until("one runs and the other is refused", || {
                let [one, two] = &mut *pair;
                assert!(!(one.runs() && two.runs()), "both run: {}", two.log());
                let refused = [one.is_refused(), two.is_refused()];
                assert_ne!(refused, [true, true], "none runs: {}", two.log());
                (refused[0] && two.runs()) || (refused[1] && one.runs())
            });
        }
    }
}

#[test]
fn an_address_that_others_share_is_refused_and_the_process_is_named() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let shared = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    shared.set_reuse_address(true).unwrap();
    shared.set_reuse_port(true).unwrap();
    shared.bind(&env.frontend().into()).unwrap();
    shared.listen(8).unwrap();
    let file = write_config(&env, &config.workers(2).text());
    let output = Command::new(PROGRAM).args(["run", "-c"]).arg(file).output().unwrap();
    let said = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let holder = format!("it belongs to process {}", std::process::id());
    for part in [&*format!("{} is in use", env.frontend()), &holder] {
        assert!(said.contains(part), "no {part}: {said}");
    }
}
