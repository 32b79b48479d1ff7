//! Every number that a stranger could drive up has a limit, and the error names it.

use std::time::Duration;

use crate::common::{Watchdog, subscriber};
use server_sent_events::{History, OpenError, Publisher};

fn opens(publisher: &Publisher, channels: impl IntoIterator<Item = String>) -> Result<(), OpenError> {
    publisher.subscribe_to(channels).map(drop)
}

#[test]
fn subscribers_are_limited() {
    let publisher = Publisher::builder().max_subscribers(2).build().unwrap();
    let _first = publisher.subscribe().unwrap();
    let second = publisher.subscribe().unwrap();
    let error = publisher.subscribe().unwrap_err();
    assert_eq!(error, OpenError::TooManySubscribers { limit: 2 });
    assert_eq!(error.to_string(), "subscriber limit reached (2)");
    drop(second);
    assert!(publisher.subscribe().is_ok());
}

#[test]
fn subscribers_of_one_channel_are_limited() {
    let publisher = Publisher::builder().max_subscribers_per_channel(2).build().unwrap();
    let _first = subscriber(&publisher, ["chat", "news"]);
    let second = subscriber(&publisher, ["chat"]);
    let error = opens(&publisher, ["news".into(), "chat".into()]).unwrap_err();
    assert_eq!(error, OpenError::TooManyInChannel { channel: "chat".into(), limit: 2 });
    assert_eq!(error.to_string(), "subscriber limit of channel \"chat\" reached (2)");
    assert!(error.is_temporary());
    assert_eq!(opens(&publisher, ["news".into()]), Ok(()));
    drop(second);
    assert_eq!(opens(&publisher, ["news".into(), "chat".into()]), Ok(()));
}

#[test]
fn subscriptions_of_one_quota_key_are_limited() {
    let publisher = Publisher::builder().max_subscribers_per_quota_key(2).build().unwrap();
    let open = |key: &str| publisher.subscription(()).quota_key(key).open();
    let first = open("192.0.2.1").unwrap();
    let _second = open("192.0.2.1").unwrap();
    let error = open("192.0.2.1").unwrap_err();
    assert_eq!(error, OpenError::TooManyPerQuotaKey { key: "192.0.2.1".into(), limit: 2 });
    assert_eq!(error.to_string(), "subscriber limit of quota key \"192.0.2.1\" reached (2)");
    assert!(error.is_temporary());
    assert!(open("192.0.2.2").is_ok() && publisher.subscribe().is_ok(), "other keys are not affected");
    publisher.close();
    assert!(open("192.0.2.1").is_err(), "an ended subscription counts until it is dropped");
    drop(first);
    assert!(open("192.0.2.1").is_ok());
}

#[test]
fn refused_subscriptions_are_counted() {
    let publisher = Publisher::builder().max_subscribers(1).build().unwrap();
    let _inside = publisher.subscribe().unwrap();
    for _ in 0..3 {
        assert!(publisher.subscribe().is_err());
    }
    assert_eq!(publisher.stats().subscriptions_refused, 3);
}

#[test]
fn a_subscription_that_has_ended_counts_until_it_is_dropped() {
    let publisher = Publisher::builder().max_subscribers(1).max_queued_events(1).build().unwrap();
    let slow = publisher.subscribe().unwrap();
    publisher.publish("1");
    publisher.publish("2");
    assert_eq!(publisher.stats().subscribers, 0);
    assert_eq!(publisher.subscribe().unwrap_err(), OpenError::TooManySubscribers { limit: 1 });
    drop(slow);
    assert!(publisher.subscribe().is_ok());
}

#[test]
fn subscribers_are_limited_to_ten_thousand_by_default() {
    let publisher = Publisher::new();
    let _all: Vec<_> = (0..10_000).map(|_| publisher.subscribe().unwrap()).collect();
    assert_eq!(publisher.subscribe().unwrap_err(), OpenError::TooManySubscribers { limit: 10_000 });
}

