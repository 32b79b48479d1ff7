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
// 9. A subscriber that loses an event is told (6, and `DropOldest`), or is ended (7) and so resumes; never neither. Who
//    wants the latest of a key only loses nothing by not getting an older one.

mod tickets;

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Instant;

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::OpenError;
use crate::event::{self, Event, Frame};
use crate::history::{self, History, Past, Resumption};
use crate::notices::Notices;
use crate::queue::{Full, Item, Properties, Queue, wake};
use crate::stats::{ChannelStats, Counters, EndCause, HistoryStats, Stats};
use crate::subscription::{Owner, SubscriberId};

pub(crate) use tickets::Ticket;

/// Who subscribes to what.
pub(crate) struct Registry {
    state: Mutex<State>,
    limits: Limits,
    counters: Arc<Counters>,
    /// The sequence of the newest event that is queued for everybody.
    committed: AtomicU64,
    /// The first half of every id, if there is a history.
    epoch: Option<String>,
    announces_ids: bool,
    hooks: Option<Arc<dyn Hooks>>,
    notices: Arc<Notices>,
    /// Told when the last subscription is dropped.
    empty: Condvar,
}

/// What the application wants to know of each subscription. Called without any lock.
pub(crate) trait Hooks: Send + Sync {
    /// What keeps alive that which the hooks are given. Asked under the lock, before the publisher can have ended.
    fn hold(&self) -> Option<Arc<dyn Any + Send + Sync>>;
    fn opened(&self, properties: &Properties, channels: &[Arc<str>]);
    fn ended(&self, properties: &Properties, channels: &[Arc<str>], cause: EndCause);
}

/// The bounds that one publisher keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) subscribers: usize,
    pub(crate) channels: usize,
    pub(crate) channel_name: usize,
    pub(crate) of_channel: usize,
    pub(crate) of_key: usize,
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
    open: BTreeMap<SubscriberId, Weak<Queue>>,
    /// The same by key.
    keys: BTreeMap<Arc<str>, usize>,
    past: Option<Past<Item>>,
    /// How many subscribers are waited for when they have no room.
    blocking: usize,
    last_ticket: u64,
    /// No subscription is opened any more.
    shuts_down: bool,
}

/// One entry of the registry.
struct Subscriber {
    queue: Arc<Queue>,
    properties: Properties,
    /// The channels it is in, in the order in which it named them.
    channels: Vec<Arc<str>>,
    /// Publishers that wait for room for it, by their tickets: the one that has waited longest comes first, everywhere, so
    /// that no two wait for each other.
    publishers: BTreeMap<u64, Sender<()>>,
    /// What the hook needs that is called when it has left: the last handle of the publisher may be dropped meanwhile.
    held: Option<Arc<dyn Any + Send + Sync>>,
}

/// What is to be done without the lock when a method of the registry has returned.
#[must_use = "what the registry hands back is dropped by `finish`, without the lock"]
#[derive(Default)]
pub(crate) struct Afterwards {
    /// Subscribers that have left. Their queues may hold the last reference to a closure, they themselves
    /// the last one to properties: the application's `Drop` runs here.
    left: Vec<Subscriber>,
    /// Who is told of each of them.
    hooks: Option<Arc<dyn Hooks>>,
    /// Who is told how many of them were slow.
    notices: Option<Arc<Notices>>,
    /// Queues that were cut: to be emptied.
    cut: Vec<Arc<Queue>>,
    /// What the history and queues let go, closures among it.
    evicted: Vec<Item>,
    /// Streams to be put on the run queue. Not before the lock is free: writer threads that wake up while the
    /// others are still being queued for take the processor away from it (measured: 290 ns a subscriber instead
    /// of 70 to 180).
    wake: Vec<Arc<Queue>>,
}

thread_local! {
    /// What a call of `finish` on this thread still has to do; `None` while there is none.
    static UNFINISHED: RefCell<Option<VecDeque<Afterwards>>> = const { RefCell::new(None) };
}

