//! One subscriber's queue: its payloads within limits, and its listener.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::entries::{Entries, QueueKey};
use super::schedule::Schedule;
use super::{Overflow, Payload, race_window};
use crate::event::Frame;
use crate::stats::EndCause;
use crate::sync::{Mutex, channel::Sender};

/// The limits of one subscriber's queue, and what happens above them.
#[derive(Clone, Debug)]
pub(crate) struct QueueLimits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) overflow: Overflow,
}

/// The payload does not fit, and the queue may not drop others for it.
#[derive(Debug)]
pub(crate) struct Full;

/// The result of [`Queue::pop`].
pub(crate) enum Popped {
    Payload {
        /// The number of payloads that were dropped since the one before.
        lost: u64,
        payload: Payload,
        /// `true` if a publisher waits for the room that this has made.
        publisher_waits: bool,
    },
    /// The next payload is a closure, and callbacks are not allowed.
    NeedsCall,
    Empty,
    Ended,
}

/// The reader to wake. The caller must hold no lock.
#[must_use = "a stream that is not woken never continues"]
pub(crate) enum Wake {
    /// A thread that may wait at its subscription's bell.
    Bell(Sender<()>),
    /// A stream to put on the run queue.
    Stream(Waker),
}

impl Wake {
    pub(crate) fn wake(self) {
        match self {
            // A full bell has rung already.
            Self::Bell(bell) => drop(bell.try_send(())),
            Self::Stream(waker) => waker.wake(),
        }
    }
}

/// The reader of the queue.
enum Listener {
    /// A thread that waits at the other half of this bell after it has seen the queue empty.
    Bell {
        bell: Sender<()>,
        /// `true` if the thread has seen the queue empty, and nothing has changed since. If not, the thread looks again
        /// without a ring.
        saw_empty: bool,
    },
    /// The writer threads. While the stream is idle, the waker is here. It moves to the run queue when the stream is
    /// woken, and returns at the end of the pass. So publishers touch only this queue, and nothing else of the stream.
    Background(Option<Waker>),
    /// No reader: the stream is over.
    Gone,
}

/// The payloads that are queued for one subscriber.
///
/// | guarded by the lock | changed by |
/// |---|---|
/// | the entries, their bytes, the losses | publishers, under the ordering lock; the reader |
/// | the end | the caller that removes the subscriber from the registry; a stream or a shutdown that aborts it later |
/// | the listener | the subscription, and the stream that it becomes |
/// | whether a publisher waits for room | publishers, under the ordering lock |
///
/// The lock is held for a few steps only, and never while a thread waits. Publishers push under the ordering lock, so
/// that lock is taken first.
pub(super) struct Queue {
    buffer: Mutex<Buffer>,
    /// Shared, since most subscribers of a publisher have equal limits.
    limits: Arc<QueueLimits>,
}

struct Buffer {
    entries: Entries,
    bytes: usize,
    /// The number of entries that were dropped since one was popped.
    lost: u64,
    end: Option<EndCause>,
    /// `true` if the stream ends at once. The entries then hold its last frame, if it has one.
    aborted: bool,
    publisher_waits: bool,
    /// `true` while the reader leaves what is queued until a time of its own. Then only the end wakes it.
    paused: bool,
    listener: Listener,
}

impl Queue {
    pub(super) fn new(limits: Arc<QueueLimits>, bell: Sender<()>) -> Self {
        let entries = match limits.overflow {
            Overflow::LatestPerKey => Entries::keyed(),
            Overflow::Disconnect | Overflow::DropOldest | Overflow::Block(_) => Entries::fifo(),
        };
        let buffer = Buffer {
            entries,
            bytes: 0,
            lost: 0,
            end: None,
            aborted: false,
            publisher_waits: false,
            paused: false,
            listener: Listener::Bell { bell, saw_empty: false },
        };
        Self { buffer: Mutex::new(buffer), limits }
    }

