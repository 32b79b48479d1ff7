//! The receiving half: blocking iterator, heartbeat, end, Drop.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::iter::FusedIterator;
use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::channels::Channels;
use crate::error::{OpenError, RecvTimeoutError, TryRecvError};
use crate::event::{self, Frame, HeartbeatStyle};
use crate::history::Resumption;
use crate::queue::{Item, NonBlocking, Properties, Queue, Wait, race_window};
use crate::stats::{Counters, EndCause};

/// Names one subscriber of one publisher; later ones have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SubscriberId(pub(crate) u64);

/// What a subscription needs of whoever registered it.
pub(crate) trait Owner: Send + Sync {
    /// Takes the subscriber out of the registry, at once, and counts the cause.
    ///
    /// Called without any lock. The subscriber may have left before, in which case nothing is done or counted,
    /// and the cause stays what it was.
    fn leave(&self, subscriber: SubscriberId, cause: EndCause);

    /// Returns the sequence and the id of the newest event, if it is newer than this and ids are announced: a subscriber
    /// that then sees its queue empty has been sent everything up to it. Takes no lock.
    fn newest_announced(&self, than: u64) -> Option<(u64, String)>;

    /// Does the same as `leave` for one whose subscription is dropped, which makes room for another, also of its key.
    /// Called exactly once.
    fn dropped(&self, subscriber: SubscriberId, key: Option<&str>);

    /// A publisher waits for the room that the subscriber has made in its queue.
    fn made_room(&self, subscriber: SubscriberId);

    /// Ends the subscriber for this reason, after what is queued for it or at once. `false`: it has left already.
    fn end(&self, subscriber: SubscriberId, cause: EndCause, at_once: bool) -> bool;

    /// Adds the subscriber to these channels, each named once; says how many of them are new to it.
    fn enter(&self, subscriber: SubscriberId, channels: &[&str]) -> Result<usize, OpenError>;

    /// Takes the subscriber out of these channels; says of how many.
    fn exit(&self, subscriber: SubscriberId, channels: &[&str]) -> usize;
}

/// What a subscription needs of whoever writes it when it is handed over.
pub(crate) trait Runner: Send + Sync {
    /// Takes the subscription over for writing: writes it there until it ends. Does not wait.
    ///
    /// An error means that nothing was or will be written; the subscription and the writer are dropped then.
    fn take_over(self: Arc<Self>, subscription: Subscription, to: Output) -> io::Result<()>;
}

/// Where a handed-over subscription is written.
pub(crate) struct Output {
    pub(crate) writer: Writer,
    /// How long one write to the socket may take.
    pub(crate) deadline: Option<Duration>,
    /// What is written before the body.
    pub(crate) head: Vec<u8>,
    pub(crate) chunked: bool,
    pub(crate) on_end: Option<Box<dyn FnOnce(EndCause) + Send>>,
}

/// What writes it.
pub(crate) enum Writer {
    /// It may block. With it the socket, where that is known: it can be shut down while a write hangs in it.
    Blocks(Box<dyn Write + Send>, Option<Arc<TcpStream>>),
    #[cfg_attr(not(feature = "server"), allow(dead_code))] // whose sockets are the only ones that do not block
    Parks(Arc<dyn NonBlocking>),
}

/// Why there is no next frame.
#[derive(Clone, Copy, Debug, PartialEq)]
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
// What a turn touches first, and close together: each cache line more is 0.05 us of 6 for a delivery.
#[repr(C)]
pub struct Subscription {
    queue: Arc<Queue>,
    /// What was taken out of the queue and is to come next, and how many were lost before it.
    aside: Option<(u64, Item)>,
    /// What comes before the queue, and does not count towards its bounds.
    first: VecDeque<Item>,
    expires: Option<Instant>,
    /// How many events were taken out of the queue that are not known to be delivered.
    on_their_way: u64,
    counters: Arc<Counters>,
    /// When a frame was taken last: the heartbeat is counted from there.
    taken: Instant,
    /// The reader has seen the end; why, the queue says.
    ended: bool,
    heartbeat: Option<Duration>,
    style: HeartbeatStyle,
    /// The highest place in the history that the stream was sent in any form.
    sent: u64,
    owner: Weak<dyn Owner>,
    runner: Arc<dyn Runner>,
    id: SubscriberId,
    properties: Properties,
    resumed: Resumption,
    /// Under which it is counted.
    key: Option<Arc<str>>,
}

