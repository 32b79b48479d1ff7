//! Who subscribes to what, behind the one ordering lock.

// Invariants. The rest of the crate relies on these nine; a change that breaks one is a change of design.
//
// 1. An event is checked and encoded before the lock, and its frame is shared: nobody encodes or copies it
//    for each subscriber, except `Iterator::next`, whose item is a `String`. What nobody listens to is not
//    encoded at all: `is_heard` is asked first, in a critical section of its own. Whoever joins between the
//    two joined before the event; whoever leaves was not reached.
// 2. Queueing an event for every subscriber is one critical section: all subscribers of a channel see its
//    events in one order.
// 3. Joining is one critical section: the first live event that a subscriber gets is followed by every
//    later one.
// 4. Nothing under the lock waits: for a client, a socket, a full queue.
// 5. No code of the caller runs under the lock: no filter, no closure, no iterator of channel names, no
//    `Clone` or `Drop` of properties, of a closure or of what a full queue held. Each method here therefore
//    returns what is to be dropped afterwards (`Afterwards`), and its caller does that without the lock. A
//    frame is text and may be dropped anywhere. `tests/reentrancy.rs` calls back from each of those places.
// 6. A `publish_with` closure is queued as it is and runs on the thread that takes it out of the queue. A
//    panic in it costs that subscriber that event, of which a `gap` event in its place tells it.
// 7. The end is an item in the queue like any other, `Item::End`, so it ends a blocked iterator by waking
//    it. Two kinds: after what is queued (`close`, `unsubscribe`), or at once, the queue thrown away
//    (a full queue). Whoever is sent its end has left the registry before.
// 8. Memory is bounded by default: each queue by frames and bytes, the number of subscribers, the length of
//    a channel's name and the number of channels of one subscription. A channel without subscribers leaves
//    nothing behind: both maps are B-trees, which give memory back as they shrink.
// 9. A subscriber that loses an event is told (6) or is ended (7); never neither.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::error::OpenError;
use crate::queue::{Item, Properties, Queue, QueueBounds, Wake};
use crate::stats::{Counters, EndCause, Stats};
use crate::subscription::{Owner, SubscriberId};

/// Who subscribes to what.
pub(crate) struct Registry {
    state: Mutex<State>,
    limits: Limits,
    counters: Arc<Counters>,
}

/// The bounds that one publisher keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) subscribers: usize,
    pub(crate) channels: usize,
    pub(crate) channel_name: usize,
    pub(crate) queue: QueueBounds,
}

/// What the lock guards.
#[derive(Default)]
struct State {
    subscribers: BTreeMap<SubscriberId, Subscriber>,
    /// Only channels with subscribers. The queues stand here once more, so that publishing reads one map.
    channels: BTreeMap<Arc<str>, BTreeMap<SubscriberId, Arc<Queue>>>,
    last_id: u64,
    /// Subscriptions that exist, with those that have ended: their connections are there until they are dropped,
    /// and it is connections that a machine runs out of.
    open: usize,
}

/// One entry of the registry.
struct Subscriber {
    queue: Arc<Queue>,
    properties: Properties,
    /// The channels it is in, in the order in which it named them.
    channels: Vec<Arc<str>>,
}

/// What is to be done without the lock when a method of the registry has returned.
#[must_use = "what the registry hands back is dropped by `finish`, without the lock"]
#[derive(Default)]
pub(crate) struct Afterwards {
    /// Subscribers that have left. Their queues may hold the last reference to a closure, they themselves
    /// the last one to properties: the application's `Drop` runs here.
    left: Vec<Subscriber>,
    /// Queues that were cut: to be emptied.
    cut: Vec<Arc<Queue>>,
    /// Streams to be put on the run queue. Not before the lock is free: writer threads that wake up while the
    /// others are still being queued for take the processor away from it (measured: 290 ns a subscriber instead
    /// of 70 to 180).
    wake: Vec<Arc<dyn Wake>>,
}

impl Afterwards {
    pub(crate) fn finish(self) {
        self.wake.into_iter().for_each(Wake::wake);
        for queue in &self.cut {
            queue.throw_away();
        }
        drop(self.left);
    }
}

impl Registry {
    pub(crate) fn new(limits: Limits, counters: Arc<Counters>) -> Self {
        Self { state: Mutex::default(), limits, counters }
    }

    /// Adds a subscriber to these channels, each named once.
    pub(crate) fn join(
        &self,
        channels: &[Arc<str>],
        properties: &Properties,
        queue: &Arc<Queue>,
    ) -> Result<SubscriberId, OpenError> {
        // Everything that can be refused without the lock is refused without it.
        if channels.is_empty() {
            return Err(OpenError::NoChannels);
        }
        if channels.len() > self.limits.channels {
            return Err(OpenError::TooManyChannels { given: channels.len(), limit: self.limits.channels });
        }
        if let Some(name) = channels.iter().find(|name| name.len() > self.limits.channel_name) {
            return Err(OpenError::ChannelNameTooLong { length: name.len(), limit: self.limits.channel_name });
        }

        let mut state = self.state.lock();
        if state.open >= self.limits.subscribers {
            return Err(OpenError::TooManySubscribers { limit: self.limits.subscribers });
        }
        state.open += 1;
        state.last_id += 1;
        let id = SubscriberId(state.last_id);
        for channel in channels {
            state.channels.entry(Arc::clone(channel)).or_default().insert(id, Arc::clone(queue));
        }
        let subscriber =
            Subscriber { queue: Arc::clone(queue), properties: Arc::clone(properties), channels: channels.to_vec() };
        state.subscribers.insert(id, subscriber);
        Ok(id)
    }

