//! Every public error: what failed, exact texts.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// The field of an event whose text was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventField {
    /// The event's type.
    Event,
    /// The event's id.
    Id,
}

/// Why an [`Event`](crate::Event) was rejected. None of it is sent.
///
/// ```
/// use server_sent_events::Event;
///
/// let error = Event::new("hi").event("two\nlines").unwrap_err();
/// assert_eq!(error.to_string(), "invalid character '\\n' at byte 3 of the event type: remove CR, LF and NUL");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventError {
    /// A character that this field must not hold.
    Character {
        /// Which field.
        field: EventField,
        /// The first such character.
        character: char,
        /// Where it begins, in bytes.
        at: usize,
    },
    /// The id has no characters: it would reset the browser's resume point.
    EmptyId,
    /// The id is longer than 128 bytes.
    IdTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The reconnection time does not fit into 2,147,483,647 ms.
    RetryTooLong {
        /// The time that was asked for.
        retry: Duration,
    },
    /// The value of [`Event::json`](crate::Event::json) has no form in JSON: its `Serialize` failed, or a map's key is not a
    /// string.
    #[cfg(feature = "json")]
    Json {
        /// The reason, in the words of `serde_json`.
        reason: String,
    },
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character { field: EventField::Event, character, at } => {
                write!(f, "invalid character {character:?} at byte {at} of the event type: remove CR, LF and NUL")
            }
            Self::Character { field: EventField::Id, character, at } => {
                write!(f, "invalid character {character:?} at byte {at} of the event ID: use visible ASCII characters")
            }
            Self::EmptyId => f.write_str("empty event ID: use 1 to 128 visible ASCII characters"),
            Self::IdTooLong { length } => {
                write!(f, "event ID too long ({length} bytes): use at most 128")
            }
            Self::RetryTooLong { retry } => {
                write!(f, "retry time too long ({} ms): use at most 2147483647 ms", retry.as_millis())
            }
            #[cfg(feature = "json")]
            Self::Json { reason } => write!(f, "failed to write the value as JSON: {reason}"),
        }
    }
}

impl Error for EventError {}

/// A setting that was zero. No publisher, subscription or background writing can work with it.
///
/// ```
/// use server_sent_events::Publisher;
///
/// let error = Publisher::builder().max_queued_events(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "`max_queued_events` must be greater than 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InvalidSetting {
    pub(crate) setting: &'static str,
}

impl InvalidSetting {
    pub(crate) fn new(setting: &'static str) -> Self {
        Self { setting }
    }

    /// Returns the name of the setting.
    pub fn setting(&self) -> &'static str {
        self.setting
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` must be greater than 0", self.setting)?;
        match self.setting {
            // The settings that take an `Option`.
            "heartbeat" | "max_lifetime" | "write_timeout" | "History::max_age" => f.write_str(", or None"),
            _ => Ok(()),
        }
    }
}

impl Error for InvalidSetting {}

/// Converts into an error of the kind [`InvalidInput`](io::ErrorKind::InvalidInput).
impl From<InvalidSetting> for io::Error {
    fn from(error: InvalidSetting) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

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
/// The kind is [`QuotaExceeded`](io::ErrorKind::QuotaExceeded) for a limit of subscribers, [`Other`](io::ErrorKind::Other)
/// during a shutdown, and [`InvalidInput`](io::ErrorKind::InvalidInput) for all else.
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

/// Why a text is no [`Overflow`](crate::Overflow) policy.
///
/// ```
/// use server_sent_events::Overflow;
///
/// let error = "drop".parse::<Overflow>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "unknown overflow policy \"drop\": use disconnect, drop-oldest, latest-per-key, or block:TIME such as block:5s",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParseOverflowError {
    /// There is no policy of this name.
    UnknownPolicy {
        /// The text that was given.
        text: String,
    },
    /// The time after `block:` is not a whole number with a unit, or is too long.
    InvalidTime {
        /// The time that was given.
        text: String,
    },
}

impl fmt::Display for ParseOverflowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPolicy { text } => write!(
                f,
                "unknown overflow policy {text:?}: use disconnect, drop-oldest, latest-per-key, or block:TIME such as block:5s"
            ),
            Self::InvalidTime { text } => {
                write!(f, "invalid time {text:?} after \"block:\": use a whole number of s, ms, us or ns, such as 5s")
            }
        }
    }
}

