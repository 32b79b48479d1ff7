//! Blocks with only an ID keep a quiet client up to date.

use std::io::{BufReader, Read};

use super::*;

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

/// Each blank line is an empty message for some clients, so none is sent without a reason.
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
