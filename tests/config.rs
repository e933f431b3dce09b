//! `evenkeel check` and `evenkeel schema`: valid and invalid configurations, and the example.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "config/schema.rs"]
mod schema;

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use evenkeel::config::{self, Check, Config, Span};
use serde_json::Value;

const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");
const INVALID: Option<i32> = Some(64);

#[test]
fn every_invalid_configuration_is_refused_with_problem_and_remedy() {
    let mut different = Vec::new();
    let cases = toml_files("tests/config/invalid");
    assert!(cases.len() >= 85, "{} cases", cases.len());
    for case in cases {
        let output = check_in(case.parent().unwrap(), case.file_name().unwrap());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), INVALID, "{}: {stderr}", case.display());
        assert!(output.stdout.is_empty(), "{}", case.display());
        let file_name = format!("{}:", case.file_name().unwrap().to_str().unwrap());
        for line in stderr.lines() {
            let complete = line.starts_with(&file_name) && line.contains("; ");
            assert!(complete, "no file name or no remedy: {line}");
        }
        // After a change of a message: EVENKEEL_BLESS=1 cargo test, and review the difference.
        let file = case.with_extension("expected");
        if std::env::var_os("EVENKEEL_BLESS").is_some() {
            fs::write(&file, &stderr).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if stderr != expected {
            different.push(format!("{}\nexpected:\n{expected}actual:\n{stderr}", case.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn every_valid_configuration_is_accepted() {
    for case in [toml_files("tests/config/valid"), toml_files("deploy")].concat() {
        let output = check_in(case.parent().unwrap(), case.file_name().unwrap());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}: {stderr}", case.display());
        assert!(stderr.lines().all(is_warning), "{}: {stderr}", case.display());
    }
}

#[test]
fn the_names_that_supply_servers_are_counted_too() {
    let name = "unix-sockets-with-headers-and-srv.toml";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/valid");
    let output = check_in(&folder, OsStr::new(name));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("{name}: valid: 1 frontend, 1 backend, 1 server and 1 SRV name\n"));
}

#[test]
fn what_this_machine_lacks_is_a_warning() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _taken = TcpListener::bind(taken).unwrap();
    let folder = Folder::new("lookups");
    let text = format!(
        "[global]\nuser = \"no-such-user\"\ngroup = \"no-such-group\"\n[observe]\nbind = false\n\
         [frontend.f]\nbind = [\"{taken}\", \"192.0.2.1:8080\"]\nbackend = \"b\"\n\
         [[backend.b.server]]\nname = \"s\"\naddress = \"no-such-host.invalid:80\"\n"
    );
    fs::write(folder.path("x.toml"), text).unwrap();
    let output = check_in(&folder.0, OsStr::new("x.toml"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.lines().all(is_warning), "{stderr}");
    let expected = [
        ("x.toml:7:9: ", "in use"),
        ("x.toml:7:", "192.0.2.1:8080 is not an address of this machine"),
        ("x.toml:2:8: ", "no user \"no-such-user\""),
        ("x.toml:3:9: ", "no group \"no-such-group\""),
        ("x.toml:9:1: ", "no-such-host.invalid has no address"),
    ];
    assert_eq!(stderr.lines().count(), expected.len(), "{stderr}");
    let mut doctor = Command::new(EVENKEEL);
    let doctor = doctor.args(["doctor", "-c", "x.toml"]).current_dir(&folder.0).output().unwrap();
    assert_eq!(doctor.status.code(), Some(1), "run would not start");
    let doctor = String::from_utf8(doctor.stdout).unwrap();
    for (position, text) in expected {
        let reports = |line: &&str| line.starts_with(position) && line.contains(text);
        let Some(line) = stderr.lines().find(reports) else {
            panic!("{position} {text} in {stderr}")
        };
        let verdict = if line.contains("would not start") { "failed " } else { "warning " };
        let warns = |line: &str| line.starts_with(verdict) && line.contains(text);
        assert!(doctor.lines().any(warns), "{verdict}{text} in {doctor}");
    }
}

#[test]
fn names_that_lead_back_to_their_own_backend_are_warned_about_and_a_chain_is_not() {
    let folder = Folder::new("chains");
    // Ports of their own, so that `check` can bind them.
    let listen = |_| TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = [1, 2].map(listen);
    let [one, two] = listeners.map(|listener| listener.local_addr().unwrap());
    let check = |last: &str| {
        let text = format!(
            "observe.bind = false\n\
             [frontend.f1]\nbind = [\"{one}\"]\nbackend = \"b1\"\n\
             [frontend.f2]\nbind = [\"{two}\"]\nbackend = \"b2\"\n\
             [[backend.b1.server]]\nname = \"s1\"\naddress = \"localhost:{}\"\n\
             [[backend.b2.server]]\nname = \"s2\"\naddress = \"{last}\"\n",
            two.port()
        );
        fs::write(folder.path("x.toml"), text).unwrap();
        let output = check_in(&folder.0, OsStr::new("x.toml"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        said
    };
    let said = check("192.0.2.1:80");
    assert!(!said.contains("leads back"), "{said}");
    for last in [format!("localhost:{}", one.port()), one.to_string()] {
        let said = check(&last);
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("leads back")).collect();
        // A number comes before a name, and of two names the first one of the file.
        let (place, frontend, backend) = if last.starts_with("localhost") {
            ("x.toml:11:1: ", format!("{one} is frontend f1"), "backend b2")
        } else {
            ("x.toml:8:1: ", format!("{two} is frontend f2"), "backend b1")
        };
        assert!(lines.len() == 1 && lines.iter().all(|line| is_warning(line)), "{said}");
        assert!(lines[0].starts_with(place) && lines[0].contains(&frontend), "{said}");
        assert!(lines[0].contains(backend), "{said}");
    }
}

#[test]
fn a_file_that_is_not_text_is_refused_in_bounded_time() {
    let folder = Folder::new("no-text");
    fs::create_dir(folder.path("directory")).unwrap();
    nix::unistd::mkfifo(&folder.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path("device")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path("dangling")).unwrap();
    fs::write(folder.path("empty"), "").unwrap();
    fs::write(folder.path("blank"), "\n# nothing\n").unwrap();
    fs::write(folder.path("latin1"), b"# caf\xe9\n").unwrap();
    fs::write(folder.path("utf16"), b"\xff\xfe[\0g\0]\0").unwrap();
    fs::write(folder.path("nul"), "[global]\nworkers = 1\0\n").unwrap();
    fs::write(folder.path("long"), "#\n".repeat(1 << 19) + "#").unwrap();
    let cases = [
        ("directory", "directory: is a directory; name the file in it"),
        ("fifo", "fifo: is not a regular file; name a file, not a pipe or a device"),
        ("device", "device: is not a regular file; name a file, not a pipe or a device"),
        ("dangling", "dangling: cannot be read (No such file or directory"),
        ("missing", "missing: cannot be read (No such file or directory"),
        ("empty", "empty:1:1: the file is empty; add [frontend.NAME] with bind and backend"),
        ("blank", "blank:1:1: the file is empty; add [frontend.NAME] with bind and backend"),
        ("latin1", "latin1:1:6: byte 0xe9 is not text; save the file as UTF-8"),
        ("utf16", "utf16:1:1: byte 0xff is not text; save the file as UTF-8"),
        ("nul", "nul:2:12: byte 0x00 is not text; save the file as UTF-8"),
        ("long", "long: is longer than 1 MiB; is it the right file?"),
    ];
    for (name, expected) in cases {
        let output = check_in(&folder.0, OsStr::new(name));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), INVALID, "{name}: {stderr}");
        assert!(stderr.starts_with(expected), "{name}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{name}: {stderr}");
    }
}

#[test]
fn a_mebibyte_of_nesting_is_refused_with_a_short_message() {
    let folder = Folder::new("nesting");
    let mebibyte = (1 << 20) - 16;
    let cases = [
        "[".repeat(mebibyte),
        format!("a = {}", "[".repeat(mebibyte)),
        format!("a = {}", "{a=".repeat(mebibyte / 3)),
        format!("[a{}]", ".a".repeat(mebibyte / 2)),
        "[\n".repeat(mebibyte / 2),
        "=".repeat(mebibyte),
        "\"\n".repeat(100_000),
    ];
    for text in cases {
        fs::write(folder.path("nested"), &text).unwrap();
        let output = check_in(&folder.0, OsStr::new("nested"));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), INVALID, "{stderr}");
        assert!(stderr.starts_with("nested:1:"), "{stderr}");
        assert!(stderr.len() < 16_384, "{} bytes", stderr.len());
    }
}

