//! The way of events through a store, of one process or of several.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use super::Receipt;
use super::stored::{Commits, StoredEvent};
use crate::stats::StoreStats;
use crate::store::{Committed, Confirmed, NotAccepted, OnCommit, Pipeline, SharedStore, Sink, StoreState};

/// The way of events through a store.
pub(super) trait EventStore: Send + Sync {
    /// Returns whether a closure without a name can be delivered this way.
    fn takes_closures(&self) -> bool;

    /// Accepts an event. Does not block.
    fn offer(&self, event: StoredEvent, size: usize) -> Result<(), NotAccepted>;

    /// Accepts an event. The receiver gets the result, or ends without one.
    fn offer_confirmed(&self, event: StoredEvent, size: usize) -> Result<Receiver<Confirmed<Receipt>>, NotAccepted>;

    /// Accepts to disconnect the subscribers of this quota key, of all processes. Returns `false` if the caller must do
    /// it. Does not block.
    fn disconnect(&self, quota_key: &str) -> Result<bool, NotAccepted>;

    /// Ends all streams after the events that were accepted before. Returns `false` if the caller must do it.
    fn close_streams(&self) -> bool;

    /// Waits until everything that was accepted before is committed, and durable. Returns when the deadline passes.
    fn settle(&self, deadline: Instant);

    /// Waits until everything that was accepted before is committed. Returns `false` if the deadline passes first.
    fn flush(&self, deadline: Instant) -> bool;

    fn state(&self) -> StoreState;

    /// Returns whether the store has failed for good.
    fn is_broken(&self) -> bool;

    fn stats(&self) -> StoreStats;

    /// Refuses further events, and waits for those that were accepted, for at most `patience`.
    fn end(&self, patience: Duration);
}

impl EventStore for Pipeline<Commits> {
    fn takes_closures(&self) -> bool {
        true
    }

    fn offer(&self, event: StoredEvent, size: usize) -> Result<(), NotAccepted> {
        self.offer(event, size)
    }

    fn offer_confirmed(&self, event: StoredEvent, size: usize) -> Result<Receiver<Confirmed<Receipt>>, NotAccepted> {
        self.offer_confirmed(event, size)
    }

    fn disconnect(&self, _: &str) -> Result<bool, NotAccepted> {
        Ok(false)
    }

    fn close_streams(&self) -> bool {
        self.close_streams()
    }

    fn settle(&self, deadline: Instant) {
        self.settle(deadline);
    }

    fn flush(&self, deadline: Instant) -> bool {
        self.flush(deadline)
    }

    fn state(&self) -> StoreState {
        self.state()
    }

    fn is_broken(&self) -> bool {
        self.is_broken()
    }

    fn stats(&self) -> StoreStats {
        self.stats()
    }

    fn end(&self, patience: Duration) {
        self.end(patience);
    }
}

/// A store that several processes share.
pub(super) struct Shared(pub(super) Arc<dyn SharedStore>);

impl Shared {
    fn accept(&self, event: &StoredEvent, size: usize, on_commit: Option<OnCommit>) -> Result<(), NotAccepted> {
        self.0.offer(&Commits::record(event, 0), size, on_commit)
    }
}

impl EventStore for Shared {
    fn takes_closures(&self) -> bool {
        false
    }

    fn offer(&self, event: StoredEvent, size: usize) -> Result<(), NotAccepted> {
        self.accept(&event, size, None)
    }

    fn offer_confirmed(&self, event: StoredEvent, size: usize) -> Result<Receiver<Confirmed<Receipt>>, NotAccepted> {
        let (confirm, confirmed) = bounded(1);
        let on_commit = move |Committed { subscribers, id }| {
            // The publisher may have stopped waiting.
            let _ = confirm.send(Confirmed::Stored(Receipt { subscribers, id, is_refused: false }));
        };
        self.accept(&event, size, Some(Box::new(on_commit)))?;
        Ok(confirmed)
    }

    fn disconnect(&self, quota_key: &str) -> Result<bool, NotAccepted> {
        self.0.disconnect(quota_key).map(|()| true)
    }

    fn close_streams(&self) -> bool {
        self.0.close_streams()
    }

    fn settle(&self, deadline: Instant) {
        self.0.flush(deadline);
    }

    fn flush(&self, deadline: Instant) -> bool {
        self.0.flush(deadline)
    }

    fn state(&self) -> StoreState {
        self.0.state()
    }

    fn is_broken(&self) -> bool {
        false
    }

    fn stats(&self) -> StoreStats {
        self.0.stats()
    }

    fn end(&self, patience: Duration) {
        self.0.end(patience);
    }
}
