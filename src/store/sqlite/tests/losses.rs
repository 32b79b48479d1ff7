//! When a store reports that events are missing.

use super::*;
use crate::store::sqlite::SyncPolicy;

const POLICIES: [SyncPolicy; 3] = [SyncPolicy::Always, SyncPolicy::Every(Duration::from_millis(1)), SyncPolicy::Never];

/// Creates a history with these events, and ends without closing it.
fn crash_after(sqlite: &Sqlite, events: u64) -> Attached {
    let mut opened = open(sqlite);
    opened.store.append(&records(1..=events), Trim::default()).unwrap();
    opened.attached
}

fn copy(from: &Folder, to: &Folder, names: &[&str]) {
    for name in names {
        fs::copy(from.file(name), to.file(name)).unwrap();
    }
}

#[test]
fn the_end_of_the_process_loses_nothing() {
    for policy in POLICIES {
        let folder = Folder::new();
        crash_after(&folder.sqlite().sync(policy), 10);
        let second = open(&folder.sqlite());
        assert_eq!((second.attached.sequence, second.attached.last_loss), (10, 0), "{policy:?}");
        assert_eq!(second.records, records(1..=10));
    }
}

#[test]
fn another_boot_is_a_loss_unless_every_event_was_synced_or_the_store_was_closed() {
    for policy in POLICIES {
        for is_closed in [true, false] {
            for boot in ["another boot", ""] {
                let folder = Folder::new();
                let sqlite = folder.sqlite().sync(policy);
                let mut first = open(&sqlite);
                first.store.append(&records(1..=10), Trim::default()).unwrap();
                if is_closed {
                    first.store.close(Trim::default()).unwrap();
                }
                drop(first);
                let second = try_open(&sqlite, boot, 1_000).unwrap();
                let is_loss = !is_closed && policy != SyncPolicy::Always;
                let expected = if is_loss { (11, 11) } else { (10, 0) };
                let attached = (second.attached.sequence, second.attached.last_loss);
                assert_eq!(attached, expected, "{policy:?}, closed {is_closed}, {boot:?}");
                assert_eq!(second.attached.eras, [(1_000, 1), (1_001, 11)]);
                assert_eq!(second.records, records(1..=10));
            }
        }
    }
}

#[test]
fn a_boot_that_was_unknown_is_never_the_same() {
    let folder = Folder::new();
    drop(try_open(&folder.sqlite(), "", 1_000).unwrap());
    assert_eq!(try_open(&folder.sqlite(), "", 1_000).unwrap().attached.last_loss, 1);
}

#[test]
fn the_policy_and_the_boot_of_the_last_run_count() {
    let folder = Folder::new();
    let always = folder.sqlite().sync(SyncPolicy::Always);
    let never = folder.sqlite().sync(SyncPolicy::Never);
    for (sqlite, boot, last_loss) in [
        (&always, "1", 0),
        (&never, "2", 0),
        (&always, "3", 1),
        (&never, "4", 1),
        (&never, "4", 1),
        (&never, "5", 2),
        (&always, "5", 2),
        (&always, "6", 2),
    ] {
        assert_eq!(try_open(sqlite, boot, 1).unwrap().attached.last_loss, last_loss, "{boot}");
    }
}

#[test]
fn a_loss_takes_a_sequence_and_is_remembered() {
    let folder = Folder::new();
    crash_after(&folder.sqlite(), 10);
    let mut second = try_open(&folder.sqlite(), "another boot", 2_000).unwrap();
    second.store.append(&records(12..=15), Trim::default()).unwrap();
    second.store.close(Trim::default()).unwrap();
    let mut third = try_open(&folder.sqlite(), "another boot", 3_000).unwrap();
    assert_eq!((third.attached.sequence, third.attached.last_loss), (15, 11));
    assert_eq!(third.attached.eras, [(1_000, 1), (2_000, 11), (3_000, 16)]);
    assert_eq!(third.records, records((1..=10).chain(12..=15)));
    third.store.append(&[], Trim::default()).unwrap();
    drop(third);
    // Two losses without an event between them.
    for (boot, loss) in [("boot 3", 16), ("boot 4", 17)] {
        let opened = try_open(&folder.sqlite(), boot, 1).unwrap();
        assert_eq!((opened.attached.sequence, opened.attached.last_loss), (loss, loss));
    }
}

#[test]
fn an_event_that_was_delivered_without_being_stored_is_a_loss() {
    for is_closed in [true, false] {
        let folder = Folder::new();
        let mut first = open(&folder.sqlite());
        first.store.append(&records(1..=10), Trim::default()).unwrap();
        first.store.note_unstored(11);
        first.store.note_unstored(14);
        first.store.note_unstored(12);
        if is_closed {
            first.store.close(Trim::default()).unwrap();
        }
        drop(first);
        let second = open(&folder.sqlite());
        assert_eq!((second.attached.sequence, second.attached.last_loss), (11, 11));
        assert_eq!(second.attached.eras, [(1_000, 1), (1_001, 11)]);
        drop(second);
        let third = open(&folder.sqlite());
        assert_eq!((third.attached.sequence, third.attached.last_loss), (11, 11));
    }
}

