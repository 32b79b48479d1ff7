//! Handles that control a live subscription from any thread.

use std::fmt;
#[cfg(feature = "server")]
use std::io;
use std::sync::{Arc, Weak};

use crate::channels::Channels;
use crate::deliver::WriterPool;
use crate::error::OpenError;
use crate::event::Event;
use crate::queue::SubscriberId;
use crate::registry::{NewEvent, Recipients, Registry};
use crate::stats::EndCause;

/// Controls a live subscription from any thread; from [`Subscription::handle`](crate::Subscription::handle).
///
/// A handle keeps neither the subscription nor the publisher alive. Once the subscriber has left, its methods do
/// nothing.
#[derive(Clone)]
pub struct SubscriptionHandle {
    registry: Weak<Registry>,
    pool: Weak<WriterPool>,
    id: SubscriberId,
    last_event_id: Option<Arc<str>>,
}

impl SubscriptionHandle {
    pub(super) fn new(
        registry: Weak<Registry>,
        pool: Weak<WriterPool>,
        id: SubscriberId,
        last_event_id: Option<Arc<str>>,
    ) -> Self {
        Self { registry, pool, id, last_event_id }
    }

    /// Sends an event to this subscriber alone. Returns `false` if the subscriber has left, or is disconnected because
    /// its queue is full.
    ///
    /// The event has its place among those that are published, and counts towards the limits of the queue. Blocks as
    /// [`publish`](crate::Publisher::publish) does: only if the subscriber's policy is
    /// [`Overflow::Block`](crate::Overflow::Block), and not while the subscriber is replaying. While it is replaying, a
    /// full queue disconnects it whatever its policy, and [keys](crate::Event::key) have no effect.
    ///
    /// The history does not keep the event: a client that loses its connection does not get it again. With a history it
    /// is sent without an [ID](crate::Event::id), which is logged and counted
    /// ([`Stats::unusable_fields`](crate::Stats::unusable_fields)). Without one, an ID is sent, and the client returns
    /// it as its [last event ID](Self::last_event_id).
    ///
    /// How soon `false` tells that a client has left depends on the server. `EventServer` notices a closed connection
    /// within milliseconds. Other servers notice it when they next write, at the latest some heartbeats later.
    ///
    /// ```
    /// # use server_sent_events::Publisher;
    /// let publisher = Publisher::new();
    /// let mut subscription = publisher.subscribe()?;
    /// let handle = subscription.handle();
    /// publisher.publish("for all");
    /// assert!(handle.send("for you"));
    /// assert_eq!(subscription.next().unwrap(), "data: for all\n\n");
    /// assert_eq!(subscription.next().unwrap(), "data: for you\n\n");
    /// drop(subscription);
    /// assert!(!handle.send("too late"));
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn send(&self, event: impl Into<Event>) -> bool {
        let (Some(registry), Some(pool)) = (self.registry.upgrade(), self.pool.upgrade()) else { return false };
        let event = event.into();
        let has_history = registry.has_history();
        if has_history && event.event_id().is_some() {
            registry.count_unusable_field();
        }
        let new_event = NewEvent::for_one(&event, has_history);
        pool.publish(&registry, Recipients::Subscriber(self.id), new_event).subscribers > 0
    }

    /// Returns whether the subscriber has not left. Its connection may be lost without the server having noticed.
    pub fn is_open(&self) -> bool {
        self.registry.upgrade().is_some_and(|registry| registry.contains(self.id))
    }

    /// Calls the closure once, with the cause, when the subscriber leaves. Returns `false` and drops the closure if the
    /// subscriber has left already.
    ///
    /// The closure runs on the thread that ends the subscriber, like the hook
    /// [`on_end`](crate::PublisherBuilder::on_end), before that hook. It should return soon, and must not shut the
    /// publisher down. A panic in it is caught.
    ///
    /// ```
    /// # use server_sent_events::{EndCause, Publisher};
    /// # use std::sync::mpsc;
    /// let publisher = Publisher::new();
    /// let subscription = publisher.subscribe_alone()?;
    /// let (cancel, cancelled) = mpsc::channel();
    /// subscription.handle().on_end(move |cause| drop(cancel.send(cause)));
    /// drop(subscription);
    /// assert_eq!(cancelled.try_recv(), Ok(EndCause::Dropped));
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn on_end(&self, closure: impl FnOnce(EndCause) + Send + 'static) -> bool {
        let Some(registry) = self.registry.upgrade() else { return false };
        // A closure that comes back is dropped here, without a lock.
        registry.on_leave(self.id, Box::new(closure)).is_ok()
    }

    /// Returns the last event ID that the client sent when it subscribed, whether or not a history knows it.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Adds the subscriber to these channels. Returns how many of them are new to it; 0 if it has left. Does not block.
    ///
    /// The subscriber gets events that are published there from now on. The [history](crate::History) is not replayed.
    ///
    /// # Errors
    ///
    /// Returns the limit that the subscriber would cross, as an [`OpenError`]. It then stays in its earlier channels
    /// only.
    pub fn join<By>(&self, channels: impl Channels<By>) -> Result<usize, OpenError> {
        channels.with_names(|names| {
            self.registry.upgrade().map_or(Ok(0), |registry| registry.join_channels(self.id, names))
        })
    }

    /// Removes the subscriber from these channels. Returns how many of them it was in. Does not block.
    ///
    /// A subscriber that is in no channel afterwards ends after its queued events. To change channels, join the new
    /// ones first.
    pub fn leave<By>(&self, channels: impl Channels<By>) -> usize {
        channels.with_names(|names| self.registry.upgrade().map_or(0, |registry| registry.leave(self.id, names)))
    }

    /// Ends the stream after its queued events, with [`EndCause::Closed`]. Returns `false` if the subscriber has left
    /// already. Does not block.
    pub fn close(&self) -> bool {
        self.end(EndCause::Closed, false)
    }

    /// Ends the stream at once, with [`EndCause::Disconnected`], and drops its queued events. Returns `false` if the
    /// subscriber has left already. Does not block.
    pub fn disconnect(&self) -> bool {
        self.end(EndCause::Disconnected, true)
    }

    /// Ends the stream because its connection is lost.
    #[cfg(feature = "server")]
    pub(crate) fn connection_lost(&self, error: io::ErrorKind) {
        self.end(EndCause::ConnectionLost(error), true);
    }

    fn end(&self, cause: EndCause, at_once: bool) -> bool {
        self.registry.upgrade().is_some_and(|registry| registry.end(self.id, cause, at_once))
    }
}

impl fmt::Debug for SubscriptionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionHandle").field("id", &self.id.0).finish_non_exhaustive()
    }
}
