//! Publishers that wait: in which order they pass, and which publishers they must not delay.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use super::*;
use crate::common::pace::{Pace, keeping_pace};

#[test]
fn a_full_subscriber_stops_only_its_own_publishers() {
    let _watchdog = Watchdog::new("publishers that need not wait");
    let publisher = Publisher::new();
    let mut stalled = slow(&publisher, "slow", 1, LONG);
    publisher.publish_to("slow", "0");
    let waiting = [(); 3].map(|()| publishing(&publisher, ["slow", "fast"], "1"));
    for publishing in &waiting {
        publishing.waits();
    }

    let mut fast = slow(&publisher, "fast", 1, LONG);
    for n in 0..100 {
        assert_eq!(publisher.publish_to("fast", n.to_string()).subscribers(), 1);
        gets_just(&mut fast, [&*n.to_string()]);
    }
    assert_eq!(publisher.stats().subscribers, 2);
    assert_eq!(publisher.channel_stats("slow").queued, 1);
    assert_eq!(publisher.subscriber_properties(["slow", "fast"]).len(), 2);
    assert_eq!(publisher.unsubscribe_if("fast", |()| true), 1);
    ends(&mut fast, EndCause::Unsubscribed);
    let third = slow(&publisher, "fast", 1, LONG);
    let handle = third.handle();
    assert_eq!((handle.join("more"), handle.leave("more"), handle.close()), (Ok(1), 1, true));
    drop((third, publisher.subscribe().unwrap()));
    for publishing in &waiting {
        publishing.waits();
    }
    publisher.close();
    for waiting in waiting {
        assert_eq!(waiting.goes_on(), 0);
    }
    gets_data(&mut stalled, "0");
    ends(&mut stalled, EndCause::Closed);
}

#[test]
fn publishers_that_wait_for_the_same_subscriber_pass_in_order() {
    let publisher = with_frames(1, LONG);
    let mut subscription = publisher.subscribe().unwrap();
    publisher.publish("0");
    let waiting: Vec<Publishing> = (1..=8)
        .map(|n| {
            let waiting = publishing(&publisher, ["default channel"], &n.to_string());
            waiting.waits();
            waiting
        })
        .collect();
    for n in 0..=8 {
        gets_data(&mut subscription, &n.to_string());
    }
    for waiting in waiting {
        assert_eq!(waiting.goes_on(), 1);
    }
    gets_nothing(&mut subscription);
}

#[test]
fn a_small_event_does_not_overtake_a_large_one_that_waits() {
    let publisher = with_queue(usize::MAX, 40, LONG);
    let mut subscription = publisher.subscribe().unwrap();
    publisher.publish("0".repeat(12));
    publisher.publish("1".repeat(2));
    let large = publishing(&publisher, ["default channel"], &"2".repeat(20));
    large.waits();
    // 10 bytes are left: room for this one.
    let small = publishing(&publisher, ["default channel"], "3");
    small.waits();
    gets_data(&mut subscription, &"0".repeat(12));
    assert_eq!(large.goes_on(), 1);
    small.waits();
    gets_data(&mut subscription, "11");
    assert_eq!(small.goes_on(), 1);
    gets_just(&mut subscription, [&*"2".repeat(20), "3"]);
}

#[test]
fn a_publisher_that_waits_for_one_subscriber_does_not_hold_up_another_with_room() {
    let publisher = Publisher::new();
    let mut a = slow(&publisher, "a", 1, LONG);
    let mut b = slow(&publisher, "b", 1, LONG);
    publisher.publish_to("a", "a0");
    let both = publishing(&publisher, ["a", "b"], "both");
    both.waits();
    publisher.publish_to("b", "b0");
    let after = publishing(&publisher, ["b"], "b1");
    after.waits();
    gets_data(&mut a, "a0");
    // Now it waits for the other subscriber, longer than the publisher that waits there.
    both.waits();
    gets_nothing(&mut a);
    assert_eq!(publisher.publish_to("a", "a1").subscribers(), 1);
    gets_just(&mut a, ["a1"]);
    gets_data(&mut b, "b0");
    assert_eq!(both.goes_on(), 2);
    after.waits();
    gets_data(&mut b, "both");
    assert_eq!(after.goes_on(), 1);
    gets_just(&mut a, ["both"]);
    gets_just(&mut b, ["b1"]);
}

