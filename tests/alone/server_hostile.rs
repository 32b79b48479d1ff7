//! EventServer under attack by many hostile clients at once: well-behaved clients notice nothing.
//!
//! `HOSTILE=1` multiplies the number of clients by ten; the limit on open files must allow for it.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::http::{Client, GET};
use crate::common::pace::{are_mostly_below, is_soon};
use crate::common::process::{held, is_back_at};
use crate::common::server::{opened, send, serve, stalled};
use crate::common::{PATIENCE, Watchdog, eventually};
use crate::no_harm::has_few_threads;
use crate::own_process::own_process;
use server_sent_events::Publisher;
use server_sent_events::server::EventServer;

/// Raises the limit on open files. Returns the factor for the number of clients.
fn times() -> usize {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    if std::env::var_os("HOSTILE").is_some() { 10 } else { 1 }
}

/// Reads a stream, and checks that no event is missing or duplicated.
fn reads_all(mut client: Client, events: usize) {
    let mut body = String::new();
    client.reads_chunks_until(&mut body, &format!("data: {} ", events - 1));
    let numbers = body.split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")?.split(' ').next());
    let numbers: Vec<usize> = numbers.map(|number| number.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..events), "{} of {events} events", numbers.len());
}

/// Sets its flag when it is dropped, even if a test has failed: other threads wait for the end.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn among_slow_heads_black_holes_and_resets_the_healthy_miss_nothing() {
    own_process!();
    let times = times();
    let _watchdog = Watchdog::new("hostile clients");
    let before = held();
    let publisher = Publisher::builder().max_queued_bytes(16 << 20).max_queued_events(100_000).build().unwrap();
    // The black holes stay to the end.
    let server = serve(EventServer::builder().write_timeout(Duration::from_secs(600)), &publisher);
    let address = server.local_addr();
    let (healthy, events) = (50 * times, 300);
    let clients: Vec<Client> = (0..healthy).map(|_| opened(address)).collect();
    let (resets, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let most_threads = AtomicUsize::new(0);

    let start = Instant::now();
    let (slow, black) = thread::scope(|threads| {
        let ends = Over(&over);
        let slow = threads.spawn(|| {
            let mut slow: Vec<Client> = (0..100 * times).map(|_| send(address, "GET /")).collect();
            while !over.load(SeqCst) {
                // Streams that were too slow have been disconnected.
                for client in &mut slow {
                    client.sends_if_it_can("x");
                }
                thread::park_timeout(Duration::from_millis(50));
            }
            slow
        });
        let black = threads.spawn(|| (0..100 * times).map(|_| stalled(address)).collect::<Vec<_>>());
        for thread in 0..2 {
            let resets = &resets;
            threads.spawn(move || {
                for n in 0..250 * times {
                    let mut client = send(address, if n % 2 == 0 { GET } else { "GET /half" });
                    if n % 4 == 2 * thread {
                        client.reads_head_if_it_comes();
                    }
                    client.resets();
                    resets.fetch_add(1, SeqCst);
                }
            });
        }
        threads.spawn(|| {
            while !over.load(SeqCst) {
                most_threads.fetch_max(held().0, SeqCst);
                thread::park_timeout(Duration::from_millis(10));
            }
        });
        let filler = "x".repeat(1_000);
        let publishes = threads.spawn(move || {
            // These come in parallel with the other clients.
            for n in 0..events {
                publisher.publish(format!("{n} {filler}"));
                thread::park_timeout(Duration::from_millis(5));
            }
            publisher
        });
        let readers: Vec<_> =
            clients.into_iter().map(|client| threads.spawn(move || reads_all(client, events))).collect();
        let black = black.join().unwrap();
        let publisher = publishes.join().unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
        println!("{events} events to {healthy} healthy clients in {:?}", start.elapsed());
        eventually("all resets have been made", || resets.load(SeqCst) == 500 * times);
        drop(ends);
        let slow = slow.join().unwrap();
        // The healthy clients have closed their connections, and the resetting ones have reset theirs; the black holes
        // have not.
        eventually("only the black holes are left", || publisher.stats().subscribers == 100 * times);

        // A client that closes is removed at once, however many others there are.
        is_soon("a client that has closed is out of the registry", Duration::from_secs(1), || {
            let client = opened(address);
            assert_eq!(publisher.stats().subscribers, 100 * times + 1);
            let start = Instant::now();
            drop(client);
            eventually("it is out of the registry", || publisher.stats().subscribers == 100 * times);
            start.elapsed()
        });
        (slow, black)
    });
    let most = most_threads.load(SeqCst);
    println!("at most {most} of this crate's threads");
    // With a thread for each slow head or black hole, there would be hundreds.
    assert!(most < 50 * times, "{most} threads");
    has_few_threads();
    drop((slow, black));
    drop(server);
    eventually("threads and descriptors are where they were", || is_back_at(before));
}

#[test]
fn behind_half_requests_a_good_one_is_answered() {
    own_process!();
    let times = times();
    let publisher = Publisher::new();
    for settings in [EventServer::builder(), EventServer::builder().max_streams(10)] {
        // So it cannot be answered because one of them was given up.
        let server = serve(settings.header_read_timeout(Duration::from_secs(600)), &publisher);
        let half: Vec<Client> =
            (0..100 * times).map(|_| send(server.local_addr(), "GET / HTTP/1.1\r\nHost: localhost\r\n")).collect();
        let start = Instant::now();
        let client = opened(server.local_addr());
        println!("answered after {:?}, behind {} half requests", start.elapsed(), half.len());
        drop((client, half));
    }
}

/// The server scans request headers as they grow: sent byte by byte, that is as many times as they are long.
#[test]
fn long_heads_that_trickle_hold_up_nobody() {
    own_process!();
    let times = times();
    let _watchdog = Watchdog::new("long heads");
    let publisher = Publisher::new();
    let server = serve(EventServer::builder(), &publisher);
    let address = server.local_addr();
    let mut healthy = opened(address);
    let over = AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(|| {
            let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}", "X: yyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(60));
            let mut slow: Vec<Client> = (0..20 * times).map(|_| Client::connect(address)).collect();
            for byte in head.bytes() {
                for client in &mut slow {
                    client.sends_if_it_can(&[byte]);
                }
            }
            over.store(true, SeqCst);
        });
        let mut times = Vec::new();
        while times.is_empty() || !over.load(SeqCst) {
            let start = Instant::now();
            publisher.publish("hello");
            healthy.reads("0000000d\r\ndata: hello\n\n\r\n");
            drop(opened(address));
            times.push(start.elapsed());
        }
        are_mostly_below("an event and a new stream", PATIENCE / 10, times);
    });
}

#[test]
fn a_client_without_a_request_is_disconnected_in_time() {
    own_process!();
    let times = times();
    let publisher = Publisher::new();
    let server = serve(EventServer::builder().header_read_timeout(Duration::from_millis(300)), &publisher);
    let clients: Vec<Client> = (0..50 * times).map(|_| Client::connect(server.local_addr())).collect();
    for client in clients {
        let mut bytes = Vec::new();
        client.into_socket().read_to_end(&mut bytes).unwrap();
        assert!(bytes.starts_with(b"HTTP/1.1 408 "));
    }
}
