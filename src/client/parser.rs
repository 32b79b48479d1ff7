//! The parser of event streams: bytes in, messages out. It uses the standard library only.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::iter;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::Message;
use crate::follow;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A buffer for a line that is larger than this is freed after the line.
const MAX_IDLE_CAPACITY: usize = 64 * 1024;

/// Parses event streams (`text/event-stream`) as browsers do, to the letter of the standard (WHATWG HTML 9.2.6).
///
/// It takes the bytes in pieces of any size, as they arrive. Invalid UTF-8 becomes U+FFFD, as the standard's decoder does
/// it. No input makes it panic. Its memory is bounded by the limits of a [line](Self::max_line_len) and of an
/// [event](Self::max_event_len).
///
/// ```
/// use server_sent_events::client::Parser;
///
/// let mut parser = Parser::new();
/// assert_eq!(parser.push(b"data: two\r")?, []);
/// assert_eq!(parser.push(b"\ndata: lines\r\n\r\ndata: unfinished")?[0].data, "two\nlines");
/// # Ok::<(), server_sent_events::client::ParserError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Parser {
    max_line_len: usize,
    max_event_len: usize,
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    is_first_line: bool,
    /// The last byte was a carriage return, so a line feed that follows ends no other line.
    is_after_cr: bool,
    /// The data of the current block, each line with a line feed after it.
    data: Vec<u8>,
    event_type: String,
    retry: Option<Duration>,
    /// The last `id` of the stream, which the end of a block makes the last event ID.
    id: Arc<str>,
    last_event_id: Arc<str>,
    reconnection_time: Option<Duration>,
    /// `true` if blocks have an extra line, for a client that follows a publisher.
    follows: bool,
    follow: Option<Box<str>>,
    error: Option<ParserError>,
}

impl Parser {
    pub(super) const MAX_LINE_LEN: usize = 4 * 1024 * 1024;
    pub(super) const MAX_EVENT_LEN: usize = 16 * 1024 * 1024;

    /// Creates a parser at the start of a stream.
    pub fn new() -> Self {
        let no_id: Arc<str> = Arc::default();
        Self {
            max_line_len: Self::MAX_LINE_LEN,
            max_event_len: Self::MAX_EVENT_LEN,
            line: Vec::new(),
            is_first_line: true,
            is_after_cr: false,
            data: Vec::new(),
            event_type: String::new(),
            retry: None,
            id: Arc::clone(&no_id),
            last_event_id: no_id,
            reconnection_time: None,
            follows: false,
            follow: None,
            error: None,
        }
    }

    /// Sets how many bytes a line may have, without its end. Defaults to 4 MiB.
    pub fn max_line_len(mut self, bytes: usize) -> Self {
        self.max_line_len = bytes;
        self
    }

    /// Sets how many bytes the data of an event may have. Defaults to 16 MiB.
    pub fn max_event_len(mut self, bytes: usize) -> Self {
        self.max_event_len = bytes;
        self
    }

    /// Sets the last event ID that the stream resumes after. Defaults to none.
    ///
    /// Messages have this ID until the stream sends another one.
    ///
    /// ```
    /// use server_sent_events::client::Parser;
    ///
    /// let mut parser = Parser::new().resume_after("41");
    /// let messages = parser.push(b"data: a\n\nid: 42\ndata: b\n\n")?;
    /// assert_eq!((&*messages[0].id, &*messages[1].id), ("41", "42"));
    /// # Ok::<(), server_sent_events::client::ParserError>(())
    /// ```
    pub fn resume_after(mut self, id: &str) -> Self {
        self.last_event_id = id.into();
        self.id = Arc::clone(&self.last_event_id);
        self
    }

    /// Makes it parse the extra lines for a client that follows a publisher. A block with one is a message, even without
    /// data. A reconnection time is that of an event, and not the client's.
    #[cfg(feature = "client")]
    pub(crate) fn for_follower(mut self) -> Self {
        self.follows = true;
        self
    }

    /// Starts a new stream: drops an unfinished block, and an error. Keeps the last event ID, the reconnection time and
    /// the limits.
    ///
    /// Call it for each connection of a client that reconnects.
    pub fn start_stream(&mut self) {
        self.clear();
        self.is_first_line = true;
        self.is_after_cr = false;
        self.id = Arc::clone(&self.last_event_id);
        self.error = None;
    }

    /// Parses the next bytes of the stream. Returns the messages that they complete.
    ///
    /// # Errors
    ///
    /// Returns a [`ParserError`] if a line or an event exceeds its limit. Messages that came before are returned first,
    /// by the call that finds the error; [`error`](Self::error) then returns it at once. Every later call returns the
    /// error, until [`start_stream`](Self::start_stream).
    ///
    /// ```
    /// use server_sent_events::client::{Parser, ParserError};
    ///
    /// let mut parser = Parser::new().max_line_len(10);
    /// assert_eq!(parser.push(b"data: a\n\ndata: too long")?.len(), 1);
    /// assert_eq!(parser.push(b"\n\n"), Err(ParserError::LineTooLong { limit: 10 }));
    /// # Ok::<(), ParserError>(())
    /// ```
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Message>, ParserError> {
        let mut rest = bytes;
        let messages: Vec<_> = iter::from_fn(|| self.next_message(&mut rest)).collect();
        match self.error {
            Some(error) if messages.is_empty() => Err(error),
            _ => Ok(messages),
        }
    }

    /// Returns the error that has stopped the parser.
    pub fn error(&self) -> Option<ParserError> {
        self.error
    }

