//! The messages of random streams, which are cut at random, are those that two foreign parsers return.

use std::convert::Infallible;
use std::time::Duration;

use eventsource_stream::Eventsource;
use fastrand::Rng;
use futures_util::{Stream, StreamExt};
use server_sent_events::client::Parser;

use crate::common::seed;

/// A message: type, data, last event ID, reconnection time.
type Fields = (String, String, String, Option<Duration>);

/// The pieces of which random streams are made: what the format gives a meaning is frequent. `event` without a colon is
/// missing, because sseer ignores it.
const WORDS: [&str; 33] = [
    "data",
    "data:",
    "data: ",
    "data:  x",
    "id",
    "id:",
    "id: ",
    "id: 1\0",
    "event:",
    "event: a",
    "retry: 5",
    "retry:",
    "retry: 5x",
    "Data: ",
    ":",
    ": comment",
    " ",
    "\n",
    "\n",
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    "\r\r",
    "\r\n\r\n",
    "x",
    "\0",
    "\u{e9}",
    "\u{2028}",
    "\u{feff}",
    "\u{1f980}",
    "7",
    "\t",
];

/// Returns a stream whose end completes the last line: parsers differ about a carriage return at the very end.
fn random_stream(random: &mut Rng) -> Vec<u8> {
    let count = random.usize(0..40);
    let mut stream: String = (0..count).map(|_| WORDS[random.usize(..WORDS.len())]).collect();
    // eventsource-stream panics at a byte order mark.
    if stream.starts_with('\u{feff}') {
        stream.insert(0, ':');
    }
    stream.push_str(":\n");
    stream.into_bytes()
}

fn cut_at_random<'a>(mut stream: &'a [u8], random: &mut Rng) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while !stream.is_empty() {
        let longest = if random.bool() { 4 } else { stream.len() };
        let piece;
        (piece, stream) = stream.split_at(random.usize(1..=longest.min(stream.len())));
        pieces.push(piece);
    }
    pieces
}

fn by_this_parser(pieces: &[&[u8]]) -> Vec<Fields> {
    let mut parser = Parser::new();
    let messages = pieces.iter().flat_map(|piece| parser.push(piece).unwrap());
    messages.map(|message| (message.event_type.into(), message.data, message.id.to_string(), message.retry)).collect()
}

fn source(pieces: &[&[u8]]) -> impl Stream<Item = Result<Vec<u8>, Infallible>> + Unpin + use<> {
    let pieces: Vec<_> = pieces.iter().map(|piece| Ok(piece.to_vec())).collect();
    futures_util::stream::iter(pieces)
}

fn by_eventsource_stream(pieces: &[&[u8]]) -> Vec<Fields> {
    let events = source(pieces).eventsource().map(|event| event.expect("a broken event stream"));
    let fields = events.map(|event| (event.event, event.data, event.id, event.retry));
    futures_executor::block_on(fields.collect())
}

fn by_sseer(pieces: &[&[u8]]) -> Vec<Fields> {
    let events = sseer::EventStream::new(source(pieces)).map(|event| event.expect("a broken event stream"));
    let fields =
        events.map(|event| (event.event.to_string(), event.data.to_string(), event.id.to_string(), event.retry));
    futures_executor::block_on(fields.collect())
}

#[test]
fn random_streams_are_parsed_as_by_two_foreign_parsers() {
    let mut random = Rng::with_seed(seed("foreign parsers"));
    let streams = std::env::var("PARSER_STREAMS").ok().and_then(|streams| streams.parse().ok()).unwrap_or(20_000);
    let mut messages = 0;
    for _ in 0..streams {
        let stream = random_stream(&mut random);
        let pieces = cut_at_random(&stream, &mut random);
        let own = by_this_parser(&pieces);
        let shown = || pieces.iter().map(|piece| String::from_utf8_lossy(piece)).collect::<Vec<_>>();
        assert_eq!(own, by_eventsource_stream(&pieces), "eventsource-stream: {:?}", shown());
        assert_eq!(own, by_sseer(&pieces), "sseer: {:?}", shown());
        messages += own.len();
    }
    println!("{streams} streams, {messages} messages");
    assert!(messages > streams / 10, "too few messages to compare: {messages}");
}
