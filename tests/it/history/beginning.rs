//! How a stream with a history begins: gap, initial data, replay, live.

use super::*;

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

/// Returns the client's last event ID if its connection breaks after each of the first blocks.
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
    for (id, from) in [("\"\\", r#""\"\\""#), ("", "null"), ("a b", "null"), ("\u{e4}", "null")] {
        let mut subscription = publisher.subscription(()).last_event_id(id.to_owned()).open().unwrap();
        let text = text(&mut subscription);
        assert!(text.contains(&format!("{{\"from\":{from},\"to\":")), "{text}");
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
    assert_eq!(last(&["quiet"], 20_000), (Resumption::Complete, 1), "it has evicted nothing");
}

#[test]
fn a_client_without_an_id_starts_after_its_snapshot() {
    let publisher = with(History::new());
    publisher.publish("1");
    // The application renders the page: first it reads the ID, then the content, which may include later events.
    let point = publisher.last_event_id();
    publisher.publish("2");
    let open = |last_event_id: Option<String>| {
        let mut subscription =
            publisher.subscription(()).last_event_id(last_event_id).start_after(point.clone()).open().unwrap();
        parsed(&text(&mut subscription)).into_iter().map(|event| event.data).collect::<Vec<_>>()
    };
    assert_eq!(open(None), ["2"]);
    assert_eq!(open(publisher.last_event_id()), [""; 0], "a reconnecting client resumes from its own ID");
}
