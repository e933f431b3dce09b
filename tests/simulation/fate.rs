//! What the peers of a session do, and faults of the program that are planted.

use crate::random::Random;

/// A fault of the program, which the assertions have to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A buffer that the session gives back is lost.
    LostBuffer,
    /// A session that waits for a buffer is not told of it.
    LostWakeUp,
    /// A reset is an orderly close: a FIN behind bytes that were dropped.
    OrderlyClose,
    /// A send that was taken is reported as one byte longer.
    WrongCount,
    /// Nobody cancels what is in flight at the end.
    LostCancel,
    /// The permit of a server is never dropped.
    LostPermit,
    /// The limit of a server is lowered twice for one session.
    DoubleRelease,
    /// The bytes of the PROXY header stay in the socket of the client.
    HeaderIsRelayed,
    /// A server gets no PROXY header.
    NoProxyHeader,
    /// A worker that pauses accepting is not woken when a session ends on another worker.
    WorkerNotWoken,
    /// A worker that begins to pause does not look once more at what ended before.
    UncheckedPause,
    /// A worker goes on with the table before the one in force.
    StaleTable,
    /// A kill ends the session that has the slot now, whatever its generation.
    WrongGeneration,
    /// A session that joins a queue does not look once more at what was released before.
    UncheckedQueue,
    /// The first in a queue is not told that a server has room.
    QueueNotTold,
    /// A session of a worker that was stuck does not get its place in the queue back.
    PlaceLost,
}

impl Planted {
    /// Those between a session and the kernel.
    pub(crate) const IN_SESSION: [Self; 7] = [
        Self::LostBuffer,
        Self::LostWakeUp,
        Self::OrderlyClose,
        Self::WrongCount,
        Self::LostCancel,
        Self::HeaderIsRelayed,
        Self::NoProxyHeader,
    ];

    /// Those that the simulation of several workers finds. A session that waits for a buffer is not
    /// among them: there it may wait until it is silent for too long.
    pub(crate) const IN_WORLD: [Self; 13] = [
        Self::LostBuffer,
        Self::OrderlyClose,
        Self::WrongCount,
        Self::LostCancel,
        Self::LostPermit,
        Self::DoubleRelease,
        Self::WorkerNotWoken,
        Self::UncheckedPause,
        Self::StaleTable,
        Self::WrongGeneration,
        Self::UncheckedQueue,
        Self::QueueNotTold,
        Self::PlaceLost,
    ];
}

/// What the peers are going to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fate {
    pub(crate) client_says: u64,
    pub(crate) server_says: u64,
    pub(crate) client_resets_after: Option<u64>,
    pub(crate) server_resets_after: Option<u64>,
    pub(crate) client_stays_open: bool,
    pub(crate) server_stays_open: bool,
    pub(crate) client_stops_reading: bool,
    pub(crate) server_stops_reading: bool,
    /// The last bytes of the client, and its end, do not come before the session is being closed.
    pub(crate) client_is_late: bool,
    /// Those of the server.
    pub(crate) server_is_late: bool,
    /// The server goes with its end: what is sent to it after that is refused.
    pub(crate) server_leaves: bool,
    /// One in so many attempts to connect fails; 0: none.
    pub(crate) connects_fail: u64,
    /// The first bytes of the client may go with the SYN.
    pub(crate) fast_open: bool,
    /// A fault of the program, for the test of the tests.
    pub(crate) planted: Option<Planted>,
    /// There may be no room on any server.
    pub(crate) servers_are_full: bool,
    /// Once there is none, there never is.
    pub(crate) servers_stay_full: bool,
    /// Bytes of the preface: of a PROXY header, which is for us, and of a `ClientHello`, which is
    /// for the server too.
    pub(crate) preface: [u64; 2],
    /// The client sends a part of the preface.
    pub(crate) preface_is_missing: bool,
    /// The client does not send what a preface has to be.
    pub(crate) preface_is_invalid: bool,
    /// The client that the PROXY header names may not connect.
    pub(crate) client_is_refused: bool,
    /// The client is that of a unix socket: its close is told apart from its end.
    pub(crate) client_is_unix: bool,
    /// It closes its socket when it has sent everything.
    pub(crate) client_closes: bool,
}

impl Fate {
    /// Both say something and end in order.
    pub(crate) fn orderly(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xfa7e);
        let much = |random: &mut Random| match random.below(4) {
            0 => 0,
            1 => random.below(200),
            2 => random.below(20_000),
            _ => random.below(400_000),
        };
        Self {
            client_says: much(&mut random),
            server_says: much(&mut random),
            fast_open: random.one_in(4),
            preface: [random.below(200), random.below(3000)],
            client_is_unix: random.one_in(4),
            ..Self::default()
        }
    }

    /// Anything may go wrong.
    pub(crate) fn disorderly(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xd150);
        let mut fate = Self::orderly(seed);
        let mut sometimes = |n| random.one_in(n);
        fate.client_stays_open = sometimes(4);
        fate.server_stays_open = sometimes(4);
        fate.client_stops_reading = sometimes(8);
        fate.server_stops_reading = sometimes(8);
        fate.server_leaves = sometimes(4);
        fate.client_is_late = sometimes(16);
        fate.server_is_late = sometimes(16);
        let (client_resets, server_resets) = (sometimes(4), sometimes(4));
        fate.client_resets_after = client_resets.then(|| random.below(fate.client_says + 1));
        fate.server_resets_after = server_resets.then(|| random.below(fate.server_says + 1));
        fate.connects_fail = random.below(4);
        fate.servers_are_full = random.one_in(4);
        fate.servers_stay_full = random.one_in(4);
        fate.preface_is_missing = random.one_in(16);
        fate.preface_is_invalid = random.one_in(16);
        fate.client_is_refused = random.one_in(16);
        fate.client_closes = random.one_in(2);
        fate
    }

    /// Either of these with fewer bytes, for many sessions at once. Their worker tells those that
    /// wait in a queue.
    pub(crate) fn small(seed: u64) -> Self {
        let fate =
            if seed.is_multiple_of(2) { Self::orderly(seed) } else { Self::disorderly(seed) };
        let (client_says, server_says) = (fate.client_says % 60_000, fate.server_says % 60_000);
        Self { client_says, server_says, servers_stay_full: true, ..fate }
    }
}
