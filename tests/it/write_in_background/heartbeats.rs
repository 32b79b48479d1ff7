//! Heartbeats of streams in the background.

use std::io::{self, Write};
use std::time::Duration;

use super::*;

#[test]
fn a_silent_stream_is_sent_heartbeats_and_a_busy_one_is_not() {
    let publisher = Publisher::builder().heartbeat(Duration::from_millis(40)).build().unwrap();
    let (silent, busy, never) = (Kept::default(), Kept::default(), Kept::default());
    let open = |channel: &str| publisher.subscription(()).channels(channel);
    open("silent").open().unwrap().write_in_background(silent.clone()).unwrap();
    open("busy").heartbeat(Duration::from_millis(500)).open().unwrap().write_in_background(busy.clone()).unwrap();
    open("never").heartbeat(None).open().unwrap().write_in_background(never.clone()).unwrap();
    eventually("five heartbeats", || {
        publisher.publish_to("busy", "x");
        silent.text() == ":\n".repeat(5)
    });
    assert!(busy.text().split_inclusive("\n\n").all(|frame| frame == "data: x\n\n"));
    assert_eq!(never.text(), "");
}

#[test]
fn a_write_that_takes_longer_than_the_interval_is_no_silence() {
    struct Slow(Kept);
    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_millis(60));
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let publisher = Publisher::builder().heartbeat(Duration::from_millis(40)).build().unwrap();
    let kept = Kept::default();
    let subscription = publisher.subscribe().unwrap();
    for n in 0..10 {
        publisher.publish(format!("{n} {}", "x".repeat(64 * 1024)));
    }
    subscription.write_in_background(Slow(kept.clone())).unwrap();
    eventually("all are written", || kept.text().contains("data: 9 "));
    let first = kept.text();
    assert!(!first.split("data: 9 ").next().unwrap().contains("\n:\n"), "a heartbeat between two writes");
}

#[test]
fn heartbeats_detect_clients_that_have_gone() {
    let publisher = Publisher::builder().heartbeat(Duration::from_millis(20)).build().unwrap();
    let clients: Vec<TcpStream> = (0..100)
        .map(|_| {
            let (client, connection) = connection();
            publisher.subscribe().unwrap().write_in_background(connection).unwrap();
            client
        })
        .collect();
    drop(clients);
    eventually("all have left", || publisher.stats().subscribers == 0);
    assert_eq!(publisher.stats().ended.connection_lost, 100);
}
