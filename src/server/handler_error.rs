//! The error of a handler, which becomes its response.

use std::error::Error;
use std::fmt;

use super::response::Response;
use crate::error::{EventError, HeaderError, OpenError};

/// An error in a handler, with the status of the response that it becomes.
///
/// A handler may return `Result<Response, HandlerError>`, and use `?` on the errors of this crate. An [`OpenError`]
/// that is [temporary](OpenError::is_temporary) becomes [`Response::retry_later`]; any other, and an [`EventError`],
/// becomes status 400. A [`HeaderError`] is an error of the program and becomes status 500.
///
/// ```
/// use server_sent_events::Publisher;
/// use server_sent_events::server::{HandlerError, Request, Response};
///
/// fn answer(publisher: &Publisher, request: &Request) -> Result<Response, HandlerError> {
///     match (request.method(), request.path()) {
///         ("GET", "/news") => {
///             Ok(publisher.subscription(()).last_event_id(request.last_event_id()).open()?.into())
///         }
///         ("POST", "/news") => {
///             publisher.publish(request.body_text()?);
///             Response::status(204)
///         }
///         _ => Err(HandlerError::new(404, "only /news is here")),
///     }
/// }
///
/// let request = Request::builder("POST", "/news").body([0xff]).build()?;
/// let error = answer(&Publisher::new(), &request).unwrap_err();
/// assert_eq!((error.status(), error.to_string().starts_with("the body is not UTF-8")), (400, true));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HandlerError {
    status: u16,
    text: String,
    retries: bool,
}

impl HandlerError {
    /// Creates an error with this status, and a text for people. A status that is none becomes 500.
    pub fn new(status: u16, text: impl Into<String>) -> Self {
        let status = if (200..=599).contains(&status) { status } else { 500 };
        Self { status, text: text.into(), retries: false }
    }

    /// Returns the status of the response.
    pub fn status(&self) -> u16 {
        self.status
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for HandlerError {}

impl From<OpenError> for HandlerError {
    fn from(error: OpenError) -> Self {
        let retries = error.is_temporary();
        Self { status: if retries { 200 } else { 400 }, text: error.to_string(), retries }
    }
}

impl From<EventError> for HandlerError {
    fn from(error: EventError) -> Self {
        Self::new(400, error.to_string())
    }
}

impl From<HeaderError> for HandlerError {
    fn from(error: HeaderError) -> Self {
        Self::new(500, error.to_string())
    }
}

impl From<HandlerError> for Response {
    fn from(error: HandlerError) -> Self {
        if error.retries { Self::retry_later() } else { Self::error(error.status, error.text) }
    }
}

/// Converts an error as the response that it [becomes](HandlerError).
impl<E: Into<HandlerError>> From<Result<Response, E>> for Response {
    fn from(answered: Result<Response, E>) -> Self {
        answered.unwrap_or_else(|error| error.into().into())
    }
}
