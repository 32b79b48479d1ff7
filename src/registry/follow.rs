//! How the history follows another one, and what subscribers are sent then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::{Deferred, Registry, State};
use crate::event::{self, Event, Frame};
use crate::follow::{Begin, Line};
use crate::history::{EventLog, Ids, Place};
use crate::queue::{Full, Payload, Phase, SubscriberId};
use crate::stats::EndCause;
use crate::sync::atomic::Ordering::SeqCst;

/// How far the history follows another one.
pub(super) struct Following {
    /// The followed channels.
    channels: Vec<Arc<str>>,
    /// `true` until the history has what the followed one had at the beginning. No subscriber can join before.
    pub(super) is_starting: bool,
    /// The subscribers that have seen events elsewhere which this history has not received yet: those in
    /// [`Phase::Ahead`], and some that have left.
    ahead: BTreeMap<SubscriberId, Ahead>,
    /// The lowest sequence of them, or a lower one, so that an event which none of them waits for costs one comparison.
    nearest: u64,
}

/// How a connection to the followed history has begun.
pub(crate) struct Begun {
    /// `false` if the followed history is another one than before, or has lost events that this one has, so that this one
    /// is empty now.
    pub(crate) continues: bool,
    /// The history must be filled before subscribers can join.
    pub(crate) is_starting: bool,
}

/// Where a subscriber is that is further on than the history.
struct Ahead {
    /// The ID that its client holds: what it sent, or what it was sent with a gap.
    id: String,
    /// The sequence of that event.
    sequence: u64,
    since: Instant,
}

impl Following {
    /// Creates the state of a history that has received nothing from these channels.
    pub(super) fn new(channels: Vec<Arc<str>>) -> Self {
        Self { channels, is_starting: true, ahead: BTreeMap::new(), nearest: u64::MAX }
    }

    /// Notes that a subscriber begins after an event which the history has not received. Its client holds this ID.
    pub(super) fn add_ahead(&mut self, subscriber: SubscriberId, id: &str, sequence: u64) {
        self.ahead.insert(subscriber, Ahead { id: id.to_owned(), sequence, since: Instant::now() });
        self.nearest = self.nearest.min(sequence);
    }

    /// Returns the sequence of the event after which a subscriber begins that is ahead.
    pub(super) fn sequence_ahead(&self, subscriber: SubscriberId) -> Option<u64> {
        self.ahead.get(&subscriber).map(|ahead| ahead.sequence)
    }
}

impl Registry {
    /// Makes the history one that follows these channels of another one.
    pub(crate) fn follow(&self, channels: Vec<Arc<str>>) {
        let mut state = self.state.lock();
        state.following = Some(Following::new(channels));
        if let Some(log) = &mut state.log {
            log.follow();
        }
    }

    /// Returns the sequence of the newest event that is queued for all its subscribers; 0 if there is none.
    pub(crate) fn sequence(&self) -> u64 {
        self.committed.load(SeqCst)
    }

    /// Returns the ID of the event with this sequence; empty without a history.
    pub(crate) fn id(&self, sequence: u64) -> String {
        self.ids.as_ref().map(|ids| ids.read().id(sequence)).unwrap_or_default()
    }

