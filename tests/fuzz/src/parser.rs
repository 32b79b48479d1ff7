//! The client's parser: the same messages whatever pieces the bytes come in, and bounded memory.

use arbitrary::Unstructured;
use fastrand::Rng;
use server_sent_events::client::{Message, Parser, ParserError};

use crate::memory;

/// What the parser may hold beyond its limits.
const OVERHEAD: usize = 1024;

/// The input is a seed for the pieces, the limits of lines and events, and a stream.
pub fn check(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let mut random = Rng::with_seed(input.arbitrary().unwrap_or(0_u64));
    let max_line_len = usize::from(input.arbitrary().unwrap_or(0_u8)) * 4 + 1;
    let max_event_len = usize::from(input.arbitrary().unwrap_or(0_u8)) * 4 + 1;
    let stream = input.take_rest();
    let parser = || Parser::new().max_line_len(max_line_len).max_event_len(max_event_len);

    let mut whole = parser();
    let expected = parse(&mut whole, &[stream]);
    let pieces = pieces(stream, &mut random);
    let mut cut = parser();
    assert_eq!(parse(&mut cut, &pieces), expected, "{pieces:?}");
    assert_eq!(cut.last_event_id(), whole.last_event_id());
    assert_eq!(cut.reconnection_time(), whole.reconnection_time());
    for message in &expected.0 {
        assert!(message.data.len() <= 3 * max_event_len, "invalid UTF-8 grows to three times its length at most");
        assert!(message.event_type.len() <= 3 * max_line_len.max(7) && message.id.len() <= 3 * max_line_len);
    }

    // A line, the data, and the fields of a line each. Buffers may have twice the length that they need.
    let limit = OVERHEAD + 20 * max_line_len + 2 * max_event_len;
    let before = memory::allocated();
    let mut parser = parser();
    for piece in &pieces {
        drop(parser.push(piece));
        let holds = memory::allocated().saturating_sub(before);
        assert!(holds <= limit, "the parser holds {holds} bytes, with limits of {max_line_len} and {max_event_len}");
    }
}

fn pieces<'a>(mut stream: &'a [u8], random: &mut Rng) -> Vec<&'a [u8]> {
    let largest = random.usize(1..40);
    let mut pieces = Vec::new();
    while !stream.is_empty() {
        let (piece, rest) = stream.split_at(random.usize(..=largest).min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}

fn parse(parser: &mut Parser, pieces: &[&[u8]]) -> (Vec<Message>, Option<ParserError>) {
    let mut messages = Vec::new();
    for piece in pieces {
        match parser.push(piece) {
            Ok(more) => messages.extend(more),
            Err(error) => assert_eq!(parser.error(), Some(error)),
        }
    }
    (messages, parser.error())
}
