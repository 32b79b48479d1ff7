//! Errors of receiving a frame.

use std::error::Error;
use std::fmt;

/// The reason why [`Subscription::try_recv`](crate::Subscription::try_recv) returned no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TryRecvError {
    /// No frame is queued. A later call may return one.
    Empty,
    /// The stream has ended. No later call returns a frame.
    Ended,
}

impl TryRecvError {
    /// Returns `true` if the stream has ended.
    pub fn is_ended(&self) -> bool {
        *self == Self::Ended
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "no event is queued",
            Self::Ended => "the stream has ended",
        })
    }
}

impl Error for TryRecvError {}

/// The reason why [`Subscription::recv_timeout`](crate::Subscription::recv_timeout) returned no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecvTimeoutError {
    /// No frame was queued before the timeout.
    Timeout,
    /// The stream has ended. No later call returns a frame.
    Ended,
}

impl RecvTimeoutError {
    /// Returns `true` if the stream has ended.
    pub fn is_ended(&self) -> bool {
        *self == Self::Ended
    }
}

impl fmt::Display for RecvTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "timed out waiting for an event",
            Self::Ended => "the stream has ended",
        })
    }
}

impl Error for RecvTimeoutError {}