    /// Takes over the state of the followed history, at the start of a connection to it.
    ///
    /// Subscribers that miss events are sent a gap. If the followed history is another one, or has lost its newest
    /// events, they are disconnected instead. When they resume, their IDs are not known, which is a gap.
    pub(crate) fn begin_following(&self, begin: &Begin) -> (Begun, Deferred) {
        let mut deferred = Deferred::default();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Some(log), Some(following)) = (&mut state.log, &mut state.following) else {
            panic!("BUG: a history follows another one unasked")
        };
        let continues = log.is_continued_by(begin);
        if !continues {
            self.restart(state, begin, &mut deferred);
        } else {
            let before = log.sequence();
            let lost = log.continue_with(begin, &following.channels, &mut deferred.payloads);
            let newest = log.sequence();
            self.set_names(&Arc::clone(log.ids()));
            self.tell_gap(state, &lost, before, &mut deferred);
            self.check_ahead(state, newest, None, &mut deferred);
        }
        self.commit_sequence(state);
        let is_starting = state.following.as_ref().is_some_and(|following| following.is_starting);
        drop(guard);
        (Begun { continues, is_starting }, deferred)
    }

    fn restart(&self, state: &mut State, begin: &Begin, deferred: &mut Deferred) {
        let (Some(log), Some(following)) = (&mut state.log, &mut state.following) else { return };
        following.is_starting = true;
        following.ahead.clear();
        following.nearest = u64::MAX;
        log.restart(begin, &following.channels, &mut deferred.payloads);
        let names = Arc::clone(log.ids());
        // No stream may read the new history from its place in the old one, and none may be sent an ID that joins a new
        // name and an old sequence: so they end before the names change.
        let members: Vec<SubscriberId> = state.members.keys().copied().collect();
        for id in members {
            let member = state.remove(id).expect("BUG: a subscriber left the registry while the lock was held");
            self.abort_member(member, EndCause::Disconnected, None, deferred);
        }
        state.replays.clear();
        self.set_names(&names);
    }

    fn set_names(&self, names: &Arc<Ids>) {
        if let Some(ids) = &self.ids {
            *ids.write() = Arc::clone(names);
        }
    }

    fn commit_sequence(&self, state: &State) {
        if let Some(log) = &state.log {
            self.committed.store(log.sequence(), SeqCst);
        }
    }

    /// Goes on to this sequence, up to which no further event comes. `is_filled` means that subscribers may join.
    pub(crate) fn advance(&self, sequence: u64, is_filled: bool) {
        let mut state = self.state.lock();
        let State { log: Some(log), following: Some(following), .. } = &mut *state else { return };
        log.advance(sequence);
        following.is_starting &= !is_filled;
        self.commit_sequence(&state);
    }

    /// Reports that the event with this sequence is missing in these channels.
    pub(crate) fn lose(&self, sequence: u64, channels: &[Arc<str>]) -> Deferred {
        let mut deferred = Deferred::default();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(log) = &mut state.log else { return deferred };
        let before = log.sequence();
        log.lose(sequence, channels, &mut deferred.payloads);
        let lost: Vec<_> = channels.iter().map(|channel| (Arc::clone(channel), sequence)).collect();
        self.tell_gap(state, &lost, before, &mut deferred);
        self.commit_sequence(state);
        drop(guard);
        deferred
    }

    /// Reports that events before this sequence are missing in all channels.
    ///
    /// What the history has stays, but a client that resumes from before is sent a gap.
    pub(crate) fn lose_all(&self, sequence: u64) -> Deferred {
        let mut deferred = Deferred::default();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Some(log), Some(following)) = (&mut state.log, &state.following) else { return deferred };
        let before = log.sequence();
        log.note_loss(sequence);
        log.advance(sequence);
        // A client that is cut off right after it has been sent everything up to here, or a gap.
        let (from, to) = (log.id(before), log.id(sequence));
        let frame = gap(log.gap(&from, &to), &to);
        for replay in state.replays.values_mut() {
            replay.note_loss();
        }
        let members = state.members.iter().map(|(id, member)| (*id, member.subscriber.phase()));
        let is_affected = |id, phase| match phase {
            Phase::Live => true,
            Phase::Replaying => false,
            Phase::Ahead => following.sequence_ahead(id).is_none_or(|ahead| ahead < sequence),
        };
        let affected: Vec<_> = members.filter(|(id, phase)| is_affected(*id, *phase)).map(|(id, _)| id).collect();
        for subscriber in affected {
            if let Some(member) = state.members.get(&subscriber) {
                member.subscriber.set_phase(Phase::Live);
            }
            self.queue_gap(state, subscriber, frame.clone(), &mut deferred);
        }
        self.commit_sequence(state);
        drop(guard);
        deferred
    }

    /// Takes the ID of a lost event that a client has sent.
    pub(crate) fn take_lost_id(&self) -> Option<String> {
        self.state.lock().log.as_mut().and_then(EventLog::take_lost_id)
    }

    /// Gives up waiting for the events that subscribers saw elsewhere, if they have waited since before this time: an
    /// ID may be forged. They are sent a gap.
    pub(crate) fn expire_ahead(&self, before: Instant) -> Deferred {
        let mut deferred = Deferred::default();
        let mut state = self.state.lock();
        let newest = state.log.as_ref().map_or(0, EventLog::sequence);
        self.check_ahead(&mut state, newest, Some(before), &mut deferred);
        drop(state);
        deferred
    }

    /// Sends a gap to the subscribers that miss events up to these floors. Those that replay find it by the floors.
    fn tell_gap(&self, state: &mut State, lost: &[(Arc<str>, u64)], before: u64, deferred: &mut Deferred) {
        let (Some(log), Some(following)) = (&state.log, &state.following) else { return };
        let newest_lost = lost.iter().map(|(_, floor)| *floor).max().unwrap_or(before);
        let (id, to) = (log.id(before), log.id(newest_lost));
        let mut affected = BTreeSet::new();
        for (channel, floor) in lost {
            let members = state.channels.get(channel).into_iter().flatten();
            let live = members.filter(|(id, subscriber)| match subscriber.phase() {
                Phase::Live => true,
                Phase::Replaying => false,
                Phase::Ahead => following.sequence_ahead(**id).is_none_or(|sequence| sequence < *floor),
            });
            affected.extend(live.map(|(id, _)| *id));
        }
        let frame = gap(log.gap(&id, &to), &id);
        for subscriber in affected {
            let (Some(log), Some(following)) = (&state.log, &state.following) else { return };
            // One that is ahead has seen more than the history.
            let frame = match following.ahead.get(&subscriber) {
                Some(ahead) if ahead.sequence > before => gap(log.gap(&ahead.id, &to), &ahead.id),
                _ => frame.clone(),
            };
            self.queue_gap(state, subscriber, frame, deferred);
        }
    }

    /// Makes the subscribers live whose last event the history reaches before it receives this sequence.
    pub(super) fn reach(&self, state: &mut State, sequence: u64, deferred: &mut Deferred) {
        let Some(newest) = sequence.checked_sub(1) else { return };
        if state.following.as_ref().is_some_and(|following| following.nearest <= newest) {
            self.check_ahead(state, newest, None, deferred);
        }
    }

    /// Looks at the subscribers that are ahead of the history, which has everything up to `newest`.
    ///
    /// A subscriber is sent a gap if its ID turns out to be of another event than the history's: of an era that has never
    /// begun, or of one that began while the history still received the end of the one before. It is sent a gap too if it
    /// has waited since before this time.
    fn check_ahead(&self, state: &mut State, newest: u64, before: Option<Instant>, deferred: &mut Deferred) {
        let (Some(log), Some(following)) = (&state.log, &mut state.following) else { return };
        let mut gaps = Vec::new();
        following.ahead.retain(|id, ahead| {
            // It may have left, or have been sent a gap.
            let member = state.members.get(id).map(|member| &member.subscriber);
            let Some(subscriber) = member.filter(|subscriber| subscriber.phase() == Phase::Ahead) else { return false };
            let place = log.ids().place(&ahead.id, newest);
            let is_known = matches!(place, Place::Exact(_) | Place::Ahead(_));
            let is_reached = ahead.sequence <= newest;
            if is_known && !is_reached && before.is_none_or(|before| ahead.since >= before) {
                return true;
            }
            if !(is_known && is_reached) {
                let to = log.id(newest);
                gaps.push((*id, gap(log.gap(&ahead.id, &to), &to)));
            }
            subscriber.set_phase(Phase::Live);
            false
        });
        following.nearest = following.ahead.values().map(|ahead| ahead.sequence).min().unwrap_or(u64::MAX);
        for (id, frame) in gaps {
            self.queue_gap(state, id, frame, deferred);
        }
    }

    /// Queues the frame of a gap, unless gaps are not reported. The subscriber is disconnected if its queue is full.
    fn queue_gap(&self, state: &mut State, id: SubscriberId, frame: Option<Frame>, deferred: &mut Deferred) {
        let Some(member) = state.members.get(&id) else { return };
        let Some(frame) = frame else { return };
        match member.subscriber.push(&Payload::Frame(frame), None, &mut deferred.payloads) {
            Ok(wake) => {
                self.counters.count_queued(1);
                deferred.wake.extend(wake);
            }
            Err(Full) => {
                let member = state.remove(id).expect("BUG: a subscriber left the registry while the lock was held");
                self.abort_member(member, EndCause::QueueFull, None, deferred);
            }
        }
    }

    /// Returns an event of the history as a follower of these channels is sent it.
    pub(crate) fn for_follower(&self, payload: &Payload, followed: &[Arc<str>]) -> ForFollower {
        let sequence = payload.sequence();
        let state = self.state.lock();
        let Some(log) = &state.log else { return ForFollower::Lost };
        let Some((channels, key)) = log.event(sequence, followed) else {
            // A newer event of its key may have replaced it.
            let is_lost = followed.iter().any(|channel| log.floor(channel) >= sequence);
            return if is_lost { ForFollower::Lost } else { ForFollower::Replaced };
        };
        let Payload::Frame(frame) = payload else {
            // A closure cannot travel.
            let line = Line::Hole { sequence, channels };
            return ForFollower::Frame(event::follow_alone(&line, Some(&log.id(sequence)), sequence));
        };
        let key = key.filter(|key| !key.contains(['\r', '\n', '\0']));
        drop(state);
        ForFollower::Frame(event::followed(&Line::Event { sequence, channels, key }, frame))
    }
}

/// An event as a follower is sent it.
pub(crate) enum ForFollower {
    Frame(Frame),
    /// A newer event of its key has replaced it.
    Replaced,
    /// It is evicted, so its channels are not known.
    Lost,
}

/// Returns the frame of a gap. A client that is cut off right after it resumes after this ID, and is sent the gap again if
/// there still is one.
fn gap(event: Option<Event>, id: &str) -> Option<Frame> {
    event.map(|event| event.with_id(id).encode())
}
