//! The sending half: the public handle and its builder.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::channels::names::One;
use crate::channels::{Channels, DEFAULT_CHANNEL};
use crate::error::{BuildError, OpenError};
use crate::event::{Event, Frame};
use crate::history::{History, Resumed};
use crate::notices::Notices;
use crate::overflow::Overflow;
use crate::queue::{Item, Properties, Queue, QueueBounds, Render, drop_caught};
use crate::registry::{Beginning, Draft, Hooks, Limits, Published, Registry, Wish};
use crate::stats::{ChannelStats, Counters, EndCause, Stats};
use crate::subscription::{Owner, Parts, Runner, SubscriberId, Subscription};
use crate::writers::Writers;

/// The sending half: publishes events to all who have subscribed.
///
/// A cheap handle: clone it, send it to every thread that has something to tell. Publishing never waits for a
/// socket, nor for a subscriber, unless one was opened so that it [blocks](crate::Overflow::Block). What one thread publishes arrives in that order, and all subscribers of a channel
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
    core: Arc<Handles>,
    properties: PhantomData<fn(P) -> P>,
}

/// What all handles share, and what ends with the last of them.
struct Handles(Arc<Core>);

/// What the hooks need too while the last handle is being dropped. Subscriptions hold the registry, but weakly.
struct Core {
    registry: Arc<Registry>,
    counters: Arc<Counters>,
    writers: Arc<Writers>,
    heartbeat: Option<Duration>,
    lifetime: Option<Duration>,
    queue: QueueBounds,
}

impl Deref for Handles {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.0
    }
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
            lifetime: None,
            key: None,
            counters: Arc::clone(&self.counters),
        }
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        self.registry.close().finish();
        self.writers.close();
    }
}

/// What the application wants to know of each subscription.
struct HooksOf<P> {
    /// Set as soon as there is a publisher.
    publisher: OnceLock<(Weak<Handles>, Weak<Core>)>,
    on_open: Option<Box<OnOpen<P>>>,
    on_end: Option<Box<OnEnd<P>>>,
}

type OnOpen<P> = dyn Fn(&Publisher<P>, &P, &[&str]) + Send + Sync;
type OnEnd<P> = dyn Fn(&Publisher<P>, &P, &[&str], EndCause) + Send + Sync;

impl<P: Send + Sync + 'static> HooksOf<P> {
    /// Calls a hook with what it is to see. What panics in it, the panic hook has told; the hook's caller is somebody
    /// else's `publish`, or a writer thread.
    fn call(&self, properties: &Properties, channels: &[Arc<str>], hook: impl FnOnce(&Publisher<P>, &P, &[&str])) {
        let Some((handles, core)) = self.publisher.get() else { return };
        // While the last handle is dropped, its subscribers leave: then this is one more, for as long as the hook runs.
        let handles = handles.upgrade().or_else(|| Some(Arc::new(Handles(core.upgrade()?))));
        let Some(core) = handles else { return };
        let publisher = Publisher { core, properties: PhantomData };
        let names: Vec<&str> = channels.iter().map(|name| &**name).collect();
        let call = AssertUnwindSafe(|| hook(&publisher, of_this_type(&**properties), &names));
        if let Err(payload) = catch_unwind(call) {
            drop_caught(payload);
        }
    }
}

