//! The sending half: the publisher.

mod builder;
mod core;
#[cfg(feature = "tiny_http")]
mod detached;
mod event_store;
// Only a client follows.
#[cfg_attr(not(feature = "client"), allow(dead_code))]
mod following;
mod hooks;
mod last_event_id;
mod open;
mod options;
mod receipt;
mod shared;
mod shutdown;
mod snapshot;
mod stored;
mod subscribers;
mod transform;
mod weak;

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::channels::names::One;
use crate::channels::{Channels, DEFAULT_CHANNEL};
use crate::error::OpenError;
use crate::event::Event;
use crate::queue::{Payload, Render};
use crate::registry::{NewEvent, Published, Recipients};
use crate::stats::{ChannelStats, Stats};
use crate::subscription::Subscription;

pub use builder::PublisherBuilder;
use core::{Core, Handles};
pub use hooks::{Ended, Opened};
pub use last_event_id::LastEventId;
pub use open::SubscriptionBuilder;
pub use options::PublishOptions;
pub use receipt::Receipt;
pub use shutdown::Shutdown;
pub use snapshot::Snapshot;
pub use weak::WeakPublisher;

/// Publishes events to all subscribers.
///
/// A publisher is a cheap handle: clone it for each thread that publishes. Publishing never waits for a socket, nor for
/// a subscriber, unless the application opts in to [blocking](crate::Overflow::Block). Events of one thread arrive in
/// the order in which it published them. All subscribers of a channel see the events of all threads in the same order.
///
/// `P` is the type of the subscribers' properties: what the application knows about each subscriber, such as a user's
/// name, a language, or rights. [`publish_with`](Self::publish_with) and [`unsubscribe_if`](Self::unsubscribe_if) get
/// them. Methods that take no properties, such as [`subscribe`](Self::subscribe), require `P: Default` and give each
/// subscriber `P::default()`. [`Publisher::new`] makes a `Publisher<()>`, which has no properties.
///
/// When the last handle is dropped, every stream ends as with [`close`](Self::close). A subscription keeps no handle
/// alive.
///
/// A program needs one publisher, or a few: one per type of properties or set of limits. A publisher whose streams are
/// [written in the background](Subscription::write_in_background), as the adapters do, has at least two threads of its
/// own, a writer and a supervisor. So a publisher per request costs two threads per request. For the stream of one
/// request use a subscriber [without a channel](Self::subscribe_alone), and for groups of subscribers use channels.
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

impl Publisher {
    /// Creates a publisher with the default settings, whose subscribers have no properties.
    pub fn new() -> Self {
        Self::builder().build().expect("BUG: the default settings are not allowed")
    }

    /// Returns a builder for a publisher with other settings, whose subscribers have no properties.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    ///
    /// let publisher = Publisher::builder().max_subscribers(500).build()?;
    /// # Ok::<(), server_sent_events::BuildError>(())
    /// ```
    pub fn builder() -> PublisherBuilder {
        PublisherBuilder::new()
    }

    /// Returns a builder for a publisher whose subscribers have properties of this type.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    ///
    /// struct User { name: String }
    /// let publisher = Publisher::builder_for::<User>().max_subscribers(500).build()?;
    /// # Ok::<(), server_sent_events::BuildError>(())
    /// ```
    pub fn builder_for<P: Send + Sync + 'static>() -> PublisherBuilder<P> {
        PublisherBuilder::new()
    }
}

impl Default for Publisher {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Send + Sync + 'static> Publisher<P> {
    /// Publishes an event to [`DEFAULT_CHANNEL`].
    ///
    /// Does not wait for a subscriber, unless its policy is [`Overflow::Block`](crate::Overflow::Block). With the
    /// default policy a subscriber whose queue is full is disconnected.
    ///
    /// ```
    /// # let publisher = server_sent_events::Publisher::new();
    /// let receipt = publisher.publish("hello");
    /// assert_eq!(receipt.subscribers(), 0);
    /// ```
    pub fn publish(&self, event: impl Into<Event>) -> Receipt {
        self.publish_to::<One>(DEFAULT_CHANNEL, event)
    }

    /// Publishes an event to these channels. A subscriber of several of them gets it once.
    ///
    /// Does not wait for a subscriber, unless its policy is [`Overflow::Block`](crate::Overflow::Block). With the
    /// default policy a subscriber whose queue is full is disconnected.
    ///
    /// ```
    /// # use server_sent_events::{Event, Publisher};
    /// # let publisher = Publisher::new();
    /// publisher.publish_to(["chat", "news"], Event::new("hi").event("greeting")?);
    /// # Ok::<(), server_sent_events::EventError>(())
    /// ```
    pub fn publish_to<By>(&self, channels: impl Channels<By>, event: impl Into<Event>) -> Receipt {
        let has_history = self.core.registry.has_history();
        self.send(channels, || NewEvent::new(&event.into(), has_history))
    }

    /// Publishes to each subscriber of these channels the event that the closure makes from its properties. `None`
    /// skips the subscriber.
    ///
    /// Blocks as [`publish`](Self::publish) does, and does not call the closure. The thread that delivers to a
    /// subscriber calls it later, once per subscriber. So the closure owns what it captures (use `move`), and its
    /// result must depend only on its captures and the properties. If it panics, that subscriber gets an event of type
    /// `gap` instead, and [`Stats::closures_panicked`](crate::Stats::closures_panicked) counts the panic.
    ///
    /// A store that several processes share (`store::Redis`) refuses closures: see
    /// [`publish_through`](Self::publish_through).
    ///
    /// The queues and the history take the event before the closure makes it. So a [key](crate::Event::key) that the
    /// closure sets is ignored. With a history, so is an [ID](crate::Event::id) that it sets, because the history has
    /// assigned one. Both are logged and counted ([`Stats::unusable_fields`](crate::Stats::unusable_fields)). Set them
    /// with [`publish_with_options`](Self::publish_with_options) instead. Without a history the closure's ID is sent.
    ///
    /// ```
    /// use server_sent_events::{DEFAULT_CHANNEL, Event, Publisher};
    ///
    /// struct User { name: String }
    /// let publisher = Publisher::builder_for::<User>().build()?;
    /// let mut ada = publisher.subscription(User { name: "Ada".into() }).open()?;
    /// let mut bob = publisher.subscription(User { name: "Bob".into() }).open()?;
    ///
    /// let sender = String::from("Ada"); // the closure owns it
    /// publisher.publish_with(DEFAULT_CHANNEL, move |user: &User| {
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

