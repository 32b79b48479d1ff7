//! One request, parsed strictly, so that nobody can understand it in another way.

use std::borrow::Cow;
use std::net::SocketAddr;

use percent_encoding::percent_decode_str;

use crate::http::{self, LAST_EVENT_ID};

/// A request for an event stream, as the handler given to [`EventServer::serve`](super::EventServer::serve) sees it.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    is_http_1_0: bool,
    target: String,
    path: String,
    headers: Vec<(String, String)>,
    peer_addr: SocketAddr,
    last_event_id: Option<String>,
}

impl Request {
    /// Returns `GET` or `HEAD`. The server answers other methods itself.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Returns the request's target as it was sent: the path and the query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the path, percent-decoded, without the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the fields of the query, decoded, in their order.
    pub fn query(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes()).into_owned()
    }

    /// Returns the first field of this name in the query, decoded.
    pub fn query_value(&self, name: &str) -> Option<String> {
        self.query().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// Returns the first header of this name, whatever its case. What is not UTF-8 in it is replaced by `U+FFFD`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns the headers in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns the client's address; behind a proxy, the proxy's.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer_addr
    }

    /// Returns the ID of the last event the client saw: from the header `Last-Event-ID`, else from `lastEventId` in the
    /// query.
    ///
    /// The client may send any text of any length. An empty ID counts as none.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    pub(super) fn is_http_1_0(&self) -> bool {
        self.is_http_1_0
    }
}

/// What the bytes of a client are so far.
#[derive(Debug)]
pub(super) enum Parsed {
    Incomplete,
    /// Not a request; the status and the reason to answer with.
    Invalid(u16, &'static str),
    /// A request, and the number of bytes it took.
    Complete(Request, usize),
}

/// The limit of a head's bytes.
const MAX_HEAD: usize = 8 * 1024;

/// The limit of header fields.
const MAX_FIELDS: usize = 64;

/// Parses the bytes that a client has sent so far.
pub(super) fn parse(bytes: &[u8], peer_addr: SocketAddr) -> Parsed {
    let bad = |reason| Parsed::Invalid(400, reason);
    // A TLS hello begins with 0x16; a method is made of letters (RFC 9110 9.1 allows more, nobody uses it).
    if bytes.first().is_some_and(|first| !first.is_ascii_alphabetic()) {
        return bad("the request does not begin with a method; use HTTP/1 without TLS");
    }
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    let head = &bytes[..end.unwrap_or(bytes.len())];
    if has_bare_line_end(head) {
        return bad("a line ends with a bare CR or LF");
    }
    if head.len() > MAX_HEAD || (end.is_none() && bytes.len() >= MAX_HEAD) {
        return Parsed::Invalid(431, "the head is longer than 8 KiB");
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    match (parsed.parse(head), end) {
        (Ok(httparse::Status::Complete(length)), Some(end)) if length == end => {}
        (Ok(httparse::Status::Partial), None) => return Parsed::Incomplete,
        (Ok(_), _) => return bad("the head does not end at its empty line"),
        (Err(httparse::Error::TooManyHeaders), _) => return Parsed::Invalid(431, "the head has more than 64 fields"),
        (Err(httparse::Error::Version), _) if has_version(head) => {
            return Parsed::Invalid(505, "only HTTP/1.0 and HTTP/1.1 are supported");
        }
        (Err(_), _) => return bad("the head is malformed"),
    }
    request(&parsed, peer_addr).map_or_else(bad, |request| Parsed::Complete(request, head.len()))
}

/// Returns whether a line ends in a way that other parsers understand differently (RFC 9112 2.2).
fn has_bare_line_end(head: &[u8]) -> bool {
    let is_bare = |(at, byte): (usize, &u8)| match byte {
        b'\n' => at == 0 || head[at - 1] != b'\r',
        b'\r' => head.get(at + 1).is_some_and(|next| *next != b'\n'),
        _ => false,
    };
    head.iter().enumerate().any(is_bare)
}

/// Returns whether the request line has a version of HTTP in its place.
fn has_version(head: &[u8]) -> bool {
    head.splitn(3, |byte| *byte == b' ').nth(2).is_some_and(|version| version.starts_with(b"HTTP/"))
}

/// Returns whether a request of this method can get another answer than 405.
pub(super) fn is_supported(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS")
}

/// Returns the request if there is only one way to understand it.
fn request(parsed: &httparse::Request<'_, '_>, peer_addr: SocketAddr) -> Result<Request, &'static str> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<(String, String)> =
        parsed.headers.iter().map(|field| (field.name.to_owned(), text(field.value))).collect();
    let method = parsed.method.unwrap_or_default().to_owned();
    let is_http_1_0 = parsed.version == Some(0);
    check_has_no_body(&headers, &method)?;
    let host = host(&headers, is_http_1_0)?;
    let target = origin_form(parsed.path.unwrap_or_default(), host)?;
    let is_asterisk = target == "*" && method == "OPTIONS";
    if !is_asterisk && !target.starts_with('/') {
        return Err("the target does not begin with a slash");
    }
    if target.contains('#') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the target has a character that must be percent-encoded");
    }
    let path = target.split_once('?').map_or(&*target, |(path, _)| path);
    let path = percent_decode_str(path).decode_utf8().map_err(|_| "the path is not UTF-8")?.into_owned();
    let header = values(&headers, LAST_EVENT_ID).first().copied();
    let last_event_id = http::last_event_id(header, &target);
    let target = target.into_owned();
    Ok(Request { method, is_http_1_0, target, path, headers, peer_addr, last_event_id })
}

