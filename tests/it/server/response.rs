//! What a client gets for what the handler returns.

use super::*;
use crate::common::http::{FIRST_CHUNK, HELLO_CHUNK, LAST_CHUNK};
use crate::common::server::{opened, send, streams};
use server_sent_events::Publisher;

#[test]
fn the_end_sends_the_final_chunk_and_closes_the_connection() {
    let publisher = Publisher::new();
    let server = streams(&publisher);
    let mut client = send(server.local_addr(), GET);
    assert_eq!(client.reads_head().values("Connection"), ["close"]);
    client.reads(FIRST_CHUNK);
    publisher.publish("bye");
    client.reads("0000000b\r\ndata: bye\n\n\r\n");
    publisher.close();
    client.reads(LAST_CHUNK);
    client.reads_the_end();
}

#[test]
fn head_gets_no_body_whatever_is_answered() {
    for answer in [
        || Response::retry_later(),
        || Response::do_not_reconnect(),
        || Response::status(404).into(),
        || Response::status(42).into(),
        || panic!("as it should"),
    ] as [fn() -> Response; 5]
    {
        let server = answers(move |_| answer());
        response_to(server.local_addr(), "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    let server = answers(|_| Response::do_not_reconnect());
    assert_eq!(response_to(server.local_addr(), "HEAD / HTTP/1.1\r\nHost: example.org\r\n\r\n").status, 403);
}

#[test]
fn do_not_reconnect_is_204() {
    assert_eq!(answered(Response::do_not_reconnect).status, 204);
}

#[test]
fn a_status_comes_with_its_text() {
    let response = answered(|| Response::text("there is /news: \u{e4}").with_status(404).into());
    assert_eq!((response.status, &*response.body), (404, "there is /news: \u{e4}"));
    assert_eq!(response.header("Content-Type"), Some("text/plain; charset=utf-8"));
}

#[test]
fn unusual_statuses_are_well_formed() {
    for status in [200, 204, 205, 304, 418, 451, 599] {
        assert_eq!(answered(move || Response::text("text").with_status(status).into()).status, status);
    }
    for none in [0, 99, 100, 101, 199, 600, 1_000, u16::MAX] {
        assert_eq!(Response::status(none).unwrap_err().status(), 500);
        assert_eq!(answered(move || Response::status(none).into()).status, 500, "{none}");
    }
    assert_eq!(answered(|| Response::status(404).into()).body, "Not Found\n");
}

#[test]
fn a_panic_costs_its_request_a_500_and_nothing_else() {
    let publisher = Publisher::new();
    let streams = publisher.clone();
    let server = answers(move |request| match request.path() {
        "/panic" => panic!("as it should"),
        _ => streams.subscription(()).open().into(),
    });
    let mut healthy = opened(server.local_addr());
    // More than there are handler threads.
    for _ in 0..10 {
        assert_eq!(response_to(server.local_addr(), get("/panic")).status, 500);
    }
    publisher.publish("hello");
    healthy.reads(HELLO_CHUNK);
    opened(server.local_addr());
}