#[test]
fn an_older_copy_of_the_database_is_a_loss_and_never_assigns_an_id_again() {
    for (is_closed, is_same_boot) in [(true, true), (true, false), (false, true), (false, false)] {
        let (folder, backup) = (Folder::new(), Folder::new());
        let mut first = open(&folder.sqlite());
        first.store.append(&records(1..=10), Trim::default()).unwrap();
        first.store.close(Trim::default()).unwrap();
        copy(&folder, &backup, &["events.db"]);
        let mut second = open(&folder.sqlite());
        second.store.append(&records(11..=20), Trim::default()).unwrap();
        if is_closed {
            second.store.close(Trim::default()).unwrap();
        }
        drop(second.store);
        for name in ["events.db-wal", "events.db-shm"] {
            let _ = fs::remove_file(folder.file(name));
        }
        copy(&backup, &folder, &["events.db"]);
        // The clock has gone back, too.
        let boot = if is_same_boot { "this boot" } else { "another boot" };
        let third = try_open(&folder.sqlite(), boot, 1).unwrap();
        assert_eq!((third.attached.sequence, third.attached.last_loss), (11, 11));
        assert_eq!(second.attached.eras, [(1_000, 1), (1_001, 11)]);
        assert_eq!(third.attached.eras, [(1_000, 1), (1_002, 11)]);
        assert_eq!(third.records, records(1..=10));
    }
}

#[test]
fn a_note_that_is_missing_or_unreadable_is_a_loss_unless_the_store_was_closed() {
    for is_closed in [true, false] {
        for content in [None, Some(""), Some("not a note\n"), Some("\u{feff}")] {
            let folder = Folder::new();
            let mut first = open(&folder.sqlite());
            first.store.append(&records(1..=10), Trim::default()).unwrap();
            if is_closed {
                first.store.close(Trim::default()).unwrap();
            }
            drop(first);
            let note = folder.file("events.db.lock");
            match content {
                None => fs::remove_file(&note).unwrap(),
                Some(content) => fs::write(&note, content).unwrap(),
            }
            let second = open(&folder.sqlite());
            assert_eq!(second.attached.last_loss, if is_closed { 0 } else { 11 }, "{content:?}");
            drop(second);
            let third = open(&folder.sqlite());
            assert_eq!(third.attached.last_loss, if is_closed { 0 } else { 11 }, "{content:?}");
        }
    }
}

#[test]
fn the_note_of_another_history_is_overwritten() {
    let (folder, other) = (Folder::new(), Folder::new());
    crash_after(&other.sqlite(), 20);
    let mut first = open(&folder.sqlite());
    first.store.append(&records(1..=10), Trim::default()).unwrap();
    first.store.close(Trim::default()).unwrap();
    copy(&other, &folder, &["events.db.lock"]);
    for _ in 0..2 {
        let opened = open(&folder.sqlite());
        assert_eq!((opened.attached.sequence, opened.attached.last_loss), (10, 0));
    }
}

#[test]
fn an_older_copy_that_is_put_back_while_the_clock_is_back_gets_another_era() {
    let (folder, backup) = (Folder::new(), Folder::new());
    let far_ahead = 253_402_300_799 << 20;
    try_open(&folder.sqlite(), "boot", far_ahead).unwrap().store.close(Trim::default()).unwrap();
    copy(&folder, &backup, &["events.db"]);
    let eras = [(); 3].map(|()| {
        copy(&backup, &folder, &["events.db"]);
        let _ = fs::remove_file(folder.file("events.db.lock"));
        let mut store = folder.sqlite().open_in(MAX_BYTES, Surroundings::now()).unwrap();
        let era = store.attach().unwrap().eras.last().unwrap().0;
        store.read(&mut |_| {}).unwrap();
        store.append(&records([1]), Trim::default()).unwrap();
        store.close(Trim::default()).unwrap();
        era
    });
    // Two of the three may be equal, once in 300,000 runs.
    assert!(eras.iter().all(|era| *era > far_ahead) && eras[0] != eras[1] && eras[1] != eras[2], "{eras:?}");
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    let folder = Folder::new();
    for (seconds, at) in [(253_402_300_799, u64::MAX), (0, 0), (31_000_000, 31_000_000_000)] {
        let mut opened = try_open(&folder.sqlite(), "boot", seconds).unwrap();
        let sequence = opened.attached.sequence + 1;
        assert!(opened.attached.eras.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1));
        opened.store.append(&[Record { at, ..record(sequence) }], Trim::default()).unwrap();
        assert_eq!(opened.attached.last_loss, 0);
    }
}
