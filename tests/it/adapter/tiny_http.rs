//! The tiny_http adapter: what crosses the wire, when it ends, and what does not hold up what.

use std::io;
use std::sync::Barrier;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::http::{Client, Running};
use crate::common::{PATIENCE, Watchdog, bodies, eventually};
use crossbeam_channel::bounded;
use server_sent_events::adapter::tiny_http::{Server, last_event_id, read_body};
use server_sent_events::{Event, Publisher, ResponseHeaders};
use tiny_http::{Request, Response, TestRequest};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const FIRST_CHUNK: &str = "00000002\r\n:\n\r\n";
const LAST_CHUNK: &str = "0\r\n\r\n";

/// A publisher whose subscribers are asked after 20 ms whether they are still there.
fn impatient() -> Publisher {
    Publisher::builder().heartbeat(Duration::from_millis(20)).build().unwrap()
}

/// A connection that has read head and first comment.
fn opened(server: &Running) -> Client {
    let mut client = server.send(GET);
    client.reads_head();
    client.reads(FIRST_CHUNK);
    client
}

#[test]
fn the_head_is_that_of_an_event_stream() {
    let server = Running::streams(&Publisher::new());
    let head = server.send(GET).reads_head();
    assert_eq!(head.status(), "HTTP/1.1 200 OK");
    for (name, value) in [
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("Cache-Control", "no-cache, no-transform"),
        ("X-Accel-Buffering", "no"),
        ("Transfer-Encoding", "chunked"),
    ] {
        assert_eq!(head.values(name), [value], "{name}");
    }
    assert!(head.values("Connection").is_empty() && head.values("Content-Length").is_empty());
    assert!(httpdate::parse_http_date(head.values("Date")[0]).is_ok());
}

#[test]
fn a_first_comment_comes_at_once_and_then_each_event_in_a_chunk_of_its_own() {
    let publisher = Publisher::new();
    let server = Running::streams(&publisher);
    let mut client = opened(&server);
    for _ in 0..20 {
        publisher.publish("hello");
        client.reads("0000000d\r\ndata: hello\n\n\r\n");
    }
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
    let mut client = opened(&server);
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
fn http_1_0_gets_no_chunks_and_ends_by_close() {
    let publisher = Publisher::new();
    let server = Running::streams(&publisher);
    let mut client = server.send("GET / HTTP/1.0\r\n\r\n");
    let head = client.reads_head();
    assert_eq!((head.values("Transfer-Encoding"), head.values("Connection")), (vec![], vec!["close"]));
    client.reads(":\n");
    publisher.publish("hello");
    client.reads("data: hello\n\n");
    publisher.close();
    client.reads_the_end();
}

#[test]
fn head_gets_the_head_alone() {
    let publisher = Publisher::new();
    let server = Running::streams(&publisher);
    let mut client = server.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.reads_head().values("Content-Type"), ["text/event-stream; charset=utf-8"]);
    eventually("its subscription is gone", || publisher.stats().subscribers == 0);
    client.send(GET);
    assert_eq!(client.reads_head().status(), "HTTP/1.1 200 OK");
    client.reads(FIRST_CHUNK);
}

