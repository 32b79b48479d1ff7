//! One request: read strictly, so that nobody reads it in another way.

use std::borrow::Cow;
use std::net::SocketAddr;

use percent_encoding::percent_decode_str;

use crate::http::{self, LAST_EVENT_ID};

/// A request for an event stream, as the closure given to [`EventServer::serve`](super::EventServer::serve) sees it.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) method: String,
    pub(super) is_http_1_0: bool,
    target: String,
    path: String,
    headers: Vec<(String, String)>,
    peer: SocketAddr,
    last_event_id: Option<String>,
}

impl Request {
    /// `GET` or `HEAD`; others are answered by the server.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// What is asked for, as it was sent: the path and the query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The path, percent-decoded, without the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The fields of the query, decoded, in their order.
    pub fn query(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes()).into_owned()
    }

    /// The first field of this name in the query, decoded.
    pub fn query_value(&self, name: &str) -> Option<String> {
        self.query().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// The first header of this name, in whatever case. What is not UTF-8 in it is replaced by `U+FFFD`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The headers, in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Who asks; behind a proxy, the proxy.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The id of the last event that the client saw, if it says so: from the header `Last-Event-ID`, else from
    /// `lastEventId` in the query. It is the client's word, of any length and content; an empty one is none.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }
}

/// What a client's bytes are so far.
#[derive(Debug)]
pub(super) enum Head {
    Incomplete,
    /// Not to be answered but with this status.
    Bad(u16, &'static str),
    /// A request, and how many bytes it took.
    Complete(Request, usize),
}

/// A longer head is refused.
pub(super) const MAX_HEAD: usize = 8 * 1024;

/// More header fields are refused.
const MAX_FIELDS: usize = 64;

/// Reads the bytes that a client has sent so far.
pub(super) fn read(bytes: &[u8], peer: SocketAddr) -> Head {
    let bad = |reason| Head::Bad(400, reason);
    // A TLS hello begins with 0x16; a method is made of letters (RFC 9110 9.1 allows more, nobody uses it).
    if bytes.first().is_some_and(|first| !first.is_ascii_alphabetic()) {
        return bad("the request begins with no method: this server speaks HTTP/1, without TLS");
    }
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    let head = &bytes[..end.unwrap_or(bytes.len())];
    // Line ends that others read in another way (RFC 9112 2.2).
    let is_bare = |(at, byte): (usize, &u8)| match byte {
        b'\n' => at == 0 || head[at - 1] != b'\r',
        b'\r' => head.get(at + 1).is_some_and(|next| *next != b'\n'),
        _ => false,
    };
    if head.iter().enumerate().any(is_bare) {
        return bad("a line ends with a bare CR or LF");
    }
    if head.len() > MAX_HEAD || (end.is_none() && bytes.len() >= MAX_HEAD) {
        return Head::Bad(431, "the head is longer than 8 KiB");
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    match (parsed.parse(head), end) {
        (Ok(httparse::Status::Complete(length)), Some(end)) if length == end => {}
        (Ok(httparse::Status::Partial), None) => return Head::Incomplete,
        (Ok(_), _) => return bad("the head does not end where its empty line is"),
        (Err(httparse::Error::TooManyHeaders), _) => return Head::Bad(431, "the head has more than 64 fields"),
        (Err(httparse::Error::Version), _) if has_version(head) => {
            return Head::Bad(505, "this server speaks HTTP/1.0 and HTTP/1.1");
        }
        (Err(_), _) => return bad("the head is not well-formed"),
    }
    request(&parsed, peer).map_or_else(bad, |request| Head::Complete(request, head.len()))
}

/// Whether a version of HTTP stands where the request's version is to stand.
fn has_version(head: &[u8]) -> bool {
    head.splitn(3, |byte| *byte == b' ').nth(2).is_some_and(|version| version.starts_with(b"HTTP/"))
}

/// Whether there is an answer to this method at all.
pub(super) fn is_answered(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS")
}

/// The request, if there is only one way to understand it.
fn request(parsed: &httparse::Request<'_, '_>, peer: SocketAddr) -> Result<Request, &'static str> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<(String, String)> =
        parsed.headers.iter().map(|field| (field.name.to_owned(), text(field.value))).collect();
    let values = |name: &str| {
        let fields = headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| &**value).collect::<Vec<_>>()
    };
    let method = parsed.method.unwrap_or_default().to_owned();
    let is_http_1_0 = parsed.version == Some(0);
    // A body would be taken for the next request by some, and for nothing by others (RFC 9112 11.2).
    match (&*values("Transfer-Encoding"), &*values("Content-Length")) {
        ([], [] | ["0"]) => {}
        // It is refused for its method.
        ([], [length]) if !is_answered(&method) && length.bytes().all(|digit| digit.is_ascii_digit()) => {}
        (_, [_, _, ..]) => return Err("the request has several Content-Lengths"),
        ([], [_]) => return Err("the Content-Length is not 0: the request must have no body"),
        _ if !is_answered(&method) => {}
        _ => return Err("the request has a Transfer-Encoding: it must have no body"),
    }
    // What a host and a port are made of (RFC 3986 3.2.2), but for the comma, which merges two into one.
    let is_host =
        |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte));
    let host = match &*values("Host") {
        [] if is_http_1_0 => None,
        [host] if !host.is_empty() && is_host(host) => Some(*host),
        _ => return Err("the request needs one Host"),
    };
    let mut target = Cow::Borrowed(parsed.path.unwrap_or_default());
    // A proxy's way to ask (RFC 9112 3.2.2), which every server must understand.
    let is_http = |scheme: &str| ["http", "https"].iter().any(|own| scheme.eq_ignore_ascii_case(own));
    if let Some((_, rest)) = parsed.path.and_then(|path| path.split_once("://")).filter(|(scheme, _)| is_http(scheme)) {
        let (authority, origin_form) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // Some would go by the one, some by the other.
        if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority)) {
            return Err("the request's target has another host than Host");
        }
        let slash = if origin_form.starts_with('/') { "" } else { "/" };
        target = Cow::Owned(format!("{slash}{origin_form}"));
    }
    let is_all = target == "*" && method == "OPTIONS";
    if !is_all && !target.starts_with('/') {
        return Err("the request's target does not begin with a slash");
    }
    if target.contains('#') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the request's target holds a character that must be percent-encoded");
    }
    let path = target.split_once('?').map_or(&*target, |(path, _)| path);
    let path = percent_decode_str(path).decode_utf8().map_err(|_| "the request's path is not UTF-8")?.into_owned();
    let header = values(LAST_EVENT_ID).first().copied();
    let last_event_id = http::last_event_id(header, &target);
    Ok(Request { method, is_http_1_0, target: target.into_owned(), path, headers, peer, last_event_id })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn peer() -> SocketAddr {
        ([127, 0, 0, 1], 1).into()
    }

    /// Heads, right and wrong, put together from what heads are made of, and then broken.
    fn heads() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            6 => Just("GET / HTTP/1.1".to_owned()),
            2 => "(GET|HEAD|POST|OPTIONS|PRI|get) (/[a-z%?=&#]{0,10}|\\*|https?://[a-z:/?@]{1,9}) (HTTP|http)/[0-3]\\.[0-3]",
            1 => "[ -~]{0,20}",
        ];
        let line = prop_oneof![
            6 => Just("Host: x".to_owned()),
            1 => "Host: [ -~]{0,5}",
            1 => "Content-Length: ?[0-9a-f, +-]{0,3}",
            1 => "(Transfer-Encoding|Last-Event-ID|Origin): ?[a-z0-9 -]{0,9}",
            1 => "[a-zA-Z-]{1,10} ?: ?\\PC{0,10}",
            1 => "[ -~]{0,10}",
        ];
        let lines = prop_oneof![
            40 => prop::collection::vec(line, 0..5),
            1 => (60_usize..70).prop_map(|fields| [vec!["Host: x".to_owned()], vec!["X: y".to_owned(); fields]].concat()),
            1 => (8_100_usize..8_200).prop_map(|length| vec!["Host: x".to_owned(), format!("X: {}", "x".repeat(length))]),
        ];
        let byte = prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(0), any::<u8>()];
        let changes = prop::collection::vec((0..5_u8, any::<Index>(), byte), 0..4);
        (first, lines, changes).prop_map(|(first, lines, changes)| {
            let mut bytes =
                format!("{first}\r\n{}\r\n", lines.iter().map(|line| format!("{line}\r\n")).collect::<String>())
                    .into_bytes();
            for (what, at, byte) in changes {
                let at = at.index(bytes.len());
                match what {
                    0 => bytes.insert(at, byte),
                    1 if bytes.len() > 1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, bytes[at]),
                    3 if at > 0 => bytes.truncate(at),
                    _ => bytes[at] = byte,
                }
            }
            bytes
        })
    }

    /// What is true of a head that can be understood in one way only, without a parser.
    fn is_strict(head: &[u8]) -> bool {
        let Some(head) = head.strip_suffix(b"\r\n\r\n") else { return false };
        let text: String = head.iter().map(|byte| char::from(*byte)).collect();
        let mut lines = text.split("\r\n");
        let first: Vec<&str> = lines.next().unwrap().split(' ').collect();
        let fields: Vec<(&str, &str)> = lines.clone().filter_map(|line| line.split_once(':')).collect();
        let named = |name: &str| fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).count();
        let is_1_1 = first.last() == Some(&"HTTP/1.1");
        let is_token =
            |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        first.len() == 3
            && (is_1_1 || first.last() == Some(&"HTTP/1.0"))
            && first[1].bytes().all(|byte| byte.is_ascii_graphic())
            && fields.len() == lines.count()
            && fields.len() <= MAX_FIELDS
            && fields.iter().all(|(name, _)| is_token(name))
            && text.chars().all(|character| !character.is_ascii_control() || matches!(character, '\r' | '\n' | '\t'))
            && text.matches('\r').count() == text.matches("\r\n").count()
            && text.matches('\n').count() == text.matches("\r\n").count()
            && if is_1_1 { named("Host") == 1 } else { named("Host") <= 1 }
            && head.len() + 4 <= MAX_HEAD
            && named("Content-Length") <= 1
            && (named("Transfer-Encoding") == 0 || !is_answered(first[0]))
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// However the bytes come, the verdict is the same; and what is a request can be read in one way only.
        #[test]
        fn whole_or_in_parts_a_head_is_read_alike(bytes in heads()) {
            let whole = read(&bytes, peer());
            // Long ones in larger steps, or a case would take a second.
            let step = if bytes.len() < 256 { 1 } else { bytes.len() / 64 };
            let mut parts = (1..bytes.len()).step_by(step).chain([bytes.len()]);
            let first = parts.find_map(|length| match read(&bytes[..length], peer()) {
                Head::Incomplete => None,
                verdict => Some((length, verdict)),
            });
            match (whole, first) {
                (Head::Incomplete, None) | (Head::Bad(..), Some((_, Head::Bad(..)))) => {}
                (Head::Complete(request, length), Some((came, Head::Complete(same, same_length)))) => {
                    prop_assert!(length == same_length && came >= length && came < length + step);
                    prop_assert_eq!(format!("{request:?}"), format!("{same:?}"));
                    prop_assert!(is_strict(&bytes[..length]), "{:?}", String::from_utf8_lossy(&bytes));
                    prop_assert!(request.target.starts_with('/') || request.target == "*");
                    prop_assert!(request.query().count() <= request.target.len());
                }
                (whole, first) => {
                    prop_assert!(false, "{:?}: {whole:?}, but in parts {first:?}", String::from_utf8_lossy(&bytes));
                }
            }
        }
    }
}
