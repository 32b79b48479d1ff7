//! The settings of a publisher.

mod build;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::hooks::{Ended, OnEnd, OnOpen, Opened};
use super::transform::Transforms;
use crate::clock::Clock;
use crate::deliver::SourceSettings;
use crate::error::InvalidSetting;
use crate::event::{Event, HeartbeatStyle};
use crate::history::History;
use crate::queue::{Overflow, QueueLimits};
use crate::registry::{Limits, QuotaPolicy};

/// The settings of a publisher's streams, which a subscription can override.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) queue: Arc<QueueLimits>,
    pub(super) source: SourceSettings,
}

impl Settings {
    /// Checks that no setting is zero, and that no subscriber can stop the store.
    pub(super) fn check(&self, has_store: bool) -> Result<(), InvalidSetting> {
        if has_store && matches!(self.queue.overflow, Overflow::Block(_)) {
            return Err(InvalidSetting::blocks_the_store());
        }
        InvalidSetting::check("max_queued_events", self.queue.events == 0)?;
        InvalidSetting::check("max_queued_bytes", self.queue.bytes == 0)?;
        InvalidSetting::check_option("heartbeat", self.source.heartbeat)?;
        InvalidSetting::check_option("max_lifetime", self.source.lifetime)?;
        InvalidSetting::check_option("min_interval", self.source.min_interval)
    }
}

/// The settings of a [`Publisher`](crate::Publisher); from [`Publisher::builder`](crate::Publisher::builder).
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
/// | writer threads blocked in the first write of a stream, to anything but a socket | half of them | later streams wait to begin, for 30 s at most; the tiny_http adapter answers busy | [`max_writer_threads`](Self::max_writer_threads) |
/// | events in the history | 8,192 per channel, 64 MiB in all | the oldest event is evicted; a client that asks for it gets a `gap` event | [`History`] |
/// | subscriptions | 10,000 | [`OpenError`](crate::OpenError); the adapters respond so that a browser reconnects later | [`max_subscribers`](Self::max_subscribers) |
/// | subscribers of one channel | no limit of its own | [`OpenError`](crate::OpenError); the adapters respond so that a browser reconnects later | [`max_subscribers_per_channel`](Self::max_subscribers_per_channel) |
/// | subscriptions per address, user or other key | no limit of its own | [`OpenError`](crate::OpenError), and the adapters respond so that a browser reconnects later; or the oldest one ends | [`max_subscribers_per_quota_key`](Self::max_subscribers_per_quota_key), [`quota_policy`](Self::quota_policy), [`quota_key`](crate::SubscriptionBuilder::quota_key) |
/// | channels of one subscriber | 64 | [`OpenError`](crate::OpenError); the adapters respond with status 400 | [`max_channels_per_subscriber`](Self::max_channels_per_subscriber) |
/// | the name of a channel | 256 bytes | [`OpenError`](crate::OpenError); the adapters respond with status 400 | [`max_channel_name_len`](Self::max_channel_name_len) |
/// | the lifetime of a stream | none | the stream ends after its queued events, and the client reconnects | [`max_lifetime`](Self::max_lifetime) |
/// | the duration of a shutdown | the grace that it is given | the remaining streams are disconnected | [`shutdown`](crate::Publisher::shutdown) |
/// | log lines | one per kind and second | the next line has the number of events it stands for | feature `log` |
#[must_use = "a builder does nothing until `build`"]
pub struct PublisherBuilder<P = ()> {
    limits: Limits,
    settings: Settings,
    on_open: Option<Box<OnOpen<P>>>,
    on_end: Option<Box<OnEnd<P>>>,
    history: Option<History>,
    transforms: Transforms,
    max_retained_bytes: usize,
    writer_threads: usize,
    writer_stack_size: usize,
    properties: PhantomData<fn(P) -> P>,
}

