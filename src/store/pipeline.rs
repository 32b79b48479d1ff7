//! The way of an event from `publish` through a store to its subscribers.

// A publisher puts an event into the window, which is bounded, and continues. The store thread takes what has come,
// stores it as one group, and then commits it event by event: assigns the ID, keeps it in the history, and queues it for
// its subscribers. So an event is stored before it is delivered, and the store's order is the order.
//
//     publish -> window -> store thread: append to the store -> commit to the registry -> subscribers
//
// If the store fails, delivery continues without it, and the next start reports the loss. The store thread runs no
// application code.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{Record, Store, StoreState, Trim};
use crate::stats::StoreStats;

/// The limits of the events that are accepted and not stored yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowLimits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// The publisher's side of the pipeline: where the events are committed.
pub(crate) trait Sink: Send + 'static {
    type Event: Send + 'static;
    type Committed: Send + 'static;

    /// Returns the event as the store keeps it.
    fn record(event: &Self::Event, sequence: u64) -> Record<'_>;

    /// Delivers the next event.
    fn commit(&mut self, event: Self::Event) -> Self::Committed;

    /// Takes what the history has evicted since the last call.
    fn take_trim(&mut self) -> Trim;

    /// Ends all streams after what was committed.
    fn close_streams(&mut self);

    /// Logs that the store has failed, on a thread that may run application code.
    fn warn_broken(&mut self, reason: &str);
}

/// The events that are accepted and not committed, and the thread that stores them.
pub(crate) struct Pipeline<S: Sink>(Arc<Shared<S>>);

struct Shared<S: Sink> {
    state: Mutex<State<S>>,
    limits: WindowLimits,
    /// Notified when something is pending, or the pipeline ends.
    pending: Condvar,
    /// Notified when something was committed, and when the thread has ended.
    progress: Condvar,
}

struct State<S: Sink> {
    window: VecDeque<Pending<S>>,
    /// The accepted events that are not committed.
    events: usize,
    bytes: usize,
    /// The number of events and closings that were accepted, and how many of them are done.
    accepted: u64,
    done: u64,
    stats: StoreStats,
    /// The store thread waits for something pending.
    is_idle: bool,
    broken: Option<Arc<str>>,
    /// The deadline of all calls of `end`. Once it is set, no further event is accepted.
    ends_by: Option<Instant>,
    has_ended: bool,
}

/// Sends the result of an event to its publisher.
type Confirm<S> = Sender<Confirmed<<S as Sink>::Committed>>;

enum Pending<S: Sink> {
    Event {
        event: S::Event,
        size: usize,
        confirm: Option<Confirm<S>>,
    },
    CloseStreams,
    /// Makes the store durable.
    Settle,
}

/// The result of an event that its publisher waits for.
pub(crate) enum Confirmed<C> {
    Stored(C),
    /// It was delivered, and the store has failed to keep it.
    DeliveredOnly,
}

/// The reason why an event was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAccepted {
    Full,
    Ended,
}

impl<S: Sink> Pipeline<S> {
    /// The most events in one group. Larger groups delay their first event.
    const GROUP: usize = 256;

