//! The bounded log of past events, and the search for what follows an ID.

// The publisher has one sequence, and one ordered map from sequence to entry. Each channel has a ring of the sequences
// that were published to it:
//
//     entries   41  42  43  44  45  46          each with its payload, and the channels whose rings name it
//     "chat"    41      43          46          floor 40: no evicted event of this channel is newer
//     "news"        42  43      45              floor 17
//
// Two bounds evict from the front: the number of events per ring, and the bytes (and age) of all entries. An event that is
// beyond the number in one of its rings stays there as a spare until no ring has room for it. So a floor is only raised by
// an event that is gone, and a client of several channels is sent no gap for an event that one of them still has. An empty
// ring is removed, and its floor stays behind as a tombstone. Tombstones are bounded too: the lowest one is merged into the
// horizon. The horizon is the floor of every channel that has neither ring nor tombstone. So a floor can be too high,
// which reports a gap where none is; it is never too low.
//
// A log that is kept in a store also has a loss: the sequence before which events are missing everywhere.

mod evict;
// Only a client follows.
#[cfg_attr(not(feature = "client"), allow(dead_code))]
mod follow;
mod latest;
mod restore;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use restore::Restored;

use super::ids::{Ids, Place};
use super::{Gap, History};
use crate::event::{self, Event};
use crate::store::Trim;

/// One event in the log.
struct Entry<T> {
    payload: T,
    /// The channels that the event was published to.
    channels: Box<[Arc<str>]>,
    /// The number of rings that name it.
    rings: u32,
    /// The number of rings that name it and have room for it.
    wanted: u32,
    own_id: Option<Arc<str>>,
    /// Only if the log keeps the newest event of each key.
    key: Option<Arc<str>>,
    size: usize,
    at: Duration,
}

/// An event to append.
pub(crate) struct NewEntry<T> {
    pub(crate) payload: T,
    pub(crate) size: usize,
    pub(crate) own_id: Option<Arc<str>>,
    pub(crate) key: Option<Arc<str>>,
    /// When it was published, from [`EventLog::now`]; `None` for now.
    pub(crate) at: Option<Duration>,
    /// Its sequence in the log that this one follows, above all before; `None` for the next.
    pub(crate) sequence: Option<u64>,
}

/// The events of one channel.
struct Ring {
    sequences: VecDeque<u64>,
    /// How many of them, the oldest, are beyond the maximum. Other rings have room for these events.
    spare: usize,
    /// The highest sequence that the ring has evicted.
    floor: u64,
    own_ids: HashMap<Arc<str>, OwnId>,
    /// The event of each key, if the log keeps only the newest.
    keys: HashMap<Arc<str>, u64>,
}

/// The events of one channel that share an ID given by the application.
#[derive(Clone, Copy)]
struct OwnId {
    /// `None` once the oldest is evicted: then nothing shows which of the events a client saw.
    oldest: Option<u64>,
    events: usize,
}

/// The events that a replay wants from one channel: those with a sequence above `from`, up to `until`.
pub(crate) struct Span {
    pub(crate) channel: Arc<str>,
    pub(crate) from: u64,
    pub(crate) until: u64,
}

impl Span {
    /// Creates a span of everything above `from`, including what is published later.
    pub(crate) fn new(channel: &Arc<str>, from: u64) -> Self {
        Self { channel: Arc::clone(channel), from, until: u64::MAX }
    }

    /// Returns whether the channel, with this floor, may have evicted a wanted event above the cursor.
    pub(crate) fn is_overtaken(&self, cursor: u64, floor: u64) -> bool {
        let from = self.from.max(cursor);
        from < self.until && from < floor
    }
}

/// The bounded log, generic over its payloads.
pub(crate) struct EventLog<T> {
    settings: History,
    ids: Arc<Ids>,
    /// The sequence of the newest event.
    sequence: u64,
    entries: BTreeMap<u64, Entry<T>>,
    rings: BTreeMap<Arc<str>, Ring>,
    tombstones: BTreeMap<Arc<str>, u64>,
    lowest_tombstones: BTreeSet<(u64, Arc<str>)>,
    tombstone_bytes: usize,
    horizon: u64,
    /// The sequence before which events are missing that the store has lost; 0 if none are.
    last_loss: u64,
    bytes: usize,
    /// The last time that the clock returned.
    last_time: Cell<Duration>,
    /// What was evicted and is still in the store; `None` without a store.
    trim: Option<Trim>,
    /// The channels and IDs of the application's that no longer show a client's position, since the last trim.
    ambiguous_ids: Vec<(Arc<str>, Arc<str>)>,
    /// Events of a store are being added, so the floors of their channels must stay.
    is_restoring: bool,
    /// It has the sequences of another log, which may be further on.
    follows: bool,
    /// The last ID of a lost event that a client has sent, for the other log.
    lost_id: Option<String>,
}

