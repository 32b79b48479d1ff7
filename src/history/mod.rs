//! The history of a publisher: its limits, and how a subscription begins in it.

mod ids;
mod log;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::error::InvalidSetting;
use crate::event::Event;
#[cfg(any(feature = "sqlite", feature = "redis", test))]
use crate::store::HistoryStore;
#[cfg(any(feature = "client", test))]
use crate::store::HistoryUpstream;
use crate::store::{KeptIn, Upstream};

pub(crate) use ids::{Ids, Place};
pub(crate) use log::{EventLog, NewEntry, Restored, Span};

/// The limits of a [`Publisher`](crate::Publisher)'s history, from which a client that reconnects gets the events it
/// missed.
///
/// With a history every event has an ID, and a subscription can begin [after
/// one](crate::SubscriptionBuilder::last_event_id). If events that it asks for were evicted, the subscriber is sent a
/// `gap` event.
///
/// ```
/// use server_sent_events::{History, Publisher};
///
/// let publisher = Publisher::builder().history(History::new().max_events_per_channel(100)).build()?;
/// publisher.publish("one");
/// let id = publisher.last_event_id().unwrap();
/// publisher.publish("two");
///
/// let mut subscription = publisher.subscription(()).last_event_id(id).heartbeat(None).open()?;
/// assert!(subscription.next().unwrap().starts_with("id: ")); // where it starts, without an event
/// assert!(subscription.next().unwrap().starts_with("data: two\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct History {
    max_events_per_channel: usize,
    max_age: Option<Duration>,
    max_bytes: usize,
    clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    gap: Gap,
    announce_ids: bool,
    store: Option<KeptIn>,
    upstream: Option<Arc<dyn Upstream>>,
    latest_per_key: bool,
}

/// The report for a subscriber that asks for evicted events.
#[derive(Clone)]
enum Gap {
    Default,
    Custom(Event),
    None,
}

impl History {
    /// Creates a history of 8,192 events per channel and 64 MiB in total, of any age.
    pub fn new() -> Self {
        let start = Instant::now();
        Self {
            max_events_per_channel: 8_192,
            max_age: None,
            max_bytes: 64 * 1024 * 1024,
            clock: Arc::new(move || start.elapsed()),
            gap: Gap::Default,
            announce_ids: true,
            store: None,
            upstream: None,
            latest_per_key: false,
        }
    }

