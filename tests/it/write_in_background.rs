//! A stream in the background is written by the publisher's few threads, whatever its writer does, and its end
//! is told with its cause.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::common::writers::Kept;
use crate::common::{PATIENCE, Watchdog, eventually, seed};
use fastrand::Rng;
use server_sent_events::{BackgroundOptions, EndCause, Event, InvalidSetting, Publisher, Subscription};

/// Options that tell the end, and where it is told.
fn told() -> (BackgroundOptions, Receiver<EndCause>) {
    let (ended, end) = channel();
    (BackgroundOptions::new().on_end(move |cause| ended.send(cause).unwrap()), end)
}

/// It ended for this reason.
#[track_caller]
fn ended(end: &Receiver<EndCause>, cause: EndCause) {
    assert_eq!(end.recv_timeout(PATIENCE), Ok(cause));
}

/// The two ends of a connection: the client's, and the one to write to.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn events_queued_before_and_published_after_are_written_in_order() {
    let publisher = Publisher::new();
    let kept = Kept::default();
    let subscription = publisher.subscription(()).initial_data(["1"]).open().unwrap();
    publisher.publish("2");
    subscription.write_in_background(kept.clone()).unwrap();
    kept.becomes("data: 1\n\ndata: 2\n\n");
    publisher.publish("3");
    kept.becomes("data: 1\n\ndata: 2\n\ndata: 3\n\n");
}

#[test]
fn closures_are_rendered_and_nothing_else_is_written() {
    let publisher = crate::common::publisher::<u8>();
    let kept = Kept::default();
    publisher.subscription(7).open().unwrap().write_in_background(kept.clone()).unwrap();
    publisher.publish_with("default channel", |n: &u8| (*n != 7).then(|| Event::new("skipped")));
    publisher.publish_with("default channel", |n: &u8| Some(Event::new(n.to_string())));
    publisher.publish_with("default channel", |_: &u8| panic!("a panic that belongs to this test"));
    kept.becomes("data: 7\n\nevent: gap\ndata: {\"lost\":1}\n\n");
}

#[test]
fn a_socket_is_closed_at_the_end() {
    let publisher = Publisher::new();
    let (mut client, connection) = connection();
    publisher.subscribe().unwrap().write_in_background(connection).unwrap();
    publisher.publish("bye");
    publisher.close();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "data: bye\n\n");
}

#[test]
fn a_large_event_and_many_small_ones_are_written_unchanged() {
    let publisher = Publisher::new();
    let kept = Kept::default();
    publisher.subscribe().unwrap().write_in_background(kept.clone()).unwrap();
    let large = "x".repeat(500_000);
    publisher.publish(&large);
    let mut all = format!("data: {large}\n\n");
    for n in 0..1_000 {
        publisher.publish(n.to_string());
        all += &format!("data: {n}\n\n");
    }
    eventually("all was written", || kept.text().len() == all.len());
    assert!(kept.text() == all);
}

#[test]
fn closing_ends_the_stream_with_its_cause() {
    let publisher = Publisher::new();
    let (options, end) = told();
    publisher.subscribe().unwrap().write_in_background_with_options(Kept::default(), options).unwrap();
    publisher.close();
    ended(&end, EndCause::Closed);
}

#[test]
fn dropping_the_last_handle_ends_the_stream_after_its_queued_events() {
    let publisher = Publisher::new();
    let (options, end) = told();
    let kept = Kept::default();
    publisher.subscribe().unwrap().write_in_background_with_options(kept.clone(), options).unwrap();
    publisher.publish("the last word");
    drop(publisher);
    ended(&end, EndCause::Closed);
    assert_eq!(kept.text(), "data: the last word\n\n");
}

#[test]
fn a_stream_handed_over_after_the_publisher_has_gone_is_written_to_its_end() {
    let publisher = Publisher::new();
    let (options, end) = told();
    let kept = Kept::default();
    let subscription = publisher.subscribe().unwrap();
    publisher.publish("the last word");
    drop(publisher);
    subscription.write_in_background_with_options(kept.clone(), options).unwrap();
    ended(&end, EndCause::Closed);
    assert_eq!(kept.text(), "data: the last word\n\n");
}

