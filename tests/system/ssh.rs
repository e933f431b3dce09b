//! SSH (OpenSSH): much output, a silent session, files both ways, and a server that dies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::{User, geteuid};

use crate::common::wait::until;
use crate::common::{Balancer, Config, TestEnv};
use crate::program::{Ended, Program, run};
use crate::support::{assert_same, command, find, has_programs, noise};

const PROGRAMS: [&str; 5] = ["sshd", "ssh", "ssh-keygen", "scp", "sftp"];

/// As root, sshd needs this directory, which only its service creates: it gets a private /run.
const PRIVATE: &str = "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec \"$0\" \"$@\"";

/// A server with a host key and a user key of its own. The user who runs the tests may log in.
#[derive(Debug)]
struct Sshd<'a> {
    env: &'a TestEnv,
    user: String,
    key: PathBuf,
    _server: Program,
}

impl<'a> Sshd<'a> {
    fn start(env: &'a TestEnv) -> Self {
        let user = User::from_uid(geteuid()).unwrap().expect("this user has a name").name;
        let [host_key, key] = ["host", "user"].map(|name| {
            let file = env.file(name);
            let mut keygen = command("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file);
            run(env, keygen);
            file
        });
        let (address, config) = (env.port(2222), env.file("sshd_config"));
        let text = format!(
            "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nUsePAM {}\nPrintMotd no\n\
             Subsystem sftp internal-sftp\n",
            host_key.display(),
            key.with_extension("pub").display(),
            // Without it, an account without a password may count as locked.
            if geteuid().is_root() { "yes" } else { "no" },
        );
        fs::write(&config, text).unwrap();
        // It starts itself again for each connection, by its absolute path.
        let sshd = find("sshd").unwrap();
        let mut server = if geteuid().is_root() {
            let mut private = command("unshare");
            private.args(["--mount", "sh", "-c", PRIVATE]).arg(sshd);
            private
        } else {
            Command::new(sshd)
        };
        server.args(["-D", "-e", "-f"]).arg(config);
        let mut server = Program::start(env, server);
        server.until_listens(address);
        Self { env, user, key, _server: server }
    }

    fn config(&self) -> Config {
        Config::new(self.env).server("a", self.env.port(2222))
    }

    /// A client program with the options that all of them have in common; it uses the frontend.
    fn client(&self, program: &str, port_option: &str) -> Command {
        let mut client = command(program);
        client.args([port_option, &self.env.frontend().port().to_string(), "-F", "none", "-q"]);
        client.arg("-i").arg(&self.key);
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "IdentityAgent=none",
            "ConnectTimeout=20",
        ] {
            client.args(["-o", option]);
        }
        client
    }

    fn host(&self) -> String {
        format!("{}@{}", self.user, self.env.frontend().ip())
    }

    /// Runs a command on the server.
    fn ssh(&self, options: &[&str], remote: &str) -> Command {
        let mut ssh = self.client("ssh", "-p");
        ssh.args(options).args([&self.host(), remote]);
        ssh
    }
}

#[test]
fn fifty_megabytes_of_output_arrive_unchanged() {
    if !has_programs("fifty_megabytes_of_output_arrive_unchanged", &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let sshd = Sshd::start(&env);
    let balancer = Balancer::start(&env, &sshd.config());
    let (file, bytes) = (env.file("noise"), noise(50_000_000));
    fs::write(&file, &bytes).unwrap();
    let output = run(&env, sshd.ssh(&[], &format!("cat {}", file.display())));
    assert_same(&output, &bytes);
    balancer.assert_no_leaks();
}

/// Runs a command that is silent for three seconds.
fn silent(sshd: &Sshd<'_>, options: &[&str]) -> Ended {
    Program::start(sshd.env, sshd.ssh(options, "sleep 3; echo later")).wait()
}

#[test]
fn a_silent_session_lives_without_an_idle_timeout_or_by_the_messages_of_ssh() {
    let name = "a_silent_session_lives_without_an_idle_timeout_or_by_the_messages_of_ssh";
    if !has_programs(name, &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let sshd = Sshd::start(&env);
    let idle = |timeout: &str| sshd.config().frontend(&format!("idle_timeout = \"{timeout}\""));
    let balancer = Balancer::start(&env, &idle("off"));
    let ended = silent(&sshd, &[]);
    assert_eq!(ended.text(), "later", "{}", ended.stderr);
    balancer.reload(&idle("2s"));
    let ended = silent(&sshd, &["-o", "ServerAliveInterval=1"]);
    assert_eq!(ended.text(), "later", "{}", ended.stderr);
    let ended = silent(&sshd, &[]);
    assert_eq!((ended.status.code(), &*ended.text()), (Some(255), ""), "{}", ended.stderr);
    balancer.session_ended("idle_timeout");
    balancer.assert_no_leaks();
}

#[test]
fn files_are_the_same_after_scp_and_sftp_in_both_directions() {
    if !has_programs("files_are_the_same_after_scp_and_sftp_in_both_directions", &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let sshd = Sshd::start(&env);
    let balancer = Balancer::start(&env, &sshd.config());
    let bytes = noise(8 << 20);
    fs::write(env.file("noise"), &bytes).unwrap();
    let remote = |name: &str| format!("{}:{}", sshd.host(), env.file(name).display());
    let local = |name: &str| env.file(name).display().to_string();
    for (from, to) in [(local("noise"), remote("1")), (remote("1"), local("2"))] {
        let mut scp = sshd.client("scp", "-P");
        scp.args([from, to]);
        run(&env, scp);
    }
    let batch = env.file("batch");
    fs::write(
        &batch,
        format!("put {} {}\nget {} {}\n", local("2"), local("3"), local("3"), { local("4") }),
    )
    .unwrap();
    let mut sftp = sshd.client("sftp", "-P");
    sftp.arg("-b").arg(&batch).arg(sshd.host());
    run(&env, sftp);
    for name in ["1", "2", "3", "4"] {
        assert_same(&fs::read(env.file(name)).unwrap(), &bytes);
    }
    balancer.assert_no_leaks();
}

#[test]
fn a_server_that_dies_in_the_middle_ends_the_client() {
    if !has_programs("a_server_that_dies_in_the_middle_ends_the_client", &PROGRAMS) {
        return;
    }
    let env = TestEnv::new();
    let sshd = Sshd::start(&env);
    let balancer = Balancer::start(&env, &sshd.config());
    // The parent of the shell is the process that serves the connection.
    let (script, mark) = (env.file("die"), env.file("mark"));
    let text = "#!/bin/sh\necho begun\nwhile ! [ -e \"$1\" ]; do sleep 0.05; done\nkill -9 $PPID\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let remote = format!("exec {} {}", script.display(), mark.display());
    let client = Program::start(&env, sshd.ssh(&[], &remote));
    until("the command has begun", || client.stdout() == "begun\n");
    fs::write(&mark, "").unwrap();
    let ended = client.wait();
    assert_eq!(ended.status.code(), Some(255), "{}", ended.stderr);
    balancer.assert_no_leaks();
}
