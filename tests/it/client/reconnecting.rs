//! What the client does after a lost connection.

use std::time::{Duration, Instant};

use server_sent_events::client::{ConnectionError, EventSource};

use super::{gets, gets_data, loses, runs, soon, watched};
use crate::common::foreign_server::{CHUNKED, ForeignServer, STREAM, header};
use crate::common::{PATIENCE, eventually, free_address};

#[test]
fn the_client_sends_the_last_event_id() {
    let server = ForeignServer::start();
    let mut events = runs(soon(&server));
    server.answers(format!("{STREAM}id: 1\ndata: a\n\nid: 2\u{2026}\ndata: b\n\n"));
    gets_data(&mut events, "a");
    gets_data(&mut events, "b");
    let mut connection = server.accepts();
    // The text as it is, in UTF-8.
    let head = connection.reads_until("\r\n\r\n");
    assert_eq!(header(&head, "Last-Event-ID"), ["2\u{2026}"]);
    // It persists where the stream sends no other, and an empty one resets it.
    connection.send(&format!("{STREAM}\u{feff}data: c\n\nid\ndata: d\n\n"));
    assert_eq!(&*gets(&mut events).id, "2\u{2026}");
    assert_eq!(&*gets(&mut events).id, "");
    drop(connection);
    assert_eq!(header(&server.gets_request().1, "Last-Event-ID"), [""; 0]);
}

#[test]
fn a_first_id_is_sent_and_persists() {
    let server = ForeignServer::start();
    let mut events = soon(&server).last_event_id("41").connect().unwrap();
    assert_eq!(&**events.last_event_id(), "41");
    let (mut connection, head) = server.gets_request();
    assert_eq!(header(&head, "Last-Event-ID"), ["41"]);
    connection.send(&format!("{STREAM}data: x\n\n"));
    assert_eq!(&*gets(&mut events).id, "41");
}

#[test]
fn an_id_that_no_header_can_have_is_not_sent() {
    let server = ForeignServer::start();
    let mut events = runs(soon(&server));
    server.answers(format!("{STREAM}id: a\u{1}b\ndata: x\n\n"));
    assert_eq!(&*gets(&mut events).id, "a\u{1}b");
    assert_eq!(header(&server.gets_request().1, "Last-Event-ID"), [""; 0]);
}

#[test]
fn an_unfinished_block_is_dropped_and_sets_no_id() {
    let server = ForeignServer::start();
    let mut events = runs(soon(&server));
    server.answers(format!("{STREAM}retry:1\nid: 1\ndata: a\n\nid: 2\ndata: unfinished\n"));
    gets_data(&mut events, "a");
    let (mut connection, head) = server.gets_request();
    assert_eq!(header(&head, "Last-Event-ID"), ["1"]);
    connection.send(&format!("{STREAM}data: b\n\n"));
    let message = gets(&mut events);
    assert_eq!((&*message.data, &*message.id), ("b", "1"));
}

/// A client in a quiet channel must not fall behind the history.
#[test]
fn a_block_without_data_counts() {
    let server = ForeignServer::start();
    let mut events = soon(&server).connect().unwrap();
    let mut connection = server.answers(format!("{STREAM}id: 8\n\n"));
    connection.send("data: x\n\n");
    gets_data(&mut events, "x");
    assert_eq!(&**events.last_event_id(), "8");
    connection.send("id: 9\n\n");
    drop(connection);
    let mut connection = None;
    eventually("the client reconnects", || {
        assert!(events.try_recv().is_err());
        connection = server.try_accept();
        connection.is_some()
    });
    assert_eq!(header(&connection.unwrap().reads_until("\r\n\r\n"), "Last-Event-ID"), ["9"]);
    assert_eq!(&**events.last_event_id(), "9");
}

#[test]
fn the_server_sets_the_reconnection_time() {
    let server = ForeignServer::start();
    let (builder, lost) = watched(&server);
    let _events = runs(builder);
    let before = Instant::now();
    server.answers(format!("{STREAM}retry: 400\n\n"));
    let delay = lost.recv_timeout(PATIENCE).unwrap().delay;
    assert!((Duration::from_millis(400)..=Duration::from_millis(600)).contains(&delay), "{delay:?}");
    let _connection = server.accepts();
    assert!(before.elapsed() >= Duration::from_millis(400), "the client did not wait: {:?}", before.elapsed());
}

#[test]
fn delays_grow_with_each_failure_and_begin_anew_after_a_success() {
    let server = ForeignServer::start();
    let (builder, lost) = watched(&server);
    let _events = runs(builder.max_reconnection_delay(Duration::from_millis(300)));
    let delay = || lost.recv_timeout(PATIENCE).unwrap().delay.as_millis();
    for expected in [100..=150, 200..=300, 300..=450, 300..=450] {
        drop(server.accepts());
        let delay = delay();
        assert!(expected.contains(&delay), "{delay} is not in {expected:?}");
    }
    drop(server.answers(STREAM));
    assert!((100..=150).contains(&delay()));
}

#[test]
fn every_end_of_a_stream_is_a_lost_connection() {
    let server = ForeignServer::start();
    let (builder, lost) = watched(&server);
    let mut events = runs(builder);
    // In good order.
    server.answers(format!("{STREAM}data: a\n\n"));
    gets_data(&mut events, "a");
    assert_eq!(loses(&lost), ConnectionError::Ended);
    server.answers(format!("{CHUNKED}9\r\ndata: b\n\n\r\n0\r\n\r\n"));
    gets_data(&mut events, "b");
    assert_eq!(loses(&lost), ConnectionError::Ended);
    // Within a chunk, and within a body of a known length.
    server.answers(format!("{CHUNKED}ff\r\ndata: c\n\n"));
    gets_data(&mut events, "c");
    assert!(matches!(loses(&lost), ConnectionError::Io { .. }));
    server.answers(STREAM.replace("\r\n\r\n", "\r\nContent-Length: 100\r\n\r\n") + "data: d\n\n");
    gets_data(&mut events, "d");
    assert!(matches!(loses(&lost), ConnectionError::Io { .. }));
    // With a reset.
    server.answers(format!("{CHUNKED}9\r\ndata: e\n\n\r\n")).resets();
    assert!(matches!(loses(&lost), ConnectionError::Io { .. }));
}

#[test]
fn a_server_that_is_away_is_tried_again() {
    let address = free_address();
    let (sender, lost) = std::sync::mpsc::channel();
    let hook = move |connection: &server_sent_events::client::ConnectionLost| drop(sender.send(connection.clone()));
    let builder = EventSource::builder(format!("http://{address}/")).reconnection_time(Duration::from_millis(1));
    let mut events = runs(builder.on_connection_lost(hook));
    assert!(matches!(loses(&lost), ConnectionError::Io { kind: std::io::ErrorKind::ConnectionRefused, .. }));
    let listener = std::net::TcpListener::bind(address).unwrap();
    let (socket, _) = listener.accept().unwrap();
    let mut connection = crate::common::http::Client::on(socket);
    connection.reads_until("\r\n\r\n");
    connection.send(&format!("{STREAM}data: back\n\n"));
    gets_data(&mut events, "back");
}

#[test]
fn a_panic_in_the_hook_ends_nothing() {
    let server = ForeignServer::start();
    let mut events = runs(soon(&server).on_connection_lost(|_| panic!("a bug in the application")));
    drop(server.answers(STREAM));
    server.answers(format!("{STREAM}data: x\n\n"));
    gets_data(&mut events, "x");
}
