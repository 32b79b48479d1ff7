//! A slow subscriber is disconnected at once, costs a bounded amount of memory, and delays no other subscriber.

use std::sync::Arc;
use std::thread;

use crate::common::{Watchdog, ends, gets_data, gets_nothing};
use server_sent_events::{EndCause, Event, Publisher};

fn with_queue(frames: usize, bytes: usize) -> Publisher {
    Publisher::builder().max_queued_events(frames).max_queued_bytes(bytes).build().unwrap()
}

#[test]
fn a_queue_holds_as_many_events_as_its_limit() {
    let publisher = with_queue(3, usize::MAX);
    let mut subscription = publisher.subscribe().unwrap();
    for n in 1..=3 {
        assert_eq!(publisher.publish(n.to_string()).subscribers(), 1);
    }
    for n in 1..=3 {
        gets_data(&mut subscription, &n.to_string());
    }
    gets_nothing(&mut subscription);
}

#[test]
fn one_event_more_ends_the_stream_and_discards_its_queue() {
    let publisher = with_queue(3, usize::MAX);
    let mut subscription = publisher.subscribe().unwrap();
    for n in 1..=3 {
        publisher.publish(n.to_string());
    }
    assert_eq!(publisher.publish("4").subscribers(), 0);
    assert_eq!(publisher.subscriber_properties("default channel").len(), 0);
    ends(&mut subscription, EndCause::QueueFull);
    let stats = publisher.stats();
    assert_eq!((stats.events_published, stats.events_queued, stats.ended.queue_full), (4, 3, 1));
}

#[test]
fn taking_makes_room() {
    let publisher = with_queue(2, 64);
    let mut subscription = publisher.subscribe().unwrap();
    for n in 0..1_000 {
        publisher.publish(n.to_string());
        gets_data(&mut subscription, &n.to_string());
    }
    publisher.publish("a".repeat(16));
    publisher.publish("b".repeat(16));
    gets_data(&mut subscription, &"a".repeat(16));
    gets_data(&mut subscription, &"b".repeat(16));
}

#[test]
fn queued_bytes_are_limited() {
    // Each frame is "data: ", ten letters and two line feeds: 18 bytes.
    let publisher = with_queue(usize::MAX, 36);
    let mut subscription = publisher.subscribe().unwrap();
    assert_eq!(publisher.publish("0123456789").subscribers(), 1);
    assert_eq!(publisher.publish("0123456789").subscribers(), 1);
    assert_eq!(publisher.publish("").subscribers(), 0);
    ends(&mut subscription, EndCause::QueueFull);
}

#[test]
fn an_event_larger_than_the_limit_does_not_end_a_subscriber_that_keeps_up() {
    let publisher = with_queue(10, 100);
    let mut subscription = publisher.subscribe().unwrap();
    let large = "x".repeat(10_000);
    for _ in 0..10 {
        assert_eq!(publisher.publish(&large).subscribers(), 1);
        gets_data(&mut subscription, &large);
    }
    publisher.publish("small");
    assert_eq!(publisher.publish(&large).subscribers(), 0);
    ends(&mut subscription, EndCause::QueueFull);
}

#[test]
fn closures_count_as_events() {
    let publisher = with_queue(2, usize::MAX);
    let mut subscription = publisher.subscribe().unwrap();
    let publish = || publisher.publish_with("default channel", |()| Some(Event::new("x"))).subscribers();
    assert_eq!((publish(), publish(), publish()), (1, 1, 0));
    ends(&mut subscription, EndCause::QueueFull);
}

#[test]
fn the_default_limits_are_1024_events_and_1_mib() {
    let publisher = Publisher::new();
    let mut by_frames = publisher.subscribe().unwrap();
    for _ in 0..1_024 {
        assert_eq!(publisher.publish("x").subscribers(), 1);
    }
    assert_eq!(publisher.publish("x").subscribers(), 0);
    ends(&mut by_frames, EndCause::QueueFull);

    let mut by_bytes = publisher.subscribe().unwrap();
    let kibibyte = "x".repeat(1024 - "data: \n\n".len());
    let queued = (0..1_024).map(|_| publisher.publish(&kibibyte).subscribers()).sum::<usize>();
    assert_eq!(queued, 1_024);
    assert!(by_bytes.try_recv().is_ok());
    assert_eq!(publisher.publish(kibibyte + "x").subscribers(), 0);
    ends(&mut by_bytes, EndCause::QueueFull);
}

/// Seen in go-sse and r3labs/sse: it stops them.
#[test]
fn a_slow_client_stops_neither_the_others_nor_the_publisher() {
    let publisher = Publisher::new();
    let _slow = publisher.subscribe().unwrap();
    let mut healthy = publisher.subscribe().unwrap();
    for n in 0..10_000 {
        publisher.publish(n.to_string());
        gets_data(&mut healthy, &n.to_string());
    }
    assert_eq!(publisher.stats().ended.queue_full, 1);
}

/// Seen in Spring, Afire and better-sse: the queue of a dead client grows without a limit.
#[test]
fn the_queue_of_a_dead_client_is_limited_and_emptied_at_once() {
    let publisher = with_queue(100, usize::MAX);
    // Alive but never read, like a subscription on a thread that is blocked in a write.
    let subscription = publisher.subscribe().unwrap();
    let capture = Arc::new(());
    for _ in 0..100 {
        let captured = Arc::clone(&capture);
        publisher.publish_with("default channel", move |()| {
            let _captured = &captured;
            None
        });
    }
    assert_eq!(Arc::strong_count(&capture), 101);
    publisher.publish("one more");
    assert_eq!(Arc::strong_count(&capture), 1, "the queue was not emptied at once");
    assert_eq!(subscription.end_cause(), None, "its next frame has not been requested yet");
}

#[test]
fn a_reader_that_is_ended_has_missed_nothing_before_its_end() {
    let _watchdog = Watchdog::new("readers that are too slow");
    let (mut rounds, mut ended) = (0, 0);
    // As often as it takes until some readers were too slow.
    while rounds < 500 || ended < 50 {
        rounds += 1;
        let publisher = with_queue(8, usize::MAX);
        let subscription = publisher.subscribe().unwrap();
        let reader = thread::spawn(move || {
            for (n, frame) in subscription.enumerate() {
                assert_eq!(frame, format!("data: {n}\n\n"));
            }
        });
        // Faster than the reader, sooner or later: the reader receives while the queue is discarded.
        let mut published = 0..1_000;
        while published.next().is_some_and(|n| publisher.publish(n.to_string()).subscribers() == 1) {}
        publisher.close();
        reader.join().unwrap();
        ended += publisher.stats().ended.queue_full;
    }
}

#[test]
fn initial_data_that_was_not_taken_is_discarded_with_the_queue() {
    let publisher = with_queue(1, usize::MAX);
    let mut subscription = publisher.subscription(()).initial_data(["1", "2"]).open().unwrap();
    gets_data(&mut subscription, "1");
    publisher.publish("3");
    publisher.publish("4");
    ends(&mut subscription, EndCause::QueueFull);
}
