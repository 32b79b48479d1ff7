//! What happens at a full queue is what was chosen: for the publisher, or for one subscriber.

mod disconnect;
mod stress;

use std::collections::VecDeque;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::writers::Kept;
use crate::common::{PATIENCE, Watchdog, ends, eventually, gets, gets_data, gets_nothing, parsed, seed};
use fastrand::Rng;
use server_sent_events::{BackgroundOptions, EndCause, Event, History, OpenError, Overflow, Publisher, Subscription};

/// So long that nobody is ended for it in a test.
const LONG: Overflow = Overflow::Block(Duration::from_secs(3_600));

fn with_queue(frames: usize, bytes: usize, overflow: Overflow) -> Publisher {
    let builder = Publisher::builder().max_queued_events(frames).max_queued_bytes(bytes);
    builder.overflow(overflow).heartbeat(None).build().unwrap()
}

fn with_frames(frames: usize, overflow: Overflow) -> Publisher {
    with_queue(frames, usize::MAX, overflow)
}

/// A subscriber of one channel with a policy of its own, and room for so many frames.
fn slow(publisher: &Publisher, channel: &str, frames: usize, overflow: Overflow) -> Subscription {
    publisher.subscription(()).channels(channel).max_queued_events(frames).overflow(overflow).open().unwrap()
}

/// The next frame tells that so many were lost.
#[track_caller]
fn gets_gap(subscription: &mut Subscription, lost: u64) {
    gets(subscription, &format!("event: gap\ndata: {{\"lost\":{lost}}}\n\n"));
}

/// The next frames are these, and no more wait.
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

/// Publishes what `from..to` names.
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

// # Each policy against a model of it

/// What one subscriber's queue should do, written down as plainly as possible.
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

    /// A key is kept, and counts, only where it means something.
    fn size(&self, entry: &Entry) -> usize {
        let key = entry.key.as_ref().filter(|_| self.overflow == Overflow::LatestPerKey);
        entry.frame().len() + key.map_or(0, |key| key.len())
    }

    /// Whether it was let in.
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
                    // How large a closure is nobody knows, so only where no bound is near.
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
    let zero = Publisher::builder().max_queued_events(0).build().unwrap_err();
    let refused = publisher.subscription(()).max_queued_events(0).open().unwrap_err();
    assert_eq!(refused, OpenError::InvalidSetting(zero));
    let zero = Publisher::builder().max_queued_bytes(0).build().unwrap_err();
    let refused = publisher.subscription(()).max_queued_bytes(0).open().unwrap_err();
    assert_eq!(refused, OpenError::InvalidSetting(zero));
}

// # DropOldest

#[test]
fn the_oldest_are_dropped_and_one_gap_reports_how_many() {
    let publisher = with_frames(3, Overflow::DropOldest);
    let mut subscription = publisher.subscribe().unwrap();
    publish(&publisher, 0..10);
    gets_gap(&mut subscription, 7);
    gets_just(&mut subscription, ["7", "8", "9"]);
    publish(&publisher, 10..12);
    gets_just(&mut subscription, ["10", "11"]);
    assert_eq!(counts(&publisher), [12, 5, 0, 7]);
}

#[test]
fn each_run_of_losses_is_reported_exactly_where_it_was() {
    let publisher = with_frames(2, Overflow::DropOldest);
    let mut subscription = publisher.subscribe().unwrap();
    publish(&publisher, 0..5);
    gets_gap(&mut subscription, 3);
    gets_data(&mut subscription, "3");
    // 4 waits.
    publish(&publisher, 5..6);
    gets_data(&mut subscription, "4");
    publish(&publisher, 6..8);
    gets_gap(&mut subscription, 1);
    gets_just(&mut subscription, ["6", "7"]);
}

#[test]
fn events_lost_between_a_gap_and_the_next_event_are_reported_after_that_event() {
    let publisher = with_frames(2, Overflow::DropOldest);
    let mut subscription = publisher.subscribe().unwrap();
    publish(&publisher, 0..3);
    gets_gap(&mut subscription, 1);
    publish(&publisher, 3..6);
    gets_data(&mut subscription, "1");
    gets_gap(&mut subscription, 2);
    gets_just(&mut subscription, ["4", "5"]);
}

