//! The client and this crate's own server.

use std::time::Duration;

use server_sent_events::client::{EndCause, EventSource};
use server_sent_events::server::{EventServer, Request, Response, RunningServer};
use server_sent_events::{Event, History, Publisher};

use super::{ends, gets, gets_data};
use crate::common::{eventually, server};

fn client(server: &RunningServer) -> EventSource {
    let url = format!("http://{}/", server.local_addr());
    EventSource::builder(url).reconnection_time(Duration::from_millis(1)).connect().unwrap()
}

#[test]
fn events_arrive_as_they_were_published() {
    let publisher = Publisher::new();
    let server = server::streams(&publisher);
    let mut events = client(&server);
    eventually("the client subscribes", || publisher.stats().subscribers == 1);
    publisher.publish(Event::new("two\nlines").event("a").unwrap().retry(Duration::from_secs(7)).unwrap());
    let message = gets(&mut events);
    assert_eq!(
        (&*message.event_type, &*message.data, message.retry),
        ("a", "two\nlines", Some(Duration::from_secs(7)))
    );
    publisher.publish("x".repeat(1_000_000));
    gets_data(&mut events, &"x".repeat(1_000_000));
}

#[test]
fn a_client_resumes_after_a_lost_connection_without_a_loss() {
    let publisher = Publisher::builder().history(History::new()).build().unwrap();
    let server = server::streams(&publisher);
    let mut events = client(&server);
    eventually("the client has the start ID", || events.try_recv().is_err() && !events.last_event_id().is_empty());
    for round in 0..20 {
        for event in 0..10 {
            publisher.publish(format!("{round} {event}"));
        }
        publisher.disconnect_if(|()| true);
        publisher.publish(format!("{round} missed"));
        for event in 0..10 {
            gets_data(&mut events, &format!("{round} {event}"));
        }
        gets_data(&mut events, &format!("{round} missed"));
    }
}

#[test]
fn a_client_resumes_even_if_it_has_seen_no_event() {
    let publisher = Publisher::builder().history(History::new()).build().unwrap();
    publisher.publish("before");
    let server = server::streams(&publisher);
    let mut events = client(&server);
    eventually("the client has the start ID", || events.try_recv().is_err() && !events.last_event_id().is_empty());
    publisher.disconnect_if(|()| true);
    publisher.publish("missed");
    gets_data(&mut events, "missed");
}

#[test]
fn evicted_events_are_a_gap() {
    let history = History::new().max_events_per_channel(2);
    let publisher = Publisher::builder().history(history).build().unwrap();
    let id = publisher.publish("seen").id().map(str::to_owned);
    for event in 0..4 {
        publisher.publish(event.to_string());
    }
    let server = server::streams(&publisher);
    let url = format!("http://{}/", server.local_addr());
    let mut events = EventSource::builder(url).last_event_id(id).connect().unwrap();
    assert!(gets(&mut events).is_gap());
    gets_data(&mut events, "2");
    gets_data(&mut events, "3");
}

#[test]
fn a_server_can_end_the_client() {
    let server = EventServer::builder().bind("127.0.0.1:0").unwrap();
    let server = server.spawn(|_: &Request| Response::do_not_reconnect()).unwrap();
    assert_eq!(ends(&mut client(&server)), EndCause::NoContent);
}