    /// Whether an event in these channels would reach anybody; counts one that would not as published.
    pub(crate) fn is_heard(&self, channels: &[&str]) -> bool {
        let state = self.state.lock();
        let heard = channels.iter().any(|&channel| state.channels.contains_key(channel));
        if !heard {
            self.counters.count_published(0);
        }
        heard
    }

    /// Queues the item for every subscriber of these channels, each named once; a subscriber of several gets
    /// it once. One whose queue is full ends at once. Returns for how many it was queued.
    pub(crate) fn publish(&self, channels: &[&str], item: &Item) -> (usize, Afterwards) {
        let size = item.size();
        let mut queued = 0;
        let mut full = Vec::new();
        let mut afterwards = Afterwards::default();

        let mut state = self.state.lock();
        let mut reached = HashSet::new();
        for &channel in channels {
            for (&id, queue) in state.channels.get(channel).into_iter().flatten() {
                if channels.len() > 1 && !reached.insert(id) {
                    continue;
                }
                if queue.has_room(size, self.limits.queue) {
                    afterwards.wake.extend(queue.push(item.clone()));
                    queued += 1;
                } else {
                    full.push(id);
                }
            }
        }
        for id in full {
            let subscriber = state.remove(id).expect("BUG: a channel names a subscriber that is gone");
            self.end(&subscriber, EndCause::QueueFull);
            subscriber.queue.cut();
            afterwards.cut.push(Arc::clone(&subscriber.queue));
            afterwards.left.push(subscriber);
        }
        self.counters.count_published(queued);
        (queued, afterwards)
    }

    /// The subscribers of these channels with their properties, each once, the oldest first.
    pub(crate) fn subscribers(&self, channels: &[&str]) -> Vec<(SubscriberId, Properties)> {
        let state = self.state.lock();
        let mut ids: Vec<SubscriberId> = channels
            .iter()
            .filter_map(|&channel| state.channels.get(channel))
            .flat_map(BTreeMap::keys)
            .copied()
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().map(|id| (id, Arc::clone(&state.subscribers[&id].properties))).collect()
    }

    /// Takes these subscribers out of these channels; one that is in no channel any more ends after what is
    /// queued for it. Returns how many of them were in one of the channels.
    pub(crate) fn unsubscribe(&self, channels: &[&str], subscribers: &[SubscriberId]) -> (usize, Afterwards) {
        let mut left_some = 0;
        let mut afterwards = Afterwards::default();
        let mut state = self.state.lock();
        for &id in subscribers {
            // It may have left while the application's filter looked at it.
            let Some(subscriber) = state.subscribers.get_mut(&id) else { continue };
            let before = subscriber.channels.len();
            subscriber.channels.retain(|channel| !channels.contains(&&**channel));
            let (after, ends) = (subscriber.channels.len(), subscriber.channels.is_empty());
            for &channel in channels {
                state.leave_channel(channel, id);
            }
            left_some += usize::from(after < before);
            if ends {
                let subscriber = state.subscribers.remove(&id).expect("BUG: it was there a moment ago");
                self.end(&subscriber, EndCause::Unsubscribed);
                afterwards.wake.extend(subscriber.queue.push(Item::End));
                afterwards.left.push(subscriber);
            }
        }
        (left_some, afterwards)
    }

    /// Ends every subscriber after what is queued for it.
    pub(crate) fn close(&self) -> Afterwards {
        let mut afterwards = Afterwards::default();
        let mut state = self.state.lock();
        state.channels.clear();
        for (_, subscriber) in std::mem::take(&mut state.subscribers) {
            self.end(&subscriber, EndCause::Closed);
            afterwards.wake.extend(subscriber.queue.push(Item::End));
            afterwards.left.push(subscriber);
        }
        afterwards
    }

    /// One snapshot of the counters and of what is here now.
    pub(crate) fn stats(&self) -> Stats {
        let state = self.state.lock();
        self.counters.snapshot(state.subscribers.len(), state.channels.len())
    }

    /// Takes the subscriber out, if it is still in, and lets the lock go.
    fn take_out(&self, id: SubscriberId, cause: EndCause, mut state: MutexGuard<'_, State>) {
        let left = state.remove(id);
        if let Some(subscriber) = &left {
            self.end(subscriber, cause);
            subscriber.queue.cut();
        }
        // The subscription holds what is dropped here too, so nothing of the application's can go with it; but
        // that nothing is dropped under the lock is easier to see than that nothing needs to be.
        drop(state);
        drop(left);
    }

    /// Says why a subscriber ends that was just removed, under the same lock, so once for each.
    fn end(&self, subscriber: &Subscriber, cause: EndCause) {
        subscriber.queue.end(cause);
        self.counters.count_ended(cause);
    }
}

impl Owner for Registry {
    fn leave(&self, id: SubscriberId, cause: EndCause) {
        self.take_out(id, cause, self.state.lock());
    }

    fn dropped(&self, id: SubscriberId) {
        let mut state = self.state.lock();
        state.open -= 1;
        self.take_out(id, EndCause::Dropped, state);
    }
}

impl State {
    fn remove(&mut self, id: SubscriberId) -> Option<Subscriber> {
        let subscriber = self.subscribers.remove(&id)?;
        for channel in &subscriber.channels {
            self.leave_channel(channel, id);
        }
        Some(subscriber)
    }

    /// The queue that is dropped here is never the last reference: the subscriber holds it too.
    fn leave_channel(&mut self, channel: &str, id: SubscriberId) {
        let Some(members) = self.channels.get_mut(channel) else { return };
        members.remove(&id);
        if members.is_empty() {
            self.channels.remove(channel);
        }
    }
}
