//! What a store holds after it was opened again.

use super::*;

/// How a run ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Drop,
}

#[test]
fn a_store_returns_what_was_appended() {
    for end in [End::Close, End::Drop] {
        let folder = Folder::new();
        let mut first = open(&folder.sqlite());
        assert!(first.records.is_empty() && first.attached.floors.is_empty());
        assert_eq!((first.attached.sequence, first.attached.last_loss, first.attached.horizon), (0, 0, 0));
        assert_eq!(first.attached.eras, [(1_000, 1)]);
        first.store.append(&records(1..=40), Trim::default()).unwrap();
        let trimmed = trim(&[1, 2, 30], &[("channel 0", Some(2)), ("gone", Some(30)), ("", Some(7))], 5);
        first.store.append(&records(41..=50), trimmed).unwrap();
        first.store.append(&[], trim(&[3], &[("gone", None)], 6)).unwrap();
        match end {
            End::Close => first.store.close(trim(&[4], &[("channel 0", Some(4))], 6)).unwrap(),
            End::Drop => {
                first.store.append(&[], trim(&[4], &[("channel 0", Some(4))], 6)).unwrap();
                drop(first.store);
            }
        }

        let second = open(&folder.sqlite());
        assert_eq!(second.records, records((5..=50).filter(|sequence| *sequence != 30)), "{end:?}");
        assert_eq!(second.attached.lineage, first.attached.lineage);
        assert_eq!(second.attached.eras, [(1_000, 1), (1_001, 51)]);
        assert_eq!((second.attached.sequence, second.attached.last_loss, second.attached.horizon), (50, 0, 6));
        assert_eq!(second.attached.floors, [("".into(), 7), ("channel 0".into(), 4)]);
    }
}

#[test]
fn an_era_without_events_is_dropped_when_the_next_begins() {
    let folder = Folder::new();
    for (seconds, appended, eras) in [
        (5, 0, vec![(5, 1)]),
        (3, 2, vec![(6, 1)]),
        (10, 0, vec![(6, 1), (10, 3)]),
        (10, 1, vec![(6, 1), (11, 3)]),
        (2, 0, vec![(6, 1), (11, 3), (12, 4)]),
    ] {
        let mut opened = try_open(&folder.sqlite(), "boot", seconds).unwrap();
        assert_eq!(opened.attached.eras, eras);
        let next = opened.attached.sequence + 1;
        opened.store.append(&records(next..next + appended), Trim::default()).unwrap();
    }
}

#[test]
fn the_oldest_of_more_than_4_096_eras_is_forgotten() {
    let mut eras = Eras::default();
    for number in 1..=5_000 {
        eras.begin(number, number * 2);
    }
    assert_eq!((eras.0.len(), eras.0[0], eras.0[4_095]), (4_096, (905, 1_810), (5_000, 10_000)));
}

#[test]
fn every_text_survives() {
    let texts = ["", "\0", "a\0b", "\u{1F98A}\u{10FFFF}", "\"\\/\u{7f}\u{2028}", "'; DROP TABLE events; --", "[]"];
    let folder = Folder::new();
    let mut first = open(&folder.sqlite());
    let appended: Vec<Record<'static>> = (1..)
        .zip(texts)
        .map(|(sequence, text)| Record {
            sequence,
            at: u64::MAX - sequence,
            channels: texts.map(Arc::from).to_vec().into(),
            own_id: Some(text.into()),
            finds_own_id: true,
            key: Some(text.into()),
            content: Content::Transform { name: text.into(), argument: text.into(), fields: text.into() },
        })
        .collect();
    let floors: Vec<_> = texts.iter().map(|text| (*text, Some(1))).collect();
    first.store.append(&appended, Trim::default()).unwrap();
    first.store.append(&[], trim(&[], &floors, 0)).unwrap();
    drop(first.store);
    let second = open(&folder.sqlite());
    assert_eq!(second.records, appended);
    let mut channels: Vec<_> = second.attached.floors.iter().map(|(channel, _)| &**channel).collect();
    channels.sort_by_key(|channel| texts.iter().position(|text| text == channel));
    assert_eq!(channels, texts);
}

#[test]
fn an_event_without_channels_and_one_of_64_mib_survive() {
    let folder = Folder::new();
    let mut first = open(&folder.sqlite());
    let mut appended = records(2..=3);
    appended[0].channels = Vec::new().into();
    appended[1].content = Content::Fields("data: \u{e9}\n".repeat(8 << 20).into());
    first.store.append(&appended, Trim::default()).unwrap();
    first.store.close(Trim::default()).unwrap();
    assert!(open(&folder.sqlite()).records == appended);
}

#[test]
fn an_event_that_became_ambiguous_stays_so() {
    let folder = Folder::new();
    let mut first = open(&folder.sqlite());
    first.store.append(&records(1..=8), Trim::default()).unwrap();
    let trim = Trim { ambiguous: vec![1, 8, 8, 9], evicted: vec![1], ..Trim::default() };
    first.store.append(&[], trim).unwrap();
    drop(first.store);
    let mut expected = records(2..=8);
    expected[6].finds_own_id = false;
    assert_eq!(open(&folder.sqlite()).records, expected);
}

#[test]
fn a_closed_store_leaves_one_file_besides_its_lock() {
    let folder = Folder::new();
    let mut first = open(&folder.sqlite());
    first.store.append(&records(1..=8), Trim::default()).unwrap();
    first.store.close(Trim::default()).unwrap();
    first.store.append(&[], Trim::default()).unwrap_err();
    first.store.close(Trim::default()).unwrap_err();
    drop(first.store);
    let mut names: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["events.db", "events.db.lock"]);
}

#[test]
fn evictions_are_deleted_together_or_at_the_end() {
    let folder = Folder::new();
    let mut first = open(&folder.sqlite());
    let reader = rusqlite::Connection::open(folder.file("events.db")).unwrap();
    let count = || reader.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0)).unwrap() as u64;
    let floor = |floor| [("a", Some(floor))];
    for sequence in 1..=62 {
        first.store.append(&records([sequence]), trim(&[sequence], &floor(sequence), 0)).unwrap();
        assert_eq!(count(), sequence);
    }
    first.store.append(&records([63]), trim(&[63], &floor(63), 0)).unwrap();
    assert_eq!(count(), 0);
    first.store.append(&records([64]), trim(&[64], &floor(64), 0)).unwrap();
    first.store.append(&[], Trim::default()).unwrap();
    assert_eq!(count(), 0);
    first.store.append(&records([65]), trim(&[65], &floor(65), 0)).unwrap();
    assert_eq!(count(), 1);
    first.store.settle(Trim::default()).unwrap();
    assert_eq!(count(), 0);
    drop(first);
    let second = open(&folder.sqlite());
    assert_eq!((second.attached.floors, second.records.len()), (vec![("a".into(), 65)], 0));
}
