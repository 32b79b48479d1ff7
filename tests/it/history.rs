//! A client that comes back with an id misses nothing, or is told; and nobody gets what is not theirs.

use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crate::common::parsed;
use server_sent_events::{Event, History, Publisher, Resumption, Subscription};

fn with(history: History) -> Publisher {
    Publisher::builder().history(history).heartbeat(None).build().unwrap()
}

/// A publisher with a history of 4 events a channel that were published as `data 1`, `data 2`, ... to "a".
fn published(events: usize) -> (Publisher, Vec<String>) {
    let publisher = with(History::new().max_events_per_channel(4));
    let ids = (1..=events).map(|n| publisher.publish_to("a", format!("data {n}")).id().unwrap().to_owned()).collect();
    (publisher, ids)
}

/// Everything that waits for the subscription, as text.
fn text(subscription: &mut Subscription) -> String {
    std::iter::from_fn(|| subscription.try_recv().ok().map(String::from)).collect()
}

/// What a client of these channels gets that comes with this id: the data of its events, a gap as `GAP`.
#[track_caller]
fn replay<const N: usize>(publisher: &Publisher, channels: [&str; N], id: impl Into<String>) -> Vec<String> {
    let mut subscription = publisher.subscription(()).channels(channels).last_event_id(id.into()).open().unwrap();
    let resumed = subscription.resumption();
    let events = parsed(&text(&mut subscription)).into_iter();
    let names = events.map(|event| if event.event == "gap" { "GAP".into() } else { event.data });
    let names: Vec<String> = names.collect();
    let told = names.iter().filter(|name| *name == "GAP").count();
    assert_eq!(resumed, if told == 1 { Resumption::Gap } else { Resumption::Complete });
    names
}

/// One of ours of the same epoch, with another sequence.
fn id_of(id: &str, sequence: u64) -> String {
    format!("{}-{sequence}", id.rsplit_once('-').unwrap().0)
}

/// Seen in go-sse: it is sent the whole history again.
#[test]
fn a_client_that_is_up_to_date_is_replayed_nothing() {
    let (publisher, ids) = published(3);
    assert_eq!(replay(&publisher, ["a"], &ids[2]), [""; 0]);
}

/// Seen in r3labs/sse: the replay repeats the last event.
#[test]
fn a_replay_starts_after_the_last_event_id() {
    let (publisher, ids) = published(3);
    assert_eq!(replay(&publisher, ["a"], &ids[0]), ["data 2", "data 3"]);
}

#[test]
fn in_a_ring_that_is_exactly_full_the_newest_id_replays_nothing() {
    let (publisher, ids) = published(4);
    assert_eq!(replay(&publisher, ["a"], &ids[3]), [""; 0]);
    assert_eq!(replay(&publisher, ["a"], id_of(&ids[0], 0)), ["data 1", "data 2", "data 3", "data 4"]);
}

#[test]
fn a_gap_is_reported_only_if_an_event_after_the_id_was_evicted() {
    let (publisher, ids) = published(6);
    assert_eq!(replay(&publisher, ["a"], &ids[2]), ["data 4", "data 5", "data 6"]);
    assert_eq!(replay(&publisher, ["a"], &ids[1]), ["data 3", "data 4", "data 5", "data 6"], "all after it are there");
    assert_eq!(replay(&publisher, ["a"], &ids[0]), ["GAP", "data 3", "data 4", "data 5", "data 6"]);
}

/// Seen in Mercure: a client with an unknown ID passes for up to date.
#[test]
fn an_unknown_id_is_a_gap_and_replays_everything() {
    let (publisher, ids) = published(2);
    let all = ["GAP", "data 1", "data 2"];
    assert_eq!(replay(&publisher, ["a"], "unknown"), all);
    assert_eq!(replay(&publisher, ["a"], ""), all);
    assert_eq!(replay(&publisher, ["a"], "x".repeat(1024 * 1024)), all, "1 MiB long");
    assert_eq!(replay(&publisher, ["a"], "\u{1f980} \"\\ \n\0"), all);
    assert_eq!(replay(&publisher, ["a"], id_of(&ids[0], 3)), all, "of the future");
    assert_eq!(replay(&publisher, ["a"], ids[0].replace("-1", "-01")), all, "written otherwise");
    assert_eq!(replay(&publisher, ["a"], ids[0].replace("-1", "-+1")), all, "written otherwise");
}

