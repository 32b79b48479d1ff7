//! The sending half: the public handle and its builder.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::channels::names::One;
use crate::channels::{Channels, DEFAULT_CHANNEL};
use crate::error::{BuildError, OpenError};
use crate::event::{Event, Frame};
use crate::history::{History, Resumed};
use crate::queue::{Item, Properties, Queue, QueueBounds, Render};
use crate::registry::{Beginning, Draft, Limits, Published, Registry, Wish};
#[cfg(feature = "tiny_http")]
use crate::stats::EndCause;
use crate::stats::{Counters, Stats};
use crate::subscription::{Owner, Parts, Runner, SubscriberId, Subscription};
use crate::writers::Writers;

/// The sending half: publishes events to all who have subscribed.
///
/// A cheap handle: clone it, send it to every thread that has something to tell. Publishing never waits for a
/// subscriber or a socket. What one thread publishes arrives in that order, and all subscribers of a channel
/// see the events of all threads in the same order.
///
/// `P` is what the application says about each subscriber, its properties: a user's name, a language, rights.
/// [`publish_with`](Self::publish_with) and [`unsubscribe`](Self::unsubscribe) look at it.
///
/// When the last handle is dropped, every stream ends, as with [`close`](Self::close). Subscriptions keep
/// no handle alive.
///
/// ```
/// use server_sent_events::Publisher;
/// use std::thread;
///
/// let publisher = Publisher::new();
/// let mut subscription = publisher.subscribe()?;
///
/// let worker = publisher.clone();
/// thread::spawn(move || worker.publish("half done"));
///
/// assert_eq!(subscription.next().unwrap(), "data: half done\n\n");
/// # Ok::<(), server_sent_events::OpenError>(())
/// ```
pub struct Publisher<P = ()> {
    core: Arc<Core>,
    properties: PhantomData<fn(P) -> P>,
}

/// What all handles share. Subscriptions hold the registry, but weakly; so this goes with the last handle.
struct Core {
    registry: Arc<Registry>,
    counters: Arc<Counters>,
    writers: Arc<Writers>,
    heartbeat: Option<Duration>,
}

impl Core {
    /// A subscription that nobody can publish to yet.
    fn subscription(&self, id: SubscriberId, properties: Properties, queue: Arc<Queue>) -> Parts {
        let registry: Arc<dyn Owner> = Arc::clone(&self.registry) as _;
        Parts {
            owner: Arc::downgrade(&registry),
            runner: Arc::clone(&self.writers) as Arc<dyn Runner>,
            id,
            properties,
            queue,
            first: VecDeque::new(),
            resumed: Resumed::NotAsked,
            heartbeat: None,
            counters: Arc::clone(&self.counters),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.registry.close().finish();
        self.writers.close();
    }
}

impl Publisher {
    /// A publisher with the default settings whose subscribers have no properties.
    ///
    /// For others, and for other settings, there is [`builder`](Publisher::builder).
    pub fn new() -> Self {
        Self::builder().build().expect("BUG: the default settings are not allowed")
    }
}

impl Default for Publisher {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Send + Sync + 'static> Publisher<P> {
    /// A publisher whose settings are chosen one by one.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    ///
    /// struct User { name: String }
    /// let publisher = Publisher::<User>::builder().max_subscribers(500).build()?;
    /// # Ok::<(), server_sent_events::BuildError>(())
    /// ```
    pub fn builder() -> PublisherBuilder<P> {
        PublisherBuilder {
            limits: Limits {
                subscribers: 10_000,
                channels: 64,
                channel_name: 256,
                queue: QueueBounds { frames: 1_024, bytes: 1024 * 1024 },
            },
            heartbeat: Some(Duration::from_secs(15)),
            history: None,
            writer_threads: 1_000,
            // As std's own threads have, where address space costs nothing.
            writer_stack: if cfg!(target_pointer_width = "64") { 2 * 1024 * 1024 } else { 256 * 1024 },
            properties: PhantomData,
        }
    }

    /// Publishes an event to [`DEFAULT_CHANNEL`].
    ///
    /// Never blocks on a subscriber: a subscriber whose queue is full is ended instead.
    ///
    /// ```
    /// # let publisher = server_sent_events::Publisher::new();
    /// let receipt = publisher.publish("hello");
    /// assert_eq!(receipt.queued(), 0); // nobody listens
    /// ```
    pub fn publish(&self, event: impl Into<Event>) -> Receipt {
        self.publish_to::<One>(DEFAULT_CHANNEL, event)
    }

