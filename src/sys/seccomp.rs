//! A seccomp filter (seccomp(2)): the system calls that this process may still make.
//!
//! Allowed are those of this program and of the libraries that it uses, those of a program that it
//! executes, which inherits the filter, and the older or newer forms of each that other versions of
//! libc and of the kernel may choose. Every other one fails with EPERM, so that a library that
//! tries a new one takes the old one instead; the few that only injected code would try end the
//! process.
//!
//! The kernel evaluates a filter once for each system call whose verdict does not depend on its
//! arguments, and keeps it in a bitmap (Linux 5.11): the number of calls in the list, their order
//! and the number of filters cost nothing. The calls of the data path have no conditions therefore.
//!
//! A filter does not see the operations of io_uring. The rings of the workers are restricted to
//! those that they use (`sys::ring::setup`).

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long};
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Sessions: the threads of workers.
const SESSIONS: &[c_long] = &[
    libc::SYS_io_uring_enter,
    libc::SYS_splice,
    libc::SYS_socket,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_pipe2,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_eventfd2,
];

/// The control thread: its runtime, probes, DNS, HTTP, the control socket, children.
const CONTROL: &[c_long] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_register,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_signalfd4,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_socketpair,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_getrandom,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrusage,
    libc::SYS_kill,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
];

/// Files: Landlock decides which.
const FILES: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_fchmod,
    libc::SYS_umask,
    // Of a directory, while a unix socket is bound there.
    libc::SYS_flock,
    libc::SYS_dup,
    libc::SYS_dup3,
];

/// Memory, threads, signals, clocks: libc and the runtime of Rust, also while they abort.
const RUNTIME: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getcpu,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
];

/// The start of a program that inherits the filter: evenkeel, until it is confined itself.
const START: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_chdir,
    libc::SYS_setsid,
    libc::SYS_setpgid,
    libc::SYS_getpgid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_prlimit64,
    libc::SYS_prctl,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_seccomp,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

/// The older forms of calls above, which other architectures never had.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_unlink,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Only injected code would try these: they look into or change other processes, the kernel or its
/// view of the machine, and nothing that evenkeel is made of has a use for them. They end the
/// process, so that the attempt is noticed.
const HOSTILE: &[c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
];

/// The flags of clone(2) that make a namespace: a new user namespace gives capabilities.
const NAMESPACES: [c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Whether the filter is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seccomp {
    /// It is, and allows so many system calls.
    InForce(usize),
    /// Those of earlier processes are: the kernel has no room for more on top of what a process
    /// inherits of the process that executed it.
    Inherited,
    /// The kernel does not have seccomp, or a sandbox forbids it.
    Missing,
    /// There is no list for this architecture.
    OtherArchitecture,
}

/// Confines this thread, and the threads and processes that it starts from now on.
///
/// # Errors
/// The kernel refuses the filter.
pub fn confine_thread() -> Result<Seccomp, String> {
    let Ok(arch) = TargetArch::try_from(ARCH) else { return Ok(Seccomp::OtherArchitecture) };
    let (allowed, filters) = filters(arch).map_err(|error| error.to_string())?;
    for filter in &filters {
        match seccompiler::apply_filter(filter) {
            Ok(()) => {}
            Err(Error::Seccomp(error)) => {
                return match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::ENOMEM) => Ok(Seccomp::Inherited),
                    Some(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => Ok(Seccomp::Missing),
                    _ => Err(error.to_string()),
                };
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(Seccomp::InForce(allowed))
}

/// How many system calls are allowed, and the filters; the kernel takes the strictest verdict.
fn filters(arch: TargetArch) -> Result<(usize, [BpfProgram; 3]), seccompiler::BackendError> {
    let plain = |calls: &[c_long]| -> BTreeMap<i64, Vec<SeccompRule>> {
        calls.iter().map(|call| (*call, Vec::new())).collect()
    };
    let filter = |rules, otherwise, verdict| -> Result<BpfProgram, _> {
        SeccompFilter::new(rules, otherwise, verdict, arch)?.try_into()
    };
    let mut rules = plain(&[SESSIONS, CONTROL, FILES, RUNTIME, START, OLDER].concat());
    let namespaces = NAMESPACES.iter().fold(0, |all, flag| all | u64::from(flag.unsigned_abs()));
    let none = SeccompCmpOp::MaskedEq(namespaces);
    let no_namespace = SeccompCondition::new(0, SeccompCmpArgLen::Dword, none, 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![no_namespace])?]);
    let (allowed, allow) = (rules.len(), SeccompAction::Allow);
    let others = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    // The flags of clone3(2) cannot be examined, as they are in memory. On ENOSYS, libc calls
    // clone(2).
    let older = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let filters = [
        filter(plain(HOSTILE), allow.clone(), SeccompAction::KillProcess)?,
        filter(plain(&[libc::SYS_clone3]), allow.clone(), older)?,
        filter(rules, others, allow)?,
    ];
    Ok((allowed, filters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_system_call_is_both_allowed_and_hostile() {
        let allowed = [SESSIONS, CONTROL, FILES, RUNTIME, START, OLDER].concat();
        let both: Vec<_> = HOSTILE.iter().filter(|call| allowed.contains(call)).collect();
        assert!(both.is_empty(), "{both:?}");
        let mut once = allowed.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), allowed.len(), "a system call is listed twice");
    }

    #[test]
    fn the_filters_fit_on_every_architecture_with_a_list() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            let (allowed, filters) = filters(arch).unwrap();
            assert!(allowed > 100, "{allowed}");
            assert!(filters.iter().all(|filter| filter.len() < 4096));
        }
    }
}
