//! The receiving half: blocking iterator, heartbeat, end, Drop.

use std::any::Any;
use std::fmt;
use std::io::{self, Write};
use std::iter::FusedIterator;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::error::{NextTimeoutError, TryNextError};
use crate::event::{self, Event, Frame};
use crate::stats::{Counters, EndCause};

/// What the application says about one subscriber, without its type: only `publisher.rs` knows that.
pub(crate) type Properties = Arc<dyn Any + Send + Sync>;

/// Names one subscriber of one publisher; later ones have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SubscriberId(pub(crate) u64);

/// What a subscription needs of whoever registered it.
pub(crate) trait Owner: Send + Sync {
    /// Takes the subscriber out of the registry, at once, and counts the cause.
    ///
    /// Called exactly once, without any lock, when the subscription is dropped. The subscriber may have left
    /// before, in which case nothing is done or counted.
    fn leave(&self, subscriber: SubscriberId, cause: EndCause);
}

/// What `publish_with` was given, without the properties' type.
type Closure = dyn Fn(&dyn Any) -> Option<Event> + Send + Sync;

/// An event that each subscriber gets rendered for its own properties, on the thread that takes it out of
/// the queue.
pub(crate) struct Render {
    closure: Box<Closure>,
    size: usize,
}

impl Render {
    pub(crate) fn new<F>(closure: F) -> Self
    where
        F: Fn(&dyn Any) -> Option<Event> + Send + Sync + 'static,
    {
        // What the closure's captures own elsewhere cannot be known; the bound by frames holds for those.
        let size = size_of::<Self>() + size_of::<F>();
        Self { closure: Box::new(closure), size }
    }

    /// `None` skips the subscriber. A panic costs it this event, of which the frame then tells it.
    fn frame(&self, properties: &Properties, counters: &Counters) -> Option<Frame> {
        // Unwind safety: what a broken closure leaves behind is its own captures, which it asked for by
        // being `Sync`; nothing of ours is borrowed mutably across the call.
        match catch_unwind(AssertUnwindSafe(|| (self.closure)(&**properties))) {
            Ok(event) => event.map(|event| event.encode()),
            Err(payload) => {
                counters.count_panicked();
                // A payload is the application's value: its `Drop` may panic too, and must not end the stream.
                if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                    std::mem::forget(again);
                }
                Some(event::gap())
            }
        }
    }
}

/// What waits in a queue. Small, because each subscriber has a block of 31 of them from its first event on:
/// 1,500 bytes with items of 16 bytes, 2,240 with 40. A test holds it to that.
#[derive(Clone)]
pub(crate) enum Item {
    Frame(Frame),
    Render(Arc<Render>),
    /// The last item. It travels in the queue, so that whoever waits there sees it after all that was
    /// queued before, and needs no second thing to wait for.
    End(EndCause),
}

impl Item {
    /// The bytes that count towards the queue's bound.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Render(render) => render.size,
            Self::End(_) => 0,
        }
    }
}

/// How much may wait for one subscriber.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueBounds {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

/// One subscriber's queue: the registry holds it to put items in, the subscription to take them out.
///
/// Both halves of the channel are in it, so it never disconnects: a stream ends by `Item::End` and by
/// nothing else. The channel is unbounded, since crossbeam allocates all slots of a bounded one at once
/// (1.5 MB for 65,536); the bound is kept by asking `has_room` before `push`, both under the registry's lock.
pub(crate) struct Queue {
    sender: Sender<Item>,
    receiver: Receiver<Item>,
    /// The size of all items that wait. Added to before an item can be taken, subtracted from after.
    bytes: AtomicUsize,
    /// Set when the stream ends at once: nothing that is still queued may be delivered.
    cut: OnceLock<EndCause>,
}

