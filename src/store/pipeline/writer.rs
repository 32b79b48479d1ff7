//! The store thread.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Confirmed, Pending, Shared, Sink};
use crate::error::StoreError;
use crate::store::{Record, Store};

/// The store thread.
pub(super) struct Writer<S: Sink> {
    shared: Arc<Shared<S>>,
    store: Box<dyn Store>,
    sink: S,
    /// The sequence of the newest event that is committed.
    sequence: u64,
    /// What is to be done next.
    group: VecDeque<Pending<S>>,
}

/// Notes the end of the store thread, however it ends.
struct Ending<S: Sink>(Arc<Shared<S>>);

impl<S: Sink> Drop for Ending<S> {
    fn drop(&mut self) {
        self.0.set_ended();
    }
}

impl<S: Sink> Writer<S> {
    pub(super) fn new(shared: Arc<Shared<S>>, store: Box<dyn Store>, sink: S, sequence: u64) -> Self {
        Self { shared, store, sink, sequence, group: VecDeque::new() }
    }

    pub(super) fn run(mut self) {
        // Dropped after the store is, so that the next publisher can open it.
        let _ending = Ending(Arc::clone(&self.shared));
        if caught(|| self.work()).is_none() {
            self.give_up();
        }
        self.close_store();
        let Self { store, sink, group, .. } = self;
        caught(|| drop(store));
        let event = |pending| match pending {
            Pending::Event { event, .. } => Some(event),
            Pending::CloseStreams | Pending::Settle | Pending::Failed(_) => None,
        };
        sink.end(group.into_iter().filter_map(event).collect());
    }

    /// Works until the pipeline ends.
    fn work(&mut self) {
        loop {
            self.group = self.shared.next_group();
            if self.group.is_empty() {
                return;
            }
            self.process();
        }
    }

    /// Ends what can no longer be done in order, because committing an event has panicked.
    fn give_up(&mut self) {
        self.set_broken("the store thread has panicked");
        self.group.append(&mut self.shared.refuse_all());
        if self.group.iter().any(|pending| matches!(pending, Pending::CloseStreams)) {
            caught(|| self.sink.close_streams());
        }
    }

    /// Closes the store. If it has failed, or an event is stored that was not committed, it is only dropped, as in a
    /// crash, which the next start handles.
    fn close_store(&mut self) {
        if self.shared.is_broken() {
            return;
        }
        let trim = self.sink.take_trim();
        if let Err(reason) = guarded(&mut self.store, |store| store.close(trim)) {
            self.sink.warn_broken(&reason);
        }
    }

    /// Stores the events of the group, then commits them in order.
    fn process(&mut self) {
        let is_stored = self.append();
        while let Some(pending) = self.group.pop_front() {
            let mut size_of_event = None;
            match pending {
                Pending::Event { event, size, confirm } => {
                    size_of_event = Some(size);
                    let committed = self.sink.commit(event);
                    self.sequence += 1;
                    if let Some(confirm) = confirm {
                        let result = if is_stored { Confirmed::Stored(committed) } else { Confirmed::DeliveredOnly };
                        // The publisher may have stopped waiting.
                        let _ = confirm.send(result);
                    }
                }
                Pending::CloseStreams => self.sink.close_streams(),
                Pending::Settle => self.settle(),
                Pending::Failed(error) => self.set_broken(&error.to_string()),
            }
            self.shared.count_done(size_of_event, is_stored);
        }
    }

    /// Stores the events of the group, unless the store is broken. Returns whether they are stored.
    fn append(&mut self) -> bool {
        let events = self.group.iter().filter_map(|pending| match pending {
            Pending::Event { event, .. } => Some(event),
            Pending::CloseStreams | Pending::Settle | Pending::Failed(_) => None,
        });
        let records: Vec<Record<'_>> =
            (self.sequence + 1..).zip(events).map(|(sequence, event)| S::record(event, sequence)).collect();
        let Some(newest) = records.last().map(|record| record.sequence) else { return true };
        // Taken from a broken store too, because it would grow.
        let trim = self.sink.take_trim();
        if !self.shared.is_broken() {
            match guarded(&mut self.store, |store| store.append(&records, trim)) {
                Ok(()) => return true,
                Err(reason) => self.set_broken(&reason),
            }
        }
        // If it panics, nothing shows the loss until a client returns with the ID of a lost event.
        caught(|| self.store.note_unstored(newest));
        false
    }

    fn settle(&mut self) {
        let trim = self.sink.take_trim();
        if self.shared.is_broken() {
            return;
        }
        if let Err(reason) = guarded(&mut self.store, |store| store.settle(trim)) {
            self.set_broken(&reason);
        }
    }

    fn set_broken(&mut self, reason: &str) {
        if self.shared.set_broken(reason) {
            self.sink.warn_broken(reason);
        }
    }
}

/// Uses the store. A panic is a failure of the store: it is not used again, so its state no longer matters.
fn guarded(
    store: &mut Box<dyn Store>,
    use_store: impl FnOnce(&mut dyn Store) -> Result<(), StoreError>,
) -> Result<(), String> {
    match caught(|| use_store(&mut **store)) {
        Some(used) => used.map_err(|error| error.to_string()),
        None => Err("the store has panicked".into()),
    }
}

/// Catches a panic, which the panic hook has reported. Returns `None` then.
fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    let called = catch_unwind(AssertUnwindSafe(call));
    // Dropping what it panicked with may panic too.
    called.map_err(std::mem::forget).ok()
}