    /// Pushes a payload within the limits, and moves what it drops to make room into `dropped`. Returns the reader to
    /// wake.
    pub(super) fn push(
        &self,
        payload: &Payload,
        key: Option<&QueueKey>,
        dropped: &mut Vec<Payload>,
        schedule: &Schedule,
    ) -> Result<Option<Wake>, Full> {
        let mut buffer = self.buffer.lock();
        let key = key.filter(|_| matches!(buffer.entries, Entries::Keyed(_)));
        if let Some((replaced, size)) = key.and_then(|key| buffer.entries.remove(key)) {
            buffer.bytes -= size;
            dropped.push(replaced);
        }
        let size = payload.size() + key.map_or(0, |key| key.key.len());
        if self.drops_oldest() {
            while !buffer.has_room(size, &self.limits) {
                dropped.push(buffer.take_first().expect("BUG: an empty queue has no room"));
                buffer.lost += 1;
            }
        }
        if !buffer.has_room(size, &self.limits) {
            return Err(Full);
        }
        buffer.put(payload.clone(), key, size);
        Ok(buffer.take_wake(schedule))
    }

    /// Pushes a payload regardless of the limits. Returns the reader to wake.
    pub(super) fn push_beyond_limits(&self, payload: Payload, schedule: &Schedule) -> Option<Wake> {
        let mut buffer = self.buffer.lock();
        let size = payload.size();
        buffer.put(payload, None, size);
        buffer.take_wake(schedule)
    }

    /// Pops the next payload. A closure stays queued unless callbacks are allowed.
    pub(super) fn pop(&self, allow_callbacks: bool) -> Popped {
        let mut buffer = self.buffer.lock();
        buffer.paused = false;
        if !allow_callbacks && matches!(buffer.entries.first(), Some(Payload::Closure(_))) {
            return Popped::NeedsCall;
        }
        let Some(payload) = buffer.take_first() else {
            if buffer.end.is_some() {
                return Popped::Ended;
            }
            if let Listener::Bell { saw_empty, .. } = &mut buffer.listener {
                *saw_empty = true;
            }
            return Popped::Empty;
        };
        let lost = std::mem::take(&mut buffer.lost);
        let publisher_waits = buffer.publisher_waits;
        drop(buffer);
        race_window();
        Popped::Payload { lost, payload, publisher_waits }
    }

    /// Leaves the payloads in the queue until the reader pops again: a push does not wake it. Returns `false` if the queue
    /// has ended.
    pub(super) fn pause(&self) -> bool {
        let mut buffer = self.buffer.lock();
        if buffer.end.is_some() {
            return false;
        }
        buffer.paused = true;
        if let Listener::Bell { saw_empty, .. } = &mut buffer.listener {
            // So that the end rings the bell.
            *saw_empty = true;
        }
        true
    }

    /// Ends the queue after its payloads. If the queue has ended already, the earlier cause remains. Returns the reader
    /// to wake.
    pub(super) fn close(&self, cause: EndCause, schedule: &Schedule) -> Option<Wake> {
        let mut buffer = self.buffer.lock();
        buffer.end.get_or_insert(cause);
        buffer.publisher_waits = false;
        buffer.listener.take_wake(schedule)
    }

    /// Ends the queue at once, and leaves only this frame in it. If the queue has ended already, the earlier cause
    /// remains. Returns the queued payloads, to be dropped without a lock, and the reader to wake.
    pub(super) fn abort(
        &self,
        cause: EndCause,
        farewell: Option<Frame>,
        schedule: &Schedule,
    ) -> (Vec<Payload>, Option<Wake>) {
        let mut buffer = self.buffer.lock();
        buffer.end.get_or_insert(cause);
        (buffer.aborted, buffer.publisher_waits) = (true, false);
        (buffer.bytes, buffer.lost) = (0, 0);
        let payloads = buffer.entries.take_all();
        if let Some(frame) = farewell {
            let size = frame.len();
            buffer.put(Payload::Frame(frame), None, size);
        }
        (payloads, buffer.listener.take_wake(schedule))
    }

