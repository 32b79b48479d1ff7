//! How many streams a server accepts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use super::*;
use crate::common::eventually;
use crate::common::http::{Client, FIRST_CHUNK, LAST_CHUNK};
use crate::common::pace::is_soon;
use crate::common::server::{opened, send, serve};
use server_sent_events::Publisher;

/// Returns how many of five streams this server accepts.
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
    // Another address of the loopback has a limit of its own.
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

/// Clients of a server that has room for no other one, each with a response.
fn filled(server: &RunningServer) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..1 + 32).map(|_| send(server.local_addr(), get("/page"))).collect();
    for client in &mut clients {
        client.reads_until("page");
    }
    clients
}

#[test]
fn at_the_limit_of_connections_none_is_closed_while_nobody_else_connects() {
    let server = EventServer::builder().max_streams(1).bind("127.0.0.1:0").unwrap();
    let server = server.spawn(|_: &Request| Response::text("page")).unwrap();
    let mut clients = filled(&server);
    for client in &mut clients {
        client.send(&get("/page"));
        client.reads_until("page");
    }
}

#[test]
fn at_the_limit_of_connections_a_client_waits_until_the_first_other_one_has_its_response() {
    // It waits for no timer: the server looks for blocked streams once a second.
    is_soon("the response to a client that waits for a place", Duration::from_millis(400), || {
        let (opens, gate) = crossbeam_channel::bounded::<()>(0);
        let calls = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&calls);
        let server = EventServer::builder().max_streams(1).handler_threads(33).bind("127.0.0.1:0").unwrap();
        let handler = move |request: &Request| {
            if request.path() == "/slow" {
                counts.fetch_add(1, SeqCst);
                let _ = gate.recv();
            }
            Response::text("page")
        };
        let server = server.spawn(handler).unwrap();
        let mut clients = filled(&server);
        for client in &mut clients {
            client.send(&get("/slow"));
        }
        eventually("their handlers run", || calls.load(SeqCst) == clients.len());
        let mut other = send(server.local_addr(), get("/page"));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!other.has_something());
        let start = Instant::now();
        opens.send(()).unwrap();
        other.reads_until("page");
        let waited = start.elapsed();
        drop(opens);
        waited
    });
}
