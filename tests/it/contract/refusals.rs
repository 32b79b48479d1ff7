//! A refused client reconnects later if that can help, and not at all if its request is invalid.

use std::collections::BTreeSet;
use std::time::Duration;

use super::servers::{RETRY, Site, Start};
use crate::common::http::Events;
use server_sent_events::Publisher;

promises! {
    [tiny_http rouille event_server] {
        a_refusal_is_an_event_stream_that_ends,
        head_gets_no_body_of_a_refusal,
        refused_clients_reconnect_at_different_times,
        above_a_limit_a_client_is_sent_a_retry_time,
        a_bad_channel_is_answered_with_400_and_the_reason,
    }
}

/// Reads a refusal to its end, and returns the retry time.
#[track_caller]
fn retry(mut refusal: Events) -> Duration {
    let frame = refusal.next_event().unwrap();
    refusal.ends();
    let retry = frame.strip_prefix(": busy\nretry: ").and_then(|rest| rest.strip_suffix("\n\n")).expect(&frame);
    Duration::from_millis(retry.parse().unwrap())
}

fn a_refusal_is_an_event_stream_that_ends(start: Start) {
    let server = start(Site::new());
    let mut client = server.ask("GET", "/busy", "Connection: close\r\n");
    let head = client.reads_head();
    assert_eq!(head.status(), "HTTP/1.1 200 OK");
    assert_eq!(head.values("Content-Type"), ["text/event-stream; charset=utf-8"]);
    client.reads_until(": busy\nretry: ");
    client.reads_all();
}

fn head_gets_no_body_of_a_refusal(start: Start) {
    let server = start(Site::with(Publisher::builder().max_channel_name_len(5)));
    for (target, status) in [("/busy", "HTTP/1.1 200 "), ("/too/long", "HTTP/1.1 400 ")] {
        let mut client = server.ask("HEAD", target, "Connection: close\r\n");
        assert!(client.reads_head().status().starts_with(status), "{target}");
        client.reads_the_end();
    }
}

/// Seen in many servers: all clients reconnect in the same instant.
fn refused_clients_reconnect_at_different_times(start: Start) {
    let server = start(Site::new());
    let retries: BTreeSet<Duration> = (0..20).map(|_| retry(server.events("/busy"))).collect();
    assert!(retries.iter().all(|retry| (RETRY..=2 * RETRY).contains(retry)), "{retries:?}");
    assert!(retries.len() > 10, "{retries:?}");
}

/// A limit may have room later.
fn above_a_limit_a_client_is_sent_a_retry_time(start: Start) {
    let server = start(Site::with(Publisher::builder().heartbeat(None).max_subscribers(1)));
    let _inside = server.opened("/");
    assert!((RETRY..=2 * RETRY).contains(&retry(server.events("/"))));
    assert_eq!(server.publisher.stats().subscriptions_refused, 1);
}

/// A browser does not reconnect after a 400.
fn a_bad_channel_is_answered_with_400_and_the_reason(start: Start) {
    let server = start(Site::with(Publisher::builder().max_channel_name_len(5)));
    let mut client = server.get("/too/long");
    assert_eq!(client.reads_head().status(), "HTTP/1.1 400 Bad Request");
    client.reads("channel name too long (9 bytes): use at most 5");
    assert_eq!(server.publisher.stats().subscriptions_refused, 1);
}