impl Queue {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = unbounded();
        Self { sender, receiver, bytes: AtomicUsize::new(0), cut: OnceLock::new() }
    }

    /// Whether an item of this size still fits. An empty queue has room for any, or one large event would
    /// end even those who keep up.
    pub(crate) fn has_room(&self, size: usize, bounds: QueueBounds) -> bool {
        let waiting = self.receiver.len();
        waiting == 0 || (waiting < bounds.frames && self.bytes.load(Relaxed).saturating_add(size) <= bounds.bytes)
    }

    pub(crate) fn push(&self, item: Item) {
        self.bytes.fetch_add(item.size(), Relaxed);
        self.sender.send(item).expect("BUG: a queue holds its own receiver");
    }

    /// Ends the stream at once. `throw_away` must follow, without the lock.
    pub(crate) fn cut(&self, cause: EndCause) {
        let first = self.cut.set(cause);
        debug_assert!(first.is_ok(), "BUG: a subscriber left the registry twice");
    }

    /// Drops what a cut queue holds, so that its memory is back even while the reader hangs in a write, and
    /// wakes the reader. Nothing is pushed any more: the subscriber has left the registry.
    ///
    /// The reader may take items at the same time, and so see one behind some that were dropped here. It
    /// delivers none of them, because it looks at `cut` after each take: the flag was set before the first
    /// drop, and both sides take through the same atomic head of the channel.
    pub(crate) fn throw_away(&self) {
        while let Ok(item) = self.receiver.try_recv() {
            self.bytes.fetch_sub(item.size(), Relaxed);
        }
        self.push(Item::End(*self.cut.get().expect("BUG: thrown away without a cut")));
    }

    /// The next item, waiting for it as `wait` says; `None` when none came in that time.
    fn take(&self, wait: Wait) -> Option<Item> {
        let item = match self.receiver.try_recv() {
            Ok(item) => item,
            Err(_) => match wait {
                Wait::Not => return None,
                Wait::Until(deadline) => self.receiver.recv_deadline(deadline).ok()?,
                Wait::Forever => self.receiver.recv().expect("BUG: a queue holds its own sender"),
            },
        };
        self.bytes.fetch_sub(item.size(), Relaxed);
        match self.cut.get() {
            Some(cause) => Some(Item::End(*cause)),
            None => Some(item),
        }
    }
}

/// How long to wait for the next frame.
#[derive(Clone, Copy)]
enum Wait {
    Not,
    Until(Instant),
    Forever,
}

/// Why there is no next frame.
enum Nothing {
    /// None came in the time given.
    Yet,
    /// The stream has ended.
    More,
}

/// The receiving half: a blocking iterator over the frames of one subscriber.
///
/// Each item is one event or comment, encoded, ready to be written to a response body. The iterator blocks
/// until there is one, and ends when [the stream does](EndCause); then [`end_cause`](Self::end_cause) says why.
/// When nothing came for the heartbeat's interval (15 s by default), it gives a comment, so that a server
/// notices a client that has gone and a proxy keeps the connection.
///
/// Dropping it takes the subscriber out of the publisher at once. It does not keep the publisher alive.
///
/// ```
/// use server_sent_events::Publisher;
///
/// let publisher = Publisher::new();
/// let subscription = publisher.subscribe()?;
/// publisher.publish("one");
/// publisher.publish("two");
/// publisher.close();
/// assert_eq!(subscription.collect::<Vec<_>>(), ["data: one\n\n", "data: two\n\n"]);
/// # Ok::<(), server_sent_events::OpenError>(())
/// ```
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    owner: Weak<dyn Owner>,
    id: SubscriberId,
    properties: Properties,
    queue: Arc<Queue>,
    /// What comes before the queue, and does not count towards its bounds.
    first: std::vec::IntoIter<Frame>,
    heartbeat: Option<Duration>,
    /// When a frame was taken last: the heartbeat is counted from there.
    taken: Instant,
    ended: Option<EndCause>,
    counters: Arc<Counters>,
}