impl<P: Send + Sync + 'static> PublisherBuilder<P> {
    /// Creates a builder with the default settings.
    pub(super) fn new() -> Self {
        Self {
            limits: Limits {
                subscribers: 10_000,
                channels: 64,
                channel_name_len: 256,
                per_channel: usize::MAX,
                per_quota_key: usize::MAX,
                quota_policy: QuotaPolicy::RefuseNew,
            },
            settings: Settings {
                queue: Arc::new(QueueLimits { events: 1_024, bytes: 1024 * 1024, overflow: Overflow::Disconnect }),
                source: SourceSettings {
                    heartbeat: Some(Duration::from_secs(15)),
                    heartbeat_style: HeartbeatStyle::default(),
                    lifetime: None,
                    min_interval: None,
                    clock: Clock::default(),
                },
            },
            on_open: None,
            on_end: None,
            history: None,
            transforms: Transforms::default(),
            max_retained_bytes: 64 * 1024 * 1024,
            writer_threads: 1_000,
            // The default of std's threads, unless address space is scarce.
            writer_stack_size: if cfg!(target_pointer_width = "64") { 2 * 1024 * 1024 } else { 256 * 1024 },
            properties: PhantomData,
        }
    }

    /// Sets the limit of subscriptions. Defaults to 10,000.
    ///
    /// Beyond it, opening a subscription is an error, and open ones are unaffected. A subscription counts until it is
    /// dropped, even after it has ended, because its connection may still be open.
    pub fn max_subscribers(mut self, subscribers: usize) -> Self {
        self.limits.subscribers = subscribers;
        self
    }

    /// Sets the limit of subscribers per channel. Defaults to [`max_subscribers`](Self::max_subscribers).
    pub fn max_subscribers_per_channel(mut self, subscribers: usize) -> Self {
        self.limits.per_channel = subscribers;
        self
    }

    /// Sets how many subscriptions one [quota key](crate::SubscriptionBuilder::quota_key) may have at once, such as an
    /// address or a user. Defaults to [`max_subscribers`](Self::max_subscribers).
    ///
    /// Beyond it, the [quota policy](Self::quota_policy) decides. By default a new subscription is refused, and a
    /// subscription counts until it is dropped, even after it has ended.
    pub fn max_subscribers_per_quota_key(mut self, subscribers: usize) -> Self {
        self.limits.per_quota_key = subscribers;
        self
    }

    /// Sets what happens to a new subscription whose quota key has reached its limit. Defaults to
    /// [`QuotaPolicy::RefuseNew`].
    ///
    /// For users that reload pages or change networks, [`DisconnectOldest`](QuotaPolicy::DisconnectOldest) is the
    /// friendlier one: the newest page always works.
    pub fn quota_policy(mut self, policy: QuotaPolicy) -> Self {
        self.limits.quota_policy = policy;
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
    /// With the default [`overflow`](Self::overflow) policy, one more event disconnects the subscriber, with
    /// [`EndCause::QueueFull`](crate::EndCause::QueueFull). Initial data does not count.
    pub fn max_queued_events(mut self, events: usize) -> Self {
        Arc::make_mut(&mut self.settings.queue).events = events;
        self
    }

    /// Sets how many bytes of frames may be queued for one subscriber. Defaults to 1 MiB.
    ///
    /// A frame larger than this still fits into an empty queue. A closure counts as its own size, without what its
    /// captures own on the heap. Initial data does not count.
    ///
    /// Events that are published at the same moment must fit together, however fast a client reads. At the default, two
    /// events of 600 KB at once can disconnect **every** subscriber. If events can be large, set this to the sum of
    /// those that can be published together, and to at least twice the largest. All queues share their frames, and only
    /// a slow client keeps them longer.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    ///
    /// let large = "x".repeat(600_000);
    /// for (bytes, subscribers) in [(1024 * 1024, 0), (4 * 1024 * 1024, 1)] {
    ///     let publisher = Publisher::builder().max_queued_bytes(bytes).build()?;
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

    /// Sets the policy for an event that does not fit into a subscriber's queue. Defaults to
    /// [`Overflow::Disconnect`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        Arc::make_mut(&mut self.settings.queue).overflow = overflow;
        self
    }

    /// Sets the time after which a stream ends, so that its client reconnects; `None` for never. Defaults to never.
    ///
    /// It suits clients whose access tokens expire. Each stream gets a lifetime of its own between 80 and 100 % of
    /// this. Its queued events are still delivered. With a history the client misses nothing.
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.settings.source.lifetime = lifetime.into();
        self
    }

    /// Sets the minimum interval between two batches of a stream; `None` for none. Defaults to none.
    ///
    /// What is queued when an interval is over is sent together. Nothing else is sent until the next interval is over,
    /// except a heartbeat that is due. After an interval of silence an event is sent at once. With
    /// [`Overflow::LatestPerKey`] a page so gets the newest event of each key, for example five times per second, however
    /// often the values change. With the other policies the queue must hold the events of an interval. A publisher that
    /// [blocks](Overflow::Block) waits for the interval.
    ///
    /// Initial data and a replay do not wait, and neither does what is queued when the stream ends.
    ///
    /// ```
    /// use server_sent_events::{Event, Overflow, Publisher};
    /// use std::time::Duration;
    ///
    /// let publisher = Publisher::builder()
    ///     .overflow(Overflow::LatestPerKey)
    ///     .min_interval(Duration::from_millis(200))
    ///     .build()?;
    /// let mut subscription = publisher.subscribe()?;
    /// for celsius in ["20.0", "20.1", "20.2"] {
    ///     publisher.publish(Event::new(celsius).key("kitchen"));
    /// }
    /// assert_eq!(subscription.next().unwrap(), "data: 20.2\n\n");
    /// publisher.publish(Event::new("20.3").key("kitchen"));
    /// assert!(subscription.try_recv().is_err()); // not before 200 ms are over
    /// publisher.publish(Event::new("20.4").key("kitchen"));
    /// assert_eq!(subscription.next().unwrap(), "data: 20.4\n\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "throttle")]
    pub fn min_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.settings.source.min_interval = interval.into();
        self
    }

    /// Sets the hook that is called for each [opened](Opened) subscription, with the publisher, the properties and the
    /// channels. Setting it again replaces it.
    ///
    /// The thread that opens the subscription calls it exactly once, without any lock. The subscription is registered
    /// by then, and [`open`](crate::SubscriptionBuilder::open) has not returned. The hook may use the publisher that it
    /// is given. It must not keep a handle of its own: a publisher that its own hook holds never ends. A panic in the
    /// hook is caught.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    ///
    /// let publisher = Publisher::builder_for::<&str>()
    ///     .on_open(|opened| {
    ///         opened.publisher.publish(format!("{} joined", opened.properties));
    ///     })
    ///     .on_end(|ended| {
    ///         ended.publisher.publish(format!("{} left: {}", ended.properties, ended.cause));
    ///     })
    ///     .build()?;
    /// let mut ada = publisher.subscription("Ada").open()?;
    /// let bob = publisher.subscription("Bob").open()?;
    /// drop(bob);
    /// let received: Vec<String> = ada.by_ref().take(3).collect();
    /// assert_eq!(received, ["data: Ada joined\n\n", "data: Bob joined\n\n", "data: Bob left: dropped\n\n"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_open(mut self, hook: impl Fn(Opened<'_, P>) + Send + Sync + 'static) -> Self {
        self.on_open = Some(Box::new(hook));
        self
    }

    /// Sets the hook that is called for each subscriber that has [ended](Ended), with the cause and the channels that
    /// it was in. Setting it again replaces it.
    ///
    /// The hook is called exactly once per subscriber, after [`on_open`](Self::on_open) and without any lock. The
    /// subscriber is no longer registered by then, but its queued events may not be delivered yet. The thread that
    /// ended the subscriber calls the hook: one that publishes, closes, writes or drops the subscription. So the hook
    /// must be short, and must not wait for room ([`Overflow::Block`]). Do long work on another thread.
    ///
    /// The hook may use the publisher. While the last handle is being dropped it is given a temporary one, and a clone
    /// of that must not outlive the call. A panic in the hook is caught.
    pub fn on_end(mut self, hook: impl Fn(Ended<'_, P>) + Send + Sync + 'static) -> Self {
        self.on_end = Some(Box::new(hook));
        self
    }

    /// Sets the silence after which a stream is sent a comment; `None` for never. Defaults to 15 seconds.
    ///
    /// The comment makes a lost connection visible to the server. It also keeps proxies from closing a quiet stream,
    /// which most do after a minute or less.
    #[doc(alias = "keep-alive")]
    pub fn heartbeat(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.settings.source.heartbeat = interval.into();
        self
    }

    /// Sets the form of heartbeats. Defaults to [`HeartbeatStyle::Line`].
    pub fn heartbeat_style(mut self, style: HeartbeatStyle) -> Self {
        self.settings.source.heartbeat_style = style;
        self
    }

    /// Keeps published events, so that a client that reconnects misses nothing. Defaults to no history.
    ///
    /// With a history every event has an ID, and every stream begins with one. A subscription must be given the
    /// client's [last event ID](crate::SubscriptionBuilder::last_event_id) to resume; the adapters' `respond` methods
    /// do that.
    pub fn history(mut self, history: History) -> Self {
        self.history = Some(history);
        self
    }

    /// Registers a transform: a closure with a name, for
    /// [`Publisher::publish_through`](crate::Publisher::publish_through). Registering the name again replaces it.
    ///
    /// The closure makes a subscriber's event from its properties, the published event and the published argument.
    /// `None` skips the subscriber. It is called as the closures of
    /// [`publish_with`](crate::Publisher::publish_with) are. Its name, the event and the argument can be kept in a
    /// [store](crate::store), which a closure without a name cannot. So after a restart, the program must register the
    /// transforms of stored events again, with the same meaning: without one, the clients of its channels get a `gap`
    /// event.
    pub fn transform(
        mut self,
        name: impl Into<Arc<str>>,
        transform: impl Fn(&P, &Event, &str) -> Option<Event> + Send + Sync + 'static,
    ) -> Self {
        self.transforms.insert(name.into(), transform);
        self
    }

    /// Sets how many bytes of large events slow streams may keep in memory on their own. Defaults to 64 MiB.
    ///
    /// A frame is in memory once, however many streams are sent it. Once the [history](crate::History) has evicted it,
    /// a client that does not read keeps it in memory. Above this limit the streams that have been slow for longest are
    /// disconnected, with [`EndCause::QueueFull`](crate::EndCause::QueueFull), and their clients resume. The limit is
    /// checked when a large event is published or evicted. It counts frames of 16 KiB or more, except the newest, that
    /// streams [in the background](crate::Subscription::write_in_background) are being sent. What waits in a queue
    /// has its own limit, [`max_queued_bytes`](Self::max_queued_bytes).
    pub fn max_retained_bytes(mut self, bytes: usize) -> Self {
        self.max_retained_bytes = bytes;
        self
    }

    /// Sets how many threads may write streams [in the background](crate::Subscription::write_in_background). Defaults
    /// to 1,000.
    ///
    /// The pool has one thread per processor, and one more per blocked write. So this is how many blocked writes do not
    /// delay other streams. At the limit, sockets that have been blocked for a second or more are shut down, the one
    /// blocked longest first. This is possible only for a
    /// [recognized socket](crate::Subscription::write_in_background).
    ///
    /// A client can block the first write to any other writer for as long as it likes. At most half of the threads, and
    /// at least one, may be blocked in first writes. Further streams wait until another one has begun, or for their
    /// [write timeout](crate::BackgroundOptions::write_timeout). The adapter for tiny_http answers them busy. At most a
    /// quarter of the threads serve streams that began within the last second.
    ///
    /// A blocked thread takes 18 KiB, 16 KiB of it in the kernel, and the bytes that it writes. The standard library
    /// aborts the program at about 16,000 threads (Linux), counting all threads of the program.
    pub fn max_writer_threads(mut self, threads: usize) -> Self {
        self.writer_threads = threads;
        self
    }

    /// Sets how many bytes of stack a writer thread has. Defaults to 2 MiB, or 256 KiB on 32-bit systems.
    ///
    /// The application's code runs there: writers, closures for [`publish_with`](crate::Publisher::publish_with) and
    /// [`on_end`](crate::BackgroundOptions::on_end), and the `Drop` of their captures. Unused stack takes only address
    /// space.
    pub fn writer_stack_size(mut self, bytes: usize) -> Self {
        self.writer_stack_size = bytes;
        self
    }

    /// Sets a clock that a test advances. Defaults to the system's.
    ///
    /// Heartbeats, lifetimes, [write timeouts](crate::BackgroundOptions::write_timeout) and the
    /// [ages of a history](History::max_age) follow it, whatever [`History::clock`] is set to. The grace of a shutdown
    /// and the waits of [`Overflow::Block`] do not.
    #[cfg(feature = "test-util")]
    pub fn clock(mut self, clock: crate::clock::TestClock) -> Self {
        self.settings.source.clock = clock.into_clock();
        self
    }
}

impl<P> fmt::Debug for PublisherBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublisherBuilder")
            .field("limits", &self.limits)
            .field("queue", &self.settings.queue)
            .field("heartbeat", &self.settings.source.heartbeat)
            .field("max_lifetime", &self.settings.source.lifetime)
            .field("min_interval", &self.settings.source.min_interval)
            .field("history", &self.history)
            .field("max_retained_bytes", &self.max_retained_bytes)
            .field("max_writer_threads", &self.writer_threads)
            .field("writer_stack_size", &self.writer_stack_size)
            .finish()
    }
}
