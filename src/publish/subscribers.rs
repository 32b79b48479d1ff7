//! Lists and removes the subscribers of a publisher.

use std::sync::Arc;

use super::stored::error;
use super::{Publisher, of_this_type};
use crate::channels::Channels;
use crate::error::PublishError;
use crate::stats::EndCause;

impl<P: Send + Sync + 'static> Publisher<P> {
    /// Returns the properties of the subscribers of these channels: each subscriber once, the oldest first.
    ///
    /// ```
    /// # use server_sent_events::Publisher;
    /// let publisher = Publisher::builder_for::<&str>().build()?;
    /// let _ada = publisher.subscription("Ada").channels("chat").open()?;
    /// let names: Vec<&str> = publisher.subscriber_properties("chat").iter().map(|name| **name).collect();
    /// assert_eq!(names, ["Ada"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn subscriber_properties<By>(&self, channels: impl Channels<By>) -> Vec<Arc<P>> {
        let subscribers = channels.with_names(|names| self.core.registry.subscribers(names));
        subscribers.iter().map(|(_, properties)| properties.downcast()).collect()
    }

    /// Removes the subscribers for which the filter returns `true` from these channels. Returns how many it removed.
    ///
    /// A subscriber that is then in no channel ends after its queued events, even if a thread is waiting for its next
    /// one. The filter is called once per subscriber of these channels, and may use the publisher.
    ///
    /// ```
    /// # use server_sent_events::{DEFAULT_CHANNEL, Publisher};
    /// # let publisher = Publisher::new();
    /// let mut subscription = publisher.subscribe()?;
    /// assert_eq!(publisher.unsubscribe_if(DEFAULT_CHANNEL, |_| true), 1);
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

    /// Disconnects the subscribers for which the filter returns `true`, in all channels. Returns how many it
    /// disconnected.
    ///
    /// Does not block. Their queued events are dropped, so this suits a user whose rights were withdrawn. The filter is
    /// called once per subscriber, and may use the publisher. A browser reconnects; to stop it, answer its next request
    /// with a status such as 204 or 403.
    ///
    /// ```
    /// # use server_sent_events::{EndCause, Publisher};
    /// let publisher = Publisher::builder_for::<&str>().build()?;
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

    /// Disconnects the subscribers with this [quota key](crate::SubscriptionBuilder::quota_key), on all processes that
    /// share the history.
    ///
    /// Does not block. If several processes share the history (`store::Redis`), this has a place in the order of the
    /// events: each process disconnects the subscribers that it has when it gets there, as does this one.
    /// [`flush`](Self::flush) waits until this process has. Otherwise only the subscribers of this process are disconnected,
    /// at once. Queued events are dropped, as with [`disconnect_if`](Self::disconnect_if).
    ///
    /// It is no event. A client that resumes gets what was published meanwhile, without a gap. So a request that is no
    /// longer allowed must be refused, on each process, before this is called.
    ///
    /// A process that misses entries of the shared history may have missed this. It disconnects all subscribers with a
    /// quota key, which resume with a `gap` event.
    ///
    /// # Errors
    ///
    /// Returns a [`PublishError`] if the shared store is away or too much waits for it. Then no subscriber is disconnected.
    /// `disconnect_if` works without the store, for this process.
    ///
    /// ```
    /// use server_sent_events::{EndCause, Publisher};
    ///
    /// let publisher = Publisher::new();
    /// let mut phone = publisher.subscription(()).quota_key("Mallory").open()?;
    /// let mut laptop = publisher.subscription(()).quota_key("Mallory").channels("news").open()?;
    /// let other = publisher.subscription(()).quota_key("Ada").open()?;
    /// publisher.disconnect_everywhere("Mallory")?;
    /// assert_eq!((phone.next(), laptop.next()), (None, None));
    /// assert_eq!(laptop.end_cause(), Some(EndCause::Disconnected));
    /// assert_eq!(other.end_cause(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn disconnect_everywhere(&self, quota_key: &str) -> Result<(), PublishError> {
        let is_sent = match &self.core.store {
            Some(store) => store.disconnect(quota_key).map_err(error)?,
            None => false,
        };
        if !is_sent {
            self.core.registry.disconnect_key(Some(quota_key)).finish();
        }
        Ok(())
    }
}
