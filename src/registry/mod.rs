//! The subscribers of each channel, behind one ordering lock.

// Invariants. The rest of the crate relies on them, so breaking one is a change of design.
//
//  1. An event is checked and encoded before the lock is taken. Only its `id:` line is added under the lock, into room
//     that was left for it. Its frame is shared: no thread encodes or copies it per subscriber. The exception is
//     `Iterator::next`, whose item is a `String`. Without a history and without a subscriber, an event is not encoded
//     at all: `count_unreached` checks that first, in a critical section of its own. A subscriber that joins between
//     the two joined before the event; one that leaves was not reached.
//  2. Assigning the sequence, appending to the log and queueing for every subscriber are one critical section. So all
//     subscribers of a channel see one order, which is the history's.
//  3. Taking the last slice of a replay and going live are one critical section. So there is neither a gap nor a
//     duplicate between the replay and the live events. The reader takes a replay slice by slice, so a slow reader
//     needs no more memory than the history. For a subscriber that replays, only what is sent to it alone waits, within
//     its queue's limits, and no publisher waits for it.
//  4. A thread that holds the lock waits for nothing: no client, no socket, no full queue.
//  5. No application code runs under the lock, except the history's clock: no filter, no closure, no iterator of
//     channel names, and no `Clone` or `Drop` of properties, closures or dropped payloads. Methods return what must be
//     dropped, woken and called as `Deferred`, which the caller finishes without the lock. A frame is text, so it may
//     be dropped anywhere. `tests/it/reentrancy.rs` calls back from each of those places.
//  6. A `publish_with` closure is queued and kept unrendered. It runs on the thread that takes it out of the queue or
//     the replay. If it panics for a subscriber, that subscriber is sent a `gap` event instead, and the panic is
//     counted.
//  7. A stream ends in one of two ways: after its queued events (close, unsubscribe, lifetime, shutdown), or at once
//     (disconnect, queue full, replaced). Its end wakes a waiting reader or a stream in the background, as an event does. A
//     subscriber leaves the registry before its stream ends.
//  8. Memory is bounded by default: each queue by events and bytes, the history, the number of subscriptions, the
//     length of a channel's name and the number of channels per subscription. A channel without subscribers and without
//     history leaves nothing behind: the maps are B-trees, which release memory as they shrink.
//  9. A subscriber that loses an event is sent a gap (6, and `DropOldest`), or is disconnected (7) and resumes. With
//     `LatestPerKey`, a replaced event is not a loss.
//
// Lock order: a stream's state, the ordering lock, a queue.

mod backpressure;
mod deferred;
mod ending;
mod fanout;
// Only a client follows.
#[cfg_attr(not(feature = "client"), allow(dead_code))]
mod follow;
mod membership;
mod new_event;
mod position;
mod quota;
mod replay;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Display;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::event::FrameId;
use crate::history::{EventLog, Ids, NewEntry};
use crate::log::{RateLimitedLog, Subject};
use crate::queue::{Payload, QueueKey, Subscriber, SubscriberId};
use crate::stats::{ChannelStats, Counters, EndCause, HistoryStats, Stats};
use crate::store::Trim;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use crate::sync::{Condvar, Mutex, RwLock};

use backpressure::Admit;
pub(crate) use backpressure::Ticket;
pub(crate) use deferred::{Deferred, Hooks, OnLeave};
use fanout::Fanout;
use follow::Following;
pub(crate) use follow::{Begun, ForFollower};
use membership::Membership;
pub(crate) use new_event::NewEvent;
use quota::Quota;
pub use quota::QuotaPolicy;
use replay::Replay;
pub(crate) use replay::{Opening, ReplayFrom, Slice};

/// The subscribers of each channel, and the history.
pub(crate) struct Registry {
    state: Mutex<State>,
    limits: Limits,
    counters: Arc<Counters>,
    last_id: AtomicU64,
    /// The sequence of the newest event that is queued for all its subscribers.
    committed: AtomicU64,
    /// The names in its IDs, if there is a history. They change only if it follows another one.
    ids: Option<RwLock<Arc<Ids>>>,
    announces_ids: bool,
    hooks: Option<Arc<dyn Hooks>>,
    warnings: Arc<RateLimitedLog>,
    /// Notified when the last subscription is dropped.
    empty: Condvar,
}

/// The limits of one publisher.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) subscribers: usize,
    pub(crate) channels: usize,
    pub(crate) channel_name_len: usize,
    pub(crate) per_channel: usize,
    pub(crate) per_quota_key: usize,
    pub(crate) quota_policy: QuotaPolicy,
}

