//! The body of a request: how its length is announced, and how its bytes are read.

// Bodies are where two parsers disagree most easily, and a proxy and a server that disagree can be made to see different
// requests (RFC 9112 11.2). So a body is read in exactly one way, and anything that another parser could read
// differently is rejected.

use super::head;
use super::rejection::Rejection;
use crate::http;

/// How a request announces its body (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// The request has no body.
    None,
    /// The body has this many bytes, at least one.
    Length(u64),
    Chunked,
}

impl Framing {
    /// Returns how these headers announce the body.
    ///
    /// # Errors
    ///
    /// Rejects headers that some parsers understand differently.
    pub(super) fn of(headers: &[(String, String)], is_http_1_0: bool) -> Result<Self, Rejection> {
        match (&*head::values(headers, "Transfer-Encoding"), &*head::values(headers, "Content-Length")) {
            ([], []) => Ok(Self::None),
            ([], [length]) => match length_of(length)? {
                0 => Ok(Self::None),
                length => Ok(Self::Length(length)),
            },
            ([], _) => Err(Rejection::bad("the request has several Content-Length headers")),
            (_, [_, ..]) => Err(Rejection::bad("the request has both Content-Length and Transfer-Encoding")),
            // HTTP/1.0 has no transfer codings, so some servers ignore this one (RFC 9112 6.1).
            _ if is_http_1_0 => Err(Rejection::new(411, "an HTTP/1.0 request needs a Content-Length for its body")),
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Self::Chunked),
            _ => Err(Rejection::bad("the only supported Transfer-Encoding is chunked")),
        }
    }
}

/// Parses a length of digits only.
fn length_of(length: &str) -> Result<u64, Rejection> {
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Rejection::bad("the Content-Length is not one decimal number"));
    }
    // A number that does not fit exceeds every limit.
    Ok(length.parse().unwrap_or(u64::MAX))
}

/// The progress of a body that is being read.
#[derive(Debug)]
pub(super) struct BodyReader {
    part: Part,
    body: Vec<u8>,
    max_body: usize,
    /// The bytes of trailer fields so far, which are read and ignored.
    trailer: usize,
}

/// What comes next in the client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// This many bytes of a body with a length.
    Rest(u64),
    ChunkHead,
    /// This many bytes of a chunk.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// Trailer fields, up to an empty line.
    Trailer,
    Complete,
}

/// The limit of the line that begins a chunk, with its extensions.
const MAX_CHUNK_HEAD: usize = 256;

/// The limit of all trailer fields.
const MAX_TRAILER: usize = 4 * 1024;

impl BodyReader {
    /// Begins to read a body that is announced so.
    ///
    /// # Errors
    ///
    /// Rejects a body whose announced length exceeds the limit.
    pub(super) fn new(framing: Framing, max_body: usize) -> Result<Self, Rejection> {
        let part = match framing {
            Framing::None => Part::Complete,
            Framing::Length(length) if length > max_body as u64 => return Err(too_large()),
            Framing::Length(length) => Part::Rest(length),
            Framing::Chunked => Part::ChunkHead,
        };
        Ok(Self { part, body: Vec::new(), max_body, trailer: 0 })
    }

    /// Returns how many bytes of the body have been received.
    pub(super) fn received(&self) -> usize {
        self.body.len()
    }

    /// Returns how many more bytes the body can have at most.
    pub(super) fn max_left(&self) -> usize {
        match self.part {
            Part::Rest(left) => usize::try_from(left).unwrap_or(usize::MAX),
            _ => self.max_body - self.body.len(),
        }
    }

