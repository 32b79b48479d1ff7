//! The settings of a subscription, and its opening.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::builder::Settings;
use super::snapshot::{self, MakeSnapshot, Snapshot};
use super::{LastEventId, Publisher};
use crate::channels::{Channels, DEFAULT_CHANNEL};
use crate::deliver::FrameSource;
use crate::deliver::SourceSettings;
use crate::error::{InvalidSetting, OpenError};
use crate::event::{Event, HeartbeatStyle};
use crate::history::Resumption;
use crate::log::Subject;
use crate::queue::{Overflow, Payload, Properties, Subscriber};
use crate::registry::{Opening, ReplayFrom};
use crate::spread;
use crate::subscription::Subscription;
use crate::sync::channel::bounded;

/// The settings of a subscription that is not open yet; from [`Publisher::subscription`].
#[must_use = "a builder does nothing until `open`"]
pub struct SubscriptionBuilder<'p, P> {
    publisher: &'p Publisher<P>,
    properties: P,
    channels: Vec<Arc<str>>,
    is_alone: bool,
    is_follower: bool,
    initial_data: Vec<InitialData<'p>>,
    last_event_id: Option<String>,
    start_after: Option<String>,
    replay_last: Option<usize>,
    snapshot: Option<MakeSnapshot<'p>>,
    settings: Settings,
    quota_key: Option<Arc<str>>,
}

/// Makes initial data once the resumption is known.
pub(super) type InitialData<'p> = Box<dyn FnOnce(Resumption) -> Vec<Event> + 'p>;

