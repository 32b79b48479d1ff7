//! How the log forgets events, and what it remembers of them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::latest::shrink;
use super::{EventLog, Ring};
use crate::store::Trim;

impl<T: Clone> EventLog<T> {
    /// Evicts the events that are older than the maximum age.
    pub(crate) fn expire(&mut self, evicted: &mut Vec<T>) {
        if self.settings.max_age.is_some() {
            self.expire_at(self.now(), evicted);
        }
    }

    fn expire_at(&mut self, now: Duration, evicted: &mut Vec<T>) {
        let Some(max_age) = self.settings.max_age else { return };
        while self.oldest_is_older_than(max_age, now) {
            self.evict_oldest(evicted);
        }
    }

    /// Returns whether an event is older than the maximum age.
    pub(crate) fn has_expired(&self) -> bool {
        self.settings.max_age.is_some_and(|max_age| self.oldest_is_older_than(max_age, self.now()))
    }

    fn oldest_is_older_than(&self, max_age: Duration, now: Duration) -> bool {
        self.entries.first_key_value().is_some_and(|(_, entry)| now.saturating_sub(entry.at) > max_age)
    }

    /// Evicts events until, at this time, the others are within the limits.
    pub(super) fn evict_beyond_limits(&mut self, now: Duration, evicted: &mut Vec<T>) {
        self.expire_at(now, evicted);
        while self.bytes + self.tombstone_bytes > self.settings.max_bytes && !self.entries.is_empty() {
            self.evict_oldest(evicted);
        }
    }

    /// Takes what was evicted since the last call, for the store to delete.
    pub(crate) fn take_trim(&mut self) -> Trim {
        let mut trim = self.trim.as_mut().map(std::mem::take).unwrap_or_default();
        trim.horizon = self.horizon;
        for (channel, id) in std::mem::take(&mut self.ambiguous_ids) {
            let has_id = |sequence: &&u64| self.entries[*sequence].own_id.as_ref() == Some(&id);
            let sequences = self.rings.get(&channel).map(|ring| &ring.sequences);
            trim.ambiguous.extend(sequences.and_then(|sequences| sequences.iter().rev().find(has_id)));
        }
        trim
    }

    /// Notes that the store need no longer hold this event.
    pub(super) fn trim_event(&mut self, sequence: u64) {
        if let Some(trim) = &mut self.trim {
            trim.evicted.push(sequence);
        }
    }

    /// Notes the floor of a channel for the store; `None` if it is the horizon.
    pub(super) fn trim_floor(&mut self, channel: &Arc<str>, floor: Option<u64>) {
        if let Some(trim) = &mut self.trim {
            trim.floors.insert(Arc::clone(channel), floor);
        }
    }

    /// Returns the name of this channel's ring. Creates the ring if it is missing, with the channel's floor.
    pub(super) fn ensure_ring(&mut self, channel: &str) -> Arc<str> {
        if let Some((name, _)) = self.rings.get_key_value(channel) {
            return Arc::clone(name);
        }
        let floor = self.floor(channel);
        let name: Arc<str> = channel.into();
        match self.tombstones.remove_entry(channel) {
            Some((name, _)) => {
                self.tombstone_bytes -= Self::TOMBSTONE + name.len();
                self.lowest_tombstones.remove(&(floor, name));
            }
            // The horizon may rise, and this floor must not.
            None => self.trim_floor(&name, Some(floor)),
        }
        self.bytes += Self::CHANNEL + name.len();
        self.rings.insert(
            Arc::clone(&name),
            Ring { sequences: VecDeque::new(), spare: 0, floor, own_ids: HashMap::new(), keys: HashMap::new() },
        );
        name
    }

    /// Evicts the oldest event of all.
    fn evict_oldest(&mut self, evicted: &mut Vec<T>) {
        if let Some((&sequence, _)) = self.entries.first_key_value() {
            self.evict(sequence, evicted);
        }
    }

    /// Evicts an event from all its channels, and what is older from those channels.
    fn evict(&mut self, sequence: u64, evicted: &mut Vec<T>) {
        let Some(entry) = self.entries.get_mut(&sequence) else { return };
        for channel in std::mem::take(&mut entry.channels) {
            if self.rings.get(&channel).is_some_and(|ring| ring.sequences.binary_search(&sequence).is_ok()) {
                self.evict_up_to(&channel, sequence, evicted);
            }
        }
    }

