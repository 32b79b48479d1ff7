//! The types that can be a last event ID.

use std::borrow::Cow;
use std::sync::Arc;

/// A last event ID, or none: a text, or an `Option` of one.
///
/// Texts are `&str`, `&String`, `String`, `Cow<str>` and `Arc<str>`. So what
/// [`Publisher::last_event_id`](crate::Publisher::last_event_id) and a request return fits as it is.
///
/// This trait is sealed: no other type can implement it.
///
/// ```
/// use server_sent_events::{History, Publisher};
///
/// let publisher = Publisher::builder().history(History::new()).build()?;
/// let id: Option<String> = publisher.last_event_id();
/// publisher.subscription(()).last_event_id(id.as_deref()).open()?;
/// publisher.subscription(()).last_event_id(id).open()?;
/// publisher.subscription(()).last_event_id("an ID").open()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a last event ID",
    note = "use a `&str`, a `String`, or an `Option` of one"
)]
pub trait LastEventId: sealed::IntoId {}

impl<T: sealed::IntoId> LastEventId for T {}

pub(crate) mod sealed {
    pub trait IntoId {
        fn into_id(self) -> Option<String>;
    }
}

/// Implements the trait for texts, and for an `Option` of each.
macro_rules! impl_for_texts {
    ($($text:ty => $into_string:expr),* $(,)?) => {$(
        impl sealed::IntoId for $text {
            fn into_id(self) -> Option<String> {
                Some($into_string(self))
            }
        }

        impl sealed::IntoId for Option<$text> {
            fn into_id(self) -> Option<String> {
                self.map($into_string)
            }
        }
    )*};
}

impl_for_texts! {
    &str => String::from,
    &String => String::clone,
    String => |id| id,
    Cow<'_, str> => Cow::into_owned,
    Arc<str> => |id: Arc<str>| String::from(&*id),
}
