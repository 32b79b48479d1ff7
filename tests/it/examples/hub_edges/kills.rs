//! Clients hop between an origin and its edges, which are killed again and again.
//!
//! `EDGE_CLIENTS` and `EDGE_KILLS` set the numbers, such as 300 and 20 with `--release`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use super::oracle::Oracle;
use super::*;
use crate::common::{raise_open_files, seed};

const EDGES: usize = 3;
/// The place of the origin behind the edges.
const ORIGIN: usize = EDGES;
const CHANNELS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// What is posted to, by a thread each.
const POSTED: [&str; 8] = ["/a", "/b", "/c", "/d", "/e", "/a,b", "/c,d,e", "/e,f"];
/// What is watched. Hardly anything comes to the last one.
const WATCHED: [&str; 6] = ["/a", "/a,b", "/b,c", "/d", "/e", "/f"];

/// An event that was answered with its ID, and the data of the event.
type Answered = (String, String);

#[derive(Default)]
struct Results {
    answered: Vec<Answered>,
    /// How often each data was posted: a post whose answer is lost is repeated.
    attempts: HashMap<String, usize>,
    /// The path and the blocks of each client.
    clients: Vec<(&'static str, Vec<Block>)>,
    hops: usize,
}

/// What the threads of a test share.
struct Shared<'a> {
    urls: &'a [String],
    pause: Duration,
    last: &'a str,
    is_over: AtomicBool,
    /// The number of clients that have an ID.
    begun: AtomicUsize,
}

