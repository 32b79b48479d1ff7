//! Several requests over one connection to EventServer: answered in order, within limits, and none after a stream.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::echo::{Echo, get, post, post_whole, rejects, responds, with_bodies};
use crate::common::eventually;
use crate::common::http::{Client, FIRST_CHUNK};
use crate::common::pace::is_soon;
use crate::common::process::{held, is_back_at};
use crate::common::server::reads_response;
use crate::no_harm::leaves_nothing;
use crate::own_process::own_process;

const MAX_BODY: usize = 1 << 20;

#[test]
fn ten_thousand_posts_need_one_connection() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY), |server| {
        let mut client = server.connect();
        let descriptors = held().1;
        let start = Instant::now();
        for n in 0..10_000 {
            client.send(&post_whole("/", &n.to_string()));
            assert_eq!(reads_response(&mut client, false).body, n.to_string());
        }
        println!("10,000 posts in {:?}", start.elapsed());
        // The server's end is one of them.
        assert!(held().1 <= descriptors + 1);
        assert_eq!(server.requests().len(), 10_000);
    });
}

/// A mix of requests that may follow each other.
fn mixed(n: usize) -> String {
    match n % 4 {
        0 => get(&format!("/{n}")),
        1 => post_whole(&format!("/{n}"), &format!("body {n}")),
        2 => post(&format!("/{n}"), "Transfer-Encoding: chunked", "2\r\nbo\r\n3\r\ndy \r\n0\r\nX: y\r\n\r\n"),
        _ => format!("HEAD /{n} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    }
}

#[test]
fn requests_that_arrive_together_are_answered_in_order() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY), |server| {
        let requests: String = (0..400).map(mixed).collect();
        let mut client = server.send(requests);
        for n in 0..400 {
            let response = reads_response(&mut client, n % 4 == 3);
            let body = [String::new(), format!("body {n}"), "body ".to_owned(), String::new()][n % 4].clone();
            assert_eq!((response.status, response.body), (200, body), "request {n}");
        }
        let targets: Vec<String> =
            server.requests().iter().map(|request| request.split(' ').nth(1).unwrap().to_owned()).collect();
        assert_eq!(targets, (0..400).map(|n| format!("/{n}")).collect::<Vec<_>>());
    });
}

#[test]
fn a_request_does_not_overtake_the_one_before_it() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY), |server| {
        let mut client = server.send(format!("{}{}", post_whole("/wait", "first"), post_whole("/", "second")));
        server.waits(1);
        // Meanwhile, other connections are answered.
        responds(&mut server.send(post_whole("/", "other")), 200, "other");
        assert_eq!(server.requests(), ["POST /wait first", "POST / other"]);
        assert!(!client.has_something());
        server.open();
        responds(&mut client, 200, "first");
        responds(&mut client, 200, "second");
        assert_eq!(server.requests(), ["POST / second"]);
    });
}

/// The server stops reading ahead, and must resume reading once it reaches the rest.
#[test]
fn a_large_body_that_arrives_behind_a_slow_request_is_read_to_its_end() {
    own_process!();
    // So nothing but the end of the slow request makes the server read on.
    leaves_nothing(with_bodies(MAX_BODY).body_read_timeout(Duration::from_secs(600)), |server| {
        for size in [1_000, 16 * 1024, 20_000, 100_000, MAX_BODY] {
            let mut client = server.connect();
            let body = "x".repeat(size);
            let both = format!("{}{}{}", post_whole("/wait", "first"), post_whole("/", &body), get("/"));
            thread::scope(|threads| {
                let mut sender = Client::on(client.socket().try_clone().unwrap());
                threads.spawn(move || sender.send(&both));
                eventually("the first waits", || server.waiting() > 0 || client.has_something());
                server.open();
                responds(&mut client, 200, "first");
                responds(&mut client, 200, &body);
                responds(&mut client, 200, "");
            });
        }
    });
}

#[test]
fn a_connection_without_a_next_request_is_closed_after_its_timeout() {
    own_process!();
    let timeout = Duration::from_millis(300);
    let settings = with_bodies(MAX_BODY).keep_alive_timeout(timeout).header_read_timeout(Duration::from_secs(600));
    leaves_nothing(settings, |server| {
        let start = Instant::now();
        let mut client = server.send(post_whole("/", "hello"));
        responds(&mut client, 200, "hello");
        client.reads_the_end();
        assert!(start.elapsed() >= timeout, "{:?}", start.elapsed());
        // A handler and a stream may take longer.
        let mut slow = server.send(post_whole("/wait", "hello"));
        let mut stream = server.send(get("/stream"));
        stream.reads_head();
        stream.reads(FIRST_CHUNK);
        thread::park_timeout(3 * timeout);
        server.open();
        responds(&mut slow, 200, "hello");
        server.publisher.publish("hello");
        stream.reads("0000000d\r\ndata: hello\n\n\r\n");
    });
}