/// The state that the ordering lock guards.
#[derive(Default)]
struct State {
    members: BTreeMap<SubscriberId, Membership>,
    /// The channels with subscribers. The records are here too, so that publishing reads one map.
    channels: BTreeMap<Arc<str>, BTreeMap<SubscriberId, Arc<Subscriber>>>,
    /// Replays that are under way, including those of subscribers that have left and still get the rest.
    replays: BTreeMap<SubscriberId, Replay>,
    /// All subscriptions that are not dropped, including those that have ended. They count because their connections
    /// may still be open, and connections are what a machine runs out of.
    alive: BTreeMap<SubscriberId, Weak<Subscriber>>,
    quota: Quota,
    log: Option<EventLog<Payload>>,
    /// The number of subscribers for which publishers may wait.
    blocking: usize,
    last_ticket: u64,
    /// `true` if later subscriptions are refused.
    shuts_down: bool,
    /// How far the history follows another one, if it does.
    following: Option<Following>,
}

/// The subscribers that an event is for.
#[derive(Clone, Copy)]
pub(crate) enum Recipients<'a> {
    /// Those of these channels, which must be distinct. A subscriber of several channels gets the event once.
    Channels(&'a [&'a str]),
    /// This one alone. The history does not keep the event.
    Subscriber(SubscriberId),
}

/// The result of publishing an event.
pub(crate) struct Published {
    pub(crate) subscribers: usize,
    pub(crate) id: Option<String>,
    /// The event's frame, if it is large.
    pub(crate) newest_large: Option<FrameId>,
    /// Slow streams may keep more memory than before.
    pub(crate) may_retain: bool,
}

impl Registry {
    pub(crate) fn new(
        limits: Limits,
        log: Option<EventLog<Payload>>,
        counters: Arc<Counters>,
        hooks: Option<Arc<dyn Hooks>>,
        warnings: Arc<RateLimitedLog>,
    ) -> Self {
        let ids = log.as_ref().map(|log| RwLock::new(Arc::clone(log.ids())));
        let sequence = log.as_ref().map_or(0, EventLog::sequence);
        let announces_ids = log.as_ref().is_some_and(EventLog::announces_ids);
        let state = Mutex::new(State { log, ..State::default() });
        let (last_id, committed, empty) = (AtomicU64::new(0), AtomicU64::new(sequence), Condvar::new());
        Self { state, limits, counters, last_id, committed, ids, announces_ids, hooks, warnings, empty }
    }

    /// Returns an ID that no other subscriber has.
    pub(crate) fn next_subscriber_id(&self) -> SubscriberId {
        SubscriberId(self.last_id.fetch_add(1, Relaxed) + 1)
    }

    /// Calls the hook of a subscriber that has joined. If the subscriber has left meanwhile, it also calls the hook of
    /// its end.
    pub(crate) fn call_opened(&self, subscriber: &Subscriber, channels: &[Arc<str>]) {
        let Some(hooks) = &self.hooks else { return };
        hooks.opened(subscriber.properties(), channels);
        if let Some(channels) = subscriber.mark_opened() {
            let cause = subscriber.end_cause().expect("BUG: a subscriber left without a cause");
            hooks.ended(subscriber.properties(), channels, cause);
        }
    }

    /// Counts and logs that a field of an event was not sent.
    pub(crate) fn count_unusable_field(&self) {
        self.counters.count_unusable_field();
    }

    pub(crate) fn has_history(&self) -> bool {
        self.ids.is_some()
    }

    /// Counts and logs a refused subscription.
    pub(crate) fn count_refused(&self, reason: &dyn Display, subject: Subject<'_>) {
        self.counters.count_refused();
        self.warnings.refused(reason, subject);
    }