impl<T: Clone> EventLog<T> {
    /// A slice ends at this many events, or with the event that reaches `MAX_SLICE_BYTES`. Cloning it must not delay
    /// other threads for long.
    const MAX_SLICE_EVENTS: usize = 256;
    const MAX_SLICE_BYTES: usize = 64 * 1024;

    // The memory that an event, a channel and a tombstone take in allocations, rounded up. `tests/alone/history_memory.rs`
    // checks these constants.
    const ENTRY: usize = 384;
    const ENTRY_CHANNEL: usize = 48;
    const OWN_ID: usize = 128;
    const KEY: usize = 128;
    const CHANNEL: usize = 256;
    const TOMBSTONE: usize = 192;

    /// Times are counted from this long before the zero of the clock. So an event that a store returns can be older than
    /// the clock.
    const BEFORE_CLOCK: Duration = Duration::from_secs(1_000 * 365 * 86_400);

    pub(crate) fn new(settings: History) -> Self {
        Self {
            settings,
            ids: Arc::new(Ids::of_this_run()),
            sequence: 0,
            entries: BTreeMap::new(),
            rings: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            lowest_tombstones: BTreeSet::new(),
            tombstone_bytes: 0,
            horizon: 0,
            last_loss: 0,
            bytes: 0,
            last_time: Cell::default(),
            trim: None,
            ambiguous_ids: Vec::new(),
            is_restoring: false,
            follows: false,
            lost_id: None,
        }
    }

    /// Returns how many events a log with this limit of bytes can hold at most.
    pub(crate) fn most_events(max_bytes: usize) -> usize {
        max_bytes / Self::ENTRY
    }

    pub(crate) fn ids(&self) -> &Arc<Ids> {
        &self.ids
    }

    /// Returns the number of events, bytes and channels in the log.
    pub(crate) fn size(&self) -> (usize, usize, usize) {
        (self.entries.len(), self.bytes + self.tombstone_bytes, self.rings.len())
    }

    /// Returns whether the event with this sequence is in the log.
    pub(crate) fn contains(&self, sequence: u64) -> bool {
        self.entries.contains_key(&sequence)
    }

    /// Returns the number of events that the log holds of this channel.
    pub(crate) fn channel_events(&self, channel: &str) -> usize {
        self.rings.get(channel).map_or(0, |ring| ring.sequences.len())
    }

    /// Returns the event that reports a gap between these IDs, unless gaps are not reported.
    pub(crate) fn gap(&self, from: &str, to: &str) -> Option<Event> {
        match &self.settings.gap {
            Gap::Default => Some(event::gap_between(from, to)),
            Gap::Custom(event) => Some(event.clone()),
            Gap::None => None,
        }
    }

