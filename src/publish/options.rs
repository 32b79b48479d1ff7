//! Options of one published event.

use std::sync::Arc;

use crate::error::EventError;
use crate::event::Event;

/// The ID and the key of an event of [`publish_with_options`](crate::Publisher::publish_with_options).
///
/// With them a personal event can be resumed after and coalesced, as any other event:
///
/// ```
/// use server_sent_events::{Event, History, Overflow, PublishOptions, Publisher};
///
/// struct User { name: &'static str }
/// let publisher = Publisher::builder_for::<User>().history(History::new()).overflow(Overflow::LatestPerKey).build()?;
/// let mut ada = publisher.subscription(User { name: "Ada" }).channels("jobs").open()?;
/// for percent in [50, 100] {
///     let options = PublishOptions::new().id(format!("job-7/{percent}"))?.key("job-7");
///     publisher.publish_with_options("jobs", options, move |user: &User| {
///         Some(Event::new(format!("{}: {percent} %", user.name)))
///     });
/// }
/// assert!(ada.try_recv()?.starts_with("id: "));
/// assert_eq!(ada.try_recv()?, "data: Ada: 100 %\nid: job-7/100\n\n");
/// # drop(ada);
///
/// // Ada's client has seen the first half only.
/// let ada = publisher.subscription(User { name: "Ada" }).channels("jobs").last_event_id("job-7/50").open()?;
/// assert!(ada.resumption().is_complete());
/// # Ok::<(), Box<dyn std::error::Error>>(())
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

    /// Sets the event's key, as [`Event::key`] does.
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }
}
