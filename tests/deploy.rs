//! What is deployed: the systemd unit, and the script that builds for the Pi.

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

/// The longest wait for what takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// As systemd states exposure, times ten: 0 is none, 100 all.
const EXPOSURE_MAX: &str = "20";

#[test]
fn systemd_accepts_the_unit() {
    if !there("systemd_accepts_the_unit", &["systemd-analyze"]) {
        return;
    }
    let output = analyze(&["verify", "--man=no"]);
    let complaints = text(&output.stderr);
    // Type=notify-reload came with systemd 253; the unit says Type=notify before it.
    let complaints: Vec<&str> =
        complaints.lines().filter(|line| !line.ends_with("ignoring: notify-reload")).collect();
    assert!(output.status.success() && complaints.is_empty(), "{complaints:?}");
}

#[test]
fn the_unit_is_confined() {
    if !there("the_unit_is_confined", &["systemd-analyze"]) {
        return;
    }
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let output = analyze(&["security", "--offline=true", "--no-pager", &threshold]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn the_units_filter_lets_through_every_system_call_of_a_whole_life() {
    let name = "the_units_filter_lets_through_every_system_call_of_a_whole_life";
    if !there(name, &["systemd-analyze", "strace"]) {
        return;
    }
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).output().unwrap();
    if !tried.status.success() {
        return skip(name, &format!("strace may not trace: {}", text(&tried.stderr).trim()));
    }
    let folder = folder("life");
    let [frontend, server, page] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [frontend_at, server_at, page_at] =
        [&frontend, &server, &page].map(|socket| socket.local_addr().unwrap());
    drop((frontend, page));
    let config = folder.join("evenkeel.toml");
    let written = format!(
        "[global]\ndrain_timeout = \"1s\"\n[observe]\nbind = \"{page_at}\"\ncontrol = {:?}\n\
         [frontend.f]\nbind = [\"{frontend_at}\"]\nbackend = \"b\"\n[backend.b]\n\
         [[backend.b.server]]\nname = \"s\"\naddress = \"{server_at}\"\n\
         [[backend.b.server]]\nname = \"localhost\"\naddress = \"localhost:{}\"\n",
        folder.join("control.sock"),
        server_at.port()
    );
    fs::write(&config, written).unwrap();
    let trace = folder.join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&trace);
    strace.args([env!("CARGO_BIN_EXE_evenkeel"), "run", "-c"]).arg(&config);
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut life = Life(strace.spawn().unwrap());

    std::thread::spawn(move || serve(&server));
    life.until("it serves", || get(&page_at.to_string(), "/readyz").contains("200"));
    life.until("it relays", || get(&frontend_at.to_string(), "/").contains("hello"));
    let pid = evenkeel_of(life.0.id()).unwrap();
    kill(pid, Signal::SIGHUP).unwrap();
    life.until("it has reloaded", || {
        let order = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .args(["reload", "-c"])
            .arg(&config)
            .output()
            .unwrap();
        order.status.success()
    });
    assert!(get(&page_at.to_string(), "/metrics").contains("200"));
    kill(pid, Signal::SIGTERM).unwrap();
    let strace = life.0.id();
    life.until("it has ended", || evenkeel_of(strace).is_none());
    let status = life.0.wait().unwrap();
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
fn systemd_waits_longer_than_a_drain_and_starts_what_the_program_reads() {
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
    assert!(text(&help.unwrap().stdout).contains(file), "{file} is not where run looks");
    assert!(example.contains("\"/run/evenkeel/") && unit.contains("\nRuntimeDirectory=evenkeel\n"));
}

#[test]
fn the_lines_of_the_readme_install_what_the_unit_names_and_what_packages_have() {
    let (folder, readme) = (folder("install"), fs::read_to_string(root().join("README.md")));
    let (prefix, readme) = (folder.join("system"), readme.unwrap());
    let (_, rest) = readme.split_once("For a service, as root").unwrap();
    let (_, rest) = rest.split_once("\n\n").unwrap();
    let (block, _) = rest.split_once("\n\n").unwrap();
    // Checking and starting are for the machine that it is installed on.
    let lines = block.lines().map(str::trim);
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("evenkeel check")).collect();
    let script =
        lines.join("\n").replace(" /usr/", " $PREFIX/usr/").replace(" /etc/", " $PREFIX/etc/");
    let script = script.replace("target/release/evenkeel", env!("CARGO_BIN_EXE_evenkeel"));
    for there in ["usr/bin", "etc/systemd/system"] {
        fs::create_dir_all(prefix.join(there)).unwrap();
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
fn the_script_for_the_pi_says_what_is_missing() {
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

/// strace and the program below it; both end with the test.
struct Life(Child);

impl Life {
    fn until(&mut self, what: &str, so: impl Fn() -> bool) {
        let start = Instant::now();
        while !so() {
            let lives = start.elapsed() < PATIENCE && self.0.try_wait().unwrap().is_none();
            assert!(lives, "not so: {what}: {}", self.write_final());
            wait_a_moment();
        }
    }

    fn write_final(&mut self) -> String {
        self.end();
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }

    fn end(&mut self) {
        if let Some(pid) = evenkeel_of(self.0.id()) {
            kill(pid, Signal::SIGKILL).ok();
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.end();
    }
}

/// The program that strace runs, as long as it is not a zombie.
fn evenkeel_of(strace: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).ok()?;
    let pid: i32 = children.split_whitespace().next()?.parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.trim() == "evenkeel").then(|| Pid::from_raw(pid))
}

/// The families of sockets that were made, and that the unit does not name.
fn denied_families(trace: &str) -> Vec<String> {
    let unit = unit();
    let line = unit.lines().find_map(|line| line.strip_prefix("RestrictAddressFamilies="));
    let named: BTreeSet<&str> = line.unwrap().split(' ').collect();
    let made = trace.split("socket(").skip(1).filter_map(|call| call.split(',').next());
    let made: BTreeSet<&str> = made.collect();
    assert!(made.contains("AF_INET"), "{made:?}");
    made.difference(&named).map(|family| (*family).to_owned()).collect()
}

/// `12 name(...` or `12 <... name resumed>`.
fn system_call(line: &str) -> Option<&str> {
    let (_, call) = line.split_once(' ')?;
    let call = call.trim_start();
    let (name, _) = call
        .strip_prefix("<... ")
        .map_or_else(|| call.split_once('('), |resumed| resumed.split_once(' '))?;
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_').then_some(name)
}

/// The system calls of a group of systemd's.
fn expand(name: &str) -> Vec<String> {
    if !name.starts_with('@') {
        return vec![name.to_owned()];
    }
    let group = Command::new("systemd-analyze").args(["syscall-filter", name]).output().unwrap();
    let group = text(&group.stdout);
    let members = group.lines().skip(1).map(str::trim);
    members.filter(|line| !line.starts_with('#') && !line.is_empty()).flat_map(expand).collect()
}

/// systemd-analyze on the unit, with the program where it was built.
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
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        // A probe connects and says nothing.
        if client.read(&mut [0; 512]).is_ok_and(|count| count > 0) {
            client.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello").ok();
        }
    }
}

fn get(address: &str, path: &str) -> String {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "between two looks, not instead of one")]
fn wait_a_moment() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Says it where the test harness does not hide it.
fn skip(test: &str, why: &str) {
    drop(writeln!(io::stderr(), "skipped: {test}: {why}"));
}

/// Whether this machine has `programs`; if not, the test is skipped.
fn there(test: &str, programs: &[&str]) -> bool {
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

/// An empty folder for one test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("deploy-{name}"));
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