/// Seen in go-sse and r3labs/sse: their IDs have no epoch.
#[test]
fn an_id_from_before_a_restart_is_a_gap() {
    let (_before, ids) = published(2);
    let (after, _) = published(2);
    assert_eq!(replay(&after, ["a"], &ids[0]), ["GAP", "data 1", "data 2"]);
}

/// Seen in r3labs/sse: it is sent a replay.
#[test]
fn a_client_without_an_id_is_replayed_nothing() {
    let (publisher, ids) = published(3);
    let mut subscription = publisher.subscribe_to("a").unwrap();
    assert_eq!(subscription.resumption(), Resumption::NotRequested);
    assert_eq!(text(&mut subscription), format!("id: {}\n\n", ids[2]));
}

/// Seen in Mercure: an unlimited history passes for a leak.
#[test]
fn a_history_is_limited_by_default() {
    let publisher = with(History::new());
    for n in 0..10_000 {
        publisher.publish(n.to_string());
    }
    let history = publisher.stats().history;
    assert_eq!((history.events, history.channels), (8_192, 1));
    assert!(history.bytes < 64 * 1024 * 1024);
}

#[test]
fn an_id_that_only_another_channel_has_evicted_is_no_gap() {
    let (publisher, ids) = published(2);
    publisher.publish_to("quiet", "still here");
    for n in 3..=20 {
        publisher.publish_to("a", format!("data {n}"));
    }
    assert_eq!(replay(&publisher, ["quiet"], &ids[0]), ["still here"]);
    assert_eq!(replay(&publisher, ["nobody published here"], &ids[0]), [""; 0]);
    assert_eq!(replay(&publisher, ["a"], &ids[0])[0], "GAP");
    assert_eq!(
        replay(&publisher, ["a", "quiet"], &ids[1]),
        ["GAP", "still here", "data 17", "data 18", "data 19", "data 20"]
    );
}

#[test]
fn channels_are_merged_in_order_each_event_once() {
    let publisher = with(History::new());
    let start = publisher.last_event_id().unwrap();
    for (channels, data) in [(&["a"][..], "1"), (&["b"], "2"), (&["a", "b", "c"], "3"), (&["c"], "4"), (&["b"], "5")] {
        publisher.publish_to(channels, data);
    }
    assert_eq!(replay(&publisher, ["a", "b"], start.clone()), ["1", "2", "3", "5"]);
    assert_eq!(replay(&publisher, ["b", "a"], start), ["1", "2", "3", "5"]);
}

#[test]
fn the_limit_of_bytes_spans_all_channels_and_evicts_the_oldest_event_first() {
    let publisher = with(History::new().max_bytes(10_000));
    let start = publisher.last_event_id().unwrap();
    publisher.publish_to("a", "the oldest");
    let id = publisher.publish_to("b", "x".repeat(4_000)).id().unwrap().to_owned();
    publisher.publish_to("b", "y".repeat(5_000));
    assert!(publisher.stats().history.bytes <= 10_000);
    assert_eq!(replay(&publisher, ["a"], start), ["GAP"]);
    assert_eq!(replay(&publisher, ["b"], id), ["y".repeat(5_000)]);
    // One that is larger than all: it is not kept, and who was before it is told.
    let before = publisher.last_event_id().unwrap();
    publisher.publish_to("b", "z".repeat(20_000));
    assert_eq!(publisher.stats().history.events, 0);
    assert_eq!(replay(&publisher, ["b"], before), ["GAP"]);
}

#[test]
fn age_is_measured_by_the_clock_that_is_passed_in() {
    let now = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&now);
    let publisher =
        with(History::new().max_age(Duration::from_secs(10)).clock(move || Duration::from_secs(clock.load(SeqCst))));
    let start = publisher.last_event_id().unwrap();
    publisher.publish("1");
    now.store(5, SeqCst);
    let id = publisher.publish("2").id().unwrap().to_owned();
    publisher.publish("3");
    now.store(10, SeqCst);
    assert_eq!(replay(&publisher, ["default channel"], start.clone()), ["1", "2", "3"]);
    now.store(11, SeqCst);
    assert_eq!(replay(&publisher, ["default channel"], start.clone()), ["GAP", "2", "3"]);
    assert_eq!(replay(&publisher, ["default channel"], id.clone()), ["3"]);
    now.store(100, SeqCst);
    assert_eq!(replay(&publisher, ["default channel"], id), ["GAP"]);
    assert_eq!(publisher.stats().history.events, 0);
}