    /// Publishes an event to these channels; a subscriber of several of them gets it once.
    ///
    /// Never blocks on a subscriber: a subscriber whose queue is full is ended instead.
    ///
    /// ```
    /// # use server_sent_events::{Event, Publisher};
    /// # let publisher = Publisher::new();
    /// publisher.publish_to(["chat", "news"], Event::new("hi").event("greeting")?);
    /// # Ok::<(), server_sent_events::EventError>(())
    /// ```
    pub fn publish_to<By>(&self, channels: impl Channels<By>, event: impl Into<Event>) -> Receipt {
        let has_history = self.core.registry.has_history();
        self.send(channels, || {
            let event = event.into();
            let item = Item::Frame(if has_history { event.encode_unsealed() } else { event.encode() });
            Draft { item, own_id: event.own_id().map(Into::into), is_comment: event.is_comment() }
        })
    }

    /// Publishes to each subscriber of these channels what the closure makes of its properties; `None` skips it.
    ///
    /// Never blocks on a subscriber, and does not call the closure: that happens later, once for each
    /// subscriber, on the thread that delivers to it. So the closure must depend on nothing but its
    /// captures and the properties. When it panics, that subscriber gets an event of type `gap` in its place,
    /// and [`Stats::panicked`](crate::Stats::panicked) counts it.
    ///
    /// ```
    /// use server_sent_events::{Event, Publisher};
    ///
    /// struct User { name: String }
    /// let publisher = Publisher::<User>::builder().build()?;
    /// let mut ada = publisher.subscription(User { name: "Ada".into() }).open()?;
    /// let mut bob = publisher.subscription(User { name: "Bob".into() }).open()?;
    ///
    /// let sender = "Ada";
    /// publisher.publish_with("default channel", move |user: &User| {
    ///     (user.name != sender).then(|| Event::new(format!("{}, a word from {sender}", user.name)))
    /// });
    /// assert_eq!(bob.try_next().unwrap(), "data: Bob, a word from Ada\n\n");
    /// assert!(ada.try_next().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish_with<By, F>(&self, channels: impl Channels<By>, closure: F) -> Receipt
    where
        F: Fn(&P) -> Option<Event> + Send + Sync + 'static,
    {
        let closure = move |properties: &dyn Any| closure(of_this_type(properties));
        self.send(channels, || Draft {
            item: Item::Render(Arc::new(Render::new(closure))),
            own_id: None,
            is_comment: false,
        })
    }

    fn send<By>(&self, channels: impl Channels<By>, draft: impl FnOnce() -> Draft) -> Receipt {
        let registry = &self.core.registry;
        channels.with_names(|names| {
            // What is kept is encoded even if nobody listens.
            if !registry.has_history() && !registry.is_heard(names) {
                return Receipt { queued: 0, id: None };
            }
            let (Published { queued, id }, afterwards) = registry.publish(names, draft());
            afterwards.finish();
            Receipt { queued, id }
        })
    }

    /// A subscriber of [`DEFAULT_CHANNEL`] with default properties.
    ///
    /// Does not block. What is published from now on waits for it.
    ///
    /// # Errors
    ///
    /// [`OpenError::TooManySubscribers`].
    pub fn subscribe(&self) -> Result<Subscription, OpenError>
    where
        P: Default,
    {
        self.subscription(P::default()).open()
    }

    /// A subscriber with these properties, whose channels and initial data are chosen before it is opened.
    ///
    /// ```
    /// # use server_sent_events::Publisher;
    /// # let publisher = Publisher::new();
    /// let mut subscription = publisher.subscription(()).channels(["chat", "news"]).initial_data(["welcome"]).open()?;
    /// assert_eq!(subscription.next().unwrap(), "data: welcome\n\n");
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn subscription(&self, properties: P) -> SubscriptionBuilder<'_, P> {
        SubscriptionBuilder {
            publisher: self,
            properties,
            channels: vec![DEFAULT_CHANNEL.into()],
            first: Vec::new(),
            last_event_id: None,
            after: None,
            replay_last: None,
            heartbeat: self.core.heartbeat,
        }
    }

