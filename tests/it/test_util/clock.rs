//! `TestClock`: heartbeats, lifetimes and ages come when a test lets the time pass.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use server_sent_events::test_util::{StalledClient, TestClient, TestClock};
use server_sent_events::{EndCause, History, Publisher, Resumption};

use crate::common::eventually;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn heartbeats_come_when_they_are_due() {
    let clock = TestClock::new();
    let publisher = Publisher::builder().heartbeat(HOUR).clock(clock).build().unwrap();
    let mut client = TestClient::new(publisher.subscribe().unwrap());
    client.assert_no_frame();
    clock.advance(HOUR - Duration::from_secs(60));
    client.assert_no_frame();
    clock.advance(Duration::from_secs(60));
    assert_eq!(client.next_frame(), ":\n");
    client.assert_no_frame();
    clock.advance(HOUR);
    assert_eq!(client.next_frame(), ":\n");
}

#[test]
fn a_reader_that_is_blocked_sees_the_time_pass() {
    let clock = TestClock::new();
    let publisher = Publisher::builder().heartbeat(HOUR).clock(clock).build().unwrap();
    let mut subscription = publisher.subscribe().unwrap();
    let reader = thread::spawn(move || subscription.next());
    thread::sleep(Duration::from_millis(5));
    assert!(!reader.is_finished());
    clock.advance(HOUR);
    assert_eq!(reader.join().unwrap().unwrap(), ":\n");
}

#[test]
fn streams_in_the_background_see_the_time_pass() {
    let clock = TestClock::new();
    let publisher = Publisher::builder().heartbeat(HOUR).max_lifetime(10 * HOUR).clock(clock).build().unwrap();
    let client = StalledClient::new();
    client.resume();
    publisher.subscribe().unwrap().write_in_background(client.writer()).unwrap();
    publisher.publish("x");
    eventually("the event arrives", || client.text() == "data: x\n\n");
    // A quarter later at most, since the heartbeats of many streams are spread.
    clock.advance(HOUR * 5 / 4 + HOUR / 64);
    eventually("a heartbeat arrives", || client.text() == "data: x\n\n:\n");
    clock.advance(10 * HOUR);
    client.wait_until_closed();
    assert_eq!(publisher.stats().ended.expired, 1);
}

#[test]
fn lifetimes_end_when_they_are_over() {
    let clock = TestClock::new();
    let publisher = Publisher::builder().heartbeat(None).max_lifetime(HOUR).clock(clock).build().unwrap();
    let mut client = TestClient::new(publisher.subscribe().unwrap());
    clock.advance(HOUR * 3 / 4);
    client.assert_nothing();
    assert_eq!(publisher.stats().subscribers, 1);
    clock.advance(HOUR / 4);
    assert_eq!(client.assert_end(), EndCause::Expired);
}

#[test]
fn events_of_a_history_age() {
    let clock = TestClock::new();
    // Whatever clock the history has.
    let history = History::new().max_age(HOUR).clock(|| Duration::ZERO);
    let publisher = Publisher::builder().history(history).clock(clock).build().unwrap();
    let id = publisher.publish("old").id().map(str::to_owned);
    publisher.publish("newer");
    clock.advance(HOUR / 2);
    publisher.publish("new");
    let resumption = || publisher.subscription(()).last_event_id(id.as_deref()).open().unwrap().resumption();
    assert_eq!(resumption(), Resumption::Complete);
    clock.advance(HOUR / 2 + Duration::from_secs(1));
    assert_eq!(resumption(), Resumption::Gap);
}

#[test]
fn a_blocked_write_to_a_socket_times_out() {
    let clock = TestClock::new();
    let publisher = Publisher::builder().clock(clock).max_queued_bytes(1 << 30).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    publisher.subscribe().unwrap().write_in_background(listener.accept().unwrap().0).unwrap();
    // More than the kernel's buffers hold.
    publisher.publish("x".repeat(32 << 20));
    eventually("its write has begun", || publisher.channel_stats("default channel").queued == 0);
    assert_eq!(publisher.stats().subscribers, 1);
    eventually("the write has timed out", || {
        // Again and again: the write may have begun after the first time.
        clock.advance(Duration::from_secs(60));
        publisher.stats().ended.write_timed_out == 1
    });
    let _ = client.read_to_end(&mut Vec::new());
}

#[test]
fn a_clock_advances_to_its_end_and_not_beyond() {
    let clock = TestClock::new();
    let most = Duration::from_nanos(u64::MAX);
    clock.advance(most);
    let text = super::panics(|| clock.advance(Duration::from_nanos(1)));
    assert_eq!(text, "a test clock cannot be advanced by more than 584 years");
    let publisher = Publisher::builder().heartbeat(HOUR).max_lifetime(HOUR).clock(clock).build().unwrap();
    TestClient::new(publisher.subscribe().unwrap()).assert_nothing();
}
