//! A client that resumes with an ID misses nothing, or gets a gap; and it gets no events of other channels.

mod announced_ids;
mod beginning;
mod eviction;
mod latest_per_key;
mod own_ids;
mod resuming;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crate::common::parsed;
use server_sent_events::{Event, History, Publisher, Resumption, Subscription};

fn with(history: History) -> Publisher {
    Publisher::builder().history(history).heartbeat(None).build().unwrap()
}

/// Returns a publisher with a history of 4 events per channel, and the IDs of `data 1`, `data 2`, ... that it published
/// to "a".
fn published(events: usize) -> (Publisher, Vec<String>) {
    let publisher = with(History::new().max_events_per_channel(4));
    let ids = (1..=events).map(|n| publisher.publish_to("a", format!("data {n}")).id().unwrap().to_owned()).collect();
    (publisher, ids)
}

/// Returns everything in the subscription's queue, as text.
fn text(subscription: &mut Subscription) -> String {
    std::iter::from_fn(|| subscription.try_recv().ok().map(String::from)).collect()
}

/// Returns what a client of these channels gets if it resumes with this ID: the data of its events, with a gap as
/// `GAP`.
#[track_caller]
fn replay<const N: usize>(publisher: &Publisher, channels: [&str; N], id: impl Into<String>) -> Vec<String> {
    let mut subscription = publisher.subscription(()).channels(channels).last_event_id(id.into()).open().unwrap();
    let resumed = subscription.resumption();
    let events = parsed(&text(&mut subscription)).into_iter();
    let names = events.map(|event| if event.event == "gap" { "GAP".into() } else { event.data });
    let names: Vec<String> = names.collect();
    let gaps = names.iter().filter(|name| *name == "GAP").count();
    assert_eq!(resumed, if gaps == 1 { Resumption::Gap } else { Resumption::Complete });
    names
}

/// Returns an ID of the same epoch with another sequence.
fn id_of(id: &str, sequence: u64) -> String {
    format!("{}-{sequence}", id.rsplit_once('-').unwrap().0)
}

fn own(data: &str, id: &str) -> Event {
    Event::new(data).id(id).unwrap()
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
fn the_fields_of_a_comment_do_not_reach_into_the_next_event() {
    let publisher = with(History::new());
    let mut subscription = publisher.subscribe().unwrap();
    assert!(subscription.recv().unwrap().starts_with("id: "));
    publisher.publish(Event::comment("only a comment").event("done").unwrap().id("7").unwrap());
    publisher.publish("x");
    assert_eq!(subscription.recv().unwrap(), ": only a comment\nevent: done\n\n");
    assert!(subscription.recv().unwrap().starts_with("data: x\nid: "));
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
