//! With `DisconnectOldest`, the newest subscription of a quota key takes the place of the oldest.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::common::writers::{Gate, Kept};
use crate::common::{PATIENCE, ends, eventually, gets_data, gets_nothing};
use server_sent_events::{
    BackgroundOptions, EndCause, History, OpenError, Publisher, PublisherBuilder, QuotaPolicy, Subscription,
};

/// The settings of a publisher with this many subscriptions per key.
fn newest_win(limit: usize) -> PublisherBuilder {
    Publisher::builder().max_subscribers_per_quota_key(limit).quota_policy(QuotaPolicy::DisconnectOldest)
}

fn open(publisher: &Publisher, key: &str) -> Result<Subscription, OpenError> {
    publisher.subscription(()).quota_key(key).open()
}

/// Returns the time of a block that has only a `retry:` field.
#[track_caller]
fn retry_in(block: &str) -> Duration {
    let milliseconds = block.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n")).expect(block);
    Duration::from_millis(milliseconds.parse().unwrap())
}

/// Checks that the client is sent the time at which it may reconnect, and that its stream ends.
#[track_caller]
fn is_replaced(subscription: &mut Subscription) -> Duration {
    let retry = retry_in(&subscription.next().expect("a last block"));
    ends(subscription, EndCause::Replaced);
    retry
}

#[test]
fn the_newest_subscription_replaces_the_oldest_of_its_key() {
    let publisher = newest_win(2).build().unwrap();
    let mut other = open(&publisher, "Bob").unwrap();
    let mut keyless = publisher.subscribe().unwrap();
    let mut first = open(&publisher, "Ada").unwrap();
    let mut second = open(&publisher, "Ada").unwrap();
    let mut third = open(&publisher, "Ada").unwrap();
    publisher.publish("hello");
    is_replaced(&mut first);
    for subscription in [&mut other, &mut keyless, &mut second, &mut third] {
        gets_data(subscription, "hello");
        gets_nothing(subscription);
    }
    drop(third);
    let mut fourth = open(&publisher, "Ada").unwrap();
    publisher.publish("a place was free");
    gets_data(&mut second, "a place was free");
    gets_data(&mut fourth, "a place was free");
    let stats = publisher.stats();
    assert_eq!((stats.subscribers, stats.ended.replaced, stats.subscriptions_refused), (4, 1, 0));
}

#[test]
fn each_replaced_client_waits_between_one_and_two_minutes() {
    let publisher = newest_win(1).build().unwrap();
    let mut newest = open(&publisher, "Ada").unwrap();
    let waits: Vec<Duration> = (0..20)
        .map(|_| {
            let mut replaced = std::mem::replace(&mut newest, open(&publisher, "Ada").unwrap());
            is_replaced(&mut replaced)
        })
        .collect();
    assert!(waits.iter().all(|wait| (60..=120).contains(&wait.as_secs())), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait != waits[0]), "all at once: {waits:?}");
}

#[test]
fn what_a_replaced_stream_has_not_sent_is_dropped() {
    let publisher = newest_win(1).history(History::new()).build().unwrap();
    let start = publisher.last_event_id();
    for n in 0..1_000 {
        publisher.publish(n.to_string());
    }
    let settings = publisher.subscription(()).quota_key("Ada").last_event_id(start.clone()).initial_data(["initial"]);
    let mut replaying = settings.open().unwrap();
    assert!(replaying.next().unwrap().starts_with("data: initial\n"));
    replaying.handle().send("queued behind the replay");
    let mut newer = publisher.subscription(()).quota_key("Ada").start_after(start).open().unwrap();
    is_replaced(&mut replaying);
    assert!(newer.next().unwrap().starts_with("id: ") && newer.next().unwrap().starts_with("data: 0\n"));
}

#[test]
fn the_hooks_see_that_it_was_replaced() {
    let (calls, called) = channel();
    let settings = Publisher::builder_for::<&str>().max_subscribers_per_quota_key(1);
    let opened = calls.clone();
    let settings = settings.on_open(move |open| opened.send(format!("{} opened", open.properties)).unwrap());
    let settings = settings.on_end(move |end| calls.send(format!("{} {}", end.properties, end.cause)).unwrap());
    let publisher = settings.quota_policy(QuotaPolicy::DisconnectOldest).build().unwrap();
    let _first = publisher.subscription("first").quota_key("Ada").open().unwrap();
    let _second = publisher.subscription("second").quota_key("Ada").open().unwrap();
    let calls: Vec<String> = called.try_iter().collect();
    assert_eq!(calls, ["first opened", "first replaced", "second opened"]);
}

#[test]
fn an_idle_stream_in_the_background_is_sent_the_time_and_ends() {
    let publisher = newest_win(1).build().unwrap();
    let (kept, (ended, end)) = (Kept::default(), channel());
    let options = BackgroundOptions::new().on_end(move |cause| ended.send(cause).unwrap());
    open(&publisher, "Ada").unwrap().write_in_background_with_options(kept.clone(), options).unwrap();
    publisher.publish("hello");
    kept.becomes("data: hello\n\n");
    let _newer = open(&publisher, "Ada").unwrap();
    assert_eq!(end.recv_timeout(PATIENCE), Ok(EndCause::Replaced));
    retry_in(kept.text().strip_prefix("data: hello\n\n").unwrap());
    assert_eq!(publisher.stats().events_delivered, 2);
}

