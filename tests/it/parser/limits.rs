//! The limits of the parser.

use std::sync::Arc;

use server_sent_events::client::{Parser, ParserError};

#[test]
fn a_line_of_the_limit_passes_and_a_longer_one_does_not() {
    let parser = || Parser::new().max_line_len(10);
    assert_eq!(parser().push(b"data: 1234\n\n").unwrap().len(), 1);
    let too_long = Err(ParserError::LineTooLong { limit: 10 });
    assert_eq!(parser().push(b"data: 12345\n\n"), too_long);
    // Without its end, too.
    assert_eq!(parser().push(b"data: 12345"), too_long);
    assert_eq!(parser().push(b": a comment"), too_long);
}

#[test]
fn data_of_the_limit_passes_and_more_does_not() {
    let parser = || Parser::new().max_event_len(5);
    assert_eq!(parser().push(b"data: 12\ndata: 34\n\n").unwrap()[0].data, "12\n34");
    let too_large = Err(ParserError::EventTooLarge { limit: 5 });
    assert_eq!(parser().push(b"data: 12\ndata: 345\n"), too_large);
    assert_eq!(parser().push(b"data: 12\ndata: 3\ndata: \ndata: \n"), too_large.clone());
    assert_eq!(parser().push(b"data: 123456\n"), too_large);
}

#[test]
fn an_error_lasts_until_the_next_stream() {
    let mut parser = Parser::new().max_line_len(20);
    assert_eq!(parser.push(b"id: 7\ndata: a\n\ndata: a line that is too long").unwrap().len(), 1);
    assert_eq!(parser.error(), Some(ParserError::LineTooLong { limit: 20 }));
    for _ in 0..2 {
        assert_eq!(parser.push(b"\n\ndata: b\n\n"), Err(ParserError::LineTooLong { limit: 20 }));
    }
    parser.start_stream();
    assert_eq!(parser.error(), None);
    let messages = parser.push(b"data: c\n\n").unwrap();
    assert_eq!((&*messages[0].data, &*messages[0].id), ("c", "7"));
}

/// Otherwise a long ID and many short events would take much memory.
#[test]
fn messages_share_the_text_of_their_id() {
    let messages = Parser::new().push(b"id: long\ndata: a\n\ndata: b\n\n").unwrap();
    assert!(Arc::ptr_eq(&messages[0].id, &messages[1].id));
}

#[test]
fn no_limit_is_too_small_or_too_large() {
    assert_eq!(Parser::new().max_line_len(0).push(b"\n\r\n"), Ok(vec![]));
    assert_eq!(Parser::new().max_line_len(0).push(b":"), Err(ParserError::LineTooLong { limit: 0 }));
    assert_eq!(Parser::new().max_event_len(0).push(b"data:\n\n").unwrap()[0].data, "");
    assert_eq!(Parser::new().max_event_len(0).push(b"data:\ndata:\n\n"), Err(ParserError::EventTooLarge { limit: 0 }));
    let mut unlimited = Parser::new().max_line_len(usize::MAX).max_event_len(usize::MAX);
    assert_eq!(unlimited.push(b"data: x\n\n").unwrap().len(), 1);
}

#[test]
fn the_errors_name_the_setting() {
    let texts = [ParserError::LineTooLong { limit: 1 }, ParserError::EventTooLarge { limit: 2 }].map(|e| e.to_string());
    assert_eq!(
        texts,
        ["line too long: raise `max_line_len` (1 bytes)", "event too large: raise `max_event_len` (2 bytes)"]
    );
}
