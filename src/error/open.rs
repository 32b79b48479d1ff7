//! The error of a subscription that is refused.

use std::error::Error;
use std::fmt;
use std::io;

use super::InvalidSetting;

/// Why a subscription was not opened.
///
/// ```
/// use server_sent_events::{OpenError, Publisher};
///
/// let publisher = Publisher::builder().max_subscribers(1).build()?;
/// let _first = publisher.subscribe()?;
/// let error = publisher.subscribe().unwrap_err();
/// assert_eq!(error, OpenError::TooManySubscribers { limit: 1 });
/// assert_eq!(error.to_string(), "subscriber limit reached (1)");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenError {
    /// The publisher has reached its limit of subscribers. A later attempt may succeed.
    TooManySubscribers {
        /// The limit.
        limit: usize,
    },
    /// The channel has reached its limit of subscribers. A later attempt may succeed.
    TooManyInChannel {
        /// The channel.
        channel: String,
        /// The limit of each channel.
        limit: usize,
    },
    /// The quota key has reached its limit of subscribers. A later attempt may succeed.
    TooManyPerQuotaKey {
        /// The [quota key](crate::SubscriptionBuilder::quota_key).
        key: String,
        /// The limit of each quota key.
        limit: usize,
    },
    /// The publisher [shuts down](crate::Publisher::shutdown); its successor may have room.
    ShuttingDown,
    /// The subscription names more channels than one may have.
    TooManyChannels {
        /// How many different channels it names.
        given: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// The name of a channel is too long.
    ChannelNameTooLong {
        /// The name's length in bytes.
        length: usize,
        /// How many bytes are allowed.
        limit: usize,
    },
    /// The subscription names no channel, so nothing could ever reach it.
    NoChannels,
    /// A setting of the subscription is zero.
    InvalidSetting(InvalidSetting),
}

impl OpenError {
    /// Whether the same subscription may be opened later, when others have left.
    ///
    /// The other errors are the caller's to mend.
    pub fn is_temporary(&self) -> bool {
        use OpenError::{ShuttingDown, TooManyInChannel, TooManyPerQuotaKey, TooManySubscribers};
        matches!(self, TooManySubscribers { .. } | TooManyInChannel { .. } | TooManyPerQuotaKey { .. } | ShuttingDown)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManySubscribers { limit } => {
                write!(f, "subscriber limit reached ({limit})")
            }
            Self::TooManyInChannel { channel, limit } => {
                write!(f, "subscriber limit of channel {channel:?} reached ({limit})")
            }
            Self::TooManyPerQuotaKey { key, limit } => {
                write!(f, "subscriber limit of quota key {key:?} reached ({limit})")
            }
            Self::ShuttingDown => f.write_str("the publisher is shutting down"),
            Self::TooManyChannels { given, limit } => {
                write!(f, "too many channels ({given}): subscribe to at most {limit}")
            }
            Self::ChannelNameTooLong { length, limit } => {
                write!(f, "channel name too long ({length} bytes): use at most {limit}")
            }
            Self::NoChannels => f.write_str("no channels: subscribe to at least one"),
            Self::InvalidSetting(error) => error.fmt(f),
        }
    }
}

impl Error for OpenError {}

/// Converts into an error that holds this one, for a function that returns an [`io::Result`].
///
/// The kind is [`QuotaExceeded`](io::ErrorKind::QuotaExceeded) for a limit of subscribers,
/// [`Other`](io::ErrorKind::Other) during a shutdown, and [`InvalidInput`](io::ErrorKind::InvalidInput) for all else.
///
/// ```
/// use server_sent_events::{OpenError, Publisher};
/// use std::io;
///
/// fn copy(publisher: &Publisher, output: impl io::Write) -> io::Result<()> {
///     publisher.subscribe()?.write_to(output)?;
///     Ok(())
/// }
///
/// let publisher = Publisher::builder().max_subscribers(1).build()?;
/// let _first = publisher.subscribe()?;
/// let error = copy(&publisher, io::sink()).unwrap_err();
/// assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
/// assert_eq!(error.downcast::<OpenError>()?, OpenError::TooManySubscribers { limit: 1 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        let kind = match error {
            OpenError::ShuttingDown => io::ErrorKind::Other,
            _ if error.is_temporary() => io::ErrorKind::QuotaExceeded,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
