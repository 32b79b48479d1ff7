//! An event reaches each subscriber of its channels once, and no other subscriber.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::{gets_data, gets_nothing, subscriber};
use server_sent_events::{DEFAULT_CHANNEL, Event, Publisher};

#[test]
fn a_subscriber_receives_an_event_once() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscribe().unwrap();
    assert_eq!(publisher.publish("hello").subscribers(), 1);
    gets_data(&mut subscription, "hello");
    gets_nothing(&mut subscription);
}

#[test]
fn every_subscriber_receives_an_event_once() {
    let publisher = Publisher::new();
    let mut subscriptions = [(); 3].map(|()| publisher.subscribe().unwrap());
    assert_eq!(publisher.publish("hello").subscribers(), 3);
    for subscription in &mut subscriptions {
        gets_data(subscription, "hello");
        gets_nothing(subscription);
    }
}

#[test]
fn an_event_reaches_only_the_subscribers_of_its_channel() {
    let publisher = Publisher::new();
    let mut chat = subscriber(&publisher, ["chat"]);
    let mut news = subscriber(&publisher, ["news"]);
    let mut both = subscriber(&publisher, ["chat", "news"]);

    assert_eq!(publisher.publish_to("chat", "to chat").subscribers(), 2);
    assert_eq!(publisher.publish_to("news", "to news").subscribers(), 2);

    gets_data(&mut chat, "to chat");
    gets_data(&mut news, "to news");
    gets_data(&mut both, "to chat");
    gets_data(&mut both, "to news");
    for mut subscription in [chat, news, both] {
        gets_nothing(&mut subscription);
    }
}

#[test]
fn a_subscriber_of_two_channels_gets_an_event_published_to_both_once() {
    let publisher = Publisher::new();
    let mut both = subscriber(&publisher, ["chat", "news"]);
    assert_eq!(publisher.publish_to(["chat", "news"], "hello").subscribers(), 1);
    gets_data(&mut both, "hello");
    gets_nothing(&mut both);
}

#[test]
fn naming_a_channel_twice_is_naming_it_once() {
    let publisher = Publisher::new();
    let mut subscription = subscriber(&publisher, ["chat", "chat"]);
    assert_eq!(publisher.publish_to(["chat", "chat"], "hello").subscribers(), 1);
    gets_data(&mut subscription, "hello");
    gets_nothing(&mut subscription);
    drop(subscription);
    assert_eq!(publisher.stats().channels, 0);
}

#[test]
fn publish_and_subscribe_use_the_default_channel() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscribe().unwrap();
    let mut named = subscriber(&publisher, ["default channel"]);
    publisher.publish("to the default");
    publisher.publish_to(DEFAULT_CHANNEL, "to its name");
    for subscription in [&mut subscription, &mut named] {
        gets_data(subscription, "to the default");
        gets_data(subscription, "to its name");
    }
}

#[test]
fn a_late_subscriber_receives_only_later_events() {
    let publisher = Publisher::new();
    assert_eq!(publisher.publish("nobody is here").subscribers(), 0);
    let mut subscription = publisher.subscribe().unwrap();
    publisher.publish("hello");
    gets_data(&mut subscription, "hello");
    gets_nothing(&mut subscription);
}

#[test]
fn strings_of_any_type_and_collections_of_them_name_channels() {
    struct Topic;
    impl AsRef<str> for Topic {
        fn as_ref(&self) -> &str {
            "a"
        }
    }
    let publisher = Publisher::new();
    let mut a = subscriber(&publisher, ["a"]);
    let mut b = subscriber(&publisher, ["b"]);
    let owned = String::from("a");
    let names = vec![String::from("a"), String::from("b")];
    for receipt in [
        publisher.publish_to("a", "1"),
        publisher.publish_to(&owned, "2"),
        publisher.publish_to(owned.clone(), "3"),
        publisher.publish_to(Arc::<str>::from("a"), "4"),
        publisher.publish_to(Cow::Borrowed("a"), "5"),
        publisher.publish_to(Topic, "6"),
        publisher.publish_to(["a"], "7"),
        publisher.publish_to(Some("a"), "8"),
    ] {
        assert_eq!(receipt.subscribers(), 1);
    }
    for receipt in [
        publisher.publish_to(["a", "b"], "9"),
        publisher.publish_to(&names, "10"),
        publisher.publish_to(&names[..], "11"),
        publisher.publish_to(names.clone(), "12"),
        publisher.publish_to(BTreeSet::from(["a", "b"]), "13"),
        publisher.publish_to(('a'..='c').map(String::from), "14"),
    ] {
        assert_eq!(receipt.subscribers(), 2);
    }
    assert_eq!(publisher.publish_to([""; 0], "nowhere").subscribers(), 0);
    for n in 1..=14 {
        gets_data(&mut a, &n.to_string());
    }
    for n in 9..=14 {
        gets_data(&mut b, &n.to_string());
    }
}

#[test]
fn strings_of_any_type_become_events() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscribe().unwrap();
    let text = String::from("2");
    publisher.publish("1");
    publisher.publish(&text);
    publisher.publish(text.clone() + "+1");
    publisher.publish(Cow::Borrowed("4"));
    publisher.publish(Arc::<str>::from("5"));
    publisher.publish(format_args!("{}", 2 * 3));
    publisher.publish(Event::new("7"));
    for data in ["1", "2", "2+1", "4", "5", "6", "7"] {
        gets_data(&mut subscription, data);
    }
}

#[test]
fn without_subscribers_nothing_is_encoded() {
    struct Costly;
    impl From<Costly> for Event {
        fn from(_: Costly) -> Self {
            panic!("converted into an event without a subscriber")
        }
    }
    let publisher = Publisher::new();
    let _elsewhere = subscriber(&publisher, ["elsewhere"]);
    assert_eq!(publisher.publish(Costly).subscribers(), 0);
    assert_eq!(publisher.stats().events_published, 1);
}

#[test]
fn one_frame_is_shared_by_all() {
    let publisher = Publisher::new();
    let mut one = publisher.subscribe().unwrap();
    let mut two = publisher.subscribe().unwrap();
    publisher.publish("hello");
    let (one, two) = (one.recv().unwrap(), two.recv().unwrap());
    assert_eq!(one.as_ptr(), two.as_ptr());
}
