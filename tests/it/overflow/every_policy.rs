//! Each policy against a model of it, and what all policies have in common.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::common::{ends, seed};
use fastrand::Rng;
use server_sent_events::{BuildError, EndCause, OpenError};

/// The expected behaviour of one subscriber's queue, as plainly as possible.
struct Model {
    overflow: Overflow,
    frames: usize,
    bytes: usize,
    waiting: VecDeque<Entry>,
    lost: u64,
    after_a_gap: Option<Entry>,
    /// Queued, delivered, skipped, dropped.
    counts: [u64; 4],
}

#[derive(Clone, Debug)]
struct Entry {
    text: String,
    key: Option<String>,
    is_skipped: bool,
}

impl Entry {
    fn frame(&self) -> String {
        format!("data: {}\n\n", self.text)
    }
}

impl Model {
    fn has_room(&self, size: usize) -> bool {
        let bytes: usize = self.waiting.iter().map(|entry| self.size(entry)).sum();
        self.waiting.is_empty() || (self.waiting.len() < self.frames && bytes + size <= self.bytes)
    }

    /// A key is stored, and counts, only for the policy that uses it.
    fn size(&self, entry: &Entry) -> usize {
        let key = entry.key.as_ref().filter(|_| self.overflow == Overflow::LatestPerKey);
        entry.frame().len() + key.map_or(0, |key| key.len())
    }

    /// Returns whether the event was queued.
    fn publish(&mut self, entry: Entry) -> bool {
        let size = self.size(&entry);
        if self.overflow == Overflow::LatestPerKey && entry.key.is_some() {
            let before = self.waiting.len();
            self.waiting.retain(|other| other.key != entry.key);
            self.counts[3] += (before - self.waiting.len()) as u64;
        }
        if self.overflow == Overflow::DropOldest {
            while !self.has_room(size) {
                self.waiting.pop_front();
                self.lost += 1;
                self.counts[3] += 1;
            }
        }
        let fits = self.has_room(size);
        if fits {
            self.waiting.push_back(entry);
            self.counts[0] += 1;
        }
        fits
    }

    fn take(&mut self) -> Option<String> {
        loop {
            let entry = match self.after_a_gap.take() {
                Some(entry) => entry,
                None => {
                    let entry = self.waiting.pop_front()?;
                    if self.lost > 0 {
                        self.after_a_gap = Some(entry);
                        return Some(format!("event: gap\ndata: {{\"lost\":{}}}\n\n", std::mem::take(&mut self.lost)));
                    }
                    entry
                }
            };
            if !entry.is_skipped {
                self.counts[1] += 1;
                return Some(entry.frame());
            }
            self.counts[2] += 1;
        }
    }
}

#[test]
fn every_policy_matches_a_simple_model() {
    let mut rng = Rng::with_seed(seed("overflow model"));
    let policies =
        [Overflow::Disconnect, Overflow::DropOldest, Overflow::LatestPerKey, Overflow::Block(Duration::ZERO)];
    let mut ended = 0;
    for round in 0..1_200 {
        let overflow = policies[round % policies.len()];
        let frames = *rng.choice(&[1, 2, 5, usize::MAX]).unwrap();
        let bytes = *rng.choice(&[1, 30, 100, usize::MAX]).unwrap();
        let (publisher, mut subscription) = if rng.bool() {
            let publisher = with_queue(frames, bytes, overflow);
            let subscription = publisher.subscribe().unwrap();
            (publisher, subscription)
        } else {
            let publisher = with_queue(1, 1, *rng.choice(&policies).unwrap());
            let subscription =
                publisher.subscription(()).max_queued_events(frames).max_queued_bytes(bytes).overflow(overflow);
            let subscription = subscription.open().unwrap();
            (publisher, subscription)
        };
        let (waiting, after_a_gap) = (VecDeque::new(), None);
        let mut model = Model { overflow, frames, bytes, waiting, lost: 0, after_a_gap, counts: [0; 4] };
        let taking = rng.u32(1..6);
        for step in 0..rng.u32(1..200) {
            if rng.u32(..10) < taking {
                assert_eq!(
                    subscription.try_recv().ok().map(String::from),
                    model.take(),
                    "{overflow:?}, {frames} frames, {bytes} bytes"
                );
            } else {
                let text = format!("{step} {}", "x".repeat(*rng.choice(&[0, 1, 10, 60, 200]).unwrap()));
                let key = rng.bool().then(|| rng.u32(..4).to_string());
                let queued = if bytes == usize::MAX && rng.u32(..4) == 0 {
                    // The size of a closure is unknown, so closures are published only if no limit is near.
                    let (is_skipped, event) = (rng.bool(), Event::new(&text));
                    let event = key.map_or(event.clone(), |key| event.key(key));
                    let closure = move |(): &()| (!is_skipped).then(|| event.clone());
                    let entry = Entry { text, key: None, is_skipped };
                    (publisher.publish_with("default channel", closure).subscribers(), model.publish(entry))
                } else {
                    let event = key.iter().fold(Event::new(&text), |event, key| event.key(&**key));
                    (publisher.publish(event).subscribers(), model.publish(Entry { text, key, is_skipped: false }))
                };
                assert_eq!(queued.0 == 1, queued.1, "{overflow:?}, {frames} frames, {bytes} bytes");
                if !queued.1 {
                    ends(&mut subscription, EndCause::QueueFull);
                    ended += 1;
                    break;
                }
            }
            assert_eq!(publisher.channel_stats("default channel").queued, model.waiting.len());
            assert_eq!(counts(&publisher), model.counts);
        }
        assert_eq!(counts(&publisher), model.counts);
        publisher.close();
        if subscription.end_cause().is_none() {
            let rest: Vec<String> = std::iter::from_fn(|| model.take()).collect();
            assert_eq!(subscription.by_ref().collect::<Vec<_>>(), rest);
            let [queued, delivered, skipped, dropped] = counts(&publisher);
            assert_eq!(queued, delivered + skipped + dropped);
        }
    }
    assert!(ended > 100, "only {ended} streams ended");
}

