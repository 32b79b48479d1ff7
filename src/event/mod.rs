//! One event: built, checked, and encoded once as text/event-stream.

mod control;
mod frame;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{EventError, EventField};

pub use control::HeartbeatStyle;
pub(crate) use control::{follow_alone, followed, gap_between, gap_in_place, gap_of, heartbeat, id_alone};
pub use frame::Frame;
pub(crate) use frame::FrameId;

/// The largest `retry:` time in milliseconds: browsers keep it in a signed 32-bit integer.
const MAX_RETRY_MS: u128 = i32::MAX as u128;

/// The maximum length of an ID in bytes. If `Last-Event-ID` is longer than 128 bytes, or has other characters than
/// visible ASCII, the browser sends a preflight before a cross-origin request (Fetch, "CORS-safelisted
/// request-header").
const MAX_ID: usize = 128;

/// One event of an event stream: data, and optionally a type, an ID, a reconnection time and a key.
///
/// The data arrives at the browser unchanged, including several lines, leading spaces, trailing newlines and an empty
/// text. The format has one exception: each line end arrives as a line feed, so CR and CRLF become LF (WHATWG HTML
/// 9.2.6).
///
/// A plain string converts into an event, so [`Publisher::publish`](crate::Publisher::publish) takes either.
///
/// Each setter has a getter: [`data`](Self::data), [`event_type`](Self::event_type), [`event_id`](Self::event_id),
/// [`retry_time`](Self::retry_time), [`event_key`](Self::event_key) and [`comment_text`](Self::comment_text). Two events
/// are equal if all of these are. So a test can check what an application would send.
///
/// ```
/// use server_sent_events::Event;
/// use std::time::Duration;
///
/// let event = Event::new("1 of 3\n2 of 3").event("progress")?.id("job-7/3")?.retry(Duration::from_secs(2))?;
/// assert_eq!(
///     event.encode().as_ref() as &str,
///     "event: progress\nretry: 2000\ndata: 1 of 3\ndata: 2 of 3\nid: job-7/3\n\n",
/// );
/// # Ok::<(), server_sent_events::EventError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "an event does nothing until it is published"]
pub struct Event {
    data: Option<String>,
    comment: Option<String>,
    event: Option<String>,
    id: Option<String>,
    retry: Option<u32>,
    /// Not on the wire.
    key: Option<Arc<str>>,
}

impl Event {
    const EMPTY: Self = Self { data: None, comment: None, event: None, id: None, retry: None, key: None };

    /// Creates an event with this data. Every text is allowed; an empty one arrives as `""`.
    ///
    /// ```
    /// # use server_sent_events::Event;
    /// assert_eq!(&*Event::new("hello").encode(), "data: hello\n\n");
    /// ```
    pub fn new(data: impl Into<String>) -> Self {
        Self { data: Some(data.into()), ..Self::EMPTY }
    }

    /// Creates a comment, for which the browser fires no event.
    ///
    /// Every text is allowed. Each of its lines becomes a comment line. A comment with no other field has no blank
    /// line, because several client libraries fire an empty message for each blank line.
    ///
    /// ```
    /// # use server_sent_events::Event;
    /// assert_eq!(&*Event::comment("still\nhere").encode(), ": still\n: here\n");
    /// ```
    pub fn comment(text: impl Into<String>) -> Self {
        Self { comment: Some(text.into()), ..Self::EMPTY }
    }

    /// Creates an event whose data is this value as JSON.
    ///
    /// # Errors
    ///
    /// Returns [`EventError::Json`] if the value's `Serialize` fails, or a map's key is not a string.
    ///
    /// ```
    /// # use server_sent_events::Event;
    /// let event = Event::json(&[1, 2, 3])?.event("numbers")?;
    /// assert_eq!(&*event.encode(), "event: numbers\ndata: [1,2,3]\n\n");
    /// # Ok::<(), server_sent_events::EventError>(())
    /// ```
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, EventError> {
        match serde_json::to_string(value) {
            Ok(data) => Ok(Self::new(data)),
            Err(error) => Err(EventError::Json { reason: error.to_string() }),
        }
    }

    /// Sets the event's type, the name that a page gives to `addEventListener`.
    ///
    /// Without a type, or with an empty one, the browser fires `message`. Setting it again replaces it.
    ///
    /// # Errors
    ///
    /// Returns an [`EventError`] if the type contains CR, LF or NUL. A line end there could forge fields and whole
    /// events (CWE-93).
    ///
    /// ```
    /// # use server_sent_events::Event;
    /// assert_eq!(&*Event::new("hi").event("greeting")?.encode(), "event: greeting\ndata: hi\n\n");
    /// assert!(Event::new("hi").event("a\ndata: forged").is_err());
    /// # Ok::<(), server_sent_events::EventError>(())
    /// ```
    pub fn event(mut self, event: impl Into<String>) -> Result<Self, EventError> {
        let event = event.into();
        refuse(EventField::Event, &event, |character| matches!(character, '\r' | '\n' | '\0'))?;
        self.event = Some(event);
        Ok(self)
    }

