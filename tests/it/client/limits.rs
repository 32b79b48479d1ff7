//! What is held back and what is given up.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use server_sent_events::client::{ConnectionError, ParserError};

use super::{gets_data, loses, runs, soon, watched};
use crate::common::foreign_server::{ForeignServer, STREAM};
use crate::common::pace::{Pace, keeping_pace};
use crate::common::{PATIENCE, eventually};

#[test]
fn a_line_and_an_event_have_limits() {
    let server = ForeignServer::start();
    let (builder, lost) = watched(&server);
    let mut events = runs(builder.max_line_len(100).max_event_len(50));
    // In one read with a whole event, and the server sends no more.
    let _connection = server.answers(format!("{STREAM}data: a\n\n{}", "x".repeat(101)));
    gets_data(&mut events, "a");
    assert_eq!(loses(&lost), ConnectionError::Parser(ParserError::LineTooLong { limit: 100 }));
    let _connection = server.answers(format!("{STREAM}data: {}\n", "x".repeat(51)));
    assert_eq!(loses(&lost), ConnectionError::Parser(ParserError::EventTooLarge { limit: 50 }));
    let _connection = server.answers(format!("{STREAM}data: {}\n\n", "x".repeat(50)));
    gets_data(&mut events, &"x".repeat(50));
}

/// A server that sends the same large event each time is not asked for it at full speed.
#[test]
fn delays_grow_if_an_event_stays_too_large() {
    let server = ForeignServer::start();
    let (builder, lost) = watched(&server);
    let _events = runs(builder.max_event_len(5));
    for expected in [100..=150, 200..=300, 400..=600] {
        let _connection = server.answers(format!("{STREAM}data: large\ndata: event\n\n"));
        let delay = lost.recv_timeout(crate::common::PATIENCE).unwrap().delay.as_millis();
        assert!(expected.contains(&delay), "{delay} is not in {expected:?}");
    }
}

#[test]
fn a_program_that_takes_no_message_slows_the_server_down() {
    let server = ForeignServer::start();
    let mut events = soon(&server).connect().unwrap();
    let mut socket = server.answers(STREAM).into_socket();
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let writer = thread::spawn(move || {
        let event = format!("data: {}\n\n", "x".repeat(1_000));
        while socket.write_all(event.as_bytes()).is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    // The kernel's buffers are full when nothing is written for a while.
    let (mut before, mut unchanged) = (0, 0);
    eventually("the server waits", || {
        let now = written.load(Ordering::Relaxed);
        unchanged = if now == before && now > 0 { unchanged + 1 } else { 0 };
        before = now;
        thread::sleep(Duration::from_millis(1));
        unchanged > 100
    });
    // Nothing is lost.
    for _ in 0..before {
        gets_data(&mut events, &"x".repeat(1_000));
    }
    drop(events);
    writer.join().unwrap();
}

#[test]
fn a_silent_connection_is_replaced() {
    let is_kept = keeping_pace(Duration::from_millis(300), |timeout| {
        let server = ForeignServer::start();
        let (builder, lost) = watched(&server);
        let mut events = runs(builder.read_timeout(timeout));
        let silent = server.answers(format!("{STREAM}id: 1\ndata: a\n\n"));
        gets_data(&mut events, "a");
        assert_eq!(loses(&lost), ConnectionError::ReadTimeout);
        let mut pace = Pace::start();
        let mut alive = server.answers(STREAM);
        drop(silent);
        // A comment is enough to keep it.
        for _ in 0..10 {
            thread::sleep(timeout / 4);
            alive.sends_if_it_can(":\n");
            pace.step();
        }
        alive.sends_if_it_can("data: b\n\n");
        let has_b = events.messages.recv_timeout(PATIENCE).is_ok_and(|message| message.data == "b");
        (has_b && lost.try_recv().is_err(), pace.longest())
    });
    assert!(is_kept, "a connection with comments was dropped");
}

#[test]
fn the_silence_counts_across_calls() {
    let server = ForeignServer::start();
    let (builder, lost) = watched(&server);
    let mut events = builder.read_timeout(Duration::from_millis(300)).connect().unwrap();
    let _silent = server.answers(format!("{STREAM}data: a\n\n"));
    gets_data(&mut events, "a");
    eventually("the connection is dropped", || {
        assert!(events.recv_timeout(Duration::from_millis(10)).is_err());
        lost.try_recv().is_ok_and(|lost| lost.error == ConnectionError::ReadTimeout)
    });
}

/// Bytes that arrived while the program was busy are no silence.
#[test]
fn a_busy_program_drops_no_connection() {
    let server = ForeignServer::start();
    let (builder, lost) = watched(&server);
    let mut events = builder.read_timeout(Duration::from_millis(50)).connect().unwrap();
    let mut connection = server.answers(format!("{STREAM}data: a\n\n"));
    gets_data(&mut events, "a");
    connection.send("data: b\n\n");
    thread::sleep(Duration::from_millis(100));
    gets_data(&mut events, "b");
    assert!(lost.try_recv().is_err());
}

#[test]
fn a_response_that_does_not_begin_is_given_up() {
    let server = ForeignServer::start();
    let (builder, lost) = watched(&server);
    let _events = runs(builder.connect_timeout(Duration::from_secs(1)));
    let _silent = server.gets_request();
    assert_eq!(loses(&lost), ConnectionError::ConnectTimeout);
    // A head that arrives slowly counts as a whole.
    let (mut slow, _) = server.gets_request();
    let slow = thread::spawn(move || {
        for byte in STREAM.bytes() {
            slow.sends_if_it_can(&[byte]);
            thread::sleep(Duration::from_millis(30));
        }
    });
    assert_eq!(loses(&lost), ConnectionError::ConnectTimeout);
    slow.join().unwrap();
}
