//! The command line: exit codes, help, and what is said before anything runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

const COMMANDS: [&str; 13] = [
    "run",
    "check",
    "demo",
    "doctor",
    "status",
    "drain",
    "ready",
    "maint",
    "weight",
    "reload",
    "schema",
    "completions",
    "man",
];

fn evenkeel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(error))
}

#[test]
fn the_help_of_each_command_has_an_example() {
    for command in COMMANDS {
        let output = evenkeel(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        let example = format!("Example: evenkeel {command}");
        assert!(said(&output).contains(&example), "{command}: {}", said(&output));
    }
}

#[test]
fn wrong_usage_exits_with_64() {
    let wrong: [&[&str]; 14] = [
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
        &["status", "-c", "x", "--control", "y"],
        &["completions", "dos"],
    ];
    for arguments in wrong {
        let output = evenkeel(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn every_problem_of_the_arguments_is_told() {
    let arguments = ["run", "--bind", "*:80", "--bind", "[::]:0", "--server", "web_1:80"];
    let output = evenkeel(&arguments);
    let expected = "--bind \"*:80\": no IP address before the port; write \"0.0.0.0:80\" for all \
                    IPv4 addresses, \"[::]:80\" for IPv6\n\
                    --bind \"[::]:0\": \"0\" is not a port; write 1 to 65535\n\
                    --server \"web_1:80\": not a host name; a host name has letters, digits, \
                    hyphens and dots (RFC 1123)\n";
    assert_eq!(said(&output), expected);
}

#[test]
fn a_weight_that_is_none_is_answered_with_one() {
    for (wrong, remedy) in [("50%", "write 50"), ("1001", "0 to 1000"), ("x", "0 to 1000")] {
        let output = evenkeel(&["weight", "web/web1", wrong]);
        assert_eq!(output.status.code(), Some(64));
        assert!(said(&output).contains(remedy), "{wrong}: {}", said(&output));
    }
}

#[test]
fn a_file_is_found_by_haproxys_letter_too_and_without_any_it_is_said_how() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/valid/every-form.toml");
    let output = evenkeel(&["check", "-f", file]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let output = evenkeel(&["check", file]);
    assert_eq!(output.status.code(), Some(64));
    assert!(said(&output).contains(&format!("given as '-c {file}'")), "{}", said(&output));
    let output = evenkeel(&["drain", "web/web1", "web/web2"]);
    assert!(!said(&output).contains("-c"), "{}", said(&output));
}

#[test]
fn a_file_without_a_command_is_answered_with_the_command() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/valid/every-form.toml");
    let tries: [&[&str]; 4] = [&["-f", file], &["-c", file], &["--config", file], &[file]];
    for arguments in tries {
        let output = evenkeel(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let tip = format!("'evenkeel run -f {file}'");
        assert!(said(&output).contains(&tip), "{arguments:?}: {}", said(&output));
    }
    let output = evenkeel(&["demo", "-f", file]);
    assert!(!said(&output).contains("evenkeel run"), "{}", said(&output));
}

#[test]
fn a_socket_that_is_turned_off_is_said_to_be() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/valid/every-form.toml");
    let output = evenkeel(&["status", "-c", file]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("observe.control = false"), "{}", said(&output));
}

#[test]
fn orders_say_that_they_are_for_every_address_of_a_server() {
    for command in ["drain", "ready", "maint", "weight"] {
        let output = evenkeel(&[command, "--help"]);
        assert!(said(&output).contains("every address of it"), "{}", said(&output));
    }
}

#[test]
fn completions_and_the_manual_know_every_command() {
    for arguments in [["completions", "bash"], ["completions", "zsh"], ["completions", "fish"]] {
        let output = evenkeel(&arguments);
        assert_eq!(output.status.code(), Some(0));
        for command in COMMANDS {
            assert!(said(&output).contains(command), "{arguments:?}: {command}");
        }
    }
    let manual = evenkeel(&["man"]);
    assert_eq!(manual.status.code(), Some(0));
    for command in COMMANDS {
        assert!(said(&manual).contains(&format!("evenkeel\\-{command}(1)")), "{command}");
    }
}
