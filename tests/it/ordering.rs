//! All subscribers see all events, whole, in one order.

use std::thread;

use crate::common::{Watchdog, subscriber};
use server_sent_events::{Publisher, Subscription};

const PUBLISHERS: usize = 4;
const EVENTS: usize = 40_000;
const SUBSCRIBERS: usize = 8;
/// The maximum lead of the publishers over the slowest subscriber, so that all keep up.
const AHEAD: usize = 500;

/// Seen in a Python library: the lines of two events interleave.
#[test]
fn events_of_several_threads_stay_whole_and_in_one_order() {
    let _watchdog = Watchdog::new("4 publishers and 8 subscribers");
    let publisher = Publisher::new();
    let subscriptions: [Subscription; SUBSCRIBERS] = [(); SUBSCRIBERS].map(|()| publisher.subscribe().unwrap());
    // Each subscriber returns a token for each event it took. Publishing an event takes one token of each subscriber.
    let (taken, tokens): (Vec<_>, Vec<_>) =
        subscriptions.iter().map(|_| crossbeam_channel::bounded::<()>(AHEAD + PUBLISHERS)).unzip();
    for taken in &taken {
        for _ in 0..AHEAD {
            taken.send(()).unwrap();
        }
    }

    let orders: Vec<Vec<(usize, usize)>> = thread::scope(|threads| {
        let readers: Vec<_> = subscriptions
            .into_iter()
            .zip(taken)
            .map(|(subscription, taken)| {
                threads.spawn(move || {
                    let order = |frame: String| {
                        let _ = taken.send(());
                        whole(&frame)
                    };
                    subscription.take(EVENTS).map(order).collect()
                })
            })
            .collect();
        for thread in 0..PUBLISHERS {
            let (publisher, tokens) = (&publisher, &tokens);
            threads.spawn(move || {
                for n in 0..EVENTS / PUBLISHERS {
                    for tokens in tokens {
                        tokens.recv().unwrap();
                    }
                    let receipt = publisher.publish(format!("{thread}\n{n}\r\n{thread} {n}"));
                    assert_eq!(receipt.subscribers(), SUBSCRIBERS);
                }
            });
        }
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });

    let first = &orders[0];
    assert_eq!(first.len(), EVENTS);
    for order in &orders {
        assert!(order == first, "two subscribers saw two orders");
    }
    for thread in 0..PUBLISHERS {
        let of_thread = first.iter().filter(|(by, _)| *by == thread).map(|(_, n)| *n);
        assert!(of_thread.eq(0..EVENTS / PUBLISHERS), "what one thread published changed its order");
    }
}

/// Returns the event's publisher and number, if all its lines are there and belong to one event.
#[track_caller]
fn whole(frame: &str) -> (usize, usize) {
    let lines: Vec<&str> = frame.lines().map(|line| line.trim_start_matches("data: ")).collect();
    let [thread, n, both, ""] = lines[..] else { panic!("not a whole event: {frame:?}") };
    assert_eq!(both, format!("{thread} {n}"));
    (thread.parse().unwrap(), n.parse().unwrap())
}

#[test]
fn events_of_two_channels_come_in_one_order() {
    let publisher = Publisher::builder().max_queued_events(10_000).build().unwrap();
    let mut both = [(); 2].map(|()| subscriber(&publisher, ["a", "b"]));
    thread::scope(|threads| {
        for channel in ["a", "b"] {
            let publisher = &publisher;
            threads.spawn(move || {
                for n in 0..5_000 {
                    publisher.publish_to(channel, format!("{channel}{n}"));
                }
            });
        }
    });
    publisher.close();
    let [one, two] = both.each_mut().map(|subscription| subscription.collect::<Vec<_>>());
    assert_eq!(one.len(), 10_000);
    assert_eq!(one, two);
}
