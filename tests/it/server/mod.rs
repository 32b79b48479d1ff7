//! EventServer: what it answers, whom it turns away, and how it ends.

// Processes whose descriptors and threads are limited as on Linux.
#[cfg(target_os = "linux")]
mod few_descriptors;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))] // it takes away address space
mod few_threads;
mod policy;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::http::{Client, FIRST_CHUNK, GET, HELLO_CHUNK, LAST_CHUNK};
use crate::common::server::{Said, opened, said, send, serve, streams};
use crate::common::{PATIENCE, eventually};
use server_sent_events::server::{EventServer, Request, Response, RunningServer};
use server_sent_events::{Event, Publisher, Shutdown};

/// A server whose closure this is.
#[track_caller]
fn answers(closure: impl Fn(&Request) -> Response + Send + Sync + 'static) -> RunningServer {
    EventServer::bind("127.0.0.1:0").unwrap().spawn(closure).unwrap()
}

/// What a server says to a GET when its closure answers so.
#[track_caller]
fn answered(closure: impl Fn() -> Response + Send + Sync + 'static) -> Said {
    said(answers(move |_| closure()).local_addr(), GET)
}

/// What the closure sees of this request.
#[track_caller]
fn seen<T: Send + 'static>(request: &str, look: impl Fn(&Request) -> T + Send + Sync + 'static) -> T {
    let (sees, sight) = channel();
    let sees: Mutex<Sender<T>> = Mutex::new(sees);
    let server = answers(move |request| {
        sees.lock().unwrap().send(look(request)).unwrap();
        Response::do_not_reconnect()
    });
    assert_eq!(said(server.local_addr(), request).status, 204);
    sight.recv().unwrap()
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

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
        || Response::status(404, "nothing here"),
        || Response::status(42, ""),
        || panic!("as it should"),
    ] as [fn() -> Response; 5]
    {
        let server = answers(move |_| answer());
        said(server.local_addr(), "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    let server = answers(|_| Response::do_not_reconnect());
    assert_eq!(said(server.local_addr(), "HEAD / HTTP/1.1\r\nHost: example.org\r\n\r\n").status, 403);
}

#[test]
fn do_not_reconnect_is_204() {
    assert_eq!(answered(Response::do_not_reconnect).status, 204);
}

#[test]
fn a_status_comes_with_its_text() {
    let said = answered(|| Response::status(404, "there is /news: \u{e4}"));
    assert_eq!((said.status, &*said.body), (404, "there is /news: \u{e4}\n"));
    assert_eq!(said.header("Content-Type"), Some("text/plain; charset=utf-8"));
}

#[test]
fn unusual_statuses_are_well_formed() {
    for status in [200, 204, 205, 304, 418, 451, 599] {
        assert_eq!(answered(move || Response::status(status, "text")).status, status);
    }
    for none in [0, 99, 100, 101, 199, 600, 1_000, u16::MAX] {
        assert_eq!(answered(move || Response::status(none, "text")).status, 500, "{none}");
    }
    assert_eq!(answered(|| Response::status(404, "")).body, "");
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
    // More than there are threads that answer.
    for _ in 0..10 {
        assert_eq!(said(server.local_addr(), get("/panic")).status, 500);
    }
    publisher.publish("hello");
    healthy.reads(HELLO_CHUNK);
    opened(server.local_addr());
}

#[test]
fn the_path_and_the_query_are_decoded() {
    let look = |request: &Request| {
        let query: Vec<(String, String)> = request.query().collect();
        (request.path().to_owned(), query, request.query_value("b"), request.query_value("c"))
    };
    let (path, query, second, none) = seen(&get("/a%20b/%C3%A4?a=1%202&b=x+y&b=z&d"), look);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(path, "/a b/\u{e4}");
    assert_eq!(query, [pair("a", "1 2"), pair("b", "x y"), pair("b", "z"), pair("d", "")]);
    assert_eq!((second.as_deref(), none), (Some("x y"), None));
}

#[test]
fn an_absolute_target_is_its_path() {
    let ask = |target: &str| seen(&get(target), |request| (request.path().to_owned(), request.query_value("q")));
    for (target, path, query) in [
        ("http://localhost/a?q=1", "/a", Some("1")),
        ("https://localhost/a", "/a", None),
        ("HTTP://LOCALHOST/a", "/a", None),
        ("http://localhost", "/", None),
        ("http://localhost?q=/b", "/", Some("/b")),
        ("/http://localhost/a", "/http://localhost/a", None),
    ] {
        assert_eq!(ask(target), (path.to_owned(), query.map(str::to_owned)), "{target}");
    }
}

#[test]
fn headers_are_found_in_whatever_case() {
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nX-One: 1\r\nx-one: 2\r\nX-Odd:  a\u{e4}\t \r\n\r\n";
    let look = |request: &Request| {
        let all = request.headers().count();
        (all, ["X-ONE", "x-odd", "x-two"].map(|name| request.header(name).map(str::to_owned)))
    };
    let found = ["1", "a\u{e4}"].map(|value| Some(value.to_owned()));
    assert_eq!(seen(request, look), (4, [found[0].clone(), found[1].clone(), None]));
}

#[test]
fn headers_that_are_not_utf_8_are_read_as_far_as_they_are() {
    let (sees, sight) = channel();
    let sees = Mutex::new(sees);
    let server = answers(move |request| {
        sees.lock().unwrap().send(request.last_event_id().map(str::to_owned)).unwrap();
        Response::do_not_reconnect()
    });
    let ask = |value: &[u8]| {
        let request = [b"GET / HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: ", value, b"\r\n\r\n"].concat();
        assert_eq!(said(server.local_addr(), request).status, 204);
        sight.recv().unwrap().unwrap()
    };
    assert_eq!(ask("\u{e4}".as_bytes()), "\u{e4}");
    assert_eq!(ask(b"a\xffb"), "a\u{fffd}b");
}

#[test]
fn the_peer_is_the_address_of_the_client() {
    let (sees, sight) = channel();
    let sees = Mutex::new(sees);
    let server = answers(move |request| {
        sees.lock().unwrap().send(request.peer_addr()).unwrap();
        Response::do_not_reconnect()
    });
    let mut client = Client::connect(server.local_addr());
    let own = client.address();
    client.send(GET);
    assert_eq!(sight.recv().unwrap(), own);
}

#[test]
fn a_request_has_its_method() {
    let look = |request: &Request| request.method().to_owned();
    assert_eq!(seen(GET, look), "GET");
    assert_eq!(seen("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n", look), "HEAD");
}

#[test]
fn closures_that_block_hold_up_no_stream() {
    let publisher = Publisher::new();
    let (streams, open) = (publisher.clone(), Arc::new(AtomicBool::new(false)));
    let gate = Arc::clone(&open);
    let server = answers(move |request| {
        if request.path() == "/slow" {
            eventually("the gate is open", || gate.load(SeqCst));
        }
        streams.subscription(()).open().into()
    });
    let mut healthy = opened(server.local_addr());
    let mut slow: Vec<Client> = (0..8).map(|_| send(server.local_addr(), get("/slow"))).collect();
    for _ in 0..20 {
        publisher.publish("hello");
        healthy.reads(HELLO_CHUNK);
    }
    // What needs no closure is answered all the same.
    assert_eq!(said(server.local_addr(), "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 405);
    open.store(true, SeqCst);
    for client in &mut slow {
        client.reads_until(FIRST_CHUNK);
    }
}

#[test]
fn a_closure_that_blocks_for_one_stream_holds_up_no_other() {
    let publisher = Publisher::builder().heartbeat(None).build().unwrap();
    let streams = publisher.clone();
    let server =
        answers(move |request| streams.subscription(()).channels(request.path().trim_start_matches('/')).open().into());
    let watch = |path| {
        let mut client = send(server.local_addr(), get(path));
        client.reads_until(FIRST_CHUNK);
        client
    };
    let (mut slow, mut others) = (watch("/slow"), (0..40).map(|_| watch("/others")).collect::<Vec<_>>());
    for round in 0..20 {
        let (opens, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        // The slow one comes last, so whoever writes to others comes upon it among them.
        publisher.publish_to("others", "hello");
        publisher.publish_with("slow", move |()| {
            gate.lock().unwrap().recv_timeout(2 * PATIENCE).ok()?;
            Some(Event::new(round.to_string()))
        });
        for client in &mut others {
            client.reads(HELLO_CHUNK);
        }
        opens.send(()).unwrap();
        slow.reads_until(&format!("data: {round}\n\n\r\n"));
    }
}

#[test]
fn a_lifetime_that_is_over_while_a_closure_blocks_ends_all_the_same() {
    let publisher = Publisher::builder().heartbeat(None).max_writer_threads(1).build().unwrap();
    let streams = publisher.clone();
    let lifetime = Duration::from_millis(100);
    let server = answers(move |request| match request.path() {
        "/mortal" => streams.subscription(()).channels("mortal").max_lifetime(lifetime).open().into(),
        _ => streams.subscription(()).channels("slow").open().into(),
    });
    let open = |path| {
        let mut client = send(server.local_addr(), get(path));
        client.reads_until(FIRST_CHUNK);
        client
    };
    let (_slow, mut mortal) = (open("/slow"), open("/mortal"));
    // The only thread is told of the end while it is in here, and asked for nothing afterwards.
    publisher.publish_with("slow", move |()| {
        thread::sleep(3 * lifetime);
        None
    });
    mortal.reads(LAST_CHUNK);
    assert_eq!(publisher.stats().ended.expired, 1);
}

#[test]
fn a_client_that_leaves_while_the_closure_looks_at_it_is_no_subscriber() {
    let publisher = Publisher::builder().heartbeat(None).build().unwrap();
    let (streams, open) = (publisher.clone(), Arc::new(AtomicBool::new(false)));
    let (asks, asked) = channel();
    let (gate, asks) = (Arc::clone(&open), Mutex::new(asks));
    let server = answers(move |_| {
        asks.lock().unwrap().send(()).unwrap();
        eventually("the gate is open", || gate.load(SeqCst));
        streams.subscription(()).open().into()
    });
    let ask = || {
        let client = send(server.local_addr(), GET);
        asked.recv().unwrap();
        client
    };
    drop(ask());
    ask().resets();
    let mut sends_more = ask();
    sends_more.send("x");
    open.store(true, SeqCst);
    eventually("all have come and gone", || publisher.stats().ended.connection_lost == 3);
    assert_eq!(publisher.stats().subscribers, 0);
    sends_more.reads_all_there_is();
}

/// The streams that this server lets in, of five that ask.
fn let_in(server: &RunningServer) -> usize {
    let asked: Vec<(Client, String)> = (0..5)
        .map(|_| {
            let mut client = send(server.local_addr(), GET);
            client.reads_head();
            let first = client.reads_until("\n");
            (client, first)
        })
        .collect();
    asked.iter().filter(|(_, first)| !first.starts_with(": busy")).count()
}

#[test]
fn above_max_streams_clients_are_sent_a_retry_time() {
    let publisher = Publisher::new();
    let server = serve(EventServer::builder().max_streams(3), &publisher);
    assert_eq!(let_in(&server), 3);
    eventually("they have left", || publisher.stats().subscribers == 0);
    eventually("there is room again", || let_in(&server) == 3);
}

#[test]
fn above_max_streams_per_ip_that_client_is_sent_a_retry_time() {
    let publisher = Publisher::new();
    let server = serve(EventServer::builder().max_streams_per_ip(2), &publisher);
    let _first = opened(server.local_addr());
    assert_eq!(let_in(&server), 1);
    // Another address of the loopback has room of its own.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    socket.connect(&server.local_addr().into()).unwrap();
    let mut other = Client::on(socket.into());
    other.send(GET);
    other.reads_until(FIRST_CHUNK);
}

#[test]
fn a_stream_that_has_ended_occupies_no_slot() {
    let publisher = Publisher::new();
    let server = serve(EventServer::builder().max_streams(1), &publisher);
    let clients = [(); 3].map(|()| {
        let mut client = opened(server.local_addr());
        publisher.close();
        client.reads(LAST_CHUNK);
        client.reads_the_end();
        client
    });
    // They closed only now, not when their streams ended.
    drop(clients);
}

#[test]
fn stop_delivers_queued_events_ends_streams_and_frees_the_port() {
    let publisher = Publisher::new();
    let server = streams(&publisher);
    let address = server.local_addr();
    let clients = [(); 3].map(|()| opened(address));
    let half = send(address, "GET / HT");
    publisher.publish("bye");
    thread::scope(|threads| {
        for mut client in clients {
            threads.spawn(move || {
                client.reads(&format!("0000000b\r\ndata: bye\n\n\r\n{LAST_CHUNK}"));
                client.reads_the_end();
            });
        }
        server.stop().unwrap();
    });
    drop(half);
    assert_eq!(publisher.stats().subscribers, 0);
    EventServer::bind(address).unwrap();
    // The publisher goes on.
    assert!(publisher.subscribe().is_ok());
}

#[test]
fn dropping_a_running_server_stops_it() {
    let publisher = Publisher::new();
    let server = streams(&publisher);
    let mut client = opened(server.local_addr());
    // The client closes when it has read the end: otherwise the server would wait for that.
    let reads = thread::spawn(move || {
        client.reads(LAST_CHUNK);
        client.reads_the_end();
    });
    drop(server);
    reads.join().unwrap();
}

#[test]
fn serve_blocks_until_it_is_stopped() {
    let server = EventServer::bind("127.0.0.1:0").unwrap();
    let (address, stop_handle) = (server.local_addr(), server.stop_handle());
    let thread = thread::spawn(move || server.serve(|_| Response::do_not_reconnect()));
    assert_eq!(said(address, GET).status, 204);
    stop_handle.stop();
    stop_handle.stop();
    thread.join().unwrap().unwrap();
    stop_handle.stop();
}

#[test]
fn a_server_that_was_stopped_before_it_serves_serves_nobody() {
    let server = EventServer::bind("127.0.0.1:0").unwrap();
    server.stop_handle().stop();
    server.serve(|_| Response::do_not_reconnect()).unwrap();
}

#[test]
fn a_request_whose_closure_runs_when_it_stops_is_answered() {
    let publisher = Publisher::new();
    let (streams, open) = (publisher.clone(), Arc::new(AtomicBool::new(false)));
    let (asks, asked) = channel();
    let (gate, asks) = (Arc::clone(&open), Mutex::new(asks));
    let server = answers(move |_| {
        asks.lock().unwrap().send(()).unwrap();
        eventually("the gate is open", || gate.load(SeqCst));
        streams.subscription(()).initial_data(["hello"]).open().into()
    });
    let mut client = send(server.local_addr(), GET);
    asked.recv().unwrap();
    server.stop_handle().stop();
    open.store(true, SeqCst);
    client.reads_head();
    client.reads_until("data: hello\n\n\r\n0\r\n\r\n");
    client.reads_the_end();
}

#[test]
fn a_publisher_shuts_down_and_then_the_server_stops() {
    let publisher = Publisher::new();
    let server = streams(&publisher);
    let mut client = opened(server.local_addr());
    let shutdown = Shutdown::new(PATIENCE).farewell(Event::new("back soon").event("restart").unwrap());
    assert_eq!(publisher.shutdown_with(shutdown), 0);
    client.reads_until("event: restart\ndata: back soon\n\nretry: ");
    client.reads_until(LAST_CHUNK);
    client.reads_the_end();
    drop(client);
    // Who comes now is told to come back.
    assert!(said(server.local_addr(), GET).body.starts_with(": busy\n"));
    server.stop().unwrap();
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |settings: server_sent_events::server::EventServerBuilder| {
        let error = settings.bind("127.0.0.1:0").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        error.to_string()
    };
    let new = EventServer::builder;
    assert_eq!(refused(new().max_streams(0)), "`max_streams` must be greater than 0");
    refused(new().max_streams_per_ip(0));
    refused(new().handler_threads(0));
    refused(new().write_timeout(Duration::ZERO));
    refused(new().header_read_timeout(Duration::ZERO));
    for origin in ["*", "null", "", "example.org", "https://", "https://a/", "https://a b", "https://a\r\nX: y"] {
        assert!(refused(new().allow_origin(origin)).starts_with("invalid origin "), "{origin}");
    }
    for host in ["", "http://example.org", "example.org:8080", "example.org/", "exa mple.org", "::1", "[::1", "1.2.3"] {
        assert!(refused(new().allow_host(host)).starts_with("invalid host "), "{host}");
    }
    for host in ["Example.org", "127.0.0.1", "[::1]", "localhost", "my_host."] {
        assert!(new().allow_host(host).bind("127.0.0.1:0").is_ok(), "{host}");
    }
    assert!(EventServer::bind("300.0.0.1:0").is_err());
}

#[test]
fn two_servers_share_no_port_but_may_share_a_publisher() {
    let publisher = Publisher::new();
    let (one, other) = (streams(&publisher), streams(&publisher));
    assert!(EventServer::bind(one.local_addr()).is_err());
    let (mut first, mut second) = (opened(one.local_addr()), opened(other.local_addr()));
    publisher.publish("hello");
    for client in [&mut first, &mut second] {
        client.reads(HELLO_CHUNK);
    }
    let ends = thread::spawn(move || {
        first.reads(LAST_CHUNK);
        first.reads_the_end();
    });
    drop(one);
    ends.join().unwrap();
    publisher.publish("hello");
    second.reads(HELLO_CHUNK);
}
