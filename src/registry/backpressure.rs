//! Publishers that wait for room: whose turn it is, and who is disconnected when the time is over.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::State;
use super::membership::Membership;
use crate::queue::{SubscriberId, race_window};

/// The place of a publisher that waits for room.
pub(crate) struct Ticket {
    number: u64,
    began: Instant,
    woken: Receiver<()>,
    wakes: Sender<()>,
    /// The subscribers that had no room when it looked last, in their order.
    places: Vec<SubscriberId>,
    /// Those of them that had none whenever it looked.
    never_had_room: Vec<SubscriberId>,
    /// When it has waited long enough for the last of them.
    deadline: Instant,
}

impl Ticket {
    /// Waits until it may be worth a look.
    pub(crate) fn wait(&self) {
        let _ = self.woken.recv_deadline(self.deadline);
    }
}

impl State {
    /// The ticket of a publisher that must wait until those of its subscribers have room that block; `None` when it need
    /// not, or not any more: those that still have no room then have had their time.
    ///
    /// Publishers that wait for the same subscriber come in the order of their tickets. One waits only where there is no
    /// room, not also where there is: so who publishes to others goes on, and the lowest ticket waits for nobody.
    ///
    /// For that, others may take the room where it does not wait, again and again. So a subscriber that had room when the
    /// publisher looked, but not when all others had, or that joined meanwhile, is not to blame: it gets the event `beyond`
    /// its bounds when the time is over. That is one event for each publisher since it had room, and no more.
    pub(super) fn waits_for_room(
        &mut self,
        channels: &[&str],
        size: usize,
        ticket: Option<Ticket>,
        beyond: &mut BTreeSet<SubscriberId>,
    ) -> Option<Ticket> {
        let members = channels.iter().filter_map(|&channel| self.channels.get(channel)).flatten();
        let blocking: BTreeSet<SubscriberId> = members
            .filter(|(_, member)| member.block_timeout().is_some() && !member.is_replaying())
            .map(|(id, _)| *id)
            .collect();
        let now = Instant::now();
        let (number, began) = ticket.as_ref().map_or((u64::MAX, now), |ticket| (ticket.number, ticket.began));

        let mut places = Vec::new();
        let mut deadline = now;
        for id in blocking {
            let Membership { subscriber, waiting_publishers, .. } = &self.members[&id];
            let comes_first = waiting_publishers.keys().next().is_none_or(|first| *first >= number);
            if comes_first && subscriber.has_room(size) {
                continue;
            }
            places.push(id);
            let patience = subscriber.block_timeout().expect("BUG: a subscriber that is waited for does not block");
            // A time so long that no clock shows its end is a year.
            let until = began.checked_add(patience).unwrap_or(began + Duration::from_secs(365 * 86_400));
            deadline = deadline.max(until);
        }
        if deadline == now {
            // Nobody is left to wait for.
            let never_had_room = ticket.as_ref().map_or(&[][..], |ticket| &ticket.never_had_room);
            beyond.extend(places.drain(..).filter(|id| ticket.is_some() && never_had_room.binary_search(id).is_err()));
        }
        if ticket.is_none() && places.is_empty() {
            return None;
        }

        let mut ticket = ticket.unwrap_or_else(|| {
            self.last_ticket += 1;
            let (wakes, woken) = bounded(1);
            Ticket {
                number: self.last_ticket,
                began,
                woken,
                wakes,
                places: Vec::new(),
                never_had_room: places.clone(),
                deadline,
            }
        });
        for id in ticket.places.drain(..).filter(|id| places.binary_search(id).is_err()) {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.waiting_publishers.remove(&ticket.number);
            if member.waiting_publishers.is_empty() {
                member.subscriber.stop_awaiting_room();
            }
            member.wake_first_publisher();
        }
        ticket.never_had_room.retain(|id| places.binary_search(id).is_ok());
        ticket.deadline = deadline;
        if places.is_empty() {
            return None;
        }
        race_window();
        let mut has_come = false;
        for &id in &places {
            let member = self.members.get_mut(&id).expect("BUG: a subscriber without room is not registered");
            member.waiting_publishers.insert(ticket.number, ticket.wakes.clone());
            let first = member.waiting_publishers.first_key_value();
            let comes_first = first.is_some_and(|(first, _)| *first == ticket.number);
            has_come |= member.subscriber.await_room(size) && comes_first;
        }
        if has_come {
            // There is room meanwhile, and who made it did not know that it is awaited. Also where others have none: this
            // place is to be given up, or whoever stands behind it would wait for those too.
            let _ = ticket.wakes.try_send(());
        }
        ticket.places = places;
        Some(ticket)
    }
}
