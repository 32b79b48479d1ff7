//! The settings of a publisher.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::hooks::{Ended, HooksOf, OnEnd, OnOpen, Opened};
use super::{Core, Handles, Publisher};
use crate::deliver::{SourceSettings, WriterPool};
use crate::error::InvalidSetting;
use crate::event::HeartbeatStyle;
use crate::history::History;
use crate::log::RateLimitedLog;
use crate::queue::{Overflow, QueueLimits};
use crate::registry::{Hooks, Limits, Registry};
use crate::stats::Counters;

/// What a publisher's streams have in common, unless one is given its own.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) queue: Arc<QueueLimits>,
    pub(super) source: SourceSettings,
}

impl Settings {
    /// Their names, and whether they are zero, which none may be: max_queued_events, max_queued_bytes, heartbeat,
    /// max_lifetime.
    pub(super) fn are_zero(&self) -> [(&'static str, bool); 4] {
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
/// | writer threads blocked in the first write of a stream, to anything but a `TcpStream` | half of them | later streams wait to begin, for 30 s at most; the tiny_http adapter answers busy | [`max_writer_threads`](Self::max_writer_threads) |
/// | events in the history | 8,192 per channel, 64 MiB in all | the oldest event is evicted; a client that asks for it gets a `gap` event | [`History`] |
/// | subscriptions | 10,000 | [`OpenError`](crate::OpenError); the adapters respond so that a browser reconnects later | [`max_subscribers`](Self::max_subscribers) |
/// | subscribers of one channel | no limit of its own | [`OpenError`](crate::OpenError); the adapters respond so that a browser reconnects later | [`max_subscribers_per_channel`](Self::max_subscribers_per_channel) |
/// | subscriptions per address, user or other key | no limit of its own | [`OpenError`](crate::OpenError); the adapters respond so that a browser reconnects later | [`max_subscribers_per_quota_key`](Self::max_subscribers_per_quota_key), [`quota_key`](crate::SubscriptionBuilder::quota_key) |
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

    /// Sets how many subscriptions one [quota key](crate::SubscriptionBuilder::quota_key) may have at once, such as an
    /// address or a user. Defaults to [`max_subscribers`](Self::max_subscribers). A subscription counts until it is
    /// dropped, even after it has ended.
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
    /// events of 600 KB at once can disconnect **every** subscriber. If events can be large, set this to the sum of
    /// those that can come together, and at least to twice the largest. A queue shares its frames with all others; only
    /// a client that is slow keeps them longer.
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

    /// Sets the hook that is called for each subscription that was [opened](Opened): with the publisher, the properties
    /// and the channels. Setting it again replaces it.
    ///
    /// Called exactly once for each, by the thread that opens it, without any lock, when it is in the registry and
    /// before [`open`](crate::SubscriptionBuilder::open) returns. It may use the publisher, which it is given so that
    /// it need not keep a handle: a publisher that its own hook holds never ends. A panic in it is caught.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    ///
    /// let publisher = Publisher::builder_for::<&str>()
    ///     .on_open(|opened| {
    ///         opened.publisher.publish(format!("{} has come", opened.properties));
    ///     })
    ///     .on_end(|ended| {
    ///         ended.publisher.publish(format!("{} has left: {}", ended.properties, ended.cause));
    ///     })
    ///     .build()?;
    /// let mut ada = publisher.subscription("Ada").open()?;
    /// let bob = publisher.subscription("Bob").open()?;
    /// drop(bob);
    /// let heard: Vec<String> = ada.by_ref().take(3).collect();
    /// assert_eq!(heard, ["data: Ada has come\n\n", "data: Bob has come\n\n", "data: Bob has left: dropped\n\n"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_open(mut self, hook: impl Fn(Opened<'_, P>) + Send + Sync + 'static) -> Self {
        self.on_open = Some(Box::new(hook));
        self
    }

    /// Sets the hook that is called for each subscriber that has [left](Ended), with the cause. Setting it again
    /// replaces it.
    ///
    /// Called exactly once for each, after [`on_open`](Self::on_open), without any lock, as soon as the subscriber is
    /// out of the registry; what is queued for it may still be on its way. The thread is the one that ended it: one
    /// that publishes, closes, writes or drops the subscription. So it should be short, and not wait for room
    /// ([`Overflow::Block`]); what takes long belongs on a thread of its own. It may use the publisher; while the last
    /// handle is being dropped it is given a passing one, and a clone of that must not outlive the call. A panic in it
    /// is caught. The channels are those that it was in.
    pub fn on_end(mut self, hook: impl Fn(Ended<'_, P>) + Send + Sync + 'static) -> Self {
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

    /// Sets how many bytes of large events may be in memory only because slow streams still hold them. Defaults to 64
    /// MiB.
    ///
    /// A frame is in memory once, however many streams are being sent it. When the [history](crate::History) has
    /// evicted it, a client that does not read keeps it there. Above this limit the streams that have been slow for
    /// longest are disconnected, with [`EndCause::QueueFull`](crate::EndCause::QueueFull), and their clients resume. It
    /// is looked at with each event that is published. Counts frames of 16 KiB or more, of streams that are written [in
    /// the background](crate::Subscription::write_in_background); the newest is not counted.
    pub fn max_retained_bytes(mut self, bytes: usize) -> Self {
        self.limits.retained_bytes = bytes;
        self
    }

    /// Sets how many threads may write streams [in the background](crate::Subscription::write_in_background). Defaults
    /// to 1,000.
    ///
    /// There are as many as processors, and one more for each connection that hangs in a write, so this is how
    /// many stalled connections do not concern the others. At the limit, sockets that hang for a second and more are
    /// shut down, the longest first, where they are known: a [`TcpStream`](std::net::TcpStream) that was handed over.
    ///
    /// A first write to any other writer may be blocked for as long as the client likes. At most half of the threads,
    /// and at least one, may be blocked in first writes. Further streams wait to begin: until another one has begun, or
    /// for their [write timeout](crate::BackgroundOptions::write_timeout). The adapter for tiny_http answers them busy.
    /// At most a quarter of the threads are given to streams that began within the last second.
    ///
    /// A thread that hangs costs 18 KiB,
    /// 16 KiB in the kernel, and what it is writing. The standard library aborts the program at about 16,000 threads
    /// (Linux), those of all publishers and of everybody else together.
    pub fn max_writer_threads(mut self, threads: usize) -> Self {
        self.writer_threads = threads;
        self
    }

    /// Sets how many bytes of stack a writer thread has. Defaults to 2 MiB, or 256 KiB where addresses have 32 bits.
    ///
    /// What the application gave runs there: writers, closures for [`publish_with`](crate::Publisher::publish_with) and
    /// [`on_end`](crate::BackgroundOptions::on_end), and the `Drop` of what they hold. What is not used costs address
    /// space only.
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
        let warnings = Arc::new(RateLimitedLog::new());
        let counters = Arc::new(Counters::new(Arc::clone(&warnings)));
        let Self { on_open, on_end, .. } = self;
        let has_hooks = on_open.is_some() || on_end.is_some();
        let hooks = has_hooks.then(|| Arc::new(HooksOf { publisher: OnceLock::new(), on_open, on_end }));
        let to_call = hooks.clone().map(|hooks| hooks as Arc<dyn Hooks>);
        let registry = Registry::new(self.limits, self.history, Arc::clone(&counters), to_call, Arc::clone(&warnings));
        let registry = Arc::new(registry);
        let pool = WriterPool::new(self.writer_threads, self.writer_stack_size, warnings);
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
