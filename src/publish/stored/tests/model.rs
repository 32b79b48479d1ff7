use std::collections::HashMap;

use crate::store::fake::Disk;
use crate::{Event, History, Publisher, Resumption, spread};

const CHANNELS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// A random number below the limit, from a generator with a seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// Returns one to three of the channels, the first ones more often than the last.
    fn channels(&mut self) -> Vec<&'static str> {
        let mut channels: Vec<&str> = (0..=self.below(3))
            .map(|_| {
                let among = 1 + self.below(CHANNELS.len());
                CHANNELS[self.below(among)]
            })
            .collect();
        channels.sort_unstable();
        channels.dedup();
        channels
    }
}

/// Everything that was ever delivered, and every ID that a client may hold.
struct Model {
    disk: Disk,
    publisher: Option<Publisher>,
    random: Random,
    /// The channels of each event. Its data is its place in this list.
    delivered: Vec<Vec<&'static str>>,
    /// How many events were delivered when a client could first hold the ID.
    positions: HashMap<String, usize>,
    ids: Vec<String>,
    exact: usize,
    gaps: usize,
}

impl Model {
    fn new(seed: u64) -> Self {
        let (disk, random) = (Disk::new(1_000), Random(seed | 1));
        let (delivered, positions, ids) = (Vec::new(), HashMap::new(), Vec::new());
        let mut model = Self { disk, publisher: None, random, delivered, positions, ids, exact: 0, gaps: 0 };
        model.start();
        model
    }

    fn start(&mut self) {
        let events = 2 + self.random.below(6);
        let history = History::new().max_events_per_channel(events).max_bytes(8 * 1024).store(self.disk.clone());
        let publisher = Publisher::builder().history(history).heartbeat(None).build().unwrap();
        let start = publisher.last_event_id().unwrap();
        self.publisher = Some(publisher);
        self.give(start);
    }

    /// Notes that a client has this ID now.
    fn give(&mut self, id: String) {
        let position = self.delivered.len();
        let first = *self.positions.entry(id.clone()).or_insert(position);
        assert_eq!(first, position, "{id} stands for two positions");
        self.ids.push(id);
    }

    fn publish(&mut self) {
        let channels = self.random.channels();
        let number = self.delivered.len();
        let publisher = self.publisher.as_ref().unwrap();
        let timeout = std::time::Duration::from_secs(20);
        let id = match self.random.below(10) {
            0 => {
                publisher.publish_with(&channels, move |()| Some(Event::new(number.to_string())));
                publisher.flush(timeout).unwrap();
                publisher.last_event_id().unwrap()
            }
            1 => {
                let event = Event::new(number.to_string()).id(format!("own-{number}")).unwrap();
                publisher.publish_confirmed(&channels, event, timeout).unwrap().id().unwrap().to_owned()
            }
            _ => {
                let receipt = publisher.publish_confirmed(&channels, number.to_string(), timeout).unwrap();
                receipt.id().unwrap().to_owned()
            }
        };
        self.delivered.push(channels);
        self.give(id);
    }

    /// Resumes after some ID that a client was ever sent, in some channels.
    fn resume(&mut self) {
        // Recent IDs more often than old ones.
        let ids = self.ids.len();
        let back = if self.random.below(4) == 0 { self.random.below(ids) } else { self.random.below(ids.min(12)) };
        let id = &self.ids[ids - 1 - back];
        let channels = self.random.channels();
        let publisher = self.publisher.as_ref().unwrap();
        let mut subscription =
            publisher.subscription(()).channels(&channels).last_event_id(id.as_str()).open().unwrap();
        let frames = std::iter::from_fn(|| subscription.try_recv().ok().map(String::from));
        let lines: Vec<String> =
            frames.flat_map(|frame| frame.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let data = lines.iter().filter_map(|line| line.strip_prefix("data: "));
        let received: Vec<usize> = data.filter_map(|data| data.parse().ok()).collect();
        // An ID of the application is no position in channels that the event was not in.
        let position = self.positions[id];
        let is_own = id.starts_with("own-");
        let is_position = !is_own || self.delivered[position - 1].iter().any(|channel| channels.contains(channel));
        match subscription.resumption() {
            Resumption::Complete => {
                assert!(is_position);
                let missed = |number: &usize| self.delivered[*number].iter().any(|channel| channels.contains(channel));
                let expected: Vec<usize> = (position..self.delivered.len()).filter(missed).collect();
                assert_eq!(received, expected, "after {id} in {channels:?}");
                self.exact += 1;
            }
            _ => {
                assert!(received.is_sorted_by(|a, b| a < b), "{received:?}");
                self.gaps += 1;
            }
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0 => {
                self.publisher = None;
                if self.random.below(2) == 0 {
                    let count = self.random.below(8);
                    self.disk.lose_writes(count);
                }
                self.start();
            }
            1..10 => self.disk.sync(),
            10..60 => self.publish(),
            _ => self.resume(),
        }
    }
}

/// Restarts, power losses, evictions, closures and IDs of the application in random order.
#[test]
fn a_resume_from_any_id_ever_sent_is_exact_or_a_gap_and_never_silent() {
    let steps = std::env::var("MODEL_STEPS").map_or(20_000, |steps| steps.parse().unwrap());
    let seed = std::env::var("SEED").map_or_else(|_| spread::random(), |seed| seed.parse().unwrap());
    println!("SEED={seed}, MODEL_STEPS={steps}");
    let (mut exact, mut gaps) = (0, 0);
    // A log that is longer than this finds nothing new.
    for start in (0..steps).step_by(20_000) {
        let mut model = Model::new(seed.wrapping_add(start));
        for _ in start..steps.min(start + 20_000) {
            model.step();
        }
        (exact, gaps) = (exact + model.exact, gaps + model.gaps);
    }
    println!("{exact} resumed exactly, {gaps} with a gap");
    assert!(exact > gaps / 2 && gaps > exact / 100, "the cases are not balanced");
}