    /// Returns how many bytes must follow for the body, or for the current chunk, to end.
    pub(super) fn announced(&self) -> usize {
        match self.part {
            Part::Rest(left) | Part::Chunk(left) => usize::try_from(left).unwrap_or(usize::MAX),
            _ => 0,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.part == Part::Complete
    }

    /// Returns the whole body.
    pub(super) fn into_body(self) -> Vec<u8> {
        debug_assert!(self.part == Part::Complete);
        self.body
    }

    /// Reads from the client's bytes, at most to the end of the body. Returns how many bytes were read; an incomplete
    /// line is left.
    ///
    /// # Errors
    ///
    /// Rejects bytes that are not a body, and a body that exceeds the limit.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<usize, Rejection> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            match self.part {
                Part::Complete => return Ok(at),
                Part::Rest(0) => self.part = Part::Complete,
                Part::Chunk(0) => self.part = Part::ChunkEnd,
                Part::Rest(left) | Part::Chunk(left) => {
                    let count = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if count == 0 {
                        return Ok(at);
                    }
                    self.body.extend_from_slice(&rest[..count]);
                    let left = left - count as u64;
                    self.part = if let Part::Rest(_) = self.part { Part::Rest(left) } else { Part::Chunk(left) };
                    at += count;
                }
                Part::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        self.part = Part::ChunkHead;
                        at += 2;
                    }
                    [] | [b'\r'] => return Ok(at),
                    _ => return Err(Rejection::bad("a chunk does not end where its size says")),
                },
                Part::ChunkHead => {
                    let Some(line) = line(rest, MAX_CHUNK_HEAD)? else { return Ok(at) };
                    self.begin_chunk(line)?;
                    at += line.len() + 2;
                }
                Part::Trailer => {
                    let Some(line) = line(rest, MAX_TRAILER)? else { return Ok(at) };
                    self.skip_trailer(line)?;
                    at += line.len() + 2;
                }
            }
        }
    }

    fn begin_chunk(&mut self, line: &[u8]) -> Result<(), Rejection> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        // Extensions are ignored (RFC 9112 7.1.1). Space before them is allowed by some parsers only.
        if digits == 0 || digits > 16 || !matches!(extension, [] | [b';', ..]) {
            return Err(Rejection::bad("a chunk does not begin with its size in hexadecimal digits"));
        }
        let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
        let size = size.ok_or(Rejection::bad("a chunk does not begin with its size in hexadecimal digits"))?;
        if size > (self.max_body - self.body.len()) as u64 {
            return Err(too_large());
        }
        self.part = if size == 0 { Part::Trailer } else { Part::Chunk(size) };
        Ok(())
    }

    fn skip_trailer(&mut self, line: &[u8]) -> Result<(), Rejection> {
        self.trailer += line.len() + 2;
        if line.is_empty() {
            self.part = Part::Complete;
        } else if self.trailer > MAX_TRAILER {
            return Err(Rejection::new(431, "the trailer is longer than 4 KiB"));
        } else if !is_field(line) {
            return Err(Rejection::bad("a trailer field is malformed"));
        }
        Ok(())
    }
}

fn too_large() -> Rejection {
    Rejection::new(413, "the body is larger than this server allows")
}

/// Returns the first line, without its end, once it is whole.
fn line(bytes: &[u8], max: usize) -> Result<Option<&[u8]>, Rejection> {
    let end = bytes.iter().take(max + 2).position(|byte| matches!(byte, b'\r' | b'\n'));
    match end.map(|end| (&bytes[..end], &bytes[end..])) {
        Some((line, [b'\r', b'\n', ..])) if is_text(line) => Ok(Some(line)),
        Some((line, [b'\r'])) if is_text(line) => Ok(None),
        Some(_) => Err(Rejection::bad("a line of the chunked body is malformed")),
        None if bytes.len() > max => Err(Rejection::bad("a line of the chunked body is too long")),
        None if is_text(bytes) => Ok(None),
        None => Err(Rejection::bad("a line of the chunked body is malformed")),
    }
}

/// Returns whether there is no control character but the tab.
fn is_text(line: &[u8]) -> bool {
    line.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\t')
}

