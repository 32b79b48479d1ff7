//! Readers that wait at their bell: Queue, and the order of publish, close, abort and drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::{explore, frames, publish, publisher, settings};
use crate::sync::thread;
use crate::{EndCause, Overflow};

#[test]
fn a_reader_gets_every_event_that_was_published_before_the_close_in_order_and_then_the_end() {
    explore(|| {
        let publisher = publisher();
        let mut subscription = publisher.subscribe().unwrap();
        let (publishing, closing) = (publisher.clone(), publisher.clone());
        let publishing = thread::spawn(move || publish(&publishing, &["1", "2"]));
        let closing = thread::spawn(move || closing.close());
        let received: String = subscription.by_ref().collect();
        let accepted = publishing.join().unwrap();
        closing.join().unwrap();
        assert_eq!(received, frames(&["1", "2"][..accepted]));
        assert_eq!(subscription.end_cause(), Some(EndCause::Closed));
    });
}

#[test]
fn a_reader_that_is_disconnected_ends_and_has_got_events_in_order() {
    explore(|| {
        let publisher = publisher();
        let mut subscription = publisher.subscribe().unwrap();
        let handle = subscription.handle();
        let publishing = thread::spawn(move || publish(&publisher, &["1", "2"]));
        let disconnecting = thread::spawn(move || handle.disconnect());
        let received: String = subscription.by_ref().collect();
        let accepted = publishing.join().unwrap();
        let disconnected = disconnecting.join().unwrap();
        let count = received.matches("data").count();
        assert!(count <= accepted, "got {received:?} of {accepted}");
        assert_eq!(received, frames(&["1", "2"][..count]));
        // The publisher's last handle is dropped after its events. If that comes first, all of them are delivered.
        let cause = if disconnected { EndCause::Disconnected } else { EndCause::Closed };
        assert_eq!(subscription.end_cause(), Some(cause));
        assert!(disconnected || count == 2);
    });
}

#[test]
fn the_events_of_two_publishers_have_one_order_for_all_readers() {
    explore(|| {
        let publisher = publisher();
        let mut first = publisher.subscribe().unwrap();
        let mut second = publisher.subscribe().unwrap();
        let other = publisher.clone();
        let publishing = thread::spawn(move || publish(&other, &["1"]));
        publish(&publisher, &["2"]);
        let reading = thread::spawn(move || second.by_ref().take(2).collect::<String>());
        let received: String = first.by_ref().take(2).collect();
        assert_eq!(reading.join().unwrap(), received);
        assert_eq!(publishing.join().unwrap(), 2);
        assert!([frames(&["1", "2"]), frames(&["2", "1"])].contains(&received), "got {received:?}");
    });
}

#[test]
fn a_full_queue_ends_its_stream_at_once_or_loses_nothing() {
    explore(|| {
        let publisher = settings().max_queued_events(1).build().unwrap();
        let mut subscription = publisher.subscribe().unwrap();
        let publishing = thread::spawn(move || publish(&publisher, &["1", "2"]));
        let received: String = subscription.by_ref().collect();
        publishing.join().unwrap();
        match subscription.end_cause() {
            Some(EndCause::Closed) => assert_eq!(received, frames(&["1", "2"])),
            Some(EndCause::QueueFull) => assert!(["", &frames(&["1"])].contains(&&*received), "got {received:?}"),
            cause => panic!("ended with {cause:?}"),
        }
    });
}

#[test]
fn a_queue_that_drops_its_oldest_events_reports_each_loss() {
    explore(|| {
        let publisher = settings().max_queued_events(1).overflow(Overflow::DropOldest);
        let publisher = publisher.build().unwrap();
        let mut subscription = publisher.subscribe().unwrap();
        let publishing = thread::spawn(move || publish(&publisher, &["1", "2"]));
        let received: String = subscription.by_ref().collect();
        assert_eq!(publishing.join().unwrap(), 2);
        let with_loss = format!("event: gap\ndata: {{\"lost\":1}}\n\n{}", frames(&["2"]));
        assert!([frames(&["1", "2"]), with_loss].contains(&received), "got {received:?}");
    });
}

#[test]
fn a_subscription_that_is_dropped_while_events_are_published_ends_once() {
    explore(|| {
        let ended = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ended);
        let publisher = settings().on_end(move |_| {
            count.fetch_add(1, SeqCst);
        });
        let publisher = publisher.build().unwrap();
        let subscription = publisher.subscribe().unwrap();
        let (publishing, closing) = (publisher.clone(), publisher.clone());
        let publishing = thread::spawn(move || publish(&publishing, &["1"]));
        let closing = thread::spawn(move || closing.close());
        drop(subscription);
        publishing.join().unwrap();
        closing.join().unwrap();
        assert_eq!(ended.load(SeqCst), 1);
        assert_eq!(publisher.stats().subscribers, 0);
    });
}

#[test]
fn the_hook_of_the_end_runs_once_and_after_that_of_the_beginning() {
    explore(|| {
        let calls = Arc::new(std::sync::Mutex::new(String::new()));
        let (opened, ended) = (Arc::clone(&calls), Arc::clone(&calls));
        let publisher = settings()
            .on_open(move |_| opened.lock().unwrap().push('o'))
            .on_end(move |_| ended.lock().unwrap().push('e'))
            .build()
            .unwrap();
        let closing = publisher.clone();
        let closing = thread::spawn(move || closing.close());
        let subscription = publisher.subscribe().unwrap();
        closing.join().unwrap();
        drop(subscription);
        assert_eq!(*calls.lock().unwrap(), "oe");
    });
}
