//! Heartbeats of streams in the background.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;

#[test]
fn a_silent_stream_is_sent_heartbeats_and_a_busy_one_is_not() {
    let publisher = Publisher::builder().heartbeat(Duration::from_millis(40)).build().unwrap();
    let (silent, busy, never) = (Kept::default(), Paced::default(), Kept::default());
    let open = |channel: &str| publisher.subscription(()).channels(channel);
    open("silent").open().unwrap().write_in_background(silent.clone()).unwrap();
    let interval = Duration::from_millis(500);
    open("busy").heartbeat(interval).open().unwrap().write_in_background(busy.clone()).unwrap();
    open("never").heartbeat(None).open().unwrap().write_in_background(never.clone()).unwrap();
    let start = Instant::now();
    eventually("five heartbeats, and more events than one interval has", || {
        publisher.publish_to("busy", "x");
        silent.text().len() >= ":\n".len() * 5 && start.elapsed() > 2 * interval
    });
    assert!(silent.text().lines().all(|line| line == ":"), "{:?}", silent.text());
    // On a busy machine, even this stream can be silent for as long.
    for (text, pause) in &*busy.0.lock().unwrap() {
        let is_heartbeat = text.lines().any(|line| line == ":");
        assert!(!is_heartbeat || *pause >= interval * 9 / 10, "a heartbeat after {pause:?}");
    }
    assert_eq!(never.text(), "");
}

/// A writer that stores what is written, each with the time since the write before.
#[derive(Clone, Default)]
struct Paced(Arc<Mutex<Vec<(String, Duration)>>>, Option<Instant>);

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.1.replace(Instant::now());
        let pause = before.map_or(Duration::MAX, |before| before.elapsed());
        self.0.lock().unwrap().push((String::from_utf8(bytes.to_vec()).unwrap(), pause));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
