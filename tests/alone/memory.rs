//! Subscribers, channels and events that are gone leave no memory behind.
//!
//! The harness starts no thread for the test: such a thread allocates about a kilobyte at any time.

use crate::allocated::allocated;
use crate::own_process::own_process;
use server_sent_events::{Event, Publisher};

#[test]
fn what_came_and_went_leaves_the_memory_where_it_was() {
    own_process!();
    let publisher = Publisher::new();
    // What threads and statics allocate once.
    drop(publisher.subscribe().unwrap().try_recv());
    let start = allocated();
    let held = || allocated() as isize - start as isize;

    // 100,000 channels, 100 at a time, each with an event that is never received.
    for round in 0..1_000 {
        let names = (0..100).map(|n| format!("channel {}", round * 100 + n)).collect::<Vec<_>>();
        let subscriptions: Vec<_> = names.chunks(50).map(|names| publisher.subscribe_to(names).unwrap()).collect();
        assert_eq!(publisher.stats().channels, 100);
        publisher.publish_to(&names, "x");
        drop(subscriptions);
    }
    assert_eq!(publisher.stats().channels, 0);
    assert!(held().abs() < 1_000, "channels left {} bytes", held());

    // All at once.
    let all: Vec<_> = (0..2_000)
        .map(|n| publisher.subscription(()).channels((0..50).map(|m| format!("{n} {m}"))).open().unwrap())
        .collect();
    assert_eq!(publisher.stats().channels, 100_000);
    drop(all);
    assert!(held().abs() < 1_000, "100,000 channels at once left {} bytes", held());

    // A subscriber that never reads, more than once over its limit; its subscription still exists.
    let stalled = publisher.subscribe().unwrap();
    let with_one = held();
    for _ in 0..10_000 {
        publisher.publish("x".repeat(900));
        publisher.publish_with("default channel", |()| Some(Event::new("y")));
    }
    assert_eq!(publisher.stats().ended.queue_full, 1);
    assert!(held() - with_one < 2_000, "a stalled subscriber holds {} bytes", held() - with_one);
    drop(stalled);
    assert!(held().abs() < 1_000, "a stalled subscriber left {} bytes", held());

    // A subscriber that has had an event: the queue's first block of 31 payloads, and the entry itself.
    let mut quiet = publisher.subscribe().unwrap();
    publisher.publish("x");
    assert!(quiet.try_recv().is_ok());
    assert!(held() < 2_500, "one quiet subscriber holds {} bytes", held());
}
