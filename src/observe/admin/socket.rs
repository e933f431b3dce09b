//! Creates and removes the control socket, so that no other user can connect to it at any time.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access};

use crate::sys::socket_file::{self, SocketFile, SocketFileError};

/// A listening control socket; dropped, its file is removed.
#[derive(Debug)]
pub struct Socket {
    listener: OwnedFd,
    /// None: it belongs to a service manager.
    file: Option<SocketFile>,
    path: PathBuf,
    /// The folder, if it was created for the socket.
    folder: Option<PathBuf>,
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Makes the control socket at `path`, mode 0600 from its first moment, and listens. A missing
/// folder is made (mode 0755); the socket of a process that is gone is replaced.
///
/// # Errors
/// Another process answers there, something that is no socket is in the way (a symbolic link is
/// not followed), or the folder does not permit it. The error says which and what to do.
pub fn bind(path: &Path) -> io::Result<Socket> {
    let folder = make_folder(path).map_err(|error| explain(path, &error.into()))?;
    let listening = socket_file::listen(path, Mode::S_IRUSR | Mode::S_IWUSR, BACKLOG);
    let (listener, file) = listening.map_err(|error| explain(path, &error))?;
    Ok(Socket { listener, file: Some(file), path: path.to_owned(), folder })
}

/// Whether the control socket could be made at `path`; nothing is changed.
///
/// # Errors
/// As [`bind`]; for the operator.
pub fn try_bind(path: &Path) -> Result<(), String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // A missing folder is made.
    let existing = match folder {
        Some(folder) if !folder.exists() => folder.parent(),
        folder => folder,
    };
    let writable = AccessFlags::W_OK | AccessFlags::X_OK;
    let checked = socket_file::examine(path).and_then(|_| {
        existing.map_or(Ok(()), |folder| access(folder, writable)).map_err(io::Error::from)?;
        Ok(())
    });
    checked.map_err(|error| explain(path, &error).to_string())
}

impl Socket {
    /// One that another process has bound at `path`.
    #[must_use]
    pub fn inherited(listener: OwnedFd, file: Option<SocketFile>, path: &Path) -> Self {
        Self { listener, file, path: path.to_owned(), folder: None }
    }

    /// The process that has bound it has given its file up.
    pub fn own_file(&mut self) {
        self.file.iter_mut().for_each(SocketFile::own);
    }

    /// Its descriptor.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Device and inode of its file.
    #[must_use]
    pub fn file_identity(&self) -> Option<(u64, u64)> {
        self.file.as_ref().map(SocketFile::identity)
    }

    /// Gives the socket (and the folder, if it was made for it) to the user that the process
    /// becomes, so that this user can use and remove it. To be called before privileges are
    /// dropped.
    ///
    /// # Errors
    /// Not permitted.
    pub fn give_to(&self, user: u32, group: u32) -> io::Result<()> {
        let failed = |error: io::Error| explain(&self.path, &error.into());
        // The socket first: once the folder is given away, another file may be in its place.
        if let Some(file) = &self.file {
            file.give_to(user, group).map_err(failed)?;
        }
        match &self.folder {
            Some(folder) => lchown(folder, Some(user), Some(group)).map_err(failed),
            None => Ok(()),
        }
    }

    /// For the runtime, with what removes the file.
    pub(super) fn into_listener(
        self,
    ) -> io::Result<(tokio::net::UnixListener, Option<SocketFile>)> {
        let listener = UnixListener::from(self.listener);
        listener.set_nonblocking(true)?;
        Ok((tokio::net::UnixListener::from_std(listener)?, self.file))
    }
}

fn make_folder(path: &Path) -> io::Result<Option<PathBuf>> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(None);
    };
    match DirBuilder::new().mode(0o755).create(folder) {
        Ok(()) => Ok(Some(folder.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
    }
}

fn explain(path: &Path, error: &SocketFileError) -> io::Error {
    let remedy = match error {
        SocketFileError::NotASocket => "; remove it, or set observe.control to another path",
        SocketFileError::OtherUser => {
            "; if no process uses it, remove it as that user, or set observe.control to another \
             path"
        }
        SocketFileError::InUse => "; stop it, or set observe.control to another path",
        SocketFileError::Failed(error) => match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "; run as a user that may write there, or set observe.control to another path"
            }
            io::ErrorKind::NotFound => "; create the directories of this path",
            io::ErrorKind::InvalidInput => "; the path of a socket has at most 107 bytes",
            _ => "",
        },
    };
    let text = format!("control socket {}: {error}{remedy}", path.display());
    io::Error::new(error.kind(), text)
}
