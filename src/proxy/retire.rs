//! The counts and the log record of a session that has ended, and the gauges of a turn.

use std::sync::Arc;
use std::time::SystemTime;

use crate::proxy::sockets::Live;
use crate::proxy::worker::Running;
use crate::shared::records::SessionRecord;
use crate::terms::{Direction, End, Reason};

impl Running {
    /// Counts a session that has ended, and logs it.
    pub(super) fn retire(&self, live: Live) {
        let Live { session, mut sockets } = live;
        sockets.leave_queue(self.now);
        let end = session.end().unwrap_or(End::new(Reason::Internal, b"ID"));
        let duration = self.now.since(session.started());
        let bytes = Direction::BOTH.map(|direction| {
            // A unix socket discards nothing that was sent to it.
            let keeps = sockets.is_unix(direction.sink());
            if keeps { session.sent(direction) } else { session.delivered(direction) }
        });
        let records = self.worker.shared.records.as_ref();
        let records = records.filter(|records| records.wants(bytes, end.reason));
        let record = records.map(|records| {
            let record = SessionRecord {
                frontend: Arc::clone(sockets.permit.frontend_name()),
                backend: sockets.backend_name(),
                server: sockets.served_by.as_ref().map(|server| Arc::clone(&server.shared.name)),
                client: sockets.address,
                ended: SystemTime::now(),
                duration,
                connect: session.connect_took(),
                retries: session.retries(),
                bytes,
                end,
            };
            (records, record)
        });
        let cell = sockets.permit.cell();
        cell.session_duration.record(duration);
        cell.closed[end.reason as usize].add(1);
        // One active session less, at once, so that opened = closed + active for every reader.
        drop(sockets);
        if let Some((records, record)) = record
            && !records.offer(record)
        {
            self.worker.shared.cells.of(self.worker.index).log_drops.add(1);
        }
    }

    /// Sets the gauges of this worker, once a turn.
    pub(super) fn count_turn(&mut self) {
        let cell = self.worker.shared.cells.of(self.worker.index);
        let buffers = self.context.ring.buffers();
        cell.turns.add(1);
        cell.buffers.set(u64::from(buffers.count()));
        cell.buffers_in_use.set(buffers.held() as u64);
        cell.pipes_in_use.set(self.context.pipes.held() as u64);
        if self.context.ring.overflown() {
            cell.cq_overflows.add(1);
        }
    }
}
