//! The payloads in a queue: all of them in order, or the newest of each key.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::Payload;

/// The key of an event in one subscriber's queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct QueueKey {
    /// The channel that the subscriber gets the event from; `None` if it was sent to this subscriber alone. Two
    /// channels may use one key for different things.
    pub(crate) channel: Option<Arc<str>>,
    pub(crate) key: Arc<str>,
}

/// The payloads of one queue.
pub(super) enum Entries {
    Fifo(Fifo),
    /// Boxed, because few subscribers have such a queue.
    Keyed(Box<Keyed>),
}

impl Entries {
    pub(super) fn fifo() -> Self {
        Self::Fifo(Fifo::default())
    }

    pub(super) fn keyed() -> Self {
        Self::Keyed(Box::default())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Fifo(fifo) => fifo.len(),
            Self::Keyed(keyed) => keyed.queued.len(),
        }
    }

    /// Appends the payload. No other payload of its key may be queued. A FIFO queue ignores the key and the size.
    pub(super) fn put(&mut self, payload: Payload, key: Option<&QueueKey>, size: usize) {
        match self {
            Self::Fifo(fifo) => fifo.put(payload),
            Self::Keyed(keyed) => keyed.put(payload, key, size),
        }
    }

    pub(super) fn first(&self) -> Option<&Payload> {
        match self {
            Self::Fifo(fifo) => fifo.oldest.as_ref().or_else(|| fifo.others.as_ref()?.front()),
            Self::Keyed(keyed) => keyed.queued.first_key_value().map(|(_, entry)| &entry.payload),
        }
    }

    /// Removes the first payload, and returns it with its size.
    pub(super) fn take_first(&mut self) -> Option<(Payload, usize)> {
        match self {
            Self::Fifo(fifo) => fifo.take_first().map(|payload| {
                let size = payload.size();
                (payload, size)
            }),
            Self::Keyed(keyed) => keyed.take_first(),
        }
    }

    /// Removes the payload of this key, and returns it with its size.
    pub(super) fn remove(&mut self, key: &QueueKey) -> Option<(Payload, usize)> {
        if let Self::Keyed(keyed) = self { keyed.remove(key) } else { None }
    }

    /// Removes all payloads, and returns them in order.
    pub(super) fn take_all(&mut self) -> Vec<Payload> {
        match std::mem::replace(self, Self::fifo()) {
            Self::Fifo(Fifo { oldest, others }) => {
                oldest.into_iter().chain(others.into_iter().flat_map(|others| *others)).collect()
            }
            Self::Keyed(keyed) => keyed.queued.into_values().map(|entry| entry.payload).collect(),
        }
    }
}

/// Payloads in the order in which they were pushed.
#[derive(Default)]
pub(super) struct Fifo {
    /// The oldest payload, if it was pushed into an empty queue. A subscriber that keeps up uses only this place.
    oldest: Option<Payload>,
    /// Boxed, so that a publisher touches little memory per subscriber.
    #[allow(clippy::box_collection)]
    others: Option<Box<VecDeque<Payload>>>,
}

impl Fifo {
    /// The capacity that an emptied queue may keep. If it kept less, publishers would allocate what readers free, and
    /// both would contend in the allocator.
    const KEPT_CAPACITY: usize = 32;

    fn len(&self) -> usize {
        usize::from(self.oldest.is_some()) + self.others.as_ref().map_or(0, |others| others.len())
    }

    fn put(&mut self, payload: Payload) {
        if self.len() == 0 {
            self.oldest = Some(payload);
        } else {
            self.others.get_or_insert_default().push_back(payload);
        }
    }

    fn take_first(&mut self) -> Option<Payload> {
        if let Some(oldest) = self.oldest.take() {
            return Some(oldest);
        }
        let others = self.others.as_mut()?;
        let payload = others.pop_front()?;
        if others.is_empty() && others.capacity() > Self::KEPT_CAPACITY {
            self.others = None;
        }
        Some(payload)
    }
}

/// The newest payload of each key, in the order in which they were pushed.
#[derive(Default)]
pub(super) struct Keyed {
    queued: BTreeMap<u64, KeyedEntry>,
    /// The number of the queued entry of each key.
    newest: HashMap<QueueKey, u64>,
    next: u64,
}

struct KeyedEntry {
    payload: Payload,
    key: Option<QueueKey>,
    /// The size of the payload and the key.
    size: usize,
}

impl Keyed {
    fn put(&mut self, payload: Payload, key: Option<&QueueKey>, size: usize) {
        self.queued.insert(self.next, KeyedEntry { payload, key: key.cloned(), size });
        let replaced = key.and_then(|key| self.newest.insert(key.clone(), self.next));
        debug_assert!(replaced.is_none(), "BUG: two payloads of one key are queued");
        self.next += 1;
    }

    fn remove(&mut self, key: &QueueKey) -> Option<(Payload, usize)> {
        let number = self.newest.remove(key)?;
        self.queued.remove(&number).map(|entry| (entry.payload, entry.size))
    }

    fn take_first(&mut self) -> Option<(Payload, usize)> {
        let (_, entry) = self.queued.pop_first()?;
        if let Some(key) = entry.key {
            self.newest.remove(&key);
        }
        Some((entry.payload, entry.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn payload() -> Payload {
        Payload::Frame(Event::new("x").encode())
    }

    #[test]
    fn a_key_without_a_queued_payload_is_forgotten() {
        let mut entries = Entries::keyed();
        let key = |key: &str| QueueKey { channel: None, key: key.into() };
        for name in ["a", "b"] {
            entries.put(payload(), Some(&key(name)), 1);
        }
        assert!(entries.take_first().is_some() && entries.remove(&key("b")).is_some());
        let Entries::Keyed(keyed) = &entries else { panic!("another kind of queue") };
        assert!(keyed.newest.is_empty() && keyed.queued.is_empty());
    }

    #[test]
    fn an_emptied_queue_releases_its_capacity() {
        let mut entries = Entries::fifo();
        for _ in 0..100 {
            entries.put(payload(), None, 1);
        }
        while entries.take_first().is_some() {}
        let Entries::Fifo(fifo) = &entries else { panic!("another kind of queue") };
        assert!(fifo.others.as_ref().is_none_or(|others| others.capacity() <= Fifo::KEPT_CAPACITY));
    }
}
