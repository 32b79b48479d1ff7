//! A publisher shuts down: it refuses new subscriptions, sends a farewell, delivers what is queued, and ends every
//! stream.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::writers::Gate;
use crate::common::{PATIENCE, ends, eventually, gets, gets_data};
use server_sent_events::{BackgroundOptions, EndCause, Event, OpenError, Publisher, Shutdown, Subscription};

/// Returns the reconnection time in the next frame.
#[track_caller]
fn retry(subscription: &mut Subscription) -> u64 {
    let frame = subscription.recv_timeout(PATIENCE).unwrap();
    let retry = frame.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n"));
    retry.unwrap_or_else(|| panic!("{frame:?}")).parse().unwrap()
}

#[test]
fn queued_events_come_before_the_farewell_the_retry_time_and_the_end() {
    let publisher = Publisher::builder().max_queued_events(1).build().unwrap();
    let mut subscription = publisher.subscribe().unwrap();
    publisher.publish("queued");
    let farewell = Event::new("back soon").event("restart").unwrap();
    let shutdown =
        Shutdown::new(PATIENCE).farewell(farewell).retry_between(Duration::from_secs(3), Duration::from_secs(5));
    thread::scope(|threads| {
        threads.spawn(move || {
            gets_data(&mut subscription, "queued");
            gets(&mut subscription, "event: restart\ndata: back soon\n\n");
            assert!((3_000..=5_000).contains(&retry(&mut subscription)));
            ends(&mut subscription, EndCause::Closed);
        });
        assert_eq!(publisher.shutdown_with(shutdown), 0);
    });
}

#[test]
fn each_client_is_sent_its_own_retry_time() {
    let publisher = Publisher::new();
    let mut all: Vec<_> = (0..1_000).map(|_| publisher.subscribe().unwrap()).collect();
    let shutdown = Shutdown::new(Duration::ZERO).retry_between(Duration::from_secs(1), Duration::from_secs(11));
    assert_eq!(publisher.shutdown_with(shutdown), 1_000);
    // Disconnected, since the grace was over at once: nothing more is sent.
    for subscription in &mut all {
        assert_eq!(subscription.next(), None);
    }

    let publisher = Publisher::new();
    let all: Vec<_> = (0..1_000).map(|_| publisher.subscribe().unwrap()).collect();
    let readers = thread::spawn(move || all.into_iter().map(|mut one| retry(&mut one)).collect::<Vec<_>>());
    let shutdown = Shutdown::new(PATIENCE).retry_between(Duration::from_secs(1), Duration::from_secs(11));
    assert_eq!(publisher.shutdown_with(shutdown), 0);
    let times = readers.join().unwrap();
    assert!(times.iter().all(|time| (1_000..=11_000).contains(time)));
    assert!(times.iter().collect::<BTreeSet<_>>().len() > 900, "most differ");
    for second in 1..11 {
        let in_it = times.iter().filter(|time| **time / 1_000 == second).count();
        assert!((50..200).contains(&in_it), "{in_it} reconnect in second {second}");
    }
}

#[test]
fn a_latest_time_before_the_earliest_counts_as_the_earliest() {
    let publisher = Publisher::new();
    let all: Vec<_> = (0..10).map(|_| publisher.subscribe().unwrap()).collect();
    let readers = thread::spawn(move || all.into_iter().map(|mut one| retry(&mut one)).collect::<Vec<_>>());
    let shutdown = Shutdown::new(PATIENCE).retry_between(Duration::from_secs(2), Duration::from_secs(1));
    assert_eq!(publisher.shutdown_with(shutdown), 0);
    assert_eq!(readers.join().unwrap(), [2_000; 10]);
}

