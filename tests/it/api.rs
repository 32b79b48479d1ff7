//! What the public types support apart from their task: crossing threads, and being printed.

use std::collections::HashSet;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use server_sent_events::*;

fn sends<T: Send>() {}
fn shares<T: Send + Sync + Debug>() {}

#[test]
fn public_types_can_cross_threads() {
    /// Neither printable nor clonable: properties need no more than the required traits.
    struct Properties(#[allow(dead_code)] std::sync::Mutex<u8>);

    shares::<Publisher>();
    shares::<Publisher<Properties>>();
    shares::<PublisherBuilder<Properties>>();
    shares::<WeakPublisher<Properties>>();
    shares::<Subscription>();
    shares::<Event>();
    shares::<Frame>();
    shares::<Receipt>();
    shares::<Opened<'_, Properties>>();
    shares::<Ended<'_, Properties>>();
    shares::<Overflow>();
    shares::<ParseOverflowError>();
    shares::<Stats>();
    shares::<EndCause>();
    shares::<ResponseHeaders>();
    shares::<History>();
    shares::<Resumption>();
    sends::<BackgroundOptions>();
    shares::<EventError>();
    shares::<OpenError>();
    shares::<InvalidSetting>();
    shares::<BuildError>();
    shares::<StoreError>();
    shares::<PublishError>();
    shares::<UnknownTransform>();
    #[cfg(feature = "sqlite")]
    shares::<store::HistoryStore>();
    #[cfg(feature = "sqlite")]
    shares::<store::Sqlite>();
    shares::<store::StoreState>();
    shares::<HeaderError>();
    shares::<TryRecvError>();
    shares::<RecvTimeoutError>();
    sends::<std::iter::Take<Subscription>>();
    #[cfg(feature = "tiny_http")]
    {
        shares::<adapter::tiny_http::Server>();
        shares::<adapter::tiny_http::StopHandle>();
    }
    #[cfg(feature = "server")]
    {
        shares::<server::RunningServer>();
        shares::<server::StopHandle>();
    }
}

#[test]
fn debug_output_is_short_and_useful() {
    let publisher = Publisher::new();
    let subscription = publisher.subscribe().unwrap();
    publisher.publish("hello");
    assert_eq!(format!("{publisher:?}"), "Publisher { subscribers: 1, channels: 1, .. }");
    assert_eq!(format!("{subscription:?}"), "Subscription { id: 1, queued: 1, ended: None, .. }");
    assert_eq!(format!("{:?}", publisher.downgrade()), "WeakPublisher { .. }");
    assert_eq!(format!("{:?}", Event::new("x").encode()), "\"data: x\\n\\n\"");
    assert_eq!(Event::new("x").encode().to_string(), "data: x\n\n");
}

#[test]
fn a_frame_is_the_text_it_carries() {
    let frame = Event::new("x").encode();
    assert_eq!(frame, "data: x\n\n");
    assert_eq!(frame, *"data: x\n\n");
    assert_eq!(String::from(frame.clone()), "data: x\n\n");
    assert_eq!(AsRef::<[u8]>::as_ref(&frame), b"data: x\n\n");
    assert_eq!(frame.len(), 9);
    assert!(HashSet::from([frame]).contains("data: x\n\n"), "a set finds it by its text");
}

#[test]
fn an_event_returns_what_was_set() {
    let event = Event::new("a\r\nb").event("progress").unwrap().id("7").unwrap().key("job 7");
    let event = event.retry(Duration::from_micros(1_500)).unwrap();
    assert_eq!((event.data(), event.event_type()), (Some("a\r\nb"), Some("progress")));
    assert_eq!((event.event_id(), event.event_key()), (Some("7"), Some("job 7")));
    assert_eq!(event.retry_time(), Some(Duration::from_millis(2)), "as it is sent: in milliseconds, rounded up");
    let comment = Event::comment("still here");
    assert_eq!((comment.comment_text(), comment.data()), (Some("still here"), None));
    let plain = Event::from("x");
    assert_eq!((plain.event_type(), plain.event_id(), plain.event_key()), (None, None, None));
    assert_eq!((plain.retry_time(), plain.comment_text()), (None, None));
    assert_eq!(plain, Event::new(String::from("x")));
    assert_ne!(plain, Event::new("x").key("job 7"), "the key counts, although it is not sent");
}

#[test]
fn an_overflow_policy_is_read_as_it_was_written() {
    let block = |time| Overflow::Block(time);
    for (policy, text) in [
        (Overflow::Disconnect, "disconnect"),
        (Overflow::DropOldest, "drop-oldest"),
        (Overflow::LatestPerKey, "latest-per-key"),
        (block(Duration::ZERO), "block:0s"),
        (block(Duration::from_secs(5)), "block:5s"),
        (block(Duration::from_millis(1_500)), "block:1500ms"),
        (block(Duration::from_micros(1)), "block:1us"),
        (block(Duration::from_nanos(1_001)), "block:1001ns"),
        (block(Duration::from_secs(u64::MAX)), "block:18446744073709551615s"),
        (block(Duration::MAX), "block:18446744073709551615999999999ns"),
    ] {
        assert_eq!(policy.to_string(), text);
        assert_eq!(text.parse(), Ok(policy));
    }
}

#[test]
fn an_unknown_overflow_policy_is_rejected_with_the_known_ones() {
    let error = |text: &str| text.parse::<Overflow>().unwrap_err().to_string();
    for text in ["", "Disconnect", "drop_oldest", " disconnect", "block", "block 5s"] {
        let allowed = "use disconnect, drop-oldest, latest-per-key, or block:TIME such as block:5s";
        assert_eq!(error(text), format!("unknown overflow policy {text:?}: {allowed}"));
    }
    for time in ["", "5", "s", "5m", "5 s", "1.5s", "-5s", "+5s", "18446744073709551616s", &"9".repeat(60)] {
        let allowed = "use a whole number of s, ms, us or ns, such as 5s";
        assert_eq!(error(&format!("block:{time}")), format!("invalid time {time:?} after \"block:\": {allowed}"));
    }
}

#[test]
fn an_end_cause_is_a_few_words() {
    for (cause, words) in [
        (EndCause::Closed, "closed"),
        (EndCause::Unsubscribed, "unsubscribed"),
        (EndCause::QueueFull, "queue full"),
        (EndCause::ConnectionLost(io::ErrorKind::BrokenPipe), "connection lost: broken pipe"),
        (EndCause::WriteTimedOut, "write timed out"),
        (EndCause::Dropped, "dropped"),
        (EndCause::Disconnected, "disconnected"),
        (EndCause::Expired, "lifetime expired"),
        (EndCause::Replaced, "replaced"),
    ] {
        assert_eq!(cause.to_string(), words);
    }
}

#[test]
fn an_open_error_becomes_an_io_error_that_holds_it() {
    let kinds = [
        (OpenError::TooManySubscribers { limit: 1 }, io::ErrorKind::QuotaExceeded),
        (OpenError::TooManyInChannel { channel: "a".into(), limit: 1 }, io::ErrorKind::QuotaExceeded),
        (OpenError::TooManyPerQuotaKey { key: "a".into(), limit: 1 }, io::ErrorKind::QuotaExceeded),
        (OpenError::ShuttingDown, io::ErrorKind::Other),
        (OpenError::NoChannels, io::ErrorKind::InvalidInput),
    ];
    for (error, kind) in kinds {
        let converted = io::Error::from(error.clone());
        assert_eq!((converted.kind(), converted.to_string()), (kind, error.to_string()));
        assert_eq!(converted.downcast::<OpenError>().unwrap(), error);
    }
    let zero = Publisher::builder().max_subscribers(0).build().unwrap_err();
    assert_eq!(io::Error::from(zero).kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_last_event_id_may_be_any_text_or_an_option_of_one() {
    fn begins(last_event_id: impl LastEventId, publisher: &Publisher) -> Resumption {
        publisher.subscription(()).last_event_id(last_event_id).open().unwrap().resumption()
    }
    let publisher = Publisher::builder().history(History::new()).build().unwrap();
    let id = publisher.last_event_id().unwrap();
    for resumption in [
        begins(&*id, &publisher),
        begins(&id, &publisher),
        begins(id.clone(), &publisher),
        begins(Arc::<str>::from(&*id), &publisher),
        begins(std::borrow::Cow::from(&*id), &publisher),
        begins(Some(&*id), &publisher),
        begins(Some(&id), &publisher),
        begins(Some(id.clone()), &publisher),
    ] {
        assert_eq!(resumption, Resumption::Complete);
    }
    assert_eq!(begins(None::<&str>, &publisher), Resumption::NotRequested);
    assert_eq!(begins(None::<String>, &publisher), Resumption::NotRequested);
}

#[cfg(feature = "serde")]
#[test]
fn statistics_are_serialized_by_the_names_of_their_fields() {
    let publisher = Publisher::builder().history(History::new()).build().unwrap();
    let _subscription = publisher.subscribe().unwrap();
    publisher.publish("hello");
    let stats = serde_json::to_value(publisher.stats()).unwrap();
    assert_eq!((&stats["subscribers"], &stats["events_queued"]), (&1.into(), &1.into()));
    assert_eq!((&stats["ended"]["queue_full"], &stats["history"]["events"]), (&0.into(), &1.into()));
    let channel = serde_json::to_value(publisher.channel_stats("default channel")).unwrap();
    assert_eq!(channel, serde_json::json!({ "subscribers": 1, "queued": 1, "history_events": 1 }));
}

#[test]
fn a_subscription_works_with_iterator_adapters() {
    let publisher = Publisher::new();
    let subscription = publisher.subscription(()).initial_data(["1", "2", "3"]).open().unwrap();
    let data: Vec<String> = subscription.take(2).map(|frame| frame.to_uppercase()).collect();
    assert_eq!(data, ["DATA: 1\n\n", "DATA: 2\n\n"]);
    assert_eq!(publisher.stats().subscribers, 0, "`take` dropped it");
}
