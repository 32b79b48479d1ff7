//! A thread that takes the frames one by one, and waits for the next one at the subscription's bell.

use super::{FrameSource, Next};
use crate::deliver::outcome::{NoFrame, Wait};
use crate::event::{self, Frame};

impl FrameSource {
    /// Returns the next frame, for a reader that takes frames one by one. Waits for it up to `wait`.
    pub(crate) fn take(&mut self, wait: Wait) -> Result<Frame, NoFrame> {
        let next = self.wait_for(wait);
        self.count_delivered();
        next
    }

    /// Returns the next frame, or a heartbeat if one is due. Waits for it up to `wait`.
    pub(crate) fn wait_for(&mut self, wait: Wait) -> Result<Frame, NoFrame> {
        loop {
            let mut next = self.next(true);
            let now = self.clock.now();
            self.expire(now);
            // A skipped event does not break the silence: the client sees nothing of it.
            let is_silent = matches!(next, Next::Skipped | Next::Empty | Next::Paused);
            if is_silent && self.heartbeat_due().is_some_and(|due| due <= now) {
                next = self.next_or_heartbeat();
            }
            match next {
                Next::Frame(frame) => {
                    self.taken = now;
                    return Ok(frame);
                }
                Next::Ended => return Err(NoFrame::Ended),
                Next::Skipped | Next::Empty | Next::Paused => {}
                Next::NeedsCall => unreachable!("BUG: callbacks are allowed"),
            }
            let must_wait = matches!(next, Next::Empty | Next::Paused);
            match wait {
                Wait::Not if must_wait => return Err(NoFrame::Timeout),
                Wait::Until(deadline) if deadline <= now => return Err(NoFrame::Timeout),
                _ if must_wait => self.wait_at_bell(wait, matches!(next, Next::Paused)),
                _ => {}
            }
        }
    }

    /// Returns the next thing for a subscriber whose heartbeat is due: the heartbeat, unless a frame has come meanwhile.
    fn next_or_heartbeat(&mut self) -> Next {
        let heartbeat = self.make_heartbeat();
        match self.next(true) {
            Next::Empty => Next::Frame(self.send_heartbeat(heartbeat)),
            // The stream has not been sent everything up to the ID that the other heartbeat may have.
            Next::Paused => Next::Frame(event::heartbeat(self.heartbeat_style)),
            next => next,
        }
    }

    /// Blocks until the queue changes, the wait is over, or a heartbeat or the end of the lifetime is due. If the queue
    /// is paused, blocks until the pause is over instead of until an event is queued.
    fn wait_at_bell(&self, wait: Wait, is_paused: bool) {
        let opens = if is_paused { self.pause() } else { None };
        if is_paused && opens.is_none() {
            return;
        }
        let bell = self.bell.as_ref().expect("BUG: a stream in the background has no bell");
        let deadline = if let Wait::Until(deadline) = wait { Some(deadline) } else { None };
        // The bell is disconnected when the queue no longer listens. Then there is nothing to wait for.
        match deadline.into_iter().chain(opens).chain(self.heartbeat_due()).chain(self.expires).min() {
            Some(until) => drop(bell.recv_deadline(self.clock.wait_until(until))),
            None => drop(bell.recv()),
        }
    }
}
