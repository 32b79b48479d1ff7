//! Judges what a client received: each event once and in the order of the stream, or a gap where Redis lost something.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Block;
use super::log::{Entry, Log, Place};

/// What one client received.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub events: usize,
    pub gaps: usize,
}

/// How far a client is.
#[derive(Clone, Copy)]
struct Progress {
    place: Place,
    /// The sequence up to which it has everything that the stream has, or a gap for it.
    has: u64,
    /// It has seen what Redis then lost, and no gap yet.
    awaits_gap: bool,
}

/// Checks what a client of these channels received.
pub fn judge(log: &Log, channels: &[&str], blocks: &[Block]) -> Result<Verdict, String> {
    let (mut verdict, mut progress) = (Verdict::default(), None::<Progress>);
    for block in blocks {
        let before = progress.map(|progress| progress.place);
        let next = match block {
            Block::Gap { id, data } => {
                verdict.gaps += 1;
                gap(log, progress, log.place(id)?, data)
            }
            Block::Event { id, data } => {
                verdict.events += 1;
                step(log, channels, progress, log.place(id)?, Some(data))
            }
            Block::Id(id) => step(log, channels, progress, log.place(id)?, None),
        };
        progress = Some(next.map_err(|error| format!("{error}: {block:?} after {before:?}"))?);
    }
    Ok(verdict)
}

/// Goes on to an event or an ID.
fn step(
    log: &Log,
    channels: &[&str],
    before: Option<Progress>,
    place: Place,
    data: Option<&str>,
) -> Result<Progress, String> {
    let lost = log.lost(place);
    match data {
        Some(data) if lost.is_none() && log.data(place, channels) != Some(data) => {
            return Err(format!("the stream has {:?} there", log.data(place, channels)));
        }
        None if lost.is_none() && place.1 > log.entries.len() as u64 => return Err("beyond the stream".into()),
        _ => {}
    }
    let upto = lost.unwrap_or(place.1 - u64::from(data.is_some()));
    if let Some(before) = before {
        if place < before.place || (data.is_some() && place == before.place) {
            return Err("a repetition, or not in order".into());
        }
        if before.awaits_gap && place.0 > before.place.0 {
            return Err("no gap for what Redis lost".into());
        }
        if let Some(missing) = log.between(before.has, upto, channels).next() {
            return Err(format!("{missing:?} is missing"));
        }
    }
    let has = lost.unwrap_or(place.1).max(before.map_or(0, |before| before.has));
    Ok(Progress { place, has, awaits_gap: lost.is_some() })
}

/// Goes on to a gap, which must be for a loss of Redis.
fn gap(log: &Log, before: Option<Progress>, place: Place, data: &str) -> Result<Progress, String> {
    let to = serde_json::from_str::<Value>(data).unwrap()["to"].as_str().map(|to| log.place(to)).unwrap()?;
    let before = before.ok_or("a gap at the start")?;
    let mut reported = log.losses.values().map(|(sequence, _)| *sequence);
    if !before.awaits_gap && !reported.any(|loss| before.has < loss && loss <= to.1.max(place.1)) {
        return Err("a gap, though Redis lost nothing there".into());
    }
    Ok(Progress { place, has: to.1.max(place.1), awaits_gap: false })
}

#[test]
fn the_oracle_sees_what_is_missing_repeated_or_out_of_order() {
    let mut log = Log { lineage: "x".into(), ..Log::default() };
    let event = |channels: &[&str], data: &str| Entry::Event {
        channels: channels.iter().map(|&channel| channel.to_owned()).collect(),
        data: data.into(),
    };
    log.entries = BTreeMap::from([
        (1, (1, Entry::Nothing)),
        (2, (1, event(&["a"], "2"))),
        (3, (1, event(&["b"], "3"))),
        (4, (1, event(&["a", "b"], "4"))),
        // Lost: 1-5 to 1-7.
        (5, (2, Entry::Nothing)),
        (6, (2, Entry::Nothing)),
        (7, (2, event(&["a"], "7"))),
        (8, (2, event(&["a"], "8"))),
    ]);
    log.losses.insert(1, (6, 4));
    let block = |text: &str| match (text.split_once(' '), text.strip_prefix('@')) {
        (Some((id, to)), _) => Block::Gap { id: format!("x.{id}"), data: format!("{{\"to\":\"x.{to}\"}}") },
        (None, Some(id)) => Block::Id(format!("x.{id}")),
        (None, None) => Block::Event { id: format!("x.{text}"), data: text.split('-').nth(1).unwrap().into() },
    };
    let judge = |channel: &str, blocks: &[&str]| {
        let blocks: Vec<Block> = blocks.iter().map(|text| block(text)).collect();
        judge(&log, &[channel], &blocks).map(|verdict| (verdict.events, verdict.gaps)).ok()
    };
    assert_eq!(judge("a", &["@1-1", "1-2", "@1-3", "1-4"]), Some((2, 0)));
    assert_eq!(judge("b", &["1-3", "@1-3", "1-4"]), Some((2, 0)));
    assert_eq!(judge("a", &["1-2", "@1-4"]), None, "4 is missing");
    assert_eq!(judge("b", &["@1-2", "1-4"]), None, "3 is missing");
    assert_eq!(judge("a", &["1-2", "1-2"]), None, "a repetition");
    assert_eq!(judge("a", &["1-4", "1-2"]), None, "out of order");
    assert_eq!(judge("a", &["1-2", "1-3"]), None, "there is no such event for it");
    assert_eq!(judge("a", &["1-2", "1-2 1-4", "1-4"]), None, "a gap without a loss");
    assert_eq!(judge("a", &["1-4", "1-4 2-6", "2-7", "2-8"]), Some((3, 1)), "a gap for the loss");
    assert_eq!(judge("a", &["1-4", "1-6", "1-6 2-6", "2-7"]), Some((3, 1)), "it has seen what was lost");
    assert_eq!(judge("a", &["1-4", "1-6", "2-7"]), None, "no gap for what it has seen");
    assert_eq!(judge("a", &["2-7", "2-7 2-8", "2-8"]), None, "a gap behind the loss");
    assert_eq!(judge("a", &["2-7", "2-9"]), None, "there is no such event");
    assert!(log.place("y.1-2").is_err() && log.place("x.1-2") == Ok((1, 2)));
}
