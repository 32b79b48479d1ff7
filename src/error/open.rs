//! The error of opening a subscription.

use std::error::Error;
use std::fmt;
use std::io;

use super::InvalidSetting;

/// The reason why a subscription was refused.
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
    /// The publisher is [shutting down](crate::Publisher::shutdown), and refuses every subscription. The program that
    /// replaces this one may accept it.
    ShuttingDown,
    /// The publisher's history follows another one (`History::follow`) or is shared (`store::Redis`), and is not read
    /// yet. A later attempt may succeed.
    Starting,
    /// The subscription names too many channels.
    TooManyChannels {
        /// The number of different channels.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// The name of a channel is too long.
    ChannelNameTooLong {
        /// The name's length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The subscription names no channel, so no event could reach it.
    NoChannels,
    /// A setting of the subscription is zero.
    InvalidSetting(InvalidSetting),
}

impl OpenError {
    /// Returns `true` if the client should try again later: a limit of subscribers is reached, or the publisher is
    /// [starting](Self::Starting) or [shutting down](Self::ShuttingDown).
    ///
    /// After a limit, an attempt can succeed once other subscribers have left. After a shutdown, only a new publisher
    /// accepts subscriptions, usually that of the restarted program. The other errors do not go away by themselves: the
    /// subscription must be changed.
    pub fn is_temporary(&self) -> bool {
        use OpenError::{ShuttingDown, Starting, TooManyInChannel, TooManyPerQuotaKey, TooManySubscribers};
        matches!(
            self,
            TooManySubscribers { .. } | TooManyInChannel { .. } | TooManyPerQuotaKey { .. } | Starting | ShuttingDown
        )
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
            Self::Starting => f.write_str("the publisher is starting: it has not received the history it follows"),
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
/// [`Other`](io::ErrorKind::Other) during the start and a shutdown, and [`InvalidInput`](io::ErrorKind::InvalidInput) for all else.
///
/// ```
/// use server_sent_events::{OpenError, Publisher};
/// use std::io;
///
/// fn copy(publisher: &Publisher, output: impl io::Write + 'static) -> io::Result<()> {
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
            OpenError::Starting | OpenError::ShuttingDown => io::ErrorKind::Other,
            _ if error.is_temporary() => io::ErrorKind::QuotaExceeded,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