    /// Returns the last event ID: that of the last whole block. It is empty if there was none.
    ///
    /// A client that reconnects sends it in the header `Last-Event-ID`. A block without data sets it too.
    pub fn last_event_id(&self) -> &Arc<str> {
        &self.last_event_id
    }

    /// Returns the reconnection time that the stream has set last.
    pub fn reconnection_time(&self) -> Option<Duration> {
        self.reconnection_time
    }

    /// Frees the buffers.
    fn clear(&mut self) {
        self.line = Vec::new();
        self.data = Vec::new();
        self.event_type = String::new();
        self.retry = None;
        self.follow = None;
    }

    /// Parses bytes up to the end of the next message, and advances past them. Returns `None` if they complete none, or if
    /// an error stops the parser.
    pub(super) fn next_message(&mut self, bytes: &mut &[u8]) -> Option<Message> {
        if self.error.is_some() {
            return None;
        }
        let parsed = self.parse(bytes);
        parsed.unwrap_or_else(|error| {
            self.clear();
            self.error = Some(error);
            None
        })
    }

    fn parse(&mut self, bytes: &mut &[u8]) -> Result<Option<Message>, ParserError> {
        while let Some(first) = bytes.first() {
            if mem::take(&mut self.is_after_cr) && *first == b'\n' {
                *bytes = &bytes[1..];
                continue;
            }
            let Some(end) = find(bytes, |byte| (byte == b'\n') | (byte == b'\r')) else {
                self.hold(mem::take(bytes))?;
                break;
            };
            let line = &bytes[..end];
            self.is_after_cr = bytes[end] == b'\r';
            *bytes = &bytes[end + 1..];
            if let Some(message) = self.end_line(line)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Appends a piece of a line to the buffer.
    fn hold(&mut self, piece: &[u8]) -> Result<(), ParserError> {
        self.check_line(piece)?;
        self.line.extend_from_slice(piece);
        Ok(())
    }

    /// Takes the last piece of a line.
    fn end_line(&mut self, piece: &[u8]) -> Result<Option<Message>, ParserError> {
        if self.line.is_empty() {
            self.check_line(piece)?;
            return self.take_line(piece);
        }
        self.hold(piece)?;
        let mut line = mem::take(&mut self.line);
        let message = self.take_line(&line)?;
        if line.capacity() <= MAX_IDLE_CAPACITY {
            line.clear();
            self.line = line;
        }
        Ok(message)
    }

    fn check_line(&self, piece: &[u8]) -> Result<(), ParserError> {
        let fits = piece.len() <= self.max_line_len - self.line.len();
        if fits { Ok(()) } else { Err(ParserError::LineTooLong { limit: self.max_line_len }) }
    }

    fn take_line(&mut self, mut line: &[u8]) -> Result<Option<Message>, ParserError> {
        if mem::take(&mut self.is_first_line) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(self.end_block());
        }
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => self.append_data(value)?,
            b"event" => self.event_type = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => self.id = String::from_utf8_lossy(value).into(),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.retry = Some(milliseconds(value));
                if !self.follows {
                    self.reconnection_time = self.retry;
                }
            }
            _ if self.follows && name == follow::FIELD.as_bytes() => {
                self.follow = Some(String::from_utf8_lossy(value).into());
            }
            // A comment has an empty name.
            _ => {}
        }
        Ok(None)
    }

    fn append_data(&mut self, value: &[u8]) -> Result<(), ParserError> {
        if self.data.len().saturating_add(value.len()) > self.max_event_len {
            return Err(ParserError::EventTooLarge { limit: self.max_event_len });
        }
        if self.data.is_empty() {
            self.data.reserve_exact(value.len() + 1);
        }
        self.data.extend_from_slice(value);
        self.data.push(b'\n');
        Ok(())
    }

    /// Returns the message of a block, if it has data.
    fn end_block(&mut self) -> Option<Message> {
        self.last_event_id = Arc::clone(&self.id);
        let (event_type, retry) = (mem::take(&mut self.event_type), self.retry.take());
        let mut data = mem::take(&mut self.data);
        let follow = self.follow.take();
        // The last line feed is not part of the data.
        if data.pop().is_none() && follow.is_none() {
            return None;
        }
        Some(Message {
            event_type: if event_type.is_empty() { Cow::Borrowed("message") } else { Cow::Owned(event_type) },
            data: String::from_utf8(data)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
            id: Arc::clone(&self.last_event_id),
            retry,
            follow,
        })
    }
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the index of the first such byte.
fn find(bytes: &[u8], is_sought: impl Fn(u8) -> bool) -> Option<usize> {
    // The compiler turns a search without an early end into a few instructions for all bytes of a step.
    const STEP: usize = 32;

    let in_step = |step: &[u8]| step.iter().fold(false, |found, byte| found | is_sought(*byte));
    let skipped = bytes.chunks_exact(STEP).take_while(|step| !in_step(step)).count() * STEP;
    bytes[skipped..].iter().position(|byte| is_sought(*byte)).map(|index| skipped + index)
}

/// Returns the time that these digits name. A time that is too long for a number becomes the longest.
fn milliseconds(digits: &[u8]) -> Duration {
    let append = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Duration::from_millis(digits.iter().fold(0, append))
}

/// The reason why a [`Parser`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParserError {
    /// A line is too long.
    LineTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The data of an event is too large.
    EventTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
}

impl fmt::Display for ParserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineTooLong { limit } => write!(f, "line too long: raise `max_line_len` ({limit} bytes)"),
            Self::EventTooLarge { limit } => write!(f, "event too large: raise `max_event_len` ({limit} bytes)"),
        }
    }
}

impl Error for ParserError {}
