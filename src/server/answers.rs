//! What is answered besides the events: heads of streams, and short texts.

use std::time::{Duration, SystemTime};

use super::Rules;
use crate::http::{self, ResponseHeaders};

/// The headers that let a page of another origin read the answer.
pub(super) fn cors(origin: Option<&str>, rules: &Rules) -> String {
    let Some(origin) = origin else { return String::new() };
    let credentials = if rules.credentials { "Access-Control-Allow-Credentials: true\r\n" } else { "" };
    format!("Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n{credentials}")
}

pub(super) fn stream_head(cors: &str, chunked: bool) -> Vec<u8> {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let head = http::head(chunked, false, &date, &ResponseHeaders::new());
    let fields = head.strip_suffix("\r\n").expect("BUG: a head without its empty line");
    format!("{fields}{cors}\r\n").into_bytes()
}

/// A stream that is over at once, and makes the client come back.
pub(super) fn busy(cors: &str, is_head: bool) -> Vec<u8> {
    let mut bytes = stream_head(cors, false);
    if !is_head {
        bytes.extend_from_slice(http::busy(Duration::from_secs(5)).as_bytes());
    }
    bytes
}

/// A short answer.
pub(super) fn message(status: u16, headers: &str, text: &str, with_body: bool) -> Vec<u8> {
    let reason = match status {
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
        // RFC 9112 4: it may be empty, the space before it not.
        _ => "",
    };
    let date = httpdate::fmt_http_date(SystemTime::now());
    let has_body = !matches!(status, 204 | 304);
    let length = text.len() + usize::from(!text.is_empty());
    let body_headers = if has_body {
        format!("Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n")
    } else {
        String::new()
    };
    let mut answer =
        format!("HTTP/1.1 {status} {reason}\r\nDate: {date}\r\n{body_headers}{headers}Connection: close\r\n\r\n");
    if has_body && with_body && !text.is_empty() {
        answer.extend([text, "\n"]);
    }
    answer.into_bytes()
}
