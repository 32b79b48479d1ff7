//! A full queue follows the policy of the publisher, or of one subscriber.

mod block;
mod counts;
mod disconnect;
mod drop_oldest;
mod every_policy;
mod latest_per_key;
mod stress;

use std::time::Duration;

use crate::common::{gets, gets_data, gets_nothing};
use server_sent_events::{Event, Overflow, Publisher, Subscription};

/// So long that no test reaches it.
const LONG: Overflow = Overflow::Block(Duration::from_secs(3_600));

fn with_queue(frames: usize, bytes: usize, overflow: Overflow) -> Publisher {
    let builder = Publisher::builder().max_queued_events(frames).max_queued_bytes(bytes);
    builder.overflow(overflow).heartbeat(None).build().unwrap()
}

fn with_frames(frames: usize, overflow: Overflow) -> Publisher {
    with_queue(frames, usize::MAX, overflow)
}

/// Subscribes to one channel with an overflow policy of its own, and room for this many frames.
fn slow(publisher: &Publisher, channel: &str, frames: usize, overflow: Overflow) -> Subscription {
    publisher.subscription(()).channels(channel).max_queued_events(frames).overflow(overflow).open().unwrap()
}

/// Checks that the next frame reports that this many events were lost.
#[track_caller]
fn gets_gap(subscription: &mut Subscription, lost: u64) {
    gets(subscription, &format!("event: gap\ndata: {{\"lost\":{lost}}}\n\n"));
}

/// Checks that these are the next frames, and that the queue is then empty.
#[track_caller]
fn gets_just<const N: usize>(subscription: &mut Subscription, data: [&str; N]) {
    for data in &data {
        gets_data(subscription, data);
    }
    gets_nothing(subscription);
}

fn keyed(data: &str, key: &str) -> Event {
    Event::new(data).key(key)
}

/// Publishes these numbers.
fn publish(publisher: &Publisher, numbers: std::ops::Range<u32>) {
    for n in numbers {
        assert_eq!(publisher.publish(n.to_string()).subscribers(), 1);
    }
}

/// Queued, delivered, skipped, dropped.
fn counts<P: Send + Sync + 'static>(publisher: &Publisher<P>) -> [u64; 4] {
    let stats = publisher.stats();
    [stats.events_queued, stats.events_delivered, stats.events_skipped, stats.events_dropped]
}
