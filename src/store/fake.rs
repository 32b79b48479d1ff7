//! A store in memory for tests, which can lose its newest writes, fail and block.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::{Attached, Content, HistoryStore, KeptIn, OpenStore, Record, ReportFailure, Store, Trim, WindowLimits};
use crate::error::{InvalidSetting, StoreError};

/// What the store has written, and how it behaves. Outlives its publishers.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    limits: WindowLimits,
}

struct State {
    lineage: String,
    /// The content after each write, the newest last.
    writes: Vec<Written>,
    /// The newest sequence that was delivered.
    noted: u64,
    /// How often it was opened. It numbers the eras.
    openings: u64,
    is_open: bool,
    is_blocked: bool,
    fails: bool,
    panics: bool,
    report: Option<ReportFailure>,
}

#[derive(Clone, Default)]
struct Written {
    records: BTreeMap<u64, Record<'static>>,
    floors: BTreeMap<Arc<str>, u64>,
    horizon: u64,
    eras: Vec<(u64, u64)>,
    sequence: u64,
    last_loss: u64,
}

impl Disk {
    pub(crate) const MAX_EVENT_BYTES: usize = 1 << 20;

    pub(crate) fn new(events: usize) -> Self {
        let state = State {
            lineage: "fake".into(),
            writes: vec![Written::default()],
            noted: 0,
            openings: 0,
            is_open: false,
            is_blocked: false,
            fails: false,
            panics: false,
            report: None,
        };
        let limits = WindowLimits { events, bytes: usize::MAX, event_bytes: Self::MAX_EVENT_BYTES };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), limits }))
    }

    /// Gives the log another name. The store must be new.
    #[cfg(feature = "client")]
    pub(crate) fn with_lineage(self, lineage: &str) -> Self {
        self.0.state.lock().lineage = lineage.to_owned();
        self
    }

    /// Lets the next append panic.
    pub(crate) fn panic_next(&self) {
        self.0.state.lock().panics = true;
    }

    /// Fails while no event is appended.
    pub(crate) fn fail_in_the_background(&self) {
        let report = self.0.state.lock().report.take();
        report.expect("no store is open")(no_space());
    }

    /// Forgets what was delivered, so that the next opening does not notice a loss.
    pub(crate) fn forget_note(&self) {
        self.0.state.lock().noted = 0;
    }

    /// Takes the newest writes back, as a power loss does. Returns the newest sequence that is left.
    pub(crate) fn lose_writes(&self, count: usize) -> u64 {
        let mut state = self.0.state.lock();
        let left = state.writes.len().saturating_sub(count).max(1);
        state.writes.truncate(left);
        state.newest().sequence
    }

    /// Makes all writes until now safe from [`lose_writes`](Self::lose_writes).
    pub(crate) fn sync(&self) {
        let mut state = self.0.state.lock();
        let newest = state.writes.len() - 1;
        state.writes.drain(..newest);
    }

    /// Lets appends wait, or continue.
    pub(crate) fn block(&self, is_blocked: bool) {
        self.0.state.lock().is_blocked = is_blocked;
        self.0.changed.notify_all();
    }

    /// Lets all later writes fail, or succeed.
    pub(crate) fn fail(&self, fails: bool) {
        self.0.state.lock().fails = fails;
    }

    /// Changes the times at which the events were published, in milliseconds.
    pub(crate) fn change_times(&self, change: impl Fn(u64) -> u64) {
        self.0.state.lock().write(|written| {
            for record in written.records.values_mut() {
                record.at = change(record.at);
            }
        });
    }

    pub(crate) fn events(&self) -> usize {
        self.0.state.lock().newest().records.len()
    }
}

impl State {
    fn newest(&self) -> &Written {
        self.writes.last().expect("BUG: the first write is kept")
    }

    fn write(&mut self, change: impl FnOnce(&mut Written)) {
        let mut written = self.newest().clone();
        change(&mut written);
        self.writes.push(written);
    }
}

