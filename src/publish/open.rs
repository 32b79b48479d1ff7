//! The settings of a subscription, and its opening.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;

use super::builder::Settings;
use super::{LastEventId, Publisher};
use crate::channels::{Channels, DEFAULT_CHANNEL};
use crate::deliver::FrameSource;
use crate::deliver::SourceSettings;
use crate::error::{InvalidSetting, OpenError};
use crate::event::{Event, HeartbeatStyle};
use crate::history::Resumption;
use crate::queue::{Overflow, Payload, Properties, Subscriber};
use crate::registry::{Opening, ReplayFrom};
use crate::spread;
use crate::subscription::Subscription;

/// A subscription that is not open yet; from [`Publisher::subscription`].
#[must_use = "a builder does nothing until `open`"]
pub struct SubscriptionBuilder<'p, P> {
    publisher: &'p Publisher<P>,
    properties: P,
    channels: Vec<Arc<str>>,
    first: Vec<First<'p>>,
    last_event_id: Option<String>,
    after: Option<String>,
    replay_last: Option<usize>,
    settings: Settings,
    key: Option<Arc<str>>,
}

/// Makes initial data, once it is known how the subscription begins.
type First<'p> = Box<dyn FnOnce(Resumption) -> Vec<Event> + 'p>;

impl<'p, P: Send + Sync + 'static> SubscriptionBuilder<'p, P> {
    /// With what the publisher's builder was told.
    pub(super) fn new(publisher: &'p Publisher<P>, properties: P) -> Self {
        Self {
            publisher,
            properties,
            channels: vec![DEFAULT_CHANNEL.into()],
            first: Vec::new(),
            last_event_id: None,
            after: None,
            replay_last: None,
            settings: publisher.core.settings.clone(),
            key: None,
        }
    }

    #[cfg(feature = "tiny_http")]
    pub(crate) fn publisher(&self) -> &'p Publisher<P> {
        self.publisher
    }

    /// The channels it is in. Defaults to [`DEFAULT_CHANNEL`]; setting them again replaces them.
    pub fn channels<By>(mut self, channels: impl Channels<By>) -> Self {
        self.channels = channels.with_names(|names| names.iter().map(|&name| name.into()).collect());
        self
    }

    /// Events that this subscriber gets before the live ones, in this order. More may be added.
    ///
    /// They do not count towards the bounds of the queue. They are taken now, and the live ones begin with
    /// [`open`](Self::open): what is published in between is in neither. Where they are a snapshot of something
    /// that changes, hold the lock under which it is changed and published until this is open.
    pub fn initial_data<E: Into<Event>>(mut self, events: impl IntoIterator<Item = E>) -> Self {
        let events: Vec<Event> = events.into_iter().map(Into::into).collect();
        self.first.push(Box::new(|_| events));
        self
    }

    /// Initial data that is made when the subscription is open, by a closure that is told how it
    /// [resumed](crate::Subscription::resumption). More may be added.
    ///
    /// For a snapshot of something that changes: what is published while it is made comes after it, so nothing falls
    /// between the two; an event may be in both. And a client that has everything needs none.
    ///
    /// ```
    /// use server_sent_events::{Event, History, Publisher};
    ///
    /// let publisher = Publisher::builder().history(History::new()).build()?;
    /// let state = "all lamps are on";
    /// # let last_event_id: Option<String> = None;
    /// let subscription = publisher
    ///     .subscription(())
    ///     .last_event_id(last_event_id)
    ///     .initial_data_with(|resumed| (!resumed.is_complete()).then(|| Event::new(state)))
    ///     .open()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn initial_data_with<I>(mut self, make: impl FnOnce(Resumption) -> I + 'p) -> Self
    where
        I: IntoIterator<Item: Into<Event>>,
    {
        self.first.push(Box::new(|resumption| make(resumption).into_iter().map(Into::into).collect()));
        self
    }

    /// Where the client was, as it says (`Last-Event-ID`): all that is newer in its channels comes first, in order,
    /// each once, then the live events. Without an id, or without a [history](crate::History), nothing is replayed.
    ///
    /// If something newer is not there any more, or the id is not one of this history's (of an earlier run of the
    /// program, say), what is still there is replayed behind an event of type
    /// [`gap`](crate::History::gap_event). The replay does not count towards the bounds of the queue.
    pub fn last_event_id(mut self, id: impl LastEventId) -> Self {
        self.last_event_id = id.into_id();
        self
    }

    /// Sets where a client without a last event ID starts: after this event, as if it were its [last event
    /// ID](Self::last_event_id).
    ///
    /// For a page that is rendered together with the point from which its stream goes on: read
    /// [`Publisher::last_event_id`] *before* the page's content.
    ///
    /// ```
    /// use server_sent_events::{History, Publisher};
    ///
    /// let publisher = Publisher::builder().history(History::new()).build()?;
    /// # let read_the_state = || "two lamps";
    /// // The request for the page: first the point, then what it shows. What changes in between comes again.
    /// let point = publisher.last_event_id();
    /// let page = format!("{} <script>new EventSource('/lamps?after={}')", read_the_state(), point.unwrap());
    ///
    /// // The request for the stream. A client that reconnects says its own id, which is newer.
    /// # let (from_the_query, from_the_request) = (publisher.last_event_id(), None::<&str>);
    /// let subscription = publisher.subscription(()).start_after(from_the_query).last_event_id(from_the_request).open()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_after(mut self, id: impl LastEventId) -> Self {
        self.after = id.into_id();
        self
    }

    /// For a client that comes without an id: so many of the newest events in its channels come first.
    pub fn replay_last(mut self, events: usize) -> Self {
        self.replay_last = Some(events);
        self
    }

    /// After how much silence the stream is sent a comment; `None` for never. Defaults to the
    /// [publisher's](crate::PublisherBuilder::heartbeat).
    #[doc(alias = "keep-alive")]
    pub fn heartbeat(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.settings.source.heartbeat = interval.into();
        self
    }

    /// Sets how the stream's heartbeats look. Defaults to the [publisher's](crate::PublisherBuilder::heartbeat_style).
    pub fn heartbeat_style(mut self, style: HeartbeatStyle) -> Self {
        self.settings.source.heartbeat_style = style;
        self
    }

    /// Sets how many events may be queued for it. Defaults to the
    /// [publisher's](crate::PublisherBuilder::max_queued_events).
    pub fn max_queued_events(mut self, frames: usize) -> Self {
        Arc::make_mut(&mut self.settings.queue).events = frames;
        self
    }

    /// Sets how many bytes may be queued for it. Defaults to the
    /// [publisher's](crate::PublisherBuilder::max_queued_bytes).
    pub fn max_queued_bytes(mut self, bytes: usize) -> Self {
        Arc::make_mut(&mut self.settings.queue).bytes = bytes;
        self
    }

    /// What happens when an event does not fit into its queue. Defaults to the
    /// [publisher's](crate::PublisherBuilder::overflow).
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        Arc::make_mut(&mut self.settings.queue).overflow = overflow;
        self
    }

    /// After how long it ends; `None` for never. Defaults to the [publisher's](crate::PublisherBuilder::max_lifetime),
    /// where it is explained.
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.settings.source.lifetime = lifetime.into();
        self
    }

    /// Sets the key under which the subscription is counted too: an address, a user. See
    /// [`max_subscribers_per_quota_key`](crate::PublisherBuilder::max_subscribers_per_quota_key).
    pub fn quota_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Opens it: what is published from now on waits for it. Does not block.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says which bound it would cross; nothing was registered then.
    pub fn open(self) -> Result<Subscription, OpenError> {
        let Self { publisher, properties, channels, first, last_event_id, after, replay_last, .. } = self;
        let Self { settings, key, .. } = self;
        if let Some((setting, _)) = settings.are_zero().into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(OpenError::InvalidSetting(InvalidSetting::new(setting)));
        }
        let core = &publisher.core;
        let registry = &core.registry;
        let Settings { queue, source } = settings;
        let (bell, rings) = bounded(1);
        let id = registry.next_subscriber_id();
        let subscriber = Subscriber::new(id, Properties::new(properties), key, queue, bell);
        let replay_from = match (last_event_id.or(after), replay_last) {
            (Some(id), _) => ReplayFrom::Id(id),
            (None, Some(events)) => ReplayFrom::Last(events),
            (None, None) => ReplayFrom::Now,
        };
        let opened = registry.open(&subscriber, &channels, &replay_from);
        let Opening { resumption, start, first_slice, is_replaying } =
            opened.inspect_err(|error| registry.count_refused(error))?;
        // All of them open at once after a restart: they should not all end at once.
        let share = 0.8 + 0.2 * spread::random_share();
        let longest = Duration::from_secs(u64::from(u32::MAX));
        let lifetime = source.lifetime.map(|lifetime| lifetime.min(longest).mul_f64(share));
        let source = SourceSettings { lifetime, ..source };
        let counters = Arc::clone(&core.counters);
        // From here on a panic of the application's drops the source, which leaves the registry.
        let mut source = FrameSource::new(Arc::clone(&subscriber), rings, Arc::downgrade(registry), counters, source);
        registry.call_opened(&subscriber, &channels);
        let initial_data: Vec<Event> = first.into_iter().flat_map(|make| make(resumption)).collect();
        let sent = start.as_ref().map_or(0, |start| start.sequence);
        let frames = match start {
            Some(start) => start.frames(initial_data),
            None => initial_data.iter().map(Event::encode).collect(),
        };
        let replay = is_replaying.then(|| Arc::clone(registry));
        source.begin(frames.into_iter().map(Payload::Frame).chain(first_slice).collect(), sent, replay);
        Ok(Subscription::new(source, Arc::clone(&core.pool), resumption))
    }
}

impl<P> fmt::Debug for SubscriptionBuilder<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionBuilder")
            .field("channels", &self.channels)
            .field("initial_data", &self.first.len())
            .field("heartbeat", &self.settings.source.heartbeat)
            .finish_non_exhaustive()
    }
}
