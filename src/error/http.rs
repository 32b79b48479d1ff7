//! Errors of response headers and request bodies.

use std::error::Error;
use std::fmt;
#[cfg(any(feature = "tiny_http", feature = "rouille"))]
use std::io;

/// The reason why a header of the application was rejected. None of it is sent.
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
    /// The name is empty, or contains a character that RFC 9110 5.1 does not allow.
    Name {
        /// The name that was given.
        name: String,
    },
    /// The value contains a control character (RFC 9110 5.5), or one that is not ASCII.
    Value {
        /// The header's name.
        name: String,
        /// The first such character.
        character: char,
    },
    /// The header describes the body's type or framing, which this crate sets.
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

/// The reason why the body of a request was rejected. None of it is returned.
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
