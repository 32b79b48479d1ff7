//! The position in the history at which a subscription begins.

use std::sync::Arc;

use super::{Deferred, Registry, ReplayFrom};
use crate::history::{EventLog, Place};
use crate::queue::Payload;

impl Registry {
    /// Returns the sequence after which the replay begins, and whether newer events that were asked for are evicted.
    pub(super) fn find_start(
        &self,
        log: &mut EventLog<Payload>,
        channels: &[Arc<str>],
        replay_from: &ReplayFrom,
        deferred: &mut Deferred,
    ) -> (u64, bool) {
        let place = match replay_from {
            ReplayFrom::Id(id) | ReplayFrom::Follow(Some(id)) => self.place(log, id, channels, deferred),
            ReplayFrom::Now | ReplayFrom::Last(_) | ReplayFrom::Follow(None) => Place::Unknown,
        };
        let floors = || channels.iter().map(|channel| log.floor(channel));
        match replay_from {
            // The state of each channel: events of keys above its floor.
            ReplayFrom::Now if log.keeps_latest() => (floors().min().unwrap_or(log.sequence()), false),
            ReplayFrom::Now => (log.sequence(), false),
            ReplayFrom::Last(events) => log.before_last(channels, *events),
            ReplayFrom::Follow(None) => log.before_last(channels, usize::MAX),
            ReplayFrom::Id(_) | ReplayFrom::Follow(Some(_)) => match place {
                Place::Exact(sequence) | Place::Ahead(sequence)
                    if floors().all(|floor| floor <= sequence) && !log.has_lost_after(sequence) =>
                {
                    (sequence, false)
                }
                place => {
                    let seen = match place {
                        Place::Exact(sequence) | Place::Ahead(sequence) | Place::Lost(sequence) => sequence,
                        Place::Unknown => 0,
                    };
                    // The replay begins at the lowest floor: below it every requested event is known to be evicted.
                    // Beginning higher would skip events of another channel that are still held.
                    // Without channels there are no such events.
                    (seen.max(floors().min().unwrap_or(log.sequence())), true)
                }
            },
        }
    }

    /// Returns the position of a client that sends this ID. Counts and logs a loss that only the ID shows.
    fn place(&self, log: &mut EventLog<Payload>, id: &str, channels: &[Arc<str>], deferred: &mut Deferred) -> Place {
        let known_loss = log.last_loss();
        let place = log.place(id, channels);
        if log.last_loss() > known_loss {
            self.counters.count_loss();
            deferred.found_loss = Some(Arc::clone(&self.warnings));
        }
        place
    }
}
