//! Binding of unix sockets: one for all workers, which share its backlog.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access};

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

/// Whether the path is free, or has the socket of a process that is gone; and whether this user may
/// create a file there.
///
/// # Errors
/// It cannot be bound; for the operator.
pub(super) fn trial(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let checked = socket_file::examine(path).and_then(|_| {
        access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from)?;
        Ok(())
    });
    checked.map_err(|error| explain(path, &error))
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
