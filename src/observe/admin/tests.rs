//! The control socket, with real connections.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::serve::{PEER_TIMEOUT, answer};
use super::*;
use crate::config::AdminState;
use crate::observe::report::Report;
use crate::observe::sample;
use crate::shared::orders::{Order, ServerName};

/// A folder that is removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ek-admin-{}-{next}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Serves a sample snapshot while `client` runs on a thread of its own.
fn with_server<T: Send + 'static>(client: impl FnOnce(PathBuf) -> T + Send + 'static) -> T {
    let folder = Folder::new();
    let path = folder.socket();
    let socket = bind(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let (control, requests) = mpsc::channel(8);
        tokio::spawn(sample::control(requests));
        tokio::spawn(serve(socket, control, sample::shared()));
        let path = path.clone();
        tokio::task::spawn_blocking(move || client(path)).await.unwrap()
    });
    drop(runtime);
    assert!(!path.exists(), "the socket is removed at the end");
    outcome
}

/// What comes back for these bytes.
fn say(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // It may have answered and hung up before all was sent.
    drop(stream.write_all(bytes));
    drop(stream.shutdown(std::net::Shutdown::Write));
    let mut answer = Vec::new();
    // Bytes that it did not read reset the connection after its answer.
    drop(stream.read_to_end(&mut answer));
    String::from_utf8(answer).unwrap()
}

