//! One event on its way to the queues of its subscribers.

use std::collections::BTreeSet;

use super::{Deferred, Replay};
use crate::queue::{Full, Payload, Phase, QueueKey, Subscriber, SubscriberId};

/// One event on its way to the queues of its subscribers.
pub(super) struct Fanout<'a> {
    pub(super) payload: &'a Payload,
    pub(super) key: Option<QueueKey>,
    /// The subscribers that get the event regardless of their limits.
    pub(super) beyond: &'a BTreeSet<SubscriberId>,
    pub(super) queued: usize,
    pub(super) replaying: usize,
    /// The subscribers that have no room, and are to be disconnected.
    pub(super) full: Vec<SubscriberId>,
    pub(super) deferred: &'a mut Deferred,
}

impl Fanout<'_> {
    #[inline]
    pub(super) fn queue(&mut self, id: SubscriberId, subscriber: &Subscriber) {
        let is_for_it = match subscriber.phase() {
            Phase::Live => true,
            Phase::Replaying => false,
            // It has seen the event elsewhere, but no comment.
            Phase::Ahead => self.payload.sequence() == 0,
        };
        if !is_for_it {
            // A comment is not in the history, so a replay does not deliver it.
            self.replaying += usize::from(self.payload.sequence() > 0);
            return;
        }
        match subscriber.push(self.payload, self.key.as_ref(), &mut self.deferred.payloads) {
            Ok(wake) => self.deferred.wake.extend(wake),
            Err(Full) if self.beyond.contains(&id) => {
                self.deferred.wake.extend(subscriber.push_beyond_limits(self.payload.clone()));
            }
            Err(Full) => return self.full.push(id),
        }
        self.queued += 1;
    }

    /// Puts the event behind the events of a replay that are published so far.
    pub(super) fn send_behind(&mut self, id: SubscriberId, replay: &mut Replay, sequence: u64) {
        match replay.send(self.payload, sequence) {
            Ok(()) => self.queued += 1,
            Err(Full) => self.full.push(id),
        }
    }
}
