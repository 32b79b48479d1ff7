//! Errors of the client.

use std::error::Error;
use std::fmt;
use std::io;

use super::ParserError;
use crate::error::InvalidSetting;

/// The reason why an event source could not start: a setting is invalid.
///
/// ```
/// use server_sent_events::client::EventSource;
///
/// let error = EventSource::builder("localhost:5000").connect().unwrap_err();
/// assert_eq!(error.to_string(), "invalid URL \"localhost:5000\": expected http://HOST/PATH or https://HOST/PATH");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is not one, or its scheme is neither `http` nor `https`.
    Url {
        /// The URL that was given.
        url: String,
    },
    /// A header is not allowed in HTTP, or the client sets it itself.
    Header {
        /// The name that was given.
        name: String,
    },
    /// The text holds no certificates in PEM format.
    Certificates,
    /// A setting is zero.
    InvalidSetting(InvalidSetting),
    /// The system could not start the thread of the first request.
    Thread(io::ErrorKind),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url } => {
                write!(f, "invalid URL {url:?}: expected http://HOST/PATH or https://HOST/PATH")
            }
            Self::Header { name } => {
                write!(
                    f,
                    "invalid header {name:?}: the client sets it itself, or its name or value is not allowed in HTTP"
                )
            }
            Self::Certificates => f.write_str("no certificate found: expected one or more in PEM format"),
            Self::InvalidSetting(error) => error.fmt(f),
            Self::Thread(kind) => write!(f, "failed to start the client's thread: {kind}"),
        }
    }
}

impl Error for ConnectError {}

impl From<InvalidSetting> for ConnectError {
    fn from(error: InvalidSetting) -> Self {
        Self::InvalidSetting(error)
    }
}

/// Converts into an error of the kind [`InvalidInput`](io::ErrorKind::InvalidInput), or of the kind with which the
/// thread failed to start.
impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        let kind = if let ConnectError::Thread(kind) = error { kind } else { io::ErrorKind::InvalidInput };
        Self::new(kind, error)
    }
}

/// The reason why a connection was lost, or could not be made. The client then reconnects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The server ended the stream.
    Ended,
    /// The name, the connection or the response's head took longer than the
    /// [timeout](super::EventSourceBuilder::connect_timeout).
    ConnectTimeout,
    /// No byte arrived for the [timeout](super::EventSourceBuilder::read_timeout).
    ReadTimeout,
    /// The network failed.
    Io {
        /// The kind of the error.
        kind: io::ErrorKind,
        /// The error's text.
        text: String,
    },
    /// The server's response is not valid in HTTP or TLS, or leads to more than 20 redirects.
    Response {
        /// The reason.
        text: String,
    },
    /// The server failed with this status, and
    /// [`retry_server_errors`](super::EventSourceBuilder::retry_server_errors) is set.
    Status(u16),
    /// A line or an event exceeds its limit.
    Parser(ParserError),
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the server ended the stream"),
            Self::ConnectTimeout => f.write_str("timed out connecting"),
            Self::ReadTimeout => f.write_str("timed out waiting for data"),
            Self::Io { text, .. } | Self::Response { text } => f.write_str(text),
            Self::Status(status) => write!(f, "the server answered with status {status}"),
            Self::Parser(error) => error.fmt(f),
        }
    }
}

impl Error for ConnectionError {}
