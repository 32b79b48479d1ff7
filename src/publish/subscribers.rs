//! Lists and removes the subscribers of a publisher.

use std::sync::Arc;

use super::{Publisher, of_this_type};
use crate::channels::Channels;
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
}
