//! A publisher that waits is released when its subscriber reads, is written to, or leaves.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;

/// Checks that a subscriber that leaves this way frees two waiting publishers. Returns how many others get each event.
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
    let _watchdog = Watchdog::new("a publisher that waits for a subscriber that has left");
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

/// A writer that is blocked until the test sends it a result.
struct Blocks(Sender<()>, Receiver<io::Result<()>>);

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(());
        self.1.recv().unwrap().map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a subscriber with room for one frame, whose writer is blocked in the write of another.
fn blocked_writer(publisher: &Publisher, overflow: Overflow) -> Sender<io::Result<()>> {
    let ((blocks, blocked), (answer, answers)) = (channel(), channel());
    slow(publisher, "default channel", 1, overflow).write_in_background(Blocks(blocks, answers)).unwrap();
    publisher.publish("0");
    blocked.recv_timeout(PATIENCE).unwrap();
    publisher.publish("1");
    answer
}

#[test]
fn publish_waits_for_a_background_stream_whose_writer_is_blocked() {
    let publisher = Publisher::new();
    let answer = blocked_writer(&publisher, LONG);
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
    let answer = blocked_writer(&publisher, LONG);
    let third = publishing(&publisher, ["default channel"], "2");
    third.waits();
    answer.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
    assert_eq!(third.goes_on(), 0);
    assert_eq!(publisher.stats().ended.connection_lost, 1);
    assert_eq!(counts(&publisher), [2, 0, 0, 0]);
}

#[test]
fn publishers_and_a_reader_lose_no_wake_up() {
    let _watchdog = Watchdog::new("a lost wake-up");
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
