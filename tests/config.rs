//! What `evenkeel check` says of configurations, good and bad, and what the examples promise.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use evenkeel::control::config::{Check, Config, Place};
use evenkeel::control::file;

const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");
const REFUSED: Option<i32> = Some(64);

#[test]
fn every_refused_configuration_says_what_is_wrong_and_what_to_do() {
    let mut wrong = Vec::new();
    let cases = toml_files("tests/config/invalid");
    assert!(cases.len() >= 45, "{} cases", cases.len());
    for case in cases {
        let output = check_in(case.parent().unwrap(), case.file_name().unwrap());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), REFUSED, "{}: {said}", case.display());
        assert!(output.stdout.is_empty(), "{}", case.display());
        let place = format!("{}:", case.file_name().unwrap().to_str().unwrap());
        for line in said.lines() {
            assert!(line.starts_with(&place) && line.contains("; "), "no place or remedy: {line}");
        }
        // After a message was reworded: EVENKEEL_BLESS=1 cargo test, and read the difference.
        let file = case.with_extension("expected");
        if std::env::var_os("EVENKEEL_BLESS").is_some() {
            fs::write(&file, &said).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{}\nexpected:\n{expected}said:\n{said}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_valid_configuration_is_accepted() {
    for case in [toml_files("tests/config/valid"), toml_files("deploy")].concat() {
        let output = check_in(case.parent().unwrap(), case.file_name().unwrap());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}: {said}", case.display());
        assert!(said.is_empty(), "{}: {said}", case.display());
    }
}

#[test]
fn what_is_no_file_of_text_is_refused_in_bounded_time() {
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
    fs::write(folder.path("long"), "# a\n".repeat(1 << 20)).unwrap();
    let cases = [
        ("directory", "directory: is a directory; name the file in it"),
        ("fifo", "fifo: is not a regular file; name a file, not a pipe or a device"),
        ("device", "device: is not a regular file; name a file, not a pipe or a device"),
        ("dangling", "dangling: cannot be read (No such file or directory"),
        ("missing", "missing: cannot be read (No such file or directory"),
        ("empty", "empty:1:1: the file is empty; add [frontend.NAME] with bind and backend"),
        ("blank", "blank:1:1: the file is empty; add [frontend.NAME] with bind and backend"),
        ("latin1", "latin1:1:6: byte 0xe9 is no text; save the file as UTF-8"),
        ("utf16", "utf16:1:1: byte 0xff is no text; save the file as UTF-8"),
        ("nul", "nul:2:12: byte 0x00 is no text; save the file as UTF-8"),
        ("long", "long: is longer than 2 MiB; is it the right file?"),
    ];
    for (name, expected) in cases {
        let output = check_in(&folder.0, OsStr::new(name));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), REFUSED, "{name}: {said}");
        assert!(said.starts_with(expected), "{name}: {said}");
        assert_eq!(said.lines().count(), 1, "{name}: {said}");
    }
}

#[test]
fn a_mebibyte_of_nesting_is_refused_with_few_words() {
    let folder = Folder::new("nesting");
    let mebibyte = 1 << 20;
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
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), REFUSED, "{said}");
        assert!(said.starts_with("nested:1:"), "{said}");
        assert!(said.len() < 16_384, "{} bytes", said.len());
    }
}

#[test]
fn a_file_that_may_not_be_read_says_so() {
    let folder = Folder::new("unreadable");
    fs::write(folder.path("secret"), "[global]\n").unwrap();
    fs::set_permissions(folder.path("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = Command::new(EVENKEEL);
    if nix::unistd::geteuid().is_root() {
        // Root may read everything: be nobody, with a copy of the program that nobody can reach.
        // Copied by another process: a child that some other test starts meanwhile would have our
        // copy open, and it could not run.
        let copied = Command::new("cp").arg(EVENKEEL).arg(folder.path("evenkeel")).status();
        assert!(copied.unwrap().success());
        command = Command::new(folder.path("evenkeel"));
        command.uid(65_534).gid(65_534);
    }
    let output = command.args(["check", "-c", "secret"]).current_dir(&folder.0).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), REFUSED, "{said}");
    assert!(said.starts_with("secret: cannot be read (Permission denied"), "{said}");
    assert!(said.contains("; make it readable for the user that evenkeel runs as"), "{said}");
}

#[test]
fn the_example_names_every_key_and_no_other() {
    let example = read("deploy/evenkeel.example.toml");
    let mut written = BTreeSet::new();
    let mut section = String::new();
    for line in example.lines().filter_map(setting) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_matches(['[', ']']);
            section = header.replace("frontend.http", "frontend.NAME").replace(".web", ".NAME");
        } else {
            written.insert(format!("{section}.{}", line.split(" = ").next().unwrap()));
        }
    }
    let sections: Vec<&str> = file::KEYS.iter().map(|keys| keys.section).collect();
    let mut known = BTreeSet::new();
    for keys in file::KEYS.iter().filter(|keys| !keys.section.is_empty()) {
        for key in keys.known.iter().map(|key| format!("{}.{key}", keys.section)) {
            if !sections.contains(&key.as_str()) {
                known.insert(key);
            }
        }
    }
    assert_eq!(written, known);
}

