//! A silent stream sends heartbeats, so that lost connections are detected; a busy one sends none.

use std::time::{Duration, Instant};

use crate::common::{PATIENCE, ends, gets, gets_data, gets_nothing};
use server_sent_events::{EndCause, Event, HeartbeatStyle, Publisher, RecvTimeoutError, Subscription};

const HEARTBEAT: &str = ":\n";
const SHORT: Duration = Duration::from_millis(20);

fn with_heartbeat(interval: impl Into<Option<Duration>>) -> (Publisher, Subscription) {
    let publisher = Publisher::builder().heartbeat(interval).build().unwrap();
    let subscription = publisher.subscribe().unwrap();
    (publisher, subscription)
}

#[test]
fn a_heartbeat_comes_after_each_silent_interval() {
    let start = Instant::now();
    let (_publisher, mut subscription) = with_heartbeat(SHORT);
    for heartbeats in 1..=5 {
        assert_eq!(subscription.next().unwrap(), HEARTBEAT);
        assert!(start.elapsed() >= SHORT * heartbeats, "{:?}", start.elapsed());
    }
}

#[test]
fn a_heartbeat_fires_no_event_in_a_browser() {
    assert_eq!(crate::common::parsed(HEARTBEAT), []);
}

#[test]
fn an_event_postpones_the_heartbeat() {
    let (publisher, mut subscription) = with_heartbeat(SHORT * 10);
    let start = Instant::now();
    while start.elapsed() < SHORT * 30 {
        let pause = Instant::now();
        publisher.publish("1");
        gets_data(&mut subscription, "1");
        let nothing = subscription.recv_timeout(SHORT);
        // On a machine that stood still meanwhile it may have been due.
        assert!(nothing == Err(RecvTimeoutError::Timeout) || pause.elapsed() > SHORT * 9, "{nothing:?}");
    }
}

#[test]
fn every_way_to_receive_returns_heartbeats() {
    let (_publisher, mut subscription) = with_heartbeat(SHORT);
    gets(&mut subscription, HEARTBEAT);
    assert_eq!(subscription.recv().unwrap(), HEARTBEAT);
    assert_eq!(subscription.recv_timeout(PATIENCE).unwrap(), HEARTBEAT);
    crate::common::eventually("a heartbeat from try_recv", || subscription.try_recv().as_deref() == Ok(HEARTBEAT));
}

#[test]
fn a_timeout_shorter_than_the_interval_is_a_timeout() {
    let (_publisher, mut subscription) = with_heartbeat(PATIENCE * 2);
    assert_eq!(subscription.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
    assert_eq!(subscription.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout));
}

#[test]
fn a_subscriber_that_is_skipped_again_and_again_gets_heartbeats() {
    let start = Instant::now();
    let (publisher, mut subscription) = with_heartbeat(SHORT);
    crate::common::eventually("a heartbeat between skipped events", || {
        publisher.publish_with("default channel", |()| None::<Event>);
        subscription.try_recv().as_deref() == Ok(HEARTBEAT)
    });
    assert!(start.elapsed() >= SHORT);
}

#[test]
fn an_interval_of_none_disables_heartbeats() {
    let (publisher, mut subscription) = with_heartbeat(None);
    assert_eq!(subscription.recv_timeout(SHORT * 3), Err(RecvTimeoutError::Timeout));
    publisher.close();
    ends(&mut subscription, EndCause::Closed);
}

#[test]
fn a_subscription_can_have_its_own_interval() {
    let (publisher, _) = with_heartbeat(None);
    let mut subscription = publisher.subscription(()).heartbeat(SHORT).open().unwrap();
    gets(&mut subscription, HEARTBEAT);
    let mut silent = publisher.subscription(()).heartbeat(None).open().unwrap();
    assert_eq!(silent.recv_timeout(SHORT * 3), Err(RecvTimeoutError::Timeout));
}

#[test]
fn an_interval_too_long_for_a_clock_disables_heartbeats() {
    let (publisher, mut subscription) = with_heartbeat(Duration::MAX);
    publisher.publish("1");
    assert_eq!(subscription.recv_timeout(Duration::MAX).unwrap(), "data: 1\n\n");
    gets_nothing(&mut subscription);
}

#[test]
fn a_heartbeat_can_end_with_a_blank_line() {
    let publisher = Publisher::builder().heartbeat(SHORT).heartbeat_style(HeartbeatStyle::Block).build().unwrap();
    assert_eq!(publisher.subscribe().unwrap().next().unwrap(), ":\n\n");
    let builder = publisher.subscription(()).heartbeat_style(HeartbeatStyle::Line);
    assert_eq!(builder.open().unwrap().next().unwrap(), HEARTBEAT);
}
