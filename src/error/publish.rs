//! Errors of publishing, and of building a publisher.

use std::error::Error;
use std::fmt;
use std::io;

use super::{InvalidSetting, StoreError};

/// The reason why [`publish_confirmed`](crate::Publisher::publish_confirmed) cannot confirm an event, or why
/// [`disconnect_everywhere`](crate::Publisher::disconnect_everywhere) is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PublishError {
    /// Too many events wait to be stored. This one was refused. A later attempt may succeed.
    Full,
    /// The event is larger than the store allows. It was refused.
    TooLarge,
    /// The store that several processes share cannot be reached, or is not read yet. Only `disconnect_everywhere` is refused
    /// for that: an event waits.
    Away,
    /// The event was not stored in time. It may still be stored and delivered later.
    TimedOut,
    /// The publisher is being dropped. The event was refused.
    Closed,
    /// The history follows another publisher's, so events must be published there. This one
    /// was refused.
    Follows,
    /// The store has failed. The event was refused, unless it was already accepted when the store failed: then it was
    /// delivered, but not stored.
    Broken,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "too many events wait to be stored: try again later",
            Self::TooLarge => "the event is larger than the store allows",
            Self::Away => "the store cannot be reached: try again later",
            Self::TimedOut => "the event was not stored in time, and may still be stored",
            Self::Closed => "the publisher is being dropped",
            Self::Follows => "the publisher follows another one: publish there",
            Self::Broken => "the store of the history has failed",
        })
    }
}

impl Error for PublishError {}

/// The error of publishing through a [transform](crate::PublisherBuilder::transform) that the publisher does not have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnknownTransform {
    name: String,
}

impl UnknownTransform {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Returns the name that was given.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for UnknownTransform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown transform {:?}: register it with `PublisherBuilder::transform`", self.name)
    }
}

impl Error for UnknownTransform {}

/// The reason why a publisher cannot be built.
///
/// ```
/// use server_sent_events::{BuildError, Publisher};
///
/// let error = Publisher::builder().max_queued_events(0).build().unwrap_err();
/// assert!(matches!(error, BuildError::InvalidSetting(setting) if setting.setting() == "max_queued_events"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting is not allowed.
    InvalidSetting(InvalidSetting),
    /// The history's store cannot be opened.
    Store(StoreError),
    /// The publisher that the history is to follow cannot be.
    Upstream {
        /// The reason, such as an invalid URL.
        reason: String,
    },
    /// The store that several publishers share cannot be used.
    SharedStore {
        /// The reason, such as an invalid URL.
        reason: String,
    },
    /// The thread that stores events cannot be started.
    StoreThread {
        /// The operating system's error.
        reason: String,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidSetting(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Upstream { reason } => write!(f, "failed to follow another publisher: {reason}"),
            Self::SharedStore { reason } => write!(f, "failed to use the shared store: {reason}"),
            Self::StoreThread { reason } => write!(f, "failed to start the thread that stores events: {reason}"),
        }
    }
}

impl Error for BuildError {}

impl From<InvalidSetting> for BuildError {
    fn from(error: InvalidSetting) -> Self {
        Self::InvalidSetting(error)
    }
}

impl From<StoreError> for BuildError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Converts into an error that holds the inner one, for a function that returns an [`io::Result`].
impl From<BuildError> for io::Error {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::InvalidSetting(error) => error.into(),
            BuildError::Store(error) => error.into(),
            BuildError::Upstream { .. } | BuildError::SharedStore { .. } | BuildError::StoreThread { .. } => {
                Self::other(error)
            }
        }
    }
}
