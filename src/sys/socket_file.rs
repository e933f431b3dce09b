//! Listening unix sockets and their files.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag};
use nix::sys::stat::{Mode, fchmod, umask};
use nix::unistd::{Gid, Uid, fchownat};
use socket2::{Domain, SockAddr, Socket, Type};

/// How long the lock of a directory is waited for. Another process that binds a socket there has it
/// for less than a millisecond; any user who may read the directory can hold it without end.
const LOCK_TIMEOUT: Duration = Duration::from_millis(50);

/// Between two attempts to lock it.
const LOCK_INTERVAL: Duration = Duration::from_millis(2);

/// The file of a listening unix socket. Dropping it removes the file, unless another process has
/// put its own there.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode of the file that was created.
    identity: (u64, u64),
    /// Dropping removes it.
    owned: bool,
}

/// Why a unix socket cannot be bound.
#[derive(Debug)]
pub enum SocketFileError {
    /// Something that is no socket has the path.
    NotASocket,
    /// A socket of another user has the path: whether a process uses it is not known.
    OtherUser,
    /// A process listens there.
    InUse,
    /// The error of the kernel.
    Failed(io::Error),
}

impl SocketFileError {
    /// Its kind, as an error of the kernel has one.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Failed(error) => error.kind(),
            Self::NotASocket | Self::OtherUser | Self::InUse => io::ErrorKind::AddrInUse,
        }
    }
}

impl fmt::Display for SocketFileError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASocket => out.write_str("exists and is not a socket"),
            Self::OtherUser => out.write_str("belongs to another user"),
            Self::InUse => out.write_str("is used by another process"),
            Self::Failed(error) => error.fmt(out),
        }
    }
}

impl From<io::Error> for SocketFileError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Whether the path is free, or has the socket of a process that is gone. Nothing is changed. A
/// symbolic link is not followed.
///
/// # Errors
/// Something is there, or the path cannot be examined.
pub fn examine(path: &Path) -> Result<Found, SocketFileError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error.into()),
    };
    if !found.file_type().is_socket() {
        return Err(SocketFileError::NotASocket);
    }
    // Without waiting: the backlog of a process that hangs may be full (EAGAIN), which is not gone.
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Found::Stale),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(SocketFileError::OtherUser)
        }
        Ok(()) | Err(_) => Err(SocketFileError::InUse),
    }
}

/// What has the path of a unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// The socket of a process that is gone.
    Stale,
}

/// A socket that listens at `path`, whose file has that `mode` from its first moment, whatever the
/// umask of the process is. The socket of a process that is gone is replaced.
///
/// # Errors
/// Something is in the way, or the directory does not permit it.
pub fn listen(
    path: &Path,
    mode: Mode,
    backlog: i32,
) -> Result<(OwnedFd, SocketFile), SocketFileError> {
    // Of two processes that find the socket of one that is gone, the second must not remove that of
    // the first. Without the lock, that can happen only if both get here in the same moment.
    let _locked = path.parent().and_then(lock);
    if examine(path)? == Found::Stale {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
    // Linux gives the file the mode of the descriptor that is bound, less the umask: there is no
    // moment in which it has another one. The umask is that of the process, of which no other
    // thread creates files.
    fchmod(&socket, mode).map_err(io::Error::from)?;
    let address = SockAddr::unix(path)?;
    let before = umask(Mode::empty());
    let bound = socket.bind(&address);
    umask(before);
    bound?;
    let made = fs::symlink_metadata(path)?;
    let file =
        SocketFile { path: path.to_owned(), identity: (made.dev(), made.ino()), owned: true };
    socket.listen(backlog)?;
    Ok((socket.into(), file))
}

/// Locks a directory against others that bind sockets there. None: it cannot be read, or another
/// process has kept the lock for [`LOCK_TIMEOUT`].
fn lock(folder: &Path) -> Option<Flock<fs::File>> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    let mut folder = fs::File::open(folder).ok()?;
    loop {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Some(locked),
            Err((unlocked, Errno::EWOULDBLOCK)) if Instant::now() < deadline => folder = unlocked,
            Err(_) => return None,
        }
        #[expect(clippy::disallowed_methods, reason = "rare, and not for long")]
        std::thread::sleep(LOCK_INTERVAL);
    }
}

