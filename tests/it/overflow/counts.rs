//! The statistics count each event once: queued, and then delivered, skipped or dropped.

use std::io::BufRead;
use std::thread;

use super::*;
use crate::common::PATIENCE;
use server_sent_events::History;

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
    // The last one is a heartbeat, which comes once the queue is empty.
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