impl<P: Send + Sync + 'static> Hooks for HooksOf<P> {
    fn hold(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(self.publisher.get()?.1.upgrade()?)
    }

    fn opened(&self, properties: &Properties, channels: &[Arc<str>]) {
        if let Some(hook) = &self.on_open {
            self.call(properties, channels, hook);
        }
    }

    fn ended(&self, properties: &Properties, channels: &[Arc<str>], cause: EndCause) {
        if let Some(hook) = &self.on_end {
            self.call(properties, channels, |publisher, properties, names| hook(publisher, properties, names, cause));
        }
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
                of_channel: usize::MAX,
                of_key: usize::MAX,
            },
            queue: QueueBounds { frames: 1_024, bytes: 1024 * 1024, overflow: Overflow::Disconnect },
            heartbeat: Some(Duration::from_secs(15)),
            lifetime: None,
            on_open: None,
            on_end: None,
            history: None,
            writer_threads: 1_000,
            // As std's own threads have, where address space costs nothing.
            writer_stack: if cfg!(target_pointer_width = "64") { 2 * 1024 * 1024 } else { 256 * 1024 },
            properties: PhantomData,
        }
    }

    /// Publishes an event to [`DEFAULT_CHANNEL`].
    ///
    /// Never blocks on a subscriber, unless that [asked for it](crate::Overflow::Block): one whose queue is full is ended
    /// instead.
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
    /// Never blocks on a subscriber, unless that [asked for it](crate::Overflow::Block): one whose queue is full is ended
    /// instead.
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
            let (own_id, key) = (event.own_id().map(Into::into), event.own_key().cloned());
            Draft { item, own_id, key, is_comment: event.is_comment() }
        })
    }

    /// Publishes to each subscriber of these channels what the closure makes of its properties; `None` skips it.
    ///
    /// Blocks as [`publish`](Self::publish) does, and does not call the closure: that happens later, once for each
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
            key: None,
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
            let mut next = (draft(), None);
            loop {
                match registry.publish(names, next.0, next.1) {
                    Ok((Published { queued, id }, afterwards)) => {
                        afterwards.finish();
                        return Receipt { queued, id };
                    }
                    Err(waits) => {
                        let (draft, ticket) = *waits;
                        ticket.wait();
                        next = (draft, Some(ticket));
                    }
                }
            }
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
            lifetime: self.core.lifetime,
            queue: self.core.queue,
            key: None,
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

    /// Ends the subscribers for which the filter says `true` at once, in whatever channels they are; returns how many.
    ///
    /// What is queued for them is thrown away: for one whose rights were withdrawn. Does not wait. The filter is asked
    /// once for each subscriber, and may use the publisher. A browser comes back, unless it is told not to: by a status
    /// such as 204 or 403 then.
    ///
    /// ```
    /// # use server_sent_events::{EndCause, Publisher};
    /// let publisher = Publisher::<&str>::builder().build()?;
    /// let mut subscription = publisher.subscription("Mallory").channels(["chat", "news"]).open()?;
    /// publisher.publish_to("chat", "a secret");
    /// assert_eq!(publisher.disconnect(|name| *name == "Mallory"), 1);
    /// assert_eq!(subscription.next(), None);
    /// assert_eq!(subscription.end_cause(), Some(EndCause::Cut));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn disconnect(&self, mut filter: impl FnMut(&P) -> bool) -> usize {
        let registry = &self.core.registry;
        let mut chosen = registry.everybody();
        chosen.retain(|(_, properties)| filter(of_this_type(&**properties)));
        chosen.iter().filter(|(id, _)| Owner::end(&**registry, *id, EndCause::Cut, true)).count()
    }

    /// Lets nobody in any more, says goodbye, and ends every stream after what is queued for it; blocks until all
    /// subscriptions are dropped and those handed over are written, but for `grace` only. Returns how many were cut off then.
    ///
    /// Not to be called where it would wait for itself: in a hook, a closure, or on the thread that reads a subscription.
    ///
    /// As [`shutdown_with`](Self::shutdown_with) with [`Shutdown::new(grace)`](Shutdown::new).
    pub fn shutdown(&self, grace: Duration) -> usize {
        self.shutdown_with(Shutdown::new(grace))
    }

    /// [`shutdown`](Self::shutdown) with a farewell, or other times after which clients come back.
    ///
    /// Each client is sent what is queued for it, the farewell, and a `retry:` of its own, so that they do not all come
    /// back in the same instant. Then its stream ends: one that is handed over when all of that is written, any other when
    /// its subscription is dropped. Who subscribes meanwhile or later is refused with
    /// [`OpenError::ShuttingDown`], which the adapters answer so that a browser comes back. Publishing goes on,
    /// and reaches nobody.
    ///
    /// ```
    /// use server_sent_events::{Event, Publisher, Shutdown};
    /// use std::time::Duration;
    ///
    /// let publisher = Publisher::new();
    /// let mut subscription = publisher.subscribe()?;
    /// let reader = std::thread::spawn(move || subscription.by_ref().collect::<Vec<_>>());
    ///
    /// let farewell = Event::new("a new version comes").event("restart")?;
    /// let cut = publisher.shutdown_with(Shutdown::new(Duration::from_secs(10)).farewell(farewell));
    /// assert_eq!(cut, 0);
    /// let frames = reader.join().unwrap();
    /// assert_eq!(frames[0], "event: restart\ndata: a new version comes\n\n");
    /// assert!(frames[1].starts_with("retry: "));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_with(&self, shutdown: Shutdown) -> usize {
        let Shutdown { grace, farewell, retry, spread } = shutdown;
        // The standard library's only source of randomness; it is no secret that is made here. Multiples of the
        // golden ratio fall evenly, wherever they begin.
        let start = RandomState::new().hash_one(grace);
        let retry = |id: SubscriberId| {
            let share = start.wrapping_add(id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)) as f64 / u64::MAX as f64;
            let longest = Duration::from_millis(i32::MAX as u64);
            let retry = retry.saturating_add(spread.min(longest).mul_f64(share)).min(longest);
            Event::retry_alone(retry).encode()
        };
        let farewell = farewell.map(|event| event.encode());
        let last = |id| farewell.clone().into_iter().chain([retry(id)]).collect();
        let began = Instant::now();
        self.core.registry.shut_down(last).finish();
        let until = began.checked_add(grace).unwrap_or(began + Duration::from_secs(365 * 86_400));
        self.core.registry.wait_until_empty(until)
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
        let queue = Arc::new(Queue::new(self.core.queue));
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

    /// What is known of this channel now.
    ///
    /// ```
    /// # use server_sent_events::Publisher;
    /// let publisher = Publisher::new();
    /// let _subscription = publisher.subscription(()).channels("chat").open()?;
    /// publisher.publish_to("chat", "hello");
    /// let chat = publisher.channel_stats("chat");
    /// assert_eq!((chat.subscribers, chat.waiting), (1, 1));
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn channel_stats(&self, channel: &str) -> ChannelStats {
        self.core.registry.channel_stats(channel)
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
    core: Weak<Handles>,
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

/// How a publisher [shuts down](Publisher::shutdown_with).
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is given to `shutdown_with`"]
pub struct Shutdown {
    grace: Duration,
    farewell: Option<Event>,
    retry: Duration,
    spread: Duration,
}

impl Shutdown {
    /// Waits for so long at the most until the streams have ended. No farewell; clients come back after one second, and
    /// spread over the ten seconds that follow.
    pub fn new(grace: Duration) -> Self {
        Self { grace, farewell: None, retry: Duration::from_secs(1), spread: Duration::from_secs(10) }
    }

    /// What every subscriber gets last. Defaults to nothing.
    pub fn farewell(mut self, event: impl Into<Event>) -> Self {
        self.farewell = Some(event.into());
        self
    }

    /// After how long clients come back at the earliest, and over which time after that they spread: each is told a time
    /// of its own. Up to 2,147,483,647 ms, about 24 days, together.
    pub fn retry(mut self, earliest: Duration, spread: Duration) -> Self {
        (self.retry, self.spread) = (earliest, spread);
        self
    }
}

/// The settings of a [`Publisher`]; from [`Publisher::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct PublisherBuilder<P = ()> {
    limits: Limits,
    queue: QueueBounds,
    heartbeat: Option<Duration>,
    lifetime: Option<Duration>,
    on_open: Option<Box<OnOpen<P>>>,
    on_end: Option<Box<OnEnd<P>>>,
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

    /// How many subscribers one channel may have at once. Defaults to as many as the publisher may have.
    pub fn max_subscribers_per_channel(mut self, subscribers: usize) -> Self {
        self.limits.of_channel = subscribers;
        self
    }

    /// How many subscriptions there may be at once of one [key](SubscriptionBuilder::limit_key): an address, a user.
    /// Defaults to as many as the publisher may have. One that has ended counts until it is dropped.
    pub fn max_subscribers_per_key(mut self, subscribers: usize) -> Self {
        self.limits.of_key = subscribers;
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
    /// One more ends it at once, with [`EndCause::QueueFull`](crate::EndCause::QueueFull), unless
    /// [`overflow`](Self::overflow) says otherwise. Initial data does not count.
    pub fn queue_frames(mut self, frames: usize) -> Self {
        self.queue.frames = frames;
        self
    }

    /// How many bytes of frames may wait for one subscriber. Defaults to 1 MiB.
    ///
    /// One frame that is larger is let into an empty queue all the same. A closure counts by its own size,
    /// without what its captures own elsewhere. Initial data does not count.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue.bytes = bytes;
        self
    }

    /// What happens when an event does not fit into a subscriber's queue. Defaults to [`Overflow::Disconnect`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.queue.overflow = overflow;
        self
    }

    /// After how long a stream ends, so that its client comes back: tokens expire, and versions change. Each stream
    /// is given a time of its own between 80 and 100 % of this. `None`, the default, for never.
    ///
    /// What is queued then is delivered. With a history the client misses nothing.
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.lifetime = lifetime.into();
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
    /// publishes, closes, writes or drops the subscription, or watches all sockets of a server. So it should be short, and
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
        let Limits { subscribers, channels, channel_name, of_channel, of_key } = self.limits;
        let queue = self.queue;
        let is_something = |duration: Option<Duration>| usize::from(duration != Some(Duration::ZERO));
        let settings = [
            ("max_subscribers", subscribers),
            ("max_channels", channels),
            ("max_channel_name", channel_name),
            ("max_subscribers_per_channel", of_channel),
            ("max_subscribers_per_key", of_key),
            ("queue_frames", queue.frames),
            ("queue_bytes", queue.bytes),
            ("max_writer_threads", self.writer_threads),
            ("writer_stack", self.writer_stack),
            ("heartbeat", is_something(self.heartbeat)),
            ("max_lifetime", is_something(self.lifetime)),
        ];
        if let Some(&(setting, _)) = settings.iter().find(|(_, value)| *value == 0) {
            return Err(BuildError { setting });
        }
        if let Some(history) = &self.history {
            history.check()?;
        }
        let (counters, notices) = (Arc::new(Counters::default()), Arc::new(Notices::new()));
        let Self { on_open, on_end, .. } = self;
        let has_hooks = on_open.is_some() || on_end.is_some();
        let hooks = has_hooks.then(|| Arc::new(HooksOf { publisher: OnceLock::new(), on_open, on_end }));
        let to_call = hooks.clone().map(|hooks| hooks as Arc<dyn Hooks>);
        let registry = Registry::new(self.limits, self.history, Arc::clone(&counters), to_call, Arc::clone(&notices));
        let registry = Arc::new(registry);
        let writers = Writers::new(self.writer_threads, self.writer_stack, notices);
        let core = Arc::new(Core {
            registry,
            counters,
            writers,
            heartbeat: self.heartbeat,
            lifetime: self.lifetime,
            queue: self.queue,
        });
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
            .field("queue", &self.queue)
            .field("heartbeat", &self.heartbeat)
            .field("max_lifetime", &self.lifetime)
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
    lifetime: Option<Duration>,
    queue: QueueBounds,
    key: Option<Arc<str>>,
}

