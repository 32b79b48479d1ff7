//! A store that several processes share: its order is the order of all of them.

// A publisher puts an event into the window, which is bounded, and continues. One thread sends what has come to the store.
// Another one reads the store, and commits each event in the order of the store: also the events of other processes. The
// window holds an event until it has come back. So what the store has lost before anybody saw it is sent again.
//
//     publish -> window -> writer thread -> store -> reader thread: commit to the registry -> subscribers

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Connection, NotAccepted, Record, StoreState, WindowLimits};
use crate::error::InvalidSetting;
use crate::stats::StoreStats;

/// The settings of a shared store, from which it is opened.
pub(crate) trait OpenShared: Send + Sync {
    /// Checks the settings.
    fn check(&self) -> Result<(), InvalidSetting>;

    fn window_limits(&self) -> WindowLimits;

    /// Starts the threads of the store. Returns the reason if that is not possible.
    fn start(&self, sink: Box<dyn SharedSink>) -> Result<Arc<dyn SharedStore>, String>;
}

/// The state of a shared log at the start of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedLog {
    pub(crate) lineage: String,
    /// The number and the first sequence of each era, the oldest first.
    pub(crate) eras: Vec<(u64, u64)>,
    /// The oldest sequence that it holds; one more than the newest if it holds none.
    pub(crate) oldest: u64,
    pub(crate) newest: u64,
}

impl SharedLog {
    /// Returns the number of the newest era.
    pub(crate) fn newest_era(&self) -> u64 {
        self.eras.last().expect("BUG: a log without an era was accepted").0
    }

    /// Returns the number of the era of the entry with this sequence.
    pub(crate) fn era(&self, sequence: u64) -> u64 {
        let era = self.eras.partition_point(|(_, first)| *first <= sequence).saturating_sub(1);
        self.eras[era].0
    }
}

/// Where the log of a shared store arrives.
pub(crate) trait SharedSink: Send {
    /// Takes over the state of the log, at the start of a connection. Returns the sequence after which it is read, and
    /// `false` if that is not where it was read before, because it is another log or has lost events.
    fn begin(&mut self, log: &SharedLog) -> (u64, bool);

    /// Commits the next event, in the order of the log.
    fn event(&mut self, record: Record<'static>) -> Committed;

    /// Disconnects the subscribers of this quota key, and goes on to this sequence.
    fn disconnect(&mut self, sequence: u64, quota_key: &str);

    /// Goes on to this sequence, where no event is.
    fn advance(&mut self, sequence: u64);

    /// Reports that entries are missing before this sequence, and goes on to it.
    fn lose(&mut self, sequence: u64);

    /// Gives up what has waited for too long. Must be called about once per second while connected.
    fn expire(&mut self);

    /// Takes the reason why the store cannot be used; `None` while it can. Logs when that changes. Must be called about once
    /// per second while connected.
    fn report(&mut self, trouble: Option<String>);

    /// Takes the ID of a lost event that a client has shown.
    fn take_lost_id(&mut self) -> Option<String>;

    /// Returns the ID of the newest event that was committed; `None` before the first connection.
    fn newest_id(&self) -> Option<String>;

    /// Ends all streams after what was committed.
    fn close_streams(&mut self);

    /// Returns the state of the connection.
    fn connection(&self) -> Arc<Connection>;

    /// Drops the sink without running application code on this thread.
    fn end(self: Box<Self>);
}

/// The result of an event that was committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) subscribers: usize,
    pub(crate) id: Option<String>,
}

/// Gets the result of an event once it is committed.
pub(crate) type OnCommit = Box<dyn FnOnce(Committed) + Send>;

/// The publisher's side of a shared store.
pub(crate) trait SharedStore: Send + Sync {
    /// Accepts an event. Does not block.
    fn offer(&self, record: &Record<'_>, size: usize, on_commit: Option<OnCommit>) -> Result<(), NotAccepted>;

    /// Accepts to disconnect the subscribers of this quota key, of all processes. Does not block.
    fn disconnect(&self, quota_key: &str) -> Result<(), NotAccepted>;

    /// Ends all streams after the events that were accepted before. Returns `false` if there are none, or if the store
    /// is away, so that the caller must.
    fn close_streams(&self) -> bool;

    /// Waits until everything that was accepted before is committed. Returns `false` if the deadline passes first.
    fn flush(&self, deadline: Instant) -> bool;

    fn state(&self) -> StoreState;

    fn stats(&self) -> StoreStats;

    /// Refuses further events, and waits until those that were accepted are committed, for at most `patience`. Then stops
    /// the threads, without waiting for them.
    fn end(&self, patience: Duration);
}
