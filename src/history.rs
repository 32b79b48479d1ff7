//! The bounded memory of past events, and what comes after an id.

// One sequence for the whole publisher, one ordered map from sequence to entry, and for each channel a ring of the
// sequences that were published to it:
//
//     entries   41  42  43  44  45  46          each with its item, and the channels whose rings name it
//     "chat"    41      43          46          floor 40: what it has lost was not newer than that
//     "news"        42  43      45              floor 17
//
// Two bounds take from the front: the number of events in one ring, and bytes (and age) over all. A ring that is
// empty goes; its floor stays behind as a tombstone. Tombstones are bounded too: the lowest leaves into the horizon,
// which is the floor of every channel that has neither ring nor tombstone. So a floor may be too high, and call for a
// gap that is none; it is never too low.

use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::error::InvalidSetting;
use crate::event::{self, Event};

/// How much of what was published a [`Publisher`](crate::Publisher) keeps, so that a client which reconnects misses
/// nothing.
///
/// With a history every event has an id, and a subscription may begin
/// [after one](crate::SubscriptionBuilder::last_event_id). What leaves the history is told to who asks for it, as a
/// `gap`.
///
/// ```
/// use server_sent_events::{History, Publisher};
///
/// let publisher = Publisher::builder().history(History::new().max_events_per_channel(100)).build()?;
/// publisher.publish("one");
/// let id = publisher.last_event_id().unwrap();
/// publisher.publish("two");
///
/// let mut subscription = publisher.subscription(()).last_event_id(id).heartbeat(None).open()?;
/// assert!(subscription.next().unwrap().starts_with("id: ")); // where it starts, without an event
/// assert!(subscription.next().unwrap().starts_with("data: two\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct History {
    max_events_per_channel: usize,
    max_age: Option<Duration>,
    max_bytes: usize,
    clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    gap: Gap,
    announce_ids: bool,
}

/// What a subscriber is sent that asks for more than there is.
#[derive(Clone)]
enum Gap {
    Ours,
    Event(Event),
    Nothing,
}

impl History {
    /// 8,192 events for each channel, 64 MiB in all, of any age.
    pub fn new() -> Self {
        let start = Instant::now();
        Self {
            max_events_per_channel: 8_192,
            max_age: None,
            max_bytes: 64 * 1024 * 1024,
            clock: Arc::new(move || start.elapsed()),
            gap: Gap::Ours,
            announce_ids: true,
        }
    }

    /// Sets how many events each channel keeps. Defaults to 8,192.
    ///
    /// This is more than a queue holds, so a client that was too slow can resume without a gap.
    pub fn max_events_per_channel(mut self, events: usize) -> Self {
        self.max_events_per_channel = events;
        self
    }

    /// How old an event may become. Defaults to any age.
    ///
    /// Looked at when something is published or somebody subscribes.
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.max_age = age.into();
        self
    }

    /// How many bytes all channels keep together; the oldest events go first, wherever they are. Defaults to 64 MiB.
    ///
    /// Counted are, for each event, its text (a closure: its own size) and 384 bytes, 48 for each of its channels, and
    /// for an own id its length and 128 for each of its channels; for each channel its name and 256 bytes. Channels that have lost all their
    /// events are remembered in at most a sixteenth of it.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// What says the time, as the time since any moment; must not go back. Defaults to the system's monotonic clock.
    ///
    /// It runs under the publisher's lock, and so must not use the publisher.
    pub fn clock(mut self, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// What a subscriber is sent that asks for more than there is; `None` for nothing. Defaults to an event of type
    /// `gap`, whose data is JSON: `{"from":ID,"to":ID}`, the id that it came with (`null` if it is none of a
    /// history's), and the one behind which its replay begins.
    pub fn gap_event(mut self, event: impl Into<Option<Event>>) -> Self {
        self.gap = event.into().map_or(Gap::Nothing, Gap::Event);
        self
    }

    /// Sets whether streams carry blocks with an id and no event. Defaults to `true`.
    ///
    /// Such a block comes at the start of a stream that begins with neither a gap nor initial data, and in place of a
    /// heartbeat if newer events were published since the last id that the stream was sent. So a client that has seen no
    /// event yet, or is in a quiet channel, can resume all the same. A browser fires nothing for them (WHATWG HTML 9.2.6);
    /// some client libraries fire an empty message, which `false` spares them.
    ///
    /// ```
    /// use server_sent_events::{History, Publisher};
    ///
    /// let publisher = Publisher::builder().history(History::new().announce_ids(false)).build()?;
    /// let mut subscription = publisher.subscribe()?;
    /// assert!(subscription.try_recv().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn announce_ids(mut self, announce: bool) -> Self {
        self.announce_ids = announce;
        self
    }

    pub(crate) fn check(&self) -> Result<(), InvalidSetting> {
        let settings = [
            ("History::max_events_per_channel", self.max_events_per_channel == 0),
            ("History::max_age", self.max_age == Some(Duration::ZERO)),
            ("History::max_bytes", self.max_bytes == 0),
        ];
        match settings.into_iter().find(|(_, zero)| *zero) {
            Some((setting, _)) => Err(InvalidSetting::new(setting)),
            None => Ok(()),
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("max_events_per_channel", &self.max_events_per_channel)
            .field("max_age", &self.max_age)
            .field("max_bytes", &self.max_bytes)
            .field("announce_ids", &self.announce_ids)
            .finish_non_exhaustive()
    }
}

