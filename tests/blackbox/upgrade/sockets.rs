//! Which sockets pass to a new process, and which do not.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::common::client::fetch;
use crate::common::wait::holds_for;

#[test]
fn more_sockets_than_one_message_holds_are_passed() {
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    let range =
        format!("[frontend.range]\nbind = [\"{}-8400\"]\nbackend = \"web\"", env.port(8101));
    let config = Config::new(&env).server("a", server.address).workers(2).more(&range);
    let mut chain = Chain::start(&env, &config);
    chain.upgrade();
    chain.logged("is started with 604 sockets");
    chain.ended(0);
    for port in [8000, 8101, 8250, 8400] {
        assert_eq!(fetch(env.port(port)).unwrap(), "a");
    }
}

#[test]
fn sockets_that_are_passed_take_no_descriptor_from_sessions() {
    let env = TestEnv::new();
    let server = Server::naming("a", env.port(9001));
    let range =
        format!("[frontend.range]\nbind = [\"{}-8200\"]\nbackend = \"web\"", env.port(8101));
    let config = Config::new(&env).server("a", server.address).more(&range);
    let mut command = Command::new("bash");
    let file = write_config(&env, &config.workers(2).text());
    command.args(["-c", "ulimit -n 1500; exec \"$@\"", "bash", PROGRAM, "run", "-c"]).arg(file);
    let mut chain = Chain::of(Balancer::start_command(&env, command));
    let max = |chain: &Chain<'_>| chain.metrics().value("evenkeel_sessions_max", &[]);
    let before = max(&chain);
    chain.upgrade();
    let after = max(&chain);
    // The stream to the old process is open beside its sockets.
    assert!(after >= before - 2.0, "{after} after {before}");
}

#[test]
fn an_address_that_the_new_file_does_not_name_is_closed_and_a_new_one_is_bound() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let more =
        |port| format!("[frontend.more]\nbind = [\"{}\"]\nbackend = \"web\"", env.port(port));
    let mut chain = Chain::start(&env, &config.clone().more(&more(8001)));
    let session = connect(env.port(8001));
    assert_eq!(exchange(&session, b"in"), b"in");
    chain.upgrade_to(&config.more(&more(8002)));
    until("it refuses connections", || TcpStream::connect(env.port(8001)).is_err());
    assert_eq!(exchange(&session, b"continues"), b"continues");
    for port in [8000, 8002] {
        let new = connect(env.port(port));
        assert_eq!(exchange(&new, b"served"), b"served");
    }
    drop(session);
    chain.ended(0);
}

#[test]
fn unix_sockets_keep_their_files_until_the_last_process_ends() {
    let env = TestEnv::new();
    let (config, _server) = echoing(&env);
    let [stays, goes] = ["stays.sock", "goes.sock"].map(|name| env.file(name));
    let more = |name: &str, path: &PathBuf| {
        format!("[frontend.{name}]\nbind = [\"unix:{}\"]\nbackend = \"web\"\n", path.display())
    };
    let both = config.clone().workers(2).more(&(more("stays", &stays) + &more("goes", &goes)));
    let mut chain = Chain::start(&env, &both);
    let identity = |path: &PathBuf| {
        use std::os::unix::fs::MetadataExt;
        fs::symlink_metadata(path).unwrap().ino()
    };
    let before = [identity(&stays), identity(&env.file("control.sock"))];
    chain.upgrade_to(&config.workers(1).more(&more("stays", &stays)));
    chain.ended(0);
    assert_eq!(before, [identity(&stays), identity(&env.file("control.sock"))]);
    assert!(!goes.exists(), "it is not in the new file");
    let client = UnixStream::connect(&stays).unwrap();
    let answer = echoed(client);
    assert_eq!(answer, b"over a path");
    chain.control_ok(&["status"]);
    chain.signal(1, Signal::SIGTERM);
    chain.ended(1);
    assert!(!stays.exists() && !env.file("control.sock").exists());
}

fn echoed(mut client: UnixStream) -> Vec<u8> {
    use std::io::{Read, Write};
    client.write_all(b"over a path").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn the_new_process_serves_http_and_the_control_socket_and_the_old_one_does_not() {
    let env = TestEnv::new();
    let (chain, _session, _server) = replaced_with_a_session(&env);
    let new = chain.pid();
    // Every answer is that of the new process, which does not drain.
    let served = || {
        chain.metrics().value("evenkeel_draining", &[]) == 0.0
            && chain.control_ok(&["status"]).contains("running")
    };
    assert!(holds_for(Duration::from_millis(500), served));
    assert!(runs(chain.pids[0]) && runs(new));
    let environment = fs::read_to_string(format!("/proc/{new}/environ")).unwrap();
    assert!(environment.contains("EVENKEEL_UPGRADE=1"), "{environment}");
    let input = fs::read_link(format!("/proc/{new}/fd/0")).unwrap();
    assert_eq!(input.to_str(), Some("/dev/null"));
}