#[test]
fn new_subscriptions_are_refused_and_publishing_reaches_nobody() {
    let publisher = Publisher::new();
    let subscription = publisher.subscribe().unwrap();
    let handle = subscription.handle();
    drop(subscription);
    assert_eq!(publisher.shutdown(PATIENCE), 0);
    let error = publisher.subscribe().unwrap_err();
    assert_eq!(error, OpenError::ShuttingDown);
    assert_eq!(error.to_string(), "the publisher is shutting down");
    assert!(error.is_temporary(), "a browser must reconnect later");
    assert_eq!(publisher.publish("x").subscribers(), 0);
    assert_eq!(handle.join("a"), Ok(0));
    assert_eq!(publisher.shutdown(PATIENCE), 0, "once more does no harm");
}

#[test]
fn shutdown_waits_until_the_streams_are_written_and_no_longer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let publisher = Publisher::new();
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            publisher.subscribe().unwrap().write_in_background(listener.accept().unwrap().0).unwrap();
            client
        })
        .collect();
    publisher.publish("the last word");
    let start = Instant::now();
    assert_eq!(publisher.shutdown(PATIENCE), 0);
    assert!(start.elapsed() < PATIENCE);
    assert_eq!(publisher.stats().subscribers, 0);
    for mut client in clients {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("data: the last word\n\nretry: "), "{text:?}");
    }
}

#[test]
fn a_stream_that_does_not_end_within_the_grace_is_disconnected_and_counted() {
    let (publisher, gate) = (Publisher::new(), Gate::default());
    publisher.subscribe().unwrap().write_in_background(gate.clone()).unwrap();
    let mut unread = publisher.subscribe().unwrap();
    publisher.publish("x");
    eventually("its write is blocked", || gate.has_begun());
    assert_eq!(publisher.shutdown(Duration::from_millis(20)), 2);
    assert_eq!(unread.next(), None);
    gate.open();
    drop(unread);
    assert_eq!(publisher.shutdown(PATIENCE), 0);
}

#[test]
fn a_blocked_socket_is_shut_down_after_the_grace() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let publisher = Publisher::builder().max_queued_bytes(100_000_000).build().unwrap();
    publisher.subscribe().unwrap().write_in_background(listener.accept().unwrap().0).unwrap();
    // More than the kernel buffers.
    for _ in 0..100 {
        publisher.publish("x".repeat(200_000));
    }
    assert_eq!(publisher.shutdown(Duration::from_millis(50)), 1);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = vec![0; 1 << 20];
    while client.read(&mut buffer).is_ok_and(|read| read > 0) {}
    eventually("the writer has let it go", || publisher.shutdown(Duration::ZERO) == 0);
}

/// A stream that was closed before must not block the shutdown: its client may not read.
#[test]
fn a_stream_that_ended_before_and_is_not_read_is_disconnected_after_the_grace() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let publisher = Publisher::builder().max_queued_bytes(100_000_000).build().unwrap();
    let (ended, end) = std::sync::mpsc::channel();
    let options = BackgroundOptions::new().write_timeout(None).on_end(move |cause| ended.send(cause).unwrap());
    publisher.subscribe().unwrap().write_in_background_with_options(listener.accept().unwrap().0, options).unwrap();
    for _ in 0..100 {
        publisher.publish("x".repeat(200_000));
    }
    publisher.close();
    assert_eq!(publisher.shutdown(Duration::from_millis(50)), 1);
    assert_eq!(end.recv_timeout(PATIENCE), Ok(EndCause::Closed));
}

/// A writer may write something in its `Drop`, and the program ends when the shutdown returns.
#[test]
fn shutdown_returns_after_the_writers_are_dropped() {
    struct SaysGoodbye(Arc<AtomicBool>);
    impl Write for SaysGoodbye {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Drop for SaysGoodbye {
        fn drop(&mut self) {
            // Long enough for the other thread, if it does not wait.
            thread::sleep(Duration::from_millis(100));
            self.0.store(true, SeqCst);
        }
    }
    let publisher = Publisher::new();
    let response = Arc::new(AtomicBool::new(false));
    publisher.subscribe().unwrap().write_in_background(SaysGoodbye(Arc::clone(&response))).unwrap();
    assert_eq!(publisher.shutdown(PATIENCE), 0);
    assert!(response.load(SeqCst));
}
