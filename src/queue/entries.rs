//! What waits in a queue: all of it in order, or the newest of each key.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::Payload;

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
            Self::Keyed(keyed) => keyed.waiting.len(),
        }
    }

    /// Puts the payload last, where no other of its key waits. Only a keyed queue looks at the key and the size.
    pub(super) fn put(&mut self, payload: Payload, key: Option<&Arc<str>>, size: usize) {
        match self {
            Self::Fifo(fifo) => fifo.put(payload),
            Self::Keyed(keyed) => keyed.put(payload, key, size),
        }
    }

    pub(super) fn first(&self) -> Option<&Payload> {
        match self {
            Self::Fifo(fifo) => fifo.oldest.as_ref().or_else(|| fifo.others.as_ref()?.front()),
            Self::Keyed(keyed) => keyed.waiting.first_key_value().map(|(_, entry)| &entry.payload),
        }
    }

    /// Takes the first payload out, and returns it with its size.
    pub(super) fn take_first(&mut self) -> Option<(Payload, usize)> {
        match self {
            Self::Fifo(fifo) => fifo.take_first().map(|payload| {
                let size = payload.size();
                (payload, size)
            }),
            Self::Keyed(keyed) => keyed.take_first(),
        }
    }

    /// Takes the payload of this key out, and returns it with its size.
    pub(super) fn remove(&mut self, key: &str) -> Option<(Payload, usize)> {
        if let Self::Keyed(keyed) = self { keyed.remove(key) } else { None }
    }

    /// Takes everything out.
    pub(super) fn take_all(&mut self) -> Vec<Payload> {
        match std::mem::replace(self, Self::fifo()) {
            Self::Fifo(Fifo { oldest, others }) => {
                oldest.into_iter().chain(others.into_iter().flat_map(|others| *others)).collect()
            }
            Self::Keyed(keyed) => keyed.waiting.into_values().map(|entry| entry.payload).collect(),
        }
    }

    /// Calls this with each payload, in order.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&Payload)) {
        match self {
            Self::Fifo(Fifo { oldest, others }) => {
                for payload in oldest.iter().chain(others.iter().flat_map(|others| others.iter())) {
                    visit(payload);
                }
            }
            Self::Keyed(keyed) => {
                for entry in keyed.waiting.values() {
                    visit(&entry.payload);
                }
            }
        }
    }
}

/// Payloads in the order in which they came.
#[derive(Default)]
pub(super) struct Fifo {
    /// The oldest, if it came when nothing waited. A subscriber that keeps up has no other.
    oldest: Option<Payload>,
    /// Boxed, so that what a publisher touches of each subscriber stays small.
    #[allow(clippy::box_collection)]
    others: Option<Box<VecDeque<Payload>>>,
}

impl Fifo {
    /// What an emptied queue may keep of the room that it took at its fullest. With less, publishers would allocate what
    /// readers free, and wait for each other in the allocator.
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

/// The newest payload of each key, in the order in which they came.
#[derive(Default)]
pub(super) struct Keyed {
    waiting: BTreeMap<u64, KeyedEntry>,
    /// Of each key, the one that waits.
    newest: HashMap<Arc<str>, u64>,
    next: u64,
}

struct KeyedEntry {
    payload: Payload,
    key: Option<Arc<str>>,
    /// Of the payload and the key.
    size: usize,
}

impl Keyed {
    fn put(&mut self, payload: Payload, key: Option<&Arc<str>>, size: usize) {
        self.waiting.insert(self.next, KeyedEntry { payload, key: key.cloned(), size });
        let older = key.and_then(|key| self.newest.insert(Arc::clone(key), self.next));
        debug_assert!(older.is_none(), "BUG: two payloads of one key wait");
        self.next += 1;
    }

    fn remove(&mut self, key: &str) -> Option<(Payload, usize)> {
        let older = self.newest.remove(key)?;
        self.waiting.remove(&older).map(|entry| (entry.payload, entry.size))
    }

    fn take_first(&mut self) -> Option<(Payload, usize)> {
        let (_, entry) = self.waiting.pop_first()?;
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
    fn no_key_is_remembered_of_which_nothing_waits() {
        let mut entries = Entries::keyed();
        for key in ["a", "b"] {
            entries.put(payload(), Some(&key.into()), 1);
        }
        assert!(entries.take_first().is_some() && entries.remove("b").is_some());
        let Entries::Keyed(keyed) = &entries else { panic!("another kind of queue") };
        assert!(keyed.newest.is_empty() && keyed.waiting.is_empty());
    }

    #[test]
    fn an_emptied_queue_gives_back_the_room_of_its_fullest_time() {
        let mut entries = Entries::fifo();
        for _ in 0..100 {
            entries.put(payload(), None, 1);
        }
        while entries.take_first().is_some() {}
        let Entries::Fifo(fifo) = &entries else { panic!("another kind of queue") };
        assert!(fifo.others.as_ref().is_none_or(|others| others.capacity() <= Fifo::KEPT_CAPACITY));
    }
}