impl Error for ParseOverflowError {}

/// Why [`Subscription::try_recv`](crate::Subscription::try_recv) returned no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TryRecvError {
    /// Nothing is queued now. A later call may return a frame.
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

/// Why [`Subscription::recv_timeout`](crate::Subscription::recv_timeout) returned no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecvTimeoutError {
    /// Nothing was queued before the timeout.
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

/// Why a header of the application was rejected. None of it is sent.
///
/// ```
/// use server_sent_events::ResponseHeaders;
///
/// let error = ResponseHeaders::new().with("X-Reason", "two\r\nlines").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "invalid character '\\r' in the value of header \"X-Reason\": use visible ASCII characters, spaces and tabs",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeaderError {
    /// The name is empty or holds another character than RFC 9110 5.1 allows.
    Name {
        /// The name that was given.
        name: String,
    },
    /// The value holds a control character (RFC 9110 5.5), or one that is not ASCII.
    Value {
        /// The header's name.
        name: String,
        /// The first such character.
        character: char,
    },
    /// The header says how the body is framed or what it is, which is not the application's to say.
    Reserved {
        /// The header's name.
        name: String,
    },
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name } => {
                write!(f, "invalid header name {name:?}: use letters, digits and !#$%&'*+-.^_`|~")
            }
            Self::Value { name, character } => write!(
                f,
                "invalid character {character:?} in the value of header {name:?}: use visible ASCII characters, spaces and tabs"
            ),
            Self::Reserved { name } => {
                write!(f, "reserved header {name:?}: it describes the event stream itself")
            }
        }
    }
}

impl Error for HeaderError {}

/// Why the body of a request was rejected; none of it was returned.
///
/// Answer the request with [`status`](Self::status) and the error's text.
///
/// ```
/// use server_sent_events::BodyError;
///
/// let error = BodyError::TooLarge { limit: 1024 };
/// assert_eq!((error.status(), error.to_string()), (413, "body too large: at most 1024 bytes are allowed".into()));
/// ```
#[cfg(any(feature = "tiny_http", feature = "rouille"))]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyError {
    /// The request has a `Content-Length` that is not one decimal number.
    InvalidLength,
    /// The request has a `Content-Length` and a `Transfer-Encoding`, which contradict each other.
    LengthAndEncoding,
    /// The request has a `Transfer-Encoding` other than `chunked`.
    UnsupportedEncoding,
    /// The body is chunked. The server below does not report whether a chunked body is whole.
    LengthRequired,
    /// The body is larger than the caller allows.
    TooLarge {
        /// The largest number of bytes that the caller allows.
        limit: usize,
    },
    /// The body ended before its announced length.
    Incomplete {
        /// The number of bytes that arrived.
        received: usize,
        /// The number of bytes that the request announced.
        announced: usize,
    },
    /// Reading from the connection failed.
    Read(io::ErrorKind),
    /// The application has taken the body of this request before.
    AlreadyTaken,
}

#[cfg(any(feature = "tiny_http", feature = "rouille"))]
impl BodyError {
    /// Returns the status of the response: 400, 411 or 413, or 500 for a body that was taken before.
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidLength | Self::LengthAndEncoding | Self::UnsupportedEncoding => 400,
            Self::Incomplete { .. } | Self::Read(_) => 400,
            Self::LengthRequired => 411,
            Self::TooLarge { .. } => 413,
            Self::AlreadyTaken => 500,
        }
    }
}

#[cfg(any(feature = "tiny_http", feature = "rouille"))]
impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidLength => f.write_str("invalid content-length: expected one decimal number"),
            Self::LengthAndEncoding => {
                f.write_str("both content-length and transfer-encoding: send only a content-length")
            }
            Self::UnsupportedEncoding => f.write_str("unsupported transfer-encoding: send a content-length instead"),
            Self::LengthRequired => f.write_str("chunked body: send a content-length instead"),
            Self::TooLarge { limit } => write!(f, "body too large: at most {limit} bytes are allowed"),
            Self::Incomplete { received, announced } => {
                write!(f, "body incomplete: {received} of {announced} bytes arrived")
            }
            Self::Read(kind) => write!(f, "failed to read the body: {kind}"),
            Self::AlreadyTaken => f.write_str("body already taken: read it once"),
        }
    }
}

#[cfg(any(feature = "tiny_http", feature = "rouille"))]
impl Error for BodyError {}
