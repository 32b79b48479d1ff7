//! What is specific to the tiny_http adapter: connections that outlive their streams, and streams that delay no other
//! client.

// Blocked sockets behave as on Linux.
#[cfg(target_os = "linux")]
mod blocked;
mod listeners;
mod serving;

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::common::http::{Client, FIRST_CHUNK, GET, HELLO_CHUNK, LAST_CHUNK, Running};
use crate::common::pace::is_soon;
use crate::common::{Watchdog, eventually};
use server_sent_events::{Event, Publisher};

/// Returns a publisher that sends heartbeats after 20 ms, and so detects lost connections.
fn impatient() -> Publisher {
    Publisher::builder().heartbeat(Duration::from_millis(20)).build().unwrap()
}

/// Opens a stream and reads the response headers and the first comment.
fn opened(server: &Running) -> Client {
    let mut client = server.send(GET);
    client.reads_head();
    client.reads(FIRST_CHUNK);
    client
}

#[test]
fn events_that_wait_together_are_one_chunk() {
    let publisher = Publisher::new();
    let running = publisher.clone();
    let server = Running::new(move |request| {
        let subscription = running.subscribe().unwrap();
        for n in 0..3 {
            running.publish(n.to_string());
        }
        subscription.respond(request).unwrap();
    });
    let mut client = server.send(GET);
    client.reads_head();
    client.reads("0000001d\r\n:\ndata: 0\n\ndata: 1\n\ndata: 2\n\n\r\n");
}

#[test]
fn the_end_sends_the_final_chunk_and_the_connection_goes_on() {
    let publisher = Publisher::new();
    let server = Running::streams(&publisher);
    let mut client = server.send(GET);
    assert!(client.reads_head().values("Connection").is_empty());
    client.reads(FIRST_CHUNK);
    publisher.publish("bye");
    client.reads("0000000b\r\ndata: bye\n\n\r\n");
    publisher.close();
    client.reads(LAST_CHUNK);
    client.send(GET);
    client.reads_head();
    client.reads(FIRST_CHUNK);
}

#[test]
fn a_request_for_connection_close_is_honored() {
    let publisher = Publisher::new();
    let server = Running::streams(&publisher);
    let mut client = server.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(client.reads_head().values("Connection"), ["close"]);
    client.reads(FIRST_CHUNK);
    publisher.close();
    client.reads(LAST_CHUNK);
    client.reads_the_end();
}

#[test]
fn head_gets_no_body_whatever_the_stream_holds() {
    let head = |answer: fn(&Publisher, tiny_http::Request)| {
        let publisher = Publisher::new();
        let server = Running::new(move |request| answer(&publisher, request));
        let mut client = server.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
        client.reads_head();
        // The next response follows at once.
        client.reads("HTTP/1.1 200 OK\r\n");
    };
    head(|publisher, request| publisher.respond_busy(request, Duration::from_secs(1)).unwrap());
    head(|publisher, request| {
        let subscription = publisher.subscription(()).initial_data(["secret"]).open().unwrap();
        publisher.publish("secret");
        publisher.close();
        subscription.respond(request).unwrap();
    });
}

#[test]
fn requests_behind_a_running_stream_hold_up_no_other_stream() {
    // Half of them are as many as the requests: none is refused.
    let publisher = Publisher::builder().max_writer_threads(100).heartbeat(None).build().unwrap();
    let server = Running::streams(&publisher);
    let mut healthy = opened(&server);
    let mut client = opened(&server);
    client.send(&GET.repeat(50));
    eventually("all are subscribed", || publisher.stats().subscribers == 52);
    for _ in 0..20 {
        publisher.publish("hello");
        healthy.reads(HELLO_CHUNK);
    }
    // When the first stream ends, the next one begins, and so on.
    publisher.close();
    for _ in 0..20 {
        client.reads_until("data: hello\n\n");
    }
    client.reads_until(LAST_CHUNK);
    for _ in 0..50 {
        client.reads_head();
        client.reads_until(LAST_CHUNK);
    }
}