    /// Counts and logs a subscription that was refused because its stream cannot begin.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn count_cannot_begin(&self, subject: Subject<'_>) {
        self.count_refused(&"half of the writer threads are blocked in first writes", subject);
    }

    /// Returns the ID of the newest event, if there is a history. Does not take the ordering lock.
    pub(crate) fn newest_id(&self) -> Option<String> {
        let ids = self.ids.as_ref()?;
        let newest = self.committed.load(SeqCst);
        Some(ids.read().id(newest))
    }

    /// Returns the sequence and the ID of the newest event, if it is newer than `than` and IDs are announced. Does not
    /// take the ordering lock.
    ///
    /// If a live subscriber sees its queue empty after this call, it has been sent every event up to the returned one.
    pub(crate) fn newest_announced(&self, than: u64) -> Option<(u64, String)> {
        if self.announces_ids { self.newest_after(than) } else { None }
    }

    /// Returns the sequence and the ID of the newest event as [`newest_announced`](Self::newest_announced) does, even if
    /// IDs are not announced.
    pub(crate) fn newest_after(&self, than: u64) -> Option<(u64, String)> {
        // First the sequence: the names are set before the sequences of a new era.
        let newest = self.committed.load(SeqCst);
        let ids = self.ids.as_ref().filter(|_| newest > than)?;
        Some((newest, ids.read().id(newest)))
    }

    /// Counts an event as published if these channels have no subscriber. Returns `true` if so; the event then needs no
    /// encoding.
    pub(crate) fn count_unreached(&self, channels: &[&str]) -> bool {
        let state = self.state.lock();
        let is_unreached = !channels.iter().any(|&channel| state.channels.contains_key(channel));
        if is_unreached {
            self.counters.count_published(0, 0);
        }
        is_unreached
    }

    /// Returns how many subscribers these channels have, and the time of the history's clock.
    pub(crate) fn count_subscribers(&self, channels: &[&str]) -> (usize, Option<Duration>) {
        let state = self.state.lock();
        let subscribers = match channels {
            [channel] => state.channels.get(*channel).map_or(0, BTreeMap::len),
            _ => {
                let members = channels.iter().filter_map(|&channel| state.channels.get(channel));
                members.flat_map(BTreeMap::keys).collect::<HashSet<_>>().len()
            }
        };
        (subscribers, state.log.as_ref().map(EventLog::now))
    }

    /// Returns the time of the history's clock; `None` without a history.
    pub(crate) fn history_time(&self) -> Option<Duration> {
        self.state.lock().log.as_ref().map(EventLog::now)
    }

    /// Takes what the history has evicted, for its store to delete.
    pub(crate) fn take_trim(&self) -> Trim {
        self.state.lock().log.as_mut().map(EventLog::take_trim).unwrap_or_default()
    }

    /// Assigns the event its ID, keeps it, and queues it for these subscribers. A subscriber whose queue is full is
    /// disconnected.
    ///
    /// If the publisher must wait for room, nothing happens. The event is returned with a ticket for the next attempt.
    pub(crate) fn publish(
        &self,
        recipients: Recipients<'_>,
        new_event: NewEvent,
        ticket: Option<Ticket>,
    ) -> Result<(Published, Deferred), Box<(NewEvent, Ticket)>> {
        let mut deferred = Deferred::default();
        let mut state = self.state.lock();
        let admit = if state.blocking > 0 || ticket.is_some() {
            let is_kept = matches!(recipients, Recipients::Channels(_));
            let size = new_event.payload.size() + if is_kept { state.id_line_len(&new_event) } else { 0 };
            state.admit(recipients, size, ticket)
        } else {
            Admit::Now
        };
        let beyond = match admit {
            Admit::Now => BTreeSet::new(),
            Admit::Beyond(subscribers) => subscribers,
            Admit::Wait(ticket) => return Err(Box::new((new_event, ticket))),
        };
        if let Some(sequence) = new_event.sequence {
            self.reach(&mut state, sequence, &mut deferred);
        }
        let key = new_event.key.clone();
        let (payload, id) = match recipients {
            Recipients::Channels(channels) => state.seal_and_keep(channels, new_event, &mut deferred.payloads),
            Recipients::Subscriber(_) => (new_event.payload, None),
        };
        let newest_large = payload.large_frame();
        // Slow streams alone keep more than before only after such a frame was published or evicted.
        let may_retain =
            newest_large.is_some() || deferred.payloads.iter().any(|payload| payload.large_frame().is_some());
        let subscribers = self.queue_for_all(&mut state, recipients, &payload, key, &beyond, &mut deferred);
        if let Some(log) = &state.log {
            self.committed.store(log.sequence(), SeqCst);
        }
        drop(state);
        // Without the lock, since it may be the last reference. This thread may be one that runs no application code.
        deferred.payloads.extend(payload.release());
        Ok((Published { subscribers, id, newest_large, may_retain }, deferred))
    }

    /// Removes the frames that the history holds.
    pub(crate) fn remove_kept(&self, frames: &mut Vec<FrameId>) {
        let state = self.state.lock();
        if let Some(log) = &state.log {
            frames.retain(|frame| frame.sequence == 0 || !log.contains(frame.sequence));
        }
    }

    /// Queues the payload for these subscribers. Returns how many of them get it.
    fn queue_for_all(
        &self,
        state: &mut State,
        recipients: Recipients<'_>,
        payload: &Payload,
        key: Option<Arc<str>>,
        beyond: &BTreeSet<SubscriberId>,
        deferred: &mut Deferred,
    ) -> usize {
        let dropped_before = deferred.payloads.len();
        let key = key.map(|key| QueueKey { channel: None, key });
        let mut fanout = Fanout { payload, key, beyond, queued: 0, replaying: 0, full: Vec::new(), deferred };
        match recipients {
            Recipients::Channels(channels) => {
                let mut reached = HashSet::new();
                for &channel in channels {
                    let Some((name, members)) = state.channels.get_key_value(channel) else { continue };
                    if let Some(key) = &mut fanout.key {
                        key.channel = Some(Arc::clone(name));
                    }
                    fanout.deferred.wake.reserve(members.len());
                    for (&id, subscriber) in members {
                        if channels.len() == 1 || reached.insert(id) {
                            fanout.queue(id, subscriber);
                        }
                    }
                }
            }
            Recipients::Subscriber(id) => match (state.members.get(&id), state.replays.get_mut(&id)) {
                (Some(_), Some(replay)) => {
                    let sequence = state.log.as_ref().map_or(0, EventLog::sequence);
                    fanout.send_behind(id, replay, sequence);
                }
                (Some(member), None) => fanout.queue(id, &member.subscriber),
                (None, _) => {}
            },
        }
        let Fanout { queued, replaying, full, .. } = fanout;
        self.counters.count_published(queued, deferred.payloads.len() - dropped_before);
        for id in full {
            let member = state.remove(id).expect("BUG: a channel names a subscriber that is not registered");
            self.abort_member(member, EndCause::QueueFull, None, deferred);
        }
        queued + replaying
    }

    /// Wakes the publisher that waits for the room which the subscriber has made.
    pub(crate) fn made_room(&self, id: SubscriberId) {
        if let Some(member) = self.state.lock().members.get(&id) {
            member.wake_first_publisher();
        }
    }

    /// Returns the current numbers of one channel.
    pub(crate) fn channel_stats(&self, channel: &str) -> ChannelStats {
        let state = self.state.lock();
        let members = state.channels.get(channel);
        let history_events = state.log.as_ref().map_or(0, |log| log.channel_events(channel));
        let queued = members.into_iter().flat_map(BTreeMap::values).map(|subscriber| subscriber.queued()).sum();
        ChannelStats { subscribers: members.map_or(0, BTreeMap::len), queued, history_events }
    }

    /// Returns the counters and the current numbers. Those that change under the ordering lock are of one moment.
    pub(crate) fn stats(&self) -> Stats {
        let state = self.state.lock();
        let (events, bytes, channels) = state.log.as_ref().map(EventLog::size).unwrap_or_default();
        self.counters.snapshot(state.members.len(), state.channels.len(), HistoryStats::new(events, bytes, channels))
    }
}