#[test]
fn head_gets_no_body_whatever_the_stream_holds() {
    let head = |answer: fn(&Publisher, tiny_http::Request)| {
        let publisher = Publisher::new();
        let server = Running::new(move |request| answer(&publisher, request));
        let mut client = server.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
        client.reads_head();
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
        healthy.reads("0000000d\r\ndata: hello\n\n\r\n");
    }
    // When the first stream ends the next one begins, and so on.
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
fn headers_of_the_application_are_added_or_replace_ours() {
    let publisher = Publisher::new();
    let headers = ResponseHeaders::new().with("X-One", "1").unwrap().with("cache-control", "no-store").unwrap();
    let server =
        Running::new(move |request| publisher.subscribe().unwrap().respond_with_headers(request, &headers).unwrap());
    let head = server.send(GET).reads_head();
    assert_eq!((head.values("X-One"), head.values("Cache-Control")), (vec!["1"], vec!["no-store"]));
    assert_eq!(head.values("X-Accel-Buffering"), ["no"]);
}

#[test]
fn a_chunk_may_be_larger_than_65535_bytes() {
    let publisher = Publisher::new();
    let server = Running::streams(&publisher);
    let mut events = server.events();
    events.gets(":\n");
    let large = "x".repeat(1_000_000);
    publisher.publish(&large);
    events.gets(&format!("data: {large}\n\n"));
    for n in 0..500 {
        publisher.publish(format!("{n} {}", "y".repeat(1_000)));
    }
    for n in 0..500 {
        events.gets(&format!("data: {n} {}\n\n", "y".repeat(1_000)));
    }
    publisher.close();
    events.ends();
}

#[test]
fn the_last_event_id_is_found_in_the_header_or_in_the_query() {
    let header = |value: &str| tiny_http::Header::from_bytes("last-event-id", value).unwrap();
    let id = |request: TestRequest| last_event_id(&request.into());
    let request = || TestRequest::new().with_path("/news?a=b&lastEventId=from%20query+x");
    assert_eq!(id(TestRequest::new()), None);
    assert_eq!(id(TestRequest::new().with_header(header("7-1"))).as_deref(), Some("7-1"));
    assert_eq!(id(TestRequest::new().with_header(header(""))), None);
    assert_eq!(id(request()).as_deref(), Some("from query x"));
    assert_eq!(id(request().with_header(header("7-1"))).as_deref(), Some("7-1"), "the header is the newer one");
    assert_eq!(id(request().with_header(header(""))).as_deref(), Some("from query x"));
    assert_eq!(id(TestRequest::new().with_path("/?lastEventId=")), None);
    assert_eq!(id(TestRequest::new().with_path("/?lastEventId=%ff")).as_deref(), Some("\u{fffd}"));
}

/// A server that sends back each body it reads.
fn echoes() -> Running {
    Running::new(|mut request| {
        let (status, text) = match read_body(&mut request, bodies::MAX_BODY) {
            Ok(body) => (200, String::from_utf8(body).unwrap()),
            Err(error) => (error.status(), error.to_string()),
        };
        request.respond(Response::from_string(text).with_status_code(status)).unwrap();
    })
}

/// Java's HttpClient and `curl --http2` offer HTTP/2 on each plain request, and then the body never ended.
#[test]
fn a_body_is_read_to_its_announced_length_whatever_the_connection_is_for() {
    let server = echoes();
    bodies::are_read_to_their_announced_length(|| server.connect());
}

#[test]
fn a_body_that_ends_early_is_rejected_whole() {
    let server = echoes();
    bodies::that_end_early_are_rejected(|| server.connect());
}

#[test]
fn a_body_of_no_valid_length_is_rejected_before_it_is_read() {
    let server = echoes();
    bodies::of_no_valid_length_are_rejected(|| server.connect());
}

#[test]
fn a_body_that_waits_to_be_asked_for_is_asked_for() {
    let server = echoes();
    bodies::are_asked_for_if_the_client_waits_for_that(|| server.connect());
}

/// Seen in many servers: all clients reconnect in the same instant.
#[test]
fn refused_clients_reconnect_at_different_times() {
    let publisher = Publisher::builder().max_subscribers(1).build().unwrap();
    let _full = publisher.subscribe().unwrap();
    let server = Running::streams(&publisher);
    let mut retries = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let mut events = server.events();
        let frame = events.next_frame().unwrap();
        assert_eq!(frame, ":\n");
        let frame = events.next_frame().unwrap();
        let retry = frame.strip_prefix(": busy\nretry: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
        let retry = retry.parse::<u32>().unwrap();
        assert!((5_000..=10_000).contains(&retry), "{retry}");
        retries.insert(retry);
        events.ends();
    }
    assert!(retries.len() > 10, "{retries:?}");
}

/// A limit that may have room later makes a browser come back, anything else not.
#[test]
fn a_reached_limit_is_answered_with_a_retry_time_and_a_bad_channel_with_400() {
    let publisher = Publisher::builder().max_subscribers_per_quota_key(1).max_channel_name_len(5).build().unwrap();
    let streams = publisher.clone();
    let server = Running::new(move |request| {
        let channel = request.url().to_owned();
        streams.subscription(()).channels([channel]).quota_key("one").respond(request).unwrap();
    });
    let mut inside = server.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    inside.reads_until(":\n");
    let mut second = server.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(second.reads_head().status(), "HTTP/1.1 200 OK");
    second.reads_until(": busy\nretry: ");
    second.reads_until("0\r\n\r\n");
    let mut long = server.send("GET /too/long HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(long.reads_head().status(), "HTTP/1.1 400 Bad Request");
    long.reads("channel name too long (9 bytes): use at most 5");
    assert_eq!(publisher.stats().subscriptions_refused, 2);
}

/// Without its CORS headers a browser hides a response from a page of another origin, which then never comes back.
#[test]
fn headers_for_the_stream_are_on_the_refusal_too() {
    let publisher = Publisher::builder().max_subscribers(1).max_channel_name_len(9).build().unwrap();
    let headers = ResponseHeaders::new().with("Access-Control-Allow-Origin", "https://example.org").unwrap();
    let headers = headers.with("Access-Control-Allow-Credentials", "true").unwrap();
    let server = Running::new(move |request| match request.url() {
        "/busy" => publisher.respond_busy_with_headers(request, Duration::from_secs(1), &headers).unwrap(),
        path => {
            let channel = path.to_owned();
            publisher.subscription(()).channels([channel]).respond_with_headers(request, &headers).unwrap();
        }
    });
    // Each stays connected, so that the first stream does.
    let mut clients = Vec::new();
    for (path, status, text) in [
        ("/too/long/for/it", 400, "channel name too long (16 bytes): use at most 9"),
        ("/stream", 200, FIRST_CHUNK),
        ("/stream", 200, ": busy\nretry: "),
        ("/busy", 200, ": busy\nretry: "),
    ] {
        for method in ["HEAD", "GET"].iter().skip(usize::from(path == "/stream")) {
            let mut client =
                server.send(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\nOrigin: https://example.org\r\n\r\n"));
            let head = client.reads_head();
            assert!(head.status().starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {}", head.0);
            assert_eq!(head.values("Access-Control-Allow-Origin"), ["https://example.org"], "{method} {path}");
            assert_eq!(head.values("Access-Control-Allow-Credentials"), ["true"], "{method} {path}");
            let content_type =
                if status == 200 { "text/event-stream; charset=utf-8" } else { "text/plain; charset=UTF-8" };
            assert_eq!(head.values("Content-Type"), [content_type], "{path}");
            if *method == "GET" {
                client.reads_until(text);
            }
            clients.push(client);
        }
    }
}

#[test]
fn a_refusal_has_the_head_of_a_stream_and_its_end() {
    let publisher = Publisher::new();
    let server = Running::new(move |request| publisher.respond_busy(request, Duration::from_secs(1)).unwrap());
    let mut client = server.send(GET);
    let head = client.reads_head();
    assert_eq!(
        (head.status(), head.values("Content-Type")),
        ("HTTP/1.1 200 OK", vec!["text/event-stream; charset=utf-8"])
    );
    client.reads_until(LAST_CHUNK);
}

/// Seen in a Python library: it is never removed.
#[test]
fn a_client_that_is_gone_is_removed() {
    let publisher = impatient();
    let server = Running::streams(&publisher);
    let clients = [(); 10].map(|()| opened(&server));
    assert_eq!(publisher.stats().subscribers, 10);
    drop(clients);
    eventually("clients that left are out of the registry", || publisher.stats().subscribers == 0);
    assert_eq!(publisher.stats().ended.connection_lost, 10);
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
fn a_client_that_does_not_read_is_ended_and_the_others_miss_nothing() {
    let publisher = Publisher::new();
    let server = Running::streams(&publisher);
    let _stalled = opened(&server);
    let mut healthy = server.events();
    healthy.gets(":\n");
    let kibibyte = "x".repeat(1_024);
    for n in 0..20_000 {
        publisher.publish(format!("{n} {kibibyte}"));
        healthy.gets(&format!("data: {n} {kibibyte}\n\n"));
        if publisher.stats().ended.queue_full == 1 {
            return;
        }
    }
    panic!("20 MB were taken for a client that reads nothing: {:?}", publisher.stats());
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
fn streams_opened_at_once_all_get_their_first_comment() {
    let _watchdog = Watchdog::new("300 streams at once", PATIENCE * 2);
    let publisher = Publisher::new();
    let server = Running::streams(&publisher);
    for round in 0..3 {
        let start = Instant::now();
        let mut clients: Vec<Client> = (0..300).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(GET);
        }
        for client in &mut clients {
            client.reads_head();
            client.reads(FIRST_CHUNK);
        }
        // Not how fast, but that none starves: one that does gets its first byte when another one leaves.
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(publisher.publish("hello").subscribers(), 300, "round {round}");
        for client in &mut clients {
            client.reads("0000000d\r\ndata: hello\n\n\r\n");
        }
        publisher.close();
        for client in &mut clients {
            client.reads(LAST_CHUNK);
        }
    }
}

/// The first `curl -N` shows an event: the stream is there before the event is published.
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
    for text in [include_str!("../../../README.md"), include_str!("../../../src/lib.rs")] {
        let code: Vec<&str> = text.lines().map(|line| line.trim_start_matches("//!").trim()).collect();
        assert!(code.windows(3).any(|code| code == lines), "the program in the documentation is another one");
    }
}

#[test]
fn a_server_that_is_dropped_gives_its_port_back() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr();
    assert!(Server::bind(address).is_err(), "two servers on one port");
    drop(server);
    eventually("the port is free", || Server::bind(address).is_ok());
}

#[test]
fn the_server_is_a_tiny_http_server() {
    let server = Server::bind("[::1]:0").or_else(|_| Server::bind("127.0.0.1:0")).unwrap();
    assert_eq!(server.get_ref().server_addr().to_ip(), Some(server.local_addr()));
    assert!(server.try_recv().unwrap().is_none());
    assert!(server.recv_timeout(Duration::from_millis(1)).unwrap().is_none());
    let mut client = Client::connect(server.local_addr());
    client.send(GET);
    let request = server.recv_timeout(PATIENCE).unwrap().expect("a request");
    request.respond(Response::from_string("plain")).unwrap();
    client.reads_until("plain");
    server.unblock();
    assert_eq!(server.incoming_requests().count(), 0);
}

/// A server that serves on this many threads, and whose end is awaited.
fn serve(threads: usize, handler: impl Fn(Request) -> io::Result<()> + Sync, client: impl FnOnce(&Server)) {
    let server = Server::bind("127.0.0.1:0").unwrap();
    thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(threads, &handler));
        client(&server);
        server.stop_handle().stop();
        serving.join().unwrap().unwrap();
    });
    assert!(server.try_recv().unwrap().is_none());
    assert!(server.recv_timeout(Duration::from_millis(1)).unwrap().is_none(), "the stop has reached all threads");
}

