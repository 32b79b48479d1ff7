//! Connections whose first response cannot be written keep no other client from a response. The tests that count what
//! is left behind are in `tests/alone/tiny_http_blocked.rs`.

use std::time::Duration;

use crate::common::blocked::{Attacked, BEHIND_ANOTHER, BODY_MISSING, HALF, small};
use crate::common::eventually;
use crate::common::http::{Client, FIRST_CHUNK, GET, HELLO_CHUNK, LAST_CHUNK, Running};
use server_sent_events::{OpenError, Publisher};

#[test]
fn many_blocked_first_writes_leave_threads_for_a_new_stream() {
    for request in [BODY_MISSING, BEHIND_ANOTHER] {
        let attacked = Attacked::by(request, Publisher::builder());
        let mut client = attacked.server.send(GET);
        client.reads_head();
        client.reads(FIRST_CHUNK);
        attacked.publisher.publish("hello");
        client.reads(HELLO_CHUNK);
    }
}

#[test]
fn a_new_stream_is_refused_while_half_of_the_threads_are_blocked_in_first_writes() {
    for request in [BODY_MISSING, BEHIND_ANOTHER] {
        let attacked = Attacked::by(request, small());
        // It may arrive before the first writes are known to be blocked, so it has to wait for that.
        let mut early = attacked.server.send(GET);
        early.reads_until("busy\nretry: ");
        eventually("all others are refused", || attacked.is_full(request, 1));
        let refused = attacked.publisher.stats().subscriptions_refused;
        attacked.refused(GET);
        attacked.refused("HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(attacked.publisher.stats().subscriptions_refused, refused + 3);
        assert!(attacked.is_full(request, 4));
    }
}

#[test]
fn a_refused_client_reads_the_refusal_once_its_body_has_been_read() {
    let attacked = Attacked::by(BODY_MISSING, small());
    eventually("all others are refused", || attacked.is_full(BODY_MISSING, 0));
    let mut client = attacked.server.send(BODY_MISSING);
    client.send(&[b'x'; 2000]);
    client.reads_until("busy\nretry: ");
    client.reads_until(LAST_CHUNK);
    // Its next request is answered too.
    client.send(GET);
    client.reads_until("busy\nretry: ");
}

#[test]
fn the_refusal_of_a_later_request_is_not_written_into_a_running_stream() {
    let publisher = small().build().unwrap();
    let answers = publisher.clone();
    let server = Running::new(move |request| match request.url() {
        "/page" => request.respond(tiny_http::Response::from_string("the page")).unwrap(),
        _ => answers.subscription(()).heartbeat(None).respond(request).unwrap(),
    });
    let mut client = server.send(GET);
    client.reads_head();
    client.reads(FIRST_CHUNK);
    let blocked: Vec<Client> = (0..HALF).map(|_| server.send(BODY_MISSING)).collect();
    eventually("streams are refused", || {
        let mut other = server.send(GET);
        other.reads_head();
        other.reads_until(":\n").ends_with(":\n") && publisher.stats().subscriptions_refused > 0
    });
    let refused = publisher.stats().subscriptions_refused;
    client.send(&GET.repeat(3));
    eventually("they are refused", || publisher.stats().subscriptions_refused == refused + 3);
    publisher.publish("hello");
    client.reads(HELLO_CHUNK);
    publisher.close();
    client.reads(LAST_CHUNK);
    for _ in 0..3 {
        client.reads_head();
        client.reads_until("busy\nretry: ");
        client.reads_until(LAST_CHUNK);
    }
    client.send("GET /page HTTP/1.1\r\nHost: x\r\n\r\n");
    client.reads_head();
    client.reads("the page");
    drop(blocked);
}

#[test]
fn a_tiny_http_stream_that_waits_to_begin_can_be_disconnected() {
    let publisher = Publisher::builder().max_writer_threads(2).heartbeat(None).build().unwrap();
    let answers = publisher.clone();
    let server = Running::new(move |request| {
        let subscription = answers.subscribe().unwrap();
        let (handle, is_disconnected) = (subscription.handle(), request.url() == "/disconnected");
        subscription.respond(request).unwrap();
        if is_disconnected {
            assert!(handle.disconnect());
        }
    });
    // The only one that is allowed. tiny_http may take two new connections in either order.
    let _blocked = server.send(BODY_MISSING);
    eventually("the blocked one is there", || publisher.stats().subscribers == 1);
    let mut client = server.send("GET /disconnected HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.reads_head().status(), "HTTP/1.1 200 OK");
    client.reads_until(LAST_CHUNK);
    assert_eq!(publisher.stats().ended.disconnected, 1);
    eventually("it has gone, and only the blocked one is left", || publisher.shutdown(Duration::ZERO) == 1);
}

#[test]
fn a_shutdown_does_not_wait_for_blocked_clients() {
    let attacked = Attacked::by(BODY_MISSING, small());
    eventually("all others are refused", || attacked.is_full(BODY_MISSING, 0));
    // One that was just refused may not have gone yet.
    eventually("only the blocked ones are left", || attacked.publisher.shutdown(Duration::from_millis(50)) == HALF);
    assert_eq!(attacked.publisher.stats().subscribers, 0);
    assert!(matches!(attacked.publisher.subscribe(), Err(OpenError::ShuttingDown)));
    attacked.refused(GET);
}

#[cfg(feature = "server")]
#[test]
fn event_server_streams_of_the_publisher_do_not_notice() {
    use crate::common::blocked::MANY;
    use crate::common::server::{opened, streams};
    for request in [BODY_MISSING, BEHIND_ANOTHER] {
        // Fewer than the clients that come and go.
        let attacked = Attacked::by(request, small().max_subscribers(2 * MANY + 10));
        let event_server = streams(&attacked.publisher);
        eventually("all others are refused", || attacked.is_full(request, 0));
        for _ in 0..2 * MANY {
            drop(attacked.server.send(GET));
        }
        let mut stream = opened(event_server.local_addr());
        attacked.publisher.publish("hello");
        stream.reads(HELLO_CHUNK);
    }
}
