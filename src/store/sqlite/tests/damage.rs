//! Truncated and changed files: an error, or an earlier state together with a loss. Never a wrong event, and never a
//! missing one without a report.

use rusqlite::Connection;

use super::*;
use crate::store::sqlite::{file, upkeep};

const FILES: [&str; 3] = ["events.db", "events.db-wal", "events.db.lock"];

/// What the history held at some time.
#[derive(Debug, PartialEq)]
struct Past {
    records: Vec<Record<'static>>,
    floors: Vec<(Arc<str>, u64)>,
    horizon: u64,
    sequence: u64,
}

/// A history that was not closed, and whose log is partly copied into the database.
struct Original {
    folder: Folder,
    /// The states after each transaction, the newest last.
    past: Vec<Past>,
}

impl Original {
    fn new() -> Self {
        let folder = Folder::new();
        let mut store = open(&folder.sqlite()).store;
        let mut past = vec![Past { records: Vec::new(), floors: Vec::new(), horizon: 0, sequence: 0 }];
        let reader = file::connect(&folder.file("events.db")).unwrap();
        for step in 1..=24 {
            let first = step * 40 - 39;
            let appended = records(first..first + 40);
            let evicted: Vec<u64> = (first..first + 20).filter_map(|new| new.checked_sub(200)).collect();
            let channel = format!("channel {}", step % 4);
            store.append(&appended, Trim::default()).unwrap();
            let last = past.last().unwrap();
            let all: Vec<_> = last.records.iter().cloned().chain(appended).collect();
            let (floors, horizon, sequence) = (last.floors.clone(), last.horizon, first + 39);
            past.push(Past { records: all, floors, horizon, sequence });
            store.append(&[], trim(&evicted, &[(&channel, Some(step))], step)).unwrap();
            let last = past.last().unwrap();
            let kept = last.records.iter().filter(|record| !evicted.contains(&record.sequence)).cloned();
            let others = last.floors.iter().filter(|(other, _)| **other != *channel).cloned();
            let mut floors: Vec<_> = others.chain([(channel.as_str().into(), step)]).collect();
            floors.sort();
            past.push(Past { records: kept.collect(), floors, horizon: step, sequence });
            match step {
                // From here on the log does not begin again.
                6 => checkpoint_and_begin_to_read(&folder, &reader),
                18 => _ = upkeep::checkpoint(&file::connect(&folder.file("events.db")).unwrap(), "PASSIVE").unwrap(),
                12 => {
                    reader.execute_batch("COMMIT").unwrap();
                    begin_to_read(&reader);
                }
                _ => {}
            }
        }
        // Only what was copied before the crash is in the files.
        let copy = Folder::new();
        for name in FILES {
            fs::copy(folder.file(name), copy.file(name)).unwrap();
        }
        Self { folder: copy, past }
    }

    /// Opens a copy of which one file is changed. Returns whether it is refused.
    fn check(&self, name: &str, change: impl FnOnce(&mut Vec<u8>), what: &str) -> bool {
        let copy = Folder::new();
        for name in FILES {
            fs::copy(self.folder.file(name), copy.file(name)).unwrap();
        }
        let mut content = fs::read(copy.file(name)).unwrap();
        change(&mut content);
        fs::write(copy.file(name), &content).unwrap();
        let before = [FILES[0], FILES[1]].map(|name| fs::read(copy.file(name)).unwrap());
        match try_open(&copy.sqlite(), "this boot", 1_000) {
            Ok(opened) => {
                self.assert_was_past(opened, &format!("{name} {what}"));
                false
            }
            Err(StoreError::Damaged { .. } | StoreError::Foreign { .. } | StoreError::NewerVersion { .. }) => {
                let after = [FILES[0], FILES[1]].map(|name| fs::read(copy.file(name)).unwrap());
                assert!(after == before, "{name} {what}: the files have changed");
                true
            }
            Err(error) => panic!("{name} {what}: {error}"),
        }
    }

    fn assert_was_past(&self, opened: Opened, what: &str) {
        let Attached { floors, horizon, sequence, last_loss, .. } = opened.attached;
        let sequence = if last_loss > 0 { sequence - 1 } else { sequence };
        let now = Past { records: opened.records, floors, horizon, sequence };
        assert!(self.past.contains(&now), "{what}: this was never so: {:?} {:?}", now.floors, now.sequence);
        let is_complete = now.sequence == self.past.last().unwrap().sequence;
        assert!(is_complete || last_loss == now.sequence + 1, "{what}: events are missing silently");
    }
}

fn begin_to_read(reader: &Connection) {
    reader.execute_batch("BEGIN").unwrap();
    reader.query_row("SELECT count(*) FROM state", [], |_| Ok(())).unwrap();
}

