//! The record of one subscriber, shared by the registry, the reader and the writer threads.

use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::Duration;

use super::entries::QueueKey;
use super::queue::Queue;
use super::schedule::Schedule;
use super::{Full, Interrupt, Payload, Popped, Properties, QueueLimits, Wake};
use crate::event::Frame;
use crate::stats::EndCause;
use crate::sync::atomic::{AtomicU8, Ordering::Relaxed, Ordering::SeqCst};
use crate::sync::channel::Sender;

/// The number of a subscriber within its publisher; later subscribers have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SubscriberId(pub(crate) u64);

/// Where a subscriber is, compared with the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// All events are queued for it.
    Live,
    /// It reads its events from the history, so none is queued for it.
    Replaying,
    /// It has seen events elsewhere that the history has yet to receive. Only later ones are queued for it.
    Ahead,
}

/// One subscriber.
// The fields that every event touches come first, close together.
#[repr(C)]
pub(crate) struct Subscriber {
    schedule: Schedule,
    /// A [`Phase`]. Guarded by the ordering lock.
    phase: AtomicU8,
    /// Which hooks may run, as bits. The hook of the end runs after that of the beginning, whichever event comes first.
    hooks_called: AtomicU8,
    queue: Queue,
    /// The socket where the stream may be parked or blocked. Weak, since the descriptor must be free as soon as the
    /// stream is over.
    socket: OnceLock<Weak<dyn Interrupt>>,
    id: SubscriberId,
    properties: Properties,
    quota_key: Option<Arc<str>>,
    /// The channels that it was in when it left, if that was before the hook of its beginning was called.
    left_channels: OnceLock<Box<[Arc<str>]>>,
}

impl Subscriber {
    const OPENED: u8 = 0b01;
    const LEFT: u8 = 0b10;

    /// Creates a record whose reader waits at the other half of this bell.
    pub(crate) fn new(
        id: SubscriberId,
        properties: Properties,
        quota_key: Option<Arc<str>>,
        limits: Arc<QueueLimits>,
        bell: Sender<()>,
    ) -> Arc<Self> {
        Arc::new(Self {
            schedule: Schedule::new(),
            phase: AtomicU8::new(Phase::Live as u8),
            hooks_called: AtomicU8::new(0),
            queue: Queue::new(limits, bell),
            socket: OnceLock::new(),
            id,
            properties,
            quota_key,
            left_channels: OnceLock::new(),
        })
    }

    pub(crate) fn id(&self) -> SubscriberId {
        self.id
    }

    pub(crate) fn properties(&self) -> &Properties {
        &self.properties
    }

    pub(crate) fn limits(&self) -> &Arc<QueueLimits> {
        self.queue.limits()
    }

    pub(crate) fn quota_key(&self) -> Option<&Arc<str>> {
        self.quota_key.as_ref()
    }

    /// Pushes a payload within the limits, and moves what it drops to make room into `dropped`. Returns the reader to
    /// wake.
    pub(crate) fn push(
        &self,
        payload: &Payload,
        key: Option<&QueueKey>,
        dropped: &mut Vec<Payload>,
    ) -> Result<Option<Wake>, Full> {
        self.queue.push(payload, key, dropped, &self.schedule)
    }

    /// Pushes a payload regardless of the limits. Returns the reader to wake.
    pub(crate) fn push_beyond_limits(&self, payload: Payload) -> Option<Wake> {
        self.queue.push_beyond_limits(payload, &self.schedule)
    }

    /// Pops the next payload. A closure stays queued unless callbacks are allowed.
    pub(crate) fn pop(&self, allow_callbacks: bool) -> Popped {
        self.queue.pop(allow_callbacks)
    }

    /// Leaves the queued payloads until the reader pops again: a push does not wake it. Returns `false` if the stream has
    /// ended.
    pub(crate) fn pause(&self) -> bool {
        self.queue.pause()
    }

    /// Ends the stream after its queued payloads. If it has ended already, the earlier cause remains. Returns the
    /// reader to wake.
    pub(crate) fn close(&self, cause: EndCause) -> Option<Wake> {
        self.queue.close(cause, &self.schedule)
    }

