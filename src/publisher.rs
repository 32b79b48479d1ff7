//! The sending half: the public handle.

mod builders;

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

#[cfg(feature = "tiny_http")]
use crossbeam_channel::bounded;

use crate::channels::names::One;
use crate::channels::{Channels, DEFAULT_CHANNEL};
use crate::deliver::WriterPool;
#[cfg(feature = "tiny_http")]
use crate::deliver::{FrameSource, SourceSettings};
use crate::error::{EventError, OpenError};
use crate::event::Event;
#[cfg(feature = "tiny_http")]
use crate::history::Resumption;
#[cfg(feature = "tiny_http")]
use crate::queue::Subscriber;
use crate::queue::{Payload, Properties, Render, SubscriberId, drop_caught};
use crate::registry::{Hooks, NewEvent, Published, Registry};
use crate::spread;
use crate::stats::{ChannelStats, Counters, EndCause, Stats};
use crate::subscription::Subscription;

use builders::Settings;
pub use builders::{PublisherBuilder, SubscriptionBuilder};

/// The sending half: publishes events to all who have subscribed.
///
/// A cheap handle: clone it, send it to every thread that has something to tell. Publishing never waits for a
/// socket, nor for a subscriber, unless one was opened so that it [blocks](crate::Overflow::Block). What one thread
/// publishes arrives in that order, and all subscribers of a channel see the events of all threads in the same order.
///
/// `P` is what the application says about each subscriber, its properties: a user's name, a language, rights.
/// [`publish_with`](Self::publish_with) and [`unsubscribe_if`](Self::unsubscribe_if) look at it.
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
    pool: Arc<WriterPool>,
    settings: Settings,
}

impl Deref for Handles {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.0
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        self.registry.close().finish();
        self.pool.close();
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
        let call = AssertUnwindSafe(|| hook(&publisher, of_this_type(properties.as_any()), &names));
        if let Err(payload) = catch_unwind(call) {
            drop_caught(payload);
        }
    }
}