    /// Makes the oldest event for which this channel has room a spare one. Evicts it if no other channel has room for it.
    pub(super) fn make_spare(&mut self, channel: &Arc<str>, evicted: &mut Vec<T>) {
        let ring = self.rings.get_mut(channel).expect("BUG: a channel that was just published to has no ring");
        let sequence = ring.sequences[ring.spare];
        ring.spare += 1;
        let entry = self.entries.get_mut(&sequence).expect("BUG: a ring names an event that is not held");
        entry.wanted -= 1;
        self.evict_unwanted(sequence, evicted);
    }

    /// Evicts an event if no channel has room for it.
    pub(super) fn evict_unwanted(&mut self, sequence: u64, evicted: &mut Vec<T>) {
        if self.entries.get(&sequence).is_some_and(|entry| entry.wanted == 0) {
            self.evict(sequence, evicted);
        }
    }

    /// Evicts the events up to this sequence from this channel.
    pub(super) fn evict_up_to(&mut self, channel: &Arc<str>, last: u64, evicted: &mut Vec<T>) {
        while let Some(ring) = self.rings.get_mut(channel) {
            let Some(sequence) = ring.sequences.front().copied().filter(|oldest| *oldest <= last) else { return };
            ring.sequences.pop_front();
            let is_spare = ring.spare > 0;
            ring.spare -= usize::from(is_spare);
            ring.floor = sequence;
            self.trim_floor(channel, Some(sequence));
            self.release(channel, sequence, is_spare, evicted);
            self.evict_unwanted(sequence, evicted);
        }
    }

    /// Releases an event that was removed from this channel's ring, where it may have been a spare one. Removes its entry
    /// if no other ring names it.
    pub(super) fn release(&mut self, channel: &Arc<str>, sequence: u64, was_spare: bool, evicted: &mut Vec<T>) {
        let ring = self.rings.get_mut(channel).expect("BUG: evicting from a channel without a ring");
        let entry = self.entries.get_mut(&sequence).expect("BUG: a ring names an event that is not held");
        entry.rings -= 1;
        entry.wanted -= u32::from(!was_spare);
        let is_last_ring = entry.rings == 0;
        let mut ambiguous = None;
        if let Some(id) = &entry.own_id {
            let own_id = ring.own_ids.get_mut(id).expect("BUG: an event's own id is not in its ring");
            own_id.oldest = own_id.oldest.filter(|oldest| *oldest != sequence);
            own_id.events -= 1;
            if own_id.events == 0 {
                ring.own_ids.remove(id);
            } else if own_id.oldest.is_none() {
                ambiguous = Some(Arc::clone(id));
            }
        }
        if let Some(key) = entry.key.as_ref().filter(|key| ring.keys.get(*key) == Some(&sequence)) {
            ring.keys.remove(key);
        }
        if is_last_ring {
            let entry = self.entries.remove(&sequence).expect("BUG: a ring names an event that is not held");
            self.bytes -= entry.size;
            evicted.push(entry.payload);
            self.trim_event(sequence);
        }
        if let Some(id) = ambiguous.filter(|_| self.trim.is_some()) {
            self.ambiguous_ids.push((Arc::clone(channel), id));
        }
        self.shrink_ring(channel);
        if self.rings[channel].sequences.is_empty() {
            self.retire_channel(channel, sequence);
        }
    }

    /// Releases spare capacity. It is not counted towards `max_bytes`, so it must not stay.
    fn shrink_ring(&mut self, channel: &Arc<str>) {
        let ring = self.rings.get_mut(channel).expect("BUG: an event was released from a channel without a ring");
        if ring.sequences.capacity() > 32 && ring.sequences.len() < ring.sequences.capacity() / 4 {
            ring.sequences.shrink_to(ring.sequences.len() * 2);
        }
        shrink(&mut ring.own_ids);
        shrink(&mut ring.keys);
    }

    /// Removes a channel that has lost its last event. Its floor stays as a tombstone.
    fn retire_channel(&mut self, channel: &Arc<str>, floor: u64) {
        self.rings.remove(channel);
        self.bytes -= Self::CHANNEL + channel.len();
        self.tombstones.insert(Arc::clone(channel), floor);
        self.lowest_tombstones.insert((floor, Arc::clone(channel)));
        self.tombstone_bytes += Self::TOMBSTONE + channel.len();
        if !self.is_restoring {
            self.limit_tombstones();
        }
    }

    /// Merges the lowest tombstones into the horizon until the others are within the limit.
    pub(super) fn limit_tombstones(&mut self) {
        while self.tombstone_bytes > self.settings.max_bytes / 16 {
            let Some((floor, name)) = self.lowest_tombstones.pop_first() else { break };
            self.tombstones.remove(&name);
            self.tombstone_bytes -= Self::TOMBSTONE + name.len();
            self.horizon = self.horizon.max(floor);
            self.trim_floor(&name, None);
        }
    }
}
