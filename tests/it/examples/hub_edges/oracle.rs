//! Judges what clients received: each event once and in order, or a gap.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::Value;

use super::Block;

/// A place in a history: its name, and the number of the event there.
type Place = (String, u64);

/// All events that anybody knows of: by an answer to a post, or because a client received them.
///
/// An event's data is `PATH N`: the path to which it was posted, and a number.
#[derive(Default)]
pub struct Oracle {
    /// The ID and the data of each event.
    events: BTreeMap<Place, (String, String)>,
}

/// What one client received.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub events: usize,
    pub gaps: usize,
    /// Gaps though nothing was missing.
    pub false_gaps: usize,
}

/// How far a client is.
struct Progress {
    history: String,
    number: u64,
    /// A gap has reported everything up to here.
    excused: u64,
    /// The number before the gap, until the next event shows whether the gap was a false one.
    before_gap: Option<u64>,
}

impl Oracle {
    /// Adds an event. Fails if its ID or its place belongs to another one.
    pub fn add(&mut self, id: &str, data: &str) -> Result<(), String> {
        let event = (id.to_owned(), data.to_owned());
        match self.events.entry(place(id)?) {
            Entry::Vacant(entry) => drop(entry.insert(event)),
            Entry::Occupied(entry) if *entry.get() == event => {}
            Entry::Occupied(entry) => return Err(format!("{event:?} is at the place of {:?}", entry.get())),
        }
        Ok(())
    }

    /// Returns how often each data was published.
    pub fn times_published(&self) -> BTreeMap<&str, usize> {
        let mut times = BTreeMap::new();
        for (_, data) in self.events.values() {
            *times.entry(&**data).or_default() += 1;
        }
        times
    }

    /// Checks what a client of the channels in this path received. Fails if an event is missing without a gap, came twice or
    /// out of order.
    pub fn judge(&self, path: &str, blocks: &[Block]) -> Result<Verdict, String> {
        let (mut verdict, mut progress) = (Verdict::default(), None::<Progress>);
        for block in blocks {
            let (Block::Event { id, .. } | Block::Id(id) | Block::Gap { id, .. }) = block;
            let (history, number) = place(id)?;
            let before = progress.as_ref().filter(|progress| progress.history == history);
            let error = |text: &str| Err(format!("{text}: {block:?} after {:?}", before.map(|before| before.number)));
            let (mut excused, mut before_gap) = (before.map_or(0, |before| before.excused), None);
            if let Block::Gap { data, .. } = block {
                verdict.gaps += 1;
                let (to_history, to) = place(serde_json::from_str::<Value>(data).unwrap()["to"].as_str().unwrap())?;
                excused = if to_history == history { to.max(excused) } else { excused };
                before_gap = before.map(|before| before.number);
            } else if progress.is_some() && before.is_none() {
                return error("another history without a gap");
            } else if let Some(before) = before {
                let is_event = matches!(block, Block::Event { .. });
                if number < before.number || (is_event && number == before.number) {
                    return error("a repetition, or not in order");
                }
                let upto = number - u64::from(is_event);
                if let Some(missing) = self.between(&history, before.number.max(before.excused), upto, path).next() {
                    return error(&format!("{missing:?} is missing"));
                }
                before_gap = before.before_gap;
                if let (Some(start), true) = (before_gap, is_event) {
                    verdict.false_gaps += usize::from(self.between(&history, start, upto, path).next().is_none());
                    before_gap = None;
                }
            }
            verdict.events += usize::from(matches!(block, Block::Event { .. }));
            progress = Some(Progress { history, number, excused, before_gap });
        }
        Ok(verdict)
    }

    /// Returns the events of a path's channels that come after the one number, up to the other one.
    fn between<'a>(
        &'a self,
        history: &str,
        after: u64,
        upto: u64,
        path: &'a str,
    ) -> impl Iterator<Item = &'a (String, String)> {
        let range = (history.to_owned(), after + 1)..=(history.to_owned(), upto.max(after));
        let range = (after < upto).then(|| self.events.range(range)).into_iter().flatten();
        range.map(|(_, event)| event).filter(move |(_, data)| share_a_channel(path, data.split(' ').next().unwrap()))
    }
}

fn share_a_channel(path: &str, other: &str) -> bool {
    let channels = |path: &'_ str| path[1..].split(',').map(str::to_owned).collect::<Vec<_>>();
    let others = channels(other);
    channels(path).iter().any(|channel| others.contains(channel))
}

/// Returns the place in an ID: `NAME.ERA-NUMBER`, or `NAME-NUMBER` without a file.
fn place(id: &str) -> Result<Place, String> {
    let error = || format!("{id:?} is no ID");
    let (name, number) = id.rsplit_once('-').ok_or_else(error)?;
    let name = name.split('.').next().unwrap_or_default();
    Ok((name.to_owned(), number.parse().map_err(|_| error())?))
}

#[test]
fn the_oracle_of_edges_sees_what_is_missing_repeated_or_out_of_order() {
    let mut oracle = Oracle::default();
    for (n, path) in (1..).zip(["/a", "/b", "/a", "/a,b", "/b", "/a"]) {
        oracle.add(&format!("x.1-{n}"), &format!("{path} {n}")).unwrap();
    }
    oracle.add("y-1", "/a 7").unwrap();
    assert!(oracle.add("x.2-3", "/a 3").is_err() && oracle.add("x.1-3", "/a 8").is_err());
    let block = |text: &str| match text.split_once(' ') {
        Some((id, to)) => Block::Gap { id: id.into(), data: format!("{{\"from\":\"\",\"to\":\"{to}\"}}") },
        None if text.starts_with('@') => Block::Id(text[1..].into()),
        None => Block::Event { id: text.into(), data: String::new() },
    };
    let judge = |path: &str, blocks: &[&str]| {
        let blocks: Vec<Block> = blocks.iter().map(|text| block(text)).collect();
        oracle.judge(path, &blocks).map(|verdict| (verdict.events, verdict.gaps, verdict.false_gaps)).ok()
    };
    assert_eq!(judge("/a", &["@x.1-0", "x.1-1", "@x.1-2", "x.1-3", "@x.1-3", "x.1-4", "x.1-6"]), Some((4, 0, 0)));
    assert_eq!(judge("/b", &["x.1-2", "x.1-4", "x.1-5", "@x.1-6"]), Some((3, 0, 0)));
    assert_eq!(judge("/a", &["x.1-1", "x.1-1"]), None, "a repetition");
    assert_eq!(judge("/a", &["x.1-3", "x.1-1"]), None, "out of order");
    assert_eq!(judge("/a", &["x.1-3", "@x.1-1"]), None, "an ID behind what was sent");
    assert_eq!(judge("/a", &["x.1-1", "x.1-4"]), None, "3 is missing");
    assert_eq!(judge("/a", &["x.1-1", "@x.1-3"]), None, "an ID before its event");
    assert_eq!(judge("/a,b", &["x.1-1", "x.1-3"]), None, "2 is missing");
    assert_eq!(judge("/a", &["x.1-1", "y-1"]), None, "another history");
    assert_eq!(judge("/a", &["x.1-1", "y-0 y-0", "y-1"]), Some((2, 1, 0)));
    assert_eq!(judge("/a", &["x.1-1", "x.1-1 x.1-3", "x.1-4"]), Some((2, 1, 0)));
    assert_eq!(judge("/a", &["x.1-1", "x.1-1 x.1-3", "x.1-6"]), None, "4 is not in the gap");
    assert_eq!(judge("/a", &["x.1-1", "x.1-1 x.1-3", "x.1-3"]), Some((2, 1, 1)));
}
