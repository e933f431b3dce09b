//! Landlock (landlock(7)): which files this process may still create, change and execute.
//!
//! Reading stays allowed everywhere: a reload may name files anywhere, and DNS, certificates and
//! the state of the process are read from many places. Connections are not restricted: a reload may
//! name any server.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use landlock::{
    ABI, Access, AccessFs, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictSelfError,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};
use nix::errno::Errno;

/// The rights that are restricted: all that Linux 6.10 knows. An older kernel restricts those that
/// it knows.
const RESTRICTED: ABI = ABI::V5;

/// The ELF interpreter of a program that is not static, which execve(2) opens as well.
#[cfg(target_arch = "x86_64")]
const INTERPRETER: &str = "/lib64/ld-linux-x86-64.so.2";
#[cfg(not(target_arch = "x86_64"))]
const INTERPRETER: &str = "/lib/ld-linux-aarch64.so.1";

/// Where the confined process may create sockets; set once it is confined.
static CREATES_IN: OnceLock<BTreeSet<PathBuf>> = OnceLock::new();

/// What stays allowed, besides reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Directories in and below which unix sockets may be created, and files removed.
    pub creates_in: BTreeSet<PathBuf>,
    /// Directories and files of which programs may be executed.
    pub executes: BTreeSet<PathBuf>,
}

/// Whether the rules are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landlock {
    /// They are, with the rights of this version of Landlock's ABI.
    InForce(i32),
    /// Those of earlier processes are: the kernel stacks 16 at most, and a process inherits all of
    /// the process that executed it.
    Inherited,
    /// The kernel does not have Landlock, or a sandbox hides it.
    Missing,
    /// The kernel has it, and it was not enabled at boot.
    NotEnabled,
}

impl Rules {
    /// Sockets in `creates_in`. The directory of this program and its ELF interpreter stay
    /// executable: its successor may be another file of that name.
    #[must_use]
    pub fn new(creates_in: BTreeSet<PathBuf>) -> Self {
        let program = std::env::current_exe().ok();
        let folder = program.as_deref().and_then(Path::parent).map(Path::to_owned);
        Self { creates_in, executes: folder.into_iter().chain(interpreters()).collect() }
    }

    /// Confines this thread, and the threads and processes that it starts from now on.
    ///
    /// # Errors
    /// The kernel refuses the rules; then nothing is restricted.
    pub fn confine_thread(&self) -> Result<Landlock, String> {
        let ruleset = self.ruleset().map_err(|error| error.to_string())?;
        match ruleset.restrict_self() {
            Ok(status) => Ok(match status.landlock {
                LandlockStatus::Available { effective_abi, kernel_abi } => {
                    Landlock::InForce(kernel_abi.unwrap_or(effective_abi as i32))
                }
                LandlockStatus::NotEnabled => Landlock::NotEnabled,
                LandlockStatus::NotImplemented => Landlock::Missing,
            }),
            Err(RulesetError::RestrictSelf(RestrictSelfError::RestrictSelfCall {
                source, ..
            })) if source.raw_os_error() == Some(Errno::E2BIG as i32) => Ok(Landlock::Inherited),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Confines a process that has no thread but this one.
    ///
    /// # Errors
    /// As [`Rules::confine_thread`].
    pub fn confine_process(&self) -> Result<Landlock, String> {
        let folders = self.creates_in.iter().filter_map(|folder| fs::canonicalize(folder).ok());
        let folders = folders.collect();
        let outcome = self.confine_thread()?;
        if matches!(outcome, Landlock::InForce(_) | Landlock::Inherited) {
            CREATES_IN.get_or_init(|| folders);
        }
        Ok(outcome)
    }

    fn ruleset(&self) -> Result<RulesetCreated, RulesetError> {
        let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
        let create = make_bitflags!(AccessFs::{MakeSock | RemoveFile});
        let execute = BitFlags::from(AccessFs::Execute);
        let write = BitFlags::from(AccessFs::WriteFile);
        let folders = self.creates_in.iter().map(|folder| (folder.as_path(), create));
        let programs = self.executes.iter().map(|path| (path.as_path(), execute));
        // A child process without standard input has /dev/null.
        let others = [(Path::new("/"), read), (Path::new("/dev/null"), write)];
        let rules = others.into_iter().chain(folders).chain(programs);
        // A path that does not exist needs no rule.
        let rules = rules.filter_map(|(path, rights)| {
            Some(Ok::<_, RulesetError>(PathBeneath::new(PathFd::new(path).ok()?, rights)))
        });
        Ruleset::default()
            .handle_access(AccessFs::from_all(RESTRICTED))?
            .scope(Scope::Signal)?
            .create()?
            .add_rules(rules)
    }
}

/// The directories in and below which this process may create unix sockets; none: Landlock does not
/// restrict it.
pub fn creates_in() -> Option<&'static BTreeSet<PathBuf>> {
    CREATES_IN.get()
}

/// Whether Landlock lets this process create a unix socket in a directory.
#[must_use]
pub fn may_create_in(folder: &Path) -> bool {
    let Some(allowed) = creates_in() else { return true };
    // What does not exist fails for that reason.
    let Ok(folder) = fs::canonicalize(folder) else { return true };
    allowed.iter().any(|allowed| folder.starts_with(allowed))
}

/// The ELF interpreter of this program, and the usual one: that of a successor that is not static.
fn interpreters() -> impl Iterator<Item = PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let own = maps.lines().filter_map(interpreter).map(PathBuf::from).next();
    own.into_iter().chain([PathBuf::from(INTERPRETER)])
}

/// The path of a line of /proc/self/maps (proc(5)), if it is that of an ELF interpreter.
fn interpreter(line: &str) -> Option<&str> {
    let path = &line[line.find('/')?..];
    let (_, name) = path.rsplit_once('/')?;
    (name.starts_with("ld-linux") || name.starts_with("ld-musl")).then_some(path)
}
