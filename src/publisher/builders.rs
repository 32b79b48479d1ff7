//! What is chosen of a publisher before it is built, and of a subscription before it is opened.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::bounded;

use super::{Core, Handles, HooksOf, OnEnd, OnOpen, Publisher};
use crate::channels::{Channels, DEFAULT_CHANNEL};
use crate::deliver::{FrameSource, SourceSettings, WriterPool};
use crate::error::{InvalidSetting, OpenError};
use crate::event::{Event, HeartbeatStyle};
use crate::history::{History, Resumption};
use crate::log::RateLimitedLog;
use crate::queue::{Overflow, Payload, Properties, QueueLimits, Subscriber};
use crate::registry::{Hooks, Limits, Opening, Registry, ReplayFrom};
use crate::spread;
use crate::stats::{Counters, EndCause};
use crate::subscription::Subscription;

/// What a publisher's streams have in common, unless one is given its own.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) queue: Arc<QueueLimits>,
    pub(super) source: SourceSettings,
}

impl Settings {
    /// Their names, and whether they are zero, which none may be: max_queued_events, max_queued_bytes, heartbeat, max_lifetime.
    fn are_zero(&self) -> [(&'static str, bool); 4] {
        [
            ("max_queued_events", self.queue.events == 0),
            ("max_queued_bytes", self.queue.bytes == 0),
            ("heartbeat", self.source.heartbeat == Some(Duration::ZERO)),
            ("max_lifetime", self.source.lifetime == Some(Duration::ZERO)),
        ]
    }
}

/// The settings of a [`Publisher`]; from [`Publisher::builder`].
///
/// Everything that can grow has a limit:
///
/// | what | limit | at the limit | set by |
/// |---|---|---|---|
/// | events queued for one subscriber | 1,024, and 1 MiB | the stream ends at once and its queue is dropped, unless another [`Overflow`] is chosen | [`max_queued_events`](Self::max_queued_events), [`max_queued_bytes`](Self::max_queued_bytes), [`overflow`](Self::overflow) |
/// | one write to a socket in the background | 30 s | the stream ends and its socket is shut down | [`write_timeout`](crate::BackgroundOptions::write_timeout) |
/// | data in the kernel for a client that does not read | about 200 KB with this crate's listeners on Linux, 4 MB with others | the write blocks | the adapters and servers |
/// | large events that only slow streams keep in memory | 64 MiB in all | the streams that have been slow for longest are disconnected, and their clients resume | [`max_retained_bytes`](Self::max_retained_bytes) |
/// | writer threads | one per processor, and one more per blocked write, up to 1,000 | blocked sockets are shut down, the one blocked longest first | [`max_writer_threads`](Self::max_writer_threads) |
/// | events in the history | 8,192 per channel, 64 MiB in all | the oldest event is evicted; a client that asks for it gets a `gap` event | [`History`] |
/// | subscriptions | 10,000 | [`OpenError`]; the adapters respond so that a browser reconnects later | [`max_subscribers`](Self::max_subscribers) |
/// | subscribers of one channel | no limit of its own | [`OpenError`]; the adapters respond so that a browser reconnects later | [`max_subscribers_per_channel`](Self::max_subscribers_per_channel) |
/// | subscriptions per address, user or other key | no limit of its own | [`OpenError`]; the adapters respond so that a browser reconnects later | [`max_subscribers_per_quota_key`](Self::max_subscribers_per_quota_key), [`quota_key`](SubscriptionBuilder::quota_key) |
/// | channels of one subscriber | 64 | [`OpenError`]; the adapters respond with status 400 | [`max_channels_per_subscriber`](Self::max_channels_per_subscriber) |
/// | the name of a channel | 256 bytes | [`OpenError`]; the adapters respond with status 400 | [`max_channel_name_len`](Self::max_channel_name_len) |
/// | the lifetime of a stream | none | the stream ends after its queued events, and the client reconnects | [`max_lifetime`](Self::max_lifetime) |
/// | the duration of a shutdown | the grace that it is given | the remaining streams are disconnected | [`shutdown`](Publisher::shutdown) |
/// | log lines | one per kind and second | the next line has the number of events it stands for | feature `log` |
#[must_use = "a builder does nothing until `build`"]
pub struct PublisherBuilder<P = ()> {
    limits: Limits,
    settings: Settings,
    on_open: Option<Box<OnOpen<P>>>,
    on_end: Option<Box<OnEnd<P>>>,
    history: Option<History>,
    writer_threads: usize,
    writer_stack_size: usize,
    properties: PhantomData<fn(P) -> P>,
}

impl<P: Send + Sync + 'static> PublisherBuilder<P> {
    /// With the defaults.
    pub(super) fn new() -> Self {
        Self {
            limits: Limits {
                subscribers: 10_000,
                channels: 64,
                channel_name_len: 256,
                per_channel: usize::MAX,
                per_quota_key: usize::MAX,
                retained_bytes: 64 * 1024 * 1024,
            },
            settings: Settings {
                queue: Arc::new(QueueLimits { events: 1_024, bytes: 1024 * 1024, overflow: Overflow::Disconnect }),
                source: SourceSettings {
                    heartbeat: Some(Duration::from_secs(15)),
                    heartbeat_style: HeartbeatStyle::default(),
                    lifetime: None,
                },
            },
            on_open: None,
            on_end: None,
            history: None,
            writer_threads: 1_000,
            // As std's own threads have, where address space costs nothing.
            writer_stack_size: if cfg!(target_pointer_width = "64") { 2 * 1024 * 1024 } else { 256 * 1024 },
            properties: PhantomData,
        }
    }

