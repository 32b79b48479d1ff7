//! What the public types can do, apart from what they do: cross threads, be printed.

mod common;

use std::fmt::Debug;

use server_sent_events::*;

fn sends<T: Send>() {}
fn shares<T: Send + Sync + Debug>() {}

#[test]
fn public_types_can_cross_threads() {
    /// Neither printable nor clonable, and only what is asked of properties.
    struct Properties(#[allow(dead_code)] std::sync::Mutex<u8>);

    shares::<Publisher>();
    shares::<Publisher<Properties>>();
    shares::<PublisherBuilder<Properties>>();
    shares::<WeakPublisher<Properties>>();
    shares::<Subscription>();
    shares::<Event>();
    shares::<Frame>();
    shares::<Receipt>();
    shares::<Stats>();
    shares::<EndCause>();
    shares::<ResponseHeaders>();
    shares::<History>();
    shares::<Resumption>();
    sends::<BackgroundOptions>();
    shares::<EventError>();
    shares::<OpenError>();
    shares::<InvalidSetting>();
    shares::<HeaderError>();
    shares::<TryRecvError>();
    shares::<RecvTimeoutError>();
    sends::<std::iter::Take<Subscription>>();
    #[cfg(feature = "tiny_http")]
    shares::<adapter::tiny_http::Server>();
}

#[test]
fn debug_output_is_short_and_useful() {
    let publisher = Publisher::new();
    let subscription = publisher.subscribe().unwrap();
    publisher.publish("hello");
    assert_eq!(format!("{publisher:?}"), "Publisher { subscribers: 1, channels: 1, .. }");
    assert_eq!(format!("{subscription:?}"), "Subscription { id: 1, queued: 1, ended: None, .. }");
    assert_eq!(format!("{:?}", publisher.downgrade()), "WeakPublisher { .. }");
    assert_eq!(format!("{:?}", Event::new("x").encode()), "\"data: x\\n\\n\"");
    assert_eq!(Event::new("x").encode().to_string(), "data: x\n\n");
}

#[test]
fn a_frame_is_the_text_it_carries() {
    let frame = Event::new("x").encode();
    assert_eq!(frame, "data: x\n\n");
    assert_eq!(frame, *"data: x\n\n");
    assert_eq!(String::from(frame.clone()), "data: x\n\n");
    assert_eq!(AsRef::<[u8]>::as_ref(&frame), b"data: x\n\n");
    assert_eq!(frame.len(), 9);
}

#[test]
fn a_subscription_works_with_iterator_adapters() {
    let publisher = Publisher::new();
    let subscription = publisher.subscription(()).initial_data(["1", "2", "3"]).open().unwrap();
    let data: Vec<String> = subscription.take(2).map(|frame| frame.to_uppercase()).collect();
    assert_eq!(data, ["DATA: 1\n\n", "DATA: 2\n\n"]);
    assert_eq!(publisher.stats().subscribers, 0, "`take` dropped it");
}
