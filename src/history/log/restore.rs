//! How the log is filled from a store, before its publisher opens.

use std::sync::Arc;
use std::time::Duration;

use super::{EventLog, NewEntry};
use crate::history::ids::{Era, Ids};
use crate::store::{Attached, Trim};

/// An event from a store.
pub(crate) struct Restored<T> {
    pub(crate) sequence: u64,
    pub(crate) age: Duration,
    pub(crate) channels: Vec<Arc<str>>,
    pub(crate) own_id: Option<Arc<str>>,
    pub(crate) key: Option<Arc<str>>,
    /// `false` if an older event with this ID was evicted.
    pub(crate) finds_own_id: bool,
    pub(crate) payload: T,
    pub(crate) size: usize,
}

impl<T: Clone> EventLog<T> {
    /// Takes over the state of a store. The log must be empty. The store's events follow, and then
    /// [`finish_restoring`](Self::finish_restoring).
    pub(crate) fn begin_restoring(&mut self, attached: &Attached) {
        let eras = attached.eras.iter().map(|&(number, first)| Era { number, first }).collect();
        self.ids = Arc::new(Ids::of_store(attached.lineage.clone(), eras));
        self.last_loss = attached.last_loss;
        self.horizon = attached.horizon;
        for (channel, floor) in &attached.floors {
            self.set_tombstone(channel, *floor);
        }
        self.trim = Some(Trim::default());
        self.is_restoring = true;
    }

    /// Adds the next event of the store, to the channels that have not evicted it.
    pub(crate) fn restore(&mut self, restored: Restored<T>, evicted: &mut Vec<T>) {
        let Restored { sequence, age, channels, own_id, key, finds_own_id, payload, size } = restored;
        self.sequence = sequence;
        let channels: Vec<&str> =
            channels.iter().map(|channel| &**channel).filter(|channel| self.floor(channel) < sequence).collect();
        if channels.is_empty() {
            evicted.push(payload);
            self.trim_event(sequence);
            return;
        }
        let now = self.now();
        let entry = NewEntry { payload, size, own_id, key, at: None, sequence: None };
        self.keep(&channels, entry, finds_own_id, now.saturating_sub(age), evicted);
        self.evict_beyond_limits(now, evicted);
    }

    /// Evicts everything up to the event with this sequence from these channels, because the event cannot be restored.
    pub(crate) fn restore_hole(&mut self, sequence: u64, channels: &[Arc<str>], evicted: &mut Vec<T>) {
        self.sequence = sequence;
        for channel in channels {
            self.evict_up_to(channel, sequence, evicted);
            let floor = self.floor(channel).max(sequence);
            self.set_tombstone(channel, floor);
            self.trim_floor(channel, Some(floor));
        }
        self.trim_event(sequence);
    }

    /// Completes the log, which ends with this sequence.
    pub(crate) fn finish_restoring(&mut self, sequence: u64) {
        self.sequence = sequence;
        self.is_restoring = false;
        self.limit_tombstones();
    }

    /// Sets the floor of a channel without events.
    pub(super) fn set_tombstone(&mut self, channel: &Arc<str>, floor: u64) {
        match self.tombstones.insert(Arc::clone(channel), floor) {
            Some(previous) => _ = self.lowest_tombstones.remove(&(previous, Arc::clone(channel))),
            None => self.tombstone_bytes += Self::TOMBSTONE + channel.len(),
        }
        self.lowest_tombstones.insert((floor, Arc::clone(channel)));
    }
}
