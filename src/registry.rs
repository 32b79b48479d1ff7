//! Who subscribes to what, behind the one ordering lock.

// Invariants. The rest of the crate relies on these nine; a change that breaks one is a change of design.
//
// 1. An event is checked and encoded before the lock; only its `id:` line, known under the lock, is added there, into
//    room that was left for it. Its frame is shared: nobody encodes or copies it for each subscriber, except
//    `Iterator::next`, whose item is a `String`. What nobody listens to and no history keeps is not encoded at all:
//    `is_heard` is asked first, in a critical section of its own. Whoever joins between the two joined before the
//    event; whoever leaves was not reached.
// 2. Giving the id, keeping the event and queueing it for every subscriber are one critical section: all subscribers of
//    a channel see its events in one order, and it is the history's.
// 3. Joining and taking the last slice of the replay are one critical section: replay meets live with no gap and no
//    duplicate. A long replay is cloned in slices, so that it does not hold up the others.
// 4. Nothing under the lock waits: for a client, a socket, a full queue.
// 5. No code of the caller runs under the lock, but for the clock that it gave the history: no filter, no closure, no
//    iterator of channel names, no `Clone` or `Drop` of properties, of a closure, of what the history lets go or a
//    full queue held. Each method here therefore returns what is to be dropped afterwards (`Afterwards`), and its
//    caller does that without the lock. A frame is text and may be dropped anywhere. `tests/reentrancy.rs` calls
//    back from each of those places.
// 6. A `publish_with` closure is queued and kept as it is, and runs on the thread that takes it out of the queue or of
//    the replay. A panic in it costs that subscriber that event, of which a `gap` event with its id tells it.
// 7. The end is an item in the queue like any other, `Item::End`, followed by the usual wake: so it ends a blocked
//    iterator and a handed-over stream in the same way. Two kinds: after what is queued (`close`, `unsubscribe`), or
//    at once, the queue thrown away (a full queue, a disconnect). Whoever is sent its end has left the registry before.
// 8. Memory is bounded by default: each queue by frames and bytes, the history, the number of subscriptions, the length
//    of a channel's name and the number of channels of one subscription. A channel without subscribers and without
//    history leaves nothing behind: the maps are B-trees, which give memory back as they shrink.
// 9. A subscriber that loses an event is told (6), or is ended (7) and so resumes; never neither.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use parking_lot::{Mutex, MutexGuard};

use crate::error::OpenError;
use crate::event::{self, Frame};
use crate::history::{self, History, Past, Resumed};
use crate::queue::{Item, Properties, Queue, QueueBounds, Wake};
use crate::stats::{Counters, EndCause, Kept, Stats};
use crate::subscription::{Owner, SubscriberId};

/// Who subscribes to what.
pub(crate) struct Registry {
    state: Mutex<State>,
    limits: Limits,
    counters: Arc<Counters>,
    /// The sequence of the newest event that is queued for everybody.
    committed: AtomicU64,
    /// The first half of every id, if there is a history.
    epoch: Option<String>,
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
    past: Option<Past<Item>>,
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
    /// What the history let go, closures among it.
    evicted: Vec<Item>,
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
        drop(self.evicted);
    }
}

/// What is to be published.
pub(crate) struct Draft {
    /// Not sealed yet, if there is a history.
    pub(crate) item: Item,
    pub(crate) own_id: Option<Arc<str>>,
    /// A comment is neither kept nor given an id.
    pub(crate) is_comment: bool,
}

/// What became of it.
pub(crate) struct Published {
    pub(crate) queued: usize,
    pub(crate) id: Option<String>,
}

/// What a subscription wants of the history.
#[derive(Debug)]
pub(crate) enum Wish {
    Nothing,
    /// All that is newer than this id.
    After(String),
    /// So many of the newest.
    Last(usize),
}

