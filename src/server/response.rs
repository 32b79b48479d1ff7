//! The handler's responses, and their bytes.

use std::time::{Duration, SystemTime};

use crate::error::OpenError;
use crate::http::{self, ResponseHeaders};
use crate::subscription::Subscription;

/// A response from the handler given to [`EventServer::serve`](super::EventServer::serve).
///
/// ```
/// use server_sent_events::Publisher;
/// use server_sent_events::server::{Request, Response};
///
/// fn answer(publisher: &Publisher, request: &Request) -> Response {
///     match request.path() {
///         "/news" => publisher.subscription(()).last_event_id(request.last_event_id()).open().into(),
///         "/archive" => Response::do_not_reconnect(),
///         _ => Response::status(404, "only /news is here"),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Response(pub(super) Kind);

/// The kinds of responses.
#[derive(Debug)]
pub(super) enum Kind {
    Stream(Box<Subscription>),
    RetryLater,
    DoNotReconnect,
    Status(u16, String),
}

impl Response {
    /// Creates a response that sends the event stream.
    ///
    /// A `HEAD` request gets the head alone, and the subscription ends.
    pub fn stream(subscription: Subscription) -> Self {
        Self(Kind::Stream(Box::new(subscription)))
    }

    /// Creates a response that makes the client reconnect later.
    ///
    /// It has status 200 and a `retry:` field between 5 and 10 seconds, random per client, and its stream ends at once.
    /// A status such as 503 would make an `EventSource` give up for good.
    pub fn retry_later() -> Self {
        Self(Kind::RetryLater)
    }

    /// Creates a response that makes an `EventSource` stop reconnecting: status 204.
    pub fn do_not_reconnect() -> Self {
        Self(Kind::DoNotReconnect)
    }

    /// Creates a response with this status, and a text for people. An `EventSource` does not reconnect after it.
    ///
    /// A status below 200 or above 599 is replaced by 500.
    pub fn status(status: u16, text: impl Into<String>) -> Self {
        Self(Kind::Status(status, text.into()))
    }
}

/// Converts as [`Response::stream`] does.
impl From<Subscription> for Response {
    fn from(subscription: Subscription) -> Self {
        Self::stream(subscription)
    }
}

/// Converts a subscription into its stream. A [temporary](OpenError::is_temporary) error becomes
/// [`retry_later`](Response::retry_later); any other becomes status 400 with the error's text.
impl From<Result<Subscription, OpenError>> for Response {
    fn from(opened: Result<Subscription, OpenError>) -> Self {
        match opened {
            Ok(subscription) => Self::stream(subscription),
            Err(error) if error.is_temporary() => Self::retry_later(),
            Err(error) => Self::status(400, error.to_string()),
        }
    }
}

/// Returns the head of a stream with these additional header lines.
pub(super) fn stream_head(headers: &str, chunked: bool) -> Vec<u8> {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let head = http::head(chunked, false, &date, &ResponseHeaders::new());
    let fields = head.strip_suffix("\r\n").expect("BUG: head does not end with an empty line");
    format!("{fields}{headers}\r\n").into_bytes()
}

/// Returns a response whose stream ends at once and makes the client reconnect later.
pub(super) fn retry_later(headers: &str, is_head: bool) -> Vec<u8> {
    let mut bytes = stream_head(headers, false);
    if !is_head {
        bytes.extend_from_slice(http::busy(Duration::from_secs(5)).as_bytes());
    }
    bytes
}

/// Returns a short response with these additional header lines.
pub(super) fn message(status: u16, headers: &str, text: &str, with_body: bool) -> Vec<u8> {
    let reason = reason_phrase(status);
    let date = httpdate::fmt_http_date(SystemTime::now());
    let has_body = !matches!(status, 204 | 304);
    let length = text.len() + usize::from(!text.is_empty());
    let body_headers = if has_body {
        format!("Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n")
    } else {
        String::new()
    };
    let mut response =
        format!("HTTP/1.1 {status} {reason}\r\nDate: {date}\r\n{body_headers}{headers}Connection: close\r\n\r\n");
    if has_body && with_body && !text.is_empty() {
        response.extend([text, "\n"]);
    }
    response.into_bytes()
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        // The phrase may be empty, but not the space before it (RFC 9112 4).
        _ => "",
    }
}
