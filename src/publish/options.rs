//! Options of one published event.

use std::sync::Arc;

use crate::error::EventError;
use crate::event::Event;

/// The ID and the key of an event of [`publish_with_options`](crate::Publisher::publish_with_options).
///
/// ```
/// use server_sent_events::PublishOptions;
///
/// let options = PublishOptions::new().id("job-7/3")?.key("job-7");
/// # Ok::<(), server_sent_events::EventError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[must_use = "options do nothing until they are given to `publish_with_options`"]
pub struct PublishOptions {
    pub(super) id: Option<String>,
    pub(super) key: Option<Arc<str>>,
}

impl PublishOptions {
    /// Creates options with neither an ID nor a key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the event's ID, as [`Event::id`] does.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Event::id`].
    pub fn id(mut self, id: impl Into<String>) -> Result<Self, EventError> {
        self.id = Event::comment("").id(id)?.event_id().map(str::to_owned);
        Ok(self)
    }

    /// Sets what the event is about, as [`Event::key`] does.
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }
}
