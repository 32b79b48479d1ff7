//! A stream that ends wakes a thread that blocks on it, after every queued event was delivered.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::common::writers::Kept;
use crate::common::{Watchdog, ends, gets_data, gets_nothing, publisher, subscriber};
use server_sent_events::{EndCause, Publisher, Subscription};

/// Lets threads block in `next`, calls `end`, and checks that every thread returns. It runs many rounds, so that `end`
/// meets the thread before, after and while it falls asleep.
fn frees_a_blocked_reader(open: impl Fn(&Publisher) -> Subscription, end: impl Fn(&Publisher), cause: EndCause) {
    let _watchdog = Watchdog::new("a blocked reader");
    for round in 0..200 {
        let publisher = Publisher::new();
        let mut subscription = open(&publisher);
        let (about_to_block, is_about_to_block) = channel();
        let reader = thread::spawn(move || {
            about_to_block.send(()).unwrap();
            ends(&mut subscription, cause);
        });
        is_about_to_block.recv().unwrap();
        for _ in 0..round % 20 {
            thread::yield_now();
        }
        end(&publisher);
        reader.join().unwrap();
    }
}

#[test]
fn close_delivers_queued_events_and_leaves_the_publisher_usable() {
    let publisher = Publisher::new();
    let mut before = publisher.subscribe().unwrap();
    publisher.publish("1");
    publisher.publish("2");
    publisher.close();
    let mut after = publisher.subscribe().unwrap();
    assert_eq!(publisher.publish("3").subscribers(), 1);
    gets_data(&mut before, "1");
    gets_data(&mut before, "2");
    ends(&mut before, EndCause::Closed);
    gets_data(&mut after, "3");
    assert_eq!(publisher.stats().ended.closed, 1);
}

/// Seen in axum and Rocket: closing blocks on an idle stream.
#[test]
fn closing_ends_an_idle_stream() {
    frees_a_blocked_reader(|publisher| publisher.subscribe().unwrap(), Publisher::close, EndCause::Closed);
}

#[test]
fn dropping_the_last_handle_delivers_queued_events_and_ends_the_stream() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscribe().unwrap();
    let (clone, weak) = (publisher.clone(), publisher.downgrade());
    drop(publisher);
    clone.publish("still here");
    drop(clone);
    gets_data(&mut subscription, "still here");
    ends(&mut subscription, EndCause::Closed);
    assert!(weak.upgrade().is_none());
}

/// Seen in a Python library: the reader stays blocked forever.
#[test]
fn unsubscribing_wakes_a_blocked_reader() {
    let unsubscribe = |publisher: &Publisher| assert_eq!(publisher.unsubscribe_if(["chat", "news"], |()| true), 1);
    frees_a_blocked_reader(|p| subscriber(p, ["chat", "news"]), unsubscribe, EndCause::Unsubscribed);
}

#[test]
fn unsubscribing_from_one_channel_keeps_the_others() {
    let publisher = Publisher::new();
    let mut chat = subscriber(&publisher, ["chat"]);
    let mut both = subscriber(&publisher, ["chat", "news"]);
    publisher.publish_to("chat", "1");
    assert_eq!(publisher.unsubscribe_if("chat", |()| true), 2);
    assert_eq!(publisher.publish_to("chat", "nobody").subscribers(), 0);
    publisher.publish_to("news", "2");
    gets_data(&mut chat, "1");
    ends(&mut chat, EndCause::Unsubscribed);
    gets_data(&mut both, "1");
    gets_data(&mut both, "2");
    gets_nothing(&mut both);
    assert_eq!(publisher.unsubscribe_if("chat", |()| true), 0);
    assert_eq!(publisher.unsubscribe_if("news", |()| true), 1);
    ends(&mut both, EndCause::Unsubscribed);
    assert_eq!(publisher.stats().ended.unsubscribed, 2);
}

#[test]
fn unsubscribe_if_ends_only_subscribers_that_match() {
    let publisher = publisher::<&str>();
    let mut ada = publisher.subscription("Ada").open().unwrap();
    let mut bob = publisher.subscription("Bob").open().unwrap();
    let mut asked = Vec::new();
    let out = publisher.unsubscribe_if("default channel", |name| {
        asked.push(*name);
        *name == "Ada"
    });
    assert_eq!((out, asked), (1, vec!["Ada", "Bob"]));
    publisher.publish("hello");
    ends(&mut ada, EndCause::Unsubscribed);
    gets_data(&mut bob, "hello");
    assert_eq!(
        publisher.subscriber_properties("default channel").iter().map(|name| **name).collect::<Vec<_>>(),
        ["Bob"]
    );
}

/// Seen in a Python library: it stays in the registry.
#[test]
fn a_dropped_subscription_is_gone_at_once() {
    let publisher = Publisher::new();
    let subscription = subscriber(&publisher, ["chat", "news"]);
    assert_eq!(publisher.subscriber_properties(["chat", "news"]).len(), 1);
    drop(subscription);
    assert_eq!(publisher.subscriber_properties(["chat", "news"]).len(), 0);
    let stats = publisher.stats();
    assert_eq!((stats.subscribers, stats.channels, stats.ended.dropped), (0, 0, 1));
    assert_eq!(publisher.publish_to("chat", "nobody").subscribers(), 0);
}

#[test]
fn an_ended_subscription_that_is_dropped_is_counted_once() {
    let publisher = Publisher::new();
    let subscription = publisher.subscribe().unwrap();
    publisher.close();
    drop(subscription);
    let ended = publisher.stats().ended;
    assert_eq!((ended.closed, ended.dropped), (1, 0));
}

#[test]
fn a_subscription_outlives_its_publisher() {
    let mut subscription = Publisher::new().subscribe().unwrap();
    assert_eq!(subscription.recv_timeout(Duration::ZERO), Err(server_sent_events::RecvTimeoutError::Ended));
    ends(&mut subscription, EndCause::Closed);
}

#[test]
fn write_to_returns_why_the_stream_ended() {
    let publisher = Publisher::new();
    let subscription = publisher.subscription(()).initial_data(["1"]).open().unwrap();
    publisher.publish("2");
    publisher.close();
    let kept = Kept::default();
    assert_eq!(subscription.write_to(kept.clone()).unwrap(), EndCause::Closed);
    assert_eq!(kept.text(), "data: 1\n\ndata: 2\n\n");
}

#[test]
fn write_to_ends_with_the_writers_error() {
    struct Broken;
    impl std::io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            unreachable!("flushed after an error")
        }
    }
    let publisher = Publisher::new();
    let subscription = publisher.subscribe().unwrap();
    publisher.publish("1");
    assert_eq!(subscription.write_to(Broken).unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    assert_eq!(publisher.stats().ended.connection_lost, 1);
}
