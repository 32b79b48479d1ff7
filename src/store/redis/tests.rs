//! Tests that need no Redis. Those with one are in `tests/real_parts/tests/it/redis`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use redis::Value;

use super::entry::{self, Entry, Origin};
use super::window::{Next, Window};
use crate::store::{
    Committed, Connection, Content, NotAccepted, OnCommit, Record, SharedStore, StoreState, WindowLimits,
};

fn record(data: &str) -> Record<'_> {
    Record {
        sequence: 0,
        at: 1_700_000_000_000,
        channels: Cow::Owned(vec!["a".into(), "b \u{2705}".into()]),
        own_id: Some("own".into()),
        finds_own_id: true,
        key: Some("key".into()),
        content: Content::Fields(data.into()),
    }
}

/// The fields of an entry.
type Fields = Vec<(&'static str, Vec<u8>)>;

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

/// Returns what `XREAD` answers for entries with these IDs and fields.
fn reply(entries: &[(&str, Fields)]) -> Value {
    let entries = entries.iter().map(|(id, fields)| {
        let fields = fields.iter().flat_map(|(name, value)| [bulk(name), Value::BulkString(value.clone())]);
        Value::Array(vec![bulk(id), Value::Array(fields.collect())])
    });
    Value::Array(vec![Value::Array(vec![bulk("events"), Value::Array(entries.collect())])])
}

#[test]
fn an_event_comes_back_as_it_was_written() {
    let transform = Content::Transform { name: "through".into(), argument: "".into(), fields: "data: x\n".into() };
    let bare = Record { own_id: None, key: None, channels: Cow::Owned(Vec::new()), ..record("") };
    for record in [record("data: x\n"), Record { content: transform, ..record("") }, bare] {
        let mut fields = vec![("by", b"name:7".to_vec())];
        fields.extend(entry::fields(&record).into_iter().map(|(name, value)| (name, value.into_vec())));
        let mut entries = entry::entries(reply(&[("3-14", fields)])).unwrap();
        let Some((3, 14, Entry::Event { origin, record: read })) = entries.pop() else { panic!("{entries:?}") };
        assert_eq!(origin, Origin { publisher: "name".into(), number: 7 });
        assert_eq!(read, Record { sequence: 14, ..record });
    }
}

#[test]
fn what_this_version_does_not_know_is_skipped_only_if_it_may_be() {
    let text = |fields: &[(&'static str, &str)]| {
        fields.iter().map(|(name, value)| (*name, value.as_bytes().to_vec())).collect::<Fields>()
    };
    let event = [("by", "name:7"), ("at", "1"), ("to", "a"), ("fields", "data: x\n")];
    let with = |name, value| text(&[&event[..], &[(name, value)]].concat());
    let without = |name| text(&event.into_iter().filter(|(own, _)| *own != name).collect::<Vec<_>>());
    let entries = entry::entries(reply(&[
        ("1-1", text(&[("era", "1")])),
        ("1-2", text(&[("loss", "1:5:7")])),
        ("1-3", with("new", "x")),
        ("1-4", with("skip", "")),
        ("1-5", without("by")),
        ("1-6", without("at")),
        ("1-7", without("fields")),
        ("1-8", with("through", "without an argument")),
        ("1-9", vec![("by", vec![0xff])]),
        ("1-10", Vec::new()),
    ]));
    let kinds: Vec<_> = entries.unwrap().into_iter().map(|(_, _, entry)| entry).collect();
    assert!(matches!(kinds[..4], [Entry::Era, Entry::Loss, Entry::Unknown, Entry::Skippable]), "{kinds:?}");
    assert!(kinds[4..].iter().all(|kind| matches!(kind, Entry::Unknown)), "{kinds:?}");
}

#[test]
fn an_entry_that_disconnects_is_skipped_by_an_older_version() {
    let mut fields = vec![("by", b"name:7".to_vec())];
    fields.extend(entry::disconnect_fields("Ada \u{2705}").into_iter().map(|(name, value)| (name, value.into_vec())));
    assert!(fields.iter().any(|(name, _)| *name == "skip"));
    let read = |fields: &Fields| entry::entries(reply(&[("1-1", fields.clone())])).unwrap().pop().unwrap().2;
    match read(&fields) {
        Entry::Disconnect { origin, quota_key } => assert_eq!((origin.number, &*quota_key), (7, "Ada \u{2705}")),
        other => panic!("{other:?}"),
    }
    // A later version may add what this one needs not know.
    fields.push(("later", Vec::new()));
    assert!(matches!(read(&fields), Entry::Skippable));
    assert!(matches!(read(&vec![("disconnect", b"Ada".to_vec()), ("skip", Vec::new())]), Entry::Skippable));
}

#[test]
fn a_reply_of_another_form_is_an_error_and_none_is_no_entry() {
    assert!(entry::entries(Value::Nil).is_some_and(|entries| entries.is_empty()));
    let ids = ["1", "1-", "-1", "a-1", "1-1-1", "1-99999999999999999999"].map(|id| reply(&[(id, Vec::new())]));
    for other in ids.into_iter().chain([Value::Int(1), Value::Array(Vec::new()), Value::Array(vec![Value::Nil])]) {
        assert!(entry::entries(other.clone()).is_none(), "{other:?}");
    }
}

fn window() -> Window {
    let connection = Arc::new(Connection::new());
    connection.begin(true);
    let window = Window::new(WindowLimits { events: 4, bytes: 1_000, event_bytes: 5_000 }, connection);
    window.begin("log", 1);
    window
}

/// The event with this number comes back.
fn comes_back(window: &Window, number: u64) -> bool {
    let origin = window.origin(number);
    let (publisher, _) = origin.split_once(':').unwrap();
    let committed = Committed { subscribers: 2, id: Some(format!("log.1-{number}")) };
    window.commit(&Origin { publisher: publisher.into(), number }, committed)
}

#[track_caller]
fn sends(window: &Window, first: u64, events: usize) {
    match window.next() {
        Next::Send(number, group) => assert_eq!((number, group.len()), (first, events)),
        _ => panic!("it sends nothing"),
    }
}

#[test]
fn the_window_refuses_beyond_its_limits_until_events_have_come_back() {
    let window = window();
    assert_eq!(window.offer(&record("x"), 5_001, None), Err(NotAccepted::TooLarge));
    assert_eq!(window.offer(&record("x"), 5_000, None), Ok(()), "an event fits into an empty window");
    assert_eq!(window.offer(&record("x"), 1, None), Err(NotAccepted::Full));
    sends(&window, 1, 1);
    window.acknowledge(1, &[7]);
    assert_eq!(window.offer(&record("x"), 1, None), Err(NotAccepted::Full), "it has not come back");
    assert!(!comes_back(&window, 1));
    for _ in 0..4 {
        assert_eq!(window.offer(&record("x"), 1, None), Ok(()));
    }
    assert_eq!(window.offer(&record("x"), 1, None), Err(NotAccepted::Full));
    assert_eq!(window.state(), StoreState::Running { pending: 4 });
    assert!(!window.flush(Instant::now()));
    (2..=5).for_each(|number| assert!(!comes_back(&window, number)));
    assert!(window.flush(Instant::now()));
    let stats = window.stats();
    assert_eq!((stats.events_stored, stats.events_refused, stats.pending), (5, 4, 0));
}

#[test]
fn to_disconnect_is_refused_if_the_window_is_full_or_the_store_is_away_and_counts_as_no_event() {
    let window = window();
    for _ in 0..4 {
        assert_eq!(window.disconnect("Ada"), Ok(()));
    }
    assert_eq!(window.disconnect("Ada"), Err(NotAccepted::Full));
    sends(&window, 1, 4);
    window.acknowledge(1, &[11, 12, 13, 14]);
    (1..=4).for_each(|number| assert!(!comes_back(&window, number)));
    window.fail("out of memory".into());
    assert_eq!(window.disconnect("Ada"), Err(NotAccepted::Away));
    assert_eq!(window.offer(&record("x"), 1, None), Ok(()), "an event waits");
    let stats = window.stats();
    assert_eq!((stats.events_stored, stats.events_refused), (0, 0));
    window.end(Duration::ZERO);
    window.begin("log", 1);
    assert_eq!(window.disconnect("Ada"), Err(NotAccepted::Ended));
}

#[test]
fn what_is_acknowledged_is_sent_again_only_in_another_era() {
    let window = window();
    for _ in 0..3 {
        window.offer(&record("x"), 1, None).unwrap();
    }
    sends(&window, 1, 3);
    // The connection breaks, and nothing was acknowledged.
    window.begin("log", 1);
    sends(&window, 1, 3);
    window.acknowledge(1, &[11, 12]);
    window.begin("log", 1);
    sends(&window, 3, 1);
    assert!(!comes_back(&window, 1));
    window.begin("log", 2);
    sends(&window, 2, 2);
    window.acknowledge(2, &[21, 22]);
    window.begin("other", 2);
    sends(&window, 2, 2);
}

#[test]
fn each_event_has_one_result_whether_it_comes_back_or_is_dropped_from_the_stream() {
    let window = window();
    let (sender, results) = unbounded();
    for number in 1..=4 {
        let sender = sender.clone();
        let on_commit: OnCommit = Box::new(move |committed| sender.send((number, committed.id)).unwrap());
        window.offer(&record("x"), 1, Some(on_commit)).unwrap();
    }
    window.acknowledge(1, &[11, 13]);
    comes_back(&window, 1);
    // The reader finds everything up to 20 missing. What was acknowledged there does not come back, also if the
    // acknowledgement comes later.
    window.skip(20);
    window.acknowledge(3, &[15, 21]);
    let expected = [(1, "log.1-1"), (2, "log.1-13"), (3, "log.1-15")].map(|(number, id)| (number, Some(id.to_owned())));
    assert_eq!(results.try_iter().collect::<Vec<_>>(), expected);
    comes_back(&window, 4);
    assert_eq!(results.try_iter().count(), 1);
    assert_eq!(window.stats().pending, 0);
}

#[test]
fn streams_end_after_the_events_that_were_accepted_before() {
    let window = window();
    assert!(!window.close_streams(), "there are none");
    window.offer(&record("x"), 1, None).unwrap();
    window.offer(&record("x"), 1, None).unwrap();
    assert!(window.close_streams());
    window.offer(&record("x"), 1, None).unwrap();
    assert!(!comes_back(&window, 1));
    assert!(comes_back(&window, 2));
    assert!(!comes_back(&window, 3));
}

#[test]
fn the_end_refuses_events_and_waits_no_longer_than_allowed() {
    let window = window();
    window.offer(&record("x"), 1, None).unwrap();
    window.end(Duration::ZERO);
    assert_eq!(window.offer(&record("x"), 1, None), Err(NotAccepted::Ended));
    assert!(matches!(window.next(), Next::Stop));
    assert!(window.wait(Duration::from_secs(3_600)), "a thread that waits ends");
    assert!(window.flush(Instant::now()), "nothing waits for what does not come");
}
