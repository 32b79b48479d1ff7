//! Bad input gets a clear error, which names the problem and what is allowed, and nothing is sent.

use std::fmt::Display;
use std::time::Duration;

use server_sent_events::{BuildError, Event, OpenError, Publisher, RecvTimeoutError, ResponseHeaders, TryRecvError};

#[track_caller]
fn refused<T, E: Display>(result: Result<T, E>, text: &str) {
    match result {
        Ok(_) => panic!("accepted; expected: {text}"),
        Err(error) => assert_eq!(error.to_string(), text),
    }
}

fn event() -> Event {
    Event::new("x")
}

#[test]
fn event_types_with_line_ends_or_nul_are_rejected() {
    refused(event().event("a\nb"), "invalid character '\\n' at byte 1 of the event type: remove CR, LF and NUL");
    refused(event().event("\rb"), "invalid character '\\r' at byte 0 of the event type: remove CR, LF and NUL");
    refused(event().event("äb\0"), "invalid character '\\0' at byte 3 of the event type: remove CR, LF and NUL");
    assert!(event().event("Ä, with spaces: and a colon").is_ok());
    assert!(event().event("").is_ok());
}

#[test]
fn event_ids_other_than_1_to_128_visible_ascii_characters_are_rejected() {
    refused(event().id(""), "empty event ID: use 1 to 128 visible ASCII characters");
    refused(event().id("a b"), "invalid character ' ' at byte 1 of the event ID: use visible ASCII characters");
    refused(event().id("a\nb"), "invalid character '\\n' at byte 1 of the event ID: use visible ASCII characters");
    refused(event().id("a\r"), "invalid character '\\r' at byte 1 of the event ID: use visible ASCII characters");
    refused(event().id("\0"), "invalid character '\\0' at byte 0 of the event ID: use visible ASCII characters");
    refused(
        event().id("\u{7f}"),
        "invalid character '\\u{7f}' at byte 0 of the event ID: use visible ASCII characters",
    );
    refused(event().id("ä"), "invalid character 'ä' at byte 0 of the event ID: use visible ASCII characters");
    refused(event().id("x".repeat(129)), "event ID too long (129 bytes): use at most 128");
    assert!(event().id("x".repeat(128)).is_ok());
    assert!(event().id("!~").is_ok());
}

#[test]
fn retry_times_beyond_31_bits_are_rejected() {
    let text = "retry time too long (2147483648 ms): use at most 2147483647 ms";
    refused(event().retry(Duration::from_millis(2_147_483_648)), text);
    refused(
        event().retry(Duration::MAX),
        "retry time too long (18446744073709551615999 ms): use at most 2147483647 ms",
    );
}

#[test]
fn publisher_settings_of_zero_are_rejected() {
    let builder = Publisher::<()>::builder;
    refused(builder().max_subscribers(0).build(), "`max_subscribers` must be greater than 0");
    refused(builder().max_channels_per_subscriber(0).build(), "`max_channels_per_subscriber` must be greater than 0");
    refused(builder().max_channel_name_len(0).build(), "`max_channel_name_len` must be greater than 0");
    refused(builder().max_queued_events(0).build(), "`max_queued_events` must be greater than 0");
    refused(builder().max_queued_bytes(0).build(), "`max_queued_bytes` must be greater than 0");
    refused(builder().heartbeat(Duration::ZERO).build(), "`heartbeat` must be greater than 0, or None");
    refused(builder().max_writer_threads(0).build(), "`max_writer_threads` must be greater than 0");
    refused(builder().writer_stack_size(0).build(), "`writer_stack_size` must be greater than 0");
    refused(builder().max_lifetime(Duration::ZERO).build(), "`max_lifetime` must be greater than 0, or None");
    let text = "`max_subscribers_per_channel` must be greater than 0";
    refused(builder().max_subscribers_per_channel(0).build(), text);
    let text = "`max_subscribers_per_quota_key` must be greater than 0";
    refused(builder().max_subscribers_per_quota_key(0).build(), text);
    refused(builder().max_retained_bytes(0).build(), "`max_retained_bytes` must be greater than 0");
    let error = builder().max_queued_events(0).build().unwrap_err();
    assert!(matches!(error, BuildError::InvalidSetting(setting) if setting.setting() == "max_queued_events"));
    assert!(builder().heartbeat(None).build().is_ok());
}

#[test]
fn subscription_settings_of_zero_and_no_channels_are_rejected() {
    let publisher = Publisher::new();
    let open = || publisher.subscription(());
    refused(open().channels([""; 0]).open(), "no channels: subscribe to at least one");
    refused(open().heartbeat(Duration::ZERO).open(), "`heartbeat` must be greater than 0, or None");
    refused(open().max_queued_events(0).open(), "`max_queued_events` must be greater than 0");
    refused(open().max_queued_bytes(0).open(), "`max_queued_bytes` must be greater than 0");
    refused(open().max_lifetime(Duration::ZERO).open(), "`max_lifetime` must be greater than 0, or None");
    assert_eq!(publisher.stats().subscribers, 0);
}

#[test]
fn headers_that_forge_others_or_describe_the_stream_are_rejected() {
    let with = |name, value| ResponseHeaders::new().with(name, value);
    let name = |name: &str| format!("invalid header name {name:?}: use letters, digits and !#$%&'*+-.^_`|~");
    refused(with("", "x"), &name(""));
    refused(with("X Y", "x"), &name("X Y"));
    refused(with("X\r\nY", "x"), &name("X\r\nY"));
    refused(with("X:", "x"), &name("X:"));
    for (value, character) in [("a\r\nX: forged", "'\\r'"), ("a\nb", "'\\n'"), ("\0", "'\\0'"), ("ä", "'ä'")] {
        let text = format!(
            "invalid character {character} in the value of header \"X\": use visible ASCII characters, spaces and tabs"
        );
        refused(with("X", value), &text);
    }
    for name in ["content-length", "Transfer-Encoding", "Connection", "Content-Type", "Content-Encoding"] {
        refused(with(name, "x"), &format!("reserved header {name:?}: it describes the event stream itself"));
    }
    assert!(with("Set-Cookie", "a=b; Path=/, \t\"c\"").is_ok());
}

#[test]
fn receive_errors_distinguish_an_empty_queue_from_an_ended_stream() {
    refused(Err::<(), _>(TryRecvError::Empty), "no event is queued");
    refused(Err::<(), _>(TryRecvError::Ended), "the stream has ended");
    refused(Err::<(), _>(RecvTimeoutError::Timeout), "timed out waiting for an event");
    refused(Err::<(), _>(RecvTimeoutError::Ended), "the stream has ended");
    assert!(TryRecvError::Ended.is_ended() && !TryRecvError::Empty.is_ended());
    assert!(RecvTimeoutError::Ended.is_ended() && !RecvTimeoutError::Timeout.is_ended());
}

#[test]
fn only_a_reached_limit_is_a_temporary_error() {
    assert!(OpenError::TooManySubscribers { limit: 1 }.is_temporary());
    assert!(!OpenError::NoChannels.is_temporary());
    assert!(!OpenError::TooManyChannels { given: 2, limit: 1 }.is_temporary());
}
