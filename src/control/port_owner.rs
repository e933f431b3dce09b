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
    Some(among(listening::processes(), |process| {
        listening::has_one_of(process, &sockets) == Some(true)
    }))
}

/// Which of these processes has the address.
fn among(mut processes: impl Iterator<Item = u32>, has: impl Fn(u32) -> bool) -> String {
    match processes.find(|process| has(*process)) {
        Some(process) => {
            format!("it belongs to process {process} ({})", listening::name_of(process))
        }
        // /proc need not list the others, nor say that it does not: ProtectProc= of systemd, or a
        // container with the network of its host. A process that an upgrade starts is confined.
        None => {
            "evenkeel may not see the process that has it (one of another user, or evenkeel is \
                 confined), or that process was killed and the kernel still closes its sockets"
                .to_owned()
        }
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
        let said = among([1, 9].into_iter(), |_| false);
        assert!(said.starts_with("evenkeel may not see the process that has it"), "{said}");
    }
}
