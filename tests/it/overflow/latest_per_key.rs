//! `LatestPerKey`: only the newest event of each key is queued.

use super::*;
use crate::common::{ends, parsed};
use server_sent_events::{EndCause, History};

#[test]
fn of_one_key_only_the_newest_waits_at_the_end() {
    let publisher = with_frames(10, Overflow::LatestPerKey);
    let mut subscription = publisher.subscribe().unwrap();
    publisher.publish(keyed("a1", "a"));
    publisher.publish("x");
    publisher.publish(keyed("b1", "b"));
    publisher.publish(keyed("a2", "a"));
    publisher.publish("x");
    publisher.publish(keyed("a3", "a"));
    assert_eq!(publisher.channel_stats("default channel").queued, 4);
    gets_just(&mut subscription, ["x", "b1", "x", "a3"]);
    assert_eq!(counts(&publisher), [6, 4, 0, 2]);
    publisher.publish(keyed("a4", "a"));
    gets_just(&mut subscription, ["a4"]);
}

#[test]
fn the_keys_of_one_channel_replace_nothing_of_another() {
    let publisher = with_frames(10, Overflow::LatestPerKey);
    let mut subscription = publisher.subscribe_to(["a", "b"]).unwrap();
    for n in 0..3 {
        publisher.publish_to("a", keyed(&format!("a{n}"), "k"));
        publisher.publish_to("b", keyed(&format!("b{n}"), "k"));
        subscription.handle().send(keyed(&format!("sent {n}"), "k"));
    }
    gets_just(&mut subscription, ["a2", "b2", "sent 2"]);
}

#[test]
fn an_event_to_several_channels_counts_under_the_first_that_the_subscriber_is_in() {
    let publisher = with_frames(10, Overflow::LatestPerKey);
    let mut of_both = publisher.subscribe_to(["a", "b"]).unwrap();
    let mut of_b = publisher.subscribe_to("b").unwrap();
    publisher.publish_to(["a", "b"], keyed("to both", "k"));
    publisher.publish_to("b", keyed("to b", "k"));
    // For the one it was an event of "a", for the other one of "b".
    gets_just(&mut of_both, ["to both", "to b"]);
    gets_just(&mut of_b, ["to b"]);
    publisher.publish_to(["a", "b"], keyed("to both", "k"));
    publisher.publish_to(["b", "a"], keyed("to b and a", "k"));
    publisher.publish_to("a", keyed("to a", "k"));
    gets_just(&mut of_both, ["to b and a", "to a"]);
    gets_just(&mut of_b, ["to b and a"]);
}

#[test]
fn an_event_that_was_taken_is_no_longer_replaced() {
    let publisher = with_frames(10, Overflow::LatestPerKey);
    let mut subscription = publisher.subscribe().unwrap();
    for n in 0..100 {
        publisher.publish(keyed(&n.to_string(), "a"));
        gets_just(&mut subscription, [&*n.to_string()]);
    }
    assert_eq!(counts(&publisher), [100, 100, 0, 0]);
}

#[test]
fn a_full_queue_takes_a_newer_event_of_a_key_and_ends_with_any_other() {
    let publisher = with_frames(2, Overflow::LatestPerKey);
    let mut subscription = publisher.subscribe().unwrap();
    for n in 0..10 {
        assert_eq!(publisher.publish(keyed(&format!("a{n}"), "a")).subscribers(), 1);
        assert_eq!(publisher.publish(keyed(&format!("b{n}"), "b")).subscribers(), 1);
    }
    gets_data(&mut subscription, "a9");
    publisher.publish("x");
    assert_eq!(publisher.publish("y").subscribers(), 0);
    ends(&mut subscription, EndCause::QueueFull);
}

#[test]
fn a_newer_event_that_is_too_large_ends_the_stream() {
    // Two frames of 15 bytes, and a key of one.
    let publisher = with_queue(usize::MAX, 31, Overflow::LatestPerKey);
    let mut subscription = publisher.subscribe().unwrap();
    publisher.publish(keyed("0123456", "a"));
    publisher.publish("0123456");
    assert_eq!(publisher.publish(keyed("1234567", "a")).subscribers(), 1);
    assert_eq!(publisher.publish(keyed("12345678", "a")).subscribers(), 0);
    ends(&mut subscription, EndCause::QueueFull);
}

/// Keys can be of any length, and occupy memory too.
#[test]
fn keys_count_towards_the_queued_bytes() {
    let publisher = with_queue(usize::MAX, 10_000, Overflow::LatestPerKey);
    let mut subscription = publisher.subscribe().unwrap();
    for n in 0..20 {
        publisher.publish(keyed("x", &format!("{n}{}", "k".repeat(1_000))));
    }
    ends(&mut subscription, EndCause::QueueFull);
}

#[test]
fn a_key_means_nothing_to_the_other_policies() {
    for overflow in [Overflow::Disconnect, Overflow::DropOldest, LONG] {
        let publisher = with_frames(10, overflow);
        let mut subscription = publisher.subscribe().unwrap();
        for n in 0..3 {
            publisher.publish(keyed(&n.to_string(), "a"));
        }
        gets_just(&mut subscription, ["0", "1", "2"]);
    }
}

#[test]
fn a_history_keeps_events_that_the_queue_replaced() {
    let publisher = Publisher::builder().history(History::new()).overflow(Overflow::LatestPerKey).build().unwrap();
    let id = publisher.last_event_id();
    let subscription = publisher.subscribe().unwrap();
    for n in 0..3 {
        publisher.publish(keyed(&n.to_string(), "a"));
    }
    let resumed = publisher.subscription(()).last_event_id(id).open().unwrap();
    publisher.close();
    let data = |subscription: Subscription| {
        let events = parsed(&subscription.collect::<String>()).into_iter();
        events.map(|event| event.data).collect::<Vec<_>>()
    };
    assert_eq!(data(subscription), ["2"]);
    assert_eq!(data(resumed), ["0", "1", "2"]);
}
