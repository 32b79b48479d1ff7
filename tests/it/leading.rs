//! A live subscription can be controlled: by its handle, by the publisher, by its lifetime.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, ends, eventually, gets_data, gets_nothing, subscriber};
use server_sent_events::{BackgroundOptions, EndCause, OpenError, Publisher};

#[test]
fn a_handle_joins_and_leaves_channels() {
    let publisher = Publisher::new();
    let mut subscription = subscriber(&publisher, ["a"]);
    let handle = subscription.handle();
    publisher.publish_to("b", "not there yet");
    assert_eq!(handle.join(["a", "b", "c"]), Ok(2));
    publisher.publish_to(["a", "b"], "both");
    assert_eq!(handle.leave(["a", "d"]), 1);
    assert_eq!(handle.leave(["a", "d"]), 0);
    publisher.publish_to("a", "it has left");
    publisher.publish_to("c", "still there");
    gets_data(&mut subscription, "both");
    gets_data(&mut subscription, "still there");
    gets_nothing(&mut subscription);
    assert_eq!(publisher.stats().channels, 2);
}

#[test]
fn a_stream_ends_when_it_leaves_its_last_channel() {
    let publisher = Publisher::new();
    let mut subscription = subscriber(&publisher, ["a", "b"]);
    publisher.publish_to("a", "queued");
    assert_eq!(subscription.handle().leave(["a", "b"]), 2);
    gets_data(&mut subscription, "queued");
    ends(&mut subscription, EndCause::Unsubscribed);
}

#[test]
fn joining_keeps_within_the_limits() {
    let builder =
        Publisher::builder().max_channels_per_subscriber(3).max_channel_name_len(5).max_subscribers_per_channel(1);
    let publisher = builder.build().unwrap();
    let _other = subscriber(&publisher, ["full"]);
    let mut subscription = subscriber(&publisher, ["a", "b"]);
    let handle = subscription.handle();
    let too_many = OpenError::TooManyChannels { given: 4, limit: 3 };
    assert_eq!(handle.join(["b", "c", "d"]), Err(too_many));
    assert_eq!(handle.join("longer"), Err(OpenError::ChannelNameTooLong { length: 6, limit: 5 }));
    assert_eq!(handle.join("full"), Err(OpenError::TooManyInChannel { channel: "full".into(), limit: 1 }));
    assert_eq!(handle.join(["a", "b"]), Ok(0));
    publisher.publish_to(["c", "d", "longer", "full"], "refused");
    gets_nothing(&mut subscription);
}

#[test]
fn a_handle_closes_a_stream_that_another_thread_reads_after_its_queued_events() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscribe().unwrap();
    let handle = subscription.handle();
    publisher.publish("queued");
    thread::scope(|threads| {
        threads.spawn(|| {
            gets_data(&mut subscription, "queued");
            ends(&mut subscription, EndCause::Closed);
        });
        assert!(handle.close());
    });
    assert!(!handle.close() && !handle.disconnect(), "it has left already");
    assert_eq!((handle.join("a"), handle.leave("default channel")), (Ok(0), 0));
    assert_eq!(publisher.stats().ended.closed, 1);
}

#[test]
fn a_handle_disconnects_a_stream_at_once() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscribe().unwrap();
    publisher.publish("thrown away");
    assert!(subscription.handle().disconnect());
    ends(&mut subscription, EndCause::Disconnected);
    assert_eq!(publisher.stats().ended.disconnected, 1);
}

#[test]
fn disconnect_if_considers_the_subscribers_of_all_channels() {
    let publisher = Publisher::builder_for::<u32>().build().unwrap();
    let mut all: Vec<_> =
        (0..6).map(|n| publisher.subscription(n).channels([format!("{}", n % 3)]).open().unwrap()).collect();
    publisher.publish_to(["0", "1", "2"], "x");
    assert_eq!(publisher.disconnect_if(|n| n % 2 == 0), 3);
    assert_eq!(publisher.disconnect_if(|n| n % 2 == 0), 0);
    for (n, subscription) in all.iter_mut().enumerate() {
        if n % 2 == 0 { ends(subscription, EndCause::Disconnected) } else { gets_data(subscription, "x") }
    }
}

#[test]
fn without_a_shared_store_disconnect_everywhere_is_for_this_publisher() {
    let [publisher, other] = [Publisher::new(), Publisher::new()];
    let open = |publisher: &Publisher, key| publisher.subscription(()).quota_key(key).open().unwrap();
    let mut all = [open(&publisher, "a"), open(&publisher, "a"), open(&publisher, "b"), open(&other, "a")];
    drop(open(&publisher, "a"));
    for key in ["nobody", "a", "a"] {
        assert_eq!(publisher.disconnect_everywhere(key), Ok(()));
    }
    publisher.publish("x");
    other.publish("x");
    for (n, subscription) in all.iter_mut().enumerate() {
        if n < 2 { ends(subscription, EndCause::Disconnected) } else { gets_data(subscription, "x") }
    }
    assert_eq!(publisher.stats().ended.disconnected, 2);
    let mut later = open(&publisher, "a");
    publisher.publish("y");
    gets_data(&mut later, "y");
}

