//! Random events, cuts, restarts and losses, and clients that hop between an origin and its edges.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::{CHANNELS, Edge, LONG};
use crate::store::fake::Disk;
use crate::{History, Publisher, Subscription};

const EDGES: usize = 3;
const CLIENTS: usize = 8;

/// How bad the world is.
#[derive(Clone, Copy)]
struct World {
    max_events_per_channel: usize,
    loses_writes: bool,
    begins_anew: bool,
}

/// A client: it hops between the origin and the edges with the last ID that it was sent.
struct Client {
    channels: &'static [&'static str],
    stream: Option<Subscription>,
    id: Option<String>,
    /// The number of its last event.
    newest: u64,
    /// It has been sent a gap, by which events up to this one may be missing.
    gap_until: u64,
    /// After a gap everything that is left may come again: its ID may be of another history.
    may_repeat: bool,
    gaps: usize,
}

impl Client {
    fn new(rng: &mut Rng, world: World) -> Self {
        let channels = [&CHANNELS[..1], &CHANNELS[1..], &CHANNELS][rng.usize(0..3)];
        Self { channels, stream: None, id: None, newest: 0, gap_until: 0, may_repeat: world.loses_writes, gaps: 0 }
    }

    fn hop(&mut self, to: &Publisher, events: usize) {
        if self.id.is_none() {
            self.gap_until = events as u64;
        }
        let stream = to.subscription(()).channels(self.channels).last_event_id(self.id.as_deref()).open();
        // A publisher that is starting refuses it.
        self.stream = stream.ok();
    }

    /// Returns the first event in its channels after this one.
    fn next_after(&self, events: &BTreeMap<u64, Vec<&str>>, number: u64) -> Option<u64> {
        let is_mine = |channels: &Vec<&str>| channels.iter().any(|channel| self.channels.contains(channel));
        events.range(number + 1..).find(|(_, channels)| is_mine(channels)).map(|(number, _)| *number)
    }

    /// Reads some blocks, and checks them against the events that were published.
    fn read(&mut self, events: &BTreeMap<u64, Vec<&str>>, blocks: usize) {
        for _ in 0..blocks {
            let Some(Ok(block)) = self.stream.as_mut().map(Subscription::try_recv) else { return };
            for line in block.lines() {
                if let Some(id) = line.strip_prefix("id: ") {
                    self.id = Some(id.to_owned());
                }
            }
            if block.starts_with("event: gap\n") {
                self.gap_until = events.len() as u64;
                if self.may_repeat {
                    self.newest = 0;
                }
                self.gaps += 1;
                continue;
            }
            let Some(number) = block.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
            let number: u64 = number.parse().unwrap();
            assert!(number > self.newest, "{number} came after {}", self.newest);
            // Up to there, only what is left of each channel comes.
            let expected = self.next_after(events, self.newest.max(self.gap_until));
            let is_left = self.gap_until >= number;
            assert!(is_left || Some(number) == expected, "{number} instead of {expected:?} in {:?}", self.channels);
            self.newest = number;
        }
    }
}

fn run(world: World, seed: u64, steps: usize) -> usize {
    let mut rng = Rng::with_seed(seed);
    let mut disk = Disk::new(1_000);
    let build = |disk: &Disk| {
        let history = History::new().max_events_per_channel(world.max_events_per_channel).store(disk.clone());
        Publisher::builder().history(history).heartbeat(None).build().unwrap()
    };
    let new_edge = || Edge::new(History::new().max_events_per_channel(world.max_events_per_channel));
    let mut origin = build(&disk);
    let mut edges: Vec<Edge> = (0..EDGES).map(|_| new_edge()).collect();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::new(&mut rng, world)).collect();
    let mut events: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    let mut gaps = 0;
    for _ in 0..steps {
        match rng.u32(0..100) {
            0..25 => {
                let channels = [&["a"][..], &["b"], &["a", "b"], &["other"]][rng.usize(0..4)];
                let number = events.len() as u64 + 1;
                events.insert(number, channels.to_vec());
                origin.publish_confirmed(channels, number.to_string(), LONG).unwrap();
            }
            25..50 => _ = edges[rng.usize(0..EDGES)].receive(&origin, rng.usize(1..6)),
            50..55 => edges[rng.usize(0..EDGES)].cut(),
            55..80 => clients[rng.usize(0..CLIENTS)].read(&events, rng.usize(1..8)),
            80..95 => {
                let to = rng.usize(0..=EDGES);
                let to = edges.get(to).map_or(&origin, |edge| &edge.publisher);
                clients[rng.usize(0..CLIENTS)].hop(to, events.len());
            }
            95..97 => edges[rng.usize(0..EDGES)] = new_edge(),
            97 => {
                let client = rng.usize(0..CLIENTS);
                gaps += clients[client].gaps;
                clients[client] = Client::new(&mut rng, world);
            }
            98 if world.loses_writes && rng.bool() => {
                drop(origin);
                disk.lose_writes(rng.usize(0..4));
                origin = build(&disk);
            }
            98 if world.begins_anew && rng.u32(0..4) == 0 => {
                drop(origin);
                disk = Disk::new(1_000).with_lineage(&format!("fake{}", events.len()));
                origin = build(&disk);
            }
            98 => {
                drop(origin);
                disk.sync();
                origin = build(&disk);
            }
            _ => disk.sync(),
        }
        // What is gone is told when it returns.
        for edge in &mut edges {
            let is_of_origin = edge.connection.as_ref().is_some_and(|(stream, _)| stream.end_cause().is_some());
            if is_of_origin {
                edge.cut();
            }
        }
    }
    // Everybody arrives, and has seen the newest event, unless a gap is the last that it has seen.
    for edge in &mut edges {
        edge.cut();
        edge.receive_all(&origin);
    }
    for client in &mut clients {
        let to = edges.get(rng.usize(0..=EDGES)).map_or(&origin, |edge| &edge.publisher);
        client.hop(to, events.len());
        client.read(&events, usize::MAX);
        let missed = client.next_after(&events, client.newest.max(client.gap_until));
        assert_eq!(missed, None, "missing at the end, in {:?}", client.channels);
        gaps += client.gaps;
    }
    gaps
}

fn seeds(test: impl Fn(u64)) {
    let seeds = std::env::var("MODEL_SEEDS").ok().map_or(5, |seeds| seeds.parse().unwrap());
    let first =
        std::env::var("MODEL_FIRST").ok().map_or_else(|| fastrand::u64(..1 << 40), |seed| seed.parse().unwrap());
    for seed in first..first + seeds {
        println!("seed {seed}");
        test(seed);
    }
}

#[test]
fn while_nothing_is_lost_every_client_gets_each_event_once_and_no_gap() {
    let world = World { max_events_per_channel: 8_192, loses_writes: false, begins_anew: false };
    seeds(|seed| assert_eq!(run(world, seed, 2_000), 0, "false gaps"));
}

#[test]
fn what_is_evicted_is_a_gap_and_everything_else_arrives_once() {
    let world = World { max_events_per_channel: 6, loses_writes: false, begins_anew: false };
    seeds(|seed| _ = run(world, seed, 2_000));
}

#[test]
fn what_the_origin_loses_is_a_gap_and_everything_else_arrives_once() {
    for max_events_per_channel in [6, 8_192] {
        let world = World { max_events_per_channel, loses_writes: true, begins_anew: true };
        seeds(|seed| _ = run(world, seed, 2_000));
    }
}
