//! The receiving end of a client: a blocking iterator over messages.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError as ChannelError, at, never, select};

use super::Message;
use super::builder::EventSourceBuilder;
use super::error::ConnectionError;
use super::reader::Batch;
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
/// A thread of its own owns the connection and reads ahead: at most the messages of a few reads. A slow program slows
/// the server down. Dropping the event source stops it.
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
    batches: Receiver<Batch>,
    ready: std::vec::IntoIter<Message>,
    /// The last event ID after the ready messages.
    id_after: Arc<str>,
    last_event_id: Arc<str>,
    signal: Arc<StopSignal>,
    end: Arc<OnceLock<EndCause>>,
    /// The iterator has returned `None`.
    ended: Option<EndCause>,
}

impl EventSource {
    /// Returns a builder for a client of the stream at this URL.
    pub fn builder(url: impl Into<String>) -> EventSourceBuilder {
        EventSourceBuilder::new(url.into())
    }

    pub(super) fn new(
        batches: Receiver<Batch>,
        last_event_id: Arc<str>,
        signal: Arc<StopSignal>,
        end: Arc<OnceLock<EndCause>>,
    ) -> Self {
        let id_after = Arc::clone(&last_event_id);
        Self { batches, ready: Vec::new().into_iter(), id_after, last_event_id, signal, end, ended: None }
    }

    /// Returns the next message, or `None` if the stream has ended. Blocks until there is one, also while the client
    /// reconnects.
    pub fn recv(&mut self) -> Option<Message> {
        self.take(Wait::Forever).ok()
    }

    /// Returns the next message, if one arrives within this time. Blocks for at most this time.
    ///
    /// # Errors
    ///
    /// Returns [`RecvTimeoutError::Timeout`] if no message came in time, and [`RecvTimeoutError::Ended`] if the stream
    /// has ended.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message, RecvTimeoutError> {
        // A timeout beyond the range of the clock counts as no timeout.
        let wait = Instant::now().checked_add(timeout).map_or(Wait::Forever, Wait::Until);
        self.take(wait).map_err(|none| match none {
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
        self.take(Wait::Not).map_err(|none| match none {
            NoFrame::Timeout => TryRecvError::Empty,
            NoFrame::Ended => TryRecvError::Ended,
        })
    }

    /// Returns the last event ID, up to the last message that was returned; empty if there is none.
    ///
    /// A program that stores it can [resume](EventSourceBuilder::last_event_id) after a restart. Blocks without data
    /// count too, once the iterator has passed them.
    pub fn last_event_id(&self) -> &Arc<str> {
        &self.last_event_id
    }

    /// Returns why the stream ended, once the iterator has returned `None`; `None` before.
    pub fn end_cause(&self) -> Option<&EndCause> {
        self.ended.as_ref()
    }

    /// Returns a handle that stops the event source from any thread.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle::new(Arc::clone(&self.signal))
    }

    fn take(&mut self, wait: Wait) -> Result<Message, NoFrame> {
        loop {
            if self.ended.is_some() {
                return Err(NoFrame::Ended);
            }
            if self.signal.is_stopped() {
                return Err(self.see_end(EndCause::Stopped));
            }
            if let Some(message) = self.ready.next() {
                self.last_event_id = Arc::clone(&message.id);
                return Ok(message);
            }
            self.last_event_id = Arc::clone(&self.id_after);
            let Batch { messages, last_event_id } = self.next_batch(wait)?;
            self.ready = messages.into_iter();
            self.id_after = last_event_id;
        }
    }

    fn next_batch(&mut self, wait: Wait) -> Result<Batch, NoFrame> {
        let received = match self.batches.try_recv() {
            Ok(batch) => return Ok(batch),
            Err(ChannelError::Disconnected) => None,
            Err(ChannelError::Empty) => {
                let timeout = match wait {
                    Wait::Not => return Err(NoFrame::Timeout),
                    Wait::Until(deadline) => at(deadline),
                    Wait::Forever => never(),
                };
                select! {
                    recv(self.batches) -> batch => batch.ok(),
                    recv(self.signal.stopped()) -> _ => None,
                    recv(timeout) -> _ => return Err(NoFrame::Timeout),
                }
            }
        };
        // The thread sets the cause before it ends.
        received.ok_or_else(|| {
            let cause = self.end.get().filter(|_| !self.signal.is_stopped()).cloned();
            self.see_end(cause.unwrap_or(EndCause::Stopped))
        })
    }

    /// Marks the end as seen.
    fn see_end(&mut self, cause: EndCause) -> NoFrame {
        self.ended = Some(cause);
        self.ready = Vec::new().into_iter();
        NoFrame::Ended
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
            .field("last_event_id", &self.last_event_id)
            .field("ended", &self.ended)
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
