//! A random program of publish, subscribe, disconnect at any byte, resume and evict, checked against a simple list.

use crate::common::{Watchdog, seed};
use fastrand::Rng;
use server_sent_events::{History, Publisher, Resumption, Subscription};

const CHANNELS: [&str; 3] = ["a", "b", "c"];
/// The number of events that each channel keeps.
const KEPT: usize = 8;

/// What was published, in order: the sequence is the position, from 1.
#[derive(Default)]
struct Model {
    /// For each event, in which of the channels it is.
    events: Vec<[bool; 3]>,
}

impl Model {
    /// Returns the sequences in this channel.
    fn of(&self, channel: usize) -> Vec<u64> {
        let events = self.events.iter().enumerate().filter(|(_, channels)| channels[channel]);
        events.map(|(n, _)| n as u64 + 1).collect()
    }

    /// Returns the oldest of the newest events in each channel.
    fn kept_from(&self) -> [u64; 3] {
        [0, 1, 2].map(|channel| self.of(channel).into_iter().rev().take(KEPT).next_back().unwrap_or(u64::MAX))
    }

    /// Returns the newest event of each channel that no channel has among its newest.
    fn floors(&self) -> [u64; 3] {
        let kept_from = self.kept_from();
        let mut floors = [0; 3];
        for (sequence, channels) in (1..).zip(&self.events) {
            let is_kept = (0..3).any(|channel| channels[channel] && sequence >= kept_from[channel]);
            for channel in (0..3).filter(|channel| channels[*channel] && !is_kept) {
                floors[channel] = sequence;
            }
        }
        floors
    }

    /// Returns what these channels still hold that is newer than this.
    fn newer(&self, channels: &[usize], after: u64) -> Vec<u64> {
        let floors = self.floors();
        let newer = |(sequence, of): &(u64, &[bool; 3])| {
            channels.iter().any(|channel| of[*channel] && *sequence > floors[*channel].max(after))
        };
        (1..).zip(&self.events).filter(newer).map(|(sequence, _)| sequence).collect()
    }
}

/// A client: what it was sent, and what an `EventSource` remembers.
struct Client {
    channels: Vec<usize>,
    subscription: Option<Subscription>,
    /// What has arrived over this connection, complete or not.
    wire: String,
    /// What the model expects over this connection if it is not lost.
    expected: Vec<u64>,
    gap_expected: bool,
    /// Its last event ID.
    id: Option<String>,
}

fn sequence(id: &str) -> u64 {
    id.rsplit_once('-').unwrap().1.parse().unwrap()
}

impl Client {
    fn connect(&mut self, publisher: &Publisher, model: &Model) {
        let names: Vec<&str> = self.channels.iter().map(|channel| CHANNELS[*channel]).collect();
        let builder = publisher.subscription(()).channels(names).last_event_id(self.id.clone());
        let subscription = builder.open().unwrap();
        let newest = model.events.len() as u64;
        let held = self.id.as_deref().map_or(newest, sequence);
        let floors = model.floors();
        self.gap_expected = self.channels.iter().any(|channel| floors[*channel] > held);
        self.expected = model.newer(&self.channels, held);
        let resumed = match (&self.id, self.gap_expected) {
            (None, _) => Resumption::NotRequested,
            (_, false) => Resumption::Complete,
            (_, true) => Resumption::Gap,
        };
        assert_eq!(subscription.resumption(), resumed);
        self.subscription = Some(subscription);
        self.wire.clear();
    }

    /// Takes some of what is queued.
    fn read(&mut self, frames: usize) {
        let Some(subscription) = &mut self.subscription else { return };
        for _ in 0..frames {
            let Ok(frame) = subscription.try_recv() else { break };
            self.wire.push_str(&frame);
        }
    }

    /// Breaks the connection after this byte of what was read. Checks what the client has then.
    fn break_at(&mut self, byte: usize) {
        self.subscription = None;
        let whole = self.wire[..byte].rfind("\n\n").map_or("", |end| &self.wire[..end + 2]);
        let mut expected = self.expected.iter();
        let mut gaps = 0;
        for block in whole.split_terminator("\n\n") {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            if let Some(id) = field("id: ") {
                self.id = Some(id.to_owned());
            }
            match (field("event: "), field("data: ")) {
                (Some("gap"), _) => gaps += 1,
                (None, Some(data)) => {
                    let next = expected.next().expect("an event that the model does not expect");
                    assert_eq!(data.parse::<u64>().unwrap(), *next, "out of order, lost, or twice");
                    assert_eq!(sequence(self.id.as_deref().unwrap()), *next, "an event with another event's ID");
                }
                (None, None) => {}
                other => panic!("unexpected type {other:?}"),
            }
        }
        let blocks = whole.matches("\n\n").count();
        // The gap comes with the start ID, so a lost connection cannot leave the client with only one of them.
        assert_eq!(gaps, usize::from(self.gap_expected && blocks >= 1));
        // The client misses nothing up to the ID that it holds: all that did not arrive is newer.
        if let Some(id) = &self.id {
            assert!(expected.all(|missing| *missing > sequence(id) || (self.gap_expected && blocks < 1)));
        }
    }
}

#[test]
fn every_subscriber_gets_all_events_of_its_channels_or_a_gap() {
    let steps = std::env::var("MODEL_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(50_000);
    let seed = seed("resume model");
    let _watchdog = Watchdog::new(&format!("the model with SEED={seed}"));
    let mut rng = Rng::with_seed(seed);
    let (mut breaks, mut gaps, mut replays) = (0, 0, 0);
    for _ in 0..steps / 500 {
        let publisher =
            Publisher::builder().history(History::new().max_events_per_channel(KEPT)).heartbeat(None).build().unwrap();
        let mut model = Model::default();
        let mut clients: Vec<Client> = (0..4)
            .map(|_| {
                let channels = loop {
                    let channels: Vec<usize> = (0..3).filter(|_| rng.bool()).collect();
                    if !channels.is_empty() {
                        break channels;
                    }
                };
                let (subscription, wire, expected) = (None, String::new(), Vec::new());
                Client { channels, subscription, wire, expected, gap_expected: false, id: None }
            })
            .collect();
        for _ in 0..500 {
            let client = &mut clients[rng.usize(..4)];
            match rng.u32(..10) {
                0..5 => {
                    let channels: Vec<usize> = (0..3).filter(|_| rng.u32(..3) == 0).collect();
                    let names = channels.iter().map(|channel| CHANNELS[*channel]);
                    model.events.push([0, 1, 2].map(|channel| channels.contains(&channel)));
                    let sequence = model.events.len() as u64;
                    publisher.publish_to(names, sequence.to_string());
                    for client in clients.iter_mut().filter(|client| client.subscription.is_some()) {
                        if client.channels.iter().any(|channel| channels.contains(channel)) {
                            client.expected.push(sequence);
                        }
                    }
                }
                5..7 => client.read(rng.usize(..6)),
                7 if client.subscription.is_some() => {
                    let byte = rng.usize(..=client.wire.len());
                    client.break_at(byte);
                    breaks += 1;
                }
                _ if client.subscription.is_none() => {
                    client.connect(&publisher, &model);
                    gaps += usize::from(client.gap_expected);
                    replays += usize::from(client.expected.len() > 1);
                }
                _ => {}
            }
        }
    }
    println!("{steps} steps, {breaks} connections broken, {gaps} gaps, {replays} replays");
    assert!(gaps > steps / 1_000 && replays > steps / 1_000, "too little happened");
}
