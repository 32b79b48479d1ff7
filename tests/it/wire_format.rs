//! All data in an event arrives unchanged, as WHATWG HTML 9.2.6 requires.
//!
//! An independent parser judges.

use std::time::Duration;

use crate::common::parsed;
use proptest::prelude::*;
use server_sent_events::Event;

#[track_caller]
fn encodes(event: Event, wire: &str) {
    assert_eq!(event.encode(), wire);
}

/// Checks that the data arrives as one event, and as `arrives`.
#[track_caller]
fn data_arrives_as(data: &str, arrives: &str) {
    let events = parsed(&Event::new(data).encode());
    assert_eq!(events.len(), 1, "{data:?} gave {events:?}");
    assert_eq!((&*events[0].data, &*events[0].event), (arrives, "message"));
}

#[track_caller]
fn data_arrives(data: &str) {
    data_arrives_as(data, data);
}

#[test]
fn fields_have_a_fixed_order() {
    encodes(Event::new("hello"), "data: hello\n\n");
    encodes(Event::new("hello").event("greeting").unwrap(), "event: greeting\ndata: hello\n\n");
    encodes(Event::new("hello").id("7").unwrap(), "data: hello\nid: 7\n\n");
    encodes(Event::new("hello").retry(Duration::from_millis(1_500)).unwrap(), "retry: 1500\ndata: hello\n\n");
    encodes(Event::comment("hello"), ": hello\n");
    encodes(Event::comment("three\rlines\r\nhere"), ": three\n: lines\n: here\n");
    encodes(Event::comment("id: 7\n\ndata: forged"), ": id: 7\n: \n: data: forged\n");
}

#[test]
fn a_field_that_is_set_again_replaces_the_first() {
    let event = Event::new("x").id("1").unwrap().id("2").unwrap().event("a").unwrap().event("b").unwrap();
    encodes(event, "event: b\ndata: x\nid: 2\n\n");
}

#[test]
fn retry_is_whole_milliseconds_rounded_up() {
    encodes(Event::new("").retry(Duration::from_nanos(1)).unwrap(), "retry: 1\ndata: \n\n");
    encodes(Event::new("").retry(Duration::ZERO).unwrap(), "retry: 0\ndata: \n\n");
    encodes(Event::new("").retry(Duration::from_millis(2_147_483_647)).unwrap(), "retry: 2147483647\ndata: \n\n");
}

/// Seen in axum: it counts as two.
#[test]
fn a_crlf_is_one_line_end() {
    data_arrives_as("a\r\nb", "a\nb");
    data_arrives_as("a\r\n\r\nb", "a\n\nb");
    data_arrives_as("a\n\rb", "a\n\nb");
    encodes(Event::new("a\r\nb"), "data: a\ndata: b\n\n");
}

/// Seen in nchan, warp, actix and a Python library: it is passed on.
#[test]
fn a_bare_cr_is_a_line_end() {
    data_arrives_as("a\rb", "a\nb");
    data_arrives_as("a\r", "a\n");
    data_arrives_as("\rdata: forged\r\rid: 1", "\ndata: forged\n\nid: 1");
}

/// Seen in Rocket and warp: a leading space is lost.
#[test]
fn leading_spaces_arrive() {
    data_arrives(" one");
    data_arrives("  two");
    data_arrives("\ta tab");
    data_arrives("a\n b\n  c");
    data_arrives(" ");
}

/// Seen in axum: it is lost.
#[test]
fn empty_data_arrives() {
    data_arrives("");
    assert_eq!(Event::new("").encode().matches("data:").count(), 1);
}

/// Seen in go-sse: a trailing newline is lost.
#[test]
fn trailing_newlines_arrive() {
    data_arrives("a\n");
    data_arrives("a\n\n\n");
    data_arrives("\n");
    data_arrives("\na");
}