#[test]
fn a_file_without_read_permission_is_refused() {
    let folder = Folder::new("unreadable");
    fs::write(folder.path("secret"), "[global]\n").unwrap();
    fs::set_permissions(folder.path("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = Command::new(EVENKEEL);
    if nix::unistd::geteuid().is_root() {
        // Root may read every file: run as the user nobody, with a copy of the program in a
        // directory that this user may enter. Another process copies it: a child of a concurrent
        // test would inherit our descriptor that is open for writing, and then the copy cannot be
        // executed (ETXTBSY).
        let copied = Command::new("cp").arg(EVENKEEL).arg(folder.path("evenkeel")).status();
        assert!(copied.unwrap().success());
        command = Command::new(folder.path("evenkeel"));
        command.uid(65_534).gid(65_534);
    }
    let output = command.args(["check", "-c", "secret"]).current_dir(&folder.0).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), INVALID, "{stderr}");
    assert!(stderr.starts_with("secret: cannot be read (Permission denied"), "{stderr}");
    assert!(stderr.contains("; make it readable for the user that evenkeel runs as"), "{stderr}");
}

#[test]
fn the_example_and_the_reference_in_the_repository_are_the_generated_ones() {
    let files =
        [("--example", "deploy/evenkeel.example.toml"), ("--reference", "docs/configuration.md")];
    for (option, file) in files {
        let output = Command::new(EVENKEEL).args(["schema", option]).output().unwrap();
        let generated = String::from_utf8(output.stdout).unwrap();
        let remedy = format!("after a change of a key: evenkeel schema {option} > {file}");
        assert!(generated == read(file), "{remedy}");
    }
}

