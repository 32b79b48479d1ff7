//! The receiving end of a client: a blocking iterator over messages.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Message;
use super::builder::EventSourceBuilder;
use super::error::ConnectionError;
use super::reader::Reader;
use super::stop::{StopHandle, StopSignal};
use crate::deliver::{NoFrame, Wait};
use crate::error::{RecvTimeoutError, TryRecvError};

/// A client of an event stream: a blocking iterator over its messages, which reconnects by itself.
///
/// It does what an `EventSource` of a browser does (WHATWG HTML 9.2). It accepts status 200 with the type
/// `text/event-stream` only, and follows redirects. If the connection is lost, it waits for the reconnection time and
/// sends the last event ID. Every other response ends it, such as a 204, by which a server asks a client not to
/// reconnect. Beyond the standard, its delays grow with each failure and vary at random, a silent connection is
/// replaced, and lines and events have limits: see [`EventSourceBuilder`].
///
/// The thread that takes messages reads the connection, and reconnects. While the program takes none, the client
/// does nothing: the system's buffers fill up, and the server waits or ends the stream. Only connecting has a thread of its
/// own, which ends with the response's head. Dropping the event source stops it.
///
/// ```no_run
/// use server_sent_events::client::EventSource;
///
/// let events = EventSource::builder("https://example.org/builds").header("Authorization", "Bearer secret").connect()?;
/// for message in events {
///     println!("{}: {}", message.event_type, message.data);
/// }
/// # Ok::<(), server_sent_events::client::ConnectError>(())
/// ```
#[must_use = "dropping an event source stops it"]
pub struct EventSource {
    reader: Reader,
    signal: Arc<StopSignal>,
}

impl EventSource {
    /// Returns a builder for a client of the stream at this URL.
    pub fn builder(url: impl Into<String>) -> EventSourceBuilder {
        EventSourceBuilder::new(url.into())
    }

    pub(super) fn new(reader: Reader, signal: Arc<StopSignal>) -> Self {
        Self { reader, signal }
    }

    /// Returns the next message, or `None` if the stream has ended. Blocks until there is one, also while the client
    /// reconnects.
    pub fn recv(&mut self) -> Option<Message> {
        self.reader.next(Wait::Forever).ok()
    }

    /// Returns the next message, if one arrives within this time. Blocks for this time, and a few milliseconds more where
    /// the system's clock is coarse.
    ///
    /// # Errors
    ///
    /// Returns [`RecvTimeoutError::Timeout`] if no message came in time, and [`RecvTimeoutError::Ended`] if the stream
    /// has ended.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message, RecvTimeoutError> {
        // A timeout beyond the range of the clock counts as no timeout.
        let wait = Instant::now().checked_add(timeout).map_or(Wait::Forever, Wait::Until);
        self.reader.next(wait).map_err(|none| match none {
            NoFrame::Timeout => RecvTimeoutError::Timeout,
            NoFrame::Ended => RecvTimeoutError::Ended,
        })
    }

    /// Returns the next message, if one has arrived. Does not wait for one.
    ///
    /// # Errors
    ///
    /// Returns [`TryRecvError::Empty`] if no message has arrived, and [`TryRecvError::Ended`] if the stream has ended.
    pub fn try_recv(&mut self) -> Result<Message, TryRecvError> {
        self.reader.next(Wait::Not).map_err(|none| match none {
            NoFrame::Timeout => TryRecvError::Empty,
            NoFrame::Ended => TryRecvError::Ended,
        })
    }

    /// Returns the last event ID, up to the last message that was returned; empty if there is none.
    ///
    /// A program that stores it can [resume](EventSourceBuilder::last_event_id) after a restart. Blocks without data
    /// count too, once the iterator has passed them.
    pub fn last_event_id(&self) -> &Arc<str> {
        self.reader.last_event_id()
    }

    /// Returns why the stream ended, once the iterator has returned `None`; `None` before.
    pub fn end_cause(&self) -> Option<&EndCause> {
        self.reader.end_cause()
    }

    /// Returns a handle that stops the event source from any thread.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle::new(Arc::clone(&self.signal))
    }
}

impl Iterator for EventSource {
    type Item = Message;

    /// Blocks until there is a message, and returns `None` when the stream has ended.
    fn next(&mut self) -> Option<Message> {
        self.recv()
    }
}

impl FusedIterator for EventSource {}

impl Drop for EventSource {
    fn drop(&mut self) {
        self.signal.stop();
    }
}

impl fmt::Debug for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSource")
            .field("last_event_id", self.last_event_id())
            .field("end_cause", &self.end_cause())
            .finish_non_exhaustive()
    }
}

/// The reason why an [`EventSource`] ended, for good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndCause {
    /// It was [stopped](StopHandle::stop).
    Stopped,
    /// The server answered with status 204: the client must not reconnect.
    NoContent,
    /// The server answered with this status instead of 200.
    Status(u16),
    /// The response is not an event stream. It has this `Content-Type`, or none.
    ContentType(Option<String>),
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::NoContent => f.write_str("the server ended the stream for good (status 204)"),
            Self::Status(status) => write!(f, "the server answered with status {status}"),
            Self::ContentType(Some(given)) => write!(f, "no event stream: the server answered with the type {given:?}"),
            Self::ContentType(None) => f.write_str("no event stream: the server's answer has no type"),
        }
    }
}

/// A connection that was lost, or could not be made; for
/// [`on_connection_lost`](EventSourceBuilder::on_connection_lost).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionLost {
    /// The reason.
    pub error: ConnectionError,
    /// The time until the client reconnects.
    pub delay: Duration,
}
