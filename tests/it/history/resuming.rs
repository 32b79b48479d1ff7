//! What is replayed after an ID, and when that is a gap.

use super::*;

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

/// Seen in Mercure: a client with an unknown ID is treated as up to date.
#[test]
fn an_unknown_id_is_a_gap_and_replays_everything() {
    let (publisher, ids) = published(2);
    let all = ["GAP", "data 1", "data 2"];
    assert_eq!(replay(&publisher, ["a"], "unknown"), all);
    assert_eq!(replay(&publisher, ["a"], ""), all);
    assert_eq!(replay(&publisher, ["a"], "x".repeat(1024 * 1024)), all, "1 MiB long");
    assert_eq!(replay(&publisher, ["a"], "\u{1f980} \"\\ \n\0"), all);
    assert_eq!(replay(&publisher, ["a"], id_of(&ids[0], 3)), all, "an ID of the future");
    assert_eq!(replay(&publisher, ["a"], ids[0].replace("-1", "-01")), all, "a different spelling");
    assert_eq!(replay(&publisher, ["a"], ids[0].replace("-1", "-+1")), all, "a different spelling");
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