#[test]
fn queue_limits_of_zero_are_rejected() {
    let publisher = Publisher::new();
    for (builder, subscription) in [
        (Publisher::builder().max_queued_events(0), publisher.subscription(()).max_queued_events(0)),
        (Publisher::builder().max_queued_bytes(0), publisher.subscription(()).max_queued_bytes(0)),
    ] {
        let error = builder.build().unwrap_err();
        let BuildError::InvalidSetting(zero) = error else { panic!("{error:?}") };
        assert_eq!(subscription.open().unwrap_err(), OpenError::InvalidSetting(zero));
    }
}

#[test]
fn a_frame_larger_than_the_limit_fits_an_empty_queue_and_empties_one_that_drops_the_oldest() {
    let large = "x".repeat(1_000);
    for overflow in [Overflow::Disconnect, Overflow::DropOldest, Overflow::LatestPerKey, LONG] {
        let publisher = with_queue(10, 100, overflow);
        let mut subscription = publisher.subscribe().unwrap();
        for _ in 0..3 {
            assert_eq!(publisher.publish(&large).subscribers(), 1);
            gets_just(&mut subscription, [&large]);
        }
    }
    let publisher = with_queue(10, 100, Overflow::DropOldest);
    let mut subscription = publisher.subscribe().unwrap();
    publish(&publisher, 0..5);
    publisher.publish(&large);
    publish(&publisher, 5..6);
    gets_gap(&mut subscription, 6);
    gets_just(&mut subscription, ["5"]);
}

#[test]
fn each_subscriber_of_a_channel_has_its_own_policy() {
    let publisher = Publisher::new();
    let mut ends_at_once = slow(&publisher, "all", 2, Overflow::Disconnect);
    let mut loses = slow(&publisher, "all", 2, Overflow::DropOldest);
    let mut latest = slow(&publisher, "all", 2, Overflow::LatestPerKey);
    let mut blocks = slow(&publisher, "all", 2, LONG);
    let mut fast = slow(&publisher, "all", 100, Overflow::Disconnect);
    let mut queued = Vec::new();
    for n in 0..6 {
        queued.push(publisher.publish_to("all", keyed(&n.to_string(), "a")).subscribers());
        gets_just(&mut blocks, [&*n.to_string()]);
    }
    assert_eq!(queued, [5, 5, 4, 4, 4, 4]);
    ends(&mut ends_at_once, EndCause::QueueFull);
    gets_gap(&mut loses, 4);
    gets_just(&mut loses, ["4", "5"]);
    gets_just(&mut latest, ["5"]);
    gets_just(&mut fast, ["0", "1", "2", "3", "4", "5"]);
    let stats = publisher.stats();
    assert_eq!((stats.events_published, stats.events_queued, stats.events_dropped), (6, 26, 4 + 5));
    // The first one had two in its queue when it ended.
    assert_eq!(stats.events_queued, stats.events_delivered + stats.events_skipped + stats.events_dropped + 2);
}
