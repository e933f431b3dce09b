//! Deployment: the systemd unit, the installation, and the script that builds for the Pi.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// For conditions that take milliseconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The exposure that `systemd-analyze security` computes, times ten: 0 to 100.
const EXPOSURE_MAX: &str = "20";

#[test]
fn systemd_accepts_the_unit() {
    if !has_programs("systemd_accepts_the_unit", &["systemd-analyze"]) {
        return;
    }
    let output = analyze(&["verify", "--man=no"]);
    let messages = text(&output.stderr);
    // Type=notify-reload is new in systemd 253; the unit has Type=notify in the line before.
    let messages: Vec<&str> =
        messages.lines().filter(|line| !line.ends_with("ignoring: notify-reload")).collect();
    assert!(output.status.success() && messages.is_empty(), "{messages:?}");
}

#[test]
fn the_unit_is_hardened() {
    if !has_programs("the_unit_is_hardened", &["systemd-analyze"]) {
        return;
    }
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let output = analyze(&["security", "--offline=true", "--no-pager", &threshold]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn the_filter_of_the_unit_allows_every_system_call_from_start_to_stop() {
    let name = "the_filter_of_the_unit_allows_every_system_call_from_start_to_stop";
    if !has_programs(name, &["systemd-analyze", "strace"]) {
        return;
    }
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).output().unwrap();
    if !tried.status.success() {
        return skip(name, &format!("strace is not permitted: {}", text(&tried.stderr).trim()));
    }
    let folder = folder("filter");
    let [frontend, server, page] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [frontend_at, server_at, page_at] =
        [&frontend, &server, &page].map(|socket| socket.local_addr().unwrap());
    drop((frontend, page));
    let config = folder.join("evenkeel.toml");
    let text = format!(
        "[global]\ndrain_timeout = \"1s\"\n[observe]\nbind = \"{page_at}\"\ncontrol = {:?}\n\
         [frontend.f]\nbind = [\"{frontend_at}\"]\nbackend = \"b\"\n[backend.b]\n\
         [[backend.b.server]]\nname = \"s\"\naddress = \"{server_at}\"\n\
         [[backend.b.server]]\nname = \"localhost\"\naddress = \"localhost:{}\"\n",
        folder.join("control.sock"),
        server_at.port()
    );
    fs::write(&config, text).unwrap();
    let trace = folder.join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&trace);
    strace.args([env!("CARGO_BIN_EXE_evenkeel"), "run", "-c"]).arg(&config);
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut traced = Traced(strace.spawn().unwrap());

    std::thread::spawn(move || serve(&server));
    traced.until("it is ready", || get(&page_at.to_string(), "/readyz").contains("200"));
    traced.until("it relays", || get(&frontend_at.to_string(), "/").contains("hello"));
    let pid = evenkeel_of(traced.0.id()).unwrap();
    kill(pid, Signal::SIGHUP).unwrap();
    traced.until("it has reloaded", || {
        let reload = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .args(["reload", "-c"])
            .arg(&config)
            .output()
            .unwrap();
        reload.status.success()
    });
    assert!(get(&page_at.to_string(), "/metrics").contains("200"));
    kill(pid, Signal::SIGTERM).unwrap();
    let strace = traced.0.id();
    traced.until("it has ended", || evenkeel_of(strace).is_none());
    let status = traced.0.wait().unwrap();
    assert!(status.success(), "{status}");

    let trace = fs::read_to_string(trace).unwrap();
    let used: BTreeSet<&str> = trace.lines().filter_map(system_call).collect();
    assert!(used.contains("io_uring_enter"), "{used:?}");
    let mut allowed = BTreeSet::new();
    for line in unit().lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (line, denies) = line.strip_prefix('~').map_or((line, false), |line| (line, true));
        for call in line.split(' ').flat_map(expand) {
            if denies {
                allowed.remove(&call)
            } else {
                allowed.insert(call)
            };
        }
    }
    let denied: Vec<&&str> = used.iter().filter(|call| !allowed.contains(**call)).collect();
    assert!(denied.is_empty(), "the unit's filter denies {denied:?}");
    let denied = denied_families(&trace);
    assert!(denied.is_empty(), "the unit denies sockets of {denied:?}");
}

