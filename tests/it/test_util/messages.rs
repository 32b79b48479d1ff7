//! `TestClient` and `wait_for_subscribers`.

use std::thread;

use server_sent_events::test_util::{TestClient, wait_for_subscribers};
use server_sent_events::{EndCause, Event, History, Publisher};

use super::panics;

#[test]
fn messages_come_in_order_and_comments_do_not() {
    let publisher = Publisher::new();
    let mut client = TestClient::new(publisher.subscribe().unwrap());
    client.assert_nothing();
    publisher.publish(Event::comment("nothing"));
    publisher.publish(Event::new("one").event("a").unwrap().id("7").unwrap());
    publisher.publish("two\nlines");
    let message = client.next_message();
    assert_eq!((&*message.event_type, &*message.data, &*message.id), ("a", "one", "7"));
    assert_eq!(client.next_message().data, "two\nlines");
    client.assert_nothing();
    assert_eq!(&**client.last_event_id(), "7");
    publisher.close();
    assert_eq!(client.assert_end(), EndCause::Closed);
}

#[test]
fn a_message_is_waited_for() {
    let publisher = Publisher::new();
    let mut client = TestClient::new(publisher.subscribe().unwrap());
    let other = thread::spawn(move || {
        thread::sleep(std::time::Duration::from_millis(20));
        publisher.publish("late");
    });
    assert_eq!(client.next_message().data, "late");
    other.join().unwrap();
    assert_eq!(client.assert_end(), EndCause::Closed);
}

#[test]
fn a_client_can_resume_where_it_was() {
    let publisher = Publisher::builder().history(History::new()).build().unwrap();
    publisher.publish("before");
    let mut client = TestClient::new(publisher.subscribe().unwrap());
    client.assert_nothing();
    let id = client.last_event_id().clone();
    assert_eq!(Some(&*id), publisher.last_event_id().as_deref());
    drop(client);
    publisher.publish("missed");
    let mut client = TestClient::new(publisher.subscription(()).last_event_id(id).open().unwrap());
    assert_eq!(client.next_message().data, "missed");
}

#[test]
fn what_a_test_did_not_expect_panics() {
    let publisher = Publisher::new();
    let mut client = TestClient::new(publisher.subscribe().unwrap());
    publisher.publish("x");
    assert!(panics(|| client.assert_nothing()).starts_with("expected no message, but got Message { "));
    // It is not lost.
    assert_eq!(client.next_message().data, "x");
    publisher.publish("y");
    assert_eq!(panics(|| client.assert_no_frame()), "expected no frame, but got \"data: y\\n\\n\"");
    publisher.publish("z");
    publisher.close();
    assert!(panics(|| client.assert_end()).starts_with("expected no message"));
    assert_eq!(client.next_message().data, "z");
    assert_eq!(panics(|| client.next_message()), "expected a message, but the stream has ended: Some(Closed)");
    assert_eq!(panics(|| client.next_frame()), "expected a frame, but the stream has ended: Some(Closed)");
    assert_eq!(client.assert_end(), EndCause::Closed);
}

#[test]
fn subscribers_are_waited_for() {
    let publisher = Publisher::new();
    wait_for_subscribers(&publisher, 0);
    let other = publisher.clone();
    let reader = thread::spawn(move || {
        thread::sleep(std::time::Duration::from_millis(20));
        other.subscribe().unwrap().next()
    });
    wait_for_subscribers(&publisher, 1);
    publisher.publish("x");
    reader.join().unwrap();
    wait_for_subscribers(&publisher, 0);
}
