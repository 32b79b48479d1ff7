//! How long to wait for the next frame, and why there is none.

use std::time::Instant;

/// The limit of a wait for the next frame.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    Not,
    Until(Instant),
    Forever,
}

/// The reason why there is no frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NoFrame {
    /// No frame came in time.
    Timeout,
    /// The stream has ended.
    Ended,
}

/// The reason why draining has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing is left to drain.
    Empty,
    /// What is left must wait until the interval is over.
    Paused,
    /// The batch is full.
    Full,
    /// The next step calls the application, which is not allowed. Nothing was appended.
    NeedsCall,
    /// The stream has ended.
    Ended,
}
