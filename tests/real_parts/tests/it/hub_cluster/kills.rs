//! Clients hop between three hubs, which are killed again and again, and so is their Redis.
//!
//! `CLUSTER_CLIENTS`, `CLUSTER_SECONDS`, `CLUSTER_HUB_KILLS` and `CLUSTER_REDIS_KILLS` set the numbers, and `SEED` the
//! random ones. The proof of this crate is a run with 300, 300, 20 and 5.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use real_parts::common::example::built_examples;
use real_parts::common::{Watchdog, raise_open_files, seed};

use super::log::Log;
use super::oracle::{Verdict, judge};
use super::*;

const HUBS: usize = 3;
const PUBLISHERS: usize = 4;
/// What is posted to.
const POSTED: [&str; 6] = ["/a", "/b", "/c", "/a,b", "/b,c", "/d"];
/// What is watched. Hardly anything comes to the last one.
const WATCHED: [&str; 5] = ["/a", "/a,b", "/c", "/a,b,c,d", "/quiet"];
const CHANNELS: [&str; 5] = ["a", "b", "c", "d", "quiet"];

/// The posts of one publisher.
#[derive(Default)]
struct Posts {
    /// The ID of each event that is answered as stored, by its data.
    stored: HashMap<String, String>,
    refused: Vec<String>,
    unknown: usize,
}

/// What one client received, at these channels.
struct Received {
    path: &'static str,
    blocks: Vec<Block>,
    hops: usize,
}

/// What the threads share.
struct Shared<'a> {
    urls: &'a [String],
    pause: Duration,
    last: &'a str,
    is_over: AtomicBool,
}