/// Returns the values of all headers of this name.
fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let fields = headers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
    fields.map(|(_, value)| &**value).collect()
}

/// Checks that the request has no body: some would take it for the next request, and some for nothing (RFC 9112 11.2).
fn check_has_no_body(headers: &[(String, String)], method: &str) -> Result<(), &'static str> {
    // Another method is answered with 405, with a body or without.
    let is_supported = is_supported(method);
    match (&*values(headers, "Transfer-Encoding"), &*values(headers, "Content-Length")) {
        ([], [] | ["0"]) => Ok(()),
        ([], [length]) if !is_supported && length.bytes().all(|digit| digit.is_ascii_digit()) => Ok(()),
        (_, [_, _, ..]) => Err("the request has several Content-Length headers"),
        ([], [_]) => Err("the Content-Length is not 0; the request must have no body"),
        _ if !is_supported => Ok(()),
        _ => Err("the request has a Transfer-Encoding; it must have no body"),
    }
}

/// Returns the value of the `Host` header.
fn host(headers: &[(String, String)], is_http_1_0: bool) -> Result<Option<&str>, &'static str> {
    // What a host and a port are made of (RFC 3986 3.2.2), but for the comma, by which some merge two headers.
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte);
    match &*values(headers, "Host") {
        [] if is_http_1_0 => Ok(None),
        [host] if !host.is_empty() && host.bytes().all(is_host_byte) => Ok(Some(*host)),
        _ => Err("the request needs exactly one valid Host header"),
    }
}

/// Returns the path and the query of a target, which may be a whole URL (RFC 9112 3.2.2).
fn origin_form<'a>(target: &'a str, host: Option<&str>) -> Result<Cow<'a, str>, &'static str> {
    let is_http = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let Some((_, rest)) = target.split_once("://").filter(|(scheme, _)| is_http(scheme)) else {
        return Ok(Cow::Borrowed(target));
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // Some go by the one, some by the other.
    if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority)) {
        return Err("the target and the Host header name different hosts");
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(Cow::Owned(format!("{slash}{path}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn peer_addr() -> SocketAddr {
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
            && (named("Transfer-Encoding") == 0 || !is_supported(first[0]))
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// However the bytes come, the verdict is the same; and what is a request can be read in one way only.
        #[test]
        fn whole_or_in_parts_a_head_is_read_alike(bytes in heads()) {
            let whole = parse(&bytes, peer_addr());
            // Long ones in larger steps, or a case would take a second.
            let step = if bytes.len() < 256 { 1 } else { bytes.len() / 64 };
            let mut parts = (1..bytes.len()).step_by(step).chain([bytes.len()]);
            let first = parts.find_map(|length| match parse(&bytes[..length], peer_addr()) {
                Parsed::Incomplete => None,
                verdict => Some((length, verdict)),
            });
            match (whole, first) {
                (Parsed::Incomplete, None) | (Parsed::Invalid(..), Some((_, Parsed::Invalid(..)))) => {}
                (Parsed::Complete(request, length), Some((came, Parsed::Complete(same, same_length)))) => {
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