impl State {
    /// If the history keeps the event, gives it its ID and its place there, and appends it. Moves what the history evicts
    /// into `evicted`. Returns the payload to queue, and the event's ID.
    fn seal_and_keep(
        &mut self,
        channels: &[&str],
        new_event: NewEvent,
        evicted: &mut Vec<Payload>,
    ) -> (Payload, Option<String>) {
        let NewEvent { mut payload, own_id, key, is_comment, at, sequence: in_followed } = new_event;
        let Some(log) = self.log.as_mut().filter(|_| !is_comment) else { return (payload, None) };
        let sequence = in_followed.unwrap_or(log.sequence() + 1);
        let generated = log.id(sequence);
        payload.seal(Some(own_id.as_deref().unwrap_or(&generated)), sequence);
        let id = own_id.as_deref().map_or(generated, str::to_owned);
        let entry = NewEntry { payload: payload.clone(), size: payload.size(), own_id, key, at, sequence: in_followed };
        log.append(channels, entry, evicted);
        (payload, Some(id))
    }

    /// Returns how many bytes the history adds to an event: the lines with its ID and its end.
    fn id_line_len(&self, new_event: &NewEvent) -> usize {
        let Some(log) = self.log.as_ref().filter(|_| !new_event.is_comment) else { return 0 };
        let id_len = new_event.own_id.as_ref().map_or_else(|| log.id(log.sequence() + 1).len(), |id| id.len());
        "id: \n\n".len() + id_len
    }
}
