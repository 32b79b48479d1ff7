//! The slots of streams that begin: a client can block a first write for as long as it likes.

// A response on a connection of a server like tiny_http waits for the request's body, and for the responses to earlier
// requests on that connection. This crate cannot end such a write. So a stream needs a slot for its first pass, and
// blocked first passes never occupy all threads:
//
//     recent    first passes that began within the last second, or are about to: at most a quarter of the threads
//     all       these, and those that take longer and count as blocked: at most half of the threads
//
// The other streams wait in order. A stream stops waiting when it gets a slot, is disconnected, or has waited for its
// write timeout. Once blocked streams occupy all slots, a slot becomes free only if one of their writes ends. Then a
// stream whose writer can refuse no longer waits, and adapters refuse later streams.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::stream::Stream;
use crate::sync::atomic::Ordering::SeqCst;

/// The slots of streams whose first pass is under way, and the streams that wait for one.
pub(super) struct StartSlots {
    max: usize,
    max_recent: usize,
    taken: Vec<Slot>,
    waiting: VecDeque<Waiting>,
}

struct Slot {
    stream: Arc<Stream>,
    /// The time at which the pass began; `None` if the stream got the slot while it waited and has not begun.
    begun: Option<u64>,
}

struct Waiting {
    stream: Arc<Stream>,
    since: u64,
}

impl StartSlots {
    /// The time after which a first pass counts as blocked.
    const LONG: Duration = Duration::from_secs(1);

    pub(super) fn new(max_threads: usize) -> Self {
        let (max, max_recent) = ((max_threads / 2).max(1), (max_threads / 4).max(1));
        Self { max, max_recent, taken: Vec::new(), waiting: VecDeque::new() }
    }

    /// Takes a slot for the stream. Without a free slot, returns `false`, and the stream waits.
    pub(super) fn take(&mut self, stream: &Arc<Stream>, now: u64) -> bool {
        if let Some(slot) = self.taken.iter_mut().find(|slot| Arc::ptr_eq(&slot.stream, stream)) {
            slot.begun = Some(now);
            return true;
        }
        let stream = Arc::clone(stream);
        if self.waiting.is_empty() && self.has_free_slot(now) {
            self.taken.push(Slot { stream, begun: Some(now) });
            return true;
        }
        self.waiting.push_back(Waiting { stream, since: now });
        false
    }

    /// Releases the stream's slot. Returns the streams that may begin now.
    pub(super) fn release(&mut self, stream: &Arc<Stream>, now: u64) -> Vec<Arc<Stream>> {
        self.taken.retain(|slot| !Arc::ptr_eq(&slot.stream, stream));
        self.grant(now)
    }

    /// Gives free slots to waiting streams, and returns these streams.
    pub(super) fn grant(&mut self, now: u64) -> Vec<Arc<Stream>> {
        let mut granted = Vec::new();
        while self.has_free_slot(now)
            && let Some(Waiting { stream, .. }) = self.waiting.pop_front()
        {
            self.taken.push(Slot { stream: Arc::clone(&stream), begun: None });
            granted.push(stream);
        }
        granted
    }

    /// Removes and returns the streams that must no longer wait. A stream that has not left by itself is marked as timed
    /// out.
    pub(super) fn stop_waiting(&mut self, now: u64) -> Vec<Arc<Stream>> {
        let are_all_blocked = self.are_all_blocked(now);
        let mut left = Vec::new();
        self.waiting.retain(|Waiting { stream, since }| {
            let waited = Duration::from_micros(now.saturating_sub(*since));
            let times_out =
                are_all_blocked && stream.can_refuse || stream.write_timeout.is_some_and(|timeout| timeout <= waited);
            let is_aborted = stream.subscriber.is_aborted();
            if !is_aborted && !times_out {
                return true;
            }
            stream.timed_out.store(!is_aborted, SeqCst);
            left.push(Arc::clone(stream));
            false
        });
        left
    }

    /// Returns whether blocked streams occupy all slots.
    pub(super) fn are_all_blocked(&self, now: u64) -> bool {
        self.taken.len() >= self.max && self.recent(now) == 0
    }

    fn has_free_slot(&self, now: u64) -> bool {
        self.taken.len() < self.max && self.recent(now) < self.max_recent
    }

    fn recent(&self, now: u64) -> usize {
        let is_recent =
            |slot: &&Slot| slot.begun.is_none_or(|begun| Duration::from_micros(now.saturating_sub(begun)) < Self::LONG);
        self.taken.iter().filter(is_recent).count()
    }
}
