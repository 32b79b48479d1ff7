//! How large the files become.

use std::collections::VecDeque;

use super::*;
use crate::{Event, History, Publisher};

/// What the documentation of `Sqlite` adds to three times `max_bytes`, and one transaction.
const CONSTANT: u64 = 1 << 20;

/// A store with a history of this size, and the largest size that its files have had.
struct Measured {
    folder: Folder,
    store: SqliteStore,
    max_bytes: usize,
}

impl Measured {
    fn new(max_bytes: usize) -> Self {
        let folder = Folder::new();
        let store = try_open_with(&folder.sqlite(), max_bytes, "boot", 1).unwrap().store;
        Self { folder, store, max_bytes }
    }

    fn append(&mut self, records: &[Record<'_>], trim: Trim) {
        self.store.append(records, trim).unwrap();
        let size = bytes(&self.folder.file("events.db")) + bytes(&self.folder.file("events.db-wal"));
        assert!(size <= 3 * self.max_bytes as u64 + CONSTANT, "{size} bytes");
    }
}

fn event(sequence: u64, size: usize) -> Record<'static> {
    let channels: Vec<Arc<str>> = vec![format!("channel {}", sequence % 7).into()];
    let fields = format!("data: {}\n", "x".repeat(size));
    Record {
        sequence,
        at: 0,
        channels: channels.into(),
        own_id: None,
        finds_own_id: true,
        key: None,
        content: Content::Fields(fields.into()),
    }
}

#[test]
fn an_old_event_of_a_quiet_channel_does_not_keep_the_file_from_staying_small() {
    let events = env::var("HISTORY_EVENTS").ok().and_then(|events| events.parse().ok()).unwrap_or(100_000);
    let mut measured = Measured::new(1 << 20);
    measured.append(&[event(1, 200)], Trim::default());
    for first in (2..=events).step_by(10) {
        let records: Vec<_> = (first..first + 10).map(|sequence| event(sequence, 200)).collect();
        let evicted: Vec<u64> =
            (first..first + 10).filter_map(|new| new.checked_sub(1_000)).filter(|old| *old > 1).collect();
        let floor = evicted.last().copied();
        let floors = [("busy", floor)];
        measured.append(&records, trim(&evicted, &floors[..usize::from(floor.is_some())], 0));
    }
    measured.store.close(Trim::default()).unwrap();
    assert!(bytes(&measured.folder.file("events.db")) < 1 << 20);
    drop(measured.store);
    let opened = open(&measured.folder.sqlite());
    assert_eq!((opened.records.len(), opened.records[0].sequence), (1_001, 1));
}

#[test]
fn kept_events_between_evicted_ones_do_not_waste_the_file() {
    for size in [20, 200, 1_300, 2_100, 4_100, 20_000] {
        for kept_of in [2, 18] {
            let mut measured = Measured::new(1 << 20);
            // As the history counts: an entry, its channel, and its fields.
            let most = measured.max_bytes / (384 + 48 + size + 7);
            let (mut kept, mut others) = (VecDeque::new(), VecDeque::new());
            for first in (1..=(most * 3 * kept_of) as u64).step_by(50) {
                let records: Vec<_> = (first..first + 50).map(|sequence| event(sequence, size)).collect();
                let mut evicted = Vec::new();
                for sequence in first..first + 50 {
                    let is_kept = sequence % kept_of as u64 == 0;
                    if is_kept { &mut kept } else { &mut others }.push_back(sequence);
                    if others.len() > 20 {
                        evicted.extend(others.pop_front());
                    }
                    if kept.len() + others.len() > most {
                        evicted.extend(kept.pop_front());
                    }
                }
                measured.append(&records, trim(&evicted, &[], 0));
            }
            let file = bytes(&measured.folder.file("events.db"));
            let share = file as f64 / measured.max_bytes as f64;
            // The log has the rest of what is promised.
            assert!(share < 2.5, "size {size}, one of {kept_of} kept: {share:.2} times");
            println!("size {size}, one of {kept_of} kept: {share:.2} times");
        }
    }
}

#[test]
fn a_log_that_is_written_without_a_pause_stays_within_its_limit() {
    let mut measured = Measured::new(256 << 10);
    for sequence in 1..5_000 {
        let evicted: Vec<u64> = u64::checked_sub(sequence, 20).into_iter().collect();
        measured.append(&[event(sequence, 1_000)], trim(&evicted, &[], 0));
    }
}

#[test]
fn a_program_that_reads_the_file_delays_no_append_for_long() {
    let mut measured = Measured::new(256 << 10);
    let reader = rusqlite::Connection::open(measured.folder.file("events.db")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    for sequence in 1..1_000 {
        measured.store.append(&[event(sequence, 1_000)], Trim::default()).unwrap();
    }
    let log = measured.folder.file("events.db-wal");
    assert!(bytes(&log) > 1 << 20);
    reader.execute_batch("COMMIT").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut sequence = 1_000;
    while bytes(&log) > 512 << 10 {
        assert!(Instant::now() < deadline, "the log does not shrink");
        measured.store.append(&[event(sequence, 1_000)], Trim::default()).unwrap();
        sequence += 1;
    }
}

#[test]
fn long_names_of_channels_and_long_keys_count_for_the_file() {
    const MAX_BYTES: usize = 512 << 10;
    let folder = Folder::new();
    let file = folder.file("events.db");
    let history = History::new().max_bytes(MAX_BYTES).store(Sqlite::at(&file));
    let publisher = Publisher::builder().history(history).build().unwrap();
    let channels: Vec<String> = (0..16).map(|number| format!("{number} {}", "x".repeat(250))).collect();
    for number in 0..1_500 {
        let event = Event::new("x").key("y".repeat(1_000));
        publisher.publish_confirmed(&channels, event, Duration::from_secs(60)).unwrap();
        if number % 100 == 0 {
            let size = bytes(&file) + bytes(&folder.file("events.db-wal"));
            assert!(size <= 3 * MAX_BYTES as u64 + CONSTANT, "{size} bytes after {number} events");
        }
    }
}