impl Afterwards {
    /// Wakes streams, and runs what is the application's: hooks, and the `Drop` of properties and closures.
    ///
    /// That may publish, which may end further subscribers, whose hooks may publish again: so the outermost call on a
    /// thread works off a list, and a call from within leaves its work there. The stack does not grow with it.
    pub(crate) fn finish(mut self) {
        wake(std::mem::take(&mut self.wake));
        let is_outermost = UNFINISHED.try_with(|unfinished| match &mut *unfinished.borrow_mut() {
            Some(list) => {
                list.push_back(std::mem::take(&mut self));
                false
            }
            outermost => {
                *outermost = Some(VecDeque::new());
                true
            }
        });
        match is_outermost {
            Ok(false) => {}
            Ok(true) => {
                let mut next = Some(self);
                while let Some(afterwards) = next {
                    afterwards.call_application();
                    next = UNFINISHED.with_borrow_mut(|list| list.as_mut().and_then(VecDeque::pop_front));
                }
                UNFINISHED.set(None);
            }
            // The thread is about to end, and its list is gone.
            Err(_) => self.call_application(),
        }
    }

    /// A panic in what is the application's is caught where it is called, so that the rest is done all the same.
    fn call_application(self) {
        for queue in &self.cut {
            queue.throw_away();
        }
        if let Some(notices) = &self.notices {
            let is_slow = |left: &&Subscriber| left.queue.ending() == Some(EndCause::QueueFull);
            notices.slow(self.left.iter().filter(is_slow).count());
        }
        // The last of what is held may go with it: the hooks have been called then.
        for Subscriber { queue, properties, channels, held: _held, .. } in self.left {
            if let Some(hooks) = self.hooks.as_ref().filter(|_| queue.ends_after_it_opened()) {
                hooks.ended(&properties, &channels, queue.ending().expect("BUG: it has left without a cause"));
            }
        }
        drop(self.evicted);
    }
}

/// What is to be published.
pub(crate) struct NewEvent {
    /// Not sealed yet, if there is a history.
    pub(crate) item: Item,
    pub(crate) own_id: Option<Arc<str>>,
    pub(crate) key: Option<Arc<str>>,
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

impl Wish {
    /// The id that a client came with; empty if it came with none.
    fn id(&self) -> &str {
        if let Self::After(id) = self { id } else { "" }
    }
}

/// What a subscription begins with.
pub(crate) struct Beginning {
    pub(crate) id: SubscriberId,
    pub(crate) resumed: Resumption,
    /// `None` without a history.
    pub(crate) start: Option<StartId>,
    pub(crate) replay: Vec<Item>,
}

/// Where a stream of a history begins.
pub(crate) struct StartId {
    /// What the client is to hold as its last event id before its first event.
    id: String,
    /// Everything up to here the client has, or has been told that it is lost.
    pub(crate) sequence: u64,
    gap: Option<Event>,
    announces: bool,
}

impl StartId {
    /// Returns the first frames of a stream that begins here, with this initial data.
    ///
    /// A connection that breaks behind the start id resumes from there, as one that has seen all before. So the id comes with
    /// the last block that such a client must have seen: of the initial data, or the gap. Where there is neither, it
    /// comes alone.
    pub(crate) fn frames(self, initial_data: Vec<Event>) -> Vec<Frame> {
        let mut events: Vec<Event> = self.gap.into_iter().chain(initial_data).collect();
        match events.pop() {
            Some(last) => {
                let last = if last.own_id().is_some() { last } else { last.with_id(&self.id) };
                events.push(last);
                events.iter().map(Event::encode).collect()
            }
            None if self.announces => vec![event::id_alone(&self.id)],
            None => Vec::new(),
        }
    }
}

impl Registry {
    /// How many events are cloned out of the history in one critical section: a long replay must not hold up the
    /// others.
    const SLICE: usize = 256;

