//! The events that are published here and have not come back from Redis.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::entry::{self, Field, Origin};
use crate::spread;
use crate::stats::StoreStats;
use crate::store::{Committed, Connection, NotAccepted, OnCommit, Record, SharedStore, StoreState, WindowLimits};

/// The events that are published here and have not come back from Redis, for the publisher, the writer and the reader.
pub(super) struct Window {
    /// The random name of this publisher.
    publisher: Arc<str>,
    limits: WindowLimits,
    /// The state of the reader's connection.
    connection: Arc<Connection>,
    state: Mutex<State>,
    /// Notified when there is something for the writer.
    pending: Condvar,
    /// Notified when events have come back, and when the threads are stopped.
    progress: Condvar,
}

#[derive(Default)]
struct State {
    /// In the order of their numbers, which follow each other.
    events: VecDeque<Pending>,
    bytes: usize,
    /// The number of the newest event that was accepted.
    accepted: u64,
    /// The number of the newest event that has come back.
    committed: u64,
    /// The number of the event after which all streams end.
    close_after: Option<u64>,
    /// The history and its era in which the writer sends.
    era: (String, u64),
    /// The number of the newest event that Redis has acknowledged in this era.
    acknowledged: u64,
    /// The sequence up to which the reader has found entries missing.
    skipped: u64,
    /// The writer must attach again.
    attaches: bool,
    /// Since when the writer fails, and the error of its last attempt.
    failing: Option<(Instant, String)>,
    /// The deadline of all calls of `end`. Once it is set, no further event is accepted.
    ends_by: Option<Instant>,
    is_stopped: bool,
    stats: StoreStats,
}

impl State {
    /// Removes the oldest event, which is stored.
    fn pop(&mut self) -> Option<OnCommit> {
        let event = self.events.pop_front().expect("BUG: an event was accepted, and is not in the window");
        self.bytes -= event.size;
        self.committed += 1;
        self.stats.events_stored += u64::from(event.is_event);
        event.on_commit
    }

    /// Removes the oldest events as far as they are acknowledged, and the reader has found them missing.
    fn pop_skipped(&mut self) -> Vec<(OnCommit, Committed)> {
        let mut skipped = Vec::new();
        while let Some(sequence) = self.events.front().and_then(|event| event.sequence)
            && sequence <= self.skipped
        {
            let (lineage, era) = &self.era;
            let id = Some(format!("{lineage}.{era}-{sequence}"));
            skipped.extend(self.pop().map(|on_commit| (on_commit, Committed { subscribers: 0, id })));
        }
        skipped
    }
}

struct Pending {
    fields: Arc<[Field]>,
    size: usize,
    /// Its sequence, once Redis has acknowledged it in this era.
    sequence: Option<u64>,
    /// `false` for an entry that disconnects subscribers.
    is_event: bool,
    on_commit: Option<OnCommit>,
}

/// What the writer is to do next.
pub(super) enum Next {
    /// Send these events, the first of which has this number.
    Send(u64, Vec<Arc<[Field]>>),
    /// Attach again: the history may be another one, or in another era.
    Attach,
    Stop,
}

impl Window {
    /// The most events and bytes that are sent together.
    const GROUP: usize = 256;
    const GROUP_BYTES: usize = 1 << 20;

    pub(super) fn new(limits: WindowLimits, connection: Arc<Connection>) -> Self {
        let publisher = format!("{:016x}", spread::random()).into();
        let (pending, progress) = (Condvar::new(), Condvar::new());
        Self { publisher, limits, connection, state: Mutex::default(), pending, progress }
    }

    /// Returns the field that shows an event's origin.
    pub(super) fn origin(&self, number: u64) -> String {
        format!("{}:{number}", self.publisher)
    }

    /// Accepts an entry, within the limits.
    fn accept(&self, entry: Pending) -> Result<(), NotAccepted> {
        let mut state = self.state.lock();
        if state.ends_by.is_some() {
            return Err(NotAccepted::Ended);
        }
        let checked = self.limits.check(state.events.len(), state.bytes, entry.size);
        checked.inspect_err(|_| state.stats.events_refused += u64::from(entry.is_event))?;
        state.accepted += 1;
        state.bytes += entry.size;
        state.events.push_back(entry);
        drop(state);
        self.pending.notify_one();
        Ok(())
    }

    /// Waits for events that Redis has not acknowledged in this era.
    pub(super) fn next(&self) -> Next {
        let mut state = self.state.lock();
        loop {
            if state.is_stopped {
                return Next::Stop;
            }
            if std::mem::take(&mut state.attaches) {
                return Next::Attach;
            }
            let first = state.acknowledged.max(state.committed) + 1;
            if first <= state.accepted {
                let oldest = state.committed + 1;
                let (mut group, mut bytes) = (Vec::new(), 0);
                for event in state.events.iter().skip((first - oldest) as usize).take(Self::GROUP) {
                    if bytes > 0 && bytes + event.size > Self::GROUP_BYTES {
                        break;
                    }
                    bytes += event.size;
                    group.push(Arc::clone(&event.fields));
                }
                return Next::Send(first, group);
            }
            self.pending.wait(&mut state);
        }
    }

    /// Makes the writer attach again.
    pub(super) fn attach(&self) {
        self.state.lock().attaches = true;
        self.pending.notify_one();
    }