/// A history of events that are at most 10 s old, and the clock, in seconds.
fn ageing(max_bytes: usize) -> (Publisher, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&now);
    let history = History::new().max_age(Duration::from_secs(10)).max_bytes(max_bytes);
    (with(history.clock(move || Duration::from_secs(clock.load(SeqCst)))), now)
}

#[test]
fn a_channel_that_was_empty_meanwhile_still_reports_evicted_events() {
    let (publisher, now) = ageing(1_000_000);
    let start = publisher.last_event_id().unwrap();
    publisher.publish_to("a", "1");
    let first = publisher.last_event_id().unwrap();
    now.store(100, SeqCst);
    // Somebody comes, so it is seen that the event is too old; the channel is empty.
    assert_eq!(replay(&publisher, ["a"], start.clone()), ["GAP"]);
    assert_eq!(publisher.stats().history.channels, 0);
    publisher.publish_to("a", "2");
    assert_eq!(replay(&publisher, ["a"], start), ["GAP", "2"]);
    assert_eq!(replay(&publisher, ["a"], first), ["2"]);
}

#[test]
fn events_evicted_with_a_forgotten_channel_are_still_reported() {
    // Room for the floors of about 30 channels.
    let (publisher, now) = ageing(100_000);
    let start = publisher.last_event_id().unwrap();
    let channel = |n: usize| format!("channel {n}");
    for n in 0..100 {
        publisher.publish_to(channel(n), "x");
    }
    let end = publisher.last_event_id().unwrap();
    now.store(100, SeqCst);
    for n in 0..100 {
        assert_eq!(replay(&publisher, [&*channel(n)], start.clone()), ["GAP"], "{n}");
        assert_eq!(replay(&publisher, [&*channel(n)], end.clone()), [""; 0], "{n}");
    }
    // It may err towards a gap: nobody knows any more that nothing was published here.
    assert_eq!(replay(&publisher, ["never published to"], start), ["GAP"]);
}

fn own(data: &str, id: &str) -> Event {
    Event::new(data).id(id).unwrap()
}

#[test]
fn an_own_id_is_sent_and_found_again() {
    let publisher = with(History::new());
    let mut subscription = publisher.subscribe().unwrap();
    assert_eq!(publisher.publish(own("1", "x")).id(), Some("x"));
    assert!(text(&mut subscription).ends_with("data: 1\nid: x\n\n"));
    publisher.publish("2");
    assert_eq!(replay(&publisher, ["default channel"], "x"), ["2"]);
}

/// Of two equal ids nobody knows which event a client saw: what lies between must not be skipped.
#[test]
fn of_equal_own_ids_the_oldest_counts_and_once_it_is_evicted_the_answer_is_a_gap() {
    let publisher = with(History::new().max_events_per_channel(3));
    for event in [own("1", "x"), own("2", "y"), own("3", "x")] {
        publisher.publish_to("a", event);
    }
    assert_eq!(replay(&publisher, ["a"], "x"), ["2", "3"]);
    publisher.publish_to("a", "4");
    assert_eq!(replay(&publisher, ["a"], "x"), ["GAP", "2", "3", "4"], "the first of the two was evicted");
    publisher.publish_to("a", own("5", "x"));
    publisher.publish_to("a", own("6", "y"));
    assert_eq!(replay(&publisher, ["a"], "x"), ["GAP", "4", "5", "6"], "it is equal to the second");
    assert_eq!(
        replay(&publisher, ["a"], "y"),
        [""; 0],
        "the only one that is held, and the first was evicted long ago"
    );
}

#[test]
fn an_own_id_counts_in_the_channels_of_the_subscriber_only() {
    let publisher = with(History::new());
    for (job, steps) in [("job 1", 6), ("job 2", 4)] {
        for step in 1..=steps {
            publisher.publish_to(job, own(&format!("{job}, step {step}"), &step.to_string()));
        }
    }
    assert_eq!(replay(&publisher, ["job 1"], "3"), ["job 1, step 4", "job 1, step 5", "job 1, step 6"]);
    assert_eq!(replay(&publisher, ["job 2"], "3"), ["job 2, step 4"]);
    assert_eq!(replay(&publisher, ["job 3"], "3"), ["GAP"], "nobody published it there");
    let both = replay(&publisher, ["job 1", "job 2"], "3");
    assert_eq!(both.len(), 7, "from the older of the two on: {both:?}");
}