impl SocketFile {
    /// Whether the path still has this file: another process may have removed or replaced it.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
    }

    /// The file of a listening socket that another process has bound; see [`SocketFile::own`].
    ///
    /// # Errors
    /// The path does not have that file any more.
    pub fn adopt(path: &Path, identity: (u64, u64)) -> Result<Self, SocketFileError> {
        let found = fs::symlink_metadata(path)?;
        if !found.file_type().is_socket() || (found.dev(), found.ino()) != identity {
            return Err(SocketFileError::InUse);
        }
        Ok(Self { path: path.to_owned(), identity, owned: false })
    }

    /// Device and inode.
    #[must_use]
    pub const fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Leaves the file there: another process owns it now.
    pub fn keep(mut self) {
        self.owned = false;
    }

    /// The process that has bound it has given it up: dropping it removes the file.
    pub const fn own(&mut self) {
        self.owned = true;
    }

    /// Gives the file to a user and a group, so that they may remove it. What somebody else has put
    /// there instead, such as a link to a file of root, is not given away.
    ///
    /// # Errors
    /// Not permitted, or another file has the path.
    pub fn give_to(&self, user: u32, group: u32) -> io::Result<()> {
        let flags = (OFlag::O_PATH | OFlag::O_NOFOLLOW).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&self.path)?;
        let found = file.metadata()?;
        // A second name would be that of a socket of somebody else, linked here.
        let ours = found.file_type().is_socket()
            && found.nlink() == 1
            && (found.dev(), found.ino()) == self.identity;
        if !ours {
            return Err(io::Error::other("another file has taken its place"));
        }
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        Ok(fchownat(&file, "", Some(user), Some(group), AtFlags::AT_EMPTY_PATH)?)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.owned
            && self.is_in_place()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("the socket {} cannot be removed: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// An empty directory, removed with the value.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("evenkeel-socket-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::create_dir(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_socket_has_its_mode_whatever_the_umask_is_and_is_removed() {
        let folder = Folder::new("mode");
        let path = folder.0.join("x.sock");
        let (_socket, file) = listen(&path, Mode::from_bits_truncate(0o666), 8).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        UnixStream::connect(&path).unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn the_socket_of_a_process_that_is_gone_is_replaced() {
        let folder = Folder::new("stale");
        let path = folder.0.join("x.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(examine(&path).unwrap(), Found::Stale);
        let (_socket, _file) = listen(&path, Mode::S_IRUSR, 8).unwrap();
        assert!(matches!(examine(&path), Err(SocketFileError::InUse)));
    }

    #[test]
    fn another_process_that_locks_the_directory_delays_a_bind_and_prevents_none() {
        let folder = Folder::new("lock");
        let path = folder.0.join("x.sock");
        drop(UnixListener::bind(&path).unwrap());
        let locked = lock(&folder.0).unwrap();
        let begun = Instant::now();
        let (_socket, file) = listen(&path, Mode::S_IRUSR, 8).unwrap();
        assert!(begun.elapsed() >= LOCK_TIMEOUT);
        drop(file);
        drop(locked);
        let (_socket, _file) = listen(&path, Mode::S_IRUSR, 8).unwrap();
        assert!(lock(&folder.0).is_some(), "it is released at the end");
    }

    #[test]
    fn what_is_no_socket_or_in_use_is_left_alone() {
        let folder = Folder::new("way");
        let (file, link) = (folder.0.join("file"), folder.0.join("link"));
        fs::write(&file, "kept").unwrap();
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for path in [&file, &link] {
            let refused = listen(path, Mode::S_IRUSR, 8);
            assert!(matches!(refused, Err(SocketFileError::NotASocket)), "{refused:?}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        let path = folder.0.join("x.sock");
        let _theirs = UnixListener::bind(&path).unwrap();
        assert!(matches!(listen(&path, Mode::S_IRUSR, 8), Err(SocketFileError::InUse)));
    }

    #[test]
    fn only_the_socket_itself_is_given_away() {
        let folder = Folder::new("give");
        let (path, other) = (folder.0.join("x.sock"), folder.0.join("other"));
        let (_socket, file) = listen(&path, Mode::S_IRUSR, 8).unwrap();
        let (user, group) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        file.give_to(user, group).unwrap();
        fs::hard_link(&path, &other).unwrap();
        file.give_to(user, group).unwrap_err();
        fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        file.give_to(user, group).unwrap_err();
        fs::rename(&other, &path).unwrap();
        file.give_to(user, group).unwrap();
        for make in [|at: &Path| fs::write(at, ""), |at: &Path| std::os::unix::fs::symlink("x", at)]
        {
            fs::remove_file(&path).unwrap();
            make(&path).unwrap();
            file.give_to(user, group).unwrap_err();
        }
    }

    #[test]
    fn a_file_that_another_process_has_put_there_is_not_removed() {
        let folder = Folder::new("other");
        let path = folder.0.join("x.sock");
        let (_socket, file) = listen(&path, Mode::S_IRUSR, 8).unwrap();
        fs::rename(&path, folder.0.join("moved")).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