    /// Notes the history and the era in which the writer sends from now on. What an earlier one has acknowledged may be
    /// lost, so it is sent again, unless it has come back.
    pub(super) fn begin(&self, lineage: &str, era: u64) {
        let mut state = self.state.lock();
        if state.era.0 != lineage || state.era.1 != era {
            state.era = (lineage.to_owned(), era);
            (state.acknowledged, state.skipped) = (0, 0);
            for event in &mut state.events {
                event.sequence = None;
            }
        }
        // Otherwise only an acknowledgement shows that it works: Redis may be out of memory.
        if state.events.is_empty() {
            state.failing = None;
        }
    }

    /// Notes that Redis has acknowledged the events from this number on, with these sequences.
    pub(super) fn acknowledge(&self, first: u64, sequences: &[u64]) {
        let mut state = self.state.lock();
        state.failing = None;
        state.acknowledged = first + sequences.len() as u64 - 1;
        let oldest = state.committed + 1;
        for (number, sequence) in (first..).zip(sequences) {
            // It may have come back before.
            if number >= oldest
                && let Some(event) = state.events.get_mut((number - oldest) as usize)
            {
                event.sequence = Some(*sequence);
            }
        }
        let skipped = state.pop_skipped();
        drop(state);
        self.finish_skipped(skipped);
    }

    /// Notes that the reader has found everything missing up to this sequence. What Redis has acknowledged there does not
    /// come back.
    pub(super) fn skip(&self, sequence: u64) {
        let mut state = self.state.lock();
        state.skipped = state.skipped.max(sequence);
        let skipped = state.pop_skipped();
        drop(state);
        self.finish_skipped(skipped);
    }

    fn finish_skipped(&self, skipped: Vec<(OnCommit, Committed)>) {
        self.progress.notify_all();
        for (on_commit, committed) in skipped {
            on_commit(committed);
        }
    }

    /// Returns the error if the writer fails.
    pub(super) fn failure(&self) -> Option<String> {
        self.state.lock().failing.as_ref().map(|(_, error)| error.clone())
    }

    /// Notes that the writer has failed with this error.
    pub(super) fn fail(&self, error: String) {
        let mut state = self.state.lock();
        let since = state.failing.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        state.failing = Some((since, error));
    }

    /// Notes that an event has come back. Returns whether all streams are to be ended now.
    pub(super) fn commit(&self, origin: &Origin, committed: Committed) -> bool {
        if origin.publisher != self.publisher {
            return false;
        }
        let mut state = self.state.lock();
        let mut on_commit = None;
        // The store keeps the order, so this is the oldest.
        while state.committed < origin.number.min(state.accepted) {
            on_commit = state.pop();
        }
        let closes = state.close_after.take_if(|number| *number <= origin.number).is_some();
        drop(state);
        self.progress.notify_all();
        if let Some(on_commit) = on_commit {
            on_commit(committed);
        }
        closes
    }

    /// Counts an entry that has come twice.
    pub(super) fn count_duplicate(&self) {
        self.state.lock().stats.duplicates_dropped += 1;
    }

    /// Waits for this time. Returns `true` at once if the threads are stopped.
    pub(super) fn wait(&self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        let mut state = self.state.lock();
        while !state.is_stopped && !self.progress.wait_until(&mut state, deadline).timed_out() {}
        state.is_stopped
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state.lock().is_stopped
    }

    /// Stops the threads.
    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        state.ends_by.get_or_insert_with(Instant::now);
        state.is_stopped = true;
        // Their publishers stop waiting.
        let events = std::mem::take(&mut state.events);
        (state.bytes, state.committed) = (0, state.accepted);
        drop(state);
        self.pending.notify_all();
        self.progress.notify_all();
        drop(events);
    }
}

impl SharedStore for Window {
    fn offer(&self, record: &Record<'_>, size: usize, on_commit: Option<OnCommit>) -> Result<(), NotAccepted> {
        let fields = entry::fields(record).into();
        self.accept(Pending { fields, size, sequence: None, is_event: true, on_commit })
    }

    fn disconnect(&self, quota_key: &str) -> Result<(), NotAccepted> {
        // Later it would disconnect those too that have resumed meanwhile.
        if !matches!(self.state(), StoreState::Running { .. }) {
            return Err(NotAccepted::Away);
        }
        let (fields, size) = (entry::disconnect_fields(quota_key).into(), quota_key.len());
        self.accept(Pending { fields, size, sequence: None, is_event: false, on_commit: None })
    }

    fn close_streams(&self) -> bool {
        let mut state = self.state.lock();
        let waits = !state.events.is_empty() && !state.is_stopped && !self.connection.is_lost();
        if waits {
            state.close_after = Some(state.accepted);
        }
        waits
    }

    fn flush(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        let accepted = state.accepted;
        while state.committed < accepted {
            if self.progress.wait_until(&mut state, deadline).timed_out() {
                return state.committed >= accepted;
            }
        }
        true
    }

    fn state(&self) -> StoreState {
        let state = self.state.lock();
        match (self.connection.state(), &state.failing) {
            (StoreState::Running { .. }, Some((since, reason))) => {
                StoreState::Away { since: *since, reason: reason.clone() }
            }
            (StoreState::Running { .. }, None) => StoreState::Running { pending: state.events.len() },
            (other, _) => other,
        }
    }

    fn stats(&self) -> StoreStats {
        let state = self.state.lock();
        StoreStats { pending: state.events.len(), connections_lost: self.connection.times_lost(), ..state.stats }
    }

    fn end(&self, patience: Duration) {
        let mut state = self.state.lock();
        let deadline = *state.ends_by.get_or_insert_with(|| Instant::now() + patience);
        while !state.events.is_empty() && !self.progress.wait_until(&mut state, deadline).timed_out() {}
        drop(state);
        self.stop();
    }
}