/// Seen in axum: some texts panic.
#[test]
fn no_text_panics() {
    for text in ["\r", "\n", "\0", "\r\n", "\u{feff}", "\u{2028}", "\u{85}", "\u{10ffff}", ":", "\u{b}\u{c}"] {
        let _ = (Event::new(text).encode(), Event::comment(text).encode());
        let _ = (Event::new(text).event(text), Event::new(text).id(text));
    }
}

#[test]
fn characters_that_end_no_line_arrive_unchanged() {
    data_arrives("a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f");
    data_arrives("a\0b");
    data_arrives("\u{feff}with a byte order mark");
    data_arrives("a lone surrogate's replacement: \u{fffd}, an emoji: \u{1f980}");
}

#[test]
fn data_that_looks_like_a_field_stays_data() {
    data_arrives("data: x");
    data_arrives("id: 1\nevent: forged\nretry: 1");
    data_arrives(": a comment?");
    data_arrives("\n\ndata: forged\n\n");
}

#[test]
fn a_comment_fires_nothing() {
    for text in ["", "x", "a\nb", "\n\ndata: forged\n\n", "\r\rdata: forged\r\r"] {
        assert_eq!(parsed(&Event::comment(text).encode()), [], "{text:?}");
    }
}

#[cfg(feature = "json")]
#[test]
fn json_is_data() {
    encodes(Event::json(&serde_json::json!({"a": "two\nlines"})).unwrap(), "data: {\"a\":\"two\\nlines\"}\n\n");
    let keyed_by_a_list = std::collections::HashMap::from([(vec![1], 1)]);
    let error = Event::json(&keyed_by_a_list).unwrap_err();
    assert_eq!(error.to_string(), "failed to write the value as JSON: key must be a string");
}

/// Generates texts in which the format's own characters are as frequent as they are rare in real ones.
fn text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        4 => prop::sample::select(vec!['\r', '\n', ' ', ':', '\0', '\u{feff}', '\u{2028}', '\u{85}', '\t']),
        1 => any::<char>(),
        3 => prop::char::range('a', 'z'),
    ];
    prop_oneof![
        prop::collection::vec(character, 0..40).prop_map(|characters| characters.into_iter().collect()),
        prop::collection::vec(
            prop::sample::select(vec!["data", "id", "event", ":", ": ", "\n", "\r\n", "\r", "x"]),
            0..12
        )
        .prop_map(|words: Vec<&str>| words.concat()),
    ]
}

fn event_type() -> impl Strategy<Value = String> {
    text().prop_map(|text| text.replace(['\r', '\n', '\0'], ""))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(500),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_streams_arrive_unchanged(
        events in prop::collection::vec(
            (
                prop::option::weighted(0.9, text()),
                prop::option::of(event_type()),
                prop::option::of("[!-~]{1,128}"),
                prop::option::of(0..=i32::MAX as u64),
                text(),
            ),
            1..4,
        ),
    ) {
        let mut wire = String::new();
        let mut expected = Vec::new();
        let mut last_id = String::new();
        for (data, event_type, id, retry, comment) in events {
            let mut event = match &data {
                Some(data) => Event::new(data),
                None => Event::comment(&comment),
            };
            if let Some(event_type) = &event_type {
                event = event.event(event_type).unwrap();
            }
            if let Some(id) = &id {
                event = event.id(id).unwrap();
                last_id.clone_from(id);
            }
            if let Some(retry) = retry {
                event = event.retry(Duration::from_millis(retry)).unwrap();
            }
            wire.push_str(&event.encode());
            if let Some(data) = data {
                expected.push(eventsource_stream::Event {
                    event: event_type.filter(|name| !name.is_empty()).unwrap_or("message".into()),
                    data: data.replace("\r\n", "\n").replace('\r', "\n"),
                    id: last_id.clone(),
                    retry: retry.map(Duration::from_millis),
                });
            }
        }
        prop_assert_eq!(parsed(&wire), expected, "{:?}", wire);
    }
}