    /// The properties of the subscribers of these channels, each subscriber once, the oldest first.
    ///
    /// ```
    /// # use server_sent_events::Publisher;
    /// let publisher = Publisher::<&str>::builder().build()?;
    /// let _ada = publisher.subscription("Ada").channels("chat").open()?;
    /// let names: Vec<&str> = publisher.subscribers("chat").iter().map(|name| **name).collect();
    /// assert_eq!(names, ["Ada"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn subscribers<By>(&self, channels: impl Channels<By>) -> Vec<Arc<P>> {
        let subscribers = channels.with_names(|names| self.core.registry.subscribers(names));
        subscribers
            .into_iter()
            .map(|(_, properties)| properties.downcast().expect("BUG: properties of another type"))
            .collect()
    }

    /// Takes the subscribers for which the filter says `true` out of these channels; returns how many.
    ///
    /// One that is in no channel any more ends after what is queued for it, also while a thread blocks on
    /// it. The filter is asked once for each subscriber of one of the channels, and may use the publisher.
    ///
    /// ```
    /// # use server_sent_events::Publisher;
    /// # let publisher = Publisher::new();
    /// let mut subscription = publisher.subscribe()?;
    /// assert_eq!(publisher.unsubscribe("default channel", |_| true), 1);
    /// assert_eq!(subscription.next(), None);
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn unsubscribe<By>(&self, channels: impl Channels<By>, mut filter: impl FnMut(&P) -> bool) -> usize {
        let registry = &self.core.registry;
        channels.with_names(|names| {
            let mut chosen = registry.subscribers(names);
            chosen.retain(|(_, properties)| filter(of_this_type(&**properties)));
            let ids: Vec<_> = chosen.iter().map(|(id, _)| *id).collect();
            let (count, afterwards) = registry.unsubscribe(names, &ids);
            afterwards.finish();
            count
        })
    }

    /// Ends every stream after what is queued for it, also one that a thread blocks on; does not wait.
    ///
    /// The publisher stays usable: who subscribes afterwards is not concerned.
    ///
    /// ```
    /// # use server_sent_events::Publisher;
    /// let publisher = Publisher::new();
    /// let mut subscription = publisher.subscribe()?;
    /// publisher.publish("the last word");
    /// publisher.close();
    /// assert_eq!(subscription.next().unwrap(), "data: the last word\n\n");
    /// assert_eq!(subscription.next(), None);
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn close(&self) {
        self.core.registry.close().finish();
    }

    /// A subscription that nothing can be published to and that ends after this frame.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn detached(&self, frame: Frame) -> Subscription {
        let queue = Arc::new(Queue::new());
        queue.end(EndCause::Closed);
        let to_wake = queue.push(Item::End);
        debug_assert!(to_wake.is_none(), "BUG: it is not handed over yet");
        let nobody: Weak<dyn Owner> = Weak::<Registry>::new();
        let parts = self.core.subscription(SubscriberId(0), Arc::new(()), queue);
        Subscription::new(Parts { owner: nobody, first: [Item::Frame(frame)].into(), ..parts })
    }

    /// The id of the newest event, if there is a [history](History): what is published later is newer.
    pub fn last_event_id(&self) -> Option<String> {
        self.core.registry.newest_id()
    }

    /// What the publisher has counted, and what it holds now.
    pub fn stats(&self) -> Stats {
        self.core.registry.stats()
    }

    /// A handle that does not keep the publisher alive, for what the publisher itself holds: properties,
    /// closures.
    ///
    /// ```
    /// # use server_sent_events::Publisher;
    /// let publisher = Publisher::new();
    /// let weak = publisher.downgrade();
    /// assert!(weak.upgrade().is_some());
    /// drop(publisher);
    /// assert!(weak.upgrade().is_none());
    /// ```
    pub fn downgrade(&self) -> WeakPublisher<P> {
        WeakPublisher { core: Arc::downgrade(&self.core), properties: PhantomData }
    }
}

fn of_this_type<P: 'static>(properties: &dyn Any) -> &P {
    properties.downcast_ref().expect("BUG: properties of another type")
}

impl<P> Clone for Publisher<P> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), properties: PhantomData }
    }
}

