//! The way of an event from `publish` through a store to its subscribers.

// A publisher puts an event into the window, which is bounded, and continues. The store thread takes what has come,
// stores it as one group, and then commits it event by event: assigns the ID, keeps it in the history, and queues it for
// its subscribers. So an event is stored before it is delivered, and the store's order is the order.
//
//     publish -> window -> store thread: append to the store -> commit to the registry -> subscribers
//
// If the store fails or panics, delivery continues without it, and the next start reports the loss. The store thread runs
// no application code.

mod writer;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex, MutexGuard};

use self::writer::Writer;
use super::{Record, Store, StoreState, Trim};
use crate::error::StoreError;
use crate::stats::StoreStats;

/// The limits of the events that are accepted and not stored yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowLimits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    /// The largest event.
    pub(crate) event_bytes: usize,
}

impl WindowLimits {
    /// Checks whether an event of this size is accepted while these events and bytes wait.
    pub(crate) fn check(&self, events: usize, bytes: usize, size: usize) -> Result<(), NotAccepted> {
        let is_full = events >= self.events || bytes.saturating_add(size) > self.bytes;
        match () {
            () if size > self.event_bytes => Err(NotAccepted::TooLarge),
            // An event larger than the limit fits into an empty window.
            () if is_full && events > 0 => Err(NotAccepted::Full),
            () => Ok(()),
        }
    }
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

    /// Drops the sink, and events that were not committed, without running application code on this thread.
    fn end(self, events: Vec<Self::Event>);
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
    /// The store has failed while it was not in use.
    Failed(StoreError),
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
    TooLarge,
    Ended,
    /// A shared store cannot be reached.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    Away,
}

impl<S: Sink> Pipeline<S> {
    /// Starts the store thread, which continues this sequence.
    pub(crate) fn start(mut store: Box<dyn Store>, sink: S, sequence: u64, limits: WindowLimits) -> io::Result<Self> {
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
        let for_report = Arc::clone(&shared);
        store.report_failure(Box::new(move |error| _ = for_report.order(Pending::Failed(error))));
        let writer = Writer::new(Arc::clone(&shared), store, sink, sequence);
        thread::Builder::new().name("sse store".into()).spawn(move || writer.run())?;
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
        let checked = limits.check(state.events, state.bytes, size);
        checked.inspect_err(|_| state.stats.events_refused += 1)?;
        state.events += 1;
        state.bytes += size;
        self.0.push(&mut state, Pending::Event { event, size, confirm });
        Ok(())
    }

    /// Ends all streams after the events that were accepted before. Returns `false` if the store thread no longer does
    /// that, so that the caller must.
    pub(crate) fn close_streams(&self) -> bool {
        self.0.order(Pending::CloseStreams)
    }

    /// Waits until everything that was accepted before is committed, and durable. Returns when the deadline passes.
    pub(crate) fn settle(&self, deadline: Instant) {
        self.0.order(Pending::Settle);
        self.flush(deadline);
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

impl<S: Sink> Shared<S> {
    /// The most events in one group. Larger groups delay their first event.
    const GROUP: usize = 256;

    /// Puts this behind all that was accepted before. Returns `false` if the pipeline ends.
    fn order(&self, pending: Pending<S>) -> bool {
        let mut state = self.state.lock();
        let accepts = state.ends_by.is_none();
        if accepts {
            self.push(&mut state, pending);
        }
        accepts
    }

    fn push(&self, state: &mut State<S>, pending: Pending<S>) {
        state.accepted += 1;
        state.window.push_back(pending);
        if std::mem::take(&mut state.is_idle) {
            self.pending.notify_one();
        }
    }

    /// Waits for pending work. Returns nothing once there is none left and the pipeline ends.
    fn next_group(&self) -> VecDeque<Pending<S>> {
        let mut state = self.state.lock();
        while state.window.is_empty() && state.ends_by.is_none() {
            state.is_idle = true;
            self.pending.wait(&mut state);
            // The scheduler often lets a woken thread run at once in place of the one that woke it: a publisher.
            MutexGuard::unlocked(&mut state, thread::yield_now);
        }
        state.is_idle = false;
        let count = state.window.len().min(Self::GROUP);
        state.window.drain(..count).collect()
    }

    fn is_broken(&self) -> bool {
        self.state.lock().broken.is_some()
    }

    /// Notes that the store has failed. Returns `false` if it had failed before.
    fn set_broken(&self, reason: &str) -> bool {
        let mut state = self.state.lock();
        let is_first = state.broken.is_none();
        state.broken.get_or_insert_with(|| reason.into());
        is_first
    }

    /// Accepts nothing from now on. Returns what is left.
    fn refuse_all(&self) -> VecDeque<Pending<S>> {
        let mut state = self.state.lock();
        state.ends_by.get_or_insert_with(Instant::now);
        std::mem::take(&mut state.window)
    }

    /// Counts that the oldest pending work is done; `event` is the size of an event.
    fn count_done(&self, event: Option<usize>, is_stored: bool) {
        let mut state = self.state.lock();
        state.done += 1;
        if let Some(size) = event {
            state.events -= 1;
            state.bytes -= size;
            let StoreStats { events_stored, events_not_stored, .. } = &mut state.stats;
            *(if is_stored { events_stored } else { events_not_stored }) += 1;
        }
        drop(state);
        self.progress.notify_all();
    }

    /// Notes that the store thread has ended. All waiting calls return.
    fn set_ended(&self) {
        let mut state = self.state.lock();
        state.ends_by.get_or_insert_with(Instant::now);
        state.has_ended = true;
        state.done = state.accepted;
        drop(state);
        self.progress.notify_all();
    }
}

#[cfg(test)]
mod tests;