    /// After so many slices the rest is taken at once: whoever publishes faster than it is replayed must not keep a
    /// subscriber from ever joining. More than all rings of one subscriber hold by default.
    const SLICES: usize = 4_096;

    pub(crate) fn new(
        limits: Limits,
        history: Option<History>,
        counters: Arc<Counters>,
        hooks: Option<Arc<dyn Hooks>>,
        notices: Arc<Notices>,
    ) -> Self {
        let past = history.map(Past::new);
        let epoch = past.as_ref().map(|past| past.epoch().to_owned());
        let announces_ids = past.as_ref().is_some_and(Past::announces_ids);
        let state = Mutex::new(State { past, ..State::default() });
        let (committed, empty) = (AtomicU64::new(0), Condvar::new());
        Self { state, limits, counters, committed, epoch, announces_ids, hooks, notices, empty }
    }

    fn afterwards(&self) -> Afterwards {
        let (hooks, notices) = (self.hooks.clone(), Some(Arc::clone(&self.notices)));
        Afterwards { hooks, notices, ..Afterwards::default() }
    }

    /// Calls the hook for one that has joined; and if it has left meanwhile, the other one.
    pub(crate) fn opened(&self, queue: &Queue, properties: &Properties, channels: &[Arc<str>]) {
        if let Some(hooks) = &self.hooks {
            hooks.opened(properties, channels);
            if queue.opened_after_it_ended() {
                hooks.ended(properties, channels, queue.ending().expect("BUG: it has left without a cause"));
            }
        }
    }

    pub(crate) fn has_history(&self) -> bool {
        self.epoch.is_some()
    }

    /// A subscription was refused, for this reason.
    pub(crate) fn refused(&self, error: &OpenError) {
        self.counters.count_refused();
        self.notices.refused(error);
    }

