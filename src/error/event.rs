//! Errors of building an event.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// The field of an event whose text was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventField {
    /// The event's type.
    Event,
    /// The event's ID.
    Id,
}

/// The reason why an [`Event`](crate::Event) was rejected. None of it is sent.
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
    /// The text contains a character that this field must not contain.
    Character {
        /// The field.
        field: EventField,
        /// The first such character.
        character: char,
        /// The position at which the character begins, in bytes.
        at: usize,
    },
    /// The ID is empty. It would make the browser forget its last event ID.
    EmptyId,
    /// The ID is longer than 128 bytes.
    IdTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The reconnection time is longer than 2,147,483,647 ms.
    RetryTooLong {
        /// The time that was given.
        retry: Duration,
    },
    /// The value given to [`Event::json`](crate::Event::json) cannot be written as JSON: its `Serialize` failed, or a
    /// map's key is not a string.
    #[cfg(feature = "json")]
    Json {
        /// The error text of `serde_json`.
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
