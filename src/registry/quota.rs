//! The subscriptions of each quota key, and the choice of the one that a newcomer replaces.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Limits;
use crate::error::OpenError;
use crate::queue::SubscriberId;

/// What happens to a new subscription whose [quota key](crate::SubscriptionBuilder::quota_key) has reached its
/// [limit](crate::PublisherBuilder::max_subscribers_per_quota_key).
///
/// ```
/// use server_sent_events::{EndCause, Publisher, QuotaPolicy};
///
/// let publisher = Publisher::builder()
///     .max_subscribers_per_quota_key(1)
///     .quota_policy(QuotaPolicy::DisconnectOldest)
///     .build()?;
/// let mut old_page = publisher.subscription(()).quota_key("Ada").open()?;
/// let mut reloaded_page = publisher.subscription(()).quota_key("Ada").open()?;
/// publisher.publish("hello");
///
/// assert!(old_page.next().unwrap().starts_with("retry: ")); // not to reconnect at once
/// assert_eq!(old_page.next(), None);
/// assert_eq!(old_page.end_cause(), Some(EndCause::Replaced));
/// assert_eq!(reloaded_page.next().unwrap(), "data: hello\n\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QuotaPolicy {
    /// The new subscription is refused, with [`OpenError::TooManyPerQuotaKey`]. The default.
    ///
    /// A subscription counts until it is dropped, even after it has ended. So a user that reloads a page can be refused
    /// until the server has noticed that the earlier connections are lost.
    #[default]
    RefuseNew,
    /// The new subscription is opened, and the oldest one of its key ends, with
    /// [`EndCause::Replaced`](crate::EndCause::Replaced).
    ///
    /// The queued events of the replaced subscription are dropped. Its last block is a `retry:` field with a time
    /// between one and two minutes, so that two pages do not replace each other without pause. How it gets there depends
    /// on how the subscription is read:
    ///
    /// | read by | while it waits for events | while its write is blocked |
    /// |---|---|---|
    /// | the iterator, `recv`, a [`Reader`](crate::Reader) | the next frame is the `retry:` block; then the stream ends | the same, once the server's write returns |
    /// | [`write_to`](crate::Subscription::write_to) | the block is written; then it returns | a recognized socket is shut down; any other writer is waited for |
    /// | [`write_in_background`](crate::Subscription::write_in_background), the adapters | the block is written; then the stream ends | a recognized socket is shut down; any other writer is waited for |
    /// | `EventServer` | the block is written; then the stream ends | the connection is closed |
    ///
    /// An `EventSource` keeps the time for later reconnects. A page that was replaced and whose next stream is to
    /// reconnect sooner needs another `retry:` then, as [initial data](crate::SubscriptionBuilder::initial_data) for
    /// example.
    ///
    /// A replaced subscription no longer counts for its key, but it counts for
    /// [`max_subscribers`](crate::PublisherBuilder::max_subscribers) until it is dropped. A blocked writer can delay
    /// that. So a key may have at most ten subscriptions that have ended and are not dropped, or as many as its limit
    /// if that is more. Beyond that a new one is refused as with `RefuseNew`.
    DisconnectOldest,
}

/// The subscriptions of one quota key.
#[derive(Default)]
struct KeyUse {
    /// The number of those that are not dropped, including those that have ended.
    alive: usize,
    /// Those that have not left the registry, the oldest first.
    registered: Vec<SubscriberId>,
}

/// The subscriptions of all quota keys.
#[derive(Default)]
pub(super) struct Quota(BTreeMap<Arc<str>, KeyUse>);

impl Quota {
    /// The number of a key's subscriptions that may have ended without being dropped, unless its limit is higher.
    const MAX_ENDED: usize = 10;

    /// Checks that one more subscription of this key crosses no limit. Returns the subscriber that it replaces.
    ///
    /// # Errors
    ///
    /// Returns the limit that it would cross.
    pub(super) fn check(&self, key: &Arc<str>, limits: &Limits) -> Result<Option<SubscriberId>, OpenError> {
        let Some(KeyUse { alive, registered }) = self.0.get(key) else { return Ok(None) };
        let limit = limits.per_quota_key;
        let (max_alive, replaced) = match limits.quota_policy {
            QuotaPolicy::RefuseNew => (limit, None),
            QuotaPolicy::DisconnectOldest => {
                let oldest = if registered.len() >= limit { registered.first().copied() } else { None };
                (limit.saturating_add(limit.max(Self::MAX_ENDED)), oldest)
            }
        };
        if *alive >= max_alive {
            return Err(OpenError::TooManyPerQuotaKey { key: key.to_string(), limit });
        }
        Ok(replaced)
    }

    pub(super) fn add(&mut self, key: &Arc<str>, id: SubscriberId) {
        let key_use = self.0.entry(Arc::clone(key)).or_default();
        key_use.alive += 1;
        key_use.registered.push(id);
    }

    /// Returns the subscribers of this key that have not left the registry, or with `None` those of all keys.
    pub(super) fn registered(&self, key: Option<&str>) -> Vec<SubscriberId> {
        match key {
            Some(key) => self.0.get(key).map(|key_use| key_use.registered.clone()).unwrap_or_default(),
            None => self.0.values().flat_map(|key_use| &key_use.registered).copied().collect(),
        }
    }

    /// Marks that a subscriber has left the registry.
    pub(super) fn leave(&mut self, key: &Arc<str>, id: SubscriberId) {
        let key_use = self.0.get_mut(key).expect("BUG: a subscriber's quota key is not counted");
        key_use.registered.retain(|registered| *registered != id);
    }

    /// Marks that all subscribers have left the registry.
    pub(super) fn leave_all(&mut self) {
        for key_use in self.0.values_mut() {
            key_use.registered.clear();
        }
    }

    /// Removes a subscription that is dropped.
    pub(super) fn remove(&mut self, key: &Arc<str>) {
        let key_use = self.0.get_mut(key).expect("BUG: a subscription's quota key is not counted");
        key_use.alive -= 1;
        if key_use.alive == 0 {
            self.0.remove(key);
        }
    }
}
