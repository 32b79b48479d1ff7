//! Publishers that wait for room: their order, and the subscribers that are disconnected after the timeout.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::membership::Membership;
use super::{Recipients, State};
use crate::queue::{Phase, SubscriberId, race_window};
use crate::sync::MonotonicClock;
use crate::sync::channel::{Receiver, Sender, bounded};

/// The ticket of a publisher that waits for room.
pub(crate) struct Ticket {
    number: u64,
    began: Instant,
    woken: Receiver<()>,
    wakes: Sender<()>,
    /// The subscribers that had no room at the last check, sorted.
    places: Vec<SubscriberId>,
    /// Those of them that had no room at any check.
    never_had_room: Vec<SubscriberId>,
    /// The end of the longest timeout of these subscribers.
    deadline: Instant,
}

impl Ticket {
    /// Creates the ticket of a publisher that begins to wait because these subscribers have no room.
    fn new(number: u64, began: Instant, without_room: &[SubscriberId]) -> Self {
        let (wakes, woken) = bounded(1);
        Self { number, began, woken, wakes, places: Vec::new(), never_had_room: without_room.to_vec(), deadline: began }
    }

    /// Waits until a subscriber may have room, or the deadline passes.
    pub(crate) fn wait(&self) {
        let _ = self.woken.recv_deadline(self.deadline);
    }
}

/// The decision whether an event may be queued now.
pub(super) enum Admit {
    /// The event may be queued. A subscriber without room is disconnected.
    Now,
    /// The event may be queued, beyond the limits of these subscribers if they have no room.
    Beyond(BTreeSet<SubscriberId>),
    /// The publisher must wait for room, and call `admit` again with this ticket.
    Wait(Ticket),
}

impl State {
    /// Decides whether an event of this size may be queued for these subscribers.
    ///
    /// Publishers that wait for the same subscriber are admitted in the order of their tickets. A publisher waits only
    /// for subscribers that have no room. So publishers to other subscribers continue, and the publisher with the
    /// lowest ticket waits for no other publisher.
    ///
    /// Meanwhile other publishers may use the room of subscribers that this one does not wait for. So a subscriber may
    /// have had room at one check, but not when all others had, or may have joined meanwhile. It is not disconnected
    /// after the timeout, but gets the event beyond its limits. That is at most one event per publisher since it had
    /// room.
    pub(super) fn admit(&mut self, recipients: Recipients<'_>, size: usize, ticket: Option<Ticket>) -> Admit {
        let now = MonotonicClock::now();
        let (number, began) = ticket.as_ref().map_or((u64::MAX, now), |ticket| (ticket.number, ticket.began));
        let (places, deadline) = self.find_without_room(recipients, size, number, began);
        if deadline <= now {
            // No subscriber is left to wait for.
            let Some(mut ticket) = ticket else { return Admit::Now };
            self.leave_places(&mut ticket, &[]);
            let beyond = places.into_iter().filter(|id| ticket.never_had_room.binary_search(id).is_err());
            return Admit::Beyond(beyond.collect());
        }
        let mut ticket = ticket.unwrap_or_else(|| {
            self.last_ticket += 1;
            Ticket::new(self.last_ticket, began, &places)
        });
        self.leave_places(&mut ticket, &places);
        ticket.never_had_room.retain(|id| places.binary_search(id).is_ok());
        ticket.deadline = deadline;
        race_window();
        self.take_places(&mut ticket, places, size);
        Admit::Wait(ticket)
    }

    /// Returns the blocking ones of these subscribers that have no room for the publisher with this number, sorted,
    /// and the end of the longest timeout among them.
    fn find_without_room(
        &self,
        recipients: Recipients<'_>,
        size: usize,
        number: u64,
        began: Instant,
    ) -> (Vec<SubscriberId>, Instant) {
        let (channels, one) = match recipients {
            Recipients::Channels(channels) => (channels, None),
            Recipients::Subscriber(id) => (&[][..], self.members.get(&id)),
        };
        let members = channels.iter().filter_map(|&channel| self.channels.get(channel)).flat_map(BTreeMap::values);
        let blocking: BTreeMap<SubscriberId, Duration> = members
            .chain(one.map(|member| &member.subscriber))
            .filter(|subscriber| subscriber.phase() != Phase::Replaying)
            .filter_map(|subscriber| Some((subscriber.id(), subscriber.block_timeout()?)))
            .collect();
        let mut without_room = Vec::new();
        let mut deadline = began;
        for (id, timeout) in blocking {
            let Membership { subscriber, waiting_publishers, .. } = &self.members[&id];
            let comes_first = waiting_publishers.keys().next().is_none_or(|first| *first >= number);
            if comes_first && subscriber.has_room(size) {
                continue;
            }
            without_room.push(id);
            // A timeout beyond the range of the clock counts as a year.
            let until = began.checked_add(timeout).unwrap_or(began + Duration::from_secs(365 * 86_400));
            deadline = deadline.max(until);
        }
        (without_room, deadline)
    }

    /// Removes the ticket from the waiting publishers of all subscribers but these, and wakes the next publisher of
    /// each.
    fn leave_places(&mut self, ticket: &mut Ticket, but: &[SubscriberId]) {
        for id in ticket.places.drain(..).filter(|id| but.binary_search(id).is_err()) {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.waiting_publishers.remove(&ticket.number);
            if member.waiting_publishers.is_empty() {
                member.subscriber.stop_awaiting_room();
            }
            member.wake_first_publisher();
        }
    }

    /// Adds the ticket to the waiting publishers of these subscribers. If one of them has room by now, wakes it at
    /// once.
    fn take_places(&mut self, ticket: &mut Ticket, places: Vec<SubscriberId>, size: usize) {
        let mut has_come = false;
        for id in &places {
            let member = self.members.get_mut(id).expect("BUG: a subscriber without room is not registered");
            member.waiting_publishers.insert(ticket.number, ticket.wakes.clone());
            let first = member.waiting_publishers.first_key_value();
            let comes_first = first.is_some_and(|(first, _)| *first == ticket.number);
            has_come |= member.subscriber.await_room(size) && comes_first;
        }
        if has_come {
            // The thread that made the room did not see this ticket. Even if other subscribers have no room, the ticket
            // must leave this subscriber, or the publishers behind it would wait for the others too.
            let _ = ticket.wakes.try_send(());
        }
        ticket.places = places;
    }
}