#[test]
fn the_example_shows_the_defaults() {
    let example = file::load(&root().join("deploy/evenkeel.example.toml")).unwrap();
    let least = "[frontend.http]\nbind = [\"0.0.0.0:80\", \"[::]:80\"]\nbackend = \"web\"\n\
                 [[backend.web.server]]\nname = \"web1\"\naddress = \"192.0.2.1:80\"\n";
    let least = file::parse(least, "least").unwrap();
    assert_eq!(without_places(example), without_places(least));
}

#[test]
fn the_commented_keys_of_the_example_work_too() {
    let example = read("deploy/evenkeel.example.toml");
    let line = |line| setting(line).unwrap_or_default().replace("\"tcp\"", "\"http\"");
    let everything: Vec<String> = example.lines().map(line).collect();
    let config = file::parse(&everything.join("\n"), "example").unwrap();
    let Check::Http(http) = &config.backends[0].health.check else { panic!("not http") };
    assert_eq!((http.method.as_str(), http.path.as_str(), http.status), ("GET", "/", (200, 399)));
    assert!(http.host.is_some() && config.backends[0].health.port.is_some());
    assert!(config.global.user.is_some() && config.global.group.is_some());
    assert!(config.frontends[0].sessions_max.is_some());
    assert!(config.backends[0].servers[0].sessions_max.is_some());
}

#[test]
fn the_cluster_of_the_example_is_the_one_that_it_replaces() {
    let config = file::load(&root().join("deploy/raspberry-pi-cluster.toml")).unwrap();
    let binds = config.frontends[0].bind.iter().map(|(address, _)| address.to_string());
    assert_eq!(binds.collect::<Vec<_>>(), ["0.0.0.0:80", "[::]:80"]);
    let names = config.backends[0].servers.iter().map(|server| server.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["web1", "web2"]);
    assert!(matches!(config.backends[0].health.check, Check::Http(_)));
}

#[test]
fn a_hundred_thousand_mistakes_are_told_in_bounded_time() {
    let folder = Folder::new("mistakes");
    let binds = "\"0.0.0.0:80\",".repeat(140_000);
    let names = (0..20_000).map(|n| {
        format!("[frontend.f{n}]\nbackend = \"g{n}\"\n[backend.b{n}]\nserver = [\"é{n}\"]\n")
    });
    let cases = [
        format!("frontend = {{ f = {{ bind = [{binds}], backend = \"b\" }} }}"),
        names.collect(),
        (0..60_000).map(|n| format!("unknown_{n} = \"ééééé\"\n")).collect(),
        format!("frontend = {{ {} }}", "a.b = 1, \"é\".c = 2, ".repeat(80_000)),
        "= 1\nx = 1\n".repeat(20_000),
    ];
    for text in cases {
        assert!(text.len() <= 2 << 20, "{} bytes", text.len());
        fs::write(folder.path("mistakes"), &text).unwrap();
        let output = check_in(&folder.0, OsStr::new("mistakes"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), REFUSED, "{said}");
        assert!(said.lines().count() <= 101, "{} lines", said.lines().count());
    }
}

/// Runs `evenkeel check -c file` in `folder`; fails when it takes longer than 30 s.
fn check_in(folder: &Path, file: &OsStr) -> Output {
    let child = Command::new(EVENKEEL)
        .args([OsStr::new("check"), OsStr::new("-c"), file])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (done, wait) = mpsc::channel();
    let reader = std::thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = wait.recv_timeout(Duration::from_secs(30)) else {
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        panic!("{}: no answer in 30 s", file.display());
    };
    reader.join().unwrap().unwrap();
    output.unwrap()
}

/// A line of the example that sets something, commented or not, without the comment mark.
fn setting(line: &str) -> Option<&str> {
    let line = line.strip_prefix("# ").unwrap_or(line);
    let key = line.split(" = ").next().filter(|key| *key != line);
    let is_key = |key: &str| key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    (line.starts_with('[') || key.is_some_and(is_key)).then_some(line)
}

fn without_places(mut config: Config) -> Config {
    let none = Place::default();
    config.file = None;
    config.observe.bind.iter_mut().for_each(|(_, place)| *place = none);
    config.observe.control.iter_mut().for_each(|(_, place)| *place = none);
    for frontend in &mut config.frontends {
        frontend.place = none;
        frontend.bind.iter_mut().for_each(|(_, place)| *place = none);
    }
    for backend in &mut config.backends {
        backend.place = none;
        backend.servers.iter_mut().for_each(|server| server.place = none);
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

/// A folder of one test, that every user may enter; gone at its end.
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