    /// Adds a subscriber to these channels, each named once, and takes what it wishes out of the history: what is
    /// published afterwards is queued, what was before is in the replay.
    pub(crate) fn join(
        &self,
        channels: &[Arc<str>],
        properties: &Properties,
        queue: &Arc<Queue>,
        key: Option<&Arc<str>>,
        wish: &Wish,
    ) -> Result<Beginning, OpenError> {
        // Everything that can be refused without the lock is refused without it.
        if channels.is_empty() {
            return Err(OpenError::NoChannels);
        }
        if channels.len() > self.limits.channels {
            return Err(OpenError::TooManyChannels { given: channels.len(), limit: self.limits.channels });
        }
        self.check_names(channels)?;

        let mut start = None;
        let mut replay: Vec<Item> = Vec::new();
        let mut evicted = Vec::new();
        for slice in 1.. {
            // Dropped after the lock, which is declared later.
            let mut state = self.state.lock();
            state.has_place(channels, key, &self.limits)?;
            if let Some(past) = &mut state.past {
                past.expire(&mut evicted);
                let start = start.get_or_insert_with(|| Start::find(past, channels, wish));
                // Between two slices something may have left that was still to come.
                start.is_gap |= channels.iter().any(|channel| past.floor(channel) > start.cursor);
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
            let id = state.add(channels, properties, queue, key);
            let resumed = match &start {
                Some(Start { is_gap: true, .. }) => Resumption::Gap,
                Some(Start { was_asked: true, .. }) => Resumption::Complete,
                _ => Resumption::NotRequested,
            };
            let start = start.zip(state.past.as_ref()).map(|(Start { id, begins_behind, is_gap, .. }, past)| {
                let gap = is_gap.then(|| past.gap(wish.id(), &id)).flatten();
                StartId { id, sequence: begins_behind, gap, announces: past.announces_ids() }
            });
            return Ok(Beginning { id, resumed, start, replay });
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
            self.counters.count_published(0, 0);
        }
        heard
    }

    /// Gives the event its id, keeps it, and queues it for every subscriber of these channels, each named once; a
    /// subscriber of several gets it once. One whose queue is full ends at once.
    ///
    /// If it has to wait for room, nothing is done, and the event comes back with a ticket for another try.
    pub(crate) fn publish(
        &self,
        channels: &[&str],
        new_event: NewEvent,
        ticket: Option<Ticket>,
    ) -> Result<(Published, Afterwards), Box<(NewEvent, Ticket)>> {
        let mut queued = 0;
        let mut full = Vec::new();
        let mut dropped = Vec::new();
        let mut afterwards = self.afterwards();

        let mut state = self.state.lock();
        // Those that are over their bounds by this one.
        let mut beyond = BTreeSet::new();
        if state.blocking > 0 || ticket.is_some() {
            // With the id that it will have, or one more: it would be full by that.
            let id = state.past.as_ref().map_or(0, |past| "id: \n\n".len() + past.id(past.sequence() + 1).len());
            if let Some(ticket) = state.waits_for_room(channels, new_event.item.size() + id, ticket, &mut beyond) {
                drop(state);
                return Err(Box::new((new_event, ticket)));
            }
        }
        let NewEvent { mut item, own_id, key, is_comment } = new_event;
        let mut id = None;
        if let Some(past) = &mut state.past {
            if is_comment {
                item.seal(None, 0);
            } else {
                let sequence = past.sequence() + 1;
                let ours = past.id(sequence);
                item.seal(Some(own_id.as_deref().unwrap_or(&ours)), sequence);
                id = Some(own_id.as_deref().map_or(ours, str::to_owned));
                past.append(channels, item.clone(), item.size(), own_id, &mut afterwards.evicted);
            }
        }
        let mut reached = HashSet::new();
        for &channel in channels {
            for (&id, queue) in state.channels.get(channel).into_iter().flatten() {
                if channels.len() > 1 && !reached.insert(id) {
                    continue;
                }
                match queue.offer(&item, key.as_ref(), &mut dropped) {
                    Ok(wake) => {
                        afterwards.wake.extend(wake);
                        queued += 1;
                    }
                    Err(Full) if beyond.contains(&id) => {
                        afterwards.wake.extend(queue.push(item.clone()));
                        queued += 1;
                    }
                    Err(Full) => full.push(id),
                }
            }
        }
        for id in full {
            let mut subscriber = state.remove(id).expect("BUG: a channel names a subscriber that is gone");
            self.end(&mut subscriber, EndCause::QueueFull);
            subscriber.queue.cut();
            afterwards.cut.push(Arc::clone(&subscriber.queue));
            afterwards.left.push(subscriber);
        }
        if let Some(past) = &state.past {
            self.committed.store(past.sequence(), SeqCst);
        }
        self.counters.count_published(queued, dropped.len());
        drop(state);
        // Not under the lock: each may be the last reference.
        drop(item);
        afterwards.evicted.append(&mut dropped);
        Ok((Published { queued, id }, afterwards))
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
        ids.into_iter().map(|id| (id, state.subscribers[&id].properties.clone())).collect()
    }

    /// Takes these subscribers out of these channels; one that is in no channel any more ends after what is
    /// queued for it. Returns how many of them were in one of the channels.
    pub(crate) fn unsubscribe(&self, channels: &[&str], subscribers: &[SubscriberId]) -> (usize, Afterwards) {
        let mut afterwards = self.afterwards();
        let channels: HashSet<&str> = channels.iter().copied().collect();
        let mut state = self.state.lock();
        let mut left = 0;
        for &id in subscribers {
            left += usize::from(self.leave_channels(&mut state, &channels, id, &mut afterwards) > 0);
        }
        (left, afterwards)
    }

    /// Of how many of these channels the subscriber was taken out.
    fn leave_channels(
        &self,
        state: &mut State,
        channels: &HashSet<&str>,
        id: SubscriberId,
        afterwards: &mut Afterwards,
    ) -> usize {
        // It may have left while the application's filter looked at it.
        let Some(subscriber) = state.subscribers.get_mut(&id) else { return 0 };
        let stays = |channel: &Arc<str>| !channels.contains(&**channel);
        let before = subscriber.channels.len();
        if !subscriber.channels.iter().any(stays) {
            let mut subscriber = state.remove(id).expect("BUG: it was there a moment ago");
            self.end(&mut subscriber, EndCause::Unsubscribed);
            afterwards.wake.extend(subscriber.queue.push(Item::End));
            afterwards.left.push(subscriber);
            return before;
        }
        let left: Vec<Arc<str>> = subscriber.channels.extract_if(.., |channel| !stays(channel)).collect();
        // Who publishes where it is no more need not wait for it.
        subscriber.wake_publishers();
        for channel in &left {
            state.leave_channel(channel, id);
        }
        left.len()
    }

    /// Ends every subscriber after what is queued for it.
    pub(crate) fn close(&self) -> Afterwards {
        self.end_all(&mut self.state.lock(), |_| Vec::new())
    }

    /// Ends every subscriber after what is queued for it and these last frames, and lets nobody in any more.
    pub(crate) fn shut_down(&self, last: impl FnMut(SubscriberId) -> Vec<Frame>) -> Afterwards {
        let mut state = self.state.lock();
        state.shuts_down = true;
        self.end_all(&mut state, last)
    }

    fn end_all(&self, state: &mut State, mut last: impl FnMut(SubscriberId) -> Vec<Frame>) -> Afterwards {
        let mut afterwards = self.afterwards();
        state.channels.clear();
        state.blocking = 0;
        for (id, mut subscriber) in std::mem::take(&mut state.subscribers) {
            self.end(&mut subscriber, EndCause::Closed);
            let last = last(id);
            self.counters.count_queued(last.len());
            let items = last.into_iter().map(Item::Frame).chain([Item::End]);
            afterwards.wake.extend(items.filter_map(|item| subscriber.queue.push(item)));
            afterwards.left.push(subscriber);
        }
        afterwards
    }

    /// Waits until no subscription is left, but for so long only; then cuts off those that are, also what ended before and
    /// has not been delivered, and returns how many.
    pub(crate) fn wait_until_empty(&self, deadline: Instant) -> usize {
        let mut state = self.state.lock();
        while !state.open.is_empty() && !self.empty.wait_until(&mut state, deadline).timed_out() {}
        let left: Vec<Arc<Queue>> = state.open.values().filter_map(Weak::upgrade).collect();
        let count = state.open.len();
        drop(state);
        for queue in left {
            queue.cut();
            queue.throw_away();
        }
        count
    }

    /// The subscribers with their properties, the oldest first.
    pub(crate) fn everybody(&self) -> Vec<(SubscriberId, Properties)> {
        let state = self.state.lock();
        state.subscribers.iter().map(|(id, subscriber)| (*id, subscriber.properties.clone())).collect()
    }

    /// What is known of one channel now.
    pub(crate) fn channel_stats(&self, channel: &str) -> ChannelStats {
        let state = self.state.lock();
        let members = state.channels.get(channel);
        let history_events = state.past.as_ref().map_or(0, |past| past.kept(channel));
        let queued = members.into_iter().flat_map(BTreeMap::values).map(|queue| queue.len()).sum();
        ChannelStats { subscribers: members.map_or(0, BTreeMap::len), queued, history_events }
    }

    /// One snapshot of the counters and of what is here now.
    pub(crate) fn stats(&self) -> Stats {
        let state = self.state.lock();
        let (events, bytes, channels) = state.past.as_ref().map(Past::size).unwrap_or_default();
        self.counters.snapshot(
            state.subscribers.len(),
            state.channels.len(),
            HistoryStats::new(events, bytes, channels),
        )
    }

    /// Takes the subscriber out, if it is still in, and lets the lock go. Its reader is the caller: it needs no wake-up.
    fn take_out(&self, id: SubscriberId, cause: EndCause, mut state: MutexGuard<'_, State>) {
        let mut afterwards = self.afterwards();
        if let Some(mut subscriber) = state.remove(id) {
            self.end(&mut subscriber, cause);
            subscriber.queue.cut();
            afterwards.left.push(subscriber);
        }
        drop(state);
        afterwards.finish();
    }

    /// Says why a subscriber ends that was just removed, under the same lock, so once for each.
    fn end(&self, subscriber: &mut Subscriber, cause: EndCause) {
        subscriber.held = self.hooks.as_ref().and_then(|hooks| hooks.hold());
        subscriber.queue.end(cause);
        self.counters.count_ended(cause);
        // Nobody waits for who has left.
        subscriber.wake_publishers();
    }

    fn check_names(&self, channels: &[Arc<str>]) -> Result<(), OpenError> {
        match channels.iter().find(|name| name.len() > self.limits.channel_name) {
            Some(name) => Err(OpenError::ChannelNameTooLong { length: name.len(), limit: self.limits.channel_name }),
            None => Ok(()),
        }
    }
}

/// Where in the history a subscription begins.
struct Start {
    /// It has asked for something.
    was_asked: bool,
    is_gap: bool,
    /// The replay begins behind this sequence.
    begins_behind: u64,
    /// What of the replay is taken already: up to this sequence.
    cursor: u64,
    /// The id that the client holds before its first event: nothing newer is missing from its replay.
    id: String,
}

impl Start {
    fn find(past: &Past<Item>, channels: &[Arc<str>], wish: &Wish) -> Self {
        let floors = || channels.iter().map(|channel| past.floor(channel));
        let (cursor, is_gap) = match wish {
            Wish::Nothing => (past.sequence(), false),
            Wish::Last(events) => past.before_last(channels, *events),
            Wish::After(id) => match past.sequence_of(id, channels) {
                Some(sequence) if floors().all(|floor| floor <= sequence) => (sequence, false),
                // The lowest floor: from there on, what is not replayed is known to be lost. A higher one would be
                // above events of another channel that are still there.
                sequence => (sequence.unwrap_or(0).max(floors().min().unwrap_or(0)), true),
            },
        };
        let id = match wish {
            Wish::After(id) if !is_gap => id.clone(),
            _ => past.id(cursor),
        };
        let was_asked = !matches!(wish, Wish::Nothing);
        Self { was_asked, is_gap, begins_behind: cursor, cursor, id }
    }
}

impl Owner for Registry {
    fn leave(&self, id: SubscriberId, cause: EndCause) {
        self.take_out(id, cause, self.state.lock());
    }