    /// Ends the stream at once, or with this frame if it is not blocked. If it has ended already, the earlier cause
    /// remains. Returns the queued payloads, to be dropped without a lock, and the reader to wake.
    ///
    /// The caller must then call [`interrupt`](Self::interrupt) without a lock, unless it owns the stream.
    pub(crate) fn abort(&self, cause: EndCause, farewell: Option<Frame>) -> (Vec<Payload>, Option<Wake>) {
        self.queue.abort(cause, farewell, &self.schedule)
    }

    /// Frees the stream if it is parked, or blocked in a write: its socket may never take more.
    pub(crate) fn interrupt(&self) {
        if let Some(socket) = self.socket.get().and_then(Weak::upgrade) {
            socket.interrupt();
        }
    }

    /// Sets the socket where the stream may be parked or blocked.
    pub(crate) fn set_socket(&self, socket: Arc<dyn Interrupt>) {
        let _ = self.socket.set(Arc::downgrade(&socket));
    }

    /// Returns why the stream has ended or is about to, even if its reader has not reached the end.
    pub(crate) fn end_cause(&self) -> Option<EndCause> {
        self.queue.end()
    }

    /// Returns whether nothing more may be delivered but what the queue then holds.
    pub(crate) fn is_aborted(&self) -> bool {
        self.queue.is_aborted()
    }

    /// Returns the number of queued payloads.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            phase if phase == Phase::Live as u8 => Phase::Live,
            phase if phase == Phase::Replaying as u8 => Phase::Replaying,
            _ => Phase::Ahead,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    pub(crate) fn has_room(&self, size: usize) -> bool {
        self.queue.has_room(size)
    }

    /// Marks that a publisher waits for room. Returns whether a payload of this size fits already.
    pub(crate) fn await_room(&self, size: usize) -> bool {
        self.queue.set_publisher_waits(true, size)
    }

    /// Marks that no publisher waits for room.
    pub(crate) fn stop_awaiting_room(&self) {
        self.queue.set_publisher_waits(false, 0);
    }

    /// Returns whether a full queue drops its oldest payloads.
    pub(crate) fn drops_oldest(&self) -> bool {
        self.queue.drops_oldest()
    }

    /// Returns how long a publisher waits for room, if it does.
    pub(crate) fn block_timeout(&self) -> Option<Duration> {
        self.queue.block_timeout()
    }

    /// Makes the writer threads listen to the queue. The stream's first pass must follow.
    pub(crate) fn listen_in_background(&self) {
        self.queue.listen_in_background();
    }

    /// Marks the stream as idle, after its queue was seen empty, and keeps `waker` to wake it. Returns the waker if the
    /// stream was notified meanwhile; the caller then still owns the stream.
    pub(crate) fn finish(&self, waker: Waker) -> Result<(), Waker> {
        self.queue.finish(waker, &self.schedule)
    }

    /// Removes the queue's listener.
    pub(crate) fn stop_listening(&self) {
        self.queue.stop_listening();
    }

    pub(crate) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Marks that the hook of the beginning was called. If the subscriber has left meanwhile, returns the channels that
    /// it was in, and the caller must call the hook of the end.
    pub(crate) fn mark_opened(&self) -> Option<&[Arc<str>]> {
        let has_left = self.hooks_called.fetch_or(Self::OPENED, SeqCst) & Self::LEFT != 0;
        has_left.then(|| &**self.left_channels.get().expect("BUG: a subscriber left without its channels"))
    }

    /// Marks that the subscriber has left these channels. Returns whether the caller must call the hook of the end. If
    /// not, the thread that opens the subscription calls it.
    pub(crate) fn mark_left(&self, channels: &[Arc<str>]) -> bool {
        if self.hooks_called.load(SeqCst) & Self::OPENED == 0 {
            let _ = self.left_channels.set(channels.into());
        }
        self.hooks_called.fetch_or(Self::LEFT, SeqCst) & Self::OPENED != 0
    }
}
