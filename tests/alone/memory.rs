//! Subscribers, channels and events that are gone leave no memory behind.
//!
//! The harness starts no thread for the test: such a thread allocates about a kilobyte at any time.

use crate::allocated::allocated;
use crate::common::eventually;
use crate::common::writers::{Gate, Kept};
use crate::own_process::own_process;
use server_sent_events::{Event, Overflow, Publisher};

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

#[test]
fn streams_that_wait_to_be_woken_take_no_room_for_those_that_need_not_be() {
    const GROUPS: usize = 200;

    own_process!();
    let publisher = Publisher::builder()
        .max_subscribers(usize::MAX)
        .max_subscribers_per_channel(usize::MAX)
        .max_queued_events(1)
        .overflow(Overflow::DropOldest)
        .max_writer_threads(1)
        .heartbeat(None)
        .build()
        .unwrap();
    // They have an event, and do not read it.
    let unread: Vec<_> = (0..10_000).map(|_| publisher.subscribe_to("all").unwrap()).collect();
    publisher.publish_to("all", "x");
    let streams: Vec<_> = (0..GROUPS)
        .flat_map(|group| (0..20).map(move |_| group))
        .map(|group| {
            let written = Kept::default();
            publisher.subscribe_to(format!("group {group}")).unwrap().write_in_background(written.clone()).unwrap();
            written
        })
        .collect();
    for group in 0..GROUPS {
        publisher.publish_to(format!("group {group}"), "x");
    }
    for (n, stream) in streams.iter().enumerate() {
        eventually(&format!("stream {n} begins"), || !stream.text().is_empty());
    }
    let gate = Gate::default();
    publisher.subscribe_to("gate").unwrap().write_in_background(gate.clone()).unwrap();
    publisher.publish_to("gate", "x");
    eventually("the writer thread is blocked", || gate.has_begun());
    let start = allocated();
    for group in 0..GROUPS {
        publisher.publish_to(["all".into(), format!("group {group}")], "y");
    }
    let held = allocated().saturating_sub(start);
    gate.open();
    for stream in &streams {
        eventually("each stream is written", || stream.text().contains("data: y"));
    }
    drop(unread);
    // Each stream has an event in its queue, and its place in a list of those to wake.
    assert!(held < GROUPS * 20 * 200, "{held} bytes");
}
