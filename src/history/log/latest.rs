//! The newest event of each key, if the log keeps no older ones.

// A replaced event leaves its ring from the middle, and the ring's floor stays. So a subscriber that resumes before it
// is sent no gap: the ring holds a newer event of its key, or has evicted that one, which raised the floor beyond both.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::EventLog;

/// Releases most of the spare capacity of a map that has become small.
pub(super) fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > 32 && map.len() < map.capacity() / 4 {
        map.shrink_to(map.len() * 2);
    }
}

impl<T: Clone> EventLog<T> {
    /// Returns whether the log keeps only the newest event of each key.
    pub(crate) fn keeps_latest(&self) -> bool {
        self.settings.latest_per_key
    }

    /// Marks an event as the newest of its key in this channel. Removes the one that it replaces from the channel, and
    /// returns it: other channels may have no room for it.
    pub(super) fn replace_older(
        &mut self,
        channel: &Arc<str>,
        key: &Arc<str>,
        sequence: u64,
        evicted: &mut Vec<T>,
    ) -> Option<u64> {
        let ring = self.rings.get_mut(channel).expect("BUG: a channel that was just published to has no ring");
        let older = ring.keys.insert(Arc::clone(key), sequence)?;
        let position = ring.sequences.binary_search(&older).expect("BUG: a key names an event that is not in its ring");
        ring.sequences.remove(position);
        let is_spare = position < ring.spare;
        ring.spare -= usize::from(is_spare);
        self.release(channel, older, is_spare, evicted);
        Some(older)
    }
}