#[test]
fn the_example_shows_the_defaults() {
    let example = config::load(&root().join("deploy/evenkeel.example.toml")).unwrap();
    let minimal = "[frontend.http]\nbind = [\"0.0.0.0:80\", \"[::]:80\"]\nbackend = \"web\"\n\
                 [[backend.web.server]]\nname = \"web1\"\naddress = \"192.0.2.1:80\"\n";
    let minimal = config::parse(minimal, "minimal").unwrap();
    assert_eq!(without_spans(example), without_spans(minimal));
}

#[test]
fn the_commented_keys_of_the_example_are_valid() {
    let example = uncommented_example("exchange");
    let config = config::parse(&example, "example").unwrap();
    let health = &config.backends[0].health;
    assert_eq!((health.check, health.exchange.0.len()), (Check::Exchange, 1));
    let example = uncommented_example("http");
    let config = config::parse(&example, "example").unwrap();
    let health = &config.backends[0].health;
    assert_eq!(health.check, Check::Http);
    assert!(health.tls.is_some() && health.errors.is_some());
    assert_eq!((health.http.method.as_str(), health.http.path.as_str()), ("GET", "/"));
    assert!(health.http.host.is_some() && health.port.is_some());
    assert!(config.global.user.is_some() && config.global.group.is_some());
    assert!(config.frontends[0].sessions_max.is_some());
    assert!(config.backends[0].servers[0].sessions_max.is_some());
}

