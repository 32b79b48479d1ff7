//! Whether a store keeps up.

use std::time::Instant;

/// The state of the store in which a publisher's history is kept, or of the publisher that it follows; from
/// [`Publisher::store_state`](crate::Publisher::store_state).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreState {
    /// The history follows another one (`History::follow`) or is shared (`store::Redis`), and is not read yet. Subscriptions
    /// are refused as [`OpenError::Starting`](crate::OpenError::Starting).
    #[non_exhaustive]
    Starting {
        /// The error of the last attempt to connect; `None` while the connection works, and before the first attempt.
        reason: Option<String>,
    },
    /// The publisher that the history follows, or the shared store, cannot be reached, or refuses events.
    ///
    /// Streams stay open, and clients resume from what the history has. Once the connection is back, they get what was
    /// published meanwhile, or a `gap` event.
    #[non_exhaustive]
    Away {
        /// Since when.
        since: Instant,
        /// The error of the last attempt to connect.
        reason: String,
    },
    /// The store works, or the connection to the followed publisher does.
    #[non_exhaustive]
    Running {
        /// The number of events that are accepted, and neither stored nor delivered yet.
        pending: usize,
    },
    /// The store has failed, for example because the disk is full.
    ///
    /// Events are delivered and kept in memory as without a store, and clients can resume. After the next start, clients
    /// get a `gap` event for the events that the store does not hold.
    #[non_exhaustive]
    Broken {
        /// The error that the store has reported.
        reason: String,
    },
}
