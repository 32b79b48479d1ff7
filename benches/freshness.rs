//! Measures how old values are when a slow client reads them: `cargo bench --features server --bench freshness`.
//!
//! Publishes 50 values, each 100 times per second, to subscribers that get the newest event of each key. Each client
//! reads 4 KB per second, through the smallest receive buffer that its kernel allows, as behind a slow link. Prints how
//! old the values are that it reads, for each server with its default buffers and with `fresh_values`. The benchmark
//! ends by itself after half a minute.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use server_sent_events::adapter::tiny_http::{Server, ServerBuilder};
use server_sent_events::server::{EventServer, EventServerBuilder, RunningServer};
use server_sent_events::{Event, Overflow, Publisher};

const KEYS: usize = 50;
const UPDATES_PER_SECOND: u32 = 100;
const BYTES_PER_SECOND: usize = 4_000;
/// The time until the buffers are full, which is not measured.
const FILLS: Duration = Duration::from_secs(20);
const MEASURED: Duration = Duration::from_secs(10);

fn main() -> std::io::Result<()> {
    let publisher = Publisher::builder().overflow(Overflow::LatestPerKey).build().expect("the settings are valid");
    let start = Instant::now();
    let is_over = Arc::new(AtomicBool::new(false));

    let default = serve(EventServer::builder(), &publisher)?;
    let fresh = serve(EventServer::builder().fresh_values(), &publisher)?;
    let tiny_http = serve_tiny_http(Server::builder(), &publisher)?;
    let fresh_tiny_http = serve_tiny_http(Server::builder().fresh_values(), &publisher)?;
    let servers = [
        ("EventServer", default.0),
        ("EventServer, fresh_values", fresh.0),
        ("tiny_http", tiny_http),
        ("tiny_http, fresh_values", fresh_tiny_http),
    ];
    let clients = servers.map(|(name, address)| (name, thread::spawn(move || read_slowly(address, start))));

    let over = Arc::clone(&is_over);
    let publishes = thread::spawn(move || publish(&publisher, start, &over));
    println!("{:30} {:>8} {:>10} {:>10} {:>10}", "server", "values", "median", "90 %", "oldest");
    for (name, client) in clients {
        let mut ages = client.join().expect("a client failed")?;
        ages.sort();
        let share = |share: usize| format!("{:.1} s", ages[(ages.len() - 1) * share / 100].as_secs_f64());
        println!("{name:30} {:>8} {:>10} {:>10} {:>10}", ages.len(), share(50), share(90), share(100));
    }
    is_over.store(true, Relaxed);
    publishes.join().expect("the publisher failed");
    Ok(())
}

fn serve(settings: EventServerBuilder, publisher: &Publisher) -> std::io::Result<(SocketAddr, RunningServer)> {
    let publisher = publisher.clone();
    let server = settings.bind("127.0.0.1:0")?.spawn(move |_| publisher.subscribe())?;
    Ok((server.local_addr(), server))
}

fn serve_tiny_http(settings: ServerBuilder, publisher: &Publisher) -> std::io::Result<SocketAddr> {
    let (publisher, server) = (publisher.clone(), settings.bind("127.0.0.1:0")?);
    let address = server.local_addr()?;
    thread::spawn(move || server.serve(1, |request| publisher.respond(request)));
    Ok(address)
}

/// Publishes all values at equal intervals. A value is the time at which it was published.
fn publish(publisher: &Publisher, start: Instant, is_over: &AtomicBool) {
    let mut due = Instant::now();
    while !is_over.load(Relaxed) {
        for key in 0..KEYS {
            let value = format!("{{\"key\":{key:02},\"at\":{:012},\"unit\":\"degrees\"}}", start.elapsed().as_micros());
            publisher.publish(Event::new(value).key(format!("{key}")));
        }
        due += Duration::from_secs(1) / UPDATES_PER_SECOND;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Reads a stream slowly, and returns how old the values were.
fn read_slowly(address: SocketAddr, start: Instant) -> std::io::Result<Vec<Duration>> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_recv_buffer_size(1)?;
    socket.connect(&address.into())?;
    let mut socket: TcpStream = socket.into();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let (began, mut text, mut ages) = (Instant::now(), String::new(), Vec::new());
    let mut due = began;
    while began.elapsed() < FILLS + MEASURED {
        let mut bytes = [0; BYTES_PER_SECOND / 20];
        let read = socket.read(&mut bytes)?;
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        due += Duration::from_secs(1) * read as u32 / BYTES_PER_SECOND as u32;
        while let Some((value, rest)) = text.split_once("}\n") {
            let at = value.split_once("\"at\":").and_then(|(_, rest)| rest.get(..12)).expect("a value has its time");
            let age = start.elapsed() - Duration::from_micros(at.parse().expect("a time is a number"));
            if began.elapsed() > FILLS {
                ages.push(age);
            }
            text = rest.to_owned();
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(ages)
}