#[test]
fn serving_answers_on_several_threads_until_it_is_stopped() {
    let _watchdog = Watchdog::new("serving", PATIENCE);
    let barrier = Barrier::new(3);
    let answer = |request: Request| {
        barrier.wait();
        request.respond(Response::from_string("all three"))
    };
    serve(3, answer, |server| {
        let mut clients = [(); 3].map(|()| Client::connect(server.local_addr()));
        for client in &mut clients {
            client.send(GET);
        }
        for client in &mut clients {
            client.reads_until("all three");
        }
    });
}

#[test]
fn a_handler_that_runs_when_the_server_is_stopped_is_waited_for() {
    let _watchdog = Watchdog::new("a handler that runs", PATIENCE);
    let (gate, opened) = bounded(0);
    let (calls, called) = bounded(1);
    let answer = |request: Request| {
        calls.send(()).unwrap();
        opened.recv().unwrap();
        request.respond(Response::from_string("answered"))
    };
    let server = Server::bind("127.0.0.1:0").unwrap();
    thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(1, answer));
        let mut client = Client::connect(server.local_addr());
        client.send(GET);
        called.recv().unwrap();
        server.stop_handle().stop();
        gate.send(()).unwrap();
        client.reads_until("answered");
        serving.join().unwrap().unwrap();
    });
}

