//! `evenkeel doctor` on this machine, and the messages of `doctor`, `run` and `demo` where io_uring
//! is forbidden.

#![expect(unsafe_code, reason = "the seccomp filter is installed between fork and exec")]

use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use nix::errno::Errno;
use nix::libc;

#[test]
fn doctor_reports_every_subject_and_fails_if_one_has_failed() {
    let output = evenkeel().arg("doctor").output().expect("it starts");
    let text = text_of(&output.stdout);
    for subject in [
        "kernel",
        "io_uring",
        "cores",
        "file descriptors",
        "net.core.somaxconn",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_congestion_control",
        "net.ipv4.tcp_migrate_req",
        "fs.pipe-max-size",
        "privileges",
        "Landlock",
        "seccomp",
    ] {
        let found = text.lines().any(|line| {
            ["ok ", "warning ", "failed "].iter().any(|verdict| line.starts_with(verdict))
                && line.contains(&format!(" {subject}: "))
        });
        assert!(found, "{subject} in\n{text}");
    }
    let failed = text.lines().any(|line| line.starts_with("failed "));
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{text}");
}

#[test]
fn doctor_reports_that_io_uring_is_forbidden_with_a_remedy() {
    for errno in [Errno::EPERM, Errno::ENOSYS] {
        let output = without_ring(evenkeel().arg("doctor"), errno);
        let text = text_of(&output.stdout);
        assert!(
            text.contains("failed   io_uring: io_uring is forbidden here by a seccomp profile"),
            "{errno}:\n{text}"
        );
        assert!(text.contains("--security-opt seccomp=unconfined"), "{errno}:\n{text}");
        assert_eq!(output.status.code(), Some(1), "{errno}:\n{text}");
    }
}

#[test]
fn run_fails_with_the_same_message() {
    for errno in [Errno::EPERM, Errno::ENOSYS] {
        let bind = format!("127.0.0.1:{}", free_port());
        let mut command = evenkeel();
        command.args(["run", "--bind", &bind, "--server", "127.0.0.1:9"]);
        let output = without_ring(&mut command, errno);
        let text = text_of(&output.stderr);
        assert!(
            text.contains("io_uring is forbidden here by a seccomp profile"),
            "{errno}:\n{text}"
        );
        assert!(text.contains("--security-opt seccomp=unconfined"), "{errno}:\n{text}");
        assert_eq!(output.status.code(), Some(1), "{errno}:\n{text}");
    }
}

#[test]
fn demo_fails_with_the_same_message() {
    let output = without_ring(evenkeel().args(["demo", "--once"]), Errno::EPERM);
    let text = text_of(&output.stderr);
    assert!(text.contains("io_uring is forbidden here by a seccomp profile"), "{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
}

fn evenkeel() -> Command {
    Command::new(env!("CARGO_BIN_EXE_evenkeel"))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("it is bound").port()
}

/// Runs `command` under a seccomp filter that answers `io_uring_setup(2)` with `errno`.
fn without_ring(command: &mut Command, errno: Errno) -> Output {
    // SAFETY: between fork and exec `forbid_ring` makes two system calls and does not allocate.
    unsafe { command.pre_exec(move || forbid_ring(errno)) };
    command.output().expect("it starts")
}

fn forbid_ring(errno: Errno) -> io::Result<()> {
    // BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K (linux/bpf_common.h).
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let number = u32::try_from(libc::SYS_io_uring_setup).unwrap_or(u32::MAX);
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        // The number of the system call stands first in `struct seccomp_data`.
        step(LOAD, 0, 0, 0),
        step(JUMP_EQUAL, 0, 1, number),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | (errno as u32)),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    nix::sys::prctl::set_no_new_privs()?;
    // SAFETY: `program` points to the four instructions above, which the kernel copies.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn doctor_fails_where_run_would_not_start() {
    let folder = std::env::temp_dir().join(format!("evenkeel-doctor-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("evenkeel.toml");
    // 203.0.113.0/24 is for documentation (RFC 5737): no machine has such an address.
    let text = "[frontend.f]\nbind = [\"203.0.113.1:8089\"]\nbackend = \"b\"\n[observe]\n\
                control = \"/nonexistent/a/x.sock\"\nbind = false\n[global]\ngroup = \"root\"\n\
                [[backend.b.server]]\nname = \"s\"\naddress = \"127.0.0.1:9\"\n";
    std::fs::write(&file, text).unwrap();
    let output = evenkeel().args(["doctor", "-c"]).arg(&file).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let text = text_of(&output.stdout);
    assert!(text.lines().any(|line| line.starts_with("failed   address: ")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("failed   control: ")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("warning  configuration: ")), "{text}");
    assert!(text.contains("stays root in the group root"), "{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
}
