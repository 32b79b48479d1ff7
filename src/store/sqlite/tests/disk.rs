//! Disks that fail, and processes that are killed.

use std::collections::VecDeque;
use std::thread;

use super::*;
use crate::store::{StoreState, SyncPolicy};
use crate::{History, PublishError, Publisher};

/// Appends until it fails. Returns the sequence of the last event that was stored, and the error.
fn append_until_error(store: &mut SqliteStore, from: u64) -> (u64, StoreError) {
    for sequence in from.. {
        if let Err(error) = store.append(&records([sequence]), Trim::default()) {
            return (sequence - 1, error);
        }
    }
    unreachable!()
}

/// Appends to the store until it fails for this reason. Returns the sequence of the last event that is stored. If it
/// `goes_on`, events are delivered that cannot be stored.
fn fill(sqlite: &Sqlite, reason: &str, goes_on: bool) -> u64 {
    let mut opened = open(sqlite);
    let (stored, error) = append_until_error(&mut opened.store, opened.attached.sequence + 1);
    assert!(stored > opened.attached.sequence && error.to_string().contains(reason), "{stored}: {error}");
    // It has failed for good, so that no later event is stored without the one that is missing.
    for _ in 0..2 {
        assert_eq!(opened.store.append(&records([stored + 1]), Trim::default()).unwrap_err(), error);
    }
    if goes_on {
        opened.store.note_unstored(stored + 1);
    }
    assert_eq!(opened.store.close(Trim::default()).unwrap_err(), error);
    stored
}