#[test]
fn an_own_id_that_looks_like_one_of_the_history_never_skips_an_event() {
    let (publisher, ids) = published(3);
    publisher.publish_to("a", own("4", &ids[0]));
    assert_eq!(replay(&publisher, ["a"], &ids[0]), ["data 2", "data 3", "4"]);
}

#[test]
fn an_event_to_no_channel_is_not_kept() {
    let publisher = with(History::new().max_bytes(2_000));
    for _ in 0..10 {
        publisher.publish_to([""; 0], "x".repeat(300));
        publisher.publish_to("a", "x".repeat(300));
    }
    assert!(publisher.stats().history.events < 4);
}

#[test]
fn every_event_has_an_id_and_a_comment_has_none_and_is_not_kept() {
    let publisher = with(History::new());
    let mut subscription = publisher.subscribe().unwrap();
    let start = publisher.last_event_id().unwrap();
    let id = publisher.publish("1").id().unwrap().to_owned();
    assert_eq!(publisher.publish(Event::comment("c")).id(), None);
    let with_type = publisher.publish(Event::new("2").event("t").unwrap()).id().unwrap().to_owned();
    assert_eq!(publisher.last_event_id().as_deref(), Some(&*with_type));
    let expected = format!("id: {start}\n\ndata: 1\nid: {id}\n\n: c\nevent: t\ndata: 2\nid: {with_type}\n\n");
    assert_eq!(text(&mut subscription), expected);
    assert_eq!(replay(&publisher, ["default channel"], start), ["1", "2"]);
    assert!((1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()));
}

#[test]
fn without_a_history_there_are_no_ids_and_nothing_is_kept() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscription(()).last_event_id(Some("x-1".to_owned())).open().unwrap();
    assert_eq!((publisher.publish("1").id(), publisher.last_event_id()), (None, None));
    assert_eq!(text(&mut subscription), "data: 1\n\n");
    assert_eq!(subscription.resumption(), Resumption::NotRequested);
    assert_eq!(publisher.stats().history.events, 0);
}

#[test]
fn the_order_is_gap_initial_data_replay_live_and_the_start_id_comes_with_the_last_of_the_first_two() {
    let (publisher, ids) = published(6);
    let open = |id: &str| {
        let builder = publisher.subscription(()).channels("a").last_event_id(id.to_owned()).initial_data(["first"]);
        let mut subscription = builder.initial_data_with(|resumed| [format!("{resumed:?}")]).open().unwrap();
        publisher.publish_to("a", "live");
        text(&mut subscription)
    };
    let gap = open(&ids[0]);
    let floor = id_of(&ids[0], 2);
    let from = &ids[0];
    let begins = format!(
        "event: gap\ndata: {{\"from\":\"{from}\",\"to\":\"{floor}\"}}\n\ndata: first\n\n\
         data: Gap\nid: {floor}\n\ndata: data 3\nid: {}\n\n",
        ids[2]
    );
    assert!(gap.starts_with(&begins), "{gap}");
    assert!(parsed(&gap).last().unwrap().data == "live");
    let complete = open(&ids[5]);
    assert!(complete.starts_with(&format!("data: first\n\ndata: Complete\nid: {}\n\n", ids[5])));
}

/// What a client holds as its last event id when its connection breaks behind each of the first blocks.
fn ids_after_each_block(stream: &str) -> Vec<Option<String>> {
    let mut id = None;
    let mut ids = Vec::new();
    for block in stream.split_terminator("\n\n") {
        id = block.lines().find_map(|line| line.strip_prefix("id: ")).map(str::to_owned).or(id);
        ids.push(id.clone());
    }
    ids
}