#[test]
fn the_schema_accepts_the_examples_and_refuses_mistakes() {
    let output = Command::new(EVENKEEL).arg("schema").output().unwrap();
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let mut valid = vec![uncommented_example("http"), uncommented_example("exchange")];
    for file in [toml_files("tests/config/valid"), toml_files("deploy")].concat() {
        valid.push(fs::read_to_string(file).unwrap().trim_start_matches('\u{feff}').to_owned());
    }
    for text in &valid {
        let mut invalid = Vec::new();
        schema::validate(&schema, &toml::from_str(text).unwrap(), "", &mut invalid);
        assert!(invalid.is_empty(), "{invalid:?} in\n{text}");
    }
    let mistakes = [
        ("retries = 2", "retires = 2", "/backend/web/retires"),
        ("retries = 2", "retries = 101", "/backend/web/retries"),
        ("retries = 2", "retries = \"2\"", "/backend/web/retries"),
        ("connect_timeout = \"3s\"", "connect_timeout = \"3\"", "/backend/web/connect_timeout"),
        ("balance = \"roundrobin\"", "balance = \"dice\"", "/backend/web/balance"),
        ("sessions = \"1000/s\"", "sessions = \"20/day\"", "/frontend/http/rate/sessions"),
        ("status = \"200-399\"", "status = \"2xx\"", "/backend/web/health/http/status"),
        ("workers = \"auto\"", "workers = \"all\"", "/global/workers"),
        ("sni = {}", "sni = { \"a.test\" = 5 }", "/frontend/http/sni/a.test"),
        ("bind = [\"0.0.0.0:80\", \"[::]:80\"]", "bind = []", "/frontend/http/bind"),
    ];
    for (line, mistake, path) in mistakes {
        let text = valid[0].replace(line, mistake);
        assert_ne!(text, valid[0], "{line}");
        let mut invalid = Vec::new();
        schema::validate(&schema, &toml::from_str(&text).unwrap(), "", &mut invalid);
        assert_eq!(invalid, [path], "{mistake}");
    }
}

#[test]
fn the_cluster_configuration_has_the_addresses_and_servers_of_the_replaced_one() {
    let config = config::load(&root().join("deploy/raspberry-pi-cluster.toml")).unwrap();
    let binds = config.frontends[0].bind.iter().map(|(address, _)| address.to_string());
    assert_eq!(binds.collect::<Vec<_>>(), ["0.0.0.0:80", "[::]:80"]);
    let names = config.backends[0].servers.iter().map(|server| server.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["web1", "web2"]);
    assert_eq!(config.backends[0].health.check, Check::Http);
}

#[test]
fn every_file_of_one_mebibyte_is_checked_in_bounded_time() {
    let folder = Folder::new("mistakes");
    let binds = "\"0.0.0.0:80\",".repeat(65_000);
    let names = (0..10_000).map(|n| {
        format!("[frontend.f{n}]\nbackend = \"g{n}\"\n[backend.b{n}]\nserver = [\"é{n}\"]\n")
    });
    let cases = [
        format!("frontend = {{ f = {{ bind = [{binds}], backend = \"b\" }} }}"),
        names.collect(),
        (0..35_000).map(|n| format!("unknown_{n} = \"ééééé\"\n")).collect(),
        format!("frontend = {{ {} }}", "a.b = 1, \"é\".c = 2, ".repeat(40_000)),
        "= 1\nx = 1\n".repeat(20_000),
        "a = 1\n".repeat(160_000),
        "[[backend.web.server]]\nname = \"a\"\n".repeat(20_000),
        "timeout client 30s\n".repeat(50_000),
        // This one once took more than half a minute.
        format!("{}{}", valid_lines(225 * 1024), "a = [1, 2\n".repeat(150)),
    ];
    for text in cases {
        assert!(text.len() <= 1 << 20, "{} bytes", text.len());
        fs::write(folder.path("mistakes"), &text).unwrap();
        let output = check_in(&folder.0, OsStr::new("mistakes"));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), INVALID, "{stderr}");
        assert!(stderr.lines().count() <= 101, "{} lines", stderr.lines().count());
    }
}

fn is_warning(line: &str) -> bool {
    let here = [
        " (looked up on this machine)",
        " (looked up on this machine; here, `evenkeel run` would not start)",
    ];
    line.contains(": warning: ") && here.iter().any(|end| line.ends_with(end))
}

