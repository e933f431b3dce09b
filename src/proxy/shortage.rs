//! Sessions that wait for a buffer, and what happens when none comes back.

use std::rc::Rc;
use std::time::Duration;

use crate::proxy::io::Event;
use crate::proxy::worker::Running;
use crate::shared::events::WorkerEvent;
use crate::sys::buffer::Supply;

/// How long no buffer may come back while a session waits for one. Bytes that their peer takes are
/// sent within a turn, which is well below a millisecond.
const SHORTAGE_MAX: Duration = Duration::from_millis(100);

impl Running {
    /// Lets those who found no buffer try again, as many as there are buffers now.
    pub(super) fn serve_waiting(&mut self) {
        self.context.ring.provide_buffers();
        let free = usize::from(self.context.ring.buffers().provided());
        if free > 0 || self.context.waiting.is_empty() {
            self.shortage_until = None;
        } else if self.now
            >= *self.shortage_until.get_or_insert_with(|| self.now.after(SHORTAGE_MAX))
        {
            self.shortage_until = None;
            self.close_holders();
        }
        let mut told = 0;
        while told < free {
            let Some((key, side)) = self.context.waiting.pop_front() else { break };
            // One that has ended meanwhile takes no buffer.
            told += usize::from(self.tell(key, Event::BufferFree(side)).is_ok());
        }
    }

    /// Tells every session when the buffers stall: the receives that are armed by then could take
    /// all that is left before their own sessions notice.
    pub(super) fn follow_supply(&mut self) {
        let stalled = self.context.ring.buffers().supply() == Supply::Stalled;
        let worker = Rc::clone(&self.worker);
        let cell = worker.shared.cells.of(worker.index);
        if stalled && cell.buffers_stalled.read() == 0 {
            worker.shared.events.try_send(WorkerEvent::BuffersStalled(worker.index)).ok();
            for slot in 0..self.sessions.capacity() {
                if let Some((key, _)) = self.sessions.at(slot) {
                    self.tell(key, Event::BuffersStalled).ok();
                }
            }
        }
        cell.buffers_stalled.set(stalled.into());
    }

    /// Ends sessions that hold buffers, those first that have moved nothing for longest, until an
    /// eighth of all is free.
    fn close_holders(&mut self) {
        let mut holders = Vec::new();
        for slot in 0..self.sessions.capacity() {
            if let Some((key, live)) = self.sessions.at(slot)
                && live.session.buffers_held() > 0
            {
                holders.push((live.session.last_progress(), key));
            }
        }
        holders.sort_unstable_by_key(|(progress, _)| *progress);
        let wanted = u32::from(self.context.ring.buffers().count() / 8).max(1);
        let (mut freed, mut ended) = (0, 0);
        for (_, key) in holders {
            if freed >= wanted {
                break;
            }
            let Some(live) = self.sessions.get(key) else { continue };
            freed += live.session.buffers_held();
            ended += 1;
            let end = live.session.exhausted();
            self.stop(key, end);
        }
        self.worker
            .shared
            .events
            .try_send(WorkerEvent::BuffersExhausted(self.worker.index, ended))
            .ok();
    }
}
