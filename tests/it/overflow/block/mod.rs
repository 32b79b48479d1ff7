//! `Block`: the publisher waits for room, for each subscriber at most as long as its timeout.

mod order;
mod release;

use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::*;
use crate::common::{PATIENCE, Watchdog, ends, eventually, parsed};
use server_sent_events::{EndCause, History};

/// A thread that publishes.
struct Publishing {
    thread: JoinHandle<usize>,
    /// The thread's state as Linux reports it.
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
    /// Checks that the thread sleeps, and keeps sleeping: it does not just wait for a lock that is held for a few
    /// steps. On a busy machine these steps can take long, but not so long that this thread runs twenty times meanwhile.
    #[track_caller]
    fn waits(&self) {
        let (mut before, mut since, mut looks) = (None, Instant::now(), 0);
        eventually("the publisher waits", || {
            assert!(!self.thread.is_finished(), "it did not wait");
            let status = std::fs::read_to_string(&self.task).unwrap_or_default();
            let line = |name: &str| status.lines().find(|line| line.starts_with(name)).map(str::to_owned);
            let now = (line("State"), line("voluntary_ctxt_switches"));
            let sleeps = !cfg!(target_os = "linux") || now.0.as_ref().is_some_and(|state| state.contains('S'));
            if before.as_ref() != Some(&now) {
                (before, since, looks) = (Some(now), Instant::now(), 0);
            }
            looks += 1;
            sleeps && looks > 20 && since.elapsed() > Duration::from_millis(2)
        });
    }

    /// Waits until the publish returns. Returns for how many subscribers the event was queued.
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
fn an_id_of_the_application_counts_for_the_room_that_publish_waits_for() {
    let _watchdog = Watchdog::new("waiting for room for an id");
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

/// An ID that the history assigns counts too.
#[test]
fn with_a_history_an_event_that_only_just_does_not_fit_is_waited_for() {
    let overflow = Overflow::Block(PATIENCE);
    for size in 1..80 {
        let builder = Publisher::builder().max_queued_bytes(120).overflow(overflow).heartbeat(None);
        let publisher = builder.history(History::new()).build().unwrap();
        let mut subscription = publisher.subscribe().unwrap();
        publisher.publish("first");
        thread::scope(|threads| {
            let second = threads.spawn(|| publisher.publish("x".repeat(size)).subscribers());
            let start = Instant::now();
            // Until it has published or, most likely, waits.
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