#[test]
fn the_unit_waits_longer_than_a_drain_and_names_the_default_file() {
    let unit = unit();
    let seconds = |text: &str, key: &str| -> u32 {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_matches(['"', 's']).parse().unwrap()
    };
    let example = fs::read_to_string(root().join("deploy/evenkeel.example.toml")).unwrap();
    assert!(seconds(&unit, "TimeoutStopSec=") > seconds(&example, "drain_timeout = "));
    let help = Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(["run", "--help"]).output();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let (_, file) = start.split_once(" -c ").unwrap();
    assert!(text(&help.unwrap().stdout).contains(file), "{file} is not the default");
    assert!(example.contains("\"/run/evenkeel/") && unit.contains("\nRuntimeDirectory=evenkeel\n"));
}

#[test]
fn the_commands_of_the_readme_install_every_file_that_the_unit_names() {
    let (folder, readme) = (folder("install"), fs::read_to_string(root().join("README.md")));
    let (prefix, readme) = (folder.join("system"), readme.unwrap());
    let (_, rest) = readme.split_once("To run evenkeel as a service").unwrap();
    let (_, rest) = rest.split_once("\n\n").unwrap();
    let (block, _) = rest.split_once("\n\n").unwrap();
    // The commands that check and start it need a whole machine.
    let lines = block.lines().map(str::trim);
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("evenkeel check")).collect();
    let script =
        lines.join("\n").replace(" /usr/", " $PREFIX/usr/").replace(" /etc/", " $PREFIX/etc/");
    let script = script.replace("target/release/evenkeel", env!("CARGO_BIN_EXE_evenkeel"));
    for directory in ["usr/bin", "etc/systemd/system"] {
        fs::create_dir_all(prefix.join(directory)).unwrap();
    }
    fs::copy(root().join("deploy/evenkeel.example.toml"), folder.join("evenkeel.toml")).unwrap();
    std::os::unix::fs::symlink(root().join("deploy"), folder.join("deploy")).unwrap();
    let path = format!("{}/usr/bin:{}", prefix.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &script]).current_dir(&folder).env("PREFIX", &prefix).env("PATH", path);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{script}: {}", text(&output.stderr));

    let installed = |file: &str| {
        let bytes =
            fs::metadata(prefix.join(file.trim_start_matches('/'))).map_or(0, |it| it.len());
        assert!(bytes > 0, "not installed: {file}; the README has: {script}");
    };
    let unit = unit();
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    let (program, file) = value("ExecStart=").split_once(" run -c ").unwrap();
    let (page, section) =
        value("Documentation=man:").trim_end_matches(')').split_once('(').unwrap();
    let page = format!("/usr/share/man/man{section}/{page}.{section}");
    for file in [program, file, &page, "/etc/systemd/system/evenkeel.service"] {
        installed(file);
    }
    installed("/usr/share/man/man1/evenkeel-run.1");
    installed("/usr/share/doc/evenkeel/evenkeel.example.toml");
    installed("/usr/share/bash-completion/completions/evenkeel");
    installed("/usr/share/zsh/vendor-completions/_evenkeel");
    installed("/usr/share/fish/vendor_completions.d/evenkeel.fish");
}

#[test]
fn keepalived_accepts_its_configuration() {
    let text = fs::read_to_string(root().join("deploy/keepalived.conf")).unwrap();
    let example = fs::read_to_string(root().join("deploy/evenkeel.example.toml")).unwrap();
    assert!(example.contains("bind = \"127.0.0.1:8404\""), "the address of the check");
    assert!(text.contains(" http://127.0.0.1:8404/readyz\""));
    if !has_programs("keepalived_accepts_its_configuration", &["keepalived", "setsid"]) {
        return;
    }
    // Its interface must exist, and cannot be loopback.
    let interfaces = fs::read_dir("/sys/class/net").unwrap();
    let names = interfaces.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let Some(name) = names.into_iter().find(|name| name != "lo") else {
        return skip("keepalived_accepts_its_configuration", "there is only loopback");
    };
    let file = folder("keepalived").join("keepalived.conf");
    let check = |text: &str| {
        fs::write(&file, text.replace("interface eth0", &format!("interface {name}"))).unwrap();
        // It may end by a signal to its process group, whatever it has found.
        let mut check = Command::new("setsid");
        check.args(["--wait", "keepalived", "--config-test"]);
        let output = check.arg(format!("--use-file={}", file.display())).output().unwrap();
        text_of(&output)
    };
    assert_eq!(check(&text), "");
    assert_ne!(check(&text.replace("virtual_router_id 51", "virtual_router_id 510")), "");
}