/// Returns whether the line is a header field.
fn is_field(line: &[u8]) -> bool {
    let name = line.iter().position(|byte| *byte == b':');
    name.is_some_and(|name| http::is_token(&line[..name]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 20;

    /// A body, and the bytes after it.
    type BodyAndRest = (Vec<u8>, Vec<u8>);

    /// Reads a chunked body in pieces of this size. Returns the body and the bytes after it, `None` if it is incomplete,
    /// or the rejection's status.
    fn chunked(bytes: &[u8], step: usize) -> Result<Option<BodyAndRest>, u16> {
        let mut reader = BodyReader::new(Framing::Chunked, LIMIT).unwrap();
        let mut input = Vec::new();
        for piece in bytes.chunks(step) {
            input.extend_from_slice(piece);
            let count = reader.read(&input).map_err(|rejection| rejection.status)?;
            input.drain(..count);
        }
        Ok(reader.is_complete().then(|| (reader.into_body(), input)))
    }

    #[test]
    fn a_chunked_body_is_read_alike_whole_and_in_parts() {
        for (bytes, expected) in [
            ("5\r\nhello\r\n0\r\n\r\n", Ok(Some(("hello", "")))),
            ("5\r\nhello\r\n2\r\n, \r\nA\r\neverybody!\r\n0\r\n\r\nGET", Ok(Some(("hello, everybody!", "GET")))),
            ("0\r\n\r\n", Ok(Some(("", "")))),
            ("0005\r\nhello\r\n000\r\n\r\n", Ok(Some(("hello", "")))),
            ("5;name=value\r\nhello\r\n0;last\r\n\r\n", Ok(Some(("hello", "")))),
            ("5\r\nhello\r\n0\r\nExpires: never\r\nX:\r\n\r\nx", Ok(Some(("hello", "x")))),
            ("5\r\nhell", Ok(None)),
            ("5\r\nhello", Ok(None)),
            ("5\r\nhello\r\n", Ok(None)),
            ("5\r\nhello\r\n0\r\n", Ok(None)),
            ("5\r\nhello\r\n0\r\nX: y\r\n", Ok(None)),
            ("15\r\nx", Err(413)),
            ("14\r\n12345678901234567890\r\n1\r\n", Err(413)),
            ("FFFFFFFFFFFFFFFF\r\n", Err(413)),
            ("00000000000000005\r\n", Err(400)),
            ("\r\n", Err(400)),
            ("x\r\n", Err(400)),
            ("-5\r\n", Err(400)),
            ("+5\r\n", Err(400)),
            (" 5\r\n", Err(400)),
            ("5 \r\n", Err(400)),
            ("5 ;x\r\n", Err(400)),
            ("0x5\r\n", Err(400)),
            ("5\nhello", Err(400)),
            ("5\rhello", Err(400)),
            ("5;a\0b\r\n", Err(400)),
            ("5\r\nhello!\r\n", Err(400)),
            ("5\r\nhello\n", Err(400)),
            ("5\r\nhello0\r\n\r\n", Err(400)),
            ("0\r\nno field\r\n\r\n", Err(400)),
            ("0\r\n: x\r\n\r\n", Err(400)),
            ("0\r\n X: folded\r\n\r\n", Err(400)),
            ("0\r\nX: y\n\r\n", Err(400)),
        ] {
            let expected = expected.map(|whole: Option<(&str, &str)>| {
                whole.map(|(body, rest)| (body.as_bytes().to_vec(), rest.as_bytes().to_vec()))
            });
            for step in [1, 2, 3, 1_000] {
                assert_eq!(chunked(bytes.as_bytes(), step), expected, "{bytes:?} in pieces of {step}");
            }
        }
    }

    #[test]
    fn lines_of_a_chunked_body_have_a_limit() {
        assert_eq!(chunked(format!("5;{}", "x".repeat(MAX_CHUNK_HEAD)).as_bytes(), 1), Err(400));
        assert_eq!(chunked(format!("0\r\nX: {}", "x".repeat(MAX_TRAILER)).as_bytes(), 7), Err(400));
        assert_eq!(chunked(format!("0\r\n{}", "X: y\r\n".repeat(MAX_TRAILER / 6 + 1)).as_bytes(), 7), Err(431));
    }

    #[test]
    fn a_body_with_a_length_ends_there() {
        let mut reader = BodyReader::new(Framing::Length(5), LIMIT).unwrap();
        assert_eq!((reader.read(b"he").unwrap(), reader.received(), reader.is_complete()), (2, 2, false));
        assert_eq!((reader.read(b"llo, GET").unwrap(), reader.is_complete()), (3, true));
        assert_eq!(reader.into_body(), b"hello");
        assert_eq!(BodyReader::new(Framing::Length(21), LIMIT).unwrap_err().status, 413);
        assert!(BodyReader::new(Framing::None, 0).unwrap().is_complete());
    }

    #[test]
    fn headers_announce_a_body_in_one_way_or_are_rejected() {
        use Framing::{Chunked, Length, None};
        type Headers = &'static [(&'static str, &'static str)];
        let cases: [(Headers, Result<Framing, u16>); 24] = [
            (&[], Ok(None)),
            (&[("Host", "x"), ("Expect", "100-continue")], Ok(None)),
            (&[("Content-Length", "0")], Ok(None)),
            (&[("content-length", "005")], Ok(Length(5))),
            (&[("Content-Length", "18446744073709551616")], Ok(Length(u64::MAX))),
            (&[("Content-Length", "")], Err(400)),
            (&[("Content-Length", "+5")], Err(400)),
            (&[("Content-Length", "-5")], Err(400)),
            (&[("Content-Length", "5, 5")], Err(400)),
            (&[("Content-Length", "0x5")], Err(400)),
            (&[("Content-Length", "\u{665}")], Err(400)),
            (&[("Content-Length", "5"), ("Content-Length", "5")], Err(400)),
            (&[("Content-Length", "5"), ("content-length", "6")], Err(400)),
            (&[("Transfer-Encoding", "chunked")], Ok(Chunked)),
            (&[("transfer-encoding", "Chunked")], Ok(Chunked)),
            (&[("Transfer-Encoding", "")], Err(400)),
            (&[("Transfer-Encoding", "identity")], Err(400)),
            (&[("Transfer-Encoding", "xchunked")], Err(400)),
            (&[("Transfer-Encoding", "gzip, chunked")], Err(400)),
            (&[("Transfer-Encoding", "chunked, chunked")], Err(400)),
            (&[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")], Err(400)),
            (&[("Transfer-Encoding", "chunked"), ("Content-Length", "5")], Err(400)),
            (&[("Content-Length", "0"), ("Transfer-Encoding", "chunked")], Err(400)),
            (&[("Transfer-Encoding", "gzip"), ("Content-Length", "x")], Err(400)),
        ];
        for (headers, expected) in cases {
            let owned: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            assert_eq!(Framing::of(&owned, false).map_err(|rejection| rejection.status), expected, "{headers:?}");
        }
        let chunked = [("Transfer-Encoding".to_owned(), "chunked".to_owned())];
        assert_eq!(Framing::of(&chunked, true).unwrap_err().status, 411);
    }
}
