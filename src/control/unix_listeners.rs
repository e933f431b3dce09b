//! Binding of unix sockets: one for all workers, which share its backlog.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access};

use crate::sys::landlock;
use crate::sys::socket_file::{self, SocketFile, SocketFileError};

/// Every user may connect, as to a TCP port; the permissions of the directory restrict that.
const MODE: Mode = Mode::from_bits_truncate(0o666);

/// A socket that listens at `path`: a descriptor for each worker, and its file.
///
/// # Errors
/// It cannot be bound; for the operator.
pub(super) fn bind(
    path: &Path,
    workers: usize,
    backlog: i32,
) -> io::Result<(Vec<OwnedFd>, SocketFile)> {
    let (socket, file) =
        socket_file::listen(path, MODE, backlog).map_err(|error| explain(path, &error))?;
    let mut sockets: Vec<OwnedFd> = Vec::with_capacity(workers);
    for _ in 1..workers {
        sockets.push(socket.try_clone().map_err(|error| explain(path, &error.into()))?);
    }
    sockets.push(socket);
    Ok((sockets, file))
}

/// Whether the path is free, or has the socket of a process that is gone; and whether this process
/// may create a file there.
///
/// # Errors
/// It cannot be bound; for the operator.
pub(super) fn trial(path: &Path) -> io::Result<()> {
    let checked =
        socket_file::examine(path).and_then(|_| Ok(access_folder(path).map_err(io::Error::from)?));
    checked.map_err(|error| explain(path, &error))?;
    if landlock::may_create_in(folder(path)) { Ok(()) } else { Err(confined(path)) }
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}

/// Whether the user of this process may create a file there; a sandbox is not asked.
fn access_folder(path: &Path) -> nix::Result<()> {
    access(folder(path), AccessFlags::W_OK | AccessFlags::X_OK)
}

/// A reload wants a directory that the process could not know of when it confined itself.
fn confined(path: &Path) -> io::Error {
    let allowed = landlock::creates_in().into_iter().flatten();
    let allowed: Vec<String> = allowed.map(|folder| folder.display().to_string()).collect();
    let allowed = if allowed.is_empty() { "no directory".to_owned() } else { allowed.join(", ") };
    io::Error::other(format!(
        "unix:{} cannot be bound: Landlock allows this process to create sockets in {allowed} \
         only, as configured at its start; restart evenkeel, or set global.landlock = false and \
         restart it",
        path.display()
    ))
}

/// Why a path cannot be bound, and the remedy.
fn explain(path: &Path, error: &SocketFileError) -> io::Error {
    let remedy = match error {
        SocketFileError::NotASocket => "remove it, or choose another path".to_owned(),
        SocketFileError::OtherUser => {
            "if no process uses it, remove it as that user, or choose another path".to_owned()
        }
        SocketFileError::InUse => format!(
            "stop that process (`ss -lxp src {}` shows it), or choose another path",
            path.display()
        ),
        SocketFileError::Failed(error) => match error.kind() {
            io::ErrorKind::PermissionDenied if access_folder(path).is_ok() => {
                "the user may, so that a sandbox denies it, such as the Landlock that an upgrade \
                 inherits (global.landlock): restart evenkeel, or choose another path"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "allow the user of evenkeel to write in the directory, or choose another path"
            }
            io::ErrorKind::NotFound => "create the directory of this path",
            _ => "choose another path",
        }
        .to_owned(),
    };
    let problem = match error {
        SocketFileError::Failed(error) => format!("cannot be bound: {error}"),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("unix:{} {problem}; {remedy}", path.display()))
}