/// The id of the event with this sequence.
pub(crate) fn id(epoch: &str, sequence: u64) -> String {
    format!("{epoch}-{sequence}")
}

/// What one event is kept as.
struct Entry<T> {
    item: T,
    /// The channels that it was published to.
    channels: Box<[Arc<str>]>,
    /// How many of their rings still hold it.
    rings: usize,
    own_id: Option<Arc<str>>,
    size: usize,
    at: Duration,
}

/// What one channel has.
struct Ring {
    sequences: VecDeque<u64>,
    /// The highest sequence that it has lost.
    floor: u64,
    own_ids: HashMap<Arc<str>, OwnId>,
}

/// The events of one channel that have the same id, given by the application.
#[derive(Clone, Copy)]
struct OwnId {
    /// `None` once it is evicted: then nobody knows which of them a client saw.
    oldest: Option<u64>,
    newest: u64,
}

/// A channel of which some events are wanted: those with a sequence above `from`, up to `until`.
pub(crate) struct Span {
    pub(crate) channel: Arc<str>,
    pub(crate) from: u64,
    pub(crate) until: u64,
}

impl Span {
    /// Everything above `from`, also what is published later.
    pub(crate) fn new(channel: &Arc<str>, from: u64) -> Self {
        Self { channel: Arc::clone(channel), from, until: u64::MAX }
    }

    /// Returns whether an event may be lost that is wanted and above the cursor, when the channel has this floor.
    pub(crate) fn is_overtaken(&self, cursor: u64, floor: u64) -> bool {
        let from = self.from.max(cursor);
        from < self.until && from < floor
    }
}

/// The bounded log itself, of payloads of some kind.
pub(crate) struct EventLog<T> {
    settings: History,
    /// Tells one run of the program from another.
    epoch: String,
    /// The newest there is.
    sequence: u64,
    entries: BTreeMap<u64, Entry<T>>,
    rings: BTreeMap<Arc<str>, Ring>,
    tombstones: BTreeMap<Arc<str>, u64>,
    lowest_tombstones: BTreeSet<(u64, Arc<str>)>,
    tombstone_bytes: usize,
    horizon: u64,
    bytes: usize,
}

impl<T: Clone> EventLog<T> {
    /// A slice ends at so many events, or with the one that reaches so many bytes: cloning it must not hold up the others.
    const SLICE: usize = 256;
    const SLICE_BYTES: usize = 64 * 1024;

    // What the allocations around them take, measured and rounded up: `tests/history_memory.rs` holds them to it.
    const ENTRY: usize = 384;
    const ENTRY_CHANNEL: usize = 48;
    const OWN_ID: usize = 128;
    const CHANNEL: usize = 256;
    const TOMBSTONE: usize = 192;