#[test]
fn one_large_event_displaces_only_as_many_small_ones_as_it_needs() {
    // A frame is 8 bytes and its text.
    let publisher = with_queue(usize::MAX, 100, Overflow::DropOldest);
    let mut subscription = publisher.subscribe().unwrap();
    for n in 0..10 {
        publisher.publish(format!("{n}."));
    }
    publisher.publish("x".repeat(22));
    gets_gap(&mut subscription, 3);
    for n in 3..10 {
        gets_data(&mut subscription, &format!("{n}."));
    }
    gets_just(&mut subscription, [&*"x".repeat(22)]);
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
fn a_closure_that_is_dropped_for_others_goes_at_once_and_without_the_lock() {
    struct CallsBack(Publisher, Arc<AtomicBool>);
    impl Drop for CallsBack {
        fn drop(&mut self) {
            self.0.stats();
            self.1.store(true, SeqCst);
        }
    }
    let _watchdog = Watchdog::new("a drop under the lock", PATIENCE);
    let publisher = with_frames(1, Overflow::DropOldest);
    let mut subscription = publisher.subscribe().unwrap();
    let is_gone = Arc::default();
    let capture = CallsBack(publisher.clone(), Arc::clone(&is_gone));
    publisher.publish_with("default channel", move |()| {
        let _capture = &capture;
        None
    });
    assert!(!is_gone.load(SeqCst));
    publisher.publish("x");
    assert!(is_gone.load(SeqCst));
    gets_gap(&mut subscription, 1);
    gets_just(&mut subscription, ["x"]);
}

#[test]
fn every_way_to_read_gets_the_gap_once_and_then_the_end() {
    let body = |read: &dyn Fn(Subscription) -> String| {
        let publisher = with_frames(2, Overflow::DropOldest);
        let subscription = publisher.subscribe().unwrap();
        publish(&publisher, 0..5);
        publisher.close();
        let body = read(subscription);
        eventually("all is counted", || counts(&publisher) == [5, 2, 0, 3]);
        body
    };
    let whole = "event: gap\ndata: {\"lost\":3}\n\ndata: 3\n\ndata: 4\n\n";
    assert_eq!(body(&|subscription| subscription.collect()), whole);
    assert_eq!(body(&|subscription| io::read_to_string(subscription.into_reader()).unwrap()), whole);
    let written = |subscription: Subscription| {
        let kept = Kept::default();
        subscription.write_to(kept.clone()).unwrap();
        kept.text()
    };
    assert_eq!(body(&written), whole);
    let handed_over = |subscription: Subscription| {
        let (kept, (ended, end)) = (Kept::default(), channel());
        let options = BackgroundOptions::new().on_end(move |cause| ended.send(cause).unwrap());
        subscription.write_in_background_with_options(kept.clone(), options).unwrap();
        assert_eq!(end.recv_timeout(PATIENCE), Ok(EndCause::Closed));
        kept.text()
    };
    assert_eq!(body(&handed_over), whole);
}

#[test]
fn with_a_history_a_client_that_resumes_gets_the_lost_events() {
    let publisher = Publisher::builder().history(History::new()).max_queued_events(2).build().unwrap();
    let subscription = publisher.subscription(()).overflow(Overflow::DropOldest).open().unwrap();
    publish(&publisher, 0..5);
    let before = publisher.last_event_id();
    publisher.close();
    let events = parsed(&subscription.collect::<String>());
    let seen: Vec<_> = events.iter().map(|event| (&*event.event, &*event.data)).collect();
    assert_eq!(seen, [("gap", "{\"lost\":3}"), ("message", "3"), ("message", "4")]);
    assert_eq!(Some(&events[2].id), before.as_ref());
    assert_ne!(events[0].id, events[1].id, "the gap's id must be one from before the losses");

    let resumed = publisher.subscription(()).last_event_id(events[0].id.clone()).open().unwrap();
    publisher.close();
    let events = parsed(&resumed.collect::<String>());
    assert_eq!(events.iter().map(|event| &*event.data).collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
}

// # Latest

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

// # Block

/// A thread that publishes.
struct Publishing {
    thread: JoinHandle<usize>,
    /// What Linux tells of it.
    task: String,
}

/// Publishes from a thread of its own.
fn publishing<const N: usize>(publisher: &Publisher, channels: [&'static str; N], data: &str) -> Publishing {
    let (publisher, data) = (publisher.clone(), data.to_owned());
    let (begun, begins) = channel();
    let thread = thread::spawn(move || {
        let task = std::fs::read_link("/proc/thread-self").unwrap_or_default();
        begun.send(format!("/proc/{}/status", task.display())).unwrap();
        publisher.publish_to(channels, data).subscribers()
    });
    Publishing { thread, task: begins.recv().unwrap() }
}

impl Publishing {
    /// It sleeps, and goes on doing so: what it waits for is not a lock that is held for a few steps.
    #[track_caller]
    fn waits(&self) {
        let mut before = None;
        eventually("the publisher waits", || {
            assert!(!self.thread.is_finished(), "it did not wait");
            let status = std::fs::read_to_string(&self.task).unwrap_or_default();
            let line = |name: &str| status.lines().find(|line| line.starts_with(name)).map(str::to_owned);
            let now = (line("State"), line("voluntary_ctxt_switches"));
            let sleeps = !cfg!(target_os = "linux") || now.0.as_ref().is_some_and(|state| state.contains('S'));
            let still = before.as_ref() == Some(&now);
            before = Some(now);
            sleeps && still
        });
    }

    /// It need not wait any more; returns for how many it was queued.
    #[track_caller]
    fn goes_on(self) -> usize {
        eventually("the publisher goes on", || self.thread.is_finished());
        self.thread.join().unwrap()
    }
}

#[test]
fn publish_waits_until_there_is_room_and_nothing_is_lost() {
    let publisher = with_frames(2, LONG);
    let mut subscription = publisher.subscribe().unwrap();
    publish(&publisher, 0..2);
    let third = publishing(&publisher, ["default channel"], "2");
    third.waits();
    gets_data(&mut subscription, "0");
    assert_eq!(third.goes_on(), 1);
    gets_just(&mut subscription, ["1", "2"]);
    assert_eq!(counts(&publisher), [3, 3, 0, 0]);
}

#[test]
fn a_queue_still_full_at_the_deadline_ends_and_the_others_get_the_event() {
    let deadline = Duration::from_millis(50);
    let publisher = Publisher::new();
    let mut stalled = slow(&publisher, "default channel", 1, Overflow::Block(deadline));
    let mut other = publisher.subscribe().unwrap();
    publisher.publish("0");
    let began = Instant::now();
    assert_eq!(publisher.publish("1").subscribers(), 1);
    assert!(began.elapsed() >= deadline);
    ends(&mut stalled, EndCause::QueueFull);
    gets_just(&mut other, ["0", "1"]);
    assert_eq!(publisher.stats().ended.queue_full, 1);
}

#[test]
fn an_id_of_the_application_counts_for_the_room_that_publish_waits_for() {
    let _watchdog = Watchdog::new("waiting for room for an id", PATIENCE);
    let publisher = Publisher::builder().history(History::new()).max_queued_bytes(200).overflow(LONG).build().unwrap();
    let mut subscription = publisher.subscribe().unwrap();
    assert!(subscription.recv().unwrap().starts_with("id: "));
    publisher.publish("x".repeat(20));
    // With the history's own ID it would have room.
    let event = Event::new("y".repeat(20)).id("i".repeat(120)).unwrap();
    thread::scope(|threads| {
        let publishing = threads.spawn(|| publisher.publish(event).subscribers());
        // Whenever it is read, the publisher waits for it, or is about to.
        assert!(subscription.recv().unwrap().starts_with("data: xx"));
        assert!(subscription.recv().unwrap().starts_with("data: yy"));
        assert_eq!(publishing.join().unwrap(), 1);
    });
    assert_eq!(publisher.stats().ended.queue_full, 0);
}

#[test]
fn publish_waits_for_each_subscriber_as_long_as_its_own_timeout() {
    let publisher = Publisher::new();
    let mut impatient = slow(&publisher, "default channel", 1, Overflow::Block(Duration::from_millis(20)));
    let mut patient = slow(&publisher, "default channel", 1, Overflow::Block(Duration::MAX));
    let mut never = slow(&publisher, "default channel", 1, Overflow::Block(Duration::ZERO));
    publisher.publish("0");
    gets_data(&mut never, "0");
    let second = publishing(&publisher, ["default channel"], "1");
    second.waits();
    gets_data(&mut patient, "0");
    assert_eq!(second.goes_on(), 2);
    ends(&mut impatient, EndCause::QueueFull);
    gets_just(&mut patient, ["1"]);
    gets_just(&mut never, ["1"]);
}

#[test]
fn while_publish_waits_nobody_has_the_event_and_no_id_is_given() {
    let publisher = Publisher::builder().history(History::new()).build().unwrap();
    let mut stalled = slow(&publisher, "default channel", 1, LONG);
    let mut other = publisher.subscribe().unwrap();
    publisher.publish("0");
    let before = (publisher.last_event_id(), publisher.stats());
    let second = publishing(&publisher, ["default channel"], "1");
    second.waits();
    assert_eq!((publisher.last_event_id(), publisher.stats()), before);
    let taken = String::from(other.try_recv().unwrap()) + &other.try_recv().unwrap();
    assert_eq!(parsed(&taken)[0].data, "0");
    gets_nothing(&mut other);
    assert!(stalled.try_recv().unwrap().starts_with("id: "));
    assert!(stalled.try_recv().unwrap().contains("data: 0\n"));
    assert_eq!(second.goes_on(), 2);
    assert_eq!(stalled.try_recv(), other.try_recv());
}

#[test]
fn a_full_subscriber_stops_only_its_own_publishers() {
    let _watchdog = Watchdog::new("what is not concerned", PATIENCE);
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
fn an_event_larger_than_the_bound_waits_for_an_empty_queue() {
    let publisher = with_queue(usize::MAX, 40, LONG);
    let mut subscription = publisher.subscribe().unwrap();
    publish(&publisher, 0..2);
    let large = publishing(&publisher, ["default channel"], &"x".repeat(100));
    large.waits();
    gets_data(&mut subscription, "0");
    large.waits();
    gets_data(&mut subscription, "1");
    assert_eq!(large.goes_on(), 1);
    gets_just(&mut subscription, [&*"x".repeat(100)]);
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
    // Now it waits for the other one, and has waited longer than who is there.
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
    let _watchdog = Watchdog::new("a place that was not given up", Duration::from_secs(100));
    let publisher = Publisher::new();
    for _ in 0..2_000 {
        let mut a = slow(&publisher, "a", 1, LONG);
        let b = slow(&publisher, "b", 1, LONG);
        publisher.publish_to(["a", "b"], "0");
        let both = publishing(&publisher, ["a", "b"], "1");
        gets_data(&mut a, "0");
        // There is room, and who waits for b must not stand in the way.
        let other = publishing(&publisher, ["a"], "2");
        assert_eq!(other.goes_on(), 1);
        gets_just(&mut a, ["2"]);
        drop(b);
        assert_eq!(both.goes_on(), 1);
    }
}

/// Whoever leaves in this way frees two publishers that wait for it; for how many others the event is queued.
#[track_caller]
fn frees(leave: impl FnOnce(&Publisher, Subscription) -> Option<Subscription>) -> usize {
    let publisher = Publisher::new();
    let subscription = publisher.subscription(()).channels(["slow", "else"]).max_queued_events(1).overflow(LONG);
    let subscription = subscription.open().unwrap();
    publisher.publish_to("slow", "0");
    let waiting = [(); 2].map(|()| publishing(&publisher, ["slow"], "1"));
    for publishing in &waiting {
        publishing.waits();
    }
    let left = leave(&publisher, subscription);
    let queued = waiting.map(Publishing::goes_on);
    drop(left);
    queued.iter().sum()
}

#[test]
fn a_subscriber_that_leaves_frees_its_waiting_publishers_at_once() {
    let _watchdog = Watchdog::new("who waits for nobody", PATIENCE * 3);
    let dropped = |_: &Publisher, _: Subscription| None;
    assert_eq!(frees(dropped), 0);
    let by = |leave: fn(&Publisher, &Subscription)| {
        frees(move |publisher, subscription| {
            leave(publisher, &subscription);
            Some(subscription)
        })
    };
    assert_eq!(by(|publisher, _| publisher.close()), 0);
    assert_eq!(by(|publisher, _| assert_eq!(publisher.disconnect_if(|()| true), 1)), 0);
    assert_eq!(by(|publisher, _| assert_eq!(publisher.unsubscribe_if(["slow", "else"], |()| true), 1)), 0);
    assert_eq!(by(|publisher, _| assert_eq!(publisher.unsubscribe_if("slow", |()| true), 1)), 0);
    assert_eq!(by(|publisher, _| assert_eq!(publisher.shutdown(Duration::ZERO), 1)), 0);
    assert_eq!(by(|_, subscription| assert!(subscription.handle().close())), 0);
    assert_eq!(by(|_, subscription| assert!(subscription.handle().disconnect())), 0);
    assert_eq!(by(|_, subscription| assert_eq!(subscription.handle().leave("slow"), 1)), 0);
}

/// A writer that hangs until it is told what to answer.
struct Hangs(Sender<()>, Receiver<io::Result<()>>);

impl Write for Hangs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(());
        self.1.recv().unwrap().map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A subscriber of room for one frame, whose writer hangs with another in its hands.
fn hanging(publisher: &Publisher, overflow: Overflow) -> Sender<io::Result<()>> {
    let ((hangs, hung), (answer, answers)) = (channel(), channel());
    slow(publisher, "default channel", 1, overflow).write_in_background(Hangs(hangs, answers)).unwrap();
    publisher.publish("0");
    hung.recv_timeout(PATIENCE).unwrap();
    publisher.publish("1");
    answer
}

#[test]
fn publish_waits_for_a_background_stream_whose_writer_is_blocked() {
    let publisher = Publisher::new();
    let answer = hanging(&publisher, LONG);
    let third = publishing(&publisher, ["default channel"], "2");
    third.waits();
    assert_eq!(publisher.stats().events_delivered, 0);
    for _ in 0..3 {
        answer.send(Ok(())).unwrap();
    }
    assert_eq!(third.goes_on(), 1);
    eventually("all is written", || counts(&publisher) == [3, 3, 0, 0]);
    publisher.close();
}

#[test]
fn a_write_that_fails_frees_its_waiting_publishers_and_is_no_delivery() {
    let publisher = Publisher::new();
    let answer = hanging(&publisher, LONG);
    let third = publishing(&publisher, ["default channel"], "2");
    third.waits();
    answer.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
    assert_eq!(third.goes_on(), 0);
    assert_eq!(publisher.stats().ended.connection_lost, 1);
    assert_eq!(counts(&publisher), [2, 0, 0, 0]);
}

#[test]
fn publishers_and_a_reader_lose_no_wake_up() {
    let _watchdog = Watchdog::new("a lost wake-up", Duration::from_secs(100));
    let publisher = with_frames(1, LONG);
    let mut subscription = publisher.subscribe().unwrap();
    thread::scope(|threads| {
        for thread in 0..3 {
            let publisher = &publisher;
            threads.spawn(move || {
                for n in 0..3_000 {
                    publisher.publish(format!("{thread} {n}"));
                }
            });
        }
        let mut last = [0; 3];
        for _ in 0..9_000 {
            let frame = subscription.next().unwrap();
            let (thread, number) = frame["data: ".len()..].trim_end().split_once(' ').unwrap();
            let last = &mut last[thread.parse::<usize>().unwrap()];
            assert_eq!(number.parse(), Ok(*last), "out of order, or lost");
            *last += 1;
        }
    });
    gets_nothing(&mut subscription);
    assert_eq!(counts(&publisher), [9_000, 9_000, 0, 0]);
}

// # All together

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
    // The first had two in its queue when it ended.
    assert_eq!(stats.events_queued, stats.events_delivered + stats.events_skipped + stats.events_dropped + 2);
}

#[test]
fn frames_that_were_not_published_are_no_deliveries() {
    let builder = Publisher::builder().history(History::new()).max_queued_events(1);
    let publisher = builder.heartbeat(Duration::from_millis(20)).build().unwrap();
    publisher.publish("kept");
    let mut subscription = publisher
        .subscription(())
        .replay_last(1)
        .initial_data(["first"])
        .overflow(Overflow::DropOldest)
        .open()
        .unwrap();
    publisher.publish("1");
    publisher.publish("2");
    publisher.publish_with("default channel", |()| panic!("a closure that panics, as it should"));
    // The last, a heartbeat, comes when nothing is queued any more.
    for is_heartbeat in [false, false, false, false, true] {
        let frame = subscription.recv_timeout(PATIENCE).unwrap();
        assert_eq!(frame == ":\n", is_heartbeat, "{frame}");
    }
    let stats = publisher.stats();
    assert_eq!((counts(&publisher), stats.closures_panicked), ([3, 1, 0, 2], 1));
}

#[test]
fn the_last_frame_of_a_shutdown_counts_as_queued_and_as_delivered() {
    let publisher = Publisher::new();
    let subscription = publisher.subscribe().unwrap();
    publisher.publish("1");
    let reader = thread::spawn(move || subscription.count());
    publisher.shutdown(PATIENCE);
    assert_eq!(reader.join().unwrap(), 2);
    assert_eq!(counts(&publisher), [2, 2, 0, 0]);
}

#[test]
fn events_that_a_dropped_reader_did_not_take_are_no_deliveries() {
    let publisher = with_frames(10, Overflow::DropOldest);
    let mut reader = publisher.subscribe().unwrap().into_reader();
    publish(&publisher, 0..4);
    let size = reader.fill_buf().unwrap().len();
    reader.consume(size);
    publish(&publisher, 4..6);
    assert!(publisher.stats().events_delivered <= 4);
    drop(reader);
    let [queued, delivered, skipped, dropped] = counts(&publisher);
    assert!(delivered + skipped + dropped <= queued && queued == 6);
}

/// A publisher to two busy subscribers finds one of them full again and again: that is no reason to end either.
#[test]
fn a_subscriber_that_reads_is_not_ended_because_other_publishers_are_quicker() {
    let patience = Duration::from_millis(50);
    let builder = Publisher::builder().max_queued_events(4).overflow(Overflow::Block(patience)).heartbeat(None);
    let publisher = builder.build().unwrap();
    let stops = Arc::new(std::sync::atomic::AtomicBool::new(false));
    thread::scope(|threads| {
        for name in ["one", "two"] {
            let mut subscription = publisher.subscribe_to(name).unwrap();
            threads.spawn(move || {
                while subscription.recv().is_some() {
                    // The pace is the scenario: slower than who publishes, and never as long as the deadline.
                    thread::sleep(Duration::from_micros(500));
                }
                assert_eq!(subscription.end_cause(), Some(EndCause::Closed), "{name}");
            });
            let (publisher, stops) = (publisher.clone(), Arc::clone(&stops));
            threads.spawn(move || {
                while !stops.load(std::sync::atomic::Ordering::SeqCst) {
                    publisher.publish_to(name, "x");
                }
            });
        }
        for _ in 0..40 {
            assert_eq!(publisher.publish_to(["one", "two"], "both").subscribers(), 2);
        }
        stops.store(true, std::sync::atomic::Ordering::SeqCst);
        publisher.close();
    });
}

/// The most that ever waits for one of two slow readers of 4 frames each while 8 threads publish to these channels.
fn most_that_waits_while_8_publish_to(channels: &[&str]) -> usize {
    let patience = Duration::from_millis(2);
    let builder = Publisher::builder().max_queued_events(4).overflow(Overflow::Block(patience)).heartbeat(None);
    let publisher = builder.build().unwrap();
    thread::scope(|threads| {
        for name in ["one", "two"] {
            let mut subscription = publisher.subscribe_to(name).unwrap();
            threads.spawn(move || {
                while subscription.recv().is_some() {
                    // The pace is the scenario: slower than 8 threads publish, and faster than the deadline.
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

/// The id that a history gives counts too.
#[test]
fn with_a_history_an_event_that_only_just_does_not_fit_is_waited_for() {
    let overflow = Overflow::Block(Duration::from_secs(5));
    for size in 1..80 {
        let builder = Publisher::builder().max_queued_bytes(120).overflow(overflow).heartbeat(None);
        let publisher = builder.history(History::new()).build().unwrap();
        let mut subscription = publisher.subscribe().unwrap();
        publisher.publish("first");
        thread::scope(|threads| {
            let second = threads.spawn(|| publisher.publish("x".repeat(size)).subscribers());
            let start = Instant::now();
            // Until it is published or, most likely, waits.
            while !second.is_finished() && start.elapsed() < Duration::from_millis(3) {
                thread::yield_now();
            }
            let text = format!("data: {}\n", "x".repeat(size));
            let got = subscription.by_ref().find(|frame| frame.contains(&text));
            assert!(got.is_some(), "{size}: {:?}", subscription.end_cause());
            assert_eq!(second.join().unwrap(), 1);
        });
    }
}

/// Keys may be of any length, and are memory like the rest.
#[test]
fn keys_count_towards_the_queued_bytes() {
    let publisher = with_queue(usize::MAX, 10_000, Overflow::LatestPerKey);
    let mut subscription = publisher.subscribe().unwrap();
    for n in 0..20 {
        publisher.publish(keyed("x", &format!("{n}{}", "k".repeat(1_000))));
    }
    ends(&mut subscription, EndCause::QueueFull);
}
