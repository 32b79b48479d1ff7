//! A stop acts at once in each state of the client, and leaves no thread and no socket behind.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use server_sent_events::client::{EndCause, EventSource, EventSourceBuilder, Upstream};
use server_sent_events::{History, Publisher};
use socket2::{Domain, Socket, Type};

use crate::common::foreign_server::{ForeignServer, STREAM};
use crate::common::pace::is_soon;
use crate::common::process::{held, is_back_at};
use crate::common::{PATIENCE, eventually};
use crate::own_process::own_process;

const HOUR: Duration = Duration::from_secs(3_600);

/// Stops a client whose program waits for a message. `is_there` returns when the client is in the state.
#[track_caller]
fn stops<T>(state: &str, builder: EventSourceBuilder, is_there: impl FnOnce() -> T) {
    let before = held();
    // So nothing but the stop ends what it waits for.
    let mut events = builder.connect_timeout(HOUR).read_timeout(HOUR).connect().unwrap();
    let stop_handle = events.stop_handle();
    let program = thread::spawn(move || {
        assert_eq!(events.recv(), None);
        assert_eq!(events.end_cause(), Some(&EndCause::Stopped));
        Instant::now()
    });
    let kept = is_there();
    // The program waits, and the client's thread does.
    thread::sleep(Duration::from_millis(20));
    let stopped = Instant::now();
    stop_handle.stop();
    eventually("the program returns", || program.is_finished());
    let returned = program.join().unwrap() - stopped;
    eventually("the thread has ended", || held().0 <= before.0);
    println!("{state}: the program returned after {returned:?}, the thread ended after {:?}", stopped.elapsed());
    drop(kept);
    eventually("nothing is left", || is_back_at(before));
}

/// Returns a listener whose queue of connections is full, so that the next one waits, and what fills it.
fn full_listener() -> (Socket, SocketAddr, Vec<Socket>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let fill = |_| {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&address.into());
        client
    };
    (socket, address, (0..8).map(fill).collect())
}

#[test]
fn while_it_connects() {
    own_process!();
    let (_listener, address, _fill) = full_listener();
    thread::sleep(Duration::from_millis(20));
    stops("connecting", EventSource::builder(format!("http://{address}/")), || ());
}

#[test]
fn while_it_negotiates_tls() {
    own_process!();
    let server = ForeignServer::start();
    stops("TLS", EventSource::builder(server.url().replace("http", "https")), || server.accepts());
}

#[test]
fn while_it_waits_for_the_response() {
    own_process!();
    let server = ForeignServer::start();
    stops("waiting for the response", EventSource::builder(server.url()), || server.gets_request());
}

#[test]
fn while_it_reads() {
    own_process!();
    let server = ForeignServer::start();
    stops("reading", EventSource::builder(server.url()), || server.answers(STREAM));
}

#[test]
fn while_it_waits_to_reconnect() {
    own_process!();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (sender, lost) = channel();
    let builder = EventSource::builder(format!("http://{address}/")).reconnection_time(HOUR);
    let builder = builder.on_connection_lost(move |_| sender.send(()).unwrap());
    stops("waiting to reconnect", builder, || lost.recv_timeout(PATIENCE).unwrap());
}

#[test]
fn while_the_program_takes_nothing() {
    own_process!();
    let server = ForeignServer::start();
    let before = held();
    let events = EventSource::builder(server.url()).connect().unwrap();
    let mut socket = server.answers(STREAM).into_socket();
    socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let error = loop {
        if let Err(error) = std::io::Write::write_all(&mut socket, b"data: x\n\n") {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let stopped = Instant::now();
    drop(events);
    eventually("the thread has ended", || held().0 <= before.0);
    println!("full: the thread ended after {:?}", stopped.elapsed());
    drop(socket);
    eventually("nothing is left", || is_back_at(before));
}

/// The stop comes at any moment of a connection's life.
#[test]
fn at_any_moment() {
    own_process!();
    let server = ForeignServer::start();
    let before = held();
    for round in 0..300_u64 {
        let mut events =
            EventSource::builder(server.url()).reconnection_time(Duration::from_millis(1)).connect().unwrap();
        let stop_handle = events.stop_handle();
        let stopper = thread::spawn(move || {
            thread::sleep(Duration::from_micros(10 * (round % 100)));
            stop_handle.stop();
        });
        let answered = Instant::now();
        while !stopper.is_finished() && answered.elapsed() < Duration::from_micros(400) {
            if let Some(mut connection) = server.try_accept() {
                connection.sends_if_it_can(&format!("{STREAM}data: x\n\n"));
                break;
            }
        }
        while events.recv().is_some() {}
        assert_eq!(events.end_cause(), Some(&EndCause::Stopped));
        stopper.join().unwrap();
        while server.try_accept().is_some() {}
    }
    eventually("nothing is left", || {
        while server.try_accept().is_some() {}
        is_back_at(before)
    });
}

#[test]
fn an_end_leaves_nothing_behind() {
    own_process!();
    let server = ForeignServer::start();
    let before = held();
    let mut events = EventSource::builder(server.url()).connect().unwrap();
    server.answers("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(events.recv(), None);
    // Before the drop.
    eventually("nothing is left", || is_back_at(before));
    drop(events);
}

/// Each lost connection is closed before the next one is made.
#[test]
fn lost_connections_leave_nothing_behind() {
    own_process!();
    let server = ForeignServer::start();
    let events = EventSource::builder(server.url()).reconnection_time(Duration::from_millis(1)).connect().unwrap();
    let stop_handle = events.stop_handle();
    let program = thread::spawn(move || events.count());
    drop(server.answers(STREAM));
    let connection = server.answers(STREAM);
    // The thread of a request ends with the response.
    eventually("the client reads", || held().0 == 0);
    let before = held();
    drop(connection);
    for _ in 0..10 {
        drop(server.answers(STREAM));
    }
    let _last = server.answers(STREAM);
    eventually("nothing is left", || is_back_at(before));
    stop_handle.stop();
    program.join().unwrap();
}

/// Drops a publisher that follows another one, and checks that it leaves nothing. `is_there` returns when the connection
/// is in the state. Returns how long the threads needed to end.
#[track_caller]
fn stops_following<T>(url: String, is_there: impl FnOnce(&Publisher) -> T) -> Duration {
    let before = held();
    let upstream = Upstream::at(url).channels("news");
    let publisher = Publisher::builder().history(History::new().follow(upstream)).build().unwrap();
    let kept = is_there(&publisher);
    let stopped = Instant::now();
    drop(publisher);
    eventually("the threads have ended", || held().0 <= before.0);
    let ended = stopped.elapsed();
    drop(kept);
    eventually("nothing is left", || is_back_at(before));
    ended
}

#[test]
fn of_a_publisher_that_follows_another_one() {
    own_process!();
    let server = ForeignServer::start();
    // It would wait for 30 seconds.
    stops_following(server.url(), |_| server.gets_request());
    stops_following(server.url(), |_| server.answers(STREAM));
    // After such an answer it waits for five seconds.
    is_soon("the end of the threads after another stream", Duration::from_secs(4), || {
        stops_following(server.url(), |publisher| {
            let connection = server.answers(format!("{STREAM}data: x\n\n"));
            eventually("it is seen", || {
                format!("{:?}", publisher.store_state()).contains("not a stream for followers")
            });
            connection
        })
    });
}