#[test]
fn no_break_leaves_a_client_with_the_start_id_and_without_the_gap_or_the_snapshot() {
    for gap_event in [None, Some(Event::new("reload, please").event("stale").unwrap())] {
        let history = History::new().max_events_per_channel(2);
        let publisher = with(match gap_event.clone() {
            Some(event) => history.gap_event(event),
            None => history,
        });
        for n in 0..5 {
            publisher.publish(n.to_string());
        }
        let mut with_gap = publisher.subscription(()).last_event_id("?".to_owned()).open().unwrap();
        let stream = text(&mut with_gap);
        assert!(stream.starts_with("event: "), "{stream}");
        assert!(ids_after_each_block(&stream)[0].is_some(), "{stream}");
        let builder = publisher.subscription(()).last_event_id("?".to_owned());
        let mut with_both = builder.initial_data(["snapshot 1", "snapshot 2"]).open().unwrap();
        let stream = text(&mut with_both);
        let ids = ids_after_each_block(&stream);
        assert_eq!((&ids[..2], ids[2].is_some()), (&[None, None][..], true), "{stream}");
        let mut with_snapshot = publisher.subscription(()).initial_data(["snapshot 1", "snapshot 2"]).open().unwrap();
        let stream = text(&mut with_snapshot);
        let ids = ids_after_each_block(&stream);
        assert_eq!(
            (ids.len(), &ids[0], ids[1].as_deref()),
            (2, &None, publisher.last_event_id().as_deref()),
            "{stream}"
        );
    }
}

#[test]
fn the_gap_event_can_be_replaced_or_turned_off() {
    let mine = with(History::new().gap_event(Event::new("reload, please").event("stale").unwrap()));
    let mut subscription = mine.subscription(()).last_event_id("?".to_owned()).open().unwrap();
    let start = mine.last_event_id().unwrap();
    assert_eq!(text(&mut subscription), format!("event: stale\ndata: reload, please\nid: {start}\n\n"));
    let none = with(History::new().gap_event(None));
    let mut subscription = none.subscription(()).last_event_id("?".to_owned()).open().unwrap();
    assert_eq!(subscription.resumption(), Resumption::Gap);
    assert_eq!(text(&mut subscription), format!("id: {}\n\n", none.last_event_id().unwrap()));
}

#[test]
fn a_gap_reports_null_for_an_invalid_id() {
    let publisher = with(History::new());
    for (id, told) in [("\"\\", r#""\"\\""#), ("", "null"), ("a b", "null"), ("\u{e4}", "null")] {
        let mut subscription = publisher.subscription(()).last_event_id(id.to_owned()).open().unwrap();
        let text = text(&mut subscription);
        assert!(text.contains(&format!("{{\"from\":{told},\"to\":")), "{text}");
    }
}

#[test]
fn replay_last_sends_the_last_n_events_to_a_client_without_an_id() {
    let (publisher, ids) = published(6);
    let last = |events: usize| {
        let builder = publisher.subscription(()).channels("a").replay_last(events);
        let mut subscription = builder.open().unwrap();
        (
            subscription.resumption(),
            parsed(&text(&mut subscription)).into_iter().map(|event| event.data).collect::<Vec<_>>(),
        )
    };
    assert_eq!(last(2), (Resumption::Complete, vec!["data 5".into(), "data 6".into()]));
    assert_eq!((last(4).0, last(4).1.len()), (Resumption::Complete, 4));
    assert_eq!(last(0), (Resumption::Complete, vec![]));
    let both = publisher.subscription(()).channels("a").replay_last(3).last_event_id(ids[5].clone());
    let mut both = both.open().unwrap();
    assert_eq!(both.resumption(), Resumption::Complete);
    assert_eq!(text(&mut both), format!("id: {}\n\n", ids[5]), "`replay_last` is for clients without an id");
}

#[test]
fn replay_last_is_a_gap_if_one_of_the_last_n_was_evicted() {
    let (publisher, _) = published(6);
    let last = |channels: &[&str], events: usize| {
        let builder = publisher.subscription(()).channels(channels).replay_last(events);
        let mut subscription = builder.open().unwrap();
        let events = parsed(&text(&mut subscription));
        (subscription.resumption(), events.iter().filter(|event| event.event != "gap").count())
    };
    assert_eq!(last(&["a"], 20_000), (Resumption::Gap, 4));
    for n in 0..5 {
        publisher.publish_to("busy", n.to_string());
    }
    assert_eq!(last(&["a", "busy"], 4), (Resumption::Complete, 4));
    assert_eq!(last(&["a", "busy"], 5), (Resumption::Gap, 5), "the fifth of them was the first of the busy channel");
    publisher.publish_to("quiet", "1");
    assert_eq!(last(&["quiet"], 20_000), (Resumption::Complete, 1), "it has lost nothing");
}

#[test]
fn a_client_without_an_id_starts_after_its_snapshot() {
    let publisher = with(History::new());
    publisher.publish("1");
    // The page is rendered: first the point, then the content, which may hold what is published meanwhile.
    let point = publisher.last_event_id();
    publisher.publish("2");
    let open = |last_event_id: Option<String>| {
        let mut subscription =
            publisher.subscription(()).last_event_id(last_event_id).start_after(point.clone()).open().unwrap();
        parsed(&text(&mut subscription)).into_iter().map(|event| event.data).collect::<Vec<_>>()
    };
    assert_eq!(open(None), ["2"]);
    assert_eq!(open(publisher.last_event_id()), [""; 0], "a reconnecting client goes on from its own id");
}

#[test]
fn personalised_events_are_replayed_personally() {
    let publisher = Publisher::builder_for::<&str>().history(History::new()).heartbeat(None).build().unwrap();
    let start = publisher.last_event_id();
    publisher.publish_with("default channel", |name: &&str| {
        (*name != "Eve").then(|| Event::new(format!("for {name}")).id("mine").unwrap())
    });
    let id = publisher.last_event_id().unwrap();
    let get = |name: &'static str| {
        let builder = publisher.subscription(name).last_event_id(start.clone());
        text(&mut builder.open().unwrap()).split_once("\n\n").unwrap().1.to_owned()
    };
    assert_eq!(get("Ada"), format!("data: for Ada\nid: {id}\n\n"), "its own id is replaced by the history's");
    assert_eq!(get("Bob"), format!("data: for Bob\nid: {id}\n\n"));
    assert_eq!(get("Eve"), "");
    publisher.publish_with("default channel", |_: &&str| panic!("a panic that belongs to this test"));
    let newest = publisher.last_event_id().unwrap();
    assert!(get("Eve").ends_with(&format!("event: gap\ndata: {{\"lost\":1}}\nid: {newest}\n\n")));
}

