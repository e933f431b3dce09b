//! The command line: exit codes, help, and error messages.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

const COMMANDS: [&str; 18] = [
    "run",
    "check",
    "demo",
    "doctor",
    "convert",
    "status",
    "sessions",
    "kill",
    "explain",
    "drain",
    "ready",
    "maint",
    "weight",
    "reload",
    "upgrade",
    "schema",
    "completions",
    "man",
];

fn evenkeel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(arguments).output().unwrap()
}

/// Standard output, followed by standard error.
fn printed(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(error))
}

#[test]
fn the_help_of_each_command_has_an_example() {
    for command in COMMANDS {
        let output = evenkeel(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        let example = format!("Example: evenkeel {command}");
        assert!(printed(&output).contains(&example), "{command}: {}", printed(&output));
    }
}

#[test]
fn wrong_usage_exits_with_64() {
    let invalid: [&[&str]; 16] = [
        &[],
        &["rnu"],
        &["run", "--bind", "127.0.0.1:8080"],
        &["run", "--server", "127.0.0.1:8080"],
        &["run", "-c", "x", "--bind", "127.0.0.1:8080", "--server", "127.0.0.1:9001"],
        &["run", "--bind", "127.0.0.1:0", "--server", "127.0.0.1:9001"],
        &["check", "-c"],
        &["check", "-c", "/nowhere/at/all.toml"],
        &["drain"],
        &["drain", "web"],
        &["drain", "/web1"],
        &["weight", "web/web1", "1001"],
        &["explain"],
        &["explain", "http", "no-address"],
        &["status", "-c", "x", "--control", "y"],
        &["completions", "dos"],
    ];
    for arguments in invalid {
        let output = evenkeel(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", printed(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}: {}", printed(&output));
    }
}

#[test]
fn every_problem_of_the_arguments_is_reported() {
    let arguments = ["run", "--bind", "*:80", "--bind", "[::]:0", "--server", "web+1:80"];
    let output = evenkeel(&arguments);
    let expected = "--bind \"*:80\": no IP address before the port; write \"0.0.0.0:80\" for all \
                    IPv4 addresses, \"[::]:80\" for IPv6\n\
                    --bind \"[::]:0\": \"0\" is not a port; write 1 to 65535\n\
                    --server \"web+1:80\": not a host name; a host name has letters, digits, \
                    hyphens and dots (RFC 1123)\n";
    assert_eq!(printed(&output), expected);
}

#[test]
fn an_invalid_weight_is_refused_with_a_remedy() {
    for (weight, remedy) in [("50%", "write 50"), ("1001", "0 to 1000"), ("x", "0 to 1000")] {
        let output = evenkeel(&["weight", "web/web1", weight]);
        assert_eq!(output.status.code(), Some(64));
        assert!(printed(&output).contains(remedy), "{weight}: {}", printed(&output));
    }
}

#[test]
fn a_file_may_be_given_with_f_and_a_bare_file_name_is_refused_with_the_option() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/valid/every-form.toml");
    let output = evenkeel(&["check", "-f", file]);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    let output = evenkeel(&["check", file]);
    assert_eq!(output.status.code(), Some(64));
    assert!(
        printed(&output).contains(&format!("give the configuration file with '-c {file}'")),
        "{}",
        printed(&output)
    );
    let output = evenkeel(&["drain", "web/web1", "web/web2"]);
    assert!(!printed(&output).contains("-c"), "{}", printed(&output));
}

#[test]
fn a_file_without_a_command_is_refused_with_the_command() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/valid/every-form.toml");
    let cases: [&[&str]; 4] = [&["-f", file], &["-c", file], &["--config", file], &[file]];
    for arguments in cases {
        let output = evenkeel(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let tip = format!("'evenkeel run -c {file}'");
        assert!(printed(&output).contains(&tip), "{arguments:?}: {}", printed(&output));
    }
    let output = evenkeel(&["-c", "-f", file]);
    let tip = format!("'evenkeel check -c {file}'");
    assert!(printed(&output).contains(&tip), "as haproxy -c -f FILE: {}", printed(&output));
    let output = evenkeel(&["demo", "-f", file]);
    assert!(!printed(&output).contains("evenkeel run"), "{}", printed(&output));
}

#[test]
fn a_control_socket_that_is_turned_off_is_named_in_the_error() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/valid/every-form.toml");
    let output = evenkeel(&["status", "-c", file]);
    assert_eq!(output.status.code(), Some(1));
    assert!(printed(&output).contains("observe.control = false"), "{}", printed(&output));
}

#[test]
fn the_help_of_server_commands_says_that_they_apply_to_every_address() {
    for command in ["drain", "ready", "maint", "weight"] {
        let output = evenkeel(&[command, "--help"]);
        assert!(printed(&output).contains("every address of it"), "{}", printed(&output));
    }
}

#[test]
fn completions_and_the_manual_contain_every_command() {
    for arguments in [["completions", "bash"], ["completions", "zsh"], ["completions", "fish"]] {
        let output = evenkeel(&arguments);
        assert_eq!(output.status.code(), Some(0));
        for command in COMMANDS {
            assert!(printed(&output).contains(command), "{arguments:?}: {command}");
        }
    }
    let manual = evenkeel(&["man"]);
    assert_eq!(manual.status.code(), Some(0));
    for command in COMMANDS {
        assert!(printed(&manual).contains(&format!("evenkeel\\-{command}(1)")), "{command}");
    }
}

#[test]
fn the_manual_has_the_sections_that_operators_look_for() {
    let manual = printed(&evenkeel(&["man"]));
    let titles: Vec<&str> = manual.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
    for title in ["\"EXIT STATUS\"", "ENVIRONMENT", "FILES", "SIGNALS", "EXAMPLES"] {
        assert!(titles.contains(&title), "{title}: {titles:?}");
    }
    assert!(!titles.contains(&"EXTRA") && !manual.contains("Example: "), "{manual}");
    for word in ["64", "RUST_LOG", "/etc/evenkeel/evenkeel.toml", "SIGUSR2"] {
        assert!(manual.contains(&format!(".TP\n\\fB{}", word.replace('-', "\\-"))), "{word}");
    }
}

#[test]
fn a_manual_that_cannot_be_written_names_the_remedy() {
    let folder = std::env::temp_dir().join(format!("evenkeel-man-{}", std::process::id()));
    let missing = folder.join("man1");
    let output = evenkeel(&["man", "--dir", missing.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    let remedy = format!("create the directory: mkdir -p {}", missing.display());
    assert!(printed(&output).contains(&remedy), "{}", printed(&output));
    std::fs::create_dir_all(&missing).unwrap();
    let output = evenkeel(&["man", "--dir", missing.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    let explain = std::fs::read_to_string(missing.join("evenkeel-explain.1")).unwrap();
    assert!(explain.contains(".SH EXAMPLES\nevenkeel explain http"), "{explain}");
    assert!(missing.join("evenkeel.1").exists() && !missing.join("evenkeel-help.1").exists());
    std::fs::remove_dir_all(&folder).unwrap();
}
