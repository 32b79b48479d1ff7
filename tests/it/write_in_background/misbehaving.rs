//! Writers that fail, panic or are slow affect no stream but their own.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::*;
use crate::common::{Watchdog, seed};
use fastrand::Rng;
use server_sent_events::Subscription;

/// A writer that follows a seed, and records whether it was used after an error.
struct Misbehaves {
    rng: Rng,
    kept: Kept,
    failed: bool,
    used_after: Arc<AtomicUsize>,
}

impl Misbehaves {
    fn fails(&mut self, error: ErrorKind) -> io::Error {
        self.failed = true;
        error.into()
    }
}

impl Write for Misbehaves {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.used_after.fetch_add(usize::from(self.failed), SeqCst);
        match self.rng.u32(..400) {
            0 => Err(self.fails(ErrorKind::BrokenPipe)),
            1 => Err(self.fails(ErrorKind::WouldBlock)),
            2 => {
                self.failed = true;
                Ok(0)
            }
            3 => {
                self.failed = true;
                panic!("a panic that belongs to this test")
            }
            4..100 => Err(ErrorKind::Interrupted.into()),
            100..200 => self.kept.write(&bytes[..1 + self.rng.usize(..bytes.len())]),
            _ => self.kept.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.used_after.fetch_add(usize::from(self.failed), SeqCst);
        if self.rng.u32(..400) == 0 { Err(self.fails(ErrorKind::TimedOut)) } else { Ok(()) }
    }
}

#[test]
fn a_misbehaving_writer_affects_no_other_stream() {
    const EVENTS: usize = 1_000;
    let seed = seed("misbehaving writers");
    let _watchdog = Watchdog::new(&format!("misbehaving writers with SEED={seed}"));
    let publisher = Publisher::builder().max_queued_events(EVENTS + 1).build().unwrap();
    let used_after = Arc::new(AtomicUsize::new(0));
    let (ended, ends) = channel();
    let options = || {
        let ended: Sender<EndCause> = ended.clone();
        BackgroundOptions::new().on_end(move |cause| ended.send(cause).unwrap())
    };
    let open = || -> Subscription { publisher.subscribe().unwrap() };
    let healthy: Vec<Kept> = (0..10).map(|_| Kept::default()).collect();
    let broken: Vec<Kept> = (0..200).map(|_| Kept::default()).collect();
    for kept in &healthy {
        open().write_in_background_with_options(kept.clone(), options()).unwrap();
    }
    for (n, kept) in (0..).zip(&broken) {
        let rng = Rng::with_seed(seed ^ n);
        let writer = Misbehaves { rng, kept: kept.clone(), failed: false, used_after: Arc::clone(&used_after) };
        open().write_in_background_with_options(writer, options()).unwrap();
    }

    let mut all = String::new();
    for n in 0..EVENTS {
        publisher.publish(n.to_string());
        all += &format!("data: {n}\n\n");
    }
    publisher.close();
    let causes: Vec<EndCause> = (0..210).map(|_| ends.recv_timeout(PATIENCE).unwrap()).collect();

    assert!(healthy.iter().all(|kept| kept.text() == all), "a healthy stream was affected");
    assert!(broken.iter().all(|kept| all.starts_with(&kept.text())), "something was written twice or left out");
    assert_eq!(used_after.load(SeqCst), 0, "written to after an error");
    let stats = publisher.stats();
    assert_eq!((stats.subscribers, stats.ended.closed + stats.ended.connection_lost), (0, 210));
    let disconnected = causes.iter().filter(|cause| matches!(cause, EndCause::ConnectionLost(_))).count() as u64;
    assert_eq!(stats.ended.connection_lost, disconnected);
    assert!(broken.iter().any(|kept| kept.text() != all), "nothing failed");
}

#[test]
fn every_stream_ends_once_while_many_threads_publish_hand_over_close_and_drop() {
    let seed = seed("written in the background from many threads");
    let _watchdog = Watchdog::new(&format!("write_in_background with SEED={seed}"));
    let (ended, ends) = channel();
    let mut handed_over = 0;
    for round in 0..5 {
        let publisher = Publisher::builder()
            .max_queued_events(32)
            .heartbeat(Duration::from_millis(5))
            .max_writer_threads(1 + round * 2)
            .build()
            .unwrap();
        handed_over += std::thread::scope(|threads| {
            let actors: Vec<_> = (0..8)
                .map(|number| {
                    let (publisher, ended) = (publisher.clone(), ended.clone());
                    threads.spawn(move || {
                        let mut rng = Rng::with_seed(seed ^ number ^ (round as u64) << 8);
                        let mut handed_over = 0;
                        let mut clients = Vec::new();
                        for _ in 0..500 {
                            match rng.u32(..100) {
                                0..60 => drop(publisher.publish("x".repeat(rng.usize(..2_000))).subscribers()),
                                60..75 => {
                                    let (ended, kept) = (ended.clone(), Kept::default());
                                    let options =
                                        BackgroundOptions::new().on_end(move |cause| ended.send(cause).unwrap());
                                    let subscription = publisher.subscribe().unwrap();
                                    let rng = Rng::with_seed(rng.u64(..));
                                    let used_after = Arc::default();
                                    let writer = Misbehaves { rng, kept, failed: false, used_after };
                                    subscription.write_in_background_with_options(writer, options).unwrap();
                                    handed_over += 1;
                                }
                                75..80 => {
                                    let ended = ended.clone();
                                    let options =
                                        BackgroundOptions::new().on_end(move |cause| ended.send(cause).unwrap());
                                    let options = options.write_timeout(Duration::from_millis(20));
                                    let (client, connection) = connection();
                                    publisher
                                        .subscribe()
                                        .unwrap()
                                        .write_in_background_with_options(connection, options)
                                        .unwrap();
                                    handed_over += 1;
                                    clients.push(client);
                                }
                                80..90 if !clients.is_empty() => drop(clients.swap_remove(rng.usize(..clients.len()))),
                                90 => publisher.close(),
                                91 => drop(publisher.unsubscribe_if("default channel", |()| true)),
                                _ => drop(publisher.subscribe().unwrap()),
                            }
                        }
                        handed_over
                    })
                })
                .collect();
            actors.into_iter().map(|actor| actor.join().unwrap()).sum::<usize>()
        });
    }
    let mut counts = std::collections::HashMap::new();
    for _ in 0..handed_over {
        *counts.entry(ends.recv_timeout(PATIENCE).expect("a stream did not end")).or_insert(0) += 1;
    }
    assert!(ends.recv_timeout(Duration::ZERO).is_err(), "an end was reported twice");
    println!("{handed_over} streams ended: {counts:?}");
}
