//! A stream begins at once, carries each event at once and unchanged, and ends when either side ends it.

use std::time::Duration;

use super::servers::{Site, Start};
use crate::common::eventually;
use server_sent_events::{History, Publisher};

promises! {
    [tiny_http rouille event_server] {
        the_head_is_that_of_an_event_stream,
        the_first_comment_and_each_event_come_at_once_and_the_end_is_seen,
        a_megabyte_and_500_events_in_a_row_arrive_unchanged,
        head_gets_the_head_alone_and_leaves_no_subscriber,
        a_client_that_leaves_is_removed,
        a_client_that_does_not_read_is_disconnected_and_the_others_miss_nothing,
    }
}

fn the_head_is_that_of_an_event_stream(start: Start) {
    let server = start(Site::new());
    let head = server.get("/").reads_head();
    assert_eq!(head.status(), "HTTP/1.1 200 OK");
    for (name, value) in [
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("Cache-Control", "no-cache, no-transform"),
        ("X-Accel-Buffering", "no"),
        ("Transfer-Encoding", "chunked"),
    ] {
        assert_eq!(head.values(name), [value], "{name}");
    }
    assert!(head.values("Content-Length").is_empty());
    assert!(httpdate::parse_http_date(head.values("Date")[0]).is_ok());
}

/// Without heartbeats: an event that waited for the next one would never arrive.
fn the_first_comment_and_each_event_come_at_once_and_the_end_is_seen(start: Start) {
    let server = start(Site::new());
    let mut events = server.begun("/");
    for n in 0..20 {
        server.publisher.publish_to("/", n.to_string());
        events.gets_event(&format!("data: {n}\n\n"));
    }
    server.publisher.publish_to("/", "last");
    server.publisher.close();
    events.gets_event("data: last\n\n");
    assert_eq!(events.next_event(), None);
}

fn a_megabyte_and_500_events_in_a_row_arrive_unchanged(start: Start) {
    let server = start(Site::new());
    let mut events = server.begun("/");
    let large = "x".repeat(1_000_000);
    server.publisher.publish_to("/", &large);
    events.gets_event(&format!("data: {large}\n\n"));
    let numbered = |n| format!("{n} {}", "y".repeat(1_000));
    for n in 0..500 {
        server.publisher.publish_to("/", numbered(n));
    }
    for n in 0..500 {
        events.gets_event(&format!("data: {}\n\n", numbered(n)));
    }
    server.publisher.close();
    assert_eq!(events.next_event(), None);
}

/// Even if there are events to send: those of a replay.
fn head_gets_the_head_alone_and_leaves_no_subscriber(start: Start) {
    let server = start(Site::with(Publisher::builder().history(History::new())));
    let begin = server.publisher.last_event_id().unwrap();
    server.publisher.publish_to("/", "secret");
    let mut client = server.ask("HEAD", "/", &format!("Last-Event-ID: {begin}\r\nConnection: close\r\n"));
    assert_eq!(client.reads_head().values("Content-Type"), ["text/event-stream; charset=utf-8"]);
    client.reads_the_end();
    eventually("the subscriber has gone", || server.publisher.stats().subscribers == 0);
}

/// Seen in a Python library: it is never removed.
fn a_client_that_leaves_is_removed(start: Start) {
    let server = start(Site::with(Publisher::builder().heartbeat(Duration::from_millis(20))));
    let clients = [(); 10].map(|()| server.opened("/"));
    assert_eq!(server.publisher.stats().subscribers, 10);
    drop(clients);
    eventually("no subscriber is left", || server.publisher.stats().subscribers == 0);
    let ended = server.publisher.stats().ended;
    // rouille drops the stream, and does not report why.
    assert_eq!(ended.connection_lost + ended.dropped, 10, "{ended:?}");
}

fn a_client_that_does_not_read_is_disconnected_and_the_others_miss_nothing(start: Start) {
    let server = start(Site::with(Publisher::builder().heartbeat(None).max_queued_events(100)));
    let stalled = server.opened("/");
    let mut healthy = server.begun("/");
    let data = "x".repeat(100_000);
    // A gigabyte, if need be.
    let is_disconnected = (0..10_000).any(|_| {
        server.publisher.publish_to("/", &data);
        healthy.gets_event(&format!("data: {data}\n\n"));
        server.publisher.stats().ended.queue_full == 1
    });
    assert!(is_disconnected, "everything is buffered for a client that reads nothing");
    assert_eq!(server.publisher.stats().subscribers, 1);
    server.publisher.publish_to("/", "still here");
    healthy.gets_event("data: still here\n\n");
    // rouille's thread is blocked in the write until the connection ends.
    stalled.resets();
}