fn checkpoint_and_begin_to_read(folder: &Folder, reader: &Connection) {
    let busy = upkeep::checkpoint(&file::connect(&folder.file("events.db")).unwrap(), "PASSIVE").unwrap();
    assert!(!busy);
    begin_to_read(reader);
}

#[test]
fn an_unchanged_copy_is_complete() {
    let original = Original::new();
    assert!(!original.check("events.db-wal", |_| {}, "unchanged"));
    // Else the tests below would test little.
    for name in [FILES[0], FILES[1]] {
        let pages = bytes(&original.folder.file(name)) / 4_096;
        assert!(pages > 8, "{name} has {pages} pages");
    }
}

/// Calls the closure with random numbers: as many as a long run wants.
fn sample(mut each: impl FnMut(&mut fastrand::Rng)) {
    let cases = env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse::<usize>().ok()).unwrap_or(0);
    for _ in 0..60.max(cases / 20) {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        each(&mut fastrand::Rng::with_seed(seed));
    }
}

#[test]
fn a_truncated_file_never_gives_a_wrong_event() {
    let original = Original::new();
    let mut refused = 0;
    for name in FILES {
        let length = bytes(&original.folder.file(name)) as usize;
        sample(|random| {
            // Every length near a page's or a frame's end, and others.
            let unit = random.choice([1, 4_096, 4_120]).unwrap();
            let cut = (random.usize(..length) / unit * unit + random.usize(..3)).min(length - 1);
            refused += usize::from(original.check(name, |content| content.truncate(cut), &format!("cut to {cut}")));
        });
    }
    println!("{refused} refused");
}

#[test]
fn a_changed_bit_never_gives_a_wrong_event() {
    let original = Original::new();
    let mut refused = 0;
    for name in FILES {
        sample(|random| {
            let length = bytes(&original.folder.file(name)) as usize;
            let place = if random.u8(..4) == 0 { random.usize(..length.min(100)) } else { random.usize(..length) };
            let bit = random.u32(..8);
            let what = format!("bit {bit} of byte {place}");
            refused += usize::from(original.check(name, |content| content[place] ^= 1 << bit, &what));
        });
    }
    println!("{refused} refused");
}

#[test]
fn a_zeroed_or_exchanged_page_never_gives_a_wrong_event() {
    let original = Original::new();
    for name in [FILES[0], FILES[1]] {
        let pages = bytes(&original.folder.file(name)) as usize / 4_096;
        sample(|random| {
            let (one, other) = (random.usize(..pages) * 4_096, random.usize(..pages) * 4_096);
            if random.bool() {
                original.check(name, |content| content[one..one + 4_096].fill(0), &format!("zeroed at {one}"));
            } else {
                let exchange = |content: &mut Vec<u8>| {
                    let page = content[one..one + 4_096].to_vec();
                    content.copy_within(other..other + 4_096, one);
                    content[other..other + 4_096].copy_from_slice(&page);
                };
                original.check(name, exchange, &format!("exchanged {one} and {other}"));
            }
        });
    }
}

#[test]
fn a_row_that_was_changed_by_hand_is_named() {
    for (change, reason) in [
        ("UPDATE events SET fields = fields || 'x' WHERE sequence = 7", "table events, row 7"),
        ("UPDATE events SET channels = '[' WHERE sequence = 7", "table events, row 7"),
        ("UPDATE events SET transform = 'x' WHERE sequence = 7", "table events, row 7"),
        ("UPDATE events SET sequence = 70 WHERE sequence = 7", "table events, row 70"),
        ("DELETE FROM events WHERE sequence = 7", "table events"),
        ("UPDATE floors SET floor = 1 WHERE channel = 'a'", "table floors, row \"a\""),
        ("DELETE FROM floors WHERE channel = 'a'", "table floors"),
        ("DELETE FROM eras", "table eras"),
        ("UPDATE eras SET first = 2", "table eras"),
        ("UPDATE state SET sequence = 9", "table state, row 1"),
        ("DELETE FROM state", "Query returned no rows"),
        ("DROP VIEW history", "schema of history"),
        ("UPDATE events SET key = x'00ff' WHERE sequence = 7", "Invalid column type"),
    ] {
        let folder = Folder::new();
        let mut store = open(&folder.sqlite()).store;
        store.append(&records(1..=10), trim(&[], &[("a", Some(3)), ("b", Some(4))], 0)).unwrap();
        store.close(Trim::default()).unwrap();
        Connection::open(folder.file("events.db")).unwrap().execute_batch(change).unwrap();
        let before = fs::read(folder.file("events.db")).unwrap();
        let error = try_open(&folder.sqlite(), "this boot", 1).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }) && error.to_string().contains(reason), "{change}: {error}");
        assert!(fs::read(folder.file("events.db")).unwrap() == before, "{change}");
    }
}