impl<'p, P: Send + Sync + 'static> SubscriptionBuilder<'p, P> {
    /// Creates a builder with the publisher's settings.
    pub(super) fn new(publisher: &'p Publisher<P>, properties: P) -> Self {
        Self {
            publisher,
            properties,
            channels: vec![DEFAULT_CHANNEL.into()],
            is_alone: false,
            is_follower: false,
            initial_data: Vec::new(),
            last_event_id: None,
            start_after: None,
            replay_last: None,
            snapshot: None,
            settings: publisher.core.settings.clone(),
            quota_key: None,
        }
    }

    /// Counts and logs that it was refused because its stream cannot begin.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn count_refused(&self) {
        let subject = Subject { quota_key: self.quota_key.as_deref(), channels: &self.channels };
        self.publisher.core.registry.count_cannot_begin(subject);
    }

    #[cfg(feature = "tiny_http")]
    pub(crate) fn publisher(&self) -> &'p Publisher<P> {
        self.publisher
    }

    /// Sets the channels. Defaults to [`DEFAULT_CHANNEL`]. Setting them again replaces them.
    pub fn channels<By>(mut self, channels: impl Channels<By>) -> Self {
        self.channels = channels.with_names(|names| names.iter().map(|&name| name.into()).collect());
        self.is_alone = false;
        self
    }

    /// Sets that the subscriber is in no channel, as with [`Publisher::subscribe_alone`]. It gets what is
    /// [sent](crate::SubscriptionHandle::send) to it alone, and may join channels later.
    pub fn no_channels(mut self) -> Self {
        self.channels.clear();
        self.is_alone = true;
        self
    }

    /// Adds events that this subscriber gets before the live ones, in this order.
    ///
    /// They do not count towards the limits of the queue. They are taken now, and the live events begin with
    /// [`open`](Self::open), so an event that is published in between is in neither. For a snapshot of a state that
    /// changes, use [`initial_data_with`](Self::initial_data_with), or hold the lock of the state until the
    /// subscription is open.
    ///
    /// ```
    /// # use server_sent_events::Publisher;
    /// # let publisher = Publisher::new();
    /// let mut subscription = publisher.subscription(()).initial_data(["3 visits so far"]).open()?;
    /// publisher.publish("visit number 4");
    /// assert_eq!(subscription.next().unwrap(), "data: 3 visits so far\n\n");
    /// assert_eq!(subscription.next().unwrap(), "data: visit number 4\n\n");
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn initial_data<E: Into<Event>>(mut self, events: impl IntoIterator<Item = E>) -> Self {
        let events: Vec<Event> = events.into_iter().map(Into::into).collect();
        self.initial_data.push(Box::new(|_| events));
        self
    }

    /// Adds initial data that a closure makes once the subscription is open. The closure gets the
    /// [`Resumption`](crate::Subscription::resumption).
    ///
    /// Use it for a snapshot of a state that changes. An event that is published meanwhile comes after the snapshot, so
    /// none is missing; an event may be in both. A client that resumes with every event that it missed needs no
    /// snapshot.
    ///
    /// Initial data comes before replayed events, which may be older than it. With
    /// [`replay_last`](Self::replay_last), [`Resumption::Complete`] does **not** mean that the client has every event.
    /// Then send the snapshot unless the client gave a last event ID and the resumption is complete.
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
        self.initial_data.push(Box::new(|resumption| make(resumption).into_iter().map(Into::into).collect()));
        self
    }

    /// Sets the closure that makes a snapshot of the application's state, for a client without a last event ID and for
    /// one that missed events which the history has evicted.
    ///
    /// The snapshot comes after the other initial data. Then comes everything newer than
    /// [`Snapshot::after`](crate::Snapshot::after). So a page starts from the state and applies each later event once,
    /// whether it is new or was away for too long. A client that resumes with every event gets no snapshot.
    ///
    /// This is exact if the application changes its state and publishes the change under one lock of its own, and makes
    /// the snapshot under the same lock. With a [store](crate::store) the change must be published with
    /// [`publish_confirmed`](crate::Publisher::publish_confirmed): an event that `publish` has accepted and that waits to
    /// be stored has no ID yet, so it is in the snapshot and comes again. If the history evicts the events after a
    /// snapshot before the subscription is open, another one is made. After three attempts the client is sent a `gap`
    /// event too. Without a history, or without an `after`, an event that is published meanwhile may be in the snapshot
    /// and come again.
    ///
    /// Do not hold that lock while you call `open`: the closure takes it. The closure must not publish to a subscriber
    /// that [blocks](crate::Overflow::Block).
    /// [`replay_last`](Self::replay_last) has no effect.
    ///
    /// ```
    /// use server_sent_events::{Event, History, Publisher, Snapshot};
    /// use std::sync::Mutex;
    ///
    /// let publisher = Publisher::builder().history(History::new().max_events_per_channel(100)).build()?;
    /// let votes = Mutex::new(0);
    /// let vote = || {
    ///     let mut votes = votes.lock().unwrap();
    ///     *votes += 1;
    ///     publisher.publish(Event::new("1").event("vote").unwrap());
    /// };
    /// let snapshot = || {
    ///     let votes = votes.lock().unwrap();
    ///     let event = Event::new(votes.to_string()).event("votes").unwrap();
    ///     Snapshot { after: publisher.last_event_id(), events: vec![event] }
    /// };
    ///
    /// vote();
    /// vote();
    /// # let last_event_id = None::<&str>;
    /// let mut subscription = publisher.subscription(()).last_event_id(last_event_id).snapshot_with(snapshot).open()?;
    /// vote();
    /// assert!(subscription.next().unwrap().starts_with("event: votes\ndata: 2\n"));
    /// assert!(subscription.next().unwrap().starts_with("event: vote\ndata: 1\n"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn snapshot_with(mut self, make: impl FnMut() -> Snapshot + 'p) -> Self {
        self.snapshot = Some(Box::new(make));
        self
    }

    /// Sets the ID of the last event that the client saw, which it sends as `Last-Event-ID`.
    ///
    /// The subscriber gets every newer event of its channels in order, each once, and then the live events. Without an
    /// ID it gets no past events, unless the history keeps the [latest per key](crate::History::latest_per_key). Without
    /// a [history](crate::History), nothing is replayed.
    ///
    /// If the history has evicted a newer event, or the ID is not one of this history (but of an earlier run of the
    /// program, for example), an event of type [`gap`](crate::History::gap_event) comes first. Then the events that are
    /// left are replayed. The replay does not count towards the limits of the queue.
    pub fn last_event_id(mut self, id: impl LastEventId) -> Self {
        self.last_event_id = id.into_id();
        self
    }

    /// Sets where a client without a last event ID starts: after this event, as if it were its [last event
    /// ID](Self::last_event_id).
    ///
    /// Use it for a page that is rendered together with the ID after which its stream starts: read
    /// [`Publisher::last_event_id`] *before* the page's content.
    ///
    /// ```
    /// use server_sent_events::{History, Publisher};
    ///
    /// let publisher = Publisher::builder().history(History::new()).build()?;
    /// # let read_the_state = || "two lamps";
    /// // The request for the page: first the ID, then the content. A change in between is sent again.
    /// let id = publisher.last_event_id().unwrap();
    /// let page = format!(
    ///     "<p>{}</p>
    ///     <script>
    ///     new EventSource('/lamps?after={id}').onmessage = event => console.log(event.data);
    ///     </script>",
    ///     read_the_state()
    /// );
    ///
    /// // The request for the stream. A client that reconnects sends its own ID, which is newer.
    /// # let (from_the_query, from_the_request) = (publisher.last_event_id(), None::<&str>);
    /// let subscription = publisher.subscription(()).start_after(from_the_query).last_event_id(from_the_request).open()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_after(mut self, id: impl LastEventId) -> Self {
        self.start_after = id.into_id();
        self
    }

    /// Sets how many of the newest events of its channels a client without an ID gets first. Defaults to none.
    ///
    /// [`Subscription::resumption`](crate::Subscription::resumption) is then [`Complete`](crate::Resumption::Complete)
    /// if none of the requested events was evicted. This does not mean that the client has every event: see
    /// [`initial_data_with`](Self::initial_data_with).
    pub fn replay_last(mut self, events: usize) -> Self {
        self.replay_last = Some(events);
        self
    }

    /// Makes this the stream of a publisher that follows this one (`History::follow`).
    ///
    /// Each block then has one more line, which other clients ignore: the event's place in the history, and which of the
    /// channels it was published to. Without a last event ID, the stream begins with everything that the history holds
    /// of the channels. [`initial_data`](Self::initial_data), [`replay_last`](Self::replay_last) and
    /// [`snapshot_with`](Self::snapshot_with) have no effect, and a follower that is too slow is disconnected, so that it
    /// resumes. The request must name the same channels in the same order as the follower does.
    ///
    /// A [heartbeat](Self::heartbeat) of a few seconds keeps a follower of quiet channels up to date.
    ///
    /// ```
    /// use server_sent_events::{History, Publisher};
    ///
    /// let publisher = Publisher::builder().history(History::new()).build()?;
    /// publisher.publish_to("news", "hello");
    /// let mut stream = publisher.subscription(()).channels("news").for_follower().open()?;
    /// assert!(stream.next().unwrap().starts_with("follow: begin "));
    /// assert!(stream.next().unwrap().starts_with("follow: event 1 0\ndata: hello\n"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn for_follower(mut self) -> Self {
        self.is_follower = true;
        self
    }

    /// Sets the silence after which the stream is sent a comment; `None` for never. Defaults to the
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
    pub fn max_queued_events(mut self, events: usize) -> Self {
        Arc::make_mut(&mut self.settings.queue).events = events;
        self
    }

    /// Sets how many bytes may be queued for it. Defaults to the
    /// [publisher's](crate::PublisherBuilder::max_queued_bytes).
    pub fn max_queued_bytes(mut self, bytes: usize) -> Self {
        Arc::make_mut(&mut self.settings.queue).bytes = bytes;
        self
    }

    /// Sets the policy for an event that does not fit into the queue. Defaults to the
    /// [publisher's](crate::PublisherBuilder::overflow).
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        Arc::make_mut(&mut self.settings.queue).overflow = overflow;
        self
    }

    /// Sets the time after which the stream ends; `None` for never. Defaults to the
    /// [publisher's](crate::PublisherBuilder::max_lifetime), whose documentation explains it.
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.settings.source.lifetime = lifetime.into();
        self
    }

    /// Sets the minimum interval between two batches; `None` for none. Defaults to the
    /// [publisher's](crate::PublisherBuilder::min_interval), whose documentation explains it.
    pub fn min_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.settings.source.min_interval = interval.into();
        self
    }

    /// Sets the key that the subscription also counts for, such as an address or a user. See
    /// [`max_subscribers_per_quota_key`](crate::PublisherBuilder::max_subscribers_per_quota_key) and
    /// [`disconnect_everywhere`](Publisher::disconnect_everywhere).
    pub fn quota_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.quota_key = Some(key.into());
        self
    }

    /// Opens the subscription. Events that are published from now on are queued for it. Does not block.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] if a limit is reached, the publisher is shutting down, or a setting is invalid. Nothing
    /// is registered then.
    pub fn open(self) -> Result<Subscription, OpenError> {
        let Self { publisher, properties, channels, mut initial_data, last_event_id, start_after, .. } = self;
        let Self { mut settings, quota_key, is_alone, is_follower, replay_last, mut snapshot, .. } = self;
        if is_follower {
            prepare_for_follower(publisher.core.registry.has_history(), &mut settings)?;
            (initial_data, snapshot) = (Vec::new(), None);
        }
        settings
            .check(publisher.core.store.is_some() || publisher.core.upstream.is_some())
            .map_err(OpenError::InvalidSetting)?;
        if channels.is_empty() && !is_alone {
            return Err(OpenError::NoChannels);
        }
        let core = &publisher.core;
        let registry = &core.registry;
        let Settings { queue, source } = settings;
        let (bell, rings) = bounded(1);
        let id = registry.next_subscriber_id();
        let subscriber = Subscriber::new(id, Properties::new(properties), quota_key, queue, bell);
        let client_id = last_event_id.clone().map(Arc::from);
        let replay_from = ReplayFrom::new(last_event_id.or(start_after), replay_last, is_follower);
        let opened = match snapshot {
            Some(make) => snapshot::open(registry, &subscriber, &channels, &replay_from, make),
            None => registry.open(&subscriber, &channels, &replay_from).map(|opening| (opening, None)),
        };
        let (opening, snapshot) = opened.inspect_err(|error| {
            let quota_key = subscriber.quota_key().map(|key| &**key);
            registry.count_refused(error, Subject { quota_key, channels: &channels });
        })?;
        let Opening { resumption, start, first_slice, is_replaying } = opening;
        initial_data.extend(snapshot);
        let source = SourceSettings { lifetime: source.lifetime.map(own_lifetime), ..source };
        let counters = Arc::clone(&core.counters);
        // From here on a panic of the application drops the source, which leaves the registry.
        let mut source = FrameSource::new(Arc::clone(&subscriber), rings, Arc::downgrade(registry), counters, source);
        registry.call_opened(&subscriber, &channels);
        let initial_data: Vec<Event> = initial_data.into_iter().flat_map(|make| make(resumption)).collect();
        let sent = start.as_ref().map_or(0, |start| start.sequence);
        let frames = match start {
            Some(start) => start.frames(initial_data),
            None => initial_data.iter().map(Event::encode).collect(),
        };
        let replay = is_replaying.then(|| Arc::clone(registry));
        if is_follower {
            source.follow(&channels);
        }
        source.begin(frames.into_iter().map(Payload::Frame).chain(first_slice).collect(), sent, replay);
        Ok(Subscription::new(source, Arc::clone(&core.pool), resumption, client_id))
    }
}

/// Makes the settings those of a follower, which must not miss events.
fn prepare_for_follower(has_history: bool, settings: &mut Settings) -> Result<(), OpenError> {
    if !has_history {
        return Err(OpenError::InvalidSetting(InvalidSetting::needs_history()));
    }
    Arc::make_mut(&mut settings.queue).overflow = Overflow::Disconnect;
    settings.source.min_interval = None;
    Ok(())
}

/// Returns a stream's own lifetime. After a restart all clients open streams at once, which should not all end at once.
fn own_lifetime(longest: Duration) -> Duration {
    let share = 0.8 + 0.2 * spread::random_share();
    longest.min(Duration::from_secs(u64::from(u32::MAX))).mul_f64(share)
}

impl<P> fmt::Debug for SubscriptionBuilder<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionBuilder")
            .field("channels", &self.channels)
            .field("initial_data", &self.initial_data.len())
            .field("heartbeat", &self.settings.source.heartbeat)
            .finish_non_exhaustive()
    }
}