    /// How many subscriptions there may be at once. Defaults to 10,000.
    ///
    /// Above it, opening one is an error; those that are open are not concerned. One that has ended counts until it
    /// is dropped: a connection that hangs is a connection that is there.
    pub fn max_subscribers(mut self, subscribers: usize) -> Self {
        self.limits.subscribers = subscribers;
        self
    }

    /// How many subscribers one channel may have at once. Defaults to as many as the publisher may have.
    pub fn max_subscribers_per_channel(mut self, subscribers: usize) -> Self {
        self.limits.per_channel = subscribers;
        self
    }

    /// Sets how many subscriptions one [quota key](SubscriptionBuilder::quota_key) may have at once, such as an address or
    /// a user. Defaults to [`max_subscribers`](Self::max_subscribers). A subscription counts until it is dropped, even
    /// after it has ended.
    pub fn max_subscribers_per_quota_key(mut self, subscribers: usize) -> Self {
        self.limits.per_quota_key = subscribers;
        self
    }

    /// Sets how many channels one subscriber may be in. Defaults to 64.
    pub fn max_channels_per_subscriber(mut self, channels: usize) -> Self {
        self.limits.channels = channels;
        self
    }

    /// Sets how many bytes the name of a subscribed channel may have. Defaults to 256.
    ///
    /// Publishing to a channel with a longer name is not an error: the channel has no subscribers.
    pub fn max_channel_name_len(mut self, bytes: usize) -> Self {
        self.limits.channel_name_len = bytes;
        self
    }

    /// Sets how many events may be queued for one subscriber. Defaults to 1,024.
    ///
    /// One more ends it at once, with [`EndCause::QueueFull`](crate::EndCause::QueueFull), unless
    /// [`overflow`](Self::overflow) says otherwise. Initial data does not count.
    pub fn max_queued_events(mut self, frames: usize) -> Self {
        Arc::make_mut(&mut self.settings.queue).events = frames;
        self
    }