    fn newest_announced(&self, than: u64) -> Option<(u64, String)> {
        let newest = self.committed.load(SeqCst);
        let epoch = self.epoch.as_ref().filter(|_| self.announces_ids && newest > than)?;
        Some((newest, history::id(epoch, newest)))
    }

    fn dropped(&self, id: SubscriberId, key: Option<&str>) {
        let mut state = self.state.lock();
        state.open.remove(&id);
        if let Some(key) = key {
            let count = state.keys.get_mut(key).expect("BUG: a key that nobody counted");
            *count -= 1;
            if *count == 0 {
                state.keys.remove(key);
            }
        }
        if state.open.is_empty() {
            self.empty.notify_all();
        }
        self.take_out(id, EndCause::Dropped, state);
    }

    fn made_room(&self, id: SubscriberId) {
        let state = self.state.lock();
        if let Some(subscriber) = state.subscribers.get(&id) {
            subscriber.wake_publisher();
        }
    }

    fn end(&self, id: SubscriberId, cause: EndCause, at_once: bool) -> bool {
        let mut afterwards = self.afterwards();
        let mut state = self.state.lock();
        let Some(mut subscriber) = state.remove(id) else { return false };
        Registry::end(self, &mut subscriber, cause);
        if at_once {
            subscriber.queue.cut();
            afterwards.cut.push(Arc::clone(&subscriber.queue));
        } else {
            afterwards.wake.extend(subscriber.queue.push(Item::End));
        }
        afterwards.left.push(subscriber);
        drop(state);
        afterwards.finish();
        true
    }