#[test]
fn the_script_for_the_pi_reports_a_missing_program() {
    let folder = folder("without-cargo");
    for program in ["bash", "dirname"] {
        let found = find(program).unwrap();
        std::os::unix::fs::symlink(found, folder.join(program)).unwrap();
    }
    let mut script = Command::new(root().join("deploy/build-aarch64"));
    let output = script.env("PATH", &folder).env("HOME", &folder).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("missing: cargo"), "{}", text(&output.stderr));
}

/// strace and evenkeel, its child. Dropping it kills both.
struct Traced(Child);

impl Traced {
    fn until(&mut self, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            let waits = start.elapsed() < TIMEOUT && self.0.try_wait().unwrap().is_none();
            assert!(waits, "not within {TIMEOUT:?}: {what}: {}", self.stderr_at_end());
            pause();
        }
    }

    /// Kills both: their standard error.
    fn stderr_at_end(&mut self) -> String {
        self.kill();
        let mut stderr = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        stderr
    }

    fn kill(&mut self) {
        if let Some(pid) = evenkeel_of(self.0.id()) {
            kill(pid, Signal::SIGKILL).ok();
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The evenkeel process that strace runs; none once it has ended.
fn evenkeel_of(strace: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).ok()?;
    let pid: i32 = children.split_whitespace().next()?.parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.trim() == "evenkeel").then(|| Pid::from_raw(pid))
}

/// The address families of sockets in the trace that the unit does not allow.
fn denied_families(trace: &str) -> Vec<String> {
    let unit = unit();
    let line = unit.lines().find_map(|line| line.strip_prefix("RestrictAddressFamilies="));
    let allowed: BTreeSet<&str> = line.unwrap().split(' ').collect();
    let used = trace.split("socket(").skip(1).filter_map(|call| call.split(',').next());
    let used: BTreeSet<&str> = used.collect();
    assert!(used.contains("AF_INET"), "{used:?}");
    used.difference(&allowed).map(|family| (*family).to_owned()).collect()
}

/// The name of the system call in a line of the trace: `12 name(...` or `12 <... name resumed>`.
fn system_call(line: &str) -> Option<&str> {
    let (_, call) = line.split_once(' ')?;
    let call = call.trim_start();
    let (name, _) = call
        .strip_prefix("<... ")
        .map_or_else(|| call.split_once('('), |resumed| resumed.split_once(' '))?;
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_').then_some(name)
}

/// The system calls of a group of systemd (`@name`), or the name itself.
fn expand(name: &str) -> Vec<String> {
    if !name.starts_with('@') {
        return vec![name.to_owned()];
    }
    let group = Command::new("systemd-analyze").args(["syscall-filter", name]).output().unwrap();
    let group = text(&group.stdout);
    let members = group.lines().skip(1).map(str::trim);
    members.filter(|line| !line.starts_with('#') && !line.is_empty()).flat_map(expand).collect()
}

/// Runs systemd-analyze on the unit, with the path of the built program.
fn analyze(arguments: &[&str]) -> Output {
    let file = folder(arguments[0]).join("evenkeel.service");
    fs::write(
        &file,
        unit().replace("/usr/bin/evenkeel run", concat!(env!("CARGO_BIN_EXE_evenkeel"), " run")),
    )
    .unwrap();
    Command::new("systemd-analyze").args(arguments).arg(&file).output().unwrap()
}

fn unit() -> String {
    fs::read_to_string(root().join("deploy/evenkeel.service")).unwrap()
}

fn serve(server: &TcpListener) {
    for client in server.incoming() {
        let mut client = client.unwrap();
        client.set_read_timeout(Some(TIMEOUT)).unwrap();
        // A probe connects and sends nothing.
        if client.read(&mut [0; 512]).is_ok_and(|count| count > 0) {
            client.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello").ok();
        }
    }
}

fn get(address: &str, path: &str) -> String {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().unwrap_or_default()
}

/// Between two checks of a condition.
#[expect(clippy::disallowed_methods, reason = "no ring runs in this thread")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Reports a skipped test on standard error, where the test harness does not capture it.
fn skip(test: &str, why: &str) {
    drop(writeln!(io::stderr(), "skipped: {test}: {why}"));
}

/// Whether this machine has `programs`; if not, `test` is reported as skipped.
fn has_programs(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<&str> =
        programs.iter().copied().filter(|program| find(program).is_none()).collect();
    if !missing.is_empty() {
        skip(test, &format!("not installed: {}", missing.join(", ")));
    }
    missing.is_empty()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// An empty directory for one test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("deploy-{name}"));
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// What a program has printed.
fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
