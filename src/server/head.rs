//! The head of a request, parsed strictly, so that no other parser can understand it differently.

use std::borrow::Cow;
use std::net::SocketAddr;

use percent_encoding::percent_decode_str;

use super::body::Framing;
use super::rejection::Rejection;
use super::request::Request;
use crate::http::{self, LAST_EVENT_ID};
use crate::origin;

/// The result of parsing a client's bytes so far.
#[derive(Debug)]
pub(super) enum Parsed {
    Incomplete,
    /// Not a request.
    Invalid(Rejection),
    /// A request without its body, how the body is announced, and the length of the head in bytes.
    Complete(Request, Framing, usize),
}

/// The limit of a head's size, in bytes.
const MAX_HEAD: usize = 8 * 1024;

/// The limit of header fields in a head.
const MAX_FIELDS: usize = 64;

/// Parses the bytes that a client has sent so far.
pub(super) fn parse(bytes: &[u8], peer_addr: SocketAddr) -> Parsed {
    let bad = |reason| Parsed::Invalid(Rejection::bad(reason));
    // A TLS hello begins with 0x16. A method begins with a letter; other tokens are valid (RFC 9110 9.1), but unused.
    if bytes.first().is_some_and(|first| !first.is_ascii_alphabetic()) {
        return bad("the request does not begin with a method; use HTTP/1 without TLS");
    }
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    let head = &bytes[..end.unwrap_or(bytes.len())];
    if has_bare_line_end(head) {
        return bad("a line ends with a bare CR or LF");
    }
    if head.len() > MAX_HEAD || (end.is_none() && bytes.len() >= MAX_HEAD) {
        return Parsed::Invalid(Rejection::new(431, "the head is longer than 8 KiB"));
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    match (parsed.parse(head), end) {
        (Ok(httparse::Status::Complete(length)), Some(end)) if length == end => {}
        (Ok(httparse::Status::Partial), None) => return Parsed::Incomplete,
        (Ok(_), _) => return bad("the head does not end at its empty line"),
        (Err(httparse::Error::TooManyHeaders), _) => {
            return Parsed::Invalid(Rejection::new(431, "the head has more than 64 fields"));
        }
        (Err(httparse::Error::Version), _) if has_version(head) => {
            return Parsed::Invalid(Rejection::new(505, "only HTTP/1.0 and HTTP/1.1 are supported"));
        }
        (Err(_), _) => return bad("the head is malformed"),
    }
    match request(&parsed, peer_addr) {
        Ok((request, framing)) => Parsed::Complete(request, framing, head.len()),
        Err(rejection) => Parsed::Invalid(rejection),
    }
}

/// Returns whether a line end is one that parsers understand differently (RFC 9112 2.2).
fn has_bare_line_end(head: &[u8]) -> bool {
    let is_bare = |(at, byte): (usize, &u8)| match byte {
        b'\n' => at == 0 || head[at - 1] != b'\r',
        b'\r' => head.get(at + 1).is_some_and(|next| *next != b'\n'),
        _ => false,
    };
    head.iter().enumerate().any(is_bare)
}

/// Returns whether the third part of the request line is a version of HTTP.
fn has_version(head: &[u8]) -> bool {
    head.splitn(3, |byte| *byte == b' ').nth(2).is_some_and(|version| version.starts_with(b"HTTP/"))
}

/// Returns whether a request of this method must have no body. Some servers would ignore a body, others would take it
/// for the next request.
fn has_no_body(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// Returns the request, if it has only one meaning.
fn request(parsed: &httparse::Request<'_, '_>, peer_addr: SocketAddr) -> Result<(Request, Framing), Rejection> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<(String, String)> =
        parsed.headers.iter().map(|field| (field.name.to_owned(), text(field.value))).collect();
    let method = parsed.method.unwrap_or_default().to_owned();
    let is_http_1_0 = parsed.version == Some(0);
    // A proxy in between would take a handler's 2xx response for the begin of a tunnel (RFC 9110 9.3.6).
    if method == "CONNECT" {
        return Err(Rejection::bad("CONNECT is for proxies only"));
    }
    let framing = Framing::of(&headers, is_http_1_0)?;
    if framing != Framing::None && has_no_body(&method) {
        return Err(Rejection::bad("a request of this method must have no body"));
    }
    let host = host(&headers, is_http_1_0)?;
    let target = origin_form(parsed.path.unwrap_or_default(), host)?;
    let is_asterisk = target == "*" && method == "OPTIONS";
    if !is_asterisk && !target.starts_with('/') {
        return Err(Rejection::bad("the target does not begin with a slash"));
    }
    if target.contains('#') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Rejection::bad("the target has a character that must be percent-encoded"));
    }
    let path = target.split_once('?').map_or(&*target, |(path, _)| path);
    let path = decoded_path(path).ok_or(Rejection::bad("the path is not UTF-8"))?;
    let header = values(&headers, LAST_EVENT_ID).first().copied();
    let last_event_id = http::last_event_id(header, &target);
    let target = target.into_owned();
    let client_ip = peer_addr.ip().to_canonical();
    let body = Vec::new();
    let request = Request { method, is_http_1_0, target, path, headers, peer_addr, client_ip, last_event_id, body };
    Ok((request, framing))
}

