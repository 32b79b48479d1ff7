//! The ways to take messages, and the stop handle.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use server_sent_events::client::{EndCause, EventSource};
use server_sent_events::{RecvTimeoutError, TryRecvError};

use super::{ends, gets, gets_data, runs, soon, watched};
use crate::common::eventually;
use crate::common::foreign_server::{CHUNKED, ForeignServer, STREAM};

#[test]
fn messages_are_taken_in_each_way() {
    let server = ForeignServer::start();
    let mut events = soon(&server).connect().unwrap();
    assert_eq!(events.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(events.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
    let mut connection = server.answers(STREAM);
    connection.send("data: a\n\n");
    assert_eq!(events.recv().unwrap().data, "a");
    connection.send("data: b\n\n");
    assert_eq!(gets(&mut events).data, "b");
    connection.send("data: c\n\n");
    eventually("a message is there", || events.try_recv().is_ok_and(|message| message.data == "c"));
    connection.send("data: d\n\ndata: e\n\ndata: f\n\n");
    assert_eq!(events.by_ref().take(3).map(|message| message.data).collect::<String>(), "def");
    assert_eq!(events.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(events.end_cause(), None);
}

#[test]
fn a_time_beyond_the_clock_waits_without_end() {
    let server = ForeignServer::start();
    let mut events = soon(&server).connect().unwrap();
    let _connection = server.answers(format!("{STREAM}data: a\n\n"));
    assert_eq!(events.recv_timeout(Duration::MAX).unwrap().data, "a");
}

#[test]
fn a_timeout_is_waited_for() {
    let server = ForeignServer::start();
    let mut events = soon(&server).connect().unwrap();
    let before = Instant::now();
    assert_eq!(events.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
    assert!(before.elapsed() >= Duration::from_millis(50));
}

/// A request and a half-read event go on in the next call.
#[test]
fn calls_that_end_early_lose_nothing() {
    let server = ForeignServer::start();
    let (builder, lost) = watched(&server);
    let mut events = builder.connect().unwrap();
    let polls = |events: &mut EventSource| {
        for _ in 0..20 {
            assert_eq!(events.try_recv(), Err(TryRecvError::Empty));
            assert_eq!(events.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
        }
    };
    let (mut connection, _) = server.gets_request();
    for piece in [&CHUNKED[..20], &CHUNKED[20..], "1", "0\r\nid: 1\n", "data: a", "b\n\n"] {
        polls(&mut events);
        connection.send(piece);
    }
    let message = gets(&mut events);
    assert_eq!((&*message.id, &*message.data), ("1", "ab"));
    assert!(lost.try_recv().is_err());
}

#[test]
fn endless_comments_hold_no_call() {
    let server = ForeignServer::start();
    let mut events = soon(&server).connect().unwrap();
    let mut socket = server.answers(format!("{STREAM}data: a\n\n")).into_socket();
    gets_data(&mut events, "a");
    let comments = ":\n".repeat(100_000);
    let sender = thread::spawn(move || while socket.write_all(comments.as_bytes()).is_ok() {});
    for _ in 0..5 {
        assert_eq!(events.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(events.recv_timeout(Duration::from_millis(10)), Err(RecvTimeoutError::Timeout));
    }
    drop(events);
    sender.join().unwrap();
}

#[test]
fn an_end_is_final() {
    let server = ForeignServer::start();
    let mut events = soon(&server).connect().unwrap();
    server.answers("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(ends(&mut events), EndCause::NoContent);
    assert_eq!(events.recv(), None);
    assert_eq!(events.try_recv(), Err(TryRecvError::Ended));
    assert_eq!(events.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Ended));
    assert_eq!(events.next(), None);
    // A stop changes nothing any longer.
    events.stop_handle().stop();
    assert_eq!(events.end_cause(), Some(&EndCause::NoContent));
}

#[test]
fn messages_before_the_end_are_delivered() {
    let server = ForeignServer::start();
    let mut events = runs(soon(&server));
    server.answers(format!("{STREAM}data: a\n\ndata: b\n\n"));
    server.answers("HTTP/1.1 204 No Content\r\n\r\n");
    gets_data(&mut events, "a");
    gets_data(&mut events, "b");
    assert_eq!(ends(&mut events), EndCause::NoContent);
}

#[test]
fn a_stop_drops_what_was_not_taken() {
    let server = ForeignServer::start();
    let mut events = soon(&server).connect().unwrap();
    let _connection = server.answers(format!("{STREAM}data: a\n\ndata: b\n\n"));
    gets_data(&mut events, "a");
    let stop_handle = events.stop_handle();
    assert!(!stop_handle.is_stopped());
    stop_handle.stop();
    assert!(stop_handle.is_stopped());
    assert_eq!(ends(&mut events), EndCause::Stopped);
    assert_eq!(events.try_recv(), Err(TryRecvError::Ended));
    // Again, and after the drop.
    stop_handle.stop();
    drop(events);
    stop_handle.stop();
}

#[test]
fn a_drop_closes_the_connection() {
    let server = ForeignServer::start();
    let events = soon(&server).connect().unwrap();
    let stop_handle = events.stop_handle();
    let mut connection = server.answers(STREAM);
    drop(events);
    connection.reads_all_there_is();
    assert!(stop_handle.is_stopped());
}

#[test]
fn a_gap_is_recognised() {
    let server = ForeignServer::start();
    let mut events = soon(&server).connect().unwrap();
    let _connection = server.answers(format!("{STREAM}event: gap\ndata: {{\"lost\":2}}\n\ndata: x\n\n"));
    assert!(gets(&mut events).is_gap());
    assert!(!gets(&mut events).is_gap());
}

#[test]
fn an_event_source_moves_to_another_thread() {
    let server = ForeignServer::start();
    let events = soon(&server).connect().unwrap();
    let stop_handle = events.stop_handle();
    let reader = thread::spawn(move || events.map(|message| message.data).collect::<Vec<_>>());
    let mut connection = server.answers(format!("{STREAM}data: a\n\n"));
    assert!(!reader.is_finished());
    stop_handle.stop();
    connection.reads_all_there_is();
    reader.join().unwrap();
}