#[test]
fn a_replay_larger_than_the_queue_works() {
    let publisher =
        Publisher::builder().max_queued_events(4).max_queued_bytes(100).history(History::new()).build().unwrap();
    let start = publisher.last_event_id().unwrap();
    for n in 0..5_000 {
        publisher.publish(n.to_string());
    }
    let all = replay(&publisher, ["default channel"], start);
    assert!(all.iter().map(|data| data.parse::<usize>().unwrap()).eq(0..5_000));
}

fn with_heartbeat(history: History) -> Publisher {
    Publisher::builder().history(history).heartbeat(Duration::from_millis(20)).build().unwrap()
}

#[test]
fn a_heartbeat_carries_the_newest_id_so_that_a_quiet_client_does_not_grow_old() {
    let publisher = with_heartbeat(History::new().max_events_per_channel(4));
    let mut quiet = publisher.subscribe_to("quiet").unwrap();
    assert_eq!(quiet.next().unwrap(), format!("id: {}\n\n", publisher.last_event_id().unwrap()));
    for n in 0..20 {
        publisher.publish_to("busy", n.to_string());
    }
    let id = publisher.last_event_id().unwrap();
    assert_eq!(quiet.next().unwrap(), format!("id: {id}\n\n"));
    assert_eq!(replay(&publisher, ["quiet", "busy"], id), [""; 0]);
    assert_eq!(parsed(&format!("id: {}\n\n", "x")), [], "it fires nothing");
}