#[test]
fn a_publisher_that_gives_up_its_place_lets_the_next_one_go() {
    let publisher = Publisher::new();
    let mut a = slow(&publisher, "a", 1, LONG);
    let b = slow(&publisher, "b", 1, LONG);
    publisher.publish_to(["a", "b"], "0");
    let both = publishing(&publisher, ["a", "b"], "both");
    both.waits();
    let behind = publishing(&publisher, ["a"], "1");
    behind.waits();
    gets_data(&mut a, "0");
    assert_eq!(behind.goes_on(), 1);
    both.waits();
    gets_just(&mut a, ["1"]);
    drop(b);
    assert_eq!(both.goes_on(), 1);
    gets_just(&mut a, ["both"]);
}

#[test]
fn a_publisher_that_waits_for_two_gives_up_its_place_where_room_comes_while_it_looks() {
    let _watchdog = Watchdog::new("a place that was not given up");
    let publisher = Publisher::new();
    for _ in 0..2_000 {
        let mut a = slow(&publisher, "a", 1, LONG);
        let b = slow(&publisher, "b", 1, LONG);
        publisher.publish_to(["a", "b"], "0");
        let both = publishing(&publisher, ["a", "b"], "1");
        gets_data(&mut a, "0");
        // There is room, and the publisher that waits for b must not stand in the way.
        let other = publishing(&publisher, ["a"], "2");
        assert_eq!(other.goes_on(), 1);
        gets_just(&mut a, ["2"]);
        drop(b);
        assert_eq!(both.goes_on(), 1);
    }
}

/// A publisher to two busy subscribers finds one of them full again and again: that is no reason to disconnect either.
#[test]
fn a_subscriber_that_reads_is_not_ended_because_other_publishers_are_quicker() {
    let causes = keeping_pace(Duration::from_millis(50), |patience| {
        let builder = Publisher::builder().max_queued_events(4).overflow(Overflow::Block(patience)).heartbeat(None);
        let publisher = builder.build().unwrap();
        let stops = AtomicBool::new(false);
        thread::scope(|threads| {
            let readers = ["one", "two"].map(|name| {
                let mut subscription = publisher.subscribe_to(name).unwrap();
                let (publisher, stops) = (&publisher, &stops);
                threads.spawn(move || {
                    while !stops.load(SeqCst) {
                        publisher.publish_to(name, "x");
                    }
                });
                threads.spawn(move || {
                    let mut pace = Pace::start();
                    while subscription.recv().is_some() {
                        // The pace is the scenario: slower than the publisher, and never as long as the timeout.
                        thread::sleep(Duration::from_micros(500));
                        pace.step();
                    }
                    (subscription.end_cause(), pace.longest())
                })
            });
            for _ in 0..40 {
                publisher.publish_to(["one", "two"], "both");
            }
            stops.store(true, SeqCst);
            publisher.close();
            let [one, two] = readers.map(|reader| reader.join().unwrap());
            ([one.0, two.0], one.1.max(two.1))
        })
    });
    assert_eq!(causes, [Some(EndCause::Closed); 2]);
}

/// Returns the maximum queue of two slow subscribers of 4 frames each while 8 threads publish to these channels.
fn most_that_waits_while_8_publish_to(channels: &[&str]) -> usize {
    let patience = Duration::from_millis(2);
    let builder = Publisher::builder().max_queued_events(4).overflow(Overflow::Block(patience)).heartbeat(None);
    let publisher = builder.build().unwrap();
    thread::scope(|threads| {
        for name in ["one", "two"] {
            let mut subscription = publisher.subscribe_to(name).unwrap();
            threads.spawn(move || {
                while subscription.recv().is_some() {
                    // The pace is the scenario: slower than 8 threads publish, and faster than the timeout.
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let publishes = || {
            let waits = |_| {
                publisher.publish_to(channels, "x");
                ["one", "two"].map(|name| publisher.channel_stats(name).queued)
            };
            (0..500).flat_map(waits).max().unwrap()
        };
        let publishers: Vec<_> = (0..8).map(|_| threads.spawn(publishes)).collect();
        let most = publishers.into_iter().map(|publisher| publisher.join().unwrap()).max().unwrap();
        publisher.close();
        most
    })
}

#[test]
fn a_slow_reader_never_has_more_queued_than_its_limits() {
    let most = most_that_waits_while_8_publish_to(&["one"]);
    assert!(most <= 4, "{most}");
}

#[test]
fn each_publisher_that_waits_for_several_exceeds_the_limits_by_at_most_one() {
    let most = most_that_waits_while_8_publish_to(&["one", "two"]);
    assert!(most <= 4 + 8, "{most}");
}
