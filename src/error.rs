//! Every public error: what failed, exact texts.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// A field of an event whose text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventField {
    /// The event's type.
    Event,
    /// The event's id.
    Id,
}

/// Why an [`Event`](crate::Event) was refused; nothing of it is sent.
///
/// ```
/// use server_sent_events::Event;
///
/// let error = Event::new("hi").event("two\nlines").unwrap_err();
/// assert_eq!(error.to_string(), "the event type holds '\\n' at byte 3: CR, LF and NUL are not allowed there");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character { field: EventField::Event, character, at } => {
                write!(f, "the event type holds {character:?} at byte {at}: CR, LF and NUL are not allowed there")
            }
            Self::Character { field: EventField::Id, character, at } => {
                write!(f, "the id holds {character:?} at byte {at}: only visible ASCII characters are allowed there")
            }
            Self::EmptyId => f.write_str("the id is empty: 1 to 128 visible ASCII characters are allowed"),
            Self::IdTooLong { length } => {
                write!(f, "the id is {length} bytes long: 1 to 128 visible ASCII characters are allowed")
            }
            Self::RetryTooLong { retry } => {
                write!(f, "the retry time is {} ms: at most 2147483647 ms are allowed", retry.as_millis())
            }
        }
    }
}

impl Error for EventError {}

/// A setting with which no publisher or subscription can work.
///
/// ```
/// use server_sent_events::Publisher;
///
/// let error = Publisher::<()>::builder().max_queued_events(0).build().unwrap_err();
/// assert_eq!(error.to_string(), "`max_queued_events` must be greater than 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    pub(crate) setting: &'static str,
}

impl InvalidSetting {
    pub(crate) fn new(setting: &'static str) -> Self {
        Self { setting }
    }

    /// The name of the setting that was zero.
    pub fn setting(&self) -> &'static str {
        self.setting
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // These two may be absent.
        let or_none = if matches!(self.setting, "heartbeat" | "max_lifetime" | "max_age" | "write_timeout") {
            ", or None"
        } else {
            ""
        };
        write!(f, "`{}` must be greater than 0{or_none}", self.setting)
    }
}

impl Error for InvalidSetting {}

/// Why a subscription was not opened: which bound it would have crossed.
///
/// ```
/// use server_sent_events::{OpenError, Publisher};
///
/// let publisher = Publisher::<()>::builder().max_subscribers(1).build()?;
/// let _first = publisher.subscribe()?;
/// let error = publisher.subscribe().unwrap_err();
/// assert_eq!(error, OpenError::TooManySubscribers { limit: 1 });
/// assert_eq!(error.to_string(), "the publisher has 1 subscribers: no more are allowed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The house is full; it may have room again later.
    TooManySubscribers {
        /// How many subscribers the publisher allows.
        limit: usize,
    },
    /// The channel is full; it may have room again later.
    TooManyInChannel {
        /// Which channel.
        channel: String,
        /// How many subscribers each channel may have.
        limit: usize,
    },
    /// Too many subscriptions of this key; there may be room again later.
    TooManyPerQuotaKey {
        /// Which [key](crate::SubscriptionBuilder::quota_key).
        key: String,
        /// How many subscriptions each key may have.
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
    /// The heartbeat's interval is zero; for none at all, give `None`.
    ZeroHeartbeat,
    /// A bound of this subscription's is zero.
    Zero {
        /// The name of the setting.
        setting: &'static str,
    },
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
                write!(f, "the publisher has {limit} subscribers: no more are allowed")
            }
            Self::TooManyInChannel { channel, limit } => {
                write!(f, "the channel {channel:?} has {limit} subscribers: no more are allowed")
            }
            Self::TooManyPerQuotaKey { key, limit } => {
                write!(f, "{key:?} has {limit} subscriptions: no more are allowed")
            }
            Self::ShuttingDown => f.write_str("the publisher is shutting down: no subscription is opened any more"),
            Self::TooManyChannels { given, limit } => {
                write!(f, "the subscription names {given} channels: at most {limit} are allowed")
            }
            Self::ChannelNameTooLong { length, limit } => {
                write!(f, "the name of a channel is {length} bytes long: at most {limit} are allowed")
            }
            Self::NoChannels => f.write_str("the subscription names no channel: it needs at least one"),
            Self::Zero { setting } => write!(f, "{setting} is 0: it must be more than that"),
            Self::ZeroHeartbeat => f.write_str("the heartbeat's interval is 0: it must be more than that, or None"),
        }
    }
}

impl Error for OpenError {}

/// Why [`Subscription::try_recv`](crate::Subscription::try_recv) gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// Nothing is queued now; something may be later.
    Empty,
    /// The stream has ended: nothing comes any more.
    Ended,
}

impl TryRecvError {
    /// Whether the stream has ended.
    pub fn is_ended(&self) -> bool {
        *self == Self::Ended
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "nothing is queued for this subscription now",
            Self::Ended => "the event stream has ended",
        })
    }
}

impl Error for TryRecvError {}

/// Why [`Subscription::recv_timeout`](crate::Subscription::recv_timeout) gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvTimeoutError {
    /// Nothing came within the time.
    Timeout,
    /// The stream has ended: nothing comes any more.
    Ended,
}

impl RecvTimeoutError {
    /// Whether the stream has ended.
    pub fn is_ended(&self) -> bool {
        *self == Self::Ended
    }
}

impl fmt::Display for RecvTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "nothing was queued for this subscription within the time",
            Self::Ended => "the event stream has ended",
        })
    }
}

impl Error for RecvTimeoutError {}

/// Why a header of the application's was refused; nothing of it is sent.
///
/// ```
/// use server_sent_events::ResponseHeaders;
///
/// let error = ResponseHeaders::new().with("X-Reason", "two\r\nlines").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "the value of the header \"X-Reason\" holds '\\r': only visible characters, spaces and tabs are allowed",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
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
                write!(f, "{name:?} is no name for a header: letters, digits and !#$%&'*+-.^_`|~ are allowed")
            }
            Self::Value { name, character } => write!(
                f,
                "the value of the header {name:?} holds {character:?}: only visible characters, spaces and tabs are allowed"
            ),
            Self::Reserved { name } => {
                write!(f, "the header {name:?} describes the event stream itself: it cannot be set")
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    Read(std::io::ErrorKind),
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
            Self::Read(kind) => write!(f, "reading the body failed: {kind}"),
            Self::AlreadyTaken => f.write_str("the body was taken before: read it once"),
        }
    }
}

#[cfg(any(feature = "tiny_http", feature = "rouille"))]
impl Error for BodyError {}
