//! Everything at once from 8 threads: no deadlock, no panic, no lost wake-up, nothing out of order.
//!
//! `STRESS_ROUNDS` makes the test longer or shorter; the default is for everyday use.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::common::{Watchdog, seed};
use fastrand::Rng;
use server_sent_events::{Event, Publisher, Subscription};

const CHANNELS: [&str; 3] = ["a", "b", "c"];

fn some_channels(rng: &mut Rng) -> Vec<&'static str> {
    let count = 1 + rng.usize(..CHANNELS.len());
    rng.choose_multiple(CHANNELS.iter().copied(), count)
}

/// Reads until the stream ends. Checks that the numbers of each publishing thread rise.
fn reads_to_the_end(mut subscription: Subscription, pauses: bool) {
    let mut last = [0; 8];
    for frame in subscription.by_ref() {
        let data = frame.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).expect("a whole frame");
        let (thread, number) = data.split_once(' ').unwrap();
        let (thread, number): (usize, u64) = (thread.parse().unwrap(), number.parse().unwrap());
        assert!(last[thread] < number, "{number} after {} from thread {thread}", last[thread]);
        last[thread] = number;
        if pauses {
            thread::yield_now();
        }
    }
    assert!(subscription.end_cause().is_some());
}

#[test]
fn nothing_is_left_after_8_threads_publish_subscribe_unsubscribe_drop_and_close() {
    let rounds: u64 = std::env::var("STRESS_ROUNDS").map_or(40, |rounds| rounds.parse().unwrap());
    let seed = seed("stress");
    let _watchdog =
        Watchdog::with_limit(&format!("stress with SEED={seed}"), Watchdog::LIMIT + Duration::from_secs(rounds));
    let publisher = Publisher::builder_for::<usize>().max_queued_events(64).heartbeat(None).build().unwrap();
    let (readers, read_to_the_end) = (AtomicUsize::new(0), AtomicUsize::new(0));

    thread::scope(|threads| {
        let actors: Vec<_> = (0..8)
            .map(|number| {
                let (publisher, readers, read_to_the_end) = (&publisher, &readers, &read_to_the_end);
                threads.spawn(move || {
                    let mut rng = Rng::with_seed(seed ^ number as u64);
                    let mut held: Vec<Subscription> = Vec::new();
                    for event in 1..=rounds * 150 {
                        let data = format!("{number} {event}");
                        match rng.u32(..100) {
                            0..60 => {
                                publisher.publish_to(some_channels(&mut rng), data);
                            }
                            60..80 => {
                                let parity = rng.usize(..2);
                                let closure = move |n: &usize| (n % 2 == parity).then(|| Event::new(&data));
                                publisher.publish_with(some_channels(&mut rng), closure);
                            }
                            80..88 => {
                                let subscription = publisher.subscription(rng.usize(..100));
                                held.push(subscription.channels(some_channels(&mut rng)).open().unwrap());
                            }
                            88..92 if !held.is_empty() => drop(held.swap_remove(rng.usize(..held.len()))),
                            92..96 if !held.is_empty() && readers.load(SeqCst) < 400 => {
                                let subscription = held.swap_remove(rng.usize(..held.len()));
                                let pauses = rng.bool();
                                readers.fetch_add(1, SeqCst);
                                threads.spawn(move || {
                                    reads_to_the_end(subscription, pauses);
                                    readers.fetch_sub(1, SeqCst);
                                    read_to_the_end.fetch_add(1, SeqCst);
                                });
                            }
                            96 => {
                                let unlucky = rng.usize(..10);
                                publisher.unsubscribe_if(some_channels(&mut rng), |n| n % 10 == unlucky);
                            }
                            97 => {
                                for subscription in &mut held {
                                    let _ = subscription.try_recv();
                                }
                            }
                            98 if rng.u32(..20) == 0 => publisher.close(),
                            _ => drop((publisher.stats(), publisher.subscriber_properties(CHANNELS))),
                        }
                        if held.len() > 100 {
                            held.clear();
                        }
                    }
                })
            })
            .collect();
        for actor in actors {
            actor.join().unwrap();
        }
        // This wakes every reader that still blocks, and the scope waits for them all.
        publisher.close();
    });

    assert!(read_to_the_end.load(SeqCst) > 100, "too little was read");
    let stats = publisher.stats();
    assert_eq!((stats.subscribers, stats.channels, stats.closures_panicked), (0, 0, 0));
    println!("stress: {stats:?}");
}