    pub(super) fn end(&self) -> Option<EndCause> {
        self.buffer.lock().end
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.buffer.lock().aborted
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.lock().entries.len()
    }

    /// Returns whether a payload of this size fits. An empty queue takes any size. Otherwise a large event would
    /// disconnect even subscribers that keep up.
    pub(super) fn has_room(&self, size: usize) -> bool {
        self.buffer.lock().has_room(size, &self.limits)
    }

    /// Sets whether a publisher waits for room. Returns whether a payload of this size fits already.
    pub(super) fn set_publisher_waits(&self, waits: bool, size: usize) -> bool {
        let mut buffer = self.buffer.lock();
        buffer.publisher_waits = waits;
        buffer.has_room(size, &self.limits)
    }

    pub(super) fn limits(&self) -> &Arc<QueueLimits> {
        &self.limits
    }

    pub(super) fn drops_oldest(&self) -> bool {
        self.limits.overflow == Overflow::DropOldest
    }

    /// Returns how long a publisher waits for room, if it does.
    pub(super) fn block_timeout(&self) -> Option<Duration> {
        if let Overflow::Block(timeout) = self.limits.overflow { Some(timeout) } else { None }
    }

    /// Lets the writer threads read the queue from now on. The caller must own the stream.
    pub(super) fn listen_in_background(&self) {
        let bell = std::mem::replace(&mut self.buffer.lock().listener, Listener::Background(None));
        drop(bell);
    }

    /// Marks the stream as idle, after its queue was seen empty, and keeps `waker` to wake it. Returns the waker if the
    /// stream was notified meanwhile; the caller then still owns the stream.
    pub(super) fn finish(&self, waker: Waker, schedule: &Schedule) -> Result<(), Waker> {
        let mut buffer = self.buffer.lock();
        if !schedule.finish() {
            return Err(waker);
        }
        // An old waker is left if the supervisor woke the stream by a reference of its own.
        let old = std::mem::replace(&mut buffer.listener, Listener::Background(Some(waker)));
        drop(buffer);
        drop(old);
        Ok(())
    }

    /// Removes the listener. Its waker refers to this queue's stream: dropping it breaks the cycle.
    pub(super) fn stop_listening(&self) {
        let listener = std::mem::replace(&mut self.buffer.lock().listener, Listener::Gone);
        drop(listener);
    }
}

impl Listener {
    /// Returns the reader to wake after a change, if it would not look at the queue by itself.
    fn take_wake(&mut self, schedule: &Schedule) -> Option<Wake> {
        match self {
            Self::Bell { bell, saw_empty } => std::mem::take(saw_empty).then(|| Wake::Bell(bell.clone())),
            Self::Background(waker) => {
                race_window();
                schedule.notify().then(|| Wake::Stream(waker.take().expect("BUG: an idle stream has no waker")))
            }
            Self::Gone => None,
        }
    }
}

impl Buffer {
    fn has_room(&self, size: usize, limits: &QueueLimits) -> bool {
        let events = self.entries.len();
        events == 0 || (events < limits.events && self.bytes + size <= limits.bytes)
    }

    /// Returns the reader to wake after a push, if it would not look at the queue by itself.
    fn take_wake(&mut self, schedule: &Schedule) -> Option<Wake> {
        if self.paused { None } else { self.listener.take_wake(schedule) }
    }

    /// Appends the payload. No other payload of its key may be queued.
    fn put(&mut self, payload: Payload, key: Option<&QueueKey>, size: usize) {
        self.bytes += size;
        self.entries.put(payload, key, size);
    }

    fn take_first(&mut self) -> Option<Payload> {
        let (payload, size) = self.entries.take_first()?;
        self.bytes -= size;
        Some(payload)
    }
}

#[cfg(test)]
mod tests;