    /// Starts the store thread, which continues this sequence.
    pub(crate) fn start(store: Box<dyn Store>, sink: S, sequence: u64, limits: WindowLimits) -> io::Result<Self> {
        let state = State {
            window: VecDeque::new(),
            events: 0,
            bytes: 0,
            accepted: 0,
            done: 0,
            stats: StoreStats::default(),
            is_idle: false,
            broken: None,
            ends_by: None,
            has_ended: false,
        };
        let (pending, progress) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state: Mutex::new(state), limits, pending, progress });
        let writer = Writer { shared: Arc::clone(&shared), store, sink, sequence };
        let ending = Ending(Arc::clone(&shared));
        thread::Builder::new().name("sse store".into()).spawn(move || {
            // Dropped after the store is.
            let _ending = ending;
            writer.run();
        })?;
        Ok(Self(shared))
    }

    /// Accepts an event, which is committed after all that were accepted before. Does not block.
    pub(crate) fn offer(&self, event: S::Event, size: usize) -> Result<(), NotAccepted> {
        self.accept(event, size, None)
    }

    /// Accepts an event as [`offer`](Self::offer) does. The receiver gets the result.
    pub(crate) fn offer_confirmed(
        &self,
        event: S::Event,
        size: usize,
    ) -> Result<Receiver<Confirmed<S::Committed>>, NotAccepted> {
        let (confirm, confirmed) = bounded(1);
        self.accept(event, size, Some(confirm))?;
        Ok(confirmed)
    }

    fn accept(&self, event: S::Event, size: usize, confirm: Option<Confirm<S>>) -> Result<(), NotAccepted> {
        let Shared { state, limits, .. } = &*self.0;
        let mut state = state.lock();
        if state.ends_by.is_some() {
            return Err(NotAccepted::Ended);
        }
        // An event larger than the limit fits into an empty window.
        let is_full = state.events >= limits.events || state.bytes.saturating_add(size) > limits.bytes;
        if is_full && state.events > 0 {
            state.stats.events_refused += 1;
            return Err(NotAccepted::Full);
        }
        state.events += 1;
        state.bytes += size;
        self.push(&mut state, Pending::Event { event, size, confirm });
        Ok(())
    }

    /// Ends all streams after the events that were accepted before.
    pub(crate) fn close_streams(&self) {
        self.order(Pending::CloseStreams);
    }

    /// Waits until everything that was accepted before is committed, and durable. Returns when the deadline passes.
    pub(crate) fn settle(&self, deadline: Instant) {
        self.order(Pending::Settle);
        self.flush(deadline);
    }

    fn order(&self, pending: Pending<S>) {
        let mut state = self.0.state.lock();
        if state.ends_by.is_none() {
            self.push(&mut state, pending);
        }
    }

    fn push(&self, state: &mut State<S>, pending: Pending<S>) {
        state.accepted += 1;
        state.window.push_back(pending);
        if std::mem::take(&mut state.is_idle) {
            self.0.pending.notify_one();
        }
    }

    /// Waits until everything that was accepted before is committed. Returns `false` if the deadline passes first.
    pub(crate) fn flush(&self, deadline: Instant) -> bool {
        let mut state = self.0.state.lock();
        let accepted = state.accepted;
        while state.done < accepted {
            if self.0.progress.wait_until(&mut state, deadline).timed_out() {
                return state.done >= accepted;
            }
        }
        true
    }

    pub(crate) fn state(&self) -> StoreState {
        let state = self.0.state.lock();
        match &state.broken {
            Some(reason) => StoreState::Broken { reason: reason.to_string() },
            None => StoreState::Running { pending: state.events },
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.0.state.lock().broken.is_some()
    }

    pub(crate) fn stats(&self) -> StoreStats {
        let state = self.0.state.lock();
        StoreStats { pending: state.events, ..state.stats }
    }

    /// Refuses further events, commits those that were accepted, and closes the store. Waits for that, but no longer
    /// than `patience`. All calls together wait no longer than the first.
    pub(crate) fn end(&self, patience: Duration) {
        let mut state = self.0.state.lock();
        let deadline = *state.ends_by.get_or_insert_with(|| Instant::now() + patience);
        self.0.pending.notify_one();
        while !state.has_ended && !self.0.progress.wait_until(&mut state, deadline).timed_out() {}
    }
}

/// Ends the pipeline when the store thread ends, even by a panic.
struct Ending<S: Sink>(Arc<Shared<S>>);

impl<S: Sink> Drop for Ending<S> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if thread::panicking() {
            state.broken.get_or_insert_with(|| "the store thread has panicked".into());
            state.ends_by.get_or_insert_with(Instant::now);
        }
        state.has_ended = true;
        state.done = state.accepted;
        let left = std::mem::take(&mut state.window);
        drop(state);
        self.0.progress.notify_all();
        // Its publishers stop waiting.
        drop(left);
    }
}

