//! The adapter's `Server`: it serves on several threads, and stops.

use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use crate::common::http::{Client, GET};
use crate::common::{PATIENCE, Watchdog, eventually, free_address};
use crossbeam_channel::bounded;
use server_sent_events::adapter::tiny_http::Server;
use tiny_http::{Request, Response};

#[test]
fn a_server_that_is_dropped_gives_its_port_back() {
    let address = free_address();
    let server = Server::bind(address).unwrap();
    assert!(Server::bind(address).is_err(), "two servers on one port");
    drop(server);
    eventually("the port is free", || Server::bind(address).is_ok());
}

#[test]
fn the_server_is_a_tiny_http_server() {
    let server = Server::bind("[::1]:0").or_else(|_| Server::bind("127.0.0.1:0")).unwrap();
    assert_eq!(server.get_ref().server_addr().to_ip(), Some(server.local_addr().unwrap()));
    assert!(server.try_recv().unwrap().is_none());
    assert!(server.recv_timeout(Duration::from_millis(1)).unwrap().is_none());
    let mut client = Client::connect(server.local_addr().unwrap());
    client.send(GET);
    let request = server.recv_timeout(PATIENCE).unwrap().expect("a request");
    request.respond(Response::from_string("plain")).unwrap();
    client.reads_until("plain");
    server.unblock();
    assert_eq!(server.incoming_requests().count(), 0);
}

/// Runs a server on this many threads. Returns a handle whose drop waits for its end.
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
    let _watchdog = Watchdog::new("serving");
    let barrier = Barrier::new(3);
    let answer = |request: Request| {
        barrier.wait();
        request.respond(Response::from_string("all three"))
    };
    serve(3, answer, |server| {
        let mut clients = [(); 3].map(|()| Client::connect(server.local_addr().unwrap()));
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
    let _watchdog = Watchdog::new("a handler that runs");
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
        let mut client = Client::connect(server.local_addr().unwrap());
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
    let _watchdog = Watchdog::new("a handler that panics");
    let answer = |request: Request| match request.url() {
        "/panic" => panic!("on purpose"),
        "/fail" => Err(io::Error::other("on purpose")),
        _ => request.respond(Response::from_string("answered")),
    };
    serve(1, answer, |server| {
        for path in ["/panic", "/fail"] {
            let mut client = Client::connect(server.local_addr().unwrap());
            client.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert_eq!(client.reads_head().status(), "HTTP/1.1 500 Internal Server Error");
        }
        let mut client = Client::connect(server.local_addr().unwrap());
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
    let _watchdog = Watchdog::new("a stop");
    let address = free_address();
    let server = Server::bind(address).unwrap();
    let stop_handle = server.stop_handle();
    stop_handle.stop();
    stop_handle.clone().stop();
    server.serve(2, |_| Ok(())).unwrap();
    server.serve(2, |_| Ok(())).unwrap();
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
