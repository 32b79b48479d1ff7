//! What a server needs from HTTP to carry event streams, for servers that this crate has no adapter for.
//!
//! A response to a request for a stream has status 200, the [headers](response_headers) of an event stream, and a body
//! from a [`Subscription`](crate::Subscription). If the client reconnects, the request has its last event ID: the feature
//! `http` adds the function `last_event_id`, which finds it. If the subscription is [refused for
//! now](crate::OpenError::is_temporary), the body is [`retry_later`]. `docs/embedding.md` has whole programs for several
//! servers.
//!
//! ```
//! use server_sent_events::{Publisher, ResponseHeaders, http};
//! use std::{io, time::Duration};
//!
//! fn answer(publisher: &Publisher, last_event_id: Option<&str>, mut connection: impl io::Write) -> io::Result<()> {
//!     connection.write_all(http::response_head(&ResponseHeaders::new()).as_bytes())?;
//!     match publisher.subscription(()).last_event_id(last_event_id).open() {
//!         Ok(mut subscription) => subscription.try_for_each(|event| connection.write_all(event.as_bytes())),
//!         Err(_) => connection.write_all(http::retry_later(Duration::from_secs(5)).as_bytes()),
//!     }
//! }
//!
//! let publisher = Publisher::builder().max_subscribers(1).build()?;
//! let _first = publisher.subscribe()?;
//! let mut bytes = Vec::new();
//! answer(&publisher, None, &mut bytes)?;
//! assert!(String::from_utf8(bytes)?.contains("\r\n\r\n: busy\nretry: "));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::time::Duration;

use crate::error::HeaderError;
use crate::event::{Event, Frame};
use crate::spread;

/// The request header in which an `EventSource` sends its last event ID when it reconnects.
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
pub(crate) const LAST_EVENT_ID: &str = "Last-Event-ID";

/// The query parameter for clients that cannot set a header: polyfills, and the first connection of a page.
#[cfg(feature = "http")]
const LAST_EVENT_ID_QUERY: &str = "lastEventId";

/// Returns the ID of the last event that the client saw, from the value of the request's header `Last-Event-ID`, else
/// from `lastEventId` in the query of the request's target. An empty ID counts as none.
///
/// The query is for clients that cannot set a header. The target is a path or a URL, such as `/news?lastEventId=7`. The
/// client may send any text of any length. Needs the feature `http`.
///
/// ```
/// use server_sent_events::http::last_event_id;
///
/// assert_eq!(last_event_id(Some("a-8"), "/news?lastEventId=a-7").as_deref(), Some("a-8"));
/// assert_eq!(last_event_id(None, "/news?lastEventId=a%2D7").as_deref(), Some("a-7"));
/// assert_eq!(last_event_id(None, "/news"), None);
/// ```
#[cfg(feature = "http")]
pub fn last_event_id(header: Option<&str>, target: &str) -> Option<String> {
    let from_query = || {
        let (_, query) = target.split_once('?')?;
        // A URL may have a fragment.
        let query = query.split('#').next()?;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == LAST_EVENT_ID_QUERY).map(|(_, value)| value.into_owned())
    };
    header.filter(|id| !id.is_empty()).map(str::to_owned).or_else(from_query).filter(|id| !id.is_empty())
}

/// The type of an event stream. Several clients would decode it as Latin-1 without the charset.
const CONTENT_TYPE: (&str, &str) = ("Content-Type", "text/event-stream; charset=utf-8");

/// The default headers: caches must not keep a stream, compressors must not change it, and nginx must not buffer it.
const DEFAULTS: [(&str, &str); 2] = [("Cache-Control", "no-cache, no-transform"), ("X-Accel-Buffering", "no")];

/// The headers that the application cannot set: they describe the body's framing, its type, or its date.
const RESERVED: [&str; 9] = [
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Date",
    "Keep-Alive",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

/// Additional headers for the response that carries an event stream.
///
/// Each header is checked when it is added, so that no response fails because of it. A header replaces a default header
/// of the same name: `Cache-Control` (`no-cache, no-transform`) or `X-Accel-Buffering` (`no`).
///
/// ```
/// use server_sent_events::ResponseHeaders;
///
/// let headers = ResponseHeaders::new().with("Access-Control-Allow-Origin", "https://example.org")?;
/// # Ok::<(), server_sent_events::HeaderError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResponseHeaders(Vec<(String, String)>);

impl ResponseHeaders {
    /// Creates an empty set of headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header. Several headers may have the same name.
    ///
    /// # Errors
    ///
    /// Returns a [`HeaderError`] in three cases:
    ///
    /// * The name is not a token (RFC 9110 5.1).
    /// * The value is not ASCII, or has a control character. CR and LF would forge headers (CWE-113).
    /// * The header describes how the stream is framed or what it is, such as `Content-Length`.
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, HeaderError> {
        if !is_token(name.as_bytes()) {
            return Err(HeaderError::Name { name: name.into() });
        }
        Self::check(name, value)?;
        if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            return Err(HeaderError::Reserved { name: name.into() });
        }
        self.0.push((name.into(), value.trim().into()));
        Ok(self)
    }

    /// Checks that the value can be a header's.
    pub(crate) fn check(name: &str, value: &str) -> Result<(), HeaderError> {
        let allowed = |character: char| character.is_ascii_graphic() || matches!(character, ' ' | '\t');
        match value.chars().find(|&character| !allowed(character)) {
            Some(character) => Err(HeaderError::Value { name: name.into(), character }),
            None => Ok(()),
        }
    }

    /// Returns the application's headers alone, for a response that is not a stream.
    #[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
    pub(crate) fn own(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns all headers of the stream: its type, the defaults, and the application's.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        let replaced = |name| self.0.iter().any(|(field, _)| field.eq_ignore_ascii_case(name));
        let defaults = DEFAULTS.into_iter().filter(move |&(name, _)| !replaced(name));
        let custom = self.0.iter().map(|(name, value)| (&**name, &**value));
        [CONTENT_TYPE].into_iter().chain(defaults).chain(custom)
    }
}

