//! The parts of a publisher, and what happens when its last handle is dropped.

use std::ops::Deref;
use std::sync::Arc;

use super::builder::Settings;
use super::stored::{CLOSING_PATIENCE, Commits};
use super::transform::Transforms;
use crate::deliver::WriterPool;
use crate::log::RateLimitedLog;
use crate::registry::Registry;
use crate::stats::Counters;
use crate::store::Pipeline;

/// Shared by all handles. Dropping the last one ends the streams.
pub(super) struct Handles(pub(super) Arc<Core>);

/// The publisher's parts. Hooks may need them while the last handle is being dropped. A subscription refers to the
/// registry weakly.
pub(super) struct Core {
    pub(super) registry: Arc<Registry>,
    pub(super) counters: Arc<Counters>,
    pub(super) pool: Arc<WriterPool>,
    pub(super) settings: Settings,
    pub(super) transforms: Transforms,
    pub(super) warnings: Arc<RateLimitedLog>,
    /// The way of events through the history's store, if it has one.
    pub(super) store: Option<Pipeline<Commits>>,
}

impl Deref for Handles {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.0
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        if let Some(store) = &self.store {
            store.end(CLOSING_PATIENCE);
        }
        self.registry.close().finish();
        self.pool.close();
    }
}
