//! Why a cell of several steps is not run.

/// The network cannot end a connection in order before there is a proxy on the way.
pub(super) const FIN_OF_NETWORK: &str = "Only an end of a TCP connection sends a FIN: a proxy \
                                         that sends one is a client or server of the balancer.";

/// Garbage of the network is a loss.
pub(super) const GARBAGE_OF_NETWORK: &str = "The kernel drops segments with a wrong checksum, \
                                             sequence number or port: a loss, as in slowness.";
