//! The asynchronous runtime of the control thread, and its ring.

use std::io;

/// Completions that the ring of the control thread holds, in the order in which it is tried: 16
/// bytes each, half a MiB at first. Each probe that is under way has one. A ring whose completions
/// overflow was seen to stand still, with 10,000 servers on a busy machine.
const COMPLETIONS: [u32; 4] = [32_768, 8192, 2048, 512];

/// The runtime of the control thread, with the largest ring that there is memory for.
pub(super) fn start() -> io::Result<tokio_uring::Runtime> {
    let build = |completions| {
        let ring = tokio_uring::uring_builder().setup_cqsize(completions).clone();
        tokio_uring::Runtime::new(tokio_uring::builder().uring_builder(&ring))
    };
    let [most, fewer @ ..] = COMPLETIONS;
    fewer.into_iter().fold(build(most), |built, completions| built.or_else(|_| build(completions)))
}