impl Shared<'_> {
    /// Posts to one path until the test is over, each event until it is answered.
    fn post(&self, path: &str) -> (Vec<Answered>, HashMap<String, usize>) {
        let (agent, url) = (agent(), format!("{}{path}", self.urls[ORIGIN]));
        let (mut answered, mut attempts) = (Vec::new(), HashMap::new());
        while !self.is_over.load(SeqCst) {
            let data = format!("{path} {}", answered.len());
            *attempts.entry(data.clone()).or_default() += 1;
            match post_event(&agent, &url, &data) {
                Some(id) => answered.push((id, data)),
                None => thread::sleep(Duration::from_millis(5)),
            }
            thread::sleep(self.pause);
        }
        (answered, attempts)
    }

    /// Reads at one hub after the other, until the last event of all.
    fn hop(&self, path: &'static str, mut random: fastrand::Rng) -> (Vec<Block>, usize) {
        let (mut client, mut hops, mut has_begun) = (Client::new(), 0, false);
        let is_last = |block: &Block| matches!(block, Block::Event { data, .. } if data.ends_with(self.last));
        loop {
            let time = if random.u8(..) < 32 { random.u64(1..50) } else { random.u64(50..1_500) };
            let url = format!("{}{path}", self.urls[random.usize(..=EDGES)]);
            if client.read(&url, Duration::from_millis(time), is_last) {
                return (client.blocks, hops);
            }
            if !has_begun && !client.last_event_id.is_empty() {
                has_begun = true;
                self.begun.fetch_add(1, SeqCst);
            }
            hops += 1;
            // A hub that is away or starting answers at once.
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Kills the hubs at random, each for some time.
fn kill(hubs: &mut [Hub], kills: usize, random: &mut fastrand::Rng) -> [usize; EDGES + 1] {
    let mut killed = [0; EDGES + 1];
    for kill in 0..kills {
        thread::sleep(Duration::from_millis(random.u64(50..700)));
        // The origin and an edge at least once.
        let n = if kill < 2 { EDGES - kill } else { random.usize(..=EDGES) };
        hubs[n].kill();
        killed[n] += 1;
        if random.bool() {
            thread::sleep(Duration::from_millis(random.u64(..500)));
        }
        hubs[n].start();
    }
    killed
}

fn run(origin: Hub, clients: usize, kills: usize, random: &mut fastrand::Rng) -> Results {
    let mut hubs: Vec<Hub> = (0..EDGES).map(|_| Hub::edge(&origin, &CHANNELS)).collect();
    hubs.push(origin);
    let urls: Vec<String> = hubs.iter().map(|hub| hub.url.clone()).collect();
    let last = format!("last {}", random.u64(..));
    let shared = Shared {
        urls: &urls,
        // As many deliveries per second for few clients as for many.
        pause: Duration::from_micros(100 * clients as u64),
        last: &last,
        is_over: AtomicBool::new(false),
        begun: AtomicUsize::new(0),
    };
    let shared = &shared;
    thread::scope(|threads| {
        let posters = POSTED.map(|path| threads.spawn(move || shared.post(path)));
        let readers: Vec<_> = (0..clients)
            .map(|n| {
                let (path, random) = (WATCHED[n % WATCHED.len()], random.fork());
                (path, threads.spawn(move || shared.hop(path, random)))
            })
            .collect();
        let start = Instant::now();
        let killed = kill(&mut hubs, kills, random);
        println!("edges and origin killed {killed:?} times in {:.1?}", start.elapsed());
        eventually("each client has an ID", || shared.begun.load(SeqCst) == clients);
        shared.is_over.store(true, SeqCst);
        let mut results = Results::default();
        for poster in posters {
            let (answered, attempts) = poster.join().unwrap();
            results.answered.extend(answered);
            results.attempts.extend(attempts);
        }
        let (path, data) = (format!("/{}", CHANNELS.join(",")), format!("/{} {last}", CHANNELS.join(",")));
        results.answered.push((hubs[ORIGIN].post(&path, &data), data.clone()));
        results.attempts.insert(data, 1);
        for (path, reader) in readers {
            let (blocks, hops) = reader.join().unwrap();
            results.clients.push((path, blocks));
            results.hops += hops;
        }
        results
    })
}

/// Checks that each client received each event once and in order, or a gap. Returns the numbers of gaps and of false gaps.
fn judge(results: &Results) -> (usize, usize) {
    let mut oracle = Oracle::default();
    for (id, data) in &results.answered {
        oracle.add(id, data).unwrap();
    }
    for (path, blocks) in &results.clients {
        for block in blocks {
            if let Block::Event { id, data } = block {
                oracle.add(id, data).unwrap_or_else(|error| panic!("{path}: {error}"));
            }
        }
    }
    for (data, times) in oracle.times_published() {
        assert!(times <= results.attempts[data], "{data} was posted {} times, not {times}", results.attempts[data]);
    }
    let (mut events, mut gaps, mut false_gaps) = (0, 0, 0);
    for (path, blocks) in &results.clients {
        let verdict = oracle.judge(path, blocks).unwrap_or_else(|error| panic!("{path}: {error}"));
        events += verdict.events;
        gaps += verdict.gaps;
        false_gaps += verdict.false_gaps;
    }
    println!(
        "{} clients, {} hops, {} posts answered, {events} events received, {gaps} gaps, {false_gaps} of them false",
        results.clients.len(),
        results.hops,
        results.answered.len(),
    );
    (gaps, false_gaps)
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |number| number.parse().unwrap())
}

fn hop_while_hubs_are_killed(test: &str, origin: impl FnOnce() -> Hub) -> (usize, usize) {
    let (clients, kills) = (number("EDGE_CLIENTS", 60), number("EDGE_KILLS", 6));
    let _watchdog = watchdog_of(test, Watchdog::LIMIT + Duration::from_secs(5 * kills as u64));
    raise_open_files();
    judge(&run(origin(), clients, kills, &mut fastrand::Rng::with_seed(seed(test))))
}

#[test]
fn clients_that_hop_get_each_event_once_and_no_gap_while_edges_and_origin_are_killed() {
    let folder = Folder::new("edges_killed");
    let (gaps, _) = hop_while_hubs_are_killed("edges are killed", || Hub::with_file(&folder));
    assert_eq!(gaps, 0, "nothing was lost");
}

#[test]
fn clients_that_hop_get_a_gap_for_what_an_origin_without_a_file_loses() {
    let (_, false_gaps) = hop_while_hubs_are_killed("edges of an origin in memory are killed", Hub::in_memory);
    assert_eq!(false_gaps, 0, "nothing was lost there");
}