/// What a subscription is made of; `publisher.rs` puts it together.
pub(crate) struct Parts {
    pub(crate) owner: Weak<dyn Owner>,
    pub(crate) id: SubscriberId,
    pub(crate) properties: Properties,
    pub(crate) queue: Arc<Queue>,
    pub(crate) first: Vec<Frame>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) counters: Arc<Counters>,
}

impl Subscription {
    /// How much one write carries at the most, unless a single frame is larger: past it, copying costs more
    /// than the next system call.
    const BATCH: usize = 64 * 1024;

    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { owner, id, properties, queue, first, heartbeat, counters } = parts;
        let first = first.into_iter();
        Self { owner, id, properties, queue, first, heartbeat, taken: Instant::now(), ended: None, counters }
    }

    /// The next frame without a copy of its text; blocks as the iterator does, `None` when the stream has ended.
    ///
    /// ```
    /// # let publisher = server_sent_events::Publisher::new();
    /// # let mut subscription = publisher.subscribe()?;
    /// publisher.publish("hello");
    /// assert_eq!(subscription.next_frame().unwrap(), "data: hello\n\n");
    /// publisher.close();
    /// assert_eq!(subscription.next_frame(), None);
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.take(Wait::Forever).ok()
    }

    /// The next frame, if one is there within this time; blocks that long at the most.
    ///
    /// # Errors
    ///
    /// Says whether the time is over or the stream.
    ///
    /// ```
    /// # use {server_sent_events::{NextTimeoutError, Publisher}, std::time::Duration};
    /// # let publisher = Publisher::new();
    /// # let mut subscription = publisher.subscribe()?;
    /// assert_eq!(subscription.next_timeout(Duration::from_millis(1)), Err(NextTimeoutError::Timeout));
    /// publisher.publish("hello");
    /// assert_eq!(subscription.next_timeout(Duration::from_millis(1)).unwrap(), "data: hello\n\n");
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<String, NextTimeoutError> {
        self.next_frame_timeout(timeout).map(String::from)
    }

    /// [`next_timeout`](Self::next_timeout) without a copy of the text.
    ///
    /// # Errors
    ///
    /// Says whether the time is over or the stream.
    pub fn next_frame_timeout(&mut self, timeout: Duration) -> Result<Frame, NextTimeoutError> {
        // A time so long that no clock shows its end is no bound at all.
        let wait = Instant::now().checked_add(timeout).map_or(Wait::Forever, Wait::Until);
        self.take(wait).map_err(|nothing| match nothing {
            Nothing::Yet => NextTimeoutError::Timeout,
            Nothing::More => NextTimeoutError::Ended,
        })
    }

    /// The next frame, if one is there already; never blocks.
    ///
    /// # Errors
    ///
    /// Says whether nothing is there yet or the stream has ended.
    ///
    /// ```
    /// # use server_sent_events::{Publisher, TryNextError};
    /// # let publisher = Publisher::new();
    /// # let mut subscription = publisher.subscribe()?;
    /// assert_eq!(subscription.try_next(), Err(TryNextError::Empty));
    /// publisher.close();
    /// assert_eq!(subscription.try_next(), Err(TryNextError::Ended));
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn try_next(&mut self) -> Result<String, TryNextError> {
        self.try_next_frame().map(String::from)
    }

    /// [`try_next`](Self::try_next) without a copy of the text.
    ///
    /// # Errors
    ///
    /// Says whether nothing is there yet or the stream has ended.
    pub fn try_next_frame(&mut self) -> Result<Frame, TryNextError> {
        self.take(Wait::Not).map_err(|nothing| match nothing {
            Nothing::Yet => TryNextError::Empty,
            Nothing::More => TryNextError::Ended,
        })
    }

    /// Why the stream ended, once the iterator has given its last item; `None` before.
    pub fn end_cause(&self) -> Option<EndCause> {
        self.ended
    }

    /// Writes the stream to this writer until it ends: this thread is the connection's thread.
    ///
    /// Blocks until the stream ends, and returns why it did. Frames that wait together are written together,
    /// up to 64 KiB, with one `write_all` and one `flush`, so an event never waits for a later one. The bytes
    /// are the bare event stream: the response's head and any framing are the caller's.
    ///
    /// # Errors
    ///
    /// The writer's error, as it came; most often the client has gone. The subscription is over then.
    ///
    /// ```
    /// use server_sent_events::{EndCause, Publisher};
    ///
    /// let publisher = Publisher::new();
    /// let subscription = publisher.subscribe()?;
    /// publisher.publish("hello");
    /// publisher.close();
    /// let mut body = Vec::new();
    /// assert_eq!(subscription.write_to(&mut body)?, EndCause::Closed);
    /// assert_eq!(body, b"data: hello\n\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_to(mut self, mut writer: impl Write) -> io::Result<EndCause> {
        let mut batch = Vec::new();
        loop {
            let ended = self.next_batch(&mut batch);
            if !batch.is_empty() {
                writer.write_all(&batch)?;
                writer.flush()?;
            }
            if let Some(cause) = ended {
                return Ok(cause);
            }
            batch.clear();
            // A quiet stream should not hold what its busiest moment took.
            batch.shrink_to(4096);
        }
    }

    /// Blocks until a frame is there, and appends it and what else waits behind it. Returns the cause once
    /// the stream has ended, with the last frames appended.
    pub(crate) fn next_batch(&mut self, batch: &mut Vec<u8>) -> Option<EndCause> {
        let mut wait = Wait::Forever;
        let full = batch.len() + Self::BATCH;
        while batch.len() < full {
            match self.take(wait) {
                Ok(frame) => batch.extend_from_slice(frame.as_bytes()),
                Err(Nothing::Yet) => break,
                Err(Nothing::More) => return self.ended,
            }
            wait = Wait::Not;
        }
        None
    }

    /// What every way of taking goes through.
    fn take(&mut self, wait: Wait) -> Result<Frame, Nothing> {
        loop {
            if let Some(cause) = self.ended.or(self.queue.cut.get().copied()) {
                self.ended = Some(cause);
                return Err(Nothing::More);
            }
            if let Some(frame) = self.first.next() {
                return Ok(self.taken(frame));
            }
            let due = self.heartbeat.and_then(|interval| self.taken.checked_add(interval));
            let item = self.queue.take(match (wait, due) {
                (Wait::Until(deadline), Some(due)) => Wait::Until(deadline.min(due)),
                (Wait::Forever, Some(due)) => Wait::Until(due),
                (wait, _) => wait,
            });
            let waited = item.is_none();
            match item {
                Some(Item::Frame(frame)) => return Ok(self.taken(frame)),
                Some(Item::End(cause)) => {
                    self.ended = Some(cause);
                    continue;
                }
                Some(Item::Render(render)) => {
                    if let Some(frame) = render.frame(&self.properties, &self.counters) {
                        return Ok(self.taken(frame));
                    }
                }
                None => {}
            }
            // Asked after a skipped event too: one that is skipped again and again is silent all the same.
            if due.is_some_and(|due| due <= Instant::now()) {
                return Ok(self.taken(event::heartbeat()));
            }
            if waited {
                return Err(Nothing::Yet);
            }
        }
    }

    fn taken(&mut self, frame: Frame) -> Frame {
        self.taken = Instant::now();
        frame
    }
}

impl Iterator for Subscription {
    type Item = String;

    /// Blocks until a frame is there; `None` when the stream has ended.
    fn next(&mut self) -> Option<String> {
        self.next_frame().map(String::from)
    }
}

impl FusedIterator for Subscription {}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.leave(self.id, EndCause::Disconnected);
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("id", &self.id.0)
            .field("queued", &(self.first.len() + self.queue.receiver.len()))
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_takes_16_bytes() {
        assert_eq!(size_of::<Item>(), 16);
    }
}