    /// Keeps of the events of one channel with the same [key](Event::key) only the newest, so that a newcomer gets the
    /// state and not the past. Events without a key are kept as before.
    ///
    /// A subscriber without a [last event ID](crate::SubscriptionBuilder::last_event_id) first gets the newest event of
    /// each key of its channels, in the order in which they were published, and then the live events. It gets no past
    /// events without a key. [`replay_last(0)`](crate::SubscriptionBuilder::replay_last) and
    /// [`snapshot_with`](crate::SubscriptionBuilder::snapshot_with) replace the state; other numbers for `replay_last`
    /// count all events that are kept.
    ///
    /// A subscriber that resumes gets every kept event that is newer than its ID. A value that was replaced while it was
    /// away is **not** a loss, because a newer value of the same key follows: there is no `gap` event, and its state is
    /// right after the replay. It is a gap if the limits of the history evict the newest event of a key. A newcomer is
    /// not sent a gap for that, so the limits should exceed the number of keys. An [ID of the
    /// application's](Event::id) is forgotten with its event: resuming after a replaced one is a gap.
    ///
    /// With a [store](crate::store), keep this setting for as long as the store is used. A start without it would not know
    /// which events were replaced before, and report no gap for them.
    ///
    /// ```
    /// use server_sent_events::{Event, History, Publisher};
    ///
    /// let publisher = Publisher::builder().history(History::new().latest_per_key()).build()?;
    /// for (room, celsius) in [("kitchen", "18.5"), ("hall", "21.0"), ("kitchen", "18.7")] {
    ///     publisher.publish(Event::new(format!("{room}: {celsius}")).key(room));
    /// }
    /// let mut newcomer = publisher.subscribe()?;
    /// let start = newcomer.next().unwrap();
    /// assert!(start.starts_with("id: "));
    /// assert!(newcomer.next().unwrap().starts_with("data: hall: 21.0\n"));
    /// assert!(newcomer.next().unwrap().starts_with("data: kitchen: 18.7\n"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn latest_per_key(mut self) -> Self {
        self.latest_per_key = true;
        self
    }

    /// Sets the limit of events per channel. Defaults to 8,192.
    ///
    /// An event of several channels is kept in all of them while it is among the newest of one.
    ///
    /// The default exceeds the default limit of a queue. So a client that was too slow for its queue can resume without
    /// a gap.
    pub fn max_events_per_channel(mut self, events: usize) -> Self {
        self.max_events_per_channel = events;
        self
    }

    /// Sets the maximum age of an event; `None` for no limit. Defaults to no limit.
    ///
    /// Older events are evicted when an event is published, when a subscription opens, and when a subscriber continues
    /// its replay.
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.max_age = age.into();
        self
    }

    /// Sets the limit of bytes that all channels occupy together. Defaults to 64 MiB.
    ///
    /// Beyond it the oldest events are evicted first, whatever their channels. Each event counts as its text (for a
    /// closure, the closure's own size) and 384 bytes. Each of its channels adds 48 bytes. An ID of the application's
    /// adds its length, and 128 bytes per channel, and so does a key with [`latest_per_key`](Self::latest_per_key). Each channel counts as its name and 256 bytes. Channels whose events
    /// are all evicted are remembered in at most a sixteenth of the limit.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the clock: a closure that returns the time since any fixed moment. Defaults to the system's monotonic
    /// clock.
    ///
    /// The clock must not go backwards. It runs under the publisher's lock, so it must not use the publisher.
    pub fn clock(mut self, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets the event that is sent to a subscriber that asks for evicted events; `None` sends nothing.
    ///
    /// Defaults to an event of type `gap` whose data is JSON: `{"from":ID,"to":ID}`. `from` is the ID that the client
    /// sent, or `null` if it sent none or a text that cannot be an ID. `to` is the ID after which its replay begins. If
    /// events are evicted during a replay, `from` and `to` are the IDs between which they are missing.
    pub fn gap_event(mut self, event: impl Into<Option<Event>>) -> Self {
        self.gap = event.into().map_or(Gap::None, Gap::Custom);
        self
    }

    /// Sets whether streams carry blocks with an ID and no event. Defaults to `true`.
    ///
    /// Such a block starts a stream that begins with neither a gap nor initial data. It also replaces a heartbeat if
    /// events were published since the last ID that the stream was sent. So a client can resume even if it has seen no
    /// event, or is in a quiet channel. A browser fires no event for such a block (WHATWG HTML 9.2.6). Some client
    /// libraries fire an empty message, which `false` prevents.
    ///
    /// ```
    /// use server_sent_events::{History, Publisher};
    ///
    /// let publisher = Publisher::builder().history(History::new().announce_ids(false)).build()?;
    /// let mut subscription = publisher.subscribe()?;
    /// assert!(subscription.try_recv().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn announce_ids(mut self, announce: bool) -> Self {
        self.announce_ids = announce;
        self
    }

    /// Keeps the history in a [store](crate::store), from which the publisher reads it at its start. Defaults to none:
    /// the history ends with the publisher.
    #[cfg(any(feature = "sqlite", feature = "redis", test))]
    pub fn store(mut self, store: impl Into<HistoryStore>) -> Self {
        self.store = Some(store.into().0);
        self
    }

    /// Makes the history a copy of another publisher's, which this one follows. Defaults to none.
    ///
    /// The publisher then is an edge: it serves the channels of an origin to clients of its own, with the events and IDs
    /// of the origin. A client can resume on any edge of one origin, and on the origin. While the origin is away, the
    /// streams stay open. Nothing can be published here but to [one
    /// subscriber](crate::SubscriptionHandle::send).
    ///
    /// Until the history has received what the origin has, subscriptions are refused as
    /// [`OpenError::Starting`](crate::OpenError::Starting). If the origin turns out to have another history, or has lost
    /// its newest events, all streams end; clients get a `gap` event when they resume.
    /// [`Publisher::store_state`](crate::Publisher::store_state) shows whether the origin can be reached.
    ///
    /// An event's [key](Event::key) arrives if the origin keeps the [latest per key](Self::latest_per_key). A closure of
    /// [`publish_with`](crate::Publisher::publish_with) cannot travel: the clients of its channels get a `gap` event.
    /// [`Overflow::Block`](crate::Overflow::Block) is refused: one subscriber would stop all.
    ///
    /// See [`Upstream`](crate::client::Upstream) for an example.
    #[cfg(any(feature = "client", test))]
    pub fn follow(mut self, upstream: impl Into<HistoryUpstream>) -> Self {
        self.upstream = Some(upstream.into().0);
        self
    }

    /// Takes a test's clock instead of its own.
    pub(crate) fn on(self, clock: Clock) -> Self {
        #[cfg(feature = "test-util")]
        if clock.is_virtual() {
            let start = clock.now();
            return self.clock(move || clock.now() - start);
        }
        let _ = clock;
        self
    }

    pub(crate) fn check(&self) -> Result<(), InvalidSetting> {
        InvalidSetting::check("History::max_events_per_channel", self.max_events_per_channel == 0)?;
        InvalidSetting::check_option("History::max_age", self.max_age)?;
        InvalidSetting::check("History::max_bytes", self.max_bytes == 0)?;
        if let Some(upstream) = &self.upstream {
            if self.store.is_some() {
                return Err(InvalidSetting::follows_and_stores());
            }
            upstream.check()?;
        }
        self.store.as_ref().map_or(Ok(()), KeptIn::check)
    }

    pub(crate) fn bytes_limit(&self) -> usize {
        self.max_bytes
    }

    /// Returns whether events reach the history by a thread of its own, which must not block.
    pub(crate) fn has_thread(&self) -> bool {
        self.store.is_some() || self.upstream.is_some()
    }

    /// Takes the store in which the history is to be kept.
    pub(crate) fn take_store(&mut self) -> Option<KeptIn> {
        self.store.take()
    }

    /// Takes what the history is to follow.
    pub(crate) fn take_upstream(&mut self) -> Option<Arc<dyn Upstream>> {
        self.upstream.take()
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("max_events_per_channel", &self.max_events_per_channel)
            .field("max_age", &self.max_age)
            .field("max_bytes", &self.max_bytes)
            .field("announce_ids", &self.announce_ids)
            .field("latest_per_key", &self.latest_per_key)
            .finish_non_exhaustive()
    }
}

/// The result of asking for past events; from
/// [`Subscription::resumption`](crate::Subscription::resumption).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resumption {
    /// It asked for no past events, or there is no history.
    NotRequested,
    /// The history still had every event that it asked for.
    ///
    /// After a [last event ID](crate::SubscriptionBuilder::last_event_id), this means that the client has every event
    /// up to the live ones. After [`replay_last`](crate::SubscriptionBuilder::replay_last), it means only that none of
    /// the requested events was evicted: a new client may still need a snapshot.
    Complete,
    /// Events that it asked for were evicted, or its event ID is not one of this history. The rest is replayed.
    Gap,
}

impl Resumption {
    /// Returns `true` if the history still had every event that the subscription asked for.
    ///
    /// If it asked with a [last event ID](crate::SubscriptionBuilder::last_event_id), the client has every event up to
    /// the live ones, and needs no snapshot. This does not hold for
    /// [`replay_last`](crate::SubscriptionBuilder::replay_last): see [`Complete`](Self::Complete).
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Complete)
    }
}
