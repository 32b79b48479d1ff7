//! Initial data comes first, in order, and to this subscriber only.

use crate::common::{ends, gets, gets_data, gets_nothing};
use server_sent_events::{EndCause, Event, Publisher};

#[test]
fn initial_data_comes_before_live_events_in_order() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscription(()).initial_data(["1", "2"]).initial_data(["3"]).open().unwrap();
    let mut other = publisher.subscribe().unwrap();
    publisher.publish("4");
    for data in ["1", "2", "3", "4"] {
        gets_data(&mut subscription, data);
    }
    gets_data(&mut other, "4");
    for mut subscription in [subscription, other] {
        gets_nothing(&mut subscription);
    }
}

#[test]
fn data_of_two_lines_is_two_data_lines_in_one_frame() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscription(()).initial_data(["a\nb"]).open().unwrap();
    publisher.publish("c\nd");
    gets(&mut subscription, "data: a\ndata: b\n\n");
    gets(&mut subscription, "data: c\ndata: d\n\n");
}

#[test]
fn initial_data_can_be_larger_than_the_queue() {
    let publisher = Publisher::builder().max_queued_events(2).max_queued_bytes(64).build().unwrap();
    let many: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let mut subscription = publisher.subscription(()).initial_data(&many).open().unwrap();
    publisher.publish("live");
    for data in &many {
        gets_data(&mut subscription, data);
    }
    gets_data(&mut subscription, "live");
}

#[test]
fn initial_data_comes_even_if_the_publisher_closes_first() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscription(()).initial_data(["1"]).open().unwrap();
    publisher.close();
    gets_data(&mut subscription, "1");
    ends(&mut subscription, EndCause::Closed);
}

#[test]
fn initial_data_can_be_whole_events_with_type_and_id() {
    let publisher = Publisher::new();
    let event = Event::new("x").event("snapshot").unwrap().id("7").unwrap();
    let mut subscription = publisher.subscription(()).initial_data([event, Event::comment("c")]).open().unwrap();
    gets(&mut subscription, "event: snapshot\ndata: x\nid: 7\n\n");
    gets(&mut subscription, ": c\n");
}
