//! The parser of event streams: the cases of the standard's own tests, pieces of any size, limits, and two foreign
//! parsers.

mod cutting;
mod foreign;
mod format;
mod limits;

use server_sent_events::client::{Message, Parser};

/// Parses a stream in these pieces.
#[track_caller]
fn parsed_in<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Message> {
    let mut parser = Parser::new();
    pieces.into_iter().flat_map(|piece| parser.push(piece).unwrap()).collect()
}

/// Parses a stream in one piece.
#[track_caller]
fn parsed(stream: impl AsRef<[u8]>) -> Vec<Message> {
    parsed_in([stream.as_ref()])
}

/// Returns what a page sees of each message: the type, the data and the last event ID.
fn seen(messages: &[Message]) -> Vec<(&str, &str, &str)> {
    messages.iter().map(|message| (&*message.event_type, &*message.data, &*message.id)).collect()
}
