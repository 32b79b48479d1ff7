//! Clients that never read cost a bounded amount of memory, and do not affect a healthy client.
//!
//! `STALLED_EVENTS` is the number of events that the test publishes; the default is for everyday use.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::common::{PATIENCE, Watchdog, eventually};
use crate::own_process::own_process;
use server_sent_events::{BackgroundOptions, EndCause, Overflow, Publisher};
use socket2::{Domain, SockRef, Socket, Type};

/// Returns a number of KiB that Linux reports for this process.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Returns the two ends of a connection over loopback: the client's, and the one to write to.
fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Returns a connection for which the kernel buffers little: its writer is soon blocked.
pub fn small_connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(4_096).unwrap();
    client.connect(&listener.local_addr().unwrap().into()).unwrap();
    let connection = listener.accept().unwrap().0;
    SockRef::from(&connection).set_send_buffer_size(64 * 1024).unwrap();
    (client.into(), connection)
}

#[test]
fn a_hundred_clients_that_never_read_take_less_than_64_mib_and_are_ended() {
    own_process!();
    let events: usize = std::env::var("STALLED_EVENTS").map_or(30_000, |events| events.parse().unwrap());
    let _watchdog =
        Watchdog::with_limit("stalled clients", Watchdog::LIMIT + Duration::from_micros(events as u64 * 200));
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let publisher = Publisher::builder().heartbeat(None).build().unwrap();
    let start = memory("VmRSS");

    // Half of them have the default policy; the others drop the oldest, so that only their socket can end them.
    let (ended, end) = channel();
    let clients = [Overflow::Disconnect, Overflow::DropOldest].repeat(50).into_iter().map(|overflow| {
        let (client, connection) = small_connection(&listener);
        let ended = ended.clone();
        let options = BackgroundOptions::new().write_timeout(Duration::from_secs(1));
        let options = options.on_end(move |cause| ended.send((overflow, cause)).unwrap());
        publisher
            .subscription(())
            .overflow(overflow)
            .open()
            .unwrap()
            .write_in_background_with_options(connection, options)
            .unwrap();
        client
    });
    let clients: Vec<TcpStream> = clients.collect();

    // The healthy client sets the pace: without it, no client could keep up with a loop that publishes.
    let (healthy, connection) = connection(&listener);
    let subscription = publisher.subscription(()).overflow(Overflow::Block(Duration::from_secs(3_600))).open().unwrap();
    subscription.write_in_background(connection).unwrap();
    let reader = thread::spawn(move || {
        let (mut stream, mut line, mut next) = (BufReader::with_capacity(64 * 1024, healthy), Vec::new(), 0);
        while stream.read_until(b'\n', &mut line).unwrap() > 0 {
            if let Some(data) = line.strip_prefix(b"data: ") {
                let number = std::str::from_utf8(&data[..10]).unwrap().parse();
                assert_eq!(number, Ok(next), "an event is missing in the healthy stream");
                next += 1;
            }
            line.clear();
        }
        next
    });

    for number in 0..events {
        // With "data: " and the line feeds, 200 bytes.
        publisher.publish(format!("{number:010}{:x<182}", ""));
    }
    let causes: Vec<_> = (0..clients.len()).map(|_| end.recv_timeout(PATIENCE).expect("not all have ended")).collect();
    assert_eq!(publisher.stats().subscribers, 1);
    publisher.close();
    assert_eq!(reader.join().unwrap(), events);

    let count = |cause| causes.iter().filter(|(_, ended)| *ended == cause).count();
    let (full, timed_out) = (count(EndCause::QueueFull), count(EndCause::WriteTimedOut));
    assert_eq!(full + timed_out, 100, "{causes:?}");
    let loses = causes.iter().filter(|(overflow, _)| *overflow == Overflow::DropOldest);
    assert!(loses.clone().all(|(_, cause)| *cause == EndCause::WriteTimedOut), "{causes:?}");
    eventually("nothing is left", || publisher.stats().ended.closed == 1);

    let most = memory("VmHWM") - start;
    println!("{events} events: {most} KiB at most; {full} ended with a full queue, {timed_out} in a write");
    assert!(most < 64 * 1024, "{most} KiB");
    drop(clients);
}
