//! Whether the balancer whose file is examined runs already: an address that is in use may be its
//! own.

use crate::sys::address::Address;
use crate::sys::listening;

/// The process id of an evenkeel that listens on `address`, or on a wildcard address that takes its
/// place. None: another program does, or it is not known to this user.
pub(super) fn evenkeel_at(address: &Address) -> Option<u32> {
    let sockets = match address {
        Address::Ip(address) => listening::at_address(*address),
        Address::Unix(path) => listening::at_path(path),
    };
    if sockets.is_empty() {
        return None;
    }
    let is_one = |process: &u32| {
        let has = listening::has_one_of(*process, &sockets);
        listening::name_of(*process) == env!("CARGO_PKG_NAME")
            && has.unwrap_or_else(|| listening::runs_as_owner_of(*process, &sockets))
    };
    listening::processes().find(is_one)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_process_of_another_name_is_not_taken_for_evenkeel() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(evenkeel_at(&listener.local_addr().unwrap().into()), None);
    }
}
