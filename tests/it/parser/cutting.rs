//! The result does not depend on how a stream is cut into pieces.

use server_sent_events::client::{Message, Parser, ParserError};

use super::{parsed, parsed_in};
use crate::common::seed;

/// A stream with each kind of line end, of field and of character.
const STREAM: &str = "\u{feff}data: one\r\rid: 1\r\ndata: t\u{e9}o\r\ndata: \u{1f980}\r\n\r\n: comment\n\nevent: e\ndata\n\n\n\r\ndata: last\n\r";

#[test]
fn two_pieces_give_the_messages_of_one() {
    let whole = parsed(STREAM);
    assert_eq!(whole.len(), 4);
    for cut in 0..=STREAM.len() {
        let (first, second) = STREAM.as_bytes().split_at(cut);
        assert_eq!(parsed_in([first, b"", second, b""]), whole, "cut at {cut}");
    }
}

#[test]
fn pieces_of_each_size_give_the_messages_of_one() {
    let whole = parsed(STREAM);
    for size in 1..STREAM.len() {
        assert_eq!(parsed_in(STREAM.as_bytes().chunks(size)), whole, "pieces of {size}");
    }
}

/// A message arrives with the first byte of its blank line's end.
#[test]
fn a_carriage_return_completes_a_message_at_once() {
    let mut parser = Parser::new();
    assert_eq!(parser.push(b"data: x\r\n\r").unwrap().len(), 1);
    assert_eq!(parser.push(b"\n").unwrap().len(), 0);
    assert_eq!(parser.push(b"data: y\r").unwrap().len(), 0);
    assert_eq!(parser.push(b"\r").unwrap().len(), 1);
}

/// Parses until the error, which a later call may return.
fn parsed_until_the_error(mut parser: Parser, pieces: impl Iterator<Item = Vec<u8>>) -> (Vec<Message>, ParserError) {
    let mut messages = Vec::new();
    for piece in pieces.chain([Vec::new()]) {
        match parser.push(&piece) {
            Ok(more) => messages.extend(more),
            Err(error) => return (messages, error),
        }
    }
    panic!("no error, but {messages:?}");
}

#[test]
fn the_limits_apply_wherever_the_stream_is_cut() {
    let stream = b"data: 12345\n\ndata: 123\ndata: 12\n\n: 1234567890\rdata: 1\n\n";
    for (line, event) in [(11, 100), (9, 100), (100, 5), (100, 4)] {
        let parser = || Parser::new().max_line_len(line).max_event_len(event);
        let whole = parsed_until_the_error(parser(), std::iter::once(stream.to_vec()));
        for size in 1..stream.len() {
            let pieces = stream.chunks(size).map(<[u8]>::to_vec);
            assert_eq!(parsed_until_the_error(parser(), pieces), whole, "{line}, {event}, {size}");
        }
    }
}

/// Any bytes give the messages of the text that the standard's decoder makes of them.
#[test]
fn random_bytes_are_decoded_first() {
    let mut random = fastrand::Rng::with_seed(seed("random bytes"));
    let words: [&[u8]; 12] = [
        b"data:",
        b"id:",
        b"event:",
        b"\n",
        b"\n",
        b"\r",
        b"\xe2\x82",
        b"\xac",
        b"\xf0\x9f",
        b"\xa6\x80",
        b"\xef\xbb\xbf",
        b"\0",
    ];
    for _ in 0..20_000 {
        let mut stream = Vec::new();
        for _ in 0..random.usize(0..30) {
            match random.usize(..words.len() + 2) {
                word if word < words.len() => stream.extend_from_slice(words[word]),
                _ => stream.push(random.u8(..)),
            }
        }
        stream.extend_from_slice(b"\ndata\n\n");
        let cut = random.usize(..stream.len());
        let messages = parsed_in([&stream[..cut], &stream[cut..]]);
        assert_eq!(messages, parsed(&*String::from_utf8_lossy(&stream)), "{stream:?} cut at {cut}");
    }
}