/// Each blank line is an empty message for some clients, so there is none without a reason.
#[test]
fn a_heartbeat_carries_an_id_only_if_the_stream_was_not_sent_it_in_any_form() {
    let publisher = with_heartbeat(History::new());
    let open = || publisher.subscribe_to("a").unwrap();
    let id_block = || format!("id: {}\n\n", publisher.last_event_id().unwrap());
    let is_skipped = || drop(publisher.publish_with("a", |()| None));
    let (mut next, mut body) = (open(), BufReader::new(open().into_reader()));
    let mut both_get = |expected: &str| {
        assert_eq!(next.next().unwrap(), expected);
        let mut bytes = vec![0; expected.len()];
        body.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    };
    both_get(&id_block());
    both_get(":\n");
    both_get(":\n");
    publisher.publish_to("another", "x");
    both_get(&id_block());
    both_get(":\n");
    publisher.publish_to("a", "1");
    both_get(&format!("data: 1\nid: {}\n\n", publisher.last_event_id().unwrap()));
    both_get(":\n");
    publisher.publish_to("a", own("2", "mine"));
    both_get("data: 2\nid: mine\n\n");
    both_get(":\n");
    is_skipped();
    both_get(&id_block());
    publisher.publish_to("a", Event::comment("c"));
    both_get(": c\n");
    both_get(":\n");
}

#[test]
fn a_client_that_resumes_is_sent_no_id_before_a_newer_event() {
    let publisher = with_heartbeat(History::new());
    publisher.publish("1");
    publisher.publish(own("2", "mine"));
    let mut subscription = publisher.subscription(()).last_event_id("mine".to_owned()).open().unwrap();
    assert_eq!(subscription.next().unwrap(), "id: mine\n\n");
    assert_eq!(subscription.next().unwrap(), ":\n");
    assert_eq!(subscription.next().unwrap(), ":\n");
}

#[test]
fn blocks_with_an_id_alone_can_be_turned_off() {
    let publisher = with_heartbeat(History::new().announce_ids(false));
    let mut quiet = publisher.subscribe_to("quiet").unwrap();
    publisher.publish_to("busy", "x");
    assert_eq!(quiet.next().unwrap(), ":\n");
    let id = publisher.publish_to("quiet", "1").id().unwrap().to_owned();
    assert_eq!(quiet.next().unwrap(), format!("data: 1\nid: {id}\n\n"));
    let mut late = publisher.subscription(()).channels("quiet").last_event_id("?".to_owned()).open().unwrap();
    assert!(late.next().unwrap().contains("\nid: "), "a gap carries its id all the same");
}

#[test]
fn history_settings_of_zero_are_rejected() {
    let build = |history: History| Publisher::builder().history(history).build().map(drop).map_err(|e| e.to_string());
    assert_eq!(
        build(History::new().max_events_per_channel(0)),
        Err("`History::max_events_per_channel` must be greater than 0".into())
    );
    assert_eq!(build(History::new().max_bytes(0)), Err("`History::max_bytes` must be greater than 0".into()));
    let age = History::new().max_age(Duration::ZERO);
    assert_eq!(build(age), Err("`History::max_age` must be greater than 0, or None".into()));
    assert_eq!(build(History::new().max_age(None)), Ok(()));
}

#[test]
fn a_client_whose_queue_was_full_resumes_and_loses_nothing() {
    let publisher = Publisher::builder().max_queued_events(8).history(History::new()).heartbeat(None).build().unwrap();
    let (mut id, mut seen, mut ended) = (None, Vec::new(), 0);
    let mut published = 0;
    while seen.len() < 500 {
        let mut subscription = publisher.subscription(()).last_event_id(id.clone()).open().unwrap();
        // Reads one for every two that are published.
        loop {
            for _ in 0..if published < 500 { 2 } else { 0 } {
                publisher.publish(published.to_string());
                published += 1;
            }
            let Ok(frame) = subscription.try_recv() else { break };
            let block = parsed(&frame).pop();
            id = frame.lines().find_map(|line| line.strip_prefix("id: ")).map(str::to_owned).or(id);
            seen.extend(block.map(|event| event.data));
        }
        ended += 1;
    }
    assert!(seen.iter().map(|data| data.parse::<usize>().unwrap()).eq(0..500), "{seen:?}");
    assert!(ended > 10, "it was never too slow");
    assert!(publisher.stats().ended.queue_full > 10);
}

#[test]
fn the_fields_of_a_comment_do_not_reach_into_the_next_event() {
    let publisher = with(History::new());
    let mut subscription = publisher.subscribe().unwrap();
    assert!(subscription.recv().unwrap().starts_with("id: "));
    publisher.publish(Event::comment("only a comment").event("done").unwrap().id("7").unwrap());
    publisher.publish("x");
    assert_eq!(subscription.recv().unwrap(), ": only a comment\nevent: done\n\n");
    assert!(subscription.recv().unwrap().starts_with("data: x\nid: "));
}