/// The store thread.
struct Writer<S: Sink> {
    shared: Arc<Shared<S>>,
    store: Box<dyn Store>,
    sink: S,
    sequence: u64,
}

impl<S: Sink> Writer<S> {
    fn run(mut self) {
        while let Some(group) = self.next_group() {
            self.process(group);
        }
        let trim = self.sink.take_trim();
        // Its failure leaves a store that was not closed, which the next start handles.
        if let Err(error) = self.store.close(trim) {
            self.sink.warn_broken(&error.to_string());
        }
    }

    /// Waits for pending work. Returns `None` once there is none left and the pipeline ends.
    fn next_group(&self) -> Option<Vec<Pending<S>>> {
        let mut state = self.shared.state.lock();
        while state.window.is_empty() {
            if state.ends_by.is_some() {
                return None;
            }
            state.is_idle = true;
            self.shared.pending.wait(&mut state);
            // The scheduler often lets a woken thread run at once in place of the one that woke it: a publisher.
            MutexGuard::unlocked(&mut state, thread::yield_now);
        }
        state.is_idle = false;
        let count = state.window.len().min(Pipeline::<S>::GROUP);
        Some(state.window.drain(..count).collect())
    }

    /// Stores the events of a group, then commits them in order.
    fn process(&mut self, group: Vec<Pending<S>>) {
        let is_stored = self.append(&group);
        for pending in group {
            match pending {
                Pending::Event { event, size, confirm } => {
                    let committed = self.sink.commit(event);
                    self.sequence += 1;
                    if let Some(confirm) = confirm {
                        let result = if is_stored { Confirmed::Stored(committed) } else { Confirmed::DeliveredOnly };
                        // The publisher may have stopped waiting.
                        let _ = confirm.send(result);
                    }
                    self.count_done(Some(size), is_stored);
                }
                Pending::CloseStreams => {
                    self.sink.close_streams();
                    self.count_done(None, is_stored);
                }
                Pending::Settle => {
                    self.settle();
                    self.count_done(None, is_stored);
                }
            }
        }
    }

    /// Stores the events of a group, unless the store is broken. Returns whether they are stored.
    fn append(&mut self, group: &[Pending<S>]) -> bool {
        let events = group.iter().filter_map(|pending| match pending {
            Pending::Event { event, .. } => Some(event),
            Pending::CloseStreams | Pending::Settle => None,
        });
        let records: Vec<Record<'_>> =
            (self.sequence + 1..).zip(events).map(|(sequence, event)| S::record(event, sequence)).collect();
        let Some(newest) = records.last().map(|record| record.sequence) else { return true };
        // Taken from a broken store too, because it would grow.
        let trim = self.sink.take_trim();
        if !self.is_broken() {
            match self.store.append(&records, trim) {
                Ok(()) => return true,
                Err(error) => {
                    let reason = error.to_string();
                    self.set_broken(&reason);
                }
            }
        }
        self.store.note_unstored(newest);
        false
    }

    fn settle(&mut self) {
        let trim = self.sink.take_trim();
        if self.is_broken() {
            return;
        }
        if let Err(error) = self.store.settle(trim) {
            self.set_broken(&error.to_string());
        }
    }

    fn is_broken(&self) -> bool {
        self.shared.state.lock().broken.is_some()
    }

    fn set_broken(&mut self, reason: &str) {
        self.sink.warn_broken(reason);
        self.shared.state.lock().broken = Some(reason.into());
    }

    /// Counts that the oldest pending work is done; `event` is the size of an event.
    fn count_done(&self, event: Option<usize>, is_stored: bool) {
        let mut state = self.shared.state.lock();
        state.done += 1;
        if let Some(size) = event {
            state.events -= 1;
            state.bytes -= size;
            let StoreStats { events_stored, events_not_stored, .. } = &mut state.stats;
            *(if is_stored { events_stored } else { events_not_stored }) += 1;
        }
        drop(state);
        self.shared.progress.notify_all();
    }
}