impl Shared<'_> {
    /// Posts to hubs at random until the test is over, each event once.
    fn post(&self, name: usize, mut random: fastrand::Rng) -> Posts {
        let (agent, mut posts) = (agent(), Posts::default());
        for n in 0.. {
            if self.is_over.load(SeqCst) {
                break;
            }
            let (path, url) = (POSTED[random.usize(..POSTED.len())], &self.urls[random.usize(..HUBS)]);
            let data = format!("{path} {name}:{n}");
            match post(&agent, &format!("{url}{path}"), &data) {
                Answer::Stored(id) => drop(posts.stored.insert(data, id)),
                Answer::Refused(_) => posts.refused.push(data),
                Answer::Unknown => posts.unknown += 1,
            }
            thread::sleep(self.pause);
        }
        posts
    }

    /// Reads at one hub after the other, until the last event.
    fn hop(&self, path: &'static str, mut random: fastrand::Rng) -> Received {
        let (mut client, mut hops) = (Client::new(), 0);
        let is_last = |block: &Block| matches!(block, Block::Event { data, .. } if data == self.last);
        loop {
            let time = if random.u8(..) < 32 { random.u64(1..50) } else { random.u64(50..3_000) };
            let url = format!("{}{path}", self.urls[random.usize(..HUBS)]);
            if client.read(&url, Duration::from_millis(time), is_last) {
                return Received { path, blocks: client.blocks, hops };
            }
            hops += 1;
            // A hub that is away or starting answers at once.
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Kills hubs and Redis at random moments of this time, and starts each again after a while.
fn kill(hubs: &mut [Hub], redis: &mut Redis, seconds: usize, random: &mut fastrand::Rng) {
    let (hub_kills, redis_kills) = (number("CLUSTER_HUB_KILLS", 4), number("CLUSTER_REDIS_KILLS", 2));
    let mut kills: Vec<bool> = (0..hub_kills + redis_kills).map(|n| n < redis_kills).collect();
    random.shuffle(&mut kills);
    let (start, share) = (Instant::now(), Duration::from_secs(seconds as u64) / (kills.len() as u32 + 1));
    let mut killed = [0; HUBS];
    for (n, is_redis) in kills.into_iter().enumerate() {
        let moment = share.mul_f64(n as f64 + 0.4 + random.f64());
        thread::sleep(moment.saturating_sub(start.elapsed()));
        let down = Duration::from_millis(random.u64(..1_000));
        if is_redis {
            redis.kill();
            thread::sleep(down);
            redis.run();
        } else {
            let hub = random.usize(..HUBS);
            hubs[hub].kill();
            killed[hub] += 1;
            thread::sleep(down);
            hubs[hub].start();
        }
    }
    thread::sleep(Duration::from_secs(seconds as u64).saturating_sub(start.elapsed()));
    println!("hubs killed {killed:?} times, Redis {redis_kills} times, in {:.1?}", start.elapsed());
}

/// Checks the answers to the posts. Returns the numbers of those stored, refused and unknown.
fn check_posts(log: &Log, posts: &[Posts]) -> [usize; 3] {
    let mut times = HashMap::<&str, usize>::new();
    for data in log.between(0, u64::MAX, &CHANNELS) {
        *times.entry(data).or_default() += 1;
    }
    assert!(times.values().all(|times| *times == 1), "each event once: {times:?}");
    for posts in posts {
        for (data, id) in &posts.stored {
            let place = log.place(id).unwrap();
            assert!(log.data(place, &CHANNELS) == Some(data) || log.lost(place).is_some(), "{data:?} is not at {id}");
        }
        for data in &posts.refused {
            assert!(!times.contains_key(&**data), "{data:?} was refused, and is stored");
        }
    }
    let sum = |count: fn(&Posts) -> usize| posts.iter().map(count).sum();
    [sum(|posts| posts.stored.len()), sum(|posts| posts.refused.len()), sum(|posts| posts.unknown)]
}

/// Checks what the clients received, and prints the counts.
fn check(log: &Log, posts: &[Posts], clients: &[Received]) {
    let [stored, refused, unknown] = check_posts(log, posts);
    let mut sum = Verdict::default();
    for Received { path, blocks, .. } in clients {
        let channels: Vec<&str> = path[1..].split(',').collect();
        let verdict = judge(log, &channels, blocks).unwrap_or_else(|error| panic!("{path}: {error}"));
        (sum.events, sum.gaps) = (sum.events + verdict.events, sum.gaps + verdict.gaps);
    }
    let hops: usize = clients.iter().map(|client| client.hops).sum();
    println!("posts: {stored} stored, {refused} refused, {unknown} unknown");
    println!("stream: {} entries, {} duplicates, losses {:?}", log.entries.len(), log.duplicates, log.losses);
    println!("{} clients: {hops} hops, {} events, {} gaps", clients.len(), sum.events, sum.gaps);
    if log.losses.is_empty() {
        assert_eq!(sum.gaps, 0, "nothing was lost");
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |number| number.parse().unwrap())
}

#[test]
fn clients_that_hop_get_each_event_once_in_one_order_while_hubs_and_redis_are_killed() {
    let (clients, seconds) = (number("CLUSTER_CLIENTS", 10), number("CLUSTER_SECONDS", 15));
    built_examples();
    raise_open_files();
    let _watchdog =
        Watchdog::with_limit("hubs and Redis are killed", Watchdog::LIMIT + Duration::from_secs(2 * seconds as u64));
    let mut random = fastrand::Rng::with_seed(seed("hub_cluster"));
    let mut redis = durable();
    let mut hubs: Vec<Hub> = (0..HUBS).map(|_| start(&redis.url())).collect();
    let urls: Vec<String> = hubs.iter().map(|hub| hub.url.clone()).collect();
    let last = format!("the last {}", random.u64(..));
    // As many deliveries per second for few clients as for many.
    let pause = Duration::from_micros(2_000 + 100 * clients as u64);
    let shared = &Shared { urls: &urls, pause, last: &last, is_over: AtomicBool::new(false) };
    let (posts, clients) = thread::scope(|threads| {
        let posters: Vec<_> = (0..PUBLISHERS)
            .map(|name| {
                let random = random.fork();
                threads.spawn(move || shared.post(name, random))
            })
            .collect();
        let readers: Vec<_> = (0..clients)
            .map(|n| {
                let (path, random) = (WATCHED[n % WATCHED.len()], random.fork());
                threads.spawn(move || shared.hop(path, random))
            })
            .collect();
        kill(&mut hubs, &mut redis, seconds, &mut random);
        shared.is_over.store(true, SeqCst);
        let posts: Vec<Posts> = posters.into_iter().map(|poster| poster.join().unwrap()).collect();
        hubs.iter().for_each(Hub::is_healthy);
        let (all, mut attempts) = (format!("/{}", CHANNELS.join(",")), 0..);
        eventually("posts are stored", || {
            let data = format!("almost {}", attempts.next().unwrap());
            matches!(post(&agent(), &hubs[0].at(&all), &data), Answer::Stored(_))
        });
        store(&hubs[0], &all, &last);
        let clients: Vec<Received> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        (posts, clients)
    });
    for hub in &hubs {
        let (_, text) = hub.get("/stats");
        let figures = text.lines().filter(|line| line.starts_with("sse_duplicate") || line.starts_with("sse_store_"));
        println!("{}: {}", hub.url, figures.collect::<Vec<_>>().join(", "));
    }
    check(&Log::read(&redis, "events"), &posts, &clients);
}
