//! The bytes of responses.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, IoSlice};
use std::time::{Duration, SystemTime};

use super::rejection::Rejection;
use super::request::Request;
use super::response::{Body, Response};
use crate::http::{self, ResponseHeaders};

/// A response that is not a stream, on its way to the client.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) head: Vec<u8>,
    /// `None` if only the head is sent.
    body: Option<Body>,
    /// The number of bytes that are written.
    written: usize,
    /// The connection carries another request afterwards.
    pub(super) keep_alive: bool,
}

impl Outgoing {
    fn new(head: Vec<u8>, body: Option<Body>, keep_alive: bool) -> Self {
        Self { head, body, written: 0, keep_alive }
    }

    pub(super) fn body(&self) -> &[u8] {
        self.body.as_ref().map_or(&[], Body::bytes)
    }

    /// Writes the rest with this function, once. Returns whether all is written.
    pub(super) fn write(&mut self, write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<bool> {
        let (head, body) = (&self.head[..], self.body());
        let slices = match self.written.checked_sub(head.len()) {
            Some(written) => [IoSlice::new(&body[written..]), IoSlice::new(&[])],
            None => [IoSlice::new(&head[self.written..]), IoSlice::new(body)],
        };
        let length = head.len() + body.len();
        self.written += write(&slices)?;
        Ok(self.written >= length)
    }
}

/// Returns the head of a stream with the application's headers and these additional header lines.
pub(super) fn stream_head(own: &ResponseHeaders, headers: &str, chunked: bool) -> Vec<u8> {
    let head = http::head(chunked, false, Some(&date()), own);
    let fields = head.strip_suffix("\r\n").expect("BUG: head does not end with an empty line");
    format!("{fields}{headers}\r\n").into_bytes()
}

/// Returns the head of a stream that has no body.
pub(super) fn stream_without_body(own: &ResponseHeaders, headers: &str) -> Outgoing {
    Outgoing::new(stream_head(own, headers, false), None, false)
}

/// Returns a response whose stream ends at once and makes the client reconnect later.
pub(super) fn retry_later(own: &ResponseHeaders, headers: &str, is_head: bool) -> Outgoing {
    let mut head = stream_head(own, headers, false);
    if !is_head {
        head.extend_from_slice(http::retry_later(Duration::from_secs(5)).as_bytes());
    }
    Outgoing::new(head, None, false)
}

/// Returns the response to invalid input, which closes the connection.
pub(super) fn rejection(rejection: Rejection, headers: &str, with_body: bool) -> Outgoing {
    let Rejection { status, reason, is_temporary } = rejection;
    let retry = if is_temporary { "Retry-After: 1\r\n" } else { "" };
    message(status, reason, &format!("{retry}{headers}"), with_body, false)
}

/// Returns a response with a text for people.
pub(super) fn message(
    status: u16,
    text: impl Into<Cow<'static, str>>,
    headers: &str,
    with_body: bool,
    keep_alive: bool,
) -> Outgoing {
    let Response { kind, .. } = Response::error(status, text);
    let super::response::Kind::Content { content_type, body, .. } = kind else { unreachable!("BUG: not a text") };
    let fields = format!("Content-Type: {content_type}\r\n");
    outgoing(status, &fields, headers, body, with_body, keep_alive)
}

/// The parts of a response with content.
pub(super) struct Content<'a> {
    pub(super) status: u16,
    pub(super) content_type: &'a str,
    pub(super) body: Body,
    pub(super) own: &'a ResponseHeaders,
}

/// Returns the response to a request, with these additional header lines.
///
/// A `GET` gets an `ETag`, and status 304 if the client has the body already (RFC 9110 13.1.2).
pub(super) fn content(content: Content<'_>, request: &Request, headers: &str, keep_alive: bool) -> Outgoing {
    let Content { mut status, content_type, body, own } = content;
    let mut fields = format!("Content-Type: {content_type}\r\n");
    if status == 200 && matches!(request.method(), "GET" | "HEAD") && !has(own, "ETag") {
        let tag = entity_tag(body.bytes());
        fields.extend(["ETag: ", &tag, "\r\n"]);
        // Otherwise a cache may guess for how long the response is fresh.
        if !has(own, "Cache-Control") {
            fields.push_str("Cache-Control: no-cache\r\n");
        }
        let mut conditions = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("If-None-Match"));
        if conditions.any(|(_, tags)| matches(tags, &tag)) {
            status = 304;
        }
    }
    for (name, value) in own.own() {
        fields.extend([name, ": ", value, "\r\n"]);
    }
    outgoing(status, &fields, headers, body, request.method() != "HEAD", keep_alive)
}

fn outgoing(status: u16, fields: &str, headers: &str, body: Body, with_body: bool, keep_alive: bool) -> Outgoing {
    let has_body = !matches!(status, 204 | 304);
    let length = if has_body { format!("Content-Length: {}\r\n", body.bytes().len()) } else { String::new() };
    let fields = if status == 204 { own_fields(fields) } else { fields };
    let connection = if keep_alive { "" } else { "Connection: close\r\n" };
    let (reason, date) = (reason_phrase(status), date());
    let head = format!("HTTP/1.1 {status} {reason}\r\nDate: {date}\r\n{fields}{length}{headers}{connection}\r\n");
    let body = (has_body && with_body).then_some(body);
    Outgoing::new(head.into_bytes(), body, keep_alive)
}

/// Returns the fields without the first, which is the type of a body.
fn own_fields(fields: &str) -> &str {
    fields.split_once("\r\n").map_or("", |(_, own)| own)
}

fn has(headers: &ResponseHeaders, name: &str) -> bool {
    headers.own().any(|(field, _)| field.eq_ignore_ascii_case(name))
}

/// Returns a tag that differs for different bodies. Equal bodies may get another tag after the program was rebuilt.
fn entity_tag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    format!("\"{:x}-{:x}\"", body.len(), hasher.finish())
}

/// Returns whether the value of an `If-None-Match` header names this tag. Tags are compared weakly (RFC 9110 13.1.2).
fn matches(tags: &str, tag: &str) -> bool {
    tags.trim() == "*" || tags.split(',').any(|own| own.trim().trim_start_matches("W/") == tag)
}

fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

/// Returns the status in words; empty for a status without common words.
pub(super) fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        // The phrase may be empty, but not the space before it (RFC 9112 4).
        _ => "",
    }
}