#[test]
fn channels_of_one_subscription_are_limited() {
    let publisher = Publisher::new();
    let channels = |count| (0..count).map(|n| format!("channel {n}"));
    assert_eq!(opens(&publisher, channels(64)), Ok(()));
    let error = opens(&publisher, channels(65)).unwrap_err();
    assert_eq!(error, OpenError::TooManyChannels { given: 65, limit: 64 });
    assert_eq!(error.to_string(), "too many channels (65): subscribe to at most 64");

    let strict = Publisher::builder().max_channels_per_subscriber(1).build().unwrap();
    assert_eq!(opens(&strict, channels(1)), Ok(()));
    assert_eq!(opens(&strict, channels(2)), Err(OpenError::TooManyChannels { given: 2, limit: 1 }));
}

#[test]
fn the_length_of_a_channel_name_is_limited() {
    let publisher = Publisher::new();
    assert_eq!(opens(&publisher, ["x".repeat(256)]), Ok(()));
    let error = opens(&publisher, ["fine".into(), "x".repeat(257)]).unwrap_err();
    assert_eq!(error, OpenError::ChannelNameTooLong { length: 257, limit: 256 });
    assert_eq!(error.to_string(), "channel name too long (257 bytes): use at most 256");

    let strict = Publisher::builder().max_channel_name_len(3).build().unwrap();
    assert_eq!(opens(&strict, ["abc".into()]), Ok(()));
    assert_eq!(opens(&strict, ["äb".into()]), Ok(()), "three bytes");
    assert_eq!(opens(&strict, ["äbc".into()]), Err(OpenError::ChannelNameTooLong { length: 4, limit: 3 }));
}

#[test]
fn a_refused_subscription_leaves_nothing_behind() {
    let publisher = Publisher::builder().max_subscribers(1).build().unwrap();
    let _first = subscriber(&publisher, ["chat"]);
    assert!(opens(&publisher, ["news".into()]).is_err());
    assert!(opens(&publisher, ["news".into(), "x".repeat(257)]).is_err());
    let stats = publisher.stats();
    assert_eq!((stats.subscribers, stats.channels), (1, 1));
    assert_eq!(publisher.publish_to("news", "nobody").subscribers(), 0);
}

/// Each of these took minutes when its work grew with the square of the channels, and the publisher stood still
/// meanwhile.
#[test]
fn work_on_many_channels_at_once_grows_linearly() {
    const MANY: usize = 60_000;
    let _watchdog = Watchdog::with_limit("many channels at once", Duration::from_secs(60));
    let names: Vec<String> = (0..MANY).map(|n| format!("channel {n}")).collect();
    let history = History::new().max_events_per_channel(1).max_bytes(45_000_000);
    let publisher = Publisher::builder().history(history).max_channels_per_subscriber(MANY).build().unwrap();
    for _ in 0..3 {
        publisher.publish_to(&names, "in each of them");
    }
    assert_eq!(publisher.stats().history.events, 1, "each evicts the one before from all its channels");
    publisher.publish_to("one more", "x".repeat(30_000_000));
    assert_eq!(publisher.stats().history.channels, 1, "the oldest was evicted from all its channels");

    let mut subscription = publisher.subscribe_to(&names).unwrap();
    let handle = subscription.handle();
    assert_eq!(handle.leave(&names[1..]), MANY - 1);
    assert_eq!(handle.join(&names), Ok(MANY - 1));
    assert_eq!(publisher.unsubscribe_if(&names[1..], |()| true), 1);
    publisher.publish_to(&names, "in one of them");
    assert!(subscription.next().unwrap().starts_with("id: "));
    assert!(subscription.next().unwrap().starts_with("data: in one of them\n"));
    publisher.unsubscribe_if(&names, |()| true);
    assert_eq!(subscription.next(), None);
}
