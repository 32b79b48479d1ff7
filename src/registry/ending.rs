//! How subscribers end: one, all, or when their subscription is dropped.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::{Deferred, Registry, State};
use crate::event::{Event, Frame};
use crate::queue::{Payload, Subscriber, SubscriberId};
use crate::spread;
use crate::stats::EndCause;

/// The shortest time after which the client of a replaced subscriber reconnects; the longest is twice that.
const EARLIEST_RETURN: Duration = Duration::from_secs(60);

impl Registry {
    /// Ends the subscriber, after its queued events or at once. Returns `false` if it had left before.
    pub(crate) fn end(&self, id: SubscriberId, cause: EndCause, at_once: bool) -> bool {
        let deferred = self.end_deferred(id, cause, at_once);
        let ended = deferred.is_some();
        if let Some(deferred) = deferred {
            deferred.finish();
        }
        ended
    }

    /// Ends the subscriber as [`end`](Self::end) does. Returns what is left to do, or `None` if it had left before.
    pub(crate) fn end_deferred(&self, id: SubscriberId, cause: EndCause, at_once: bool) -> Option<Deferred> {
        let mut deferred = Deferred::default();
        let mut state = self.state.lock();
        let member = state.remove(id)?;
        if at_once {
            self.abort_member(member, cause, None, &mut deferred);
        } else {
            self.close_member(member, cause, &mut deferred);
        }
        Some(deferred)
    }

    /// Disconnects the subscribers of this quota key, or with `None` all that have one.
    pub(crate) fn disconnect_key(&self, key: Option<&str>) -> Deferred {
        let mut deferred = Deferred::default();
        let mut state = self.state.lock();
        for id in state.quota.registered(key) {
            let member = state.remove(id).expect("BUG: a quota key counts a subscriber that is not registered");
            self.abort_member(member, EndCause::Disconnected, None, &mut deferred);
        }
        deferred
    }

    /// Ends every subscriber after its queued events.
    pub(crate) fn close(&self) -> Deferred {
        self.end_all(&mut self.state.lock(), |_| Vec::new())
    }

    /// Ends every subscriber after its queued events and these last frames, and refuses later subscribers.
    pub(crate) fn shut_down(&self, last: impl FnMut(SubscriberId) -> Vec<Frame>) -> Deferred {
        let mut state = self.state.lock();
        state.shuts_down = true;
        self.end_all(&mut state, last)
    }

    /// Disconnects the oldest subscriber of a quota key, which a newer one replaces. Its client must not replace the
    /// newer one at once.
    pub(super) fn replace(&self, state: &mut State, oldest: SubscriberId, deferred: &mut Deferred) {
        let member = state.remove(oldest).expect("BUG: a quota key counts a subscriber that is not registered");
        let retry = EARLIEST_RETURN + EARLIEST_RETURN.mul_f64(spread::random_share());
        self.counters.count_queued(1);
        self.abort_member(member, EndCause::Replaced, Some(Event::retry_alone(retry).encode()), deferred);
    }

    fn end_all(&self, state: &mut State, mut last: impl FnMut(SubscriberId) -> Vec<Frame>) -> Deferred {
        let mut deferred = Deferred::default();
        state.channels.clear();
        state.end_replays();
        state.quota.leave_all();
        state.blocking = 0;
        for (id, member) in std::mem::take(&mut state.members) {
            let last = last(id);
            self.counters.count_queued(last.len());
            for frame in last {
                deferred.wake.extend(member.subscriber.push_beyond_limits(Payload::Frame(frame)));
            }
            self.close_member(member, EndCause::Closed, &mut deferred);
        }
        deferred
    }

    /// Waits until every subscription is dropped or `deadline` passes, then disconnects the rest. Returns how many were
    /// disconnected.
    ///
    /// The rest includes subscriptions that ended before, but are not delivered yet.
    pub(crate) fn wait_until_empty(&self, deadline: Instant) -> usize {
        let mut state = self.state.lock();
        while !state.alive.is_empty() && !self.empty.wait_until(&mut state, deadline).timed_out() {}
        let remaining: Vec<Arc<Subscriber>> = state.alive.values().filter_map(Weak::upgrade).collect();
        let count = state.alive.len();
        drop(state);
        let mut deferred = Deferred::default();
        for subscriber in remaining {
            let (mut payloads, wake) = subscriber.abort(EndCause::Closed, None);
            deferred.payloads.append(&mut payloads);
            deferred.wake.extend(wake);
            deferred.aborted.push(subscriber);
        }
        deferred.finish();
        count
    }

    /// Removes a subscriber whose subscription is dropped. This frees its place and its quota. Must be called once per
    /// subscriber.
    pub(crate) fn remove_dropped(&self, subscriber: &Subscriber) {
        let id = subscriber.id();
        let mut deferred = Deferred::default();
        let mut state = self.state.lock();
        let member = state.remove(id);
        state.alive.remove(&id);
        if let Some(key) = subscriber.quota_key() {
            state.quota.remove(key);
        }
        if state.alive.is_empty() {
            self.empty.notify_all();
        }
        if let Some(member) = member {
            self.abort_member(member, EndCause::Dropped, None, &mut deferred);
        }
        state.replays.remove(&id);
        drop(state);
        deferred.finish();
    }
}