    /// Sets how many bytes of frames may wait for one subscriber. Defaults to 1 MiB.
    ///
    /// A frame larger than this still fits into an empty queue. A closure counts by its own size, without what its
    /// captures own elsewhere. Initial data does not count.
    ///
    /// Events that are published at the same moment must fit together, however fast a client reads. At the default, two
    /// events of 600 KB at once can disconnect **every** subscriber. If events can be large, set this to the sum of those
    /// that can come together, and at least to twice the largest. A queue shares its frames with all others; only a
    /// client that is slow keeps them longer.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    ///
    /// let large = "x".repeat(600_000);
    /// for (bytes, subscribers) in [(1024 * 1024, 0), (4 * 1024 * 1024, 1)] {
    ///     let publisher = Publisher::<()>::builder().max_queued_bytes(bytes).build()?;
    ///     let _subscription = publisher.subscribe()?;
    ///     publisher.publish(&large);
    ///     publisher.publish(&large);
    ///     assert_eq!(publisher.stats().subscribers, subscribers);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_queued_bytes(mut self, bytes: usize) -> Self {
        Arc::make_mut(&mut self.settings.queue).bytes = bytes;
        self
    }

    /// What happens when an event does not fit into a subscriber's queue. Defaults to [`Overflow::Disconnect`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        Arc::make_mut(&mut self.settings.queue).overflow = overflow;
        self
    }

    /// After how long a stream ends, so that its client comes back: tokens expire, and versions change. Each stream
    /// is given a time of its own between 80 and 100 % of this. `None`, the default, for never.
    ///
    /// What is queued then is delivered. With a history the client misses nothing.
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.settings.source.lifetime = lifetime.into();
        self
    }

    /// What is called for each subscription that was opened: with its properties and its channels. Setting it again
    /// replaces it.
    ///
    /// Called exactly once for each, by the thread that opens it, without any lock, when it is in the registry and before
    /// [`open`](SubscriptionBuilder::open) returns. It may use the publisher, which it is given so that it need not keep a
    /// handle: a publisher that its own hook holds never ends. A panic in it is caught.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    ///
    /// let publisher = Publisher::<&str>::builder()
    ///     .on_open(|publisher, name, _channels| drop(publisher.publish(format!("{name} has come"))))
    ///     .on_end(|publisher, name, _channels, _cause| drop(publisher.publish(format!("{name} has left"))))
    ///     .build()?;
    /// let mut ada = publisher.subscription("Ada").open()?;
    /// let bob = publisher.subscription("Bob").open()?;
    /// drop(bob);
    /// let heard: Vec<String> = ada.by_ref().take(3).collect();
    /// assert_eq!(heard, ["data: Ada has come\n\n", "data: Bob has come\n\n", "data: Bob has left\n\n"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_open(mut self, hook: impl Fn(&Publisher<P>, &P, &[&str]) + Send + Sync + 'static) -> Self {
        self.on_open = Some(Box::new(hook));
        self
    }

    /// What is called for each subscriber that has left, and why. Setting it again replaces it.
    ///
    /// Called exactly once for each, after [`on_open`](Self::on_open), without any lock, as soon as the subscriber is out
    /// of the registry; what is queued for it may still be on its way. The thread is the one that ended it: one that
    /// publishes, closes, writes or drops the subscription. So it should be short, and
    /// not wait for room ([`Overflow::Block`]); what takes long belongs on a thread of its own. It may use the publisher; while the last
    /// handle is being dropped it is given a passing one, and a clone of that must not outlive the call. A panic in it is
    /// caught. The channels are those that it was in.
    pub fn on_end(mut self, hook: impl Fn(&Publisher<P>, &P, &[&str], EndCause) + Send + Sync + 'static) -> Self {
        self.on_end = Some(Box::new(hook));
        self
    }

    /// After how much silence a stream is sent a comment; `None` for never. Defaults to 15 seconds.
    ///
    /// It is how a server notices a client that has gone, and what keeps a proxy from cutting a quiet stream:
    /// most do so after a minute or less.
    #[doc(alias = "keep-alive")]
    pub fn heartbeat(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.settings.source.heartbeat = interval.into();
        self
    }

    /// Sets how heartbeats look. Defaults to [`HeartbeatStyle::Line`].
    pub fn heartbeat_style(mut self, style: HeartbeatStyle) -> Self {
        self.settings.source.heartbeat_style = style;
        self
    }

    /// Keeps what is published, so that a client which reconnects misses nothing. Defaults to keeping nothing.
    ///
    /// With a history every event has an id, and every stream begins with one.
    pub fn history(mut self, history: History) -> Self {
        self.history = Some(history);
        self
    }

    /// Sets how many bytes of large events may be in memory only because slow streams still hold them. Defaults to 64 MiB.
    ///
    /// A frame is in memory once, however many streams are being sent it. When the [history](History) has evicted it, a client
    /// that does not read keeps it there. Above this limit the streams that have been slow for longest are disconnected, with
    /// [`EndCause::QueueFull`](crate::EndCause::QueueFull), and their clients resume. It is looked at with each event that
    /// is published. Counts frames of 16 KiB or more, of streams that are written [in the
    /// background](Subscription::write_in_background); the newest is not counted.
    pub fn max_retained_bytes(mut self, bytes: usize) -> Self {
        self.limits.retained_bytes = bytes;
        self
    }

    /// Sets how many threads may write streams [in the background](Subscription::write_in_background). Defaults to 1,000.
    ///
    /// There are as many as processors, and one more for each connection that hangs in a write, so this is how
    /// many stalled connections do not concern the others. At the limit, sockets that hang for a second and more are
    /// shut down, the longest first, where they are known: a [`TcpStream`](std::net::TcpStream) that was handed over.
    /// A quarter of the threads at the most is given to streams that have not begun. A thread that hangs costs 18 KiB,
    /// 16 KiB in the kernel, and what it is writing. The standard library aborts the program at about 16,000 threads
    /// (Linux), those of all publishers and of everybody else together.
    pub fn max_writer_threads(mut self, threads: usize) -> Self {
        self.writer_threads = threads;
        self
    }

    /// Sets how many bytes of stack a writer thread has. Defaults to 2 MiB, or 256 KiB where addresses have 32 bits.
    ///
    /// What the application gave runs there: writers, closures for [`publish_with`](Publisher::publish_with) and
    /// [`on_end`](crate::BackgroundOptions::on_end), and the `Drop` of what they hold. What is not used costs address space only.
    pub fn writer_stack_size(mut self, bytes: usize) -> Self {
        self.writer_stack_size = bytes;
        self
    }

    /// The publisher with these settings.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`] names the setting that is zero.
    pub fn build(self) -> Result<Publisher<P>, InvalidSetting> {
        let Limits { subscribers, channels, channel_name_len, per_channel, per_quota_key, retained_bytes } =
            self.limits;
        let [frames, bytes, heartbeat, lifetime] = self.settings.are_zero();
        let settings = [
            ("max_subscribers", subscribers == 0),
            ("max_channels_per_subscriber", channels == 0),
            ("max_channel_name_len", channel_name_len == 0),
            ("max_subscribers_per_channel", per_channel == 0),
            ("max_subscribers_per_quota_key", per_quota_key == 0),
            ("max_retained_bytes", retained_bytes == 0),
            frames,
            bytes,
            ("max_writer_threads", self.writer_threads == 0),
            ("writer_stack_size", self.writer_stack_size == 0),
            heartbeat,
            lifetime,
        ];
        if let Some(&(setting, _)) = settings.iter().find(|(_, is_zero)| *is_zero) {
            return Err(InvalidSetting::new(setting));
        }
        if let Some(history) = &self.history {
            history.check()?;
        }
        let notices = Arc::new(RateLimitedLog::new());
        let counters = Arc::new(Counters::new(Arc::clone(&notices)));
        let Self { on_open, on_end, .. } = self;
        let has_hooks = on_open.is_some() || on_end.is_some();
        let hooks = has_hooks.then(|| Arc::new(HooksOf { publisher: OnceLock::new(), on_open, on_end }));
        let to_call = hooks.clone().map(|hooks| hooks as Arc<dyn Hooks>);
        let registry = Registry::new(self.limits, self.history, Arc::clone(&counters), to_call, Arc::clone(&notices));
        let registry = Arc::new(registry);
        let pool = WriterPool::new(self.writer_threads, self.writer_stack_size, notices);
        let core = Arc::new(Core { registry, counters, pool, settings: self.settings });
        let weak = Arc::downgrade(&core);
        let core = Arc::new(Handles(core));
        if let Some(hooks) = hooks {
            assert!(hooks.publisher.set((Arc::downgrade(&core), weak)).is_ok(), "BUG: set once");
        }
        Ok(Publisher { core, properties: PhantomData })
    }
}

