//! What is specific to the rouille adapter: a stream is a padded body, or takes over the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::common::eventually;
use crate::common::http::{Client, GET};
use rouille::{Request, Response};
use server_sent_events::adapter::rouille::{last_event_id, read_body, respond_busy, server};
use server_sent_events::{BodyError, History, Publisher, PublisherBuilder};

/// Starts a server that answers its requests with this function on a pool of threads.
pub struct Running {
    pub address: SocketAddr,
    thread: Option<JoinHandle<()>>,
    stops: Arc<AtomicBool>,
}

impl Running {
    pub fn new(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::with_pool(64, answer)
    }

    pub fn with_pool(threads: usize, answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let server = server("127.0.0.1:0", answer).unwrap().pool_size(threads);
        let address = server.server_addr();
        let stops = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stops);
        // `stoppable` would check only once a second whether it must stop.
        let thread = thread::spawn(move || {
            while !is_stopped.load(SeqCst) {
                server.poll_timeout(Duration::from_millis(10));
            }
        });
        Self { address, thread: Some(thread), stops }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stops.store(true, SeqCst);
        // A stream that is still running would keep it forever.
        let thread = self.thread.take();
        if !thread::panicking() {
            thread.unwrap().join().unwrap();
        }
    }
}

/// Starts a server that answers every request with a stream of the default channel as a body.
fn bodies(publisher: &Publisher) -> Running {
    let publisher = publisher.clone();
    Running::new(move |request| match publisher.subscription(()).last_event_id(last_event_id(request)).open() {
        Ok(subscription) => subscription.into_rouille(),
        Err(_full) => respond_busy(Duration::from_secs(5)),
    })
}

/// Starts a server whose streams take over their connections, with a pool of one thread.
fn upgrades(publisher: &Publisher) -> Running {
    let publisher = publisher.clone();
    Running::with_pool(1, move |request| match request.url().as_str() {
        "/page" => Response::text("page"),
        _ => publisher.subscribe().unwrap().into_rouille_upgrade(request),
    })
}

fn send(server: &Running, request: &str) -> Client {
    let mut client = Client::connect(server.address);
    client.send(request);
    client
}

/// Without heartbeats, which would push buffered events through.
fn builder() -> PublisherBuilder<()> {
    Publisher::builder().heartbeat(None)
}

fn publisher() -> Publisher {
    builder().build().unwrap()
}

#[test]
fn head_gets_the_head_of_an_upgrade_alone_and_leaves_no_subscriber_behind() {
    let publisher = publisher();
    let server = upgrades(&publisher);
    let mut client = send(&server, "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(client.reads_head().values("Content-Type"), ["text/event-stream; charset=utf-8"]);
    client.reads_the_end();
    eventually("the subscriber has gone", || publisher.stats().subscribers == 0);
}

/// HTTP/1.0 has no chunks, so the server computes the body's length before it sends a byte.
#[test]
fn a_client_without_chunks_gets_queued_events_and_reconnects_for_more() {
    let publisher = builder().history(History::new()).build().unwrap();
    let server = bodies(&publisher);
    let mut id = publisher.last_event_id().unwrap();
    for n in 0..3 {
        publisher.publish(n.to_string());
        for version in ["HTTP/1.0\r\n", "HTTP/1.1\r\nConnection: close\r\nTE: identity\r\n"] {
            let mut client = send(&server, &format!("GET / {version}Host: x\r\nLast-Event-ID: {id}\r\n\r\n"));
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
fn a_body_is_padded_to_what_the_server_collects_and_compression_leaves_it_alone() {
    let publisher = publisher();
    let streams = publisher.clone();
    let server = Running::new(move |request| {
        let response = streams.subscribe().unwrap().into_rouille();
        if request.url() == "/compressed" { rouille::content_encoding::apply(request, response) } else { response }
    });
    for path in ["/", "/compressed"] {
        let mut client =
            send(&server, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip, br\r\n\r\n"));
        assert_eq!(client.reads_head().values("Content-Encoding"), ["identity"], "{path}");
        client.reads("2000\r\n:\n");
    }
    publisher.close();
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
fn an_upgrade_holds_no_thread_and_adds_no_byte() {
    let publisher = publisher();
    let server = upgrades(&publisher);
    let mut clients: Vec<Client> = (0..10).map(|_| send(&server, GET)).collect();
    for client in &mut clients {
        assert_eq!(client.reads_head().values("Content-Type"), ["text/event-stream; charset=utf-8"]);
        client.reads(":\n");
    }
    // Meanwhile, the only thread of the pool answers other clients.
    send(&server, "GET /page HTTP/1.1\r\nHost: x\r\n\r\n").reads_until("page");
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
    let server = upgrades(&publisher);
    let mut clients = ["HTTP/1.1\r\nHost: x\r\nConnection: close", "HTTP/1.0"]
        .map(|version| send(&server, &format!("GET / {version}\r\n\r\n")));
    for client in &mut clients {
        client.reads_until(":\n");
    }
    let mut keeps_alive = send(&server, GET);
    keeps_alive.reads_until(":\n");
    publisher.publish("last");
    publisher.close();
    for client in &mut clients {
        client.reads("data: last\n\n");
        client.reads_the_end();
    }
    // Without `Connection: close` the client sees no end: its connection stays open, and answers the next request.
    keeps_alive.reads("data: last\n\n");
    keeps_alive.send("GET /page HTTP/1.1\r\nHost: x\r\n\r\n");
    keeps_alive.reads("HTTP/1.1 200 OK\r\n");
}