/// Returns whether this is a token, such as the name of a header (RFC 9110 5.6.2).
pub(crate) fn is_token(name: &[u8]) -> bool {
    let is_token_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(is_token_byte)
}

/// Returns the names and values of the headers that an event stream needs.
///
/// They are `Content-Type`, `Cache-Control` and `X-Accel-Buffering`: caches must not keep a stream, compressors must
/// not change it, and nginx must not buffer it. The response has status 200 and no `Content-Length`.
///
/// ```
/// use server_sent_events::http::response_headers;
///
/// assert!(response_headers().any(|header| header == ("Content-Type", "text/event-stream; charset=utf-8")));
/// ```
pub fn response_headers() -> impl Iterator<Item = (&'static str, &'static str)> {
    [CONTENT_TYPE].into_iter().chain(DEFAULTS)
}

/// Returns the head of a response that carries an event stream, for a program that writes to the connection itself.
///
/// It has the [headers](response_headers) of an event stream and those given, and ends with the blank line. It has no
/// `Date`. The body follows as it is, and ends with the connection: `Connection: close` announces that.
///
/// ```
/// use server_sent_events::{ResponseHeaders, http::response_head};
///
/// let head = response_head(&ResponseHeaders::new().with("Access-Control-Allow-Origin", "*")?);
/// assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"));
/// assert!(head.ends_with("Access-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n"));
/// # Ok::<(), server_sent_events::HeaderError>(())
/// ```
pub fn response_head(headers: &ResponseHeaders) -> String {
    head(false, false, None, headers)
}

/// Returns the head of the response that carries an event stream. `date` is the value of its `Date` header, if it has
/// one.
///
/// A chunked body ends with an empty chunk (RFC 9112 7.1), so the connection can be reused. HTTP/1.0 has no chunks, so
/// the body ends with the connection.
pub(crate) fn head(chunked: bool, keep_alive: bool, date: Option<&str>, headers: &ResponseHeaders) -> String {
    let mut head = String::from("HTTP/1.1 200 OK\r\n");
    if let Some(date) = date {
        head.extend(["Date: ", date, "\r\n"]);
    }
    for (name, value) in headers.all() {
        head.extend([name, ": ", value, "\r\n"]);
    }
    if chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    }
    if !chunked || !keep_alive {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    head
}

/// Returns the whole body of a response that refuses a stream for now: it makes an `EventSource` reconnect later.
///
/// Send it with status 200 and the [headers](response_headers) of an event stream, since an `EventSource` gives up for
/// good at any other status (WHATWG HTML 9.2.3). The client
/// reconnects after a random time between `retry` and twice that, so that refused clients do not return together. Use
/// it if a subscription is refused and the [refusal is temporary](crate::OpenError::is_temporary).
///
/// ```
/// use server_sent_events::http::retry_later;
/// use std::time::Duration;
///
/// assert!(retry_later(Duration::from_secs(5)).starts_with(": busy\nretry: "));
/// ```
pub fn retry_later(retry: Duration) -> Frame {
    let random = spread::random_share();
    let longest = Duration::from_millis(i32::MAX as u64);
    let retry = retry.min(longest).mul_f64(1.0 + random).min(longest);
    Event::comment("busy").retry(retry).expect("BUG: a bounded time is out of range").encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_headers_are_those_of_a_stream_without_headers_of_the_application() {
        let headers = ResponseHeaders::new();
        assert_eq!(response_headers().collect::<Vec<_>>(), headers.all().collect::<Vec<_>>());
    }

    #[test]
    #[cfg(feature = "http")]
    fn the_last_event_id_is_the_header_else_the_query() {
        let cases = [
            (None, "/", None),
            (Some(""), "/", None),
            (Some("7"), "/", Some("7")),
            (Some("7"), "/?lastEventId=8", Some("7")),
            (Some(""), "/?lastEventId=8", Some("8")),
            (None, "/?lastEventId=", None),
            (None, "/?lasteventid=8", None),
            (None, "/?a=b&lastEventId=8&lastEventId=9", Some("8")),
            (None, "/?lastEventId=a+b%20c%zz", Some("a b c%zz")),
            (None, "http://localhost/?lastEventId=8#lastEventId=9", Some("8")),
            (None, "?lastEventId=8", Some("8")),
            (None, "lastEventId=8", None),
        ];
        for (header, target, id) in cases {
            assert_eq!(last_event_id(header, target).as_deref(), id, "{header:?} {target}");
        }
    }

    #[test]
    fn busy_clients_do_not_reconnect_together() {
        let texts: std::collections::HashSet<String> =
            (0..100).map(|_| retry_later(Duration::from_secs(10)).into()).collect();
        assert!(texts.len() > 50, "{texts:?}");
        for text in texts {
            let retry = text.strip_prefix(": busy\nretry: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
            assert!((10_000..=20_000).contains(&retry.parse::<u32>().unwrap()), "{text}");
        }
        assert_eq!(retry_later(Duration::MAX), ": busy\nretry: 2147483647\n\n");
    }
}