#[test]
fn a_stream_blocked_in_a_write_is_replaced_all_the_same() {
    let publisher = newest_win(1).build().unwrap();
    let (gate, (ended, end)) = (Gate::default(), channel());
    let options = BackgroundOptions::new().on_end(move |cause| ended.send(cause).unwrap());
    open(&publisher, "Ada").unwrap().write_in_background_with_options(gate.clone(), options).unwrap();
    publisher.publish("hello");
    eventually("its write is blocked", || gate.has_begun());
    publisher.publish("dropped");
    let mut newer = open(&publisher, "Ada").unwrap();
    publisher.publish("for the newer one");
    gets_data(&mut newer, "for the newer one");
    gate.open();
    assert_eq!(end.recv_timeout(PATIENCE), Ok(EndCause::Replaced));
    retry_in(gate.text().strip_prefix("data: hello\n\n").unwrap());
}

#[test]
fn a_socket_whose_client_does_not_read_is_shut_down_for_the_newer_one() {
    let publisher = newest_win(1).build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ended, end) = channel();
    let options = BackgroundOptions::new().write_timeout(None).on_end(move |cause| ended.send(cause).unwrap());
    let connection = listener.accept().unwrap().0;
    open(&publisher, "Ada").unwrap().write_in_background_with_options(connection, options).unwrap();
    publisher.publish("x".repeat(30_000_000));
    eventually("its write has begun", || publisher.channel_stats("default channel").queued == 0);
    let _newer = open(&publisher, "Ada").unwrap();
    assert_eq!(end.recv_timeout(PATIENCE), Ok(EndCause::Replaced));
}

/// A user who reloads a thousand times must not fill the server with streams that are blocked.
#[test]
fn at_most_ten_replaced_subscriptions_of_a_key_stay_open() {
    let publisher = newest_win(2).build().unwrap();
    let mut blocked: Vec<Subscription> = (0..12).map(|_| open(&publisher, "Ada").unwrap()).collect();
    for _ in 0..1_000 {
        let error = open(&publisher, "Ada").unwrap_err();
        assert_eq!(error, OpenError::TooManyPerQuotaKey { key: "Ada".into(), limit: 2 });
    }
    assert!(open(&publisher, "Bob").is_ok(), "other keys are not affected");
    assert_eq!(publisher.stats().ended.replaced, 10, "a refused subscription replaces none");
    drop(blocked.remove(3));
    let _newest = open(&publisher, "Ada").unwrap();
    assert!(open(&publisher, "Ada").is_err());
    // With a higher limit as many as the limit.
    let publisher = newest_win(20).build().unwrap();
    let _blocked: Vec<Subscription> = (0..40).map(|_| open(&publisher, "Ada").unwrap()).collect();
    assert!(open(&publisher, "Ada").is_err());
}

#[test]
fn a_subscription_that_has_ended_is_not_replaced_again() {
    let publisher = newest_win(2).build().unwrap();
    let mut ended = open(&publisher, "Ada").unwrap();
    let mut live = open(&publisher, "Ada").unwrap();
    ended.handle().close();
    let mut newer = open(&publisher, "Ada").unwrap();
    publisher.publish("hello");
    gets_data(&mut live, "hello");
    gets_data(&mut newer, "hello");
    ends(&mut ended, EndCause::Closed);
    publisher.close();
    let (_third, mut fourth) = (open(&publisher, "Ada").unwrap(), open(&publisher, "Ada").unwrap());
    gets_nothing(&mut fourth);
    ends(&mut live, EndCause::Closed);
}

#[test]
fn a_refused_subscription_replaces_none() {
    let publisher = newest_win(1).max_subscribers_per_channel(1).build().unwrap();
    let mut oldest = publisher.subscription(()).quota_key("Ada").channels("chat").open().unwrap();
    let _full = publisher.subscribe_to("news").unwrap();
    let error = publisher.subscription(()).quota_key("Ada").channels(["chat", "news"]).open().unwrap_err();
    assert!(matches!(error, OpenError::TooManyInChannel { .. }), "{error}");
    gets_nothing(&mut oldest);
    // The place of the one that is replaced is free.
    let _newer = publisher.subscription(()).quota_key("Ada").channels("chat").open().unwrap();
    is_replaced(&mut oldest);
}

#[test]
fn threads_that_open_at_once_leave_just_the_limit() {
    let publisher = newest_win(3).build().unwrap();
    let threads = (0..4).map(|_| {
        let publisher = publisher.clone();
        thread::spawn(move || {
            let mut kept: Vec<Subscription> = Vec::new();
            for n in 0..500 {
                kept.extend(open(&publisher, "Ada"));
                if n % 3 == 0 || kept.len() > 3 {
                    drop(kept.remove(0));
                }
                publisher.publish("x");
            }
            kept
        })
    });
    let threads: Vec<_> = threads.collect();
    let open_ones: Vec<Subscription> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert!(publisher.stats().subscribers <= 3);
    drop(open_ones);
    let last: Vec<Subscription> = (0..3).map(|_| open(&publisher, "Ada").unwrap()).collect();
    assert_eq!(publisher.stats().subscribers, last.len());
}