#[test]
fn the_socket_is_for_its_owner_alone_from_the_start() {
    let folder = Folder::new();
    let path = folder.0.join("made").join("control.sock");
    let socket = bind(&path).unwrap();
    let found = fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    drop(socket);
    assert!(!path.exists(), "the file goes with the value");
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let folder = Folder::new();
    let path = folder.socket();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "std leaves the file");
    let socket = bind(&path).unwrap();
    let error = bind(&path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("is used by another process; stop it"), "{error}");
    assert!(path.exists());
    drop(socket);
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let folder = Folder::new();
    let (path, target) = (folder.socket(), folder.0.join("target"));
    fs::write(&path, "precious").unwrap();
    let error = bind(&path).unwrap_err();
    assert!(error.to_string().contains("exists and is not a socket; remove it"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    symlink(&target, &path).unwrap();
    assert!(bind(&path).is_err(), "a link that points nowhere is not followed");
    assert!(!target.exists());
    drop(UnixListener::bind(&target).unwrap());
    assert!(bind(&path).is_err(), "nor one that points to a dead socket");
    assert!(target.exists() && fs::symlink_metadata(&path).unwrap().is_symlink());
}

#[test]
fn the_socket_of_another_process_is_not_removed() {
    let folder = Folder::new();
    let path = folder.socket();
    let socket = bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(socket);
    assert!(path.exists());
    drop(other);
}

#[test]
fn what_a_link_in_its_place_points_to_is_not_given_away() {
    let folder = Folder::new();
    let path = folder.socket();
    let socket = bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    symlink(folder.0.join("nothing"), &path).unwrap();
    let own = fs::metadata(&folder.0).unwrap();
    let error = socket.give_to(own.uid(), own.gid()).unwrap_err();
    assert!(error.to_string().contains("another file has taken its place"), "{error}");
}

#[test]
fn a_path_that_is_too_long_is_an_error_with_the_limit() {
    let error = bind(&std::env::temp_dir().join("x".repeat(120))).unwrap_err();
    assert!(error.to_string().contains("at most 107 bytes"), "{error}");
}

#[test]
fn a_client_gets_tables_or_json_and_gives_orders() {
    with_server(|path| {
        let text = status(&path, false).unwrap();
        assert!(text.contains("table 7, reloads 2 done 1 failed"), "{text}");
        let web2 = text.lines().find(|line| line.starts_with("web/web2 ")).unwrap();
        assert!(web2.contains(" down ") && web2.contains("rpi-b:80 (192.0.2.1:80)"), "{text}");
        let json: Report = serde_json::from_str(&status(&path, true).unwrap()).unwrap();
        assert_eq!((json.servers.len(), json.frontends[0].sessions), (2, 7));
        let web1 = || ServerName { backend: "web".to_owned(), server: "web1".to_owned() };
        let done = order(&path, Order::SetState(web1(), AdminState::Drain));
        assert_eq!(done.as_deref(), Ok("web/web1: Drain"));
        assert_eq!(order(&path, Order::SetWeight(web1(), 5)).unwrap(), "web/web1: weight 5");
        assert_eq!(order(&path, Order::Reload).as_deref(), Ok("reloaded"));
        let nobody = ServerName { backend: "web".to_owned(), server: "web9".to_owned() };
        let refused = order(&path, Order::SetState(nobody, AdminState::Maint));
        assert_eq!(refused, Err("no server web/web9".to_owned()));
    });
}

#[test]
fn an_invalid_request_is_answered_with_an_error() {
    with_server(|path| {
        for (bytes, why) in [
            (&b"hello\n"[..], "invalid request"),
            (b"\xff\xfe\n", "invalid request"),
            (b"{\"do\":\"explode\"}\n", "unknown variant"),
            (b"{\"do\":\"weight\",\"server\":\"web/web1\"}\n", "missing field"),
            (b"{\"do\":\"weight\",\"server\":\"web/web1\",\"weight\":1001}\n", "not within 0-1000"),
            (b"{\"do\":\"weight\",\"server\":\"web/web1\",\"weight\":-1}\n", "invalid request"),
            (b"{\"do\":\"state\",\"server\":\"web1\",\"state\":\"drain\"}\n", "BACKEND/SERVER"),
            (b"{\"do\":\"state\",\"server\":\"a/b\",\"state\":\"off\"}\n", "unknown variant"),
            (b"", "ended without one"),
            (b"{\"do\":\"status\"}", "ended within the line"),
            (&[b'['; 4096], "at most 4096 bytes"),
        ] {
            let answer = say(&path, bytes);
            let shown = String::from_utf8_lossy(bytes);
            assert!(answer.starts_with("{\"error\":\"") && answer.ends_with("\"}\n"), "{shown}");
            assert!(answer.contains(why), "{shown}: {answer}");
        }
        say(&path, &[b'x'; 1 << 20]);
        assert!(say(&path, b"{\"do\":\"status\"}\n").starts_with("{\"ok\":{\"version\":"));
    });
}

#[test]
fn connections_without_a_request_do_not_block_others_for_long() {
    with_server(|path| {
        let is_soon_served = |_| {
            let silent: Vec<UnixStream> =
                (0..CONNECTIONS_MAX).map(|_| UnixStream::connect(&path).unwrap()).collect();
            let start = Instant::now();
            assert!(say(&path, b"{\"do\":\"reload\"}\n").starts_with("{\"ok\":"));
            let is_soon = start.elapsed() < PEER_TIMEOUT / 2;
            drop(silent);
            is_soon
        };
        // A busy machine may delay one try.
        assert!((0..3).any(is_soon_served), "{:?} or more", PEER_TIMEOUT / 2);
    });
}

#[test]
fn a_client_without_a_balancer_names_the_remedy() {
    let folder = Folder::new();
    let path = folder.socket();
    let error = status(&path, false).unwrap_err();
    assert!(error.contains("is evenkeel running"), "{error}");
    drop(UnixListener::bind(&path).unwrap());
    let error = status(&path, false).unwrap_err();
    assert!(error.contains("evenkeel has ended; start it again"), "{error}");
}

#[test]
fn a_control_thread_that_does_not_answer_is_reported() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (control, requests) = mpsc::channel(8);
    let answered = runtime.block_on(answer(b"{\"do\":\"status\"}", &control, &sample::shared()));
    assert!(answered.contains("the control thread does not answer"), "{answered}");
    drop(requests);
    let answered = runtime.block_on(answer(b"{\"do\":\"reload\"}", &control, &sample::shared()));
    assert!(answered.contains("stopping"), "{answered}");
}