    fn enter(&self, id: SubscriberId, channels: &[&str]) -> Result<usize, OpenError> {
        let mut state = self.state.lock();
        let Some(subscriber) = state.subscribers.get(&id) else { return Ok(0) };
        let own: HashSet<&str> = subscriber.channels.iter().map(|own| &**own).collect();
        let new: Vec<Arc<str>> =
            channels.iter().filter(|channel| !own.contains(**channel)).map(|&channel| channel.into()).collect();
        let all = subscriber.channels.len() + new.len();
        if all > self.limits.channels {
            return Err(OpenError::TooManyChannels { given: all, limit: self.limits.channels });
        }
        self.check_names(&new)?;
        state.has_place_in(&new, &self.limits)?;
        state.enter(id, &new);
        Ok(new.len())
    }

    fn exit(&self, id: SubscriberId, channels: &[&str]) -> usize {
        let mut afterwards = self.afterwards();
        let channels: HashSet<&str> = channels.iter().copied().collect();
        let left = self.leave_channels(&mut self.state.lock(), &channels, id, &mut afterwards);
        afterwards.finish();
        left
    }
}

impl State {
    fn has_place(&self, channels: &[Arc<str>], key: Option<&Arc<str>>, limits: &Limits) -> Result<(), OpenError> {
        if self.shuts_down {
            return Err(OpenError::ShuttingDown);
        }
        if self.open.len() >= limits.subscribers {
            return Err(OpenError::TooManySubscribers { limit: limits.subscribers });
        }
        if let Some(key) = key.filter(|key| self.keys.get(*key).is_some_and(|count| *count >= limits.of_key)) {
            return Err(OpenError::TooManyPerQuotaKey { key: key.to_string(), limit: limits.of_key });
        }
        self.has_place_in(channels, limits)
    }