#[test]
fn what_run_refuses_on_this_machine_is_said_by_check_which_accepts_the_file() {
    let folder = Folder::new("here");
    let file = |lines: &str, bind: &str| {
        format!(
            "{lines}\n[frontend.http]\nbind = [\"{bind}\"]\nbackend = \"web\"\n\
             [backend.web.health]\ncheck = \"off\"\n\
             [[backend.web.server]]\nname = \"web1\"\naddress = \"127.0.0.1:9\"\n"
        )
    };
    let quiet = "[observe]\nbind = false\ncontrol = false";
    let range = "127.0.0.1:20000-24095";
    let many = "[global]\nworkers = 2\n";
    let own = folder.path("here").display().to_string();
    // A limit of descriptors that the ports of a range do not fit into.
    let limited = |command: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n 4096 && exec \"$0\" \"$@\"", EVENKEEL, command, "-c", "here"]);
        output_of(shell.current_dir(&folder.0))
    };
    for (text, part) in [
        (file(quiet, "192.0.2.77:8080"), "here:5:9: warning: 192.0.2.77:8080 is not an address"),
        (
            file(&format!("[global]\nsessions_max = 10000000\n{quiet}"), "127.0.0.1:0"),
            "here:2:16: warning: sessions_max = 10000000 needs",
        ),
        (
            file(&format!("[observe]\nbind = false\ncontrol = \"{own}\""), "127.0.0.1:0"),
            "here:3:11: warning: control socket",
        ),
        (file(&format!("{many}{quiet}"), range), "here: warning: the limit of"),
    ] {
        // A port that is free, most likely.
        let text = text.replace("127.0.0.1:0", &free_address());
        fs::write(folder.path("here"), &text).unwrap();
        let output = limited("check");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let line = stderr.lines().find(|line| line.starts_with(part));
        let line = line.unwrap_or_else(|| panic!("{part}: {stderr}"));
        assert!(line.ends_with("here, `evenkeel run` would not start)"), "{line}");
        let run = limited("run");
        assert!(matches!(run.status.code(), Some(1 | 64)), "{part}: {run:?}");
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// At least so many bytes of valid configuration.
fn valid_lines(bytes: usize) -> String {
    let server = |n| format!("[[backend.web.server]]\nname = \"s{n}\"\naddress = \"h{n}:80\"\n");
    let mut text = String::new();
    for n in 0.. {
        if text.len() >= bytes {
            break;
        }
        text += &server(n);
    }
    text
}

/// Runs `evenkeel check -c file` in `folder`.
fn check_in(folder: &Path, file: &OsStr) -> Output {
    let mut command = Command::new(EVENKEEL);
    command.args([OsStr::new("check"), OsStr::new("-c"), file]).current_dir(folder);
    output_of(&mut command)
}

/// What a command prints; fails if it takes longer than 30 s.
fn output_of(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (done, wait) = mpsc::channel();
    let reader = std::thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = wait.recv_timeout(Duration::from_secs(30)) else {
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        panic!("{command:?}: not done in 30 s");
    };
    reader.join().unwrap().unwrap();
    output.unwrap()
}

/// The example with every key uncommented, except those of other health checks than this one.
fn uncommented_example(check: &str) -> String {
    let example = read("deploy/evenkeel.example.toml");
    let mut lines = Vec::new();
    let mut is_of_another_check = false;
    for line in example.lines().filter_map(setting) {
        if line.starts_with('[') {
            let mut others = ["http", "exchange"].into_iter().filter(|other| *other != check);
            is_of_another_check = others.any(|it| line.ends_with(&format!(".health.{it}]")));
        }
        if !is_of_another_check {
            lines.push(line.replace("check = \"tcp\"", &format!("check = \"{check}\"")));
        }
    }
    lines.join("\n")
}

/// A line of the example that sets a key, commented or not, without the comment mark.
fn setting(line: &str) -> Option<&str> {
    let line = line.strip_prefix("# ").unwrap_or(line);
    let key = line.split(" = ").next().filter(|key| *key != line);
    let is_key = |key: &str| key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    (line.starts_with('[') || key.is_some_and(is_key)).then_some(line)
}

fn without_spans(mut config: Config) -> Config {
    let none = Span::default();
    (config.file, config.text) = (None, Arc::default());
    config.observe.bind.iter_mut().for_each(|(_, span)| *span = none);
    config.observe.control.iter_mut().for_each(|(_, span)| *span = none);
    for frontend in config.frontends.iter_mut().map(Arc::make_mut) {
        frontend.span = none;
        frontend.backend.iter_mut().for_each(|(_, span)| *span = none);
        frontend.bind.iter_mut().for_each(|(_, span)| *span = none);
    }
    for backend in config.backends.iter_mut().map(Arc::make_mut) {
        backend.span = none;
        backend.servers.iter_mut().for_each(|server| server.span = none);
    }
    config
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn toml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(!files.is_empty());
    files
}

/// A directory of one test, which every user may enter. Dropping it removes the directory.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = format!("evenkeel-config-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