#[test]
fn a_handler_that_panics_or_fails_costs_its_request_and_no_thread() {
    let _watchdog = Watchdog::new("a handler that panics", PATIENCE);
    let answer = |request: Request| match request.url() {
        "/panic" => panic!("on purpose"),
        "/fail" => Err(io::Error::other("on purpose")),
        _ => request.respond(Response::from_string("answered")),
    };
    serve(1, answer, |server| {
        for path in ["/panic", "/fail"] {
            let mut client = Client::connect(server.local_addr());
            client.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert_eq!(client.reads_head().status(), "HTTP/1.1 500 Internal Server Error");
        }
        let mut client = Client::connect(server.local_addr());
        client.send(GET);
        client.reads_until("answered");
    });
}

#[test]
fn no_threads_cannot_serve() {
    let error = Server::bind("127.0.0.1:0").unwrap().serve(0, |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "`threads` must be greater than 0");
}

#[test]
fn a_stop_may_come_early_often_or_late() {
    let _watchdog = Watchdog::new("a stop", PATIENCE);
    let server = Server::bind("127.0.0.1:0").unwrap();
    let stop_handle = server.stop_handle();
    stop_handle.stop();
    stop_handle.clone().stop();
    server.serve(2, |_| Ok(())).unwrap();
    server.serve(2, |_| Ok(())).unwrap();
    let address = server.local_addr();
    drop(server);
    stop_handle.stop();
    eventually("the port is free", || Server::bind(address).is_ok());
}

#[test]
fn bind_rejects_a_bad_address_with_the_reason() {
    assert!(Server::bind("300.0.0.1:0").is_err());
    assert!(Server::bind("127.0.0.1").is_err());
    assert!(Server::bind(&[][..]).unwrap_err().to_string().contains("resolves to nothing"));
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
    healthy.reads("0000000d\r\ndata: hello\n\n\r\n");
    drop(release);
}