/// What a subscription is made of; `publisher.rs` puts it together.
pub(crate) struct Parts {
    pub(crate) owner: Weak<dyn Owner>,
    pub(crate) runner: Arc<dyn Runner>,
    pub(crate) id: SubscriberId,
    pub(crate) properties: Properties,
    pub(crate) queue: Arc<Queue>,
    pub(crate) first: VecDeque<Item>,
    pub(crate) resumed: Resumption,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) style: HeartbeatStyle,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) counters: Arc<Counters>,
}

/// What is left after a batch was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing, for now.
    Nothing,
    /// More than one batch holds.
    More,
    /// Something that calls the application, which was not to be called; and nothing was appended.
    Call,
    /// The stream's end.
    End,
}

impl Subscription {
    /// From how much on no further frame is added to a write: past it, copying costs more than the next system
    /// call.
    pub(crate) const BATCH: usize = 64 * 1024;

    /// How many items one batch is made of at the most, with those that are skipped.
    const ITEMS: usize = 1_024;

    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { owner, runner, id, properties, queue, first, resumed, heartbeat, style, lifetime, key, counters } =
            parts;
        let taken = Instant::now();
        Self {
            owner,
            runner,
            id,
            properties,
            queue,
            first,
            aside: None,
            resumed,
            heartbeat,
            style,
            sent: 0,
            expires: lifetime.and_then(|lifetime| taken.checked_add(lifetime)),
            key,
            on_their_way: 0,
            taken,
            ended: false,
            counters,
        }
    }

    /// Returns the next frame without copying its text; blocks as the iterator does, and returns `None` at the end of the
    /// stream.
    ///
    /// ```
    /// # let publisher = server_sent_events::Publisher::new();
    /// # let mut subscription = publisher.subscribe()?;
    /// publisher.publish("hello");
    /// assert_eq!(subscription.recv().unwrap(), "data: hello\n\n");
    /// publisher.close();
    /// assert_eq!(subscription.recv(), None);
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn recv(&mut self) -> Option<Frame> {
        self.next_within(Wait::Forever).ok()
    }

    /// Returns the next frame; blocks for at most this long, and while a closure given to
    /// [`publish_with`](crate::Publisher::publish_with) runs.
    ///
    /// # Errors
    ///
    /// Returns [`RecvTimeoutError::Timeout`] if no frame arrives in time, and [`RecvTimeoutError::Ended`] at the end of the
    /// stream.
    ///
    /// ```
    /// # use {server_sent_events::{Publisher, RecvTimeoutError}, std::time::Duration};
    /// # let publisher = Publisher::new();
    /// # let mut subscription = publisher.subscribe()?;
    /// assert_eq!(subscription.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
    /// publisher.publish("hello");
    /// assert_eq!(subscription.recv_timeout(Duration::from_millis(1)).unwrap(), "data: hello\n\n");
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Frame, RecvTimeoutError> {
        // A time so long that no clock shows its end is no bound at all.
        let wait = Instant::now().checked_add(timeout).map_or(Wait::Forever, Wait::Until);
        self.next_within(wait).map_err(|nothing| match nothing {
            Nothing::Yet => RecvTimeoutError::Timeout,
            Nothing::More => RecvTimeoutError::Ended,
        })
    }

    /// Returns the next frame if one is queued; does not wait for one.
    ///
    /// Runs the closures given to [`publish_with`](crate::Publisher::publish_with), including those whose events then skip
    /// this subscriber.
    ///
    /// # Errors
    ///
    /// Returns [`TryRecvError::Empty`] if no frame is queued, and [`TryRecvError::Ended`] at the end of the stream.
    ///
    /// ```
    /// # use server_sent_events::{Publisher, TryRecvError};
    /// # let publisher = Publisher::new();
    /// # let mut subscription = publisher.subscribe()?;
    /// assert_eq!(subscription.try_recv(), Err(TryRecvError::Empty));
    /// publisher.close();
    /// assert_eq!(subscription.try_recv(), Err(TryRecvError::Ended));
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn try_recv(&mut self) -> Result<Frame, TryRecvError> {
        self.next_within(Wait::Not).map_err(|nothing| match nothing {
            Nothing::Yet => TryRecvError::Empty,
            Nothing::More => TryRecvError::Ended,
        })
    }

    /// A handle with which other threads lead the subscription, also when it is handed over.
    ///
    /// ```
    /// # use server_sent_events::Publisher;
    /// let publisher = Publisher::new();
    /// let mut subscription = publisher.subscribe_to("lobby")?;
    /// let handle = subscription.handle();
    ///
    /// handle.join("room 7")?;
    /// handle.leave("lobby");
    /// publisher.publish_to("room 7", "you are in");
    /// handle.close();
    /// assert_eq!(subscription.next().unwrap(), "data: you are in\n\n");
    /// assert_eq!(subscription.next(), None);
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn handle(&self) -> SubscriptionHandle {
        SubscriptionHandle { owner: Weak::clone(&self.owner), id: self.id }
    }

    /// Returns how it began: whether the history still had every event that the client missed.
    pub fn resumption(&self) -> Resumption {
        self.resumed
    }

    /// Why the stream ended, once the iterator has given its last item; `None` before.
    pub fn end_cause(&self) -> Option<EndCause> {
        self.queue.ending().filter(|_| self.ended)
    }

    /// Writes the stream to this writer until it ends: this thread is the connection's thread.
    ///
    /// Blocks until the stream ends, and returns why it did. Frames that wait together are written together, with
    /// one `write_all` and one `flush`, so an event never waits for a later one; from 64 KiB on, no further frame is
    /// added to a write. The bytes are the bare event stream: the response's head and any framing are the caller's.
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
            // Blocks here, and nowhere else, until there is something.
            if let Ok(frame) = self.wait_for(Wait::Forever) {
                batch.extend_from_slice(frame.as_bytes());
            }
            let after = self.fill(&mut batch, true);
            let written = writer.write_all(&batch).and_then(|()| writer.flush());
            if let Err(error) = written {
                self.leave(EndCause::ConnectionLost(error.kind()));
                return Err(error);
            }
            self.written(Instant::now());
            if after == After::End {
                return Ok(self.end_cause().expect("BUG: an end without a cause"));
            }
            batch.clear();
            // A quiet stream should not hold what its busiest moment took.
            batch.shrink_to(4096);
        }
    }

    /// Appends what is there to the batch, or the heartbeat, if that is due and nothing is. Never blocks, unless it `may_call`
    /// the application, whose closures may.
    pub(crate) fn fill(&mut self, batch: &mut Vec<u8>, may_call: bool) -> After {
        // The clock is looked at only where it matters (0.04 us of 8 for a delivery), and not before this turn: who wakes the
        // stream because of the time does so once.
        if let Some(expires) = self.expires {
            let now = Instant::now();
            if !may_call && expires <= now {
                return After::Call;
            }
            self.expire(now);
        }
        let empty = batch.len();
        let after = self.drain(batch, empty, may_call);
        let is_silent = after == After::Nothing && batch.len() == empty;
        if !is_silent || self.heartbeat_due().is_none_or(|due| due > Instant::now()) {
            return after;
        }
        let heartbeat = self.make_heartbeat();
        let after = self.drain(batch, empty, may_call);
        if after == After::Nothing && batch.len() == empty {
            batch.extend_from_slice(self.send_heartbeat(heartbeat).as_bytes());
        }
        after
    }

    /// Appends what waits to the batch, where this subscription's part of it begins at `empty`.
    fn drain(&mut self, batch: &mut Vec<u8>, empty: usize, may_call: bool) -> After {
        for _ in 0..Self::ITEMS {
            if !may_call {
                match self.peek() {
                    // Not looked for again: what comes meanwhile may be a closure, and has notified the next turn.
                    None => return After::Nothing,
                    Some(Item::Render(_)) if batch.len() > empty => return After::More,
                    Some(Item::Render(_)) => return After::Call,
                    _ => {}
                }
            }
            match self.next_now() {
                Ok(frame) => frame.iter().for_each(|frame| batch.extend_from_slice(frame.as_bytes())),
                Err(Nothing::More) => return After::End,
                Err(Nothing::Yet) => return After::Nothing,
            }
            if batch.len() - empty >= Self::BATCH {
                break;
            }
        }
        After::More
    }

    /// The next item, if there is one.
    fn peek(&mut self) -> Option<&Item> {
        if self.first.is_empty() && self.aside.is_none() {
            self.aside = self.take_out(Wait::Not);
        }
        race_window();
        self.first.front().or(self.aside.as_ref().map(|(_, item)| item))
    }

    /// All that was taken is written, now: the heartbeat is counted from here.
    pub(crate) fn written(&mut self, now: Instant) {
        self.taken = now;
        self.delivered();
    }

    /// All that was taken has got to whoever reads.
    fn delivered(&mut self) {
        if self.on_their_way > 0 {
            self.counters.count_delivered(std::mem::take(&mut self.on_their_way));
        }
    }

    /// Ends the stream, after what is queued, if its time is over.
    fn expire(&mut self, now: Instant) {
        if self.expires.is_some_and(|expires| expires <= now) {
            self.expires = None;
            if let Some(owner) = self.owner.upgrade() {
                owner.end(self.id, EndCause::Expired, false);
            }
        }
    }

    /// Sets what comes before the queue, and up to which place in the history the client has everything.
    pub(crate) fn begin(&mut self, first: VecDeque<Item>, sent: u64) {
        self.first = first;
        self.sent = sent;
    }

    /// Puts a comment before everything else: some proxies hold back a response's head until its body has begun.
    #[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
    pub(crate) fn begin_with_comment(&mut self) {
        self.first.push_front(Item::Frame(event::heartbeat(self.style)));
    }

    /// Leaves the publisher: the stream ends at once, for this reason unless it has ended for another.
    pub(crate) fn leave(&mut self, cause: EndCause) {
        if let Some(owner) = self.owner.upgrade() {
            owner.leave(self.id, cause);
        }
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub(crate) fn heartbeat(&self) -> Option<Duration> {
        self.heartbeat
    }

    pub(crate) fn expires(&self) -> Option<Instant> {
        self.expires
    }

    pub(crate) fn runner(&self) -> Arc<dyn Runner> {
        Arc::clone(&self.runner)
    }

    /// Makes the heartbeat, before the queue is seen empty: then the stream has been sent everything up to the id in it.
    ///
    /// With a history, that is the id of the newest event, as a block without data, if the stream was not sent it yet: so a
    /// client in a quiet channel does not fall behind what the history holds.
    fn make_heartbeat(&self) -> (u64, Frame) {
        let newest = self.owner.upgrade().and_then(|owner| owner.newest_announced(self.sent));
        newest.map_or_else(|| (0, event::heartbeat(self.style)), |(sequence, id)| (sequence, event::id_alone(&id)))
    }

    /// Notes that the heartbeat is sent.
    fn send_heartbeat(&mut self, (sequence, frame): (u64, Frame)) -> Frame {
        self.sent = self.sent.max(sequence);
        frame
    }

    fn heartbeat_due(&self) -> Option<Instant> {
        self.taken.checked_add(self.heartbeat?)
    }

    /// What a reader gets that takes frames one by one.
    fn next_within(&mut self, wait: Wait) -> Result<Frame, Nothing> {
        let next = self.wait_for(wait);
        self.delivered();
        next
    }

    /// What a reader gets that can wait.
    fn wait_for(&mut self, wait: Wait) -> Result<Frame, Nothing> {
        loop {
            let due = self.heartbeat_due();
            let next = match self.next_now() {
                Err(Nothing::Yet) => {
                    let awakes = due.into_iter().chain(self.expires).min();
                    let item = self.take(match (wait, awakes) {
                        (Wait::Until(deadline), Some(awakes)) => Wait::Until(deadline.min(awakes)),
                        (Wait::Forever, Some(awakes)) => Wait::Until(awakes),
                        (wait, _) => wait,
                    });
                    item.map(|item| self.open(item)).ok_or(Nothing::Yet)
                }
                next => next,
            };
            if next == Err(Nothing::More) || self.ended {
                return Err(Nothing::More);
            }
            let now = Instant::now();
            self.expire(now);
            if let Ok(Some(frame)) = next {
                self.taken = now;
                return Ok(frame);
            }
            // Both asked after a skipped event too: one that is skipped again and again is silent all the same.
            if due.is_some_and(|due| due <= now) {
                let heartbeat = self.make_heartbeat();
                let frame = match self.next_now() {
                    Err(Nothing::More) => return Err(Nothing::More),
                    Err(Nothing::Yet) => self.send_heartbeat(heartbeat),
                    Ok(Some(frame)) => frame,
                    Ok(None) => continue,
                };
                self.taken = now;
                return Ok(frame);
            }
            let in_time = match wait {
                Wait::Not => next.is_ok(),
                Wait::Forever => true,
                Wait::Until(deadline) => now < deadline,
            };
            if !in_time {
                return Err(Nothing::Yet);
            }
        }
    }

    /// The next frame if there is one, or `None` for an event that skips this subscriber; without a heartbeat and
    /// without waiting.
    fn next_now(&mut self) -> Result<Option<Frame>, Nothing> {
        if self.ended || self.queue.is_cut() {
            self.ended = true;
            return Err(Nothing::More);
        }
        let frame = match self.first.pop_front() {
            Some(Item::Frame(frame)) => Some(self.send(frame)),
            // A replay is not live: it is no delivery of what was queued.
            Some(Item::Render(render)) => {
                let frame = render.frame(&self.properties, &self.counters);
                frame.map(|frame| self.send(frame))
            }
            Some(item) => self.open(item),
            None => {
                let item = self.take(Wait::Not).ok_or(Nothing::Yet)?;
                self.open(item)
            }
        };
        if self.ended { Err(Nothing::More) } else { Ok(frame) }
    }

    /// The next item, or what says that some before it were lost.
    fn take(&mut self, wait: Wait) -> Option<Item> {
        let next = self.aside.take().or_else(|| self.take_out(wait));
        let (lost, item) = next?;
        if lost == 0 {
            return Some(item);
        }
        self.aside = Some((0, item));
        Some(Item::Gap(lost))
    }

    /// The next item out of the queue, and how many were lost before it.
    fn take_out(&self, wait: Wait) -> Option<(u64, Item)> {
        let taken = self.queue.take(wait)?;
        if self.queue.is_awaited()
            && let Some(owner) = self.owner.upgrade()
        {
            owner.made_room(self.id);
        }
        Some(taken)
    }

    /// Notes that the frame is sent.
    fn send(&mut self, frame: Frame) -> Frame {
        self.sent = self.sent.max(frame.sequence());
        frame
    }

    /// What an item is for this subscriber: nothing if it is skipped, or the end.
    fn open(&mut self, item: Item) -> Option<Frame> {
        match item {
            Item::Frame(frame) => {
                self.on_their_way += 1;
                Some(self.send(frame))
            }
            Item::Render(render) => {
                let frame = render.frame(&self.properties, &self.counters);
                match &frame {
                    Some(_) => self.on_their_way += 1,
                    None => self.counters.count_skipped(),
                }
                frame.map(|frame| self.send(frame))
            }
            Item::Gap(lost) => Some(event::gap_of(lost)),
            Item::Shelved => None,
            Item::End => {
                self.ended = true;
                None
            }
        }
    }
}

