//! Event streams as answers to requests of rouille, byte by byte and with a real client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::example::Example;
use crate::common::http::{Client, Events};
use crate::common::{PATIENCE, bodies, eventually};
use rouille::{Request, Response};
use server_sent_events::adapter::rouille::{last_event_id, read_body, respond_busy, respond_busy_with_headers, server};
use server_sent_events::{BodyError, History, Publisher, PublisherBuilder, ResponseHeaders};

/// A server whose requests are answered by this function, stopped at the end.
struct Server {
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
    stops: Arc<AtomicBool>,
}

impl Server {
    fn new(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::with_pool(64, answer)
    }

    fn with_pool(threads: usize, answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let server = server("127.0.0.1:0", answer).unwrap().pool_size(threads);
        let address = server.server_addr();
        let stops = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stops);
        // `stoppable` would look only once a second whether it is to stop.
        let thread = std::thread::spawn(move || {
            while !is_stopped.load(SeqCst) {
                server.poll_timeout(Duration::from_millis(10));
            }
        });
        Self { address, thread: Some(thread), stops }
    }

    /// A server that answers every request with a stream of the default channel as a body.
    fn bodies(publisher: &Publisher) -> Self {
        let publisher = publisher.clone();
        Self::new(move |request| match publisher.subscription(()).last_event_id(last_event_id(request)).open() {
            Ok(subscription) => subscription.into_rouille(),
            Err(_full) => respond_busy(Duration::from_secs(5)),
        })
    }

    /// The same with connections that are taken over, and a pool of one thread.
    fn upgrades(publisher: &Publisher) -> Self {
        let publisher = publisher.clone();
        Self::with_pool(1, move |request| match request.url().as_str() {
            "/page" => Response::text("page"),
            _ => publisher.subscribe().unwrap().into_rouille_upgrade(request),
        })
    }

    fn send(&self, request: &str) -> Client {
        let mut client = Client::connect(self.address);
        client.send(request);
        client
    }

    fn events(&self, path: &str) -> Events {
        Events::get(&format!("http://{}{path}", self.address))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stops.store(true, SeqCst);
        // A stream that is still running would keep it for ever.
        let thread = self.thread.take();
        if !std::thread::panicking() {
            thread.unwrap().join().unwrap();
        }
    }
}

/// Without heartbeats, which would push through what got stuck.
fn builder() -> PublisherBuilder<()> {
    Publisher::builder().heartbeat(None)
}

fn publisher() -> Publisher {
    builder().build().unwrap()
}

/// The next event, without what is filled in.
fn next_event(events: &mut Events) -> Option<String> {
    loop {
        let frame = events.next_frame()?;
        let filling = frame.starts_with(": ") || frame == "\n";
        if !filling {
            return Some(frame.trim_start_matches(['\n']).to_owned());
        }
    }
}

