//! The cases about format in the folder `eventsource` of web-platform-tests, and the examples of the standard. Each
//! name is that of a case there.

use std::time::Duration;

use server_sent_events::client::Parser;

use super::{parsed, parsed_in, seen};

/// Checks the data of all messages, whole and byte by byte.
#[track_caller]
fn has_data(stream: impl AsRef<[u8]>, expected: &[&str]) {
    for messages in [parsed(&stream), parsed_in(stream.as_ref().chunks(1))] {
        assert_eq!(messages.iter().map(|message| &*message.data).collect::<Vec<_>>(), expected);
    }
}

/// Checks the type, the data and the last event ID of all messages, whole and byte by byte.
#[track_caller]
fn is_seen_as(stream: impl AsRef<[u8]>, expected: &[(&str, &str, &str)]) {
    assert_eq!(seen(&parsed(&stream)), expected);
    assert_eq!(seen(&parsed_in(stream.as_ref().chunks(1))), expected);
}

#[test]
fn event_data() {
    let stream = "data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nData:data\n\ndata\n\ndata:end\n\n";
    has_data(stream, &["msg\nmsg", "", "end"]);
}

#[test]
fn format_bom() {
    has_data("\u{feff}data:1\n\n\u{feff}data:2\n\ndata:3\n\n", &["1", "3"]);
}

#[test]
fn format_bom_2() {
    has_data("\u{feff}\u{feff}data:1\n\ndata:2\n\ndata:3\n\n", &["2", "3"]);
}

#[test]
fn format_comments() {
    let long = "x".repeat(2 * 1024);
    let stream = format!("data:1\r:\0\n:\r\ndata:2\n:{long}\rdata:3\n:data:fail\r:{long}\ndata:4\n\n");
    has_data(stream, &["1\n2\n3\n4"]);
}

#[test]
fn format_data_before_final_empty_line() {
    let mut parser = Parser::new();
    let messages = parser.push(b"retry:1000\ndata:test1\n\nid:test\ndata:test2").unwrap();
    assert_eq!(seen(&messages), [("message", "test1", "")]);
    assert_eq!(parser.reconnection_time(), Some(Duration::from_secs(1)));
    // The unfinished block has set no ID: the client reconnects without one.
    assert_eq!(&**parser.last_event_id(), "");
    parser.start_stream();
    assert_eq!(seen(&parser.push(b"data:test1\n\n").unwrap()), [("message", "test1", "")]);
}

#[test]
fn format_field_data() {
    has_data("data:\n\ndata\ndata\n\ndata:test\n\n", &["", "\n", "test"]);
}

#[test]
fn format_field_event() {
    is_seen_as("event:test\ndata:x\n\ndata:x\n\n", &[("test", "x", ""), ("message", "x", "")]);
}

#[test]
fn format_field_event_empty() {
    is_seen_as("event: \ndata:data\n\n", &[("message", "data", "")]);
    is_seen_as("event:a\nevent\ndata:data\n\n", &[("message", "data", "")]);
}

#[test]
fn format_field_id() {
    // It persists across blocks and connections. Each connection sends its text as it is.
    let mut parser = Parser::new();
    assert_eq!(
        seen(&parser.push("id: \u{2026}\ndata: hello\n\n".as_bytes()).unwrap()),
        [("message", "hello", "\u{2026}")]
    );
    for _ in 0..2 {
        parser.start_stream();
        let messages = parser.push("data: \u{2026}\n\n".as_bytes()).unwrap();
        assert_eq!(seen(&messages), [("message", "\u{2026}", "\u{2026}")]);
    }
}

#[test]
fn format_field_id_3() {
    is_seen_as("id: 1\ndata: a\n\ndata: b\n\n", &[("message", "a", "1"), ("message", "b", "1")]);
    let changes = "id: 1\ndata: a\n\nid: 2\ndata: b\n\ndata: c\n\n";
    is_seen_as(changes, &[("message", "a", "1"), ("message", "b", "2"), ("message", "c", "2")]);
    let resets = "id: 1\ndata: a\n\nid:\ndata: b\n\ndata: c\n\n";
    is_seen_as(resets, &[("message", "a", "1"), ("message", "b", ""), ("message", "c", "")]);
}

#[test]
fn format_field_id_null() {
    for id in ["\0x", "x\0", "\0", "x\0y"] {
        is_seen_as(format!("id: 1\nid: {id}\ndata: a\n\n"), &[("message", "a", "1")]);
    }
}

#[test]
fn format_field_parsing() {
    let stream =
        "data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n";
    has_data(stream, &["\0\n 2\n1\n3\n\n4"]);
}

