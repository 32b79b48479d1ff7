//! `DropOldest`: the oldest events make room, and a gap in their place reports how many.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;

use super::*;
use crate::common::writers::Kept;
use crate::common::{PATIENCE, Watchdog, eventually, parsed};
use server_sent_events::{BackgroundOptions, EndCause, History};

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
    // 4 is in the queue.
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
fn a_closure_that_is_dropped_for_others_goes_at_once_and_without_the_lock() {
    struct CallsBack(Publisher, Arc<AtomicBool>);
    impl Drop for CallsBack {
        fn drop(&mut self) {
            self.0.stats();
            self.1.store(true, SeqCst);
        }
    }
    let _watchdog = Watchdog::new("a drop under the lock");
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