#[track_caller]
fn gets(events: &mut Events, frame: &str) {
    assert_eq!(next_event(events).as_deref(), Some(frame));
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn the_head_and_the_first_comment_come_at_once() {
    let publisher = publisher();
    let server = Server::bodies(&publisher);
    let mut client = server.send(GET);
    let head = client.reads_head();
    assert_eq!(head.status(), "HTTP/1.1 200 OK");
    for (name, value) in [
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("Cache-Control", "no-cache, no-transform"),
        ("X-Accel-Buffering", "no"),
        ("Content-Encoding", "identity"),
        ("Transfer-Encoding", "chunked"),
    ] {
        assert_eq!(head.values(name), [value], "{name}");
    }
    client.reads("2000\r\n:\n");
    publisher.close();
}

#[test]
fn each_event_arrives_without_waiting_for_the_next_and_the_end_is_seen() {
    let publisher = publisher();
    let server = Server::bodies(&publisher);
    let start = Instant::now();
    let mut events = server.events("/");
    gets(&mut events, ":\n");
    println!("first byte after {:?}", start.elapsed());
    for n in 0..20 {
        let start = Instant::now();
        publisher.publish(n.to_string());
        gets(&mut events, &format!("data: {n}\n\n"));
        println!("event {n} after {:?}", start.elapsed());
    }
    publisher.publish("last");
    publisher.close();
    gets(&mut events, "data: last\n\n");
    assert_eq!(next_event(&mut events), None);
}

#[test]
fn a_client_that_reconnects_misses_nothing() {
    let publisher = builder().history(History::new()).build().unwrap();
    let first = publisher.publish("seen").id().unwrap().to_owned();
    publisher.publish("missed");
    let server = Server::bodies(&publisher);
    let mut client = server.send(&format!("GET / HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {first}\r\n\r\n"));
    client.reads_until(&format!(":\nid: {first}\n\ndata: missed\nid: "));
    let mut events = server.events(&format!("/?lastEventId={first}"));
    gets(&mut events, ":\n");
    gets(&mut events, &format!("id: {first}\n\n"));
    assert!(next_event(&mut events).unwrap().starts_with("data: missed\n"));
    publisher.close();
}

#[test]
fn head_gets_the_head_alone_and_leaves_no_subscriber_behind() {
    let publisher = publisher();
    let server = Server::bodies(&publisher);
    let mut client = server.send("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(client.reads_head().values("Content-Type"), ["text/event-stream; charset=utf-8"]);
    client.reads_the_end();
    eventually("the subscriber has gone", || publisher.stats().subscribers == 0);

    let server = Server::upgrades(&publisher);
    let mut client = server.send("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(client.reads_head().values("Content-Type"), ["text/event-stream; charset=utf-8"]);
    client.reads_the_end();
    eventually("the subscriber has gone", || publisher.stats().subscribers == 0);
}

/// HTTP/1.0 knows no chunks, so the server wants to know the length before it sends a byte.
#[test]
fn a_client_without_chunks_gets_queued_events_and_reconnects_for_more() {
    let publisher = builder().history(History::new()).build().unwrap();
    let server = Server::bodies(&publisher);
    let mut id = publisher.last_event_id().unwrap();
    for n in 0..3 {
        publisher.publish(n.to_string());
        for version in ["HTTP/1.0\r\n", "HTTP/1.1\r\nConnection: close\r\nTE: identity\r\n"] {
            let mut client = server.send(&format!("GET / {version}Host: x\r\nLast-Event-ID: {id}\r\n\r\n"));
            assert_eq!(client.reads_head().values("Transfer-Encoding"), [""; 0]);
            client.reads(&format!(":\nid: {id}\n\ndata: {n}\nid: "));
            let newest = publisher.last_event_id().unwrap();
            client.reads(&format!("{newest}\n\n"));
            client.reads_the_end();
        }
        id = publisher.last_event_id().unwrap();
    }
    eventually("the subscribers have gone", || publisher.stats().subscribers == 0);
}

#[test]
fn compression_leaves_the_stream_alone() {
    let publisher = publisher();
    let from = publisher.clone();
    let server =
        Server::new(move |request| rouille::content_encoding::apply(request, from.subscribe().unwrap().into_rouille()));
    let mut client = server.send("GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip, br\r\n\r\n");
    assert_eq!(client.reads_head().values("Content-Encoding"), ["identity"]);
    client.reads("2000\r\n:\n");
    publisher.close();
}

#[test]
fn the_application_adds_headers() {
    let publisher = publisher();
    let headers = ResponseHeaders::new().with("Access-Control-Allow-Origin", "https://example.org").unwrap();
    let headers = headers.with("Cache-Control", "no-store").unwrap();
    let response = publisher.subscribe().unwrap().into_rouille_with_headers(&headers);
    let values = |name: &str| -> Vec<_> {
        response.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| &**value).collect()
    };
    assert_eq!(values("Access-Control-Allow-Origin"), ["https://example.org"]);
    assert_eq!(values("Cache-Control"), ["no-store"]);
}

#[test]
fn a_reached_limit_is_answered_with_a_retry_time() {
    let publisher = builder().max_subscribers(1).build().unwrap();
    let server = Server::bodies(&publisher);
    let _inside = publisher.subscribe().unwrap();
    let mut events = server.events("/");
    let frame = events.next_frame().unwrap();
    assert!(frame.starts_with(": busy\nretry: "), "{frame}");
    events.ends();
}

/// Without its CORS headers a browser hides a response from a page of another origin, which then never comes back.
#[test]
fn headers_for_the_stream_are_on_the_refusal_too() {
    let publisher = builder().max_subscribers(1).max_channel_name_len(9).build().unwrap();
    let headers = ResponseHeaders::new().with("Access-Control-Allow-Origin", "https://example.org").unwrap();
    let respond = |channel: &str| {
        let request = Request::fake_http("GET", "/", vec![], vec![]);
        publisher.subscription(()).channels([channel]).respond_to_with_headers(&request, &headers)
    };
    let responses = [
        (respond("too long for it"), 400, "text/plain; charset=utf-8"),
        (respond("stream"), 200, "text/event-stream; charset=utf-8"),
        (respond_busy_with_headers(Duration::from_secs(1), &headers), 200, "text/event-stream; charset=utf-8"),
    ];
    // The first stream is still there.
    let full = (respond("stream"), 200, "text/event-stream; charset=utf-8");
    assert_eq!(publisher.stats().subscriptions_refused, 2);
    for (response, status, content_type) in responses.into_iter().chain([full]) {
        let values = |name: &str| -> Vec<_> {
            response.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| &**value).collect()
        };
        assert_eq!(response.status_code, status);
        assert_eq!(values("Content-Type"), [content_type]);
        assert_eq!(values("Access-Control-Allow-Origin"), ["https://example.org"]);
    }
}

#[test]
fn a_bad_request_is_answered_so_that_no_browser_reconnects() {
    let publisher = builder().max_channel_name_len(5).build().unwrap();
    let server = Server::new(move |request| publisher.subscription(()).channels([request.url()]).respond_to(request));
    let mut client = server.send("GET /too/long HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(client.reads_head().status(), "HTTP/1.1 400 Bad Request");
    client.reads("channel name too long (9 bytes): use at most 5");
}

/// A server that sends back each body it reads.
fn echoes() -> Server {
    Server::new(|request| match read_body(request, bodies::MAX_BODY) {
        Ok(body) => Response::text(String::from_utf8(body).unwrap()),
        Err(error) => Response::text(error.to_string()).with_status_code(error.status()),
    })
}

#[test]
fn a_body_is_read_whole_or_rejected() {
    let server = echoes();
    let connect = || Client::connect(server.address);
    bodies::are_read_to_their_announced_length(connect);
    bodies::that_end_early_are_rejected(connect);
    bodies::of_no_valid_length_are_rejected(connect);
    bodies::are_asked_for_if_the_client_waits_for_that(connect);
}

#[test]
fn a_body_that_was_taken_is_not_mistaken_for_an_empty_one() {
    let headers = vec![("Content-Length".into(), "5".into())];
    let request = Request::fake_http("POST", "/", headers, b"hello".to_vec());
    assert_eq!(read_body(&request, 5), Ok(b"hello".to_vec()));
    let error = read_body(&request, 5).unwrap_err();
    assert_eq!((error.status(), error), (500, BodyError::AlreadyTaken));
}

#[test]
fn the_last_event_id_is_found_in_the_header_or_in_the_query() {
    let id = |target: &str, headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        last_event_id(&Request::fake_http("GET", target, headers, vec![]))
    };
    assert_eq!(id("/", &[]), None);
    assert_eq!(id("/", &[("last-event-id", "7-1")]).as_deref(), Some("7-1"));
    assert_eq!(id("/?a=b&lastEventId=7%2D1=&x", &[]).as_deref(), Some("7-1="));
    assert_eq!(id("/?lastEventId=2", &[("Last-Event-ID", "1")]).as_deref(), Some("1"));
    assert_eq!(id("/?lastEventId=2", &[("Last-Event-ID", "")]).as_deref(), Some("2"));
    assert_eq!(id("/?lastEventId=", &[]), None);
}

#[test]
fn an_upgrade_holds_no_thread_and_adds_no_byte() {
    let publisher = publisher();
    let server = Server::upgrades(&publisher);
    let mut clients: Vec<Client> = (0..10).map(|_| server.send(GET)).collect();
    for client in &mut clients {
        assert_eq!(client.reads_head().values("Content-Type"), ["text/event-stream; charset=utf-8"]);
        client.reads(":\n");
    }
    // The one thread of the pool answers others meanwhile.
    server.send("GET /page HTTP/1.1\r\nHost: x\r\n\r\n").reads_until("page");
    for n in 0..20 {
        publisher.publish(n.to_string());
        for client in &mut clients {
            client.reads(&format!("data: {n}\n\n"));
        }
    }
    publisher.close();
    eventually("the streams have ended", || publisher.stats().subscribers == 0);
}

#[test]
fn a_client_that_asked_for_connection_close_sees_the_end_of_an_upgrade() {
    let publisher = publisher();
    let server = Server::upgrades(&publisher);
    let mut clients = ["HTTP/1.1\r\nHost: x\r\nConnection: close", "HTTP/1.0"]
        .map(|version| server.send(&format!("GET / {version}\r\n\r\n")));
    for client in &mut clients {
        client.reads_until(":\n");
    }
    let mut keeps_alive = server.send(GET);
    keeps_alive.reads_until(":\n");
    publisher.publish("last");
    publisher.close();
    for client in &mut clients {
        client.reads("data: last\n\n");
        client.reads_the_end();
    }
    // The others have no sign of it: their connection goes on, and answers what comes next.
    keeps_alive.reads("data: last\n\n");
    keeps_alive.send("GET /page HTTP/1.1\r\nHost: x\r\n\r\n");
    keeps_alive.reads("HTTP/1.1 200 OK\r\n");
}

#[test]
fn the_example_shows_each_visit_to_every_viewer() {
    let visits = Example::start("rouille");
    let page = || ureq::get(&visits.url).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(page().contains("<!doctype html>"));
    let mut viewers = [(); 2].map(|()| Events::get(&format!("{}/visits", visits.url)));
    for viewer in &mut viewers {
        gets(viewer, ":\n");
        gets(viewer, "data: 1 visits so far\n\n");
    }
    page();
    for viewer in &mut viewers {
        gets(viewer, "data: visit number 2\n\n");
    }
}

/// Counted in a process of its own: rouille's threads have no names.
#[cfg(target_os = "linux")]
#[test]
fn clients_that_leave_and_streams_that_close_give_back_their_threads() {
    let visits = Example::start("rouille");
    let count = |what| std::fs::read_dir(format!("/proc/{}/{what}", visits.process.id())).unwrap().count();
    let connect = || {
        let mut client = visits.connect();
        client.send("GET /visits HTTP/1.1\r\nHost: x\r\n\r\n");
        client.reads_until(":\n");
        client
    };
    let before = (count("task"), count("fd"));
    let clients: Vec<Client> = (0..50).map(|_| connect()).collect();
    // Some of those that wait for connections are there already.
    assert!(count("task") >= before.0 + 90, "two for each: {}", count("task"));
    for (n, client) in clients.into_iter().enumerate() {
        if n % 2 == 0 { client.resets() } else { drop(client) }
    }
    // Each visit is an event, and an event is what finds out that a client has gone.
    let mut visitor = visits.connect();
    eventually("the connections are closed", || {
        visitor.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        visitor.reads_until("</html>\n");
        count("fd") <= before.1 + 2
    });
    // The server's own stay for five seconds, for connections to come; some of them for good.
    eventually("the threads have ended", || count("task") <= before.0 + 4);
}

#[test]
fn a_client_that_does_not_read_is_ended_and_its_queue_given_back() {
    let publisher = builder().max_queued_events(100).build().unwrap();
    let server = Server::bodies(&publisher);
    let mut stalled = server.send(GET);
    stalled.reads_until(":\n");
    let mut healthy = server.events("/");
    gets(&mut healthy, ":\n");
    let data = "x".repeat(100_000);
    let start = Instant::now();
    while publisher.stats().ended.queue_full == 0 {
        assert!(start.elapsed() < PATIENCE, "the stalled client was not ended");
        publisher.publish(&data);
        gets(&mut healthy, &format!("data: {data}\n\n"));
    }
    assert_eq!(publisher.stats().subscribers, 1);
    publisher.publish("still here");
    gets(&mut healthy, "data: still here\n\n");
    // Its thread waits in the write until the connection ends.
    stalled.resets();
    publisher.close();
}