    /// Returns whether streams carry blocks with an ID and no event.
    pub(crate) fn announces_ids(&self) -> bool {
        self.settings.announce_ids
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Returns the ID of the event with this sequence.
    pub(crate) fn id(&self, sequence: u64) -> String {
        self.ids.id(sequence)
    }

    /// Returns the position of a subscriber of these channels that sends this ID.
    ///
    /// It is [`Place::Unknown`] if the ID is of another log, of the future, or unknown in these channels, and if the
    /// oldest event with this ID is evicted. If the log holds several events with this ID, the oldest counts: a replay
    /// may repeat events, but must not skip any.
    ///
    /// An ID of lost events shows a loss that the store may not know of. Then it is a loss for every other subscriber.
    pub(crate) fn place(&mut self, id: &str, channels: &[Arc<str>]) -> Place {
        let mut place = self.ids.place(id, self.sequence);
        match place {
            Place::Lost(end) => {
                self.note_loss(end + 1);
                self.lost_id = self.follows.then(|| id.to_owned());
            }
            Place::Ahead(_) if !self.follows => place = Place::Unknown,
            _ => {}
        }
        for channel in channels {
            let Some(own_id) = self.rings.get(channel).and_then(|ring| ring.own_ids.get(id)) else { continue };
            let Some(sequence) = own_id.oldest else { return Place::Unknown };
            place = match place {
                Place::Exact(oldest) => Place::Exact(oldest.min(sequence)),
                _ => Place::Exact(sequence),
            };
        }
        place
    }

    /// Notes that events are missing before this sequence in all channels.
    pub(crate) fn note_loss(&mut self, before: u64) {
        if before > self.last_loss {
            self.last_loss = before;
            if let Some(trim) = &mut self.trim {
                trim.last_loss = before;
            }
        }
    }

    /// Returns the sequence before which events are missing that the store has lost; 0 if none are.
    pub(crate) fn last_loss(&self) -> u64 {
        self.last_loss
    }

    /// Returns whether events are missing between this sequence and the newest, because the store has lost them.
    pub(crate) fn has_lost_after(&self, sequence: u64) -> bool {
        sequence < self.last_loss
    }

    /// Returns the time of the clock, which may not go back. If the clock panics, it is the last time that it returned.
    pub(crate) fn now(&self) -> Duration {
        match catch_unwind(AssertUnwindSafe(|| (self.settings.clock)())) {
            Ok(time) => {
                self.last_time.set(time.saturating_add(Self::BEFORE_CLOCK).max(self.last_time.get()));
            }
            // The `Drop` of what it panicked with may panic too.
            Err(payload) => std::mem::forget(payload),
        }
        self.last_time.get()
    }

    /// Appends the next event. Moves the payloads that it evicts into `evicted`, for the caller to drop without the
    /// lock.
    pub(crate) fn append(&mut self, channels: &[&str], entry: NewEntry<T>, evicted: &mut Vec<T>) -> u64 {
        self.sequence = entry.sequence.unwrap_or(self.sequence + 1);
        // In the followed log, some of its channels may have evicted it already.
        let kept: Vec<&str>;
        let channels = if self.follows {
            kept = channels.iter().copied().filter(|channel| self.floor(channel) < self.sequence).collect();
            &kept
        } else {
            channels
        };
        if channels.is_empty() {
            // No ring holds it, so nothing would ever evict it.
            evicted.push(entry.payload);
            self.trim_event(self.sequence);
            return self.sequence;
        }
        let at = entry.at.unwrap_or_else(|| self.now());
        self.keep(channels, entry, true, at, evicted);
        self.evict_beyond_limits(at, evicted);
        self.sequence
    }

    /// Puts the event with the newest sequence into the rings of these channels. `finds_own_id` is `false` if an older
    /// event with its ID was evicted.
    fn keep(&mut self, channels: &[&str], entry: NewEntry<T>, finds_own_id: bool, at: Duration, evicted: &mut Vec<T>) {
        let sequence = self.sequence;
        let NewEntry { payload, size, own_id, key, .. } = entry;
        let stored_size = if self.trim.is_some() { stored_size(channels, key.as_deref()) } else { 0 };
        let key = key.filter(|_| self.keeps_latest());
        let channels: Box<[Arc<str>]> = channels.iter().map(|channel| self.ensure_ring(channel)).collect();
        let mut replaced = Vec::new();
        for channel in &channels {
            let ring = self.rings.get_mut(channel).expect("BUG: a channel that was just published to has no ring");
            ring.sequences.push_back(sequence);
            if let Some(id) = &own_id {
                let first = OwnId { oldest: Some(sequence), events: 0 };
                let own_id = ring.own_ids.entry(Arc::clone(id)).or_insert(first);
                own_id.events += 1;
                own_id.oldest = own_id.oldest.filter(|_| finds_own_id);
            }
            if let Some(key) = &key {
                replaced.extend(self.replace_older(channel, key, sequence, evicted));
            }
        }
        // Only now: an event that is replaced in each of its channels is lost in none.
        for older in replaced {
            self.evict_unwanted(older, evicted);
        }
        for channel in &channels {
            let ring = &self.rings[channel];
            if ring.sequences.len() - ring.spare > self.settings.max_events_per_channel {
                self.make_spare(channel, evicted);
            }
        }
        let own_id_size = own_id.as_ref().map_or(0, |id| channels.len() * Self::OWN_ID + id.len());
        let key_size = key.as_ref().map_or(0, |key| channels.len() * Self::KEY + key.len());
        let size = size + stored_size + Self::ENTRY + channels.len() * Self::ENTRY_CHANNEL + own_id_size + key_size;
        self.bytes += size;
        let rings = channels.len() as u32;
        // Times in the log never go back: the oldest event is the first to be too old.
        let at = self.entries.last_key_value().map_or(at, |(_, newest)| at.max(newest.at));
        self.entries.insert(sequence, Entry { payload, channels, rings, wanted: rings, own_id, key, size, at });
    }

    /// Returns the highest sequence that this channel may have evicted.
    pub(crate) fn floor(&self, channel: &str) -> u64 {
        let ring = self.rings.get(channel).map(|ring| ring.floor);
        ring.or_else(|| self.tombstones.get(channel).copied()).unwrap_or(self.horizon)
    }

    /// Returns the next wanted events above the cursor, the cursor behind them, and whether none remain. The events are
    /// in order and without duplicates. Up to `state_until`, only events with a key are wanted.
    ///
    /// It visits only events of these channels: it searches each ring, and merges the results.
    pub(crate) fn slice(&self, spans: &[Span], cursor: u64, state_until: u64) -> (Vec<(u64, T)>, u64, bool) {
        let mut rings: Vec<_> = spans
            .iter()
            .filter_map(|span| {
                let sequences = &self.rings.get(&span.channel)?.sequences;
                let first = sequences.partition_point(|sequence| *sequence <= span.from.max(cursor));
                let end = sequences.partition_point(|sequence| *sequence <= span.until).max(first);
                Some(sequences.range(first..end))
            })
            .collect();
        let mut heads = BinaryHeap::with_capacity(rings.len());
        for (ring, sequences) in rings.iter_mut().enumerate() {
            heads.extend(sequences.next().map(|next| Reverse((*next, ring))));
        }
        let mut events: Vec<(u64, T)> = Vec::new();
        let (mut last, mut visited, mut bytes) = (cursor, 0, 0);
        while let Some(Reverse((next, ring))) = heads.pop() {
            heads.extend(rings[ring].next().map(|next| Reverse((*next, ring))));
            if last == next {
                continue;
            }
            if visited == Self::MAX_SLICE_EVENTS || bytes >= Self::MAX_SLICE_BYTES {
                return (events, last, false);
            }
            (last, visited) = (next, visited + 1);
            let entry = &self.entries[&next];
            if next > state_until || entry.key.is_some() {
                bytes += entry.size.saturating_sub(Self::ENTRY);
                events.push((next, entry.payload.clone()));
            }
        }
        (events, last, true)
    }

    /// Returns the sequence after which these channels hold this many events, and whether they have evicted an event
    /// that should be among them.
    pub(crate) fn before_last(&self, channels: &[Arc<str>], events: usize) -> (u64, bool) {
        let rings = channels.iter().filter_map(|channel| self.rings.get(channel));
        let mut older: Vec<_> = rings.map(|ring| ring.sequences.iter().rev()).collect();
        let mut heads = BinaryHeap::with_capacity(older.len());
        for (ring, sequences) in older.iter_mut().enumerate() {
            heads.extend(sequences.next().map(|next| (*next, ring)));
        }
        let (mut first, mut found) = (None, 0);
        while let Some((next, ring)) = heads.pop() {
            heads.extend(older[ring].next().map(|next| (*next, ring)));
            if first == Some(next) {
                continue;
            }
            if found == events {
                break;
            }
            first = Some(next);
            found += 1;
        }
        let cursor = first.map_or(self.sequence, |first| first - 1);
        // If the channels hold fewer events than requested, every evicted event was requested.
        let newest_not_requested = if found < events { 0 } else { cursor };
        (
            cursor,
            self.has_lost_after(newest_not_requested)
                || channels.iter().any(|channel| self.floor(channel) > newest_not_requested),
        )
    }
}

/// Returns the bytes that an event takes in a store for what its channels have in memory once.
fn stored_size(channels: &[&str], key: Option<&str>) -> usize {
    channels.iter().map(|name| name.len()).sum::<usize>() + key.map_or(0, str::len)
}
