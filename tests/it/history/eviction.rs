//! What a history evicts, and how it remembers that.

use super::*;

/// Seen in Mercure: an unlimited history looks like a memory leak.
#[test]
fn a_history_is_limited_by_default() {
    let publisher = with(History::new());
    for n in 0..10_000 {
        publisher.publish(n.to_string());
    }
    let history = publisher.stats().history;
    assert_eq!((history.events, history.channels), (8_192, 1));
    assert!(history.bytes < 64 * 1024 * 1024);
}

#[test]
fn the_limit_of_bytes_spans_all_channels_and_evicts_the_oldest_event_first() {
    let publisher = with(History::new().max_bytes(10_000));
    let start = publisher.last_event_id().unwrap();
    publisher.publish_to("a", "the oldest");
    let id = publisher.publish_to("b", "x".repeat(4_000)).id().unwrap().to_owned();
    publisher.publish_to("b", "y".repeat(5_000));
    assert!(publisher.stats().history.bytes <= 10_000);
    assert_eq!(replay(&publisher, ["a"], start), ["GAP"]);
    assert_eq!(replay(&publisher, ["b"], id), ["y".repeat(5_000)]);
    // An event larger than the limit: it is not kept, and a client from before it gets a gap.
    let before = publisher.last_event_id().unwrap();
    publisher.publish_to("b", "z".repeat(20_000));
    assert_eq!(publisher.stats().history.events, 0);
    assert_eq!(replay(&publisher, ["b"], before), ["GAP"]);
}

#[test]
fn age_is_measured_by_the_clock_that_is_passed_in() {
    let now = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&now);
    let publisher =
        with(History::new().max_age(Duration::from_secs(10)).clock(move || Duration::from_secs(clock.load(SeqCst))));
    let start = publisher.last_event_id().unwrap();
    publisher.publish("1");
    now.store(5, SeqCst);
    let id = publisher.publish("2").id().unwrap().to_owned();
    publisher.publish("3");
    now.store(10, SeqCst);
    assert_eq!(replay(&publisher, ["default channel"], start.clone()), ["1", "2", "3"]);
    now.store(11, SeqCst);
    assert_eq!(replay(&publisher, ["default channel"], start.clone()), ["GAP", "2", "3"]);
    assert_eq!(replay(&publisher, ["default channel"], id.clone()), ["3"]);
    now.store(100, SeqCst);
    assert_eq!(replay(&publisher, ["default channel"], id), ["GAP"]);
    assert_eq!(publisher.stats().history.events, 0);
}

/// Returns a history of events that are at most 10 s old, and its clock, in seconds.
fn ageing(max_bytes: usize) -> (Publisher, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&now);
    let history = History::new().max_age(Duration::from_secs(10)).max_bytes(max_bytes);
    (with(history.clock(move || Duration::from_secs(clock.load(SeqCst)))), now)
}

#[test]
fn a_channel_that_was_empty_meanwhile_still_reports_evicted_events() {
    let (publisher, now) = ageing(1_000_000);
    let start = publisher.last_event_id().unwrap();
    publisher.publish_to("a", "1");
    let first = publisher.last_event_id().unwrap();
    now.store(100, SeqCst);
    // A client subscribes, which evicts the expired event; the channel is empty.
    assert_eq!(replay(&publisher, ["a"], start.clone()), ["GAP"]);
    assert_eq!(publisher.stats().history.channels, 0);
    publisher.publish_to("a", "2");
    assert_eq!(replay(&publisher, ["a"], start), ["GAP", "2"]);
    assert_eq!(replay(&publisher, ["a"], first), ["2"]);
}

#[test]
fn events_evicted_with_a_forgotten_channel_are_still_reported() {
    // Room for a record of about 30 channels without an event.
    let (publisher, now) = ageing(100_000);
    let start = publisher.last_event_id().unwrap();
    let channel = |n: usize| format!("channel {n}");
    for n in 0..100 {
        publisher.publish_to(channel(n), "x");
    }
    let end = publisher.last_event_id().unwrap();
    now.store(100, SeqCst);
    for n in 0..100 {
        assert_eq!(replay(&publisher, [&*channel(n)], start.clone()), ["GAP"], "{n}");
        assert_eq!(replay(&publisher, [&*channel(n)], end.clone()), [""; 0], "{n}");
    }
    // It may err towards a gap: it no longer knows that nothing was published here.
    assert_eq!(replay(&publisher, ["never published to"], start), ["GAP"]);
}

#[test]
fn an_event_that_another_channel_still_has_is_no_gap() {
    let publisher = with(History::new().max_events_per_channel(2));
    let start = publisher.last_event_id().unwrap();
    publisher.publish_to(["busy", "quiet"], "both");
    for n in 1..=3 {
        publisher.publish_to("busy", n.to_string());
        if n < 3 {
            assert_eq!(replay(&publisher, ["busy"], start.clone()).first().unwrap(), "both");
        }
    }
    // "busy" has evicted 1, and with it what is older.
    assert_eq!(replay(&publisher, ["busy"], start.clone()), ["GAP", "2", "3"]);
    assert_eq!(replay(&publisher, ["busy", "quiet"], start.clone()), ["GAP", "both", "2", "3"]);
    assert_eq!(replay(&publisher, ["quiet"], start), ["both"]);
}

#[test]
fn a_channel_keeps_an_event_until_no_channel_has_room_for_it() {
    let publisher = with(History::new().max_events_per_channel(2));
    let start = publisher.last_event_id().unwrap();
    for n in 1..=4 {
        publisher.publish_to(["a", "b"], n.to_string());
    }
    let (third, after_4) = (replay(&publisher, ["a"], start.clone()), publisher.last_event_id().unwrap());
    assert_eq!(third, ["GAP", "3", "4"]);
    // "a" has room for two of them, and "b" for all.
    publisher.publish_to("a", "5");
    publisher.publish_to("a", "6");
    publisher.publish_to(["a", "c"], "7");
    publisher.publish_to("b", "8");
    publisher.publish_to("b", "9");
    assert_eq!(replay(&publisher, ["a", "b", "c"], start), ["GAP", "6", "7", "8", "9"]);
    assert_eq!(replay(&publisher, ["a", "b", "c"], after_4), ["GAP", "6", "7", "8", "9"]);
    assert_eq!(publisher.stats().history.events, 4);
}

#[test]
fn an_event_to_no_channel_is_not_kept() {
    let publisher = with(History::new().max_bytes(2_000));
    for _ in 0..10 {
        publisher.publish_to([""; 0], "x".repeat(300));
        publisher.publish_to("a", "x".repeat(300));
    }
    assert!(publisher.stats().history.events < 4);
}