fn assert_holds(sqlite: &Sqlite, stored: u64, is_loss: bool) {
    let Opened { attached, records: found, .. } = open(sqlite);
    let expected = if is_loss { (stored + 1, stored + 1) } else { (stored, 0) };
    assert_eq!((attached.sequence, attached.last_loss), expected);
    assert_eq!(found, records(1..=stored));
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_full_disk_does_not_hold_is_a_loss_if_it_was_delivered() {
    let name = "disk::what_a_full_disk_does_not_hold_is_a_loss_if_it_was_delivered";
    if let Some(folder) = child::folder() {
        for reserve in ["one", "two"] {
            fs::write(folder.join(reserve), vec![0; 400 << 10]).unwrap();
        }
        let sqlite = Sqlite::at(folder.join("events.db"));
        let stored = fill(&sqlite, "disk is full", false);
        if let Err(error) = try_open(&sqlite, "this boot", 1_000) {
            assert!(error.to_string().contains("disk is full"), "{error}");
        }
        fs::remove_file(folder.join("one")).unwrap();
        assert_holds(&sqlite, stored, false);
        let stored = fill(&sqlite, "disk is full", true);
        fs::remove_file(folder.join("two")).unwrap();
        assert_holds(&sqlite, stored, true);
        return;
    }
    child::run_with_mount(name, &Folder::new().0, "mount -t tmpfs -o size=2m none \"$SSE_CHILD\"");
}

#[cfg(unix)]
#[test]
fn what_a_file_of_limited_size_does_not_hold_is_a_loss_if_it_was_delivered() {
    let name = "disk::what_a_file_of_limited_size_does_not_hold_is_a_loss_if_it_was_delivered";
    if let Some(folder) = child::folder() {
        let goes_on = env::var_os("GOES_ON").is_some();
        println!("\nstored {}", fill(&Sqlite::at(folder.join("events.db")), "disk I/O error", goes_on));
        return;
    }
    for (is_loss, variable) in [(false, ""), (true, "export GOES_ON=1; ")] {
        let folder = Folder::new();
        let output = child::run(name, &folder.0, &format!("{variable}trap '' XFSZ; ulimit -f 1024; "));
        let stored = output.lines().find_map(|line| line.strip_prefix("stored ")).unwrap();
        assert_holds(&folder.sqlite(), stored.parse().unwrap(), is_loss);
    }
}

#[cfg(unix)]
#[test]
fn a_directory_that_is_removed_is_an_error_of_a_later_append() {
    for what in ["directory", "database", "log"] {
        let folder = Folder::new();
        let mut store = open(&folder.sqlite()).store;
        store.append(&records([1]), Trim::default()).unwrap();
        match what {
            "directory" => fs::remove_dir_all(&folder.0).unwrap(),
            "database" => fs::rename(folder.file("events.db"), folder.file("elsewhere.db")).unwrap(),
            _ => fs::remove_file(folder.file("events.db-wal")).unwrap(),
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut sequence = 2;
        let error = loop {
            assert!(Instant::now() < deadline, "no error");
            match store.append(&records([sequence]), Trim::default()) {
                Ok(()) => sequence += 1,
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("was moved or deleted"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_sync_in_the_background_that_fails_breaks_the_store_while_no_event_comes() {
    // Long enough to remove a file before the sync.
    const PERIOD: Duration = Duration::from_secs(2);
    let (_folder, publisher) = loop {
        let folder = Folder::new();
        let sqlite = folder.sqlite().sync(SyncPolicy::Every(PERIOD));
        let publisher = Publisher::builder().history(History::new().store(sqlite)).build().unwrap();
        let start = Instant::now();
        publisher.publish_confirmed("a", "stored", Duration::from_secs(20)).unwrap();
        fs::remove_file(folder.file("events.db-wal")).unwrap();
        // Except on a busy machine.
        if start.elapsed() < PERIOD {
            break (folder, publisher);
        }
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let reason = loop {
        assert!(Instant::now() < deadline, "not broken");
        match publisher.store_state().unwrap() {
            StoreState::Broken { reason } => break reason,
            _ => thread::sleep(Duration::from_millis(5)),
        }
    };
    assert!(reason.contains("was moved or deleted"), "{reason}");
}

#[test]
fn an_event_that_sqlite_may_not_take_is_refused_and_the_next_one_is_stored() {
    let folder = Folder::new();
    let publisher = Publisher::builder().history(History::new().store(folder.sqlite())).build().unwrap();
    let large = "x".repeat(129 << 20);
    let error = publisher.publish_confirmed("a", large, Duration::from_secs(60)).unwrap_err();
    assert_eq!(error, PublishError::TooLarge);
    publisher.publish_confirmed("a", "small", Duration::from_secs(20)).unwrap();
}

#[test]
fn a_killed_process_loses_nothing() {
    let name = "disk::a_killed_process_loses_nothing";
    if let Some(folder) = child::folder() {
        let mut opened = open(&Sqlite::at(folder.join("events.db")));
        println!("attached");
        let mut kept: VecDeque<u64> = opened.records.iter().map(|record| record.sequence).collect();
        loop {
            let newest = kept.back().copied().unwrap_or_default();
            let new = newest + 1..=newest + fastrand::u64(1..20);
            kept.extend(new.clone());
            let evicted: Vec<u64> = kept.drain(..kept.len().saturating_sub(500)).collect();
            opened.store.append(&records(new.clone()), trim(&evicted, &[("a", evicted.last().copied())], 0)).unwrap();
            println!("stored {}", new.end());
        }
    }
    let folder = Folder::new();
    let rounds = env::var("STRESS_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(10);
    let mut stored = 0;
    for _ in 0..rounds {
        let mut process = child::Running::start(name, &folder.0, "");
        let mut left = fastrand::u32(1..200);
        while let Some(line) = process.line() {
            if let Some(sequence) = line.strip_prefix("stored ") {
                stored = sequence.parse().unwrap();
                left = left.saturating_sub(1);
                if left == 0 {
                    process.kill();
                }
            }
        }
        let mut opened = open(&folder.sqlite());
        let newest = opened.attached.sequence;
        assert!((stored..stored + 20).contains(&newest), "{newest} instead of {stored}");
        assert_eq!(opened.attached.last_loss, 0);
        let oldest = opened.records[0].sequence;
        // What was evicted last may still be there.
        assert!(
            (newest.saturating_sub(600) + 1..=newest.saturating_sub(500) + 1).contains(&oldest),
            "{oldest} to {newest}"
        );
        assert_eq!(opened.records, records(oldest..=newest));
        if fastrand::bool() {
            opened.store.close(Trim::default()).unwrap();
        }
    }
}