impl<P> fmt::Debug for Publisher<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.core.registry.stats();
        f.debug_struct("Publisher")
            .field("subscribers", &stats.subscribers)
            .field("channels", &stats.channels)
            .finish_non_exhaustive()
    }
}

/// A handle to a [`Publisher`] that does not keep it alive; from [`Publisher::downgrade`].
pub struct WeakPublisher<P = ()> {
    core: Weak<Core>,
    properties: PhantomData<fn(P) -> P>,
}

impl<P> WeakPublisher<P> {
    /// The publisher, unless its last handle has been dropped.
    pub fn upgrade(&self) -> Option<Publisher<P>> {
        self.core.upgrade().map(|core| Publisher { core, properties: PhantomData })
    }
}

impl<P> Clone for WeakPublisher<P> {
    fn clone(&self) -> Self {
        Self { core: Weak::clone(&self.core), properties: PhantomData }
    }
}

impl<P> fmt::Debug for WeakPublisher<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakPublisher").finish_non_exhaustive()
    }
}

/// What became of a published event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    queued: usize,
    id: Option<String>,
}

impl Receipt {
    /// For how many subscribers the event was queued; that it was seen, nobody can know.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// The id that the event has: its own, or the one that the [history](History) gave it. `None` for a comment, and
    /// without a history.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

/// The settings of a [`Publisher`]; from [`Publisher::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct PublisherBuilder<P = ()> {
    limits: Limits,
    heartbeat: Option<Duration>,
    history: Option<History>,
    writer_threads: usize,
    writer_stack: usize,
    properties: PhantomData<fn(P) -> P>,
}

impl<P: Send + Sync + 'static> PublisherBuilder<P> {
    /// How many subscriptions there may be at once. Defaults to 10,000.
    ///
    /// Above it, opening one is an error; those that are open are not concerned. One that has ended counts until it
    /// is dropped: a connection that hangs is a connection that is there.
    pub fn max_subscribers(mut self, subscribers: usize) -> Self {
        self.limits.subscribers = subscribers;
        self
    }

    /// In how many channels one subscriber may be. Defaults to 64.
    pub fn max_channels(mut self, channels: usize) -> Self {
        self.limits.channels = channels;
        self
    }

    /// How many bytes the name of a channel may have that is subscribed to. Defaults to 256.
    ///
    /// Publishing to a longer one is no error; nobody can be there.
    pub fn max_channel_name(mut self, bytes: usize) -> Self {
        self.limits.channel_name = bytes;
        self
    }

    /// How many frames may wait for one subscriber. Defaults to 1,024.
    ///
    /// One more ends it at once, with [`EndCause::QueueFull`](crate::EndCause::QueueFull). Initial data does
    /// not count.
    pub fn queue_frames(mut self, frames: usize) -> Self {
        self.limits.queue.frames = frames;
        self
    }

    /// How many bytes of frames may wait for one subscriber. Defaults to 1 MiB.
    ///
    /// One frame that is larger is let into an empty queue all the same. A closure counts by its own size,
    /// without what its captures own elsewhere. Initial data does not count.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.limits.queue.bytes = bytes;
        self
    }

    /// After how much silence a stream is sent a comment; `None` for never. Defaults to 15 seconds.
    ///
    /// It is how a server notices a client that has gone, and what keeps a proxy from cutting a quiet stream:
    /// most do so after a minute or less.
    #[doc(alias = "keep-alive")]
    pub fn heartbeat(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.heartbeat = interval.into();
        self
    }

    /// Keeps what is published, so that a client which reconnects misses nothing. Defaults to keeping nothing.
    ///
    /// With a history every event has an id, and every stream begins with one.
    pub fn history(mut self, history: History) -> Self {
        self.history = Some(history);
        self
    }

    /// How many threads may write streams that are [handed over](Subscription::hand_over). Defaults to 1,000.
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

    /// How many bytes of stack a writer thread has. Defaults to 2 MiB, or 256 KiB where addresses have 32 bits.
    ///
    /// What the application gave runs there: writers, closures for [`publish_with`](Publisher::publish_with) and
    /// [`on_end`](crate::HandOver::on_end), and the `Drop` of what they hold. What is not used costs address space only.
    pub fn writer_stack(mut self, bytes: usize) -> Self {
        self.writer_stack = bytes;
        self
    }

    /// The publisher with these settings.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting that is zero.
    pub fn build(self) -> Result<Publisher<P>, BuildError> {
        let Limits { subscribers, channels, channel_name, queue } = self.limits;
        let settings = [
            ("max_subscribers", subscribers),
            ("max_channels", channels),
            ("max_channel_name", channel_name),
            ("queue_frames", queue.frames),
            ("queue_bytes", queue.bytes),
            ("max_writer_threads", self.writer_threads),
            ("writer_stack", self.writer_stack),
            ("heartbeat", usize::from(self.heartbeat != Some(Duration::ZERO))),
        ];
        if let Some(&(setting, _)) = settings.iter().find(|(_, value)| *value == 0) {
            return Err(BuildError { setting });
        }
        if let Some(history) = &self.history {
            history.check()?;
        }
        let counters = Arc::new(Counters::default());
        let registry = Arc::new(Registry::new(self.limits, self.history, Arc::clone(&counters)));
        let writers = Writers::new(self.writer_threads, self.writer_stack);
        let core = Arc::new(Core { registry, counters, writers, heartbeat: self.heartbeat });
        Ok(Publisher { core, properties: PhantomData })
    }
}

