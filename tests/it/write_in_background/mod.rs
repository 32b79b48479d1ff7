//! A stream in the background is written by the publisher's few threads, whatever its writer does, and its end is
//! reported with its cause.

mod ends;
mod heartbeats;
mod hooks;
mod misbehaving;

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use crate::common::writers::Kept;
use crate::common::{PATIENCE, eventually};
use server_sent_events::{BackgroundOptions, EndCause, Event, Publisher};

/// Returns options with an end hook, and a channel that receives each cause.
fn with_end_hook() -> (BackgroundOptions, Receiver<EndCause>) {
    let (ended, end) = channel();
    (BackgroundOptions::new().on_end(move |cause| ended.send(cause).unwrap()), end)
}

/// Checks that it ended for this reason.
#[track_caller]
fn ended(end: &Receiver<EndCause>, cause: EndCause) {
    assert_eq!(end.recv_timeout(PATIENCE), Ok(cause));
}

/// Returns the two ends of a connection: the client's, and the one to write to.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn events_queued_before_and_published_after_are_written_in_order() {
    let publisher = Publisher::new();
    let kept = Kept::default();
    let subscription = publisher.subscription(()).initial_data(["1"]).open().unwrap();
    publisher.publish("2");
    subscription.write_in_background(kept.clone()).unwrap();
    kept.becomes("data: 1\n\ndata: 2\n\n");
    publisher.publish("3");
    kept.becomes("data: 1\n\ndata: 2\n\ndata: 3\n\n");
}

#[test]
fn closures_are_rendered_and_nothing_else_is_written() {
    let publisher = crate::common::publisher::<u8>();
    let kept = Kept::default();
    publisher.subscription(7).open().unwrap().write_in_background(kept.clone()).unwrap();
    publisher.publish_with("default channel", |n: &u8| (*n != 7).then(|| Event::new("skipped")));
    publisher.publish_with("default channel", |n: &u8| Some(Event::new(n.to_string())));
    publisher.publish_with("default channel", |_: &u8| panic!("a panic that belongs to this test"));
    kept.becomes("data: 7\n\nevent: gap\ndata: {\"lost\":1}\n\n");
}

#[test]
fn a_large_event_and_many_small_ones_are_written_unchanged() {
    let publisher = Publisher::new();
    let kept = Kept::default();
    publisher.subscribe().unwrap().write_in_background(kept.clone()).unwrap();
    let large = "x".repeat(500_000);
    publisher.publish(&large);
    let mut all = format!("data: {large}\n\n");
    for n in 0..1_000 {
        publisher.publish(n.to_string());
        all += &format!("data: {n}\n\n");
    }
    eventually("all was written", || kept.text().len() == all.len());
    assert!(kept.text() == all);
}
