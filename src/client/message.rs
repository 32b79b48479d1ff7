//! One message of an event stream.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// A message that an event stream has delivered.
///
/// ```
/// use server_sent_events::client::Parser;
///
/// let message = Parser::new().push(b"event: build\nid: 7\ndata: all green\n\n")?.remove(0);
/// assert_eq!(message.event_type, "build");
/// assert_eq!(message.data, "all green");
/// assert_eq!(&*message.id, "7");
/// # Ok::<(), server_sent_events::client::ParserError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// The event's type; `message` if the stream names none.
    pub event_type: Cow<'static, str>,
    /// The event's data. Its lines are separated by line feeds.
    pub data: String,
    /// The last event ID at this message; empty if the stream has sent none. An event without an ID has that of the
    /// event before it. Messages share its text.
    pub id: Arc<str>,
    /// The reconnection time, if the event carries one.
    pub retry: Option<Duration>,
    /// The extra line of its block, for a client that follows a publisher.
    pub(super) follow: Option<Box<str>>,
}

impl Message {
    /// Returns `true` if the event's type is `gap`: a publisher of this crate reports that events were lost.
    ///
    /// The client must then reload the state that it derives from events. See [`History`](crate::History).
    ///
    /// ```
    /// use server_sent_events::client::Parser;
    ///
    /// let messages = Parser::new().push(b"event: gap\ndata: {\"lost\":3}\n\ndata: next\n\n")?;
    /// assert!(messages[0].is_gap());
    /// assert!(!messages[1].is_gap());
    /// # Ok::<(), server_sent_events::client::ParserError>(())
    /// ```
    pub fn is_gap(&self) -> bool {
        self.event_type == "gap"
    }
}
