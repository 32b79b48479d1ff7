//! The stream in Redis, read by other means than the crate's.

use std::collections::{BTreeMap, HashSet};

use real_parts::redis::Redis;
use serde_json::Value;

/// An ID: its era and its sequence. The name of the history is left out.
pub type Place = (u64, u64);

/// What the stream holds at a place.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    Event {
        channels: Vec<String>,
        data: String,
    },
    /// An event that has come twice, the first of an era, or a loss.
    Nothing,
}

/// All entries of a stream, and what it has lost.
#[derive(Debug, Default)]
pub struct Log {
    pub lineage: String,
    pub entries: BTreeMap<u64, (u64, Entry)>,
    /// The sequence at which an era's loss is reported, and the last sequence of that era that is not lost.
    pub losses: BTreeMap<u64, (u64, u64)>,
    pub duplicates: usize,
}

impl Log {
    pub fn read(redis: &Redis, stream: &str) -> Self {
        let lineage = redis.cli(&["HGET", &format!("{{{stream}}}:history"), "lineage"]);
        let entries: Value = serde_json::from_str(&redis.cli(&["--json", "XRANGE", stream, "-", "+"])).unwrap();
        let (mut log, mut seen) = (Self { lineage, ..Self::default() }, HashSet::new());
        for entry in entries.as_array().unwrap() {
            let (era, sequence) = numbers(entry[0].as_str().unwrap()).unwrap();
            let fields: Vec<&str> = entry[1].as_array().unwrap().iter().map(|field| field.as_str().unwrap()).collect();
            let values = |name| fields.chunks(2).filter(move |field| field[0] == name).map(|field| field[1]);
            if let Some(loss) = values("loss").next() {
                let [lost, ended, _] = loss.split(':').map(|part| part.parse().unwrap()).collect::<Vec<u64>>()[..]
                else {
                    panic!("{loss}");
                };
                log.losses.insert(lost, (sequence, ended));
            }
            let is_new = values("by").next().is_some_and(|by| seen.insert(by.to_owned()));
            log.duplicates += usize::from(!is_new && values("by").next().is_some());
            let data = values("fields").find_map(|lines| lines.strip_prefix("data: "));
            let entry = match data {
                Some(data) if is_new => {
                    Entry::Event { channels: values("to").map(str::to_owned).collect(), data: data.trim_end().into() }
                }
                _ => Entry::Nothing,
            };
            log.entries.insert(sequence, (era, entry));
        }
        assert!(log.entries.keys().copied().eq(1..=log.entries.len() as u64), "the stream holds everything");
        log
    }

    /// Returns the place in an ID. Fails if the ID is of another history.
    pub fn place(&self, id: &str) -> Result<Place, String> {
        let numbers = id.strip_prefix(&self.lineage).and_then(|rest| numbers(rest.strip_prefix('.')?));
        numbers.ok_or_else(|| format!("{id:?} is of another history than {}", self.lineage))
    }

    /// Returns the end of this place's era in the stream, if the stream has lost what was at this place.
    pub fn lost(&self, (era, sequence): Place) -> Option<u64> {
        self.losses.get(&era).map(|(_, ended)| *ended).filter(|ended| *ended < sequence)
    }

    /// Returns the data of the event at this place, if it is one of these channels.
    pub fn data(&self, (era, sequence): Place, channels: &[&str]) -> Option<&str> {
        let is_there = self.entries.get(&sequence).is_some_and(|(own, _)| *own == era);
        self.between(sequence - 1, sequence, channels).next().filter(|_| is_there)
    }

    /// Returns the events of these channels that come after the one sequence, up to the other one.
    pub fn between(&self, after: u64, upto: u64, channels: &[&str]) -> impl Iterator<Item = &str> {
        let range = (after < upto).then(|| self.entries.range(after + 1..=upto)).into_iter().flatten();
        range.filter_map(|(_, (_, entry))| match entry {
            Entry::Event { channels: own, data } if own.iter().any(|own| channels.contains(&&**own)) => Some(&**data),
            _ => None,
        })
    }
}

fn numbers(text: &str) -> Option<Place> {
    let (era, sequence) = text.split_once('-')?;
    Some((era.parse().ok()?, sequence.parse().ok()?))
}