#[test]
fn unsubscribing_ends_the_stream_with_its_cause() {
    let publisher = Publisher::new();
    let (options, end) = told();
    publisher.subscribe().unwrap().write_in_background_with_options(Kept::default(), options).unwrap();
    publisher.unsubscribe_if("default channel", |()| true);
    ended(&end, EndCause::Unsubscribed);
    assert_eq!(publisher.stats().ended.unsubscribed, 1);
}

#[test]
fn a_lost_connection_ends_the_stream_with_its_cause() {
    let publisher = Publisher::new();
    let (options, end) = told();
    let (client, connection) = connection();
    publisher.subscribe().unwrap().write_in_background_with_options(connection, options).unwrap();
    drop(client);
    eventually("a write fails", || {
        publisher.publish("x");
        publisher.stats().subscribers == 0
    });
    let cause = end.recv_timeout(PATIENCE).unwrap();
    let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].map(EndCause::ConnectionLost);
    assert!(kinds.contains(&cause), "{cause:?}");
    assert_eq!(publisher.stats().ended.connection_lost, 1);
}

#[test]
fn a_full_queue_ends_a_blocked_write() {
    let publisher = Publisher::builder().max_queued_events(4).build().unwrap();
    let (options, end) = told();
    let (_client, connection) = connection();
    let options = options.write_timeout(None);
    publisher.subscribe().unwrap().write_in_background_with_options(connection, options).unwrap();
    let large = "x".repeat(1_000_000);
    eventually("the client's stream is ended", || {
        publisher.publish(&large);
        publisher.stats().ended.queue_full == 1
    });
    // It hung in a write without a deadline; that its stream has ended frees it all the same.
    ended(&end, EndCause::QueueFull);
}

#[test]
fn a_write_beyond_its_timeout_ends_the_stream() {
    let publisher = Publisher::new();
    let (options, end) = told();
    let (mut client, connection) = connection();
    let options = options.write_timeout(Duration::from_millis(50));
    publisher.subscribe().unwrap().write_in_background_with_options(connection, options).unwrap();
    publisher.publish("x".repeat(20_000_000));
    ended(&end, EndCause::WriteTimedOut);
    assert_eq!(publisher.stats().ended.write_timed_out, 1);
    assert_eq!(publisher.stats().subscribers, 0);
    // What the kernel had taken is still delivered, and then the end is seen.
    let taken = client.read_to_end(&mut Vec::new()).unwrap_or(0);
    assert!(taken < 20_000_000);
}

#[test]
fn a_write_timeout_of_zero_is_rejected() {
    let publisher = Publisher::new();
    let options = BackgroundOptions::new().write_timeout(Duration::ZERO);
    let error = publisher.subscribe().unwrap().write_in_background_with_options(Kept::default(), options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "`write_timeout` must be greater than 0, or None");
    let setting = error.get_ref().and_then(|error| error.downcast_ref::<InvalidSetting>()).map(InvalidSetting::setting);
    assert_eq!(setting, Some("write_timeout"));
    assert_eq!(publisher.stats().subscribers, 0);
}

#[test]
fn the_hook_may_use_the_publisher_and_may_panic() {
    let publisher = Publisher::new();
    let (told, end) = channel();
    let inside = publisher.clone();
    let options = BackgroundOptions::new().on_end(move |_| {
        inside.publish("x");
        inside.close();
        inside.unsubscribe_if("default channel", |()| true);
        told.send((inside.stats().subscribers, inside.subscriber_properties("default channel").len())).unwrap();
        panic!("a panic that belongs to this test");
    });
    publisher.subscribe().unwrap().write_in_background_with_options(Kept::default(), options).unwrap();
    publisher.close();
    assert_eq!(end.recv_timeout(PATIENCE), Ok((0, 0)));
    // The threads are all still there.
    let kept = Kept::default();
    publisher.subscribe().unwrap().write_in_background(kept.clone()).unwrap();
    publisher.publish("after");
    kept.becomes("data: after\n\n");
}