impl Written {
    fn apply(&mut self, trim: Trim) {
        for sequence in trim.evicted {
            self.records.remove(&sequence);
        }
        for (channel, floor) in trim.floors {
            match floor {
                Some(floor) => _ = self.floors.insert(channel, floor),
                None => _ = self.floors.remove(&channel),
            }
        }
        for sequence in trim.ambiguous {
            if let Some(record) = self.records.get_mut(&sequence) {
                record.finds_own_id = false;
            }
        }
        self.horizon = trim.horizon;
        self.last_loss = self.last_loss.max(trim.last_loss);
    }
}

impl OpenStore for Disk {
    fn open(&self, _max_bytes: usize) -> Result<Box<dyn Store>, StoreError> {
        let mut state = self.0.state.lock();
        assert!(!std::mem::replace(&mut state.is_open, true), "the store is open already");
        drop(state);
        Ok(Box::new(FakeStore(Arc::clone(&self.0))))
    }

    fn window_limits(&self) -> WindowLimits {
        self.0.limits
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        Ok(())
    }
}

impl From<Disk> for HistoryStore {
    fn from(disk: Disk) -> Self {
        Self(KeptIn::Own(Arc::new(disk)))
    }
}

struct FakeStore(Arc<Shared>);

impl Store for FakeStore {
    fn attach(&mut self) -> Result<Attached, StoreError> {
        let mut state = self.0.state.lock();
        let is_lost = state.noted > state.newest().sequence;
        state.openings += 1;
        let number = state.openings;
        state.write(|written| {
            let first = written.sequence + 1;
            written.eras.retain(|(_, era_first)| *era_first < first);
            written.eras.push((number, first));
            if is_lost {
                written.sequence = first;
                written.last_loss = first;
            }
        });
        let Written { floors, horizon, eras, sequence, last_loss, .. } = state.newest().clone();
        state.noted = sequence;
        let floors = floors.into_iter().collect();
        Ok(Attached { lineage: state.lineage.clone(), eras, sequence, last_loss, floors, horizon })
    }

    fn read(&mut self, event: &mut dyn FnMut(Record<'static>)) -> Result<(), StoreError> {
        let records = self.0.state.lock().newest().records.clone();
        for record in records.into_values() {
            event(record);
        }
        Ok(())
    }

    fn append(&mut self, records: &[Record<'_>], trim: Trim) -> Result<(), StoreError> {
        let mut state = self.0.state.lock();
        while state.is_blocked {
            self.0.changed.wait(&mut state);
        }
        assert!(!std::mem::take(&mut state.panics), "the test wants a panic");
        if state.fails {
            return Err(no_space());
        }
        state.write(|written| {
            written.apply(trim);
            for record in records {
                assert_eq!(record.sequence, written.sequence + 1, "the sequence continues");
                written.sequence = record.sequence;
                written.records.insert(record.sequence, owned(record));
            }
        });
        state.noted = state.newest().sequence;
        Ok(())
    }

    fn note_unstored(&mut self, sequence: u64) {
        self.0.state.lock().noted = sequence;
    }

    fn settle(&mut self, trim: Trim) -> Result<(), StoreError> {
        let disk = Disk(Arc::clone(&self.0));
        disk.0.state.lock().write(|written| written.apply(trim));
        disk.sync();
        Ok(())
    }

    fn report_failure(&mut self, report: ReportFailure) {
        self.0.state.lock().report = Some(report);
    }

    fn close(&mut self, trim: Trim) -> Result<(), StoreError> {
        let mut state = self.0.state.lock();
        if !state.fails {
            state.write(|written| written.apply(trim));
        }
        Ok(())
    }
}

fn no_space() -> StoreError {
    StoreError::Failed { file: "disk".into(), reason: "no space left".into() }
}

impl Drop for FakeStore {
    fn drop(&mut self) {
        self.0.state.lock().is_open = false;
    }
}

fn owned(record: &Record<'_>) -> Record<'static> {
    let text = |text: &str| text.to_owned().into();
    Record {
        sequence: record.sequence,
        at: record.at,
        channels: record.channels.to_vec().into(),
        own_id: record.own_id.as_deref().map(text),
        finds_own_id: record.finds_own_id,
        key: record.key.as_deref().map(text),
        content: match &record.content {
            Content::Fields(fields) => Content::Fields(text(fields)),
            Content::Transform { name, argument, fields } => {
                Content::Transform { name: text(name), argument: text(argument), fields: text(fields) }
            }
            Content::Closure => Content::Closure,
        },
    }
}
