//! Clients of `hub` that disconnect and resume at random while other clients publish: nothing is lost without a gap,
//! nothing comes twice, nothing is out of order.
//!
//! `RESUME_SECONDS` is the duration; 1 by default.

use std::io::Read;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::example::{Example, built_examples};
use crate::common::{Watchdog, seed};
use fastrand::Rng;

const CLIENTS: usize = 200;

#[derive(Default)]
struct Counts {
    events: AtomicUsize,
    connections: AtomicUsize,
    gaps: AtomicUsize,
}

/// What a client remembers: the sequence of its last event, and whether it has received a gap since then.
#[derive(Default)]
struct Client {
    id: Option<String>,
    last: Option<u64>,
    has_gap: bool,
}

fn sequence(id: &str) -> u64 {
    id.rsplit_once('-').unwrap().1.parse().unwrap()
}

impl Client {
    /// Takes one whole block. Returns `true` if it was the last event of all.
    fn takes(&mut self, block: &str, counts: &Counts) -> bool {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        if let Some(id) = field("id: ") {
            self.id = Some(id.to_owned());
            // A client that has received no event misses nothing after its first ID, which comes alone.
            if field("data: ").is_none() {
                self.last.get_or_insert_with(|| sequence(id));
            }
        }
        if field("event: ") == Some("gap") {
            counts.gaps.fetch_add(1, SeqCst);
            self.has_gap = true;
            return false;
        }
        let Some(data) = field("data: ") else { return false };
        let id = self.id.as_deref().expect("an event without an id");
        let sequence = sequence(id);
        let last = self.last.replace(sequence).expect("an event before the first id");
        assert!(sequence > last, "{sequence} came after {last}");
        assert!(sequence == last + 1 || self.has_gap, "{sequence} came after {last} without a gap");
        self.has_gap = false;
        counts.events.fetch_add(1, SeqCst);
        data == "the end"
    }

    /// Connects, and reads until this many bytes have arrived, or the stream ends.
    fn connects(&mut self, url: &str, mut bytes: usize, counts: &Counts) -> bool {
        counts.connections.fetch_add(1, SeqCst);
        let mut request = ureq::get(url);
        if let Some(id) = &self.id {
            request = request.header("Last-Event-ID", id);
        }
        let mut body = request.call().unwrap().into_body().into_reader();
        let (mut wire, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        while bytes > 0 {
            let most = bytes.min(buffer.len());
            let Ok(read @ 1..) = body.read(&mut buffer[..most]) else { break };
            bytes -= read;
            wire.extend_from_slice(&buffer[..read]);
            let mut whole = 0;
            while let Some(end) = wire[whole..].windows(2).position(|two| two == b"\n\n") {
                let block = std::str::from_utf8(&wire[whole..whole + end]).unwrap();
                whole += end + 2;
                if self.takes(block, counts) {
                    return true;
                }
            }
            wire.drain(..whole);
        }
        false
    }
}

/// Lets 200 clients come and go while `publish` publishes from two threads, then until each has received the end.
fn run(test: &str, hub: &[&str], publish: impl Fn(&str, &AtomicBool) + Sync) -> Counts {
    let seconds = std::env::var("RESUME_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(1);
    let seed = seed(test);
    let _watchdog =
        Watchdog::with_limit(&format!("{test} with SEED={seed}"), Watchdog::LIMIT + Duration::from_secs(seconds));
    let mut command = Command::new(built_examples().join("hub"));
    command.args(hub);
    let hub = Example::run(command);
    let url = format!("{}/c", hub.url);
    let (counts, over) = (Counts::default(), AtomicBool::new(false));
    thread::scope(|threads| {
        let clients: Vec<_> = (0..CLIENTS as u64)
            .map(|number| {
                let (url, counts, over) = (&url, &counts, &over);
                threads.spawn(move || {
                    let mut rng = Rng::with_seed(seed ^ number);
                    let mut client = Client::default();
                    // The first connection has no ID yet; its stream sends the one where it starts.
                    while !over.load(SeqCst) {
                        client.connects(url, rng.usize(1..200_000), counts);
                    }
                    while !client.connects(url, usize::MAX, counts) {}
                })
            })
            .collect();
        let publishers = [(); 2].map(|()| threads.spawn(|| publish(&url, &over)));
        let start = Instant::now();
        // On a busy machine, not all clients connect at once.
        let is_enough = || counts.connections.load(SeqCst) > CLIENTS && counts.events.load(SeqCst) > 1_000;
        while start.elapsed() < Duration::from_secs(seconds) || !is_enough() {
            thread::sleep(Duration::from_millis(10));
        }
        over.store(true, SeqCst);
        for publisher in publishers {
            publisher.join().unwrap();
        }
        while !clients.iter().all(|client| client.is_finished()) {
            // Again and again: a client that has just connected without an ID begins with the next event.
            ureq::post(&url).send("the end").unwrap();
            thread::sleep(Duration::from_millis(50));
        }
    });
    println!("{test}: {counts:?}", counts = [&counts.events, &counts.connections, &counts.gaps]);
    counts
}

#[test]
fn at_full_speed_every_loss_is_reported_as_a_gap() {
    run("full speed", &[], |url, over| {
        let agent = ureq::Agent::new_with_defaults();
        while !over.load(SeqCst) {
            agent.post(url).send("x").unwrap();
        }
    });
}

#[test]
fn at_1000_events_a_second_nothing_is_lost_at_all() {
    // On a busy machine, a client may take seconds for the next connection.
    let counts = run("1,000 a second", &["--history-events", "20000"], |url, over| {
        let agent = ureq::Agent::new_with_defaults();
        let start = Instant::now();
        // Each of two threads publishes 500 per second.
        for n in 0.. {
            let due = start + Duration::from_millis(2) * n;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if over.load(SeqCst) {
                break;
            }
            agent.post(url).send("x").unwrap();
        }
    });
    assert_eq!(counts.gaps.load(SeqCst), 0, "a client missed an event");
}