    pub(crate) fn new(settings: History) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        // The time tells runs apart that are not in the same instant, the random part the others.
        let random = RandomState::new().hash_one(since) as u32;
        Self {
            settings,
            epoch: format!("{since:x}{random:08x}"),
            sequence: 0,
            entries: BTreeMap::new(),
            rings: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            lowest_tombstones: BTreeSet::new(),
            tombstone_bytes: 0,
            horizon: 0,
            bytes: 0,
        }
    }

    pub(crate) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// How many events, bytes and channels there are.
    pub(crate) fn size(&self) -> (usize, usize, usize) {
        (self.entries.len(), self.bytes + self.tombstone_bytes, self.rings.len())
    }

    /// How many of a channel's events are here.
    pub(crate) fn channel_events(&self, channel: &str) -> usize {
        self.rings.get(channel).map_or(0, |ring| ring.sequences.len())
    }

    /// Returns the event that reports a gap between these ids, if there is to be one.
    pub(crate) fn gap(&self, from: &str, to: &str) -> Option<Event> {
        match &self.settings.gap {
            Gap::Ours => Some(event::gap_between(from, to)),
            Gap::Event(event) => Some(event.clone()),
            Gap::Nothing => None,
        }
    }

    /// Returns whether blocks that carry an id and no event are sent.
    pub(crate) fn announces_ids(&self) -> bool {
        self.settings.announce_ids
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The id of the event with this sequence.
    pub(crate) fn id(&self, sequence: u64) -> String {
        id(&self.epoch, sequence)
    }

    /// Returns the sequence of the event with this id, for a subscriber of these channels. `None` if the id is of another
    /// epoch, of the future, unknown in these channels, or the first event that had it there is evicted.
    ///
    /// Of several events with this id the oldest counts: a replay may repeat, but never lose.
    pub(crate) fn sequence_of(&self, id: &str, channels: &[Arc<str>]) -> Option<u64> {
        let mut oldest = self.generated_sequence(id);
        for channel in channels {
            let Some(own) = self.rings.get(channel).and_then(|ring| ring.own_ids.get(id)) else { continue };
            let sequence = own.oldest?;
            oldest = Some(oldest.map_or(sequence, |oldest| oldest.min(sequence)));
        }
        oldest
    }

    /// Returns the sequence in an id that the history gave.
    fn generated_sequence(&self, id: &str) -> Option<u64> {
        let sequence = id.strip_prefix(&self.epoch)?.strip_prefix('-')?.parse().ok()?;
        // Written back, so that `+7` and `007` are nobody's.
        (sequence <= self.sequence && self.id(sequence) == id).then_some(sequence)
    }

    /// Keeps the next event, and moves what has to go for it into `evicted`, to be dropped without the lock.
    pub(crate) fn append(
        &mut self,
        channels: &[&str],
        item: T,
        size: usize,
        own_id: Option<Arc<str>>,
        evicted: &mut Vec<T>,
    ) -> u64 {
        self.sequence += 1;
        let sequence = self.sequence;
        if channels.is_empty() {
            // No ring would ever evict it.
            evicted.push(item);
            return sequence;
        }
        let at = (self.settings.clock)();
        let channels: Box<[Arc<str>]> = channels.iter().map(|channel| self.ring(channel)).collect();
        for channel in &channels {
            let ring = self.rings.get_mut(channel).expect("BUG: a channel that was just published to has no ring");
            ring.sequences.push_back(sequence);
            if let Some(id) = &own_id {
                let first = OwnId { oldest: Some(sequence), newest: sequence };
                ring.own_ids.entry(Arc::clone(id)).or_insert(first).newest = sequence;
            }
            if ring.sequences.len() > self.settings.max_events_per_channel {
                self.evict_from(channel, evicted);
            }
        }
        let own_id_size = own_id.as_ref().map_or(0, |id| channels.len() * Self::OWN_ID + id.len());
        let size = size + Self::ENTRY + channels.len() * Self::ENTRY_CHANNEL + own_id_size;
        self.bytes += size;
        let rings = channels.len();
        self.entries.insert(sequence, Entry { item, channels, rings, own_id, size, at });
        self.expire(evicted);
        while self.bytes + self.tombstone_bytes > self.settings.max_bytes && !self.entries.is_empty() {
            self.evict_oldest(evicted);
        }
        sequence
    }

    /// Lets go what is too old.
    pub(crate) fn expire(&mut self, evicted: &mut Vec<T>) {
        let Some(max_age) = self.settings.max_age else { return };
        let now = (self.settings.clock)();
        while self.entries.first_key_value().is_some_and(|(_, entry)| now.saturating_sub(entry.at) > max_age) {
            self.evict_oldest(evicted);
        }
    }

    /// The highest sequence that this channel may have lost.
    pub(crate) fn floor(&self, channel: &str) -> u64 {
        let ring = self.rings.get(channel).map(|ring| ring.floor);
        ring.or_else(|| self.tombstones.get(channel).copied()).unwrap_or(self.horizon)
    }

    /// Returns the next events above the cursor that are wanted, in order, each once, and whether there are no more.
    ///
    /// Looks at nothing that it does not return: a search in each ring, and a merge.
    pub(crate) fn slice(&self, spans: &[Span], cursor: u64) -> (Vec<(u64, T)>, bool) {
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
        let mut bytes = 0;
        while let Some(Reverse((next, ring))) = heads.pop() {
            heads.extend(rings[ring].next().map(|next| Reverse((*next, ring))));
            if events.last().is_some_and(|(last, _)| *last == next) {
                continue;
            }
            if events.len() == Self::SLICE || bytes >= Self::SLICE_BYTES {
                return (events, false);
            }
            let entry = &self.entries[&next];
            bytes += entry.size.saturating_sub(Self::ENTRY);
            events.push((next, entry.item.clone()));
        }
        (events, true)
    }

    /// Returns the sequence behind which these channels hold so many events, and whether they have lost one that was to be
    /// among them.
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
        // Where fewer are held than wished for, whatever was lost was wished for.
        let newest_unwanted = if found < events { 0 } else { cursor };
        (cursor, channels.iter().any(|channel| self.floor(channel) > newest_unwanted))
    }

    /// The ring of this channel, which is made if there is none, with the floor that it had before.
    fn ring(&mut self, channel: &str) -> Arc<str> {
        if let Some((name, _)) = self.rings.get_key_value(channel) {
            return Arc::clone(name);
        }
        let floor = self.floor(channel);
        if let Some((name, _)) = self.tombstones.remove_entry(channel) {
            self.tombstone_bytes -= Self::TOMBSTONE + name.len();
            self.lowest_tombstones.remove(&(floor, name));
        }
        let name: Arc<str> = channel.into();
        self.bytes += Self::CHANNEL + name.len();
        self.rings.insert(Arc::clone(&name), Ring { sequences: VecDeque::new(), floor, own_ids: HashMap::new() });
        name
    }

    /// Takes the oldest event out of all its channels.
    fn evict_oldest(&mut self, evicted: &mut Vec<T>) {
        let Some((&sequence, entry)) = self.entries.first_key_value() else { return };
        // One whose ring was full has lost it before.
        let holds_it = |channel: &&Arc<str>| {
            self.rings.get(*channel).is_some_and(|ring| ring.sequences.front() == Some(&sequence))
        };
        let channels: Vec<Arc<str>> = entry.channels.iter().filter(holds_it).cloned().collect();
        for channel in channels {
            self.evict_from(&channel, evicted);
        }
    }

    /// Takes the oldest event of this channel out of it, and drops the event if that was the last ring to hold it.
    fn evict_from(&mut self, channel: &Arc<str>, evicted: &mut Vec<T>) {
        let ring = self.rings.get_mut(channel).expect("BUG: evicting from a channel without a ring");
        let sequence = ring.sequences.pop_front().expect("BUG: evicting from an empty ring");
        ring.floor = sequence;
        let entry = self.entries.get_mut(&sequence).expect("BUG: a ring names an event that is not held");
        entry.rings -= 1;
        if let Some(id) = &entry.own_id {
            let own = ring.own_ids.get_mut(id).expect("BUG: an event's own id is not in its ring");
            own.oldest = None;
            if own.newest == sequence {
                ring.own_ids.remove(id);
            }
        }
        if entry.rings == 0 {
            let entry = self.entries.remove(&sequence).expect("BUG: a ring names an event that is not held");
            self.bytes -= entry.size;
            evicted.push(entry.item);
        }
        // What they took at their longest is not counted any more.
        if ring.sequences.capacity() > 32 && ring.sequences.len() < ring.sequences.capacity() / 4 {
            ring.sequences.shrink_to(ring.sequences.len() * 2);
        }
        if ring.own_ids.capacity() > 32 && ring.own_ids.len() < ring.own_ids.capacity() / 4 {
            ring.own_ids.shrink_to(ring.own_ids.len() * 2);
        }
        if ring.sequences.is_empty() {
            self.retire_channel(channel, sequence);
        }
    }

    /// A channel has lost its last event: what stays is its floor.
    fn retire_channel(&mut self, channel: &Arc<str>, floor: u64) {
        self.rings.remove(channel);
        self.bytes -= Self::CHANNEL + channel.len();
        self.tombstones.insert(Arc::clone(channel), floor);
        self.lowest_tombstones.insert((floor, Arc::clone(channel)));
        self.tombstone_bytes += Self::TOMBSTONE + channel.len();
        while self.tombstone_bytes > self.settings.max_bytes / 16 {
            let Some((floor, name)) = self.lowest_tombstones.pop_first() else { break };
            self.tombstones.remove(&name);
            self.tombstone_bytes -= Self::TOMBSTONE + name.len();
            self.horizon = self.horizon.max(floor);
        }
    }
}

/// How a subscription began, relative to the event ID that it asked for; from
/// [`Subscription::resumption`](crate::Subscription::resumption).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resumption {
    /// It asked for no past events, or there is no history.
    NotRequested,
    /// The history still had every event that it asked for.
    Complete,
    /// Events that it asked for were evicted, or its event ID is not one of this history. The rest is replayed.
    Gap,
}

impl Resumption {
    /// Returns `true` if the client has every event up to the live ones, so that it needs no snapshot.
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Complete)
    }
}
