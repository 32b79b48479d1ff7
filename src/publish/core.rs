//! The parts of a publisher, and what happens when its last handle is dropped.

use std::ops::Deref;
use std::sync::Arc;

use super::builder::Settings;
use super::event_store::EventStore;
use super::following::Following;
use super::stored::CLOSING_PATIENCE;
use super::transform::Transforms;
use crate::deliver::WriterPool;
use crate::error::BuildError;
use crate::log::RateLimitedLog;
use crate::registry::Registry;
use crate::stats::Counters;
use crate::store::{Connection, FollowSink, StopFollowing, Upstream};

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
    pub(super) store: Option<Box<dyn EventStore>>,
    /// The publisher that the history follows, if it does.
    pub(super) upstream: Option<Followed>,
}

/// A publisher that this one follows.
pub(super) struct Followed {
    pub(super) connection: Arc<Connection>,
    pub(super) thread: Box<dyn StopFollowing>,
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
        if let Some(followed) = &self.upstream {
            followed.thread.stop();
        }
        self.registry.close().finish();
        self.pool.close();
    }
}

impl Followed {
    /// Starts to follow a publisher.
    pub(super) fn start(
        upstream: &dyn Upstream,
        registry: &Arc<Registry>,
        pool: &Arc<WriterPool>,
    ) -> Result<Self, BuildError> {
        let channels = upstream.channels();
        registry.follow(channels.clone());
        let sink = Following::new(registry, pool, channels);
        let connection = sink.connection();
        let thread = upstream.start(Box::new(sink)).map_err(|reason| BuildError::Upstream { reason })?;
        Ok(Self { connection, thread })
    }
}
