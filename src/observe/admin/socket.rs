//! Creates and removes the control socket, so that no other user can connect to it at any time.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Type};

/// A listening control socket; dropped, its file is removed.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of a socket, removed with the value.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: only the file that was created is removed.
    identity: (u64, u64),
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
    let folder = make_folder(path).map_err(|error| explain(path, &error))?;
    clear(path)?;
    let listener = listen(path).map_err(|error| explain(path, &error))?;
    let made = fs::symlink_metadata(path).map_err(|error| explain(path, &error))?;
    let identity = (made.dev(), made.ino());
    Ok(Socket { listener, file: SocketFile { path: path.to_owned(), identity, folder } })
}

impl Socket {
    /// Gives the socket (and the folder, if it was made for it) to the user that the process
    /// becomes, so that this user can use and remove it. To be called before privileges are
    /// dropped.
    ///
    /// # Errors
    /// Not permitted.
    pub fn give_to(&self, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
        let file = &self.file;
        // The socket first: once the folder is given away, another file may be in its place. And a
        // link that somebody has put there is not followed, or what it points to would be given.
        for path in [&file.path].into_iter().chain(&file.folder) {
            lchown(path, user, group).map_err(|error| explain(path, &error))?;
        }
        Ok(())
    }

    /// For the runtime, with what removes the file.
    pub(super) fn into_listener(self) -> io::Result<(tokio::net::UnixListener, SocketFile)> {
        self.listener.set_nonblocking(true)?;
        Ok((tokio::net::UnixListener::from_std(self.listener)?, self.file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have put its own there since.
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("control socket {}: {error}", self.path.display());
        }
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

/// Removes the socket of a process that is gone; anything else in the way is an error.
fn clear(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(explain(path, &error)),
    };
    if !found.file_type().is_socket() {
        let why = "exists and is not a socket; remove it, or set observe.control to another path";
        return Err(in_the_way(path, why));
    }
    // Without waiting: the backlog of a process that hangs may be full (EAGAIN), which is not gone.
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| explain(path, &error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let why = "belongs to another user; if no process uses it, remove it as that user, or \
                       set observe.control to another path";
            Err(in_the_way(path, why))
        }
        Ok(()) | Err(_) => {
            let why = "is used by another process; stop it, or set observe.control to another path";
            Err(in_the_way(path, why))
        }
    }
}

/// Linux gives the file of a socket the mode of the descriptor that is bound (less the umask), so
/// that there is no moment in which it has another.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(UnixListener::from(std::os::fd::OwnedFd::from(socket)))
}

fn in_the_way(path: &Path, why: &str) -> io::Error {
    let text = format!("control socket {}: {why}", path.display());
    io::Error::new(io::ErrorKind::AddrInUse, text)
}

fn explain(path: &Path, error: &io::Error) -> io::Error {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; run as a user that may write there, or set observe.control to another path"
        }
        io::ErrorKind::NotFound => "; create the directories of this path",
        io::ErrorKind::InvalidInput => "; the path of a socket has at most 107 bytes",
        _ => "",
    };
    let text = format!("control socket {}: {error}{remedy}", path.display());
    io::Error::new(error.kind(), text)
}
