//! The handler's responses.

use std::borrow::Cow;
use std::sync::Arc;

use super::handler_error::HandlerError;
use crate::error::OpenError;
use crate::http::ResponseHeaders;
use crate::subscription::Subscription;

/// A response from the handler given to [`EventServer::serve`](super::EventServer::serve).
///
/// ```
/// use server_sent_events::Publisher;
/// use server_sent_events::server::{HandlerError, Request, Response};
///
/// fn answer(publisher: &Publisher, request: &Request) -> Result<Response, HandlerError> {
///     match request.path() {
///         "/" => Ok(Response::html("<h1>News</h1>").header("Content-Security-Policy", "default-src 'self'")?),
///         "/news" => Ok(publisher.subscription(()).last_event_id(request.last_event_id()).open()?.into()),
///         "/archive" => Ok(Response::do_not_reconnect()),
///         _ => Response::status(404),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Response {
    pub(super) kind: Kind,
    pub(super) headers: ResponseHeaders,
}

/// The kinds of responses.
#[derive(Debug)]
pub(super) enum Kind {
    Stream(Box<Subscription>),
    RetryLater,
    Content { status: u16, content_type: Cow<'static, str>, body: Body },
}

/// The body of a response that is not a stream.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Text(Cow<'static, str>),
    Shared(Arc<[u8]>),
}

impl Body {
    pub(super) const EMPTY: Self = Self::Text(Cow::Borrowed(""));

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Shared(bytes) => bytes,
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Response {
    /// Creates a response that sends the event stream.
    ///
    /// A `HEAD` request gets the head alone, and the subscription ends.
    pub fn stream(subscription: Subscription) -> Self {
        Self::of(Kind::Stream(Box::new(subscription)))
    }

    /// Creates a response that makes the client reconnect later.
    ///
    /// It has status 200 and a `retry:` field between 5 and 10 seconds, random per client, and its stream ends at once.
    /// A status such as 503 would make an `EventSource` give up for good.
    pub fn retry_later() -> Self {
        Self::of(Kind::RetryLater)
    }

    /// Creates a response that makes an `EventSource` stop reconnecting: status 204.
    pub fn do_not_reconnect() -> Self {
        Self::content(204, TEXT, Body::EMPTY)
    }

    /// Creates a response with this status, whose body is the status in words.
    ///
    /// # Errors
    ///
    /// Returns an error with status 500 if the status is below 200 or above 599.
    pub fn status(status: u16) -> Result<Self, HandlerError> {
        Self::error(status, super::encode::reason_phrase(status)).with_status(status)
    }

    /// Creates a response with a plain text. It has an `ETag` as [`html`](Self::html) does.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self::content(200, TEXT, Body::Text(text.into()))
    }

    /// Creates a response with a page.
    ///
    /// A text from [`include_str!`] is not copied. The page costs nothing the second time: the response has an `ETag`
    /// and `Cache-Control: no-cache`, and a browser that still has the page gets status 304 (RFC 9110 13.1.2). For a
    /// page that differs by user, [set](Self::header) `Cache-Control: private, no-cache`.
    pub fn html(page: impl Into<Cow<'static, str>>) -> Self {
        Self::content(200, "text/html; charset=utf-8", Body::Text(page.into()))
    }

    /// Creates a response with this value as JSON. It has an `ETag` as [`html`](Self::html) does.
    ///
    /// # Errors
    ///
    /// Returns an error with status 500 if the value cannot be serialized.
    #[cfg(feature = "json")]
    pub fn json(value: &impl serde::Serialize) -> Result<Self, HandlerError> {
        let text = serde_json::to_string(value).map_err(|error| HandlerError::new(500, error.to_string()))?;
        Ok(Self::content(200, "application/json", Body::Text(text.into())))
    }

    /// Creates a response with these bytes, which are shared, not copied.
    ///
    /// It has an `ETag` as [`html`](Self::html) does.
    ///
    /// # Errors
    ///
    /// Returns an error with status 500 if the content type has a character that a header cannot have.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use server_sent_events::server::Response;
    ///
    /// let icon: Arc<[u8]> = Arc::from(*b"GIF89a");
    /// let response = Response::bytes("image/gif", Arc::clone(&icon))?;
    /// # Ok::<(), server_sent_events::server::HandlerError>(())
    /// ```
    pub fn bytes(content_type: &str, bytes: impl Into<Arc<[u8]>>) -> Result<Self, HandlerError> {
        ResponseHeaders::check("Content-Type", content_type)?;
        Ok(Self::content(200, content_type.to_owned(), Body::Shared(bytes.into())))
    }

    /// Creates a response that sends the client elsewhere with a `GET`: status 303.
    ///
    /// # Errors
    ///
    /// Returns an error with status 500 if the location is not ASCII, or has a control character: percent-encode it.
    pub fn redirect(location: &str) -> Result<Self, HandlerError> {
        Self::content(303, TEXT, Body::EMPTY).header("Location", location)
    }

    /// Sets the status of a response that is not a stream. A stream always has status 200.
    ///
    /// # Errors
    ///
    /// Returns an error with status 500 if the status is below 200 or above 599.
    ///
    /// ```
    /// use server_sent_events::server::Response;
    ///
    /// assert_eq!(Response::text("no such channel").with_status(404)?.status_code(), 404);
    /// assert_eq!(Response::status(42).unwrap_err().to_string(), "invalid status 42: expected 200 to 599");
    /// # Ok::<(), server_sent_events::server::HandlerError>(())
    /// ```
    pub fn with_status(mut self, status: u16) -> Result<Self, HandlerError> {
        if !(200..=599).contains(&status) {
            return Err(HandlerError::new(500, format!("invalid status {status}: expected 200 to 599")));
        }
        if let Kind::Content { status: own, .. } = &mut self.kind {
            *own = status;
        }
        Ok(self)
    }

    /// Adds a header, as [`ResponseHeaders::with`] does.
    ///
    /// # Errors
    ///
    /// Returns an error with status 500 for the headers that [`ResponseHeaders::with`] rejects.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, HandlerError> {
        self.headers = self.headers.with(name, value)?;
        Ok(self)
    }

    /// Returns the response's status.
    pub fn status_code(&self) -> u16 {
        if let Kind::Content { status, .. } = self.kind { status } else { 200 }
    }

    /// Returns the body; empty for a stream.
    pub fn body(&self) -> &[u8] {
        if let Kind::Content { body, .. } = &self.kind { body.bytes() } else { &[] }
    }

    /// Creates a response with this status and a text for people. The status must be valid.
    pub(super) fn error(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        let body = if text.is_empty() { Body::EMPTY } else { Body::Text(format!("{text}\n").into()) };
        Self::content(status, TEXT, body)
    }

    fn content(status: u16, content_type: impl Into<Cow<'static, str>>, body: Body) -> Self {
        Self::of(Kind::Content { status, content_type: content_type.into(), body })
    }

    fn of(kind: Kind) -> Self {
        Self { kind, headers: ResponseHeaders::new() }
    }
}

/// Converts as [`Response::stream`] does.
impl From<Subscription> for Response {
    fn from(subscription: Subscription) -> Self {
        Self::stream(subscription)
    }
}

/// Converts a subscription into its stream, and an error into the response that it [becomes](HandlerError).
impl From<Result<Subscription, OpenError>> for Response {
    fn from(opened: Result<Subscription, OpenError>) -> Self {
        opened.map_or_else(|error| HandlerError::from(error).into(), Self::stream)
    }
}