#[test]
fn queued_events_are_dropped_before_the_end_hook_is_called() {
    /// Fails when it may.
    struct Breaks(Sender<()>, Receiver<()>);
    impl Write for Breaks {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.0.send(()).unwrap();
            self.1.recv().unwrap();
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let publisher = Publisher::new();
    let ((is_in, inside), (breaks, broken), (told, end)) = (channel(), channel(), channel());
    let captured = Arc::new(());
    let left = Arc::downgrade(&captured);
    let options = BackgroundOptions::new().on_end(move |_| told.send(left.strong_count()).unwrap());
    publisher.subscribe().unwrap().write_in_background_with_options(Breaks(is_in, broken), options).unwrap();
    publisher.publish("one");
    inside.recv_timeout(PATIENCE).unwrap();
    publisher.publish_with("default channel", move |()| Some(Event::new(format!("{captured:?}"))));
    breaks.send(()).unwrap();
    assert_eq!(end.recv_timeout(PATIENCE), Ok(0));
}

#[test]
fn hooks_that_block_hold_up_no_other_stream() {
    let publisher = Publisher::new();
    let kept = Kept::default();
    publisher.subscribe().unwrap().write_in_background(kept.clone()).unwrap();
    // More than there are processors, and so threads that wait for something to do.
    let hooks = std::thread::available_parallelism().map_or(1, usize::from) + 2;
    let (is_in, inside) = channel();
    let gates: Vec<Sender<()>> = (0..hooks)
        .map(|_| {
            let (gate, opens) = channel();
            let (is_in, subscription) = (is_in.clone(), publisher.subscribe().unwrap());
            let (handle, options) = (subscription.handle(), BackgroundOptions::new());
            let options = options.on_end(move |_| {
                is_in.send(()).unwrap();
                let _ = opens.recv();
            });
            subscription.write_in_background_with_options(io::sink(), options).unwrap();
            handle.close();
            inside.recv_timeout(PATIENCE).expect("a hook waits for another");
            gate
        })
        .collect();
    publisher.publish("meanwhile");
    kept.becomes("data: meanwhile\n\n");
    drop(gates);
}

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

/// A writer that does what a seed says, and knows whether it was used after an error.
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
    let _watchdog = Watchdog::new(&format!("misbehaving writers with SEED={seed}"), PATIENCE * 3);
    let publisher = Publisher::builder().max_queued_events(EVENTS + 1).build().unwrap();
    let used_after = Arc::new(AtomicUsize::new(0));
    let (told, ends) = channel();
    let options = || {
        let told: Sender<EndCause> = told.clone();
        BackgroundOptions::new().on_end(move |cause| told.send(cause).unwrap())
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

    assert!(healthy.iter().all(|kept| kept.text() == all), "a healthy stream noticed");
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
    let _watchdog = Watchdog::new(&format!("write_in_background with SEED={seed}"), Duration::from_secs(100));
    let (told, ends) = channel();
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
                    let (publisher, told) = (publisher.clone(), told.clone());
                    threads.spawn(move || {
                        let mut rng = Rng::with_seed(seed ^ number ^ (round as u64) << 8);
                        let mut handed_over = 0;
                        let mut clients = Vec::new();
                        for _ in 0..1_000 {
                            match rng.u32(..100) {
                                0..60 => drop(publisher.publish("x".repeat(rng.usize(..2_000))).subscribers()),
                                60..75 => {
                                    let (told, kept) = (told.clone(), Kept::default());
                                    let options =
                                        BackgroundOptions::new().on_end(move |cause| told.send(cause).unwrap());
                                    let subscription = publisher.subscribe().unwrap();
                                    let rng = Rng::with_seed(rng.u64(..));
                                    let used_after = Arc::default();
                                    let writer = Misbehaves { rng, kept, failed: false, used_after };
                                    subscription.write_in_background_with_options(writer, options).unwrap();
                                    handed_over += 1;
                                }
                                75..80 => {
                                    let told = told.clone();
                                    let options =
                                        BackgroundOptions::new().on_end(move |cause| told.send(cause).unwrap());
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
    assert!(ends.recv_timeout(Duration::ZERO).is_err(), "an end was told twice");
    println!("{handed_over} streams ended: {counts:?}");
}