impl<P> fmt::Debug for PublisherBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublisherBuilder")
            .field("limits", &self.limits)
            .field("heartbeat", &self.heartbeat)
            .field("history", &self.history)
            .field("max_writer_threads", &self.writer_threads)
            .field("writer_stack", &self.writer_stack)
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
    heartbeat: Option<Duration>,
}

/// Makes initial data, once it is known how the subscription begins.
type First<'p> = Box<dyn FnOnce(Resumed) -> Vec<Frame> + 'p>;

impl<'p, P: Send + Sync + 'static> SubscriptionBuilder<'p, P> {
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
        let frames: Vec<Frame> = events.into_iter().map(|event| event.into().encode()).collect();
        self.first.push(Box::new(|_| frames));
        self
    }

    /// Initial data that is made when the subscription is open, by a closure that is told how it
    /// [resumed](Subscription::resumed). More may be added.
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
    pub fn initial_data_with<I>(mut self, make: impl FnOnce(Resumed) -> I + 'p) -> Self
    where
        I: IntoIterator<Item: Into<Event>>,
    {
        self.first.push(Box::new(|resumed| make(resumed).into_iter().map(|event| event.into().encode()).collect()));
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

    /// Where a client begins that comes without an id: as if this were its [last event
    /// id](Self::last_event_id).
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
    /// let subscription = publisher.subscription(()).after(from_the_query).last_event_id(from_the_request).open()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn after(mut self, id: impl Into<Option<String>>) -> Self {
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
        self.heartbeat = interval.into();
        self
    }

    /// Opens it: what is published from now on waits for it. Does not block.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says which bound it would cross; nothing was registered then.
    pub fn open(self) -> Result<Subscription, OpenError> {
        let Self { publisher, properties, channels, first, last_event_id, after, replay_last, heartbeat } = self;
        if heartbeat == Some(Duration::ZERO) {
            return Err(OpenError::ZeroHeartbeat);
        }
        let core = &publisher.core;
        let properties: Properties = Arc::new(properties);
        let queue = Arc::new(Queue::new());
        let wish = match (last_event_id.or(after), replay_last) {
            (Some(id), _) => Wish::After(id),
            (None, Some(events)) => Wish::Last(events),
            (None, None) => Wish::Nothing,
        };
        let Beginning { id, resumed, first: beginning, replay } =
            core.registry.join(&channels, &properties, &queue, &wish)?;
        let parts = core.subscription(id, properties, queue);
        // From here on a panic of the application's drops the subscription, which leaves the registry.
        let mut subscription = Subscription::new(Parts { resumed, heartbeat, ..parts });
        let initial_data = first.into_iter().flat_map(|make| make(resumed)).collect::<Vec<Frame>>();
        let frames = beginning.into_iter().chain(initial_data).map(Item::Frame);
        subscription.begin(frames.chain(replay).collect());
        Ok(subscription)
    }
}

impl<P> fmt::Debug for SubscriptionBuilder<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionBuilder")
            .field("channels", &self.channels)
            .field("initial_data", &self.first.len())
            .field("heartbeat", &self.heartbeat)
            .finish_non_exhaustive()
    }
}
