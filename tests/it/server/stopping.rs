//! How a server ends, and its streams with it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::common::http::{HELLO_CHUNK, LAST_CHUNK};
use crate::common::server::{opened, send, streams};
use crate::common::{PATIENCE, eventually, free_address};
use server_sent_events::{Event, Publisher, Shutdown};

#[test]
fn stop_delivers_queued_events_ends_streams_and_frees_the_port() {
    let (publisher, address) = (Publisher::new(), free_address());
    let streams = publisher.clone();
    let server = EventServer::bind(address).unwrap().spawn(move |_: &Request| streams.subscribe()).unwrap();
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
    // The client closes once it has read the end: otherwise the server would wait for that.
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
    assert_eq!(response_to(address, GET).status, 204);
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
    // A client that connects now is made to reconnect later.
    assert!(response_to(server.local_addr(), GET).body.starts_with(": busy\n"));
    server.stop().unwrap();
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