#[test]
fn a_next_request_that_does_not_arrive_whole_is_too_slow() {
    own_process!();
    let timeout = Duration::from_secs(1);
    let settings = with_bodies(MAX_BODY).header_read_timeout(timeout).keep_alive_timeout(Duration::from_secs(600));
    leaves_nothing(settings, |server| {
        let mut client = server.send(get("/"));
        responds(&mut client, 200, "");
        thread::park_timeout(2 * timeout);
        let start = Instant::now();
        client.send("POST /");
        rejects(&mut client, 408);
        assert!(start.elapsed() >= timeout, "{:?}", start.elapsed());
    });
}

#[test]
fn the_last_request_that_is_allowed_closes_its_connection() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY).max_requests_per_connection(3), |server| {
        let mut client = server.send((0..5).map(|n| post_whole("/", &n.to_string())).collect::<String>());
        for n in 0..3 {
            let response = responds(&mut client, 200, &n.to_string());
            assert_eq!(response.header("Connection"), if n == 2 { Some("close") } else { None });
        }
        client.reads_the_end();
        assert_eq!(server.requests().len(), 3, "a request was handled and not answered");
    });
}

#[test]
fn a_client_that_asks_for_the_end_gets_it_after_its_response() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY), |server| {
        for lines in ["Connection: close", "Connection: keep-alive, Close", "Connection: x\r\nconnection: CLOSE"] {
            let request = post("/", &format!("Content-Length: 5\r\n{lines}"), "hello");
            let mut client = server.send(format!("{request}{}", post_whole("/", "again")));
            assert_eq!(responds(&mut client, 200, "hello").header("Connection"), Some("close"), "{lines}");
            client.reads_the_end();
            assert_eq!(server.requests(), ["POST / hello"], "{lines}");
        }
    });
}

#[test]
fn http_1_0_has_one_request_per_connection() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY), |server| {
        for lines in ["Content-Length: 5", "Content-Length: 5\r\nConnection: keep-alive"] {
            let request = post("/", lines, "hello").replace("HTTP/1.1", "HTTP/1.0");
            let mut client = server.send(format!("{request}{}", post_whole("/", "again")));
            assert_eq!(responds(&mut client, 200, "hello").header("Connection"), Some("close"));
            client.reads_the_end();
            assert_eq!(server.requests(), ["POST / hello"]);
        }
    });
}

#[test]
fn a_stream_may_be_the_last_of_several_requests() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY), |server| {
        let mut client = server.send(format!("{}{}{}", post_whole("/", "hello"), get("/"), get("/stream")));
        responds(&mut client, 200, "hello");
        responds(&mut client, 200, "");
        assert_eq!(client.reads_head().values("Connection"), ["close"]);
        client.reads(FIRST_CHUNK);
        server.publisher.publish("hello");
        client.reads("0000000d\r\ndata: hello\n\n\r\n");
    });
}

#[test]
fn nothing_may_follow_the_request_of_a_stream() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY), |server| {
        for next in [get("/"), post_whole("/", "hello")] {
            let mut client = server.send(get("/stream") + &next);
            rejects(&mut client, 400);
            // It ends the stream later.
            let mut client = server.send(get("/stream"));
            client.reads_head();
            client.reads(FIRST_CHUNK);
            client.send(&next);
            client.reads_all_there_is();
        }
        assert_eq!(server.requests(), ["GET /stream "; 4], "a request on a stream's connection was handled");
    });
}

#[test]
fn garbage_behind_a_request_is_rejected_after_the_responses_before_it() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY), |server| {
        let mut client = server.send(post_whole("/", "hello") + "garbage\r\n\r\n");
        responds(&mut client, 200, "hello");
        rejects(&mut client, 400);
        let mut client = server.send(post_whole("/", "hello") + "\r\n");
        responds(&mut client, 200, "hello");
        rejects(&mut client, 400);
        assert_eq!(server.requests().len(), 2);
    });
}

#[test]
fn requests_that_arrived_before_the_end_are_answered_as_far_as_they_are_whole() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY), |server| {
        let requests: String = ["/wait", "/", "/"].map(|path| post_whole(path, "hello")).concat();
        let mut client = server.send(requests + "POST / HTTP/1.1\r\n");
        server.waits(1);
        client.shuts_down_writing();
        responds(&mut server.send(get("/")), 200, "");
        server.open();
        for _ in 0..3 {
            responds(&mut client, 200, "hello");
        }
        client.reads_the_end();
        assert_eq!(server.requests().len(), 4);
    });
}

