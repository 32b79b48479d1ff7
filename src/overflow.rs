//! What happens when a queue is full.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// What happens when an event does not fit into a subscriber's queue any more.
///
/// Chosen for all by [`PublisherBuilder::overflow`](crate::PublisherBuilder::overflow), and for one subscriber by
/// [`SubscriptionBuilder::overflow`](crate::SubscriptionBuilder::overflow). The limits are
/// [`max_queued_events`](crate::PublisherBuilder::max_queued_events) and
/// [`max_queued_bytes`](crate::PublisherBuilder::max_queued_bytes).
///
/// | policy | the publisher | the slow subscriber | for |
/// |---|---|---|---|
/// | `Disconnect` | goes on | is ended, and resumes from what it has seen | everything that has a history |
/// | `DropOldest` | goes on | loses the oldest, and is told how many | logs, samples |
/// | `LatestPerKey` | goes on | keeps the newest of each key | dashboards |
/// | `Block` | waits | is waited for, then ended | pipelines within one program |
///
/// ```
/// use server_sent_events::{Overflow, Publisher};
///
/// let publisher = Publisher::<()>::builder().max_queued_events(2).overflow(Overflow::DropOldest).build()?;
/// let mut subscription = publisher.subscribe()?;
/// for n in 0..5 {
///     publisher.publish(n.to_string());
/// }
/// assert_eq!(subscription.next().unwrap(), "event: gap\ndata: {\"lost\":3}\n\n");
/// assert_eq!(subscription.next().unwrap(), "data: 3\n\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The stream ends at once, with [`EndCause::QueueFull`](crate::EndCause::QueueFull), and the queue is thrown away: a
    /// client that comes back goes on from what it has seen, and one event in the middle is never missing. The default.
    #[default]
    Disconnect,
    /// The oldest events go until the new one fits. Then an event of type `gap` says how many were lost, once for each
    /// run of losses: its data is `{"lost":3}`.
    DropOldest,
    /// Of events that were published with the same [key](crate::Event::key) only the newest waits. That is so whether the
    /// queue is full or not; when it is full all the same, of other keys or of events without one, the stream ends as with
    /// `Disconnect`.
    LatestPerKey,
    /// [`publish`](crate::Publisher::publish) waits for so long until every such subscriber has room, and then queues
    /// the event for all, these and others, so that all see one order. Who is still full then is ended as with
    /// `Disconnect`.
    ///
    /// Only publishers to this subscriber wait, and in their order; all else goes on. One that publishes to several may find
    /// room now here, now there, because others are quicker: who had room meanwhile then gets its event beyond the bounds, so
    /// these are exceeded by no more than one event for each thread that publishes to several. A thread that both publishes and reads the subscription would wait for itself.
    Block(Duration),
}

/// What waits for a subscriber that may lose some of it. Its queue then holds tokens: as many as there are entries here, or
/// more, where several made room for one.
///
/// Its lock is held for a few steps only: under the registry's by who puts, alone by who takes.
pub(crate) struct Shelf<T>(Mutex<Entries<T>>);

struct Entries<T> {
    /// By the order in which they came.
    waiting: BTreeMap<u64, (T, Option<Arc<str>>)>,
    /// Of each key, the one that waits.
    newest: HashMap<Arc<str>, u64>,
    next: u64,
    /// How many were dropped since one was taken.
    lost: u64,
    /// How many are on their way.
    tokens: usize,
}

impl<T> Shelf<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Entries { waiting: BTreeMap::new(), newest: HashMap::new(), next: 0, lost: 0, tokens: 0 }))
    }

    /// Puts it last, where nothing of the same key waits any more. Returns whether a token must be sent for it.
    #[must_use = "without a token nobody looks"]
    pub(crate) fn put(&self, item: T, key: Option<&Arc<str>>) -> bool {
        let Entries { waiting, newest, next, tokens, .. } = &mut *self.0.lock();
        waiting.insert(*next, (item, key.cloned()));
        let older = key.and_then(|key| newest.insert(Arc::clone(key), *next));
        debug_assert!(older.is_none(), "BUG: two of one key wait");
        *next += 1;
        let needs_token = *tokens < waiting.len();
        *tokens += usize::from(needs_token);
        needs_token
    }

    /// The one of this key, which waits no more.
    pub(crate) fn replace(&self, key: &str) -> Option<T> {
        let Entries { waiting, newest, .. } = &mut *self.0.lock();
        let older = newest.remove(key)?;
        waiting.remove(&older).map(|(item, _)| item)
    }

    /// The first one, which is lost.
    pub(crate) fn lose(&self) -> Option<T> {
        let mut entries = self.0.lock();
        let first = entries.first()?;
        entries.lost += 1;
        Some(first)
    }

    /// The first one for a token, if there is one for it, and how many were lost before it.
    pub(crate) fn take(&self) -> Option<(u64, T)> {
        let mut entries = self.0.lock();
        entries.tokens -= 1;
        let first = entries.first()?;
        Some((std::mem::take(&mut entries.lost), first))
    }

    /// All of them, which nobody wants any more.
    pub(crate) fn clear(&self) -> Vec<T> {
        let mut entries = self.0.lock();
        entries.newest = HashMap::new();
        std::mem::take(&mut entries.waiting).into_values().map(|(item, _)| item).collect()
    }
}

impl<T> Entries<T> {
    fn first(&mut self) -> Option<T> {
        let (_, (item, key)) = self.waiting.pop_first()?;
        key.map(|key| self.newest.remove(&key));
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_key_takes_its_place_at_the_end() {
        let shelf = Shelf::new();
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        assert!(shelf.put("a1", Some(&a)));
        assert!(shelf.put("x", None));
        assert!(shelf.put("b1", Some(&b)));
        assert_eq!(shelf.replace("a"), Some("a1"));
        assert!(!shelf.put("a2", Some(&a)), "two tokens for one entry");
        assert_eq!([(); 3].map(|()| shelf.take()), [Some((0, "x")), Some((0, "b1")), Some((0, "a2"))]);
        assert_eq!(shelf.replace("a"), None, "what was taken waits no more");
        assert!(shelf.0.lock().newest.is_empty(), "keys pile up of which none waits");
    }

    #[test]
    fn losses_are_told_once_with_the_next() {
        let shelf = Shelf::new();
        assert_eq!(shelf.lose(), None);
        (0..5).for_each(|n| assert!(shelf.put(n, None)));
        assert_eq!((shelf.lose(), shelf.lose()), (Some(0), Some(1)));
        assert_eq!((shelf.take(), shelf.take()), (Some((2, 2)), Some((0, 3))));
        assert_eq!(shelf.clear(), [4]);
        assert_eq!([(); 3].map(|()| shelf.take()), [None; 3]);
    }

    #[test]
    fn tokens_do_not_pile_up_where_one_takes_the_room_of_several() {
        let shelf = Shelf::new();
        for _ in 0..1_000 {
            let tokens = (0..10).filter(|n| shelf.put(*n, None)).count();
            assert!(tokens == 0 || shelf.0.lock().tokens <= 10, "{tokens}");
            (0..10).for_each(|n| assert_eq!(shelf.lose(), Some(n)));
        }
        assert_eq!(shelf.0.lock().tokens, 10);
    }
}