impl<P: Send + Sync + 'static> Hooks for HooksOf<P> {
    fn guard(&self) -> Option<Arc<dyn Any + Send + Sync>> {
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
    /// # Ok::<(), server_sent_events::InvalidSetting>(())
    /// ```
    pub fn builder() -> PublisherBuilder<P> {
        PublisherBuilder::new()
    }

    /// Publishes an event to [`DEFAULT_CHANNEL`].
    ///
    /// Never blocks on a subscriber, unless that [asked for it](crate::Overflow::Block): one whose queue is full is ended
    /// instead.
    ///
    /// ```
    /// # let publisher = server_sent_events::Publisher::new();
    /// let receipt = publisher.publish("hello");
    /// assert_eq!(receipt.subscribers(), 0); // nobody listens
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
            let payload = Payload::Frame(if has_history { event.encode_unsealed() } else { event.encode() });
            let (own_id, key) = (event.own_id().map(Into::into), event.own_key().cloned());
            NewEvent { payload, own_id, key, is_comment: event.is_comment() }
        })
    }

    /// Publishes to each subscriber of these channels what the closure makes of its properties; `None` skips it.
    ///
    /// Blocks as [`publish`](Self::publish) does, and does not call the closure: that happens later, once for each
    /// subscriber, on the thread that delivers to it. So the closure must depend on nothing but its
    /// captures and the properties. When it panics, that subscriber gets an event of type `gap` in its place,
    /// and [`Stats::closures_panicked`](crate::Stats::closures_panicked) counts it.
    ///
    /// The queues and the history take the event before the closure makes it. So a [key](Event::key) that the closure sets is
    /// not used, and neither is an [id](Event::id) where there is a history, which gives the event another. Each is logged
    /// and counted ([`Stats::unusable_fields`](crate::Stats::unusable_fields)); give them with
    /// [`publish_with_options`](Self::publish_with_options). Without a history the closure's id is sent.
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
    /// assert_eq!(bob.try_recv().unwrap(), "data: Bob, a word from Ada\n\n");
    /// assert!(ada.try_recv().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish_with<By, F>(&self, channels: impl Channels<By>, closure: F) -> Receipt
    where
        F: Fn(&P) -> Option<Event> + Send + Sync + 'static,
    {
        self.publish_with_options(channels, PublishOptions::new(), closure)
    }

    /// [`publish_with`](Self::publish_with) with an id of the application's, or a key.
    ///
    /// ```
    /// use server_sent_events::{Event, Overflow, PublishOptions, Publisher};
    ///
    /// let publisher = Publisher::<bool>::builder().overflow(Overflow::LatestPerKey).build()?;
    /// let mut metric = publisher.subscription(true).open()?;
    /// for celsius in [20, 21] {
    ///     publisher.publish_with_options("default channel", PublishOptions::new().key("kitchen"), move |metric: &bool| {
    ///         Some(Event::new(if *metric { format!("{celsius} C") } else { format!("{} F", celsius * 9 / 5 + 32) }))
    ///     });
    /// }
    /// assert_eq!(metric.try_recv()?, "data: 21 C\n\n");
    /// assert!(metric.try_recv().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish_with_options<By, F>(
        &self,
        channels: impl Channels<By>,
        options: PublishOptions,
        closure: F,
    ) -> Receipt
    where
        F: Fn(&P) -> Option<Event> + Send + Sync + 'static,
    {
        let closure = move |properties: &dyn Any| closure(of_this_type(properties));
        let PublishOptions { id, key } = options;
        self.send(channels, || NewEvent {
            own_id: id.as_deref().map(Into::into),
            payload: Payload::Closure(Arc::new(Render::new(closure, id, key.is_some()))),
            key,
            is_comment: false,
        })
    }

    fn send<By>(&self, channels: impl Channels<By>, new_event: impl FnOnce() -> NewEvent) -> Receipt {
        let registry = &self.core.registry;
        channels.with_names(|names| {
            // With a history, an event is encoded even if it reaches no subscriber.
            if !registry.has_history() && registry.count_unreached(names) {
                return Receipt { subscribers: 0, id: None };
            }
            let mut next = (new_event(), None);
            loop {
                match registry.publish(names, next.0, next.1) {
                    Ok((Published { subscribers, id, newest_large }, deferred)) => {
                        deferred.finish();
                        let excess = registry.excess_retained(newest_large);
                        if excess > 0 {
                            self.core.pool.disconnect_slowest(registry, excess, newest_large);
                        }
                        return Receipt { subscribers, id };
                    }
                    Err(waits) => {
                        let (new_event, ticket) = *waits;
                        ticket.wait();
                        next = (new_event, Some(ticket));
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

    /// Subscribes to these channels with default properties.
    ///
    /// Does not block. What is published from now on is queued for the subscription.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] if the subscription would exceed a limit, or if there is no channel.
    ///
    /// ```
    /// # let publisher = server_sent_events::Publisher::new();
    /// let mut subscription = publisher.subscribe_to(["chat", "news"])?;
    /// publisher.publish("to the default channel");
    /// publisher.publish_to("chat", "hello");
    /// assert_eq!(subscription.next().unwrap(), "data: hello\n\n");
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn subscribe_to<By>(&self, channels: impl Channels<By>) -> Result<Subscription, OpenError>
    where
        P: Default,
    {
        self.subscription(P::default()).channels(channels).open()
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
        SubscriptionBuilder::new(self, properties)
    }

    /// Returns the properties of the subscribers of these channels, each subscriber once, the oldest first.
    ///
    /// ```
    /// # use server_sent_events::Publisher;
    /// let publisher = Publisher::<&str>::builder().build()?;
    /// let _ada = publisher.subscription("Ada").channels("chat").open()?;
    /// let names: Vec<&str> = publisher.subscriber_properties("chat").iter().map(|name| **name).collect();
    /// assert_eq!(names, ["Ada"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn subscriber_properties<By>(&self, channels: impl Channels<By>) -> Vec<Arc<P>> {
        let subscribers = channels.with_names(|names| self.core.registry.subscribers(names));
        subscribers.iter().map(|(_, properties)| properties.downcast()).collect()
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
    /// assert_eq!(publisher.unsubscribe_if("default channel", |_| true), 1);
    /// assert_eq!(subscription.next(), None);
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn unsubscribe_if<By>(&self, channels: impl Channels<By>, mut filter: impl FnMut(&P) -> bool) -> usize {
        let registry = &self.core.registry;
        channels.with_names(|names| {
            let mut chosen = registry.subscribers(names);
            chosen.retain(|(_, properties)| filter(of_this_type(properties.as_any())));
            let ids: Vec<_> = chosen.iter().map(|(id, _)| *id).collect();
            let (count, deferred) = registry.unsubscribe(names, &ids);
            deferred.finish();
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
    /// assert_eq!(publisher.disconnect_if(|name| *name == "Mallory"), 1);
    /// assert_eq!(subscription.next(), None);
    /// assert_eq!(subscription.end_cause(), Some(EndCause::Disconnected));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn disconnect_if(&self, mut filter: impl FnMut(&P) -> bool) -> usize {
        let registry = &self.core.registry;
        let mut chosen = registry.all_subscribers();
        chosen.retain(|(_, properties)| filter(of_this_type(properties.as_any())));
        chosen.iter().filter(|(id, _)| registry.end(*id, EndCause::Disconnected, true)).count()
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
        let Shutdown { grace, farewell, retry, spread: retry_spread } = shutdown;
        let start = spread::random();
        let retry = |id: SubscriberId| {
            let share = spread::even_share(start, id.0);
            let longest = Duration::from_millis(i32::MAX as u64);
            let retry = retry.saturating_add(retry_spread.min(longest).mul_f64(share)).min(longest);
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

    /// Creates a subscription that nothing can be published to, and that ends after this frame.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn detached(&self, frame: crate::event::Frame) -> Subscription {
        let settings = self.core.settings.clone();
        let (bell, rings) = bounded(1);
        let id = SubscriberId(0);
        let subscriber = Subscriber::new(id, Properties::new(()), None, settings.queue, bell);
        drop(subscriber.close(EndCause::Closed));
        let nobody = Weak::new();
        let counters = Arc::clone(&self.core.counters);
        let settings = SourceSettings { heartbeat: None, lifetime: None, ..settings.source };
        let mut source = FrameSource::new(subscriber, rings, nobody, counters, settings);
        source.begin([Payload::Frame(frame)].into(), 0, None);
        Subscription::new(source, Arc::clone(&self.core.pool), Resumption::NotRequested)
    }

    /// The id of the newest event, if there is a [history](crate::History): what is published later is newer.
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
    /// let _subscription = publisher.subscribe_to("chat")?;
    /// publisher.publish_to("chat", "hello");
    /// let chat = publisher.channel_stats("chat");
    /// assert_eq!((chat.subscribers, chat.queued), (1, 1));
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
    subscribers: usize,
    id: Option<String>,
}

impl Receipt {
    /// Returns how many subscribers the event was queued for. It does not say whether they receive it.
    pub fn subscribers(&self) -> usize {
        self.subscribers
    }

    /// The id that the event has: its own, or the one that the [history](crate::History) gave it. `None` for a comment, and
    /// without a history.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

/// What an event of [`publish_with_options`](Publisher::publish_with_options) carries for all subscribers.
///
/// ```
/// use server_sent_events::PublishOptions;
///
/// let options = PublishOptions::new().id("job-7/3")?.key("job-7");
/// # Ok::<(), server_sent_events::EventError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "options do nothing until they are given to `publish_with_options`"]
pub struct PublishOptions {
    id: Option<String>,
    key: Option<Arc<str>>,
}

impl PublishOptions {
    /// Creates options with neither an id nor a key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the event's id, as [`Event::id`] does.
    ///
    /// # Errors
    ///
    /// As [`Event::id`].
    pub fn id(mut self, id: impl Into<String>) -> Result<Self, EventError> {
        self.id = Event::comment("").id(id)?.own_id().map(str::to_owned);
        Ok(self)
    }

    /// Sets what the event is about, as [`Event::key`] does.
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
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
    /// Waits up to `grace` until the streams have ended. Sends no farewell. Clients reconnect between 1 s and 11 s later.
    pub fn new(grace: Duration) -> Self {
        Self { grace, farewell: None, retry: Duration::from_secs(1), spread: Duration::from_secs(10) }
    }

    /// What every subscriber gets last. Defaults to nothing.
    pub fn farewell(mut self, event: impl Into<Event>) -> Self {
        self.farewell = Some(event.into());
        self
    }

    /// Sets the earliest and the latest reconnection time. Defaults to 1 s and 11 s.
    ///
    /// Each client gets a `retry` time of its own between the two, so that they do not all reconnect at once. If `max` is
    /// less than `min`, all get `min`. No time exceeds 2,147,483,647 ms, about 24 days.
    pub fn retry_between(mut self, min: Duration, max: Duration) -> Self {
        (self.retry, self.spread) = (min, max.saturating_sub(min));
        self
    }
}