/// What a subscription begins with.
pub(crate) struct Beginning {
    pub(crate) id: SubscriberId,
    pub(crate) resumed: Resumed,
    /// The id to start from, and the gap.
    pub(crate) first: Vec<Frame>,
    pub(crate) replay: Vec<Item>,
}

impl Registry {
    /// How many events are cloned out of the history in one critical section: a long replay must not hold up the
    /// others.
    const SLICE: usize = 256;

    /// After so many slices the rest is taken at once: whoever publishes faster than it is replayed must not keep a
    /// subscriber from ever joining. More than all rings of one subscriber hold by default.
    const SLICES: usize = 4_096;

    pub(crate) fn new(limits: Limits, history: Option<History>, counters: Arc<Counters>) -> Self {
        let past = history.map(Past::new);
        let epoch = past.as_ref().map(|past| past.epoch().to_owned());
        let state = Mutex::new(State { past, ..State::default() });
        Self { state, limits, counters, committed: AtomicU64::new(0), epoch }
    }

    pub(crate) fn has_history(&self) -> bool {
        self.epoch.is_some()
    }

    /// Adds a subscriber to these channels, each named once, and takes what it wishes out of the history: what is
    /// published afterwards is queued, what was before is in the replay.
    pub(crate) fn join(
        &self,
        channels: &[Arc<str>],
        properties: &Properties,
        queue: &Arc<Queue>,
        wish: &Wish,
    ) -> Result<Beginning, OpenError> {
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

        let mut start = None;
        let mut replay: Vec<Item> = Vec::new();
        let mut evicted = Vec::new();
        for slice in 1.. {
            // Dropped after the lock, which is declared later.
            let mut state = self.state.lock();
            if state.open >= self.limits.subscribers {
                return Err(OpenError::TooManySubscribers { limit: self.limits.subscribers });
            }
            if let Some(past) = &mut state.past {
                past.expire(&mut evicted);
                let start = start.get_or_insert_with(|| Start::find(past, channels, wish));
                // Between two slices something may have left that was still to come.
                let known = start.cursor.max(start.floor);
                start.is_gap |= channels.iter().any(|channel| past.floor(channel) > known);
                let most = if slice < Self::SLICES { Self::SLICE } else { usize::MAX };
                let newer = past.after(channels, start.cursor, most);
                let is_last = newer.len() < most;
                start.cursor = newer.last().map_or(start.cursor, |(sequence, _)| *sequence);
                replay.extend(newer.into_iter().map(|(_, item)| item));
                if !is_last {
                    // Handed to whoever waits: let go and taken again at once, it would mostly come back to this
                    // thread, and a publisher would wait for many slices (measured, 99th of a hundred while 100
                    // clients resume 100 channels each: 0.77 ms instead of 0.11).
                    MutexGuard::unlock_fair(state);
                    continue;
                }
            }
            let id = state.add(channels, properties, queue);
            let first = match (&start, &state.past) {
                (Some(start), Some(past)) => {
                    let gap = start.is_gap.then(|| past.gap(start.asked_for(wish), &start.id)).flatten();
                    [event::id_alone(&start.id)].into_iter().chain(gap).collect()
                }
                _ => Vec::new(),
            };
            let events = replay.len();
            let resumed = match start {
                Some(Start { is_gap: true, .. }) => Resumed::Gap { events },
                Some(Start { was_asked: true, .. }) => Resumed::Complete { events },
                _ => Resumed::NotAsked,
            };
            return Ok(Beginning { id, resumed, first, replay });
        }
        unreachable!("BUG: the last slice has no end")
    }