#[test]
fn a_client_that_leaves_before_the_first_byte_frees_its_slot() {
    let publisher = impatient();
    let running = publisher.clone();
    let (left, has_left) = channel::<()>();
    let server = Running::new(move |request| {
        let subscription = running.subscribe().unwrap();
        has_left.recv().unwrap();
        subscription.respond(request).unwrap();
    });
    for _ in 0..10 {
        drop(server.send(GET));
        left.send(()).unwrap();
    }
    eventually("all have been subscribed, and gone", || publisher.stats().ended.connection_lost == 10);
    assert_eq!(publisher.stats().subscribers, 0);
}

#[test]
fn a_body_that_does_not_come_does_not_hold_up_the_answering_thread() {
    let publisher = Publisher::new();
    let server = Running::streams(&publisher);
    let _announced = server.send("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n");
    eventually("it is subscribed", || publisher.stats().subscribers == 1);
    opened(&server);
}

#[test]
fn a_request_behind_a_running_stream_does_not_hold_up_the_answering_thread() {
    let publisher = impatient();
    let server = Running::streams(&publisher);
    let mut client = opened(&server);
    client.send(GET);
    eventually("it is subscribed", || publisher.stats().subscribers == 2);
    opened(&server);
}

#[test]
fn a_slow_closure_holds_up_nobody_else() {
    let publisher = Publisher::builder_for::<bool>().build().unwrap();
    let running = publisher.clone();
    let mut first = true;
    let server = Running::new(move |request| {
        let slow = std::mem::replace(&mut first, false);
        running.subscription(slow).open().unwrap().respond(request).unwrap();
    });
    let _slow = opened(&server);
    let mut healthy = opened(&server);
    let (release, released) = channel::<()>();
    let released = std::sync::Mutex::new(released);
    publisher.publish_with("default channel", move |slow: &bool| {
        if *slow {
            let _ = released.lock().unwrap().recv();
        }
        Some(Event::new("hello"))
    });
    healthy.reads(HELLO_CHUNK);
    drop(release);
}

#[test]
fn streams_opened_at_once_all_get_their_first_comment() {
    let _watchdog = Watchdog::new("300 streams at once");
    let publisher = Publisher::new();
    let server = Running::streams(&publisher);
    // Checks no speed, only that no stream starves. A starved one gets its first byte when another one ends, or after five
    // seconds, when a thread of tiny_http has waited for that long.
    is_soon("the first byte of 300 streams", Duration::from_secs(2), || {
        let start = Instant::now();
        let mut clients: Vec<Client> = (0..300).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(GET);
        }
        for client in &mut clients {
            client.reads_head();
            client.reads(FIRST_CHUNK);
        }
        let all_began = start.elapsed();
        assert_eq!(publisher.publish("hello").subscribers(), 300);
        for client in &mut clients {
            client.reads(HELLO_CHUNK);
        }
        publisher.close();
        for client in &mut clients {
            client.reads(LAST_CHUNK);
        }
        all_began
    });
}

/// The first `curl -N` shows an event: the subscriber is registered before the event is published.
#[test]
fn the_program_of_the_readme_shows_an_event_to_its_first_client() {
    let publisher = Publisher::new();
    let server = Running::new(move |request| {
        let news = format!("somebody asked for {}", request.url());
        publisher.respond(request).unwrap();
        publisher.publish(news);
    });
    server.events().gets(":\n");
    server.send(GET).reads_until("data: somebody asked for /\n\n");

    let lines = [
        "let news = format!(\"somebody asked for {}\", request.url());",
        "publisher.respond(request)?;",
        "publisher.publish(news);",
    ];
    for text in ["README.md", "src/lib.rs"] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(text)).unwrap();
        let code: Vec<&str> = text.lines().map(|line| line.trim_start_matches("//!").trim()).collect();
        assert!(code.windows(3).any(|code| code == lines), "the program in the documentation is another one");
    }
}