#[test]
fn a_handle_keeps_nothing_alive() {
    let publisher = Publisher::new();
    let subscription = publisher.subscribe().unwrap();
    let handle = subscription.handle();
    drop(subscription);
    assert_eq!(publisher.stats().subscribers, 0);
    assert!(!handle.close());
    drop(publisher);
    assert_eq!((handle.join("a"), handle.disconnect()), (Ok(0), false));
}

#[test]
fn a_handle_controls_a_stream_in_the_background() {
    let publisher = Publisher::new();
    for (ends, cause) in [(true, EndCause::Disconnected), (false, EndCause::Closed)] {
        let (ended, end) = std::sync::mpsc::channel();
        let subscription = publisher.subscribe().unwrap();
        let handle = subscription.handle();
        let options = BackgroundOptions::new().on_end(move |cause| ended.send(cause).unwrap());
        subscription.write_in_background_with_options(std::io::sink(), options).unwrap();
        assert!(if ends { handle.disconnect() } else { handle.close() });
        assert_eq!(end.recv_timeout(PATIENCE), Ok(cause));
    }
}

fn expiring(lifetime: u64) -> Publisher {
    Publisher::builder().max_lifetime(Duration::from_millis(lifetime)).heartbeat(None).build().unwrap()
}

#[test]
fn a_stream_ends_when_its_lifetime_is_over_and_delivers_what_is_queued() {
    // Long enough to queue an event before it is over.
    let publisher = expiring(1_000);
    let start = Instant::now();
    let mut subscription = publisher.subscribe().unwrap();
    publisher.publish("queued");
    gets_data(&mut subscription, "queued");
    ends(&mut subscription, EndCause::Expired);
    assert!(start.elapsed() >= Duration::from_millis(800), "before 80 % of its time: {:?}", start.elapsed());
    assert_eq!((publisher.stats().subscribers, publisher.stats().ended.expired), (0, 1));
}

#[test]
fn a_busy_stream_ends_when_its_lifetime_is_over() {
    let publisher = expiring(50);
    let mut subscription = publisher.subscribe().unwrap();
    eventually("its lifetime is over", || {
        publisher.publish("x");
        subscription.next().is_none()
    });
    assert_eq!(subscription.end_cause(), Some(EndCause::Expired));
}

#[test]
fn a_silent_stream_in_the_background_ends_when_its_lifetime_is_over() {
    for heartbeat in [None, Some(Duration::from_secs(3_600))] {
        let publisher = expiring(50);
        let (ended, end) = std::sync::mpsc::channel();
        let options = BackgroundOptions::new().on_end(move |cause| ended.send(cause).unwrap());
        let subscription = publisher.subscription(()).heartbeat(heartbeat).open().unwrap();
        subscription.write_in_background_with_options(std::io::sink(), options).unwrap();
        assert_eq!(end.recv_timeout(PATIENCE), Ok(EndCause::Expired));
    }
}

#[test]
fn a_stream_that_is_read_as_a_body_ends_when_its_lifetime_is_over() {
    let publisher = expiring(50);
    let mut body = String::new();
    std::io::Read::read_to_string(&mut publisher.subscribe().unwrap().into_reader(), &mut body).unwrap();
    assert_eq!(body, "");
}

/// After a new version is deployed, clients must not all reconnect in the same instant.
#[test]
fn lifetimes_are_spread_between_80_and_100_percent() {
    // The spread is much longer than a busy machine delays the ends.
    let publisher = expiring(2_500);
    let start = Instant::now();
    let ends: Vec<_> = (0..40)
        .map(|_| {
            let (ended, end) = std::sync::mpsc::channel();
            let options = BackgroundOptions::new().on_end(move |_| ended.send(start.elapsed()).unwrap());
            publisher.subscribe().unwrap().write_in_background_with_options(std::io::sink(), options).unwrap();
            end
        })
        .collect();
    let ends: Vec<Duration> = ends.into_iter().map(|end| end.recv_timeout(PATIENCE).unwrap()).collect();
    let (first, last) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
    assert!(*first >= Duration::from_millis(2_000), "{first:?}");
    assert!(*last - *first >= Duration::from_millis(40), "{first:?} to {last:?}");
}

#[test]
fn a_subscription_can_have_its_own_lifetime() {
    let publisher = expiring(3_600_000);
    let mut short = publisher.subscription(()).max_lifetime(Duration::from_millis(1)).open().unwrap();
    let endless = publisher.subscription(()).max_lifetime(None).open().unwrap();
    ends(&mut short, EndCause::Expired);
    assert_eq!(publisher.stats().subscribers, 1);
    drop(endless);
}
