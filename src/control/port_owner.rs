//! Which process listens at a TCP address that is in use.

use std::net::SocketAddr;

use crate::sys::listening;

/// Who listens at `address` or at a wildcard of its port, for the operator; none: nobody does, or
/// it is not known.
pub(super) fn owner(address: SocketAddr) -> Option<String> {
    let sockets = listening::at_address(address);
    if sockets.is_empty() {
        return None;
    }
    Some(among(listening::processes(), |process| listening::has_one_of(process, &sockets)))
}

/// Which of these processes has the address. `has`: none if its descriptors may not be read.
fn among(mut processes: impl Iterator<Item = u32>, has: impl Fn(u32) -> Option<bool>) -> String {
    let mut hidden = false;
    let found = processes.find(|process| {
        let has = has(*process);
        hidden |= has.is_none();
        has == Some(true)
    });
    match found {
        Some(process) => {
            format!("it belongs to process {process} ({})", listening::name_of(process))
        }
        // A process that an upgrade starts is confined from its start.
        None if hidden => "evenkeel may not see the process that has it, which is one of another \
                           user, or evenkeel is confined"
            .to_owned(),
        None => "no process has it open: the kernel still closes the sockets of a process that \
                 was killed"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_process_that_listens_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let said = owner(address).unwrap();
        let process = format!("it belongs to process {} (", std::process::id());
        assert!(said.starts_with(&process), "{said}");
        drop(listener);
        assert_eq!(owner(address), None);
    }

    #[test]
    fn a_process_that_may_not_be_seen_is_not_taken_for_one_that_ended() {
        let seen = |process: u32| (process != 7).then_some(false);
        let hidden = among([1, 7, 9].into_iter(), seen);
        assert!(hidden.starts_with("evenkeel may not see the process"), "{hidden}");
        assert!(hidden.contains("or evenkeel is confined"), "{hidden}");
        let ended = among([1, 9].into_iter(), seen);
        assert!(ended.starts_with("no process has it open: the kernel"), "{ended}");
    }
}