#[test]
fn reads_that_arrived_before_the_end_are_answered_if_the_first_one_is_slow() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY), |server| {
        let mut client = server.send(get("/wait") + &get("/") + &get("/"));
        server.waits(1);
        client.shuts_down_writing();
        responds(&mut server.send(get("/")), 200, "");
        server.open();
        for _ in 0..3 {
            responds(&mut client, 200, "");
        }
        client.reads_the_end();
    });
}

/// Returns a server with room for two streams and a few more connections.
#[test]
fn an_idle_connection_makes_room_for_another() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY).max_streams(2), |server| {
        let mut clients: Vec<Client> = (0..300)
            .map(|n| {
                let mut client = server.send(post_whole("/", &n.to_string()));
                responds(&mut client, 200, &n.to_string());
                client
            })
            .collect();
        // The oldest connections are closed, the last one is still open.
        clients[0].reads_the_end();
        clients[250].reads_the_end();
        clients[299].send(&post_whole("/", "again"));
        responds(&mut clients[299], 200, "again");
    });
}

#[test]
fn a_connection_whose_handler_runs_makes_no_room() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY).max_streams(2), |server| {
        let mut waiting = server.send(post_whole("/wait", "hello"));
        server.waits(1);
        for n in 0..300 {
            responds(&mut server.send(post_whole("/", &n.to_string())), 200, &n.to_string());
        }
        server.open();
        responds(&mut waiting, 200, "hello");
    });
}

/// Stops a server that has an idle connection, and two whose request is not whole. Returns how long it takes.
#[track_caller]
fn stops_unfinished() -> Duration {
    let before = held();
    let server = Echo::serve(with_bodies(MAX_BODY));
    let mut idle = server.send(post_whole("/", "hello"));
    responds(&mut idle, 200, "hello");
    let mut body = server.send(post("/", "Content-Length: 5", "hell"));
    let mut head = server.send("POST /");
    // The server has read them once a later client has its response.
    responds(&mut server.send(get("/")), 200, "");
    let start = Instant::now();
    let requests = server.requests();
    drop(server);
    let after = start.elapsed();
    for client in [&mut idle, &mut body, &mut head] {
        assert_eq!(client.reads_all_there_is(), b"");
    }
    assert_eq!(requests, ["POST / hello", "GET / "]);
    drop((idle, body, head));
    eventually("the server has left nothing behind", || is_back_at(before));
    after
}

/// A connection whose handler has just written the response lingers until its client closes. On a busy machine the idle one
/// can be in that state, so one of several stops must be quick.
#[test]
fn a_stop_closes_idle_connections_and_unfinished_requests_at_once() {
    own_process!();
    is_soon("a stop of idle connections", Duration::from_secs(1), stops_unfinished);
}

#[test]
fn a_stop_waits_for_a_handler_and_its_response() {
    own_process!();
    let server = Echo::serve(with_bodies(MAX_BODY));
    let mut client = server.send(post_whole("/wait", "hello") + &post_whole("/", "again"));
    server.waits(1);
    server.server.stop_handle().stop();
    eventually("it takes no connections", || std::net::TcpStream::connect(server.address()).is_err());
    server.open();
    responds(&mut client, 200, "hello");
    assert_eq!(client.reads_all_there_is(), b"");
    drop(client);
    drop(server);
}

/// The socket takes only a part of the response at once.
#[test]
fn a_stop_lets_a_response_be_read_to_its_end() {
    own_process!();
    const SIZE: usize = 32 << 20;
    is_soon("the end of a server whose last response was read", Duration::from_secs(2), || {
        let server = Echo::serve(with_bodies(SIZE).max_body_memory(SIZE * 4));
        let mut client = server.send(post_whole("/", &"x".repeat(SIZE)));
        assert_eq!(client.reads_head().values("Content-Length"), [SIZE.to_string()]);
        server.server.stop_handle().stop();
        eventually("it takes no connections", || std::net::TcpStream::connect(server.address()).is_err());
        let mut body = Vec::new();
        client.into_reader().read_to_end(&mut body).unwrap();
        assert_eq!(body.len(), SIZE);
        let start = Instant::now();
        drop(server);
        start.elapsed()
    });
}

#[test]
fn a_body_for_which_handlers_leave_no_memory_costs_no_other_client_its_body() {
    own_process!();
    const SIZE: usize = 200_000;
    let server = Echo::serve(with_bodies(SIZE).max_body_memory(SIZE + 1_000));
    let held = server.send(post_whole("/wait", &"x".repeat(SIZE)));
    server.waits(1);
    let request = post_whole("/", "hello");
    let (first, rest) = request.split_at(request.len() - 2);
    let mut others: Vec<Client> = (0..5).map(|_| server.send(first)).collect();
    rejects(&mut server.send(post_whole("/", &"x".repeat(SIZE))), 503);
    for other in &mut others {
        other.send(rest);
        responds(other, 200, "hello");
    }
    drop(held);
}