    /// Sets the event's ID, which the browser sends back as `Last-Event-ID` when it reconnects.
    ///
    /// Setting it again replaces it.
    ///
    /// With a [history](crate::History), an ID must be unique in the channels of a subscriber, as long as clients may
    /// resume after it. It identifies a position in the stream, not a subject, so each event of a job needs an ID of
    /// its own. If several events have the same ID, the oldest one counts: a replay then repeats events, and skips
    /// none. Once the oldest one is evicted, the client gets a `gap` event.
    ///
    /// # Errors
    ///
    /// Returns an [`EventError`] unless the ID has 1 to 128 visible ASCII characters (`!` to `~`). An empty ID would
    /// make the browser forget its last event ID, and one with NUL is ignored (WHATWG HTML 9.2.6). Not every server
    /// passes other characters through.
    ///
    /// ```
    /// # use server_sent_events::Event;
    /// assert_eq!(&*Event::new("hi").id("42")?.encode(), "data: hi\nid: 42\n\n");
    /// assert!(Event::new("hi").id("").is_err());
    /// # Ok::<(), server_sent_events::EventError>(())
    /// ```
    pub fn id(mut self, id: impl Into<String>) -> Result<Self, EventError> {
        let id = id.into();
        refuse(EventField::Id, &id, |character| !character.is_ascii_graphic())?;
        if id.is_empty() {
            return Err(EventError::EmptyId);
        }
        if id.len() > MAX_ID {
            return Err(EventError::IdTooLong { length: id.len() });
        }
        self.id = Some(id);
        Ok(self)
    }

    /// Sets the time that the browser waits before it reconnects, from now on.
    ///
    /// It is sent as whole milliseconds, rounded up. Setting it again replaces it.
    ///
    /// # Errors
    ///
    /// Returns an [`EventError`] for more than 2,147,483,647 ms, about 24 days.
    ///
    /// ```
    /// # use {server_sent_events::Event, std::time::Duration};
    /// let event = Event::new("hi").retry(Duration::from_millis(1_500))?;
    /// assert_eq!(&*event.encode(), "retry: 1500\ndata: hi\n\n");
    /// # Ok::<(), server_sent_events::EventError>(())
    /// ```
    pub fn retry(mut self, retry: Duration) -> Result<Self, EventError> {
        let milliseconds = retry.as_nanos().div_ceil(1_000_000);
        if milliseconds > MAX_RETRY_MS {
            return Err(EventError::RetryTooLong { retry });
        }
        self.retry = Some(milliseconds as u32);
        Ok(self)
    }

    /// Sets the key: the subject of the event. For subscribers with
    /// [`Overflow::LatestPerKey`](crate::Overflow::LatestPerKey), the event replaces a queued event of the same channel
    /// with the same key.
    ///
    /// Each channel has keys of its own. An event that is published to several channels counts under the first of them
    /// that the subscriber is in.
    ///
    /// Every text is allowed, and counts towards the queue's bytes. The key is not sent, and other subscribers get
    /// every event. Setting it again replaces it.
    ///
    /// ```
    /// use server_sent_events::{Event, Overflow, Publisher};
    ///
    /// let publisher = Publisher::builder().overflow(Overflow::LatestPerKey).build()?;
    /// let mut subscription = publisher.subscribe()?;
    /// publisher.publish(Event::new("18.5").key("kitchen"));
    /// publisher.publish(Event::new("21.0").key("hall"));
    /// publisher.publish(Event::new("18.7").key("kitchen"));
    /// assert_eq!(subscription.next().unwrap(), "data: 21.0\n\n");
    /// assert_eq!(subscription.next().unwrap(), "data: 18.7\n\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Returns the data; `None` for a comment.
    ///
    /// ```
    /// # use server_sent_events::Event;
    /// # use std::time::Duration;
    /// let event = Event::new("21.0").event("celsius")?.id("42")?.retry(Duration::from_secs(2))?.key("hall");
    /// assert_eq!(event.data(), Some("21.0"));
    /// assert_eq!(event.event_type(), Some("celsius"));
    /// assert_eq!(event.event_id(), Some("42"));
    /// assert_eq!(event.retry_time(), Some(Duration::from_secs(2)));
    /// assert_eq!(event.event_key(), Some("hall"));
    /// assert_eq!(event.comment_text(), None);
    /// # Ok::<(), server_sent_events::EventError>(())
    /// ```
    pub fn data(&self) -> Option<&str> {
        self.data.as_deref()
    }

    /// Returns the type that [`event`](Self::event) set.
    pub fn event_type(&self) -> Option<&str> {
        self.event.as_deref()
    }

    /// Returns the ID that [`id`](Self::id) set. An ID that a history assigns is not in it: see
    /// [`Receipt::id`](crate::Receipt::id).
    pub fn event_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the reconnection time that [`retry`](Self::retry) set, in whole milliseconds.
    pub fn retry_time(&self) -> Option<Duration> {
        self.retry.map(|milliseconds| Duration::from_millis(milliseconds.into()))
    }

