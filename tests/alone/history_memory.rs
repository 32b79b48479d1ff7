//! A history stays within its byte limit, as measured by the allocator.
//!
//! `HISTORY_EVENTS` is the maximum number of events that the test publishes; the default is for everyday use.

use crate::allocated::allocated;
use crate::own_process::own_process;
use server_sent_events::{Event, History, Publisher};

/// Publishes with this closure. Checks that the memory held in the end is within the limit, and not far below what is
/// counted.
#[track_caller]
fn stays_within(max_bytes: usize, publish: impl Fn(&Publisher)) {
    keeps_within(History::new(), max_bytes, publish);
}

/// Checks the same of a history with these settings.
#[track_caller]
fn keeps_within(history: History, max_bytes: usize, publish: impl Fn(&Publisher)) {
    let history = history.max_bytes(max_bytes);
    let publisher = Publisher::builder().history(history).build().unwrap();
    let before = allocated();
    publish(&publisher);
    let held = allocated() - before;
    let counted = publisher.stats().history.bytes;
    println!("{max_bytes} bytes allowed, {counted} counted, {held} held: {:?}", publisher.stats().history);
    assert!(counted <= max_bytes, "{counted} counted");
    assert!(held <= max_bytes, "{held} held");
    assert!(counted > max_bytes / 2, "the bound was not reached: {counted}");
    drop(publisher);
}

#[test]
fn a_history_stays_within_its_bytes() {
    own_process!();
    const MIB: usize = 1024 * 1024;
    let events: usize = std::env::var("HISTORY_EVENTS").map_or(50_000, |events| events.parse().unwrap());
    // Many channels with one event each, which become channels without an event.
    stays_within(4 * MIB, |publisher| {
        for n in 0..events {
            publisher.publish_to(format!("channel {n}"), "x");
        }
    });
    // The same channels again and again; each is the busiest in turn.
    stays_within(2 * MIB, |publisher| {
        for channel in 0..100 {
            for n in 0..events / 200 {
                publisher.publish_to(format!("channel {channel}"), n.to_string());
            }
        }
    });
    // Large events, events in many channels, closures, the application's own IDs.
    stays_within(2 * MIB, |publisher| {
        let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        for n in 0..events / 50 {
            publisher.publish("x".repeat(n % 3_000));
            publisher.publish_to(&names, "x");
            publisher.publish_with("closures", |()| None);
            publisher
                .publish_to("own ids", Event::new("x").id(format!("an id of its own {n}").replace(' ', "-")).unwrap());
        }
    });
    // Keys of which each has one event, in several channels, and some that are published again.
    keeps_within(History::new().latest_per_key().max_events_per_channel(1_000_000), 2 * MIB, |publisher| {
        for n in 0..events / 20 {
            publisher.publish_to(["a", "b", "c"], Event::new("x").key(format!("the key of a device {n}")));
            publisher.publish_to("again", Event::new("x").key(format!("{}", n % 100)));
        }
    });
}
