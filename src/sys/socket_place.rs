//! Which socket the path of a unix socket leads to: symbolic links and bind mounts give one socket
//! several paths.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Links that are followed, as many as the kernel follows (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// Where the file of a unix socket is, or would be. Two paths of one socket have the same place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketPlace(Place);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    /// The device and the inode of the directory, and the name in it.
    InDirectory(u64, u64, OsString),
    /// There is no such directory.
    Path(PathBuf),
}

impl SocketPlace {
    /// As the path says, without a look at the file system.
    #[must_use]
    pub fn as_written(path: &Path) -> Self {
        Self(Place::Path(path.to_owned()))
    }

    /// On this machine, now.
    #[must_use]
    pub fn find(path: &Path) -> Self {
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            let Ok(target) = fs::read_link(&path) else { break };
            // An absolute target replaces the whole path.
            path = path.parent().unwrap_or_else(|| Path::new("/")).join(target);
        }
        let directory = path.parent().and_then(|parent| fs::metadata(parent).ok());
        match (directory, path.file_name()) {
            (Some(directory), Some(name)) => {
                Self(Place::InDirectory(directory.dev(), directory.ino(), name.to_owned()))
            }
            _ => Self(Place::Path(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_with_symbolic_links_has_the_place_of_one_without() {
        let name = format!("evenkeel-place-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let real = folder.join("real");
        fs::create_dir_all(&real).unwrap();
        symlink("real", folder.join("directory")).unwrap();
        symlink(real.join("x"), folder.join("file")).unwrap();
        symlink("loop", folder.join("loop")).unwrap();
        let place = |path: &str| SocketPlace::find(&folder.join(path));
        let found = [
            place("directory/x") == place("real/x"),
            place("file") == place("real/x"),
            place("real/./x") == place("real/x"),
            place("real/y") == place("real/x"),
            place("loop") == place("real/x"),
            place("missing/x") == place("missing/x"),
        ];
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, [true, true, true, false, false, true]);
    }
}