    /// Returns the key that [`key`](Self::key) set.
    pub fn event_key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns the text of a comment that [`comment`](Self::comment) made; `None` for an event with data.
    pub fn comment_text(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// Returns the encoded event: lines of `field: value`, and a blank line. A comment with no other field has no blank
    /// line.
    ///
    /// Publishing encodes the event itself. This method is for tests and other transports.
    pub fn encode(&self) -> Frame {
        self.encode_with_id(self.event_id())
    }

    /// Encodes the event with this ID instead of its own.
    pub(crate) fn encode_with_id(&self, id: Option<&str>) -> Frame {
        let mut frame = self.encode_unsealed();
        frame.seal(id, 0);
        frame
    }

    /// Encodes all but the ID and the blank line, which [`Frame::seal`] adds.
    pub(crate) fn encode_unsealed(&self) -> Frame {
        Frame::new(self.encode_fields())
    }

    /// Returns the event with these fields, which [`encode_unsealed`](Self::encode_unsealed) has written.
    pub(crate) fn decode(fields: &str) -> Self {
        let mut event = Self::EMPTY;
        let append = |text: &mut Option<String>, line: &str| match text {
            Some(text) => text.extend(["\n", line]),
            None => *text = Some(line.to_owned()),
        };
        for line in fields.split_terminator('\n') {
            let (field, value) = line.split_once(": ").unwrap_or((line, ""));
            match field {
                "" => append(&mut event.comment, value),
                "data" => append(&mut event.data, value),
                "event" => event.event = Some(value.to_owned()),
                "retry" => event.retry = value.parse().ok(),
                _ => {}
            }
        }
        event
    }

    pub(crate) fn shared_key(&self) -> Option<&Arc<str>> {
        self.key.as_ref()
    }

    pub(crate) fn is_comment(&self) -> bool {
        self.data.is_none()
    }

    /// Creates an event with only a reconnection time, which the caller has bounded. The browser fires no event for it.
    pub(crate) fn retry_alone(retry: Duration) -> Self {
        Self::EMPTY.retry(retry).expect("BUG: a reconnection time of more than 24 days")
    }

    /// Sets the ID, which is known to be valid.
    pub(crate) fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    fn encode_fields(&self) -> String {
        // The longest IDs are those of a store: a lineage of 16 bytes, an era and a sequence of up to 20.
        let id_len = "id: \n\n".len() + self.id.as_ref().map_or(58, String::len);
        // Each line gets a field name, a colon, a space and a line feed. A CRLF is counted as two lines.
        let line_ends = |text: &str| text.bytes().filter(|byte| matches!(byte, b'\r' | b'\n')).count();
        let text_len = |text: &Option<String>| {
            text.as_ref().map_or(0, |text| text.len() + (line_ends(text) + 1) * "event: \n".len())
        };
        let mut out =
            String::with_capacity(32 + id_len + text_len(&self.data) + text_len(&self.comment) + text_len(&self.event));
        for line in self.comment.iter().flat_map(|text| lines(text)) {
            push_line(&mut out, "", line);
        }
        if let Some(event) = &self.event {
            push_line(&mut out, "event", event);
        }
        if let Some(retry) = self.retry {
            push_line(&mut out, "retry", &retry.to_string());
        }
        for line in self.data.iter().flat_map(|text| lines(text)) {
            push_line(&mut out, "data", line);
        }
        out
    }
}

/// Appends one line of the format, with a space after the colon. The parser removes one space, so without it, data that
/// begins with a space would lose that.
fn push_line(out: &mut String, field: &str, value: &str) {
    out.push_str(field);
    out.push_str(": ");
    out.push_str(value);
    out.push('\n');
}

/// Returns the lines of a text by the rules of the format: CRLF, CR and LF each end a line. `str::lines` would drop the
/// empty line after a trailing newline, and keep a bare CR.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.bytes().position(|byte| matches!(byte, b'\r' | b'\n')) else {
            return rest.take();
        };
        let after = if text[end..].starts_with("\r\n") { end + 2 } else { end + 1 };
        rest = Some(&text[after..]);
        Some(&text[..end])
    })
}

fn refuse(field: EventField, text: &str, bad: impl Fn(char) -> bool) -> Result<(), EventError> {
    match text.char_indices().find(|(_, character)| bad(*character)) {
        Some((at, character)) => Err(EventError::Character { field, character, at }),
        None => Ok(()),
    }
}

/// Implements the conversion into an [`Event`] for texts, which become its data.
macro_rules! from_text {
    ($($text:ty => $into_string:expr),* $(,)?) => {$(
        impl From<$text> for Event {
            fn from(text: $text) -> Self {
                Self::new($into_string(text))
            }
        }
    )*};
}

from_text! {
    &str => String::from,
    String => String::from,
    &String => String::clone,
    Cow<'_, str> => Cow::into_owned,
    Arc<str> => |text: Arc<str>| String::from(&*text),
    fmt::Arguments<'_> => |text| fmt::format(text),
}
