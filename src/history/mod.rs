//! The history of a publisher: how much of what was published it keeps, and how a subscription begins in it.

mod log;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::InvalidSetting;
use crate::event::Event;

pub(crate) use log::{EventLog, Span};

/// How much of what was published a [`Publisher`](crate::Publisher) keeps, so that a client which reconnects misses
/// nothing.
///
/// With a history every event has an id, and a subscription may begin
/// [after one](crate::SubscriptionBuilder::last_event_id). What leaves the history is told to who asks for it, as a
/// `gap`.
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
}

/// What a subscriber is sent that asks for more than there is.
#[derive(Clone)]
enum Gap {
    Ours,
    Event(Event),
    Nothing,
}

impl History {
    /// 8,192 events for each channel, 64 MiB in all, of any age.
    pub fn new() -> Self {
        let start = Instant::now();
        Self {
            max_events_per_channel: 8_192,
            max_age: None,
            max_bytes: 64 * 1024 * 1024,
            clock: Arc::new(move || start.elapsed()),
            gap: Gap::Ours,
            announce_ids: true,
        }
    }

    /// Sets how many events each channel keeps. Defaults to 8,192.
    ///
    /// This is more than a queue holds, so a client that was too slow can resume without a gap.
    pub fn max_events_per_channel(mut self, events: usize) -> Self {
        self.max_events_per_channel = events;
        self
    }

    /// How old an event may become. Defaults to any age.
    ///
    /// Looked at when something is published or somebody subscribes.
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.max_age = age.into();
        self
    }

    /// How many bytes all channels keep together; the oldest events go first, wherever they are. Defaults to 64 MiB.
    ///
    /// Counted are, for each event, its text (a closure: its own size) and 384 bytes, 48 for each of its channels, and
    /// for an own id its length and 128 for each of its channels; for each channel its name and 256 bytes. Channels that have lost all their
    /// events are remembered in at most a sixteenth of it.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// What says the time, as the time since any moment; must not go back. Defaults to the system's monotonic clock.
    ///
    /// It runs under the publisher's lock, and so must not use the publisher.
    pub fn clock(mut self, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// What a subscriber is sent that asks for more than there is; `None` for nothing. Defaults to an event of type
    /// `gap`, whose data is JSON: `{"from":ID,"to":ID}`, the id that it came with (`null` if it is none of a
    /// history's), and the one behind which its replay begins.
    pub fn gap_event(mut self, event: impl Into<Option<Event>>) -> Self {
        self.gap = event.into().map_or(Gap::Nothing, Gap::Event);
        self
    }

    /// Sets whether streams carry blocks with an id and no event. Defaults to `true`.
    ///
    /// Such a block comes at the start of a stream that begins with neither a gap nor initial data, and in place of a
    /// heartbeat if newer events were published since the last id that the stream was sent. So a client that has seen no
    /// event yet, or is in a quiet channel, can resume all the same. A browser fires nothing for them (WHATWG HTML 9.2.6);
    /// some client libraries fire an empty message, which `false` spares them.
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

    pub(crate) fn check(&self) -> Result<(), InvalidSetting> {
        let settings = [
            ("History::max_events_per_channel", self.max_events_per_channel == 0),
            ("History::max_age", self.max_age == Some(Duration::ZERO)),
            ("History::max_bytes", self.max_bytes == 0),
        ];
        match settings.into_iter().find(|(_, zero)| *zero) {
            Some((setting, _)) => Err(InvalidSetting::new(setting)),
            None => Ok(()),
        }
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
            .finish_non_exhaustive()
    }
}

/// The id of the event with this sequence.
pub(crate) fn id(epoch: &str, sequence: u64) -> String {
    format!("{epoch}-{sequence}")
}

/// How a subscription began, relative to the event ID that it asked for; from
/// [`Subscription::resumption`](crate::Subscription::resumption).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resumption {
    /// It asked for no past events, or there is no history.
    NotRequested,
    /// The history still had every event that it asked for.
    Complete,
    /// Events that it asked for were evicted, or its event ID is not one of this history. The rest is replayed.
    Gap,
}

impl Resumption {
    /// Returns `true` if the client has every event up to the live ones, so that it needs no snapshot.
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Complete)
    }
}