/// Returns the path, percent-decoded, without the segments `.` and `..`. Returns `None` if it is not UTF-8.
fn decoded_path(path: &str) -> Option<String> {
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    if !decoded.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Some(decoded.into_owned());
    }
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = decoded.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        match part {
            "." | ".." => {
                if part == ".." {
                    segments.pop();
                }
                // The directory that is left ends with a slash (RFC 3986 5.2.4).
                if parts.peek().is_none() {
                    segments.push("");
                }
            }
            part => segments.push(part),
        }
    }
    Some(format!("/{}", segments.join("/")))
}

/// Returns the values of all headers of this name.
pub(super) fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let fields = headers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
    fields.map(|(_, value)| &**value).collect()
}

/// Returns the value of the `Host` header.
fn host(headers: &[(String, String)], is_http_1_0: bool) -> Result<Option<&str>, Rejection> {
    match &*values(headers, "Host") {
        [] if is_http_1_0 => Ok(None),
        [host] if origin::is_host_header(host) => Ok(Some(*host)),
        _ => Err(Rejection::bad("the request needs exactly one valid Host header")),
    }
}

/// Returns the path and the query of a target. The target may be a whole URL (RFC 9112 3.2.2).
fn origin_form<'a>(target: &'a str, host: Option<&str>) -> Result<Cow<'a, str>, Rejection> {
    let is_http = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let Some((_, rest)) = target.split_once("://").filter(|(scheme, _)| is_http(scheme)) else {
        return Ok(Cow::Borrowed(target));
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // Some servers use the target's host, others the header's.
    if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority)) {
        return Err(Rejection::bad("the target and the Host header name different hosts"));
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

    /// Generates heads: valid and invalid parts put together, and then changed at random.
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

    /// Returns whether a head can be understood in only one way. It uses no parser.
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
            && named("Content-Length") + named("Transfer-Encoding") <= 1
            && (!has_no_body(first[0]) || named("Transfer-Encoding") == 0)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1_000),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// A head gets the same verdict whole or in parts, and an accepted head has only one meaning.
        #[test]
        fn whole_or_in_parts_a_head_is_read_alike(bytes in heads()) {
            let whole = parse(&bytes, peer_addr());
            // Long heads take larger steps, or a case would take too long.
            let step = if bytes.len() < 256 { 1 } else { bytes.len() / 64 };
            let mut parts = (1..bytes.len()).step_by(step).chain([bytes.len()]);
            let first = parts.find_map(|length| match parse(&bytes[..length], peer_addr()) {
                Parsed::Incomplete => None,
                verdict => Some((length, verdict)),
            });
            match (whole, first) {
                (Parsed::Incomplete, None) | (Parsed::Invalid(..), Some((_, Parsed::Invalid(..)))) => {}
                (Parsed::Complete(request, framing, length), Some((came, Parsed::Complete(same, same_framing, same_length)))) => {
                    prop_assert!(length == same_length && came >= length && came < length + step);
                    prop_assert_eq!(framing, same_framing);
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
