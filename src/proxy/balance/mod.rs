//! The balancing algorithms: each yields the servers of a backend in the order in which they are to
//! be tried for one session.

pub(super) mod roundrobin;