impl<P> fmt::Debug for PublisherBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublisherBuilder")
            .field("limits", &self.limits)
            .field("queue", &self.settings.queue)
            .field("heartbeat", &self.settings.source.heartbeat)
            .field("max_lifetime", &self.settings.source.lifetime)
            .field("history", &self.history)
            .field("max_writer_threads", &self.writer_threads)
            .field("writer_stack_size", &self.writer_stack_size)
            .finish()
    }
}

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
    /// [resumed](Subscription::resumption). More may be added.
    ///
    /// For a snapshot of something that changes: what is published while it is made comes after it, so nothing falls
    /// between the two; an event may be in both. And a client that has everything needs none.
    ///
    /// ```
    /// use server_sent_events::{Event, History, Publisher};
    ///
    /// let publisher = Publisher::<()>::builder().history(History::new()).build()?;
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
    /// each once, then the live events. Without an id, or without a [history](History), nothing is replayed.
    ///
    /// If something newer is not there any more, or the id is not one of this history's (of an earlier run of the
    /// program, say), what is still there is replayed behind an event of type
    /// [`gap`](History::gap_event). The replay does not count towards the bounds of the queue.
    pub fn last_event_id(mut self, id: impl Into<Option<String>>) -> Self {
        self.last_event_id = id.into();
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
    /// let publisher = Publisher::<()>::builder().history(History::new()).build()?;
    /// # let read_the_state = || "two lamps";
    /// // The request for the page: first the point, then what it shows. What changes in between comes again.
    /// let point = publisher.last_event_id();
    /// let page = format!("{} <script>new EventSource('/lamps?after={}')", read_the_state(), point.unwrap());
    ///
    /// // The request for the stream. A client that reconnects says its own id, which is newer.
    /// # let (from_the_query, from_the_request) = (publisher.last_event_id(), None);
    /// let subscription = publisher.subscription(()).start_after(from_the_query).last_event_id(from_the_request).open()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_after(mut self, id: impl Into<Option<String>>) -> Self {
        self.after = id.into();
        self
    }

    /// For a client that comes without an id: so many of the newest events in its channels come first.
    pub fn replay_last(mut self, events: usize) -> Self {
        self.replay_last = Some(events);
        self
    }

    /// After how much silence the stream is sent a comment; `None` for never. Defaults to the
    /// [publisher's](PublisherBuilder::heartbeat).
    #[doc(alias = "keep-alive")]
    pub fn heartbeat(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.settings.source.heartbeat = interval.into();
        self
    }

    /// Sets how the stream's heartbeats look. Defaults to the [publisher's](PublisherBuilder::heartbeat_style).
    pub fn heartbeat_style(mut self, style: HeartbeatStyle) -> Self {
        self.settings.source.heartbeat_style = style;
        self
    }

    /// Sets how many events may be queued for it. Defaults to the [publisher's](PublisherBuilder::max_queued_events).
    pub fn max_queued_events(mut self, frames: usize) -> Self {
        Arc::make_mut(&mut self.settings.queue).events = frames;
        self
    }

    /// Sets how many bytes may be queued for it. Defaults to the [publisher's](PublisherBuilder::max_queued_bytes).
    pub fn max_queued_bytes(mut self, bytes: usize) -> Self {
        Arc::make_mut(&mut self.settings.queue).bytes = bytes;
        self
    }

    /// What happens when an event does not fit into its queue. Defaults to the [publisher's](PublisherBuilder::overflow).
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        Arc::make_mut(&mut self.settings.queue).overflow = overflow;
        self
    }

    /// After how long it ends; `None` for never. Defaults to the [publisher's](PublisherBuilder::max_lifetime), where it
    /// is explained.
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.settings.source.lifetime = lifetime.into();
        self
    }

    /// Sets the key under which the subscription is counted too: an address, a user. See
    /// [`max_subscribers_per_quota_key`](PublisherBuilder::max_subscribers_per_quota_key).
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
