//! Reads the whole body of a request, or rejects it.
//!
//! The readers of both servers can end early without an error. If the client offers an upgrade, they end only with the
//! connection. Only the announced length shows how much belongs to the request, so this module relies on it alone.

use std::io::Read;

use crate::error::BodyError;

/// Returns the length of the body that these headers announce; 0 if they announce none (RFC 9112 6.3).
///
/// Chunked bodies are rejected, because the servers' decoder reports a truncated chunk as the end of the body.
pub(crate) fn length<'a>(
    headers: impl Iterator<Item = (&'a str, &'a str)>,
    max_bytes: usize,
) -> Result<usize, BodyError> {
    let (mut lengths, mut encodings) = (Vec::new(), Vec::new());
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("Content-Length") {
            lengths.push(value.trim());
        } else if name.eq_ignore_ascii_case("Transfer-Encoding") {
            encodings.push(value.trim());
        }
    }
    match (&*lengths, &*encodings) {
        ([], []) => Ok(0),
        ([], [encoding]) if encoding.eq_ignore_ascii_case("chunked") => Err(BodyError::LengthRequired),
        ([], _) => Err(BodyError::UnsupportedEncoding),
        ([length], []) => parse(length, max_bytes),
        // Equal lengths are rejected too: the server reads by the first, and a proxy perhaps by the last.
        (_, []) => Err(BodyError::InvalidLength),
        _ => Err(BodyError::LengthAndEncoding),
    }
}

/// Parses a length of digits only, since `usize` would accept a sign.
fn parse(length: &str, max_bytes: usize) -> Result<usize, BodyError> {
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BodyError::InvalidLength);
    }
    // A number that does not fit into a `usize` exceeds every limit.
    let length = length.parse().ok().filter(|length| *length <= max_bytes);
    length.ok_or(BodyError::TooLarge { limit: max_bytes })
}

/// Reads this many bytes. Memory grows with what arrives, not with what is announced.
pub(crate) fn read(reader: impl Read, announced: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    reader.take(announced as u64).read_to_end(&mut body).map_err(|error| BodyError::Read(error.kind()))?;
    match body.len() {
        received if received < announced => Err(BodyError::Incomplete { received, announced }),
        _ => Ok(body),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use BodyError::{Incomplete, InvalidLength, LengthAndEncoding, LengthRequired, TooLarge, UnsupportedEncoding};

    const LIMIT: usize = 2_000;

    #[test]
    fn the_headers_announce_one_length_or_are_rejected() {
        let too_large = || Err(TooLarge { limit: LIMIT });
        type Headers = &'static [(&'static str, &'static str)];
        let cases: [(Headers, Result<usize, BodyError>); 30] = [
            (&[], Ok(0)),
            (&[("Host", "x"), ("Expect", "100-continue")], Ok(0)),
            (&[("Content-Length", "0")], Ok(0)),
            (&[("content-length", "5")], Ok(5)),
            (&[("Content-Length", "  005\t")], Ok(5)),
            (&[("Content-Length", "2000")], Ok(2_000)),
            (&[("Content-Length", "2001")], too_large()),
            (&[("Content-Length", "68719476736")], too_large()),
            (&[("Content-Length", "18446744073709551616")], too_large()),
            (&[("Content-Length", "99999999999999999999999999999999999999999")], too_large()),
            (&[("Content-Length", "")], Err(InvalidLength)),
            (&[("Content-Length", "+5")], Err(InvalidLength)),
            (&[("Content-Length", "-5")], Err(InvalidLength)),
            (&[("Content-Length", "0x5")], Err(InvalidLength)),
            (&[("Content-Length", "5 5")], Err(InvalidLength)),
            (&[("Content-Length", "5, 5")], Err(InvalidLength)),
            (&[("Content-Length", "\u{665}")], Err(InvalidLength)),
            (&[("Content-Length", "5"), ("Content-Length", "6")], Err(InvalidLength)),
            (&[("Content-Length", "5"), ("content-length", "5")], Err(InvalidLength)),
            (&[("Transfer-Encoding", "chunked")], Err(LengthRequired)),
            (&[("transfer-encoding", " Chunked")], Err(LengthRequired)),
            (&[("Transfer-Encoding", "")], Err(UnsupportedEncoding)),
            (&[("Transfer-Encoding", "identity")], Err(UnsupportedEncoding)),
            (&[("Transfer-Encoding", "gzip, chunked")], Err(UnsupportedEncoding)),
            (&[("Transfer-Encoding", "chunked, gzip")], Err(UnsupportedEncoding)),
            (&[("Transfer-Encoding", "xchunked")], Err(UnsupportedEncoding)),
            (&[("Transfer-Encoding", "gzip"), ("Transfer-Encoding", "chunked")], Err(UnsupportedEncoding)),
            (&[("Transfer-Encoding", "chunked"), ("Content-Length", "5")], Err(LengthAndEncoding)),
            (&[("Content-Length", "5"), ("Transfer-Encoding", "gzip")], Err(LengthAndEncoding)),
            (&[("Content-Length", "x"), ("Content-Length", "y"), ("Transfer-Encoding", "z")], Err(LengthAndEncoding)),
        ];
        for (headers, expected) in cases {
            assert_eq!(length(headers.iter().copied(), LIMIT), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_body_is_read_whole_and_no_further_or_not_at_all() {
        assert_eq!(read(&b"hello"[..], 5), Ok(b"hello".to_vec()));
        assert_eq!(read(&b"hello, and what follows"[..], 5), Ok(b"hello".to_vec()));
        assert_eq!(read(&b"hell"[..], 5), Err(Incomplete { received: 4, announced: 5 }));
        assert_eq!(read(&b""[..], 5), Err(Incomplete { received: 0, announced: 5 }));
        // An announced length is not allocated: this one could not be.
        let huge = isize::MAX as usize;
        assert_eq!(read(&b"hello"[..], huge), Err(Incomplete { received: 5, announced: huge }));
    }

    #[test]
    fn a_connection_that_fails_gives_no_body() {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let error = read(b"hell".chain(Fails), 5).unwrap_err();
        assert_eq!((error.clone(), error.status()), (BodyError::Read(io::ErrorKind::ConnectionReset), 400));
        assert_eq!(error.to_string(), "failed to read the body: connection reset");
    }
}