#[test]
fn format_field_retry() {
    let mut parser = Parser::new();
    assert_eq!(parser.push(b"retry:03000\ndata:x\n\n").unwrap()[0].retry, Some(Duration::from_secs(3)));
    assert_eq!(parser.reconnection_time(), Some(Duration::from_secs(3)));
    // It takes effect without data, and without the end of its block.
    assert_eq!(parser.push(b"retry:7\n").unwrap(), []);
    assert_eq!(parser.reconnection_time(), Some(Duration::from_millis(7)));
    assert_eq!(parser.push(b"\ndata:x\n\n").unwrap()[0].retry, None);
}

#[test]
fn format_field_retry_bogus() {
    for bogus in ["1000x", "x", "-1", "+1", "1.5", "1e3", " 5", "\u{661}", "5 "] {
        let mut parser = Parser::new();
        parser.push(format!("retry:3000\nretry: {bogus}\ndata:x\n\n").as_bytes()).unwrap();
        assert_eq!(parser.reconnection_time(), Some(Duration::from_secs(3)), "{bogus:?}");
    }
}

#[test]
fn format_field_retry_empty() {
    let mut parser = Parser::new();
    assert_eq!(parser.push(b"retry\ndata:test\n\nretry:\n\n").unwrap()[0].data, "test");
    assert_eq!(parser.reconnection_time(), None);
}

#[test]
fn format_field_unknown() {
    let stream = "data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\n\n";
    has_data(stream, &["test\n"]);
}

#[test]
fn format_leading_space() {
    has_data("data:\ttest\rdata: \ndata:test\n\n", &["\ttest\n\ntest"]);
}

#[test]
fn format_newlines() {
    has_data("data:test\r\ndata\ndata:test\r\n\r", &["test\n\ntest"]);
}

#[test]
fn format_null_character() {
    has_data("data:\0\n\n\n\n", &["\0"]);
}

#[test]
fn format_utf_8() {
    has_data("data:ok\u{2026}\n\n", &["ok\u{2026}"]);
}

#[test]
fn field_names_are_case_sensitive() {
    is_seen_as("Event: a\nID: 1\nRetry: 5\nDATA: x\ndata: y\n\n", &[("message", "y", "")]);
}

#[test]
fn examples_of_the_standard() {
    is_seen_as("data: YHOO\ndata: +2\ndata: 10\n\n", &[("message", "YHOO\n+2\n10", "")]);
    let four = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
    is_seen_as(
        four,
        &[("message", "first event", "1"), ("message", "second event", ""), ("message", " third event", "")],
    );
    has_data("data\n\ndata\ndata\n\ndata:", &["", "\n"]);
    has_data("data:test\n\ndata: test\n\n", &["test", "test"]);
    is_seen_as(
        "event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n",
        &[("add", "73857293", ""), ("remove", "2153", "")],
    );
}

/// A block without data fires nothing, but sets the last event ID, and leaves no type behind.
#[test]
fn a_block_without_data_sets_the_id() {
    let mut parser = Parser::new();
    assert_eq!(parser.push(b"event: a\nid: 7\n").unwrap(), []);
    assert_eq!(&**parser.last_event_id(), "");
    assert_eq!(parser.push(b"\n").unwrap(), []);
    assert_eq!(&**parser.last_event_id(), "7");
    assert_eq!(seen(&parser.push(b"data: x\n\n").unwrap()), [("message", "x", "7")]);
}

#[test]
fn invalid_utf_8_is_replaced_as_the_standard_decodes_it() {
    // A character for each maximal part of a sequence, and for each byte that begins none.
    for (bytes, expected) in [
        (&b"\xff"[..], "\u{fffd}"),
        (b"\xe2\x82", "\u{fffd}"),
        (b"\xe2\x82x", "\u{fffd}x"),
        (b"\xf0\x9f\xa6", "\u{fffd}"),
        (b"\xf0\x80\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xc0\xaf", "\u{fffd}\u{fffd}"),
        (b"\xf5\x80", "\u{fffd}\u{fffd}"),
        (b"a\x80b", "a\u{fffd}b"),
    ] {
        has_data([b"data:", bytes, b"\n\n"].concat(), &[expected]);
        let stream = [b"event:", bytes, b"\nid:", bytes, b"\ndata\n\n"].concat();
        is_seen_as(stream, &[(expected, "", expected)]);
    }
    // A sequence does not continue after a line end.
    has_data(b"data:\xe2\ndata:\x82\xac\n\n", &["\u{fffd}\n\u{fffd}\u{fffd}"]);
    has_data(b"\xefdata:1\n\n\xef\xbb\ndata:2\n\n", &["2"]);
}

#[test]
fn a_reconnection_time_of_any_length_is_taken() {
    let mut parser = Parser::new();
    parser.push(format!("retry:{}\n", "9".repeat(1_000)).as_bytes()).unwrap();
    assert_eq!(parser.reconnection_time(), Some(Duration::from_millis(u64::MAX)));
}
