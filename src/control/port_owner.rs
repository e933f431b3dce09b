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
    let has = |process: &u32| listening::has_one_of(*process, &sockets) == Some(true);
    let Some(process) = listening::processes().find(has) else {
        return Some(
            "no process is seen to have it open: it is one of another user, or the kernel still \
             closes the sockets of a process that was killed"
                .to_owned(),
        );
    };
    Some(format!("it belongs to process {process} ({})", listening::name_of(process)))
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
}
