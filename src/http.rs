//! The HTTP words every server shares: head, headers, Last-Event-ID.

use std::time::Duration;

use crate::error::HeaderError;
use crate::event::{Event, Frame};
use crate::spread;

/// The request header in which an `EventSource` says where it was when the connection broke.
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
pub(crate) const LAST_EVENT_ID: &str = "Last-Event-ID";

/// The query parameter for those who cannot set a header: polyfills, and a page's first connection.
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
const LAST_EVENT_ID_QUERY: &str = "lastEventId";

/// The id of the last event that the client saw, by its header, else by the target's query; an empty one is none.
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
pub(crate) fn last_event_id(header: Option<&str>, target: &str) -> Option<String> {
    let from_query = || {
        let (_, query) = target.split_once('?')?;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == LAST_EVENT_ID_QUERY).map(|(_, value)| value.into_owned())
    };
    header.filter(|id| !id.is_empty()).map(str::to_owned).or_else(from_query).filter(|id| !id.is_empty())
}

/// Ours unless the application says otherwise: caches must not keep a stream, compressors must not touch it,
/// and nginx must not collect it.
const DEFAULTS: [(&str, &str); 2] = [("Cache-Control", "no-cache, no-transform"), ("X-Accel-Buffering", "no")];

/// What says how the body is framed, what it is, or when it was made.
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

/// Headers of the application's, for the response that carries an event stream.
///
/// Checked when they are added, so that a response cannot fail because of them. One of the same name as a
/// header of ours replaces it: `Cache-Control` (`no-cache, no-transform`) and `X-Accel-Buffering` (`no`).
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
    /// No headers but ours.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header; of one name there may be several.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] for a name that is no token (RFC 9110 5.1), a value with a control character such as CR
    /// or LF, which would forge headers (CWE-113), or one that is not ASCII, and for a header that says how the
    /// stream is framed, such as `Content-Length`.
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, HeaderError> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(HeaderError::Name { name: name.into() });
        }
        let allowed = |character: char| character.is_ascii_graphic() || matches!(character, ' ' | '\t');
        if let Some(character) = value.chars().find(|&character| !allowed(character)) {
            return Err(HeaderError::Value { name: name.into(), character });
        }
        if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            return Err(HeaderError::Reserved { name: name.into() });
        }
        self.0.push((name.into(), value.trim().into()));
        Ok(self)
    }

    /// Returns the application's headers alone, for a response that is not a stream.
    #[cfg(any(feature = "tiny_http", feature = "rouille"))]
    pub(crate) fn own(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// All that the response says about its body: what it is, ours, the application's.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        let replaced = |name| self.0.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let ours = DEFAULTS.into_iter().filter(move |&(name, _)| !replaced(name));
        let own = self.0.iter().map(|(name, value)| (&**name, &**value));
        [("Content-Type", "text/event-stream; charset=utf-8")].into_iter().chain(ours).chain(own)
    }
}

/// The head of the response that carries an event stream. `date` is the value of its `Date` header.
///
/// The end of the body is told by an empty chunk (RFC 9112 7.1), so that the connection may go on; in
/// HTTP/1.0, which knows no chunks, by the connection's end.
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

/// The whole body of a stream that sends its client away for a while: it comes back after a time between
/// `retry` and twice that, so that those who were turned away together do not return together.
///
/// Any status but 200 would make an `EventSource` give up for good (WHATWG HTML 9.2.3).
pub(crate) fn busy(retry: Duration) -> Frame {
    let random = spread::random_share();
    let longest = Duration::from_millis(i32::MAX as u64);
    let retry = retry.min(longest).mul_f64(1.0 + random).min(longest);
    Event::comment("busy").retry(retry).expect("BUG: bounded a line above").encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_clients_do_not_come_back_together() {
        let texts: std::collections::HashSet<String> = (0..100).map(|_| busy(Duration::from_secs(10)).into()).collect();
        assert!(texts.len() > 50, "{texts:?}");
        for text in texts {
            let retry = text.strip_prefix(": busy\nretry: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
            assert!((10_000..=20_000).contains(&retry.parse::<u32>().unwrap()), "{text}");
        }
        assert_eq!(busy(Duration::MAX), ": busy\nretry: 2147483647\n\n");
    }
}
