//! An event on its way to the ordering lock.

use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::queue::Payload;

/// An event to publish.
pub(crate) struct NewEvent {
    /// Sealed, unless a history keeps the event.
    pub(crate) payload: Payload,
    pub(crate) own_id: Option<Arc<str>>,
    pub(crate) key: Option<Arc<str>>,
    /// A comment is not kept, and gets no ID.
    pub(crate) is_comment: bool,
    /// When it was published, by the history's clock; `None` for now.
    pub(crate) at: Option<Duration>,
    /// Its sequence in the log that the history follows; `None` for the next.
    pub(crate) sequence: Option<u64>,
}

impl NewEvent {
    /// Creates an event for everyone alike. With a history, it is completed under the ordering lock.
    pub(crate) fn new(event: &Event, has_history: bool) -> Self {
        let is_comment = event.is_comment();
        let frame = if !has_history {
            event.encode()
        } else if is_comment {
            // The history does not keep it, so it has no ID there.
            event.encode_with_id(None)
        } else {
            event.encode_unsealed()
        };
        let (own_id, key) = (event.event_id().map(Into::into), event.shared_key().cloned());
        Self { payload: Payload::Frame(frame), own_id, key, is_comment, at: None, sequence: None }
    }

    /// Creates an event for one subscriber. A history does not keep it, so it has no ID there.
    pub(crate) fn for_one(event: &Event, has_history: bool) -> Self {
        let frame = if has_history { event.encode_with_id(None) } else { event.encode() };
        let (key, is_comment) = (event.shared_key().cloned(), event.is_comment());
        Self { payload: Payload::Frame(frame), own_id: None, key, is_comment, at: None, sequence: None }
    }
}