impl Iterator for Subscription {
    type Item = String;

    /// Blocks until a frame is there; `None` when the stream has ended.
    fn next(&mut self) -> Option<String> {
        self.recv().map(String::from)
    }
}

impl FusedIterator for Subscription {}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.dropped(self.id, self.key.as_deref());
        }
    }
}

/// Leads a live subscription from any thread; from [`Subscription::handle`].
///
/// It keeps neither the subscription nor the publisher alive. Once the subscriber has left, nothing happens any more.
#[derive(Clone)]
pub struct SubscriptionHandle {
    owner: Weak<dyn Owner>,
    id: SubscriberId,
}

impl SubscriptionHandle {
    /// Adds the subscriber to these channels, and returns how many of them it was not in before. Does not block.
    ///
    /// It gets what is published there from now on; a [history](crate::History) is not asked. 0 as well when it has left.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says which limit it would cross; it is in the channels that it was in before, then.
    pub fn join<By>(&self, channels: impl Channels<By>) -> Result<usize, OpenError> {
        channels.with_names(|names| self.owner.upgrade().map_or(Ok(0), |owner| owner.enter(self.id, names)))
    }

    /// Takes the subscriber out of these channels, and returns of how many. Does not block.
    ///
    /// One that is in no channel any more ends after what is queued for it. So who changes channels joins the new ones
    /// first.
    pub fn leave<By>(&self, channels: impl Channels<By>) -> usize {
        channels.with_names(|names| self.owner.upgrade().map_or(0, |owner| owner.exit(self.id, names)))
    }

    /// Ends the stream after what is queued for it, with [`EndCause::Closed`]; does not wait. `false`: it has left already.
    pub fn close(&self) -> bool {
        self.owner.upgrade().is_some_and(|owner| owner.end(self.id, EndCause::Closed, false))
    }

    /// Ends the stream at once, with [`EndCause::Disconnected`], and throws away what is queued; does not wait. `false`: it has left
    /// already.
    pub fn disconnect(&self) -> bool {
        self.owner.upgrade().is_some_and(|owner| owner.end(self.id, EndCause::Disconnected, true))
    }
}

impl SubscriptionHandle {
    /// The peer has gone.
    #[cfg(feature = "server")]
    pub(crate) fn peer_has_gone(&self, error: io::ErrorKind) {
        if let Some(owner) = self.owner.upgrade() {
            owner.end(self.id, EndCause::ConnectionLost(error), true);
        }
    }
}

impl fmt::Debug for SubscriptionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionHandle").field("id", &self.id.0).finish_non_exhaustive()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("id", &self.id.0)
            .field("queued", &(self.first.len() + self.queue.len()))
            .field("ended", &self.end_cause())
            .finish_non_exhaustive()
    }
}
