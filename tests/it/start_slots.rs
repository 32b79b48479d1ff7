//! First writes may block some of the writer threads; a stream that waits for its own can be ended.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::common::writers::Gate;
use crate::common::{PATIENCE, eventually};
use server_sent_events::{BackgroundOptions, EndCause, Publisher, SubscriptionHandle};

/// Returns a publisher of which two streams may be blocked in their first write, and two that are.
struct Full {
    publisher: Publisher,
    blocked: [Gate; 2],
}

impl Full {
    fn new() -> Self {
        let publisher = Publisher::builder().max_writer_threads(4).heartbeat(None).build().unwrap();
        let full = Self { publisher, blocked: Default::default() };
        for gate in &full.blocked {
            full.write(gate, BackgroundOptions::new());
            eventually("a first write no longer keeps the next stream waiting", || gate.has_begun());
        }
        full
    }

    fn write(&self, gate: &Gate, options: BackgroundOptions) -> SubscriptionHandle {
        let subscription = self.publisher.subscription(()).initial_data(["hello"]).open().unwrap();
        let handle = subscription.handle();
        subscription.write_in_background_with_options(gate.clone(), options).unwrap();
        handle
    }

    /// A stream that waits to begin.
    fn waiting(&self, options: BackgroundOptions) -> (Gate, SubscriptionHandle, Receiver<EndCause>) {
        let (gate, (ended, end)) = (Gate::default(), channel());
        let handle = self.write(&gate, options.on_end(move |cause| ended.send(cause).unwrap()));
        assert_eq!(self.publisher.stats().subscribers, 3);
        (gate, handle, end)
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        for gate in &self.blocked {
            gate.open();
        }
    }
}

/// Checks that it ends for this reason, without a written byte, and leaves nothing behind.
#[track_caller]
fn ends_unwritten(full: &Full, gate: &Gate, end: &Receiver<EndCause>, cause: EndCause) {
    assert_eq!(end.recv_timeout(PATIENCE), Ok(cause));
    assert!(gate.is_dropped_by_the_stream(), "the writer is dropped before the hook is called");
    assert!(!gate.has_begun());
    // The hook is called by a thread that is not blocked.
    assert!(full.blocked.iter().all(|gate| !gate.is_dropped_by_the_stream()));
}

#[test]
fn a_first_write_that_is_blocked_keeps_the_next_stream_waiting_for_a_second_only() {
    let full = Full::new();
    for gate in &full.blocked {
        gate.open();
    }
    for gate in &full.blocked {
        eventually("the blocked stream is written", || gate.text() == "data: hello\n\n");
    }
}

#[test]
fn no_more_than_half_of_the_threads_are_blocked_in_first_writes() {
    let full = Full::new();
    let (third, fourth) = (full.waiting(BackgroundOptions::new()).0, Gate::default());
    full.write(&fourth, BackgroundOptions::new());
    full.blocked[0].open();
    third.open();
    eventually("one begins when another has begun", || third.text() == "data: hello\n\n");
    eventually("and then the next one", || fourth.has_begun());
    fourth.open();
}

#[test]
fn streams_that_have_begun_go_on_while_all_slots_are_taken() {
    let publisher = Publisher::builder().max_writer_threads(4).heartbeat(None).build().unwrap();
    let running = Gate::default();
    running.open();
    publisher.subscribe().unwrap().write_in_background(running.clone()).unwrap();
    publisher.publish("begin");
    eventually("it has begun", || running.text() == "data: begin\n\n");
    let full = Full { publisher, blocked: Default::default() };
    for gate in &full.blocked {
        full.write(gate, BackgroundOptions::new());
        eventually("it is blocked", || gate.has_begun());
    }
    full.publisher.publish("go on");
    eventually("it goes on", || running.text() == "data: begin\n\ndata: go on\n\n");
}

#[test]
fn a_stream_that_waits_to_begin_can_be_disconnected() {
    let full = Full::new();
    let (gate, handle, end) = full.waiting(BackgroundOptions::new());
    assert!(handle.disconnect());
    ends_unwritten(&full, &gate, &end, EndCause::Disconnected);
    let stats = full.publisher.stats();
    assert_eq!((stats.subscribers, stats.ended.disconnected), (2, 1));
}

#[test]
fn a_stream_that_waits_to_begin_times_out() {
    let full = Full::new();
    // Longer than the blocked streams count as recent; they stay blocked.
    let (gate, _, end) = full.waiting(BackgroundOptions::new().write_timeout(Duration::from_millis(1_500)));
    ends_unwritten(&full, &gate, &end, EndCause::WriteTimedOut);
    let stats = full.publisher.stats();
    assert_eq!((stats.subscribers, stats.ended.write_timed_out), (2, 1));
}

#[test]
fn a_stream_that_is_closed_while_it_waits_is_written_if_it_can_begin_in_time() {
    let full = Full::new();
    let (gate, handle, end) = full.waiting(BackgroundOptions::new());
    gate.open();
    full.publisher.publish("last");
    assert!(handle.close());
    full.blocked[1].open();
    assert_eq!(end.recv_timeout(PATIENCE), Ok(EndCause::Closed));
    assert_eq!(gate.text(), "data: hello\n\ndata: last\n\n");
}

#[test]
fn a_stream_that_is_closed_while_it_waits_ends_if_it_cannot_begin_in_time() {
    let full = Full::new();
    let (gate, _, end) = full.waiting(BackgroundOptions::new().write_timeout(Duration::from_millis(50)));
    full.publisher.close();
    ends_unwritten(&full, &gate, &end, EndCause::Closed);
}

#[test]
fn a_shutdown_ends_a_stream_that_waits_to_begin() {
    let full = Full::new();
    let (gate, _, end) = full.waiting(BackgroundOptions::new());
    assert_eq!(full.publisher.shutdown(Duration::from_millis(50)), 3);
    ends_unwritten(&full, &gate, &end, EndCause::Closed);
}

#[test]
fn the_last_handle_of_the_publisher_ends_a_stream_that_waits_to_begin() {
    let Full { publisher, blocked } = &mut Full::new();
    let full = Full { publisher: publisher.clone(), blocked: blocked.clone() };
    let (gate, _, end) = full.waiting(BackgroundOptions::new());
    drop(full);
    gate.open();
    *publisher = Publisher::new();
    assert_eq!(end.recv_timeout(PATIENCE), Ok(EndCause::Closed));
    assert_eq!(gate.text(), "data: hello\n\n");
}