    /// The id of the newest event, if there is a history. Whoever then sees a queue empty has taken all events up to
    /// it out of that queue. Takes no lock.
    pub(crate) fn newest_id(&self) -> Option<String> {
        self.epoch.as_ref().map(|epoch| history::id(epoch, self.committed.load(SeqCst)))
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

    /// Gives the event its id, keeps it, and queues it for every subscriber of these channels, each named once; a
    /// subscriber of several gets it once. One whose queue is full ends at once.
    pub(crate) fn publish(&self, channels: &[&str], draft: Draft) -> (Published, Afterwards) {
        // Declared before the lock is taken, and so dropped after it is let go: it may be the last reference.
        let Draft { mut item, own_id, is_comment } = draft;
        let mut queued = 0;
        let mut full = Vec::new();
        let mut afterwards = Afterwards::default();

        let mut state = self.state.lock();
        let mut id = None;
        if let Some(past) = &mut state.past {
            if is_comment {
                item.seal(None);
            } else {
                let ours = past.id(past.sequence() + 1);
                item.seal(Some(&*ours).filter(|_| own_id.is_none()));
                id = Some(own_id.as_deref().map_or(ours, str::to_owned));
                past.append(channels, item.clone(), item.size(), own_id, &mut afterwards.evicted);
            }
        }
        let size = item.size();
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
        if let Some(past) = &state.past {
            self.committed.store(past.sequence(), SeqCst);
        }
        self.counters.count_published(queued);
        (Published { queued, id }, afterwards)
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
        let (events, bytes, channels) = state.past.as_ref().map(Past::size).unwrap_or_default();
        self.counters.snapshot(state.subscribers.len(), state.channels.len(), Kept::new(events, bytes, channels))
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

/// Where in the history a subscription begins.
struct Start {
    /// It has asked for something.
    was_asked: bool,
    is_gap: bool,
    /// The replay begins behind this sequence; later, what of it is taken already.
    cursor: u64,
    /// The highest sequence that its channels had lost when it began: that is judged once, by its wish.
    floor: u64,
    /// The id that the client holds before its first event: nothing newer is missing from its replay.
    id: String,
}

impl Start {
    fn find(past: &Past<Item>, channels: &[Arc<str>], wish: &Wish) -> Self {
        let floors = || channels.iter().map(|channel| past.floor(channel));
        let floor = floors().max().unwrap_or(0);
        let (cursor, id) = match wish {
            Wish::Nothing => (past.sequence(), None),
            Wish::Last(events) => (past.before_last(channels, *events), None),
            Wish::After(id) => match past.place(id) {
                Some(place) if floor <= place => (place, Some(id.clone())),
                // The lowest floor: from there on, what is not replayed is known to be lost. A higher one would be
                // above events of another channel that are still there.
                place => {
                    let cursor = place.unwrap_or(0).max(floors().min().unwrap_or(0));
                    return Self { was_asked: true, is_gap: true, cursor, floor, id: past.id(cursor) };
                }
            },
        };
        let was_asked = !matches!(wish, Wish::Nothing);
        Self { was_asked, is_gap: false, cursor, floor, id: id.unwrap_or_else(|| past.id(cursor)) }
    }

    fn asked_for<'w>(&self, wish: &'w Wish) -> &'w str {
        if let Wish::After(id) = wish { id } else { "" }
    }
}

impl Owner for Registry {
    fn leave(&self, id: SubscriberId, cause: EndCause) {
        self.take_out(id, cause, self.state.lock());
    }

    fn newest_id(&self) -> Option<String> {
        Registry::newest_id(self)
    }

    fn dropped(&self, id: SubscriberId) {
        let mut state = self.state.lock();
        state.open -= 1;
        self.take_out(id, EndCause::Dropped, state);
    }
}

impl State {
    fn add(&mut self, channels: &[Arc<str>], properties: &Properties, queue: &Arc<Queue>) -> SubscriberId {
        self.open += 1;
        self.last_id += 1;
        let id = SubscriberId(self.last_id);
        for channel in channels {
            self.channels.entry(Arc::clone(channel)).or_default().insert(id, Arc::clone(queue));
        }
        let subscriber =
            Subscriber { queue: Arc::clone(queue), properties: Arc::clone(properties), channels: channels.to_vec() };
        self.subscribers.insert(id, subscriber);
        id
    }

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