/// Makes initial data, once it is known how the subscription begins.
type First<'p> = Box<dyn FnOnce(Resumed) -> Vec<Frame> + 'p>;

impl<'p, P: Send + Sync + 'static> SubscriptionBuilder<'p, P> {
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

    /// How many frames may wait for it. Defaults to the [publisher's](PublisherBuilder::queue_frames).
    pub fn queue_frames(mut self, frames: usize) -> Self {
        self.queue.frames = frames;
        self
    }

    /// How many bytes of frames may wait for it. Defaults to the [publisher's](PublisherBuilder::queue_bytes).
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue.bytes = bytes;
        self
    }

    /// What happens when an event does not fit into its queue. Defaults to the [publisher's](PublisherBuilder::overflow).
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.queue.overflow = overflow;
        self
    }

    /// After how long it ends; `None` for never. Defaults to the [publisher's](PublisherBuilder::max_lifetime), where it
    /// is explained.
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.lifetime = lifetime.into();
        self
    }

    /// By what it is counted, besides: an address, a user. See
    /// [`max_subscribers_per_key`](PublisherBuilder::max_subscribers_per_key).
    pub fn limit_key(mut self, key: impl Into<Arc<str>>) -> Self {
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
        let Self { heartbeat, lifetime, queue: bounds, key, .. } = self;
        if heartbeat == Some(Duration::ZERO) {
            return Err(OpenError::ZeroHeartbeat);
        }
        let settings = [
            ("queue_frames", bounds.frames == 0),
            ("queue_bytes", bounds.bytes == 0),
            ("max_lifetime", lifetime == Some(Duration::ZERO)),
        ];
        if let Some(&(setting, _)) = settings.iter().find(|(_, is_zero)| *is_zero) {
            return Err(OpenError::Zero { setting });
        }
        let core = &publisher.core;
        let properties: Properties = Arc::new(properties);
        let queue = Arc::new(Queue::new(bounds));
        let wish = match (last_event_id.or(after), replay_last) {
            (Some(id), _) => Wish::After(id),
            (None, Some(events)) => Wish::Last(events),
            (None, None) => Wish::Nothing,
        };
        let joined = core.registry.join(&channels, &properties, &queue, key.as_ref(), &wish);
        let Beginning { id, resumed, first: beginning, replay } =
            joined.inspect_err(|error| core.registry.refused(error))?;
        let parts = core.subscription(id, Arc::clone(&properties), Arc::clone(&queue));
        // All of them open at once after a restart: they should not all end at once.
        let share = 0.8 + 0.2 * (RandomState::new().hash_one(id) as f64 / u64::MAX as f64);
        let lifetime = lifetime.map(|lifetime| lifetime.min(Duration::from_secs(u64::from(u32::MAX))).mul_f64(share));
        // From here on a panic of the application's drops the subscription, which leaves the registry.
        let mut subscription = Subscription::new(Parts { resumed, heartbeat, lifetime, key, ..parts });
        core.registry.opened(&queue, &properties, &channels);
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