    fn has_place_in(&self, channels: &[Arc<str>], limits: &Limits) -> Result<(), OpenError> {
        let is_full = |channel: &&Arc<str>| {
            self.channels.get(&***channel).is_some_and(|members| members.len() >= limits.of_channel)
        };
        match channels.iter().find(is_full) {
            Some(channel) => {
                Err(OpenError::TooManyInChannel { channel: channel.to_string(), limit: limits.of_channel })
            }
            None => Ok(()),
        }
    }

    fn add(
        &mut self,
        channels: &[Arc<str>],
        properties: &Properties,
        queue: &Arc<Queue>,
        key: Option<&Arc<str>>,
    ) -> SubscriberId {
        if let Some(key) = key {
            *self.keys.entry(Arc::clone(key)).or_default() += 1;
        }
        self.last_id += 1;
        let id = SubscriberId(self.last_id);
        self.open.insert(id, Arc::downgrade(queue));
        self.blocking += usize::from(queue.blocks().is_some());
        let (queue, properties) = (Arc::clone(queue), properties.clone());
        let subscriber =
            Subscriber { queue, properties, channels: Vec::new(), publishers: BTreeMap::new(), held: None };
        self.subscribers.insert(id, subscriber);
        self.enter(id, channels);
        id
    }

    fn enter(&mut self, id: SubscriberId, channels: &[Arc<str>]) {
        let subscriber = self.subscribers.get_mut(&id).expect("BUG: nobody enters");
        for channel in channels {
            let members = self.channels.entry(Arc::clone(channel)).or_default();
            members.insert(id, Arc::clone(&subscriber.queue));
        }
        subscriber.channels.extend_from_slice(channels);
    }

    fn remove(&mut self, id: SubscriberId) -> Option<Subscriber> {
        let subscriber = self.subscribers.remove(&id)?;
        self.blocking -= usize::from(subscriber.queue.blocks().is_some());
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
