//! Whether a store keeps up.

/// The state of the store in which a publisher's history is kept; from
/// [`Publisher::store_state`](crate::Publisher::store_state).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreState {
    /// The store works.
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
