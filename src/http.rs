//! The parts of HTTP that all servers share: the response's head, its headers, and `Last-Event-ID`.

use std::time::Duration;

use crate::error::HeaderError;
use crate::event::{Event, Frame};
use crate::spread;

/// The request header in which an `EventSource` sends its last event ID when it reconnects.
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
pub(crate) const LAST_EVENT_ID: &str = "Last-Event-ID";

/// The query parameter for clients that cannot set a header: polyfills, and the first connection of a page.
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
const LAST_EVENT_ID_QUERY: &str = "lastEventId";

/// Returns the ID of the last event that the client saw, from the header, else from the target's query. An empty ID
/// counts as none.
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
pub(crate) fn last_event_id(header: Option<&str>, target: &str) -> Option<String> {
    let from_query = || {
        let (_, query) = target.split_once('?')?;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == LAST_EVENT_ID_QUERY).map(|(_, value)| value.into_owned())
    };
    header.filter(|id| !id.is_empty()).map(str::to_owned).or_else(from_query).filter(|id| !id.is_empty())
}

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
        [("Content-Type", "text/event-stream; charset=utf-8")].into_iter().chain(defaults).chain(custom)
    }
}

/// Returns whether this is a token, such as the name of a header (RFC 9110 5.6.2).
pub(crate) fn is_token(name: &[u8]) -> bool {
    let is_token_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(is_token_byte)
}

/// Returns the head of the response that carries an event stream. `date` is the value of its `Date` header.
///
/// A chunked body ends with an empty chunk (RFC 9112 7.1), so the connection can be reused. HTTP/1.0 has no chunks, so
/// the body ends with the connection.
pub(crate) fn head(chunked: bool, keep_alive: bool, date: &str, headers: &ResponseHeaders) -> String {
    let mut head = format!("HTTP/1.1 200 OK\r\nDate: {date}\r\n");
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

/// Returns the whole body of a stream that makes its client reconnect later.
///
/// The client reconnects after a random time between `retry` and twice that, so that refused clients do not return
/// together. Any other status than 200 would make an `EventSource` give up for good (WHATWG HTML 9.2.3).
pub(crate) fn busy(retry: Duration) -> Frame {
    let random = spread::random_share();
    let longest = Duration::from_millis(i32::MAX as u64);
    let retry = retry.min(longest).mul_f64(1.0 + random).min(longest);
    Event::comment("busy").retry(retry).expect("BUG: a bounded time is out of range").encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_clients_do_not_reconnect_together() {
        let texts: std::collections::HashSet<String> = (0..100).map(|_| busy(Duration::from_secs(10)).into()).collect();
        assert!(texts.len() > 50, "{texts:?}");
        for text in texts {
            let retry = text.strip_prefix(": busy\nretry: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
            assert!((10_000..=20_000).contains(&retry.parse::<u32>().unwrap()), "{text}");
        }
        assert_eq!(busy(Duration::MAX), ": busy\nretry: 2147483647\n\n");
    }
}