    /// Publishes as [`publish_with`](Self::publish_with) does, with an ID of the application, or a key.
    ///
    /// ```
    /// use server_sent_events::{DEFAULT_CHANNEL, Event, Overflow, PublishOptions, Publisher};
    ///
    /// let publisher = Publisher::builder_for::<bool>().overflow(Overflow::LatestPerKey).build()?;
    /// let mut metric = publisher.subscription(true).open()?;
    /// for celsius in [20, 21] {
    ///     publisher.publish_with_options(DEFAULT_CHANNEL, PublishOptions::new().key("kitchen"), move |metric: &bool| {
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
            at: None,
            sequence: None,
        })
    }

    fn send<By>(&self, channels: impl Channels<By>, new_event: impl FnOnce() -> NewEvent) -> Receipt {
        let registry = &self.core.registry;
        channels.with_names(|names| {
            // With a history, an event is encoded even if it reaches no subscriber.
            if !registry.has_history() && registry.count_unreached(names) {
                return Receipt { subscribers: 0, id: None, is_refused: false };
            }
            let new_event = new_event();
            if self.core.upstream.is_some() && !new_event.is_comment {
                return Receipt { subscribers: 0, id: None, is_refused: true };
            }
            if let Some(store) = self.core.store.as_ref().filter(|_| !new_event.is_comment) {
                return self.offer(&**store, names, new_event);
            }
            let recipients = Recipients::Channels(names);
            let Published { subscribers, id, .. } = self.core.pool.publish(registry, recipients, new_event);
            Receipt { subscribers, id, is_refused: false }
        })
    }

    /// Subscribes to no channel, with default properties: the subscriber gets what is
    /// [sent](crate::SubscriptionHandle::send) to it alone.
    ///
    /// Use it for a stream that belongs to one request, such as the answer of a language model. Its queue has the usual
    /// limits: by default, a client that is slower than the worker is [cut off](crate::EndCause::QueueFull). To let the
    /// worker wait, open `subscription(()).no_channels().overflow(Overflow::Block(Duration::from_secs(30)))` instead.
    /// An `EventSource` reconnects when the stream ends: send a last event at which the page closes it. It cannot
    /// `POST`; a page reads the response to a `POST` with `fetch`.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] if a limit is reached, or the publisher is shutting down.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    /// use std::thread;
    ///
    /// let publisher = Publisher::new();
    /// let subscription = publisher.subscribe_alone()?;
    /// let client = subscription.handle();
    /// thread::spawn(move || {
    ///     for token in ["All", "is", "well"] {
    ///         // `false`: the client has left, or is too slow.
    ///         if !client.send(token) {
    ///             return;
    ///         }
    ///     }
    ///     client.close();
    /// });
    /// assert_eq!(subscription.collect::<String>(), "data: All\n\ndata: is\n\ndata: well\n\n");
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn subscribe_alone(&self) -> Result<Subscription, OpenError>
    where
        P: Default,
    {
        self.subscription(P::default()).no_channels().open()
    }

    /// Subscribes to [`DEFAULT_CHANNEL`] with default properties.
    ///
    /// Does not block. Events that are published from now on are queued for the subscription. It does **not** resume:
    /// for a client that reconnects, give [`subscription`](Self::subscription) its [last event
    /// ID](SubscriptionBuilder::last_event_id), or let an [adapter](crate#any-blocking-server-can-send-a-stream)
    /// respond to the request.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] if a limit is reached, or the publisher is shutting down.
    pub fn subscribe(&self) -> Result<Subscription, OpenError>
    where
        P: Default,
    {
        self.subscription(P::default()).open()
    }

    /// Subscribes to these channels with default properties.
    ///
    /// Does not block. Events that are published from now on are queued for the subscription. It does **not** resume,
    /// as with [`subscribe`](Self::subscribe).
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] if a limit is reached, if the publisher is shutting down, or if there is no channel.
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

    /// Returns a builder for a subscription with these properties. It sets the channels, the last event ID, the initial
    /// data and more.
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

    /// Ends every stream after its queued events. Does not block. Later subscribers are unaffected.
    ///
    /// A thread that waits for the next event of a subscription is woken.
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
        match &self.core.store {
            Some(store) if store.close_streams() => {}
            _ => self.core.registry.close().finish(),
        }
    }

    /// Returns the ID of the newest event, or `None` without a [history](crate::History). Every event that is published
    /// later is newer.
    pub fn last_event_id(&self) -> Option<String> {
        self.core.registry.newest_id()
    }

    /// Returns the publisher's counters, and what it holds now.
    pub fn stats(&self) -> Stats {
        let mut store = self.core.store.as_ref().map(|store| store.stats()).unwrap_or_default();
        store.losses_found = self.core.counters.losses();
        if let Some(followed) = &self.core.upstream {
            store.connections_lost = followed.connection.times_lost();
        }
        Stats { store, ..self.core.registry.stats() }
    }

    /// Returns the current state of this channel.
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
