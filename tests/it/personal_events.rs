//! `publish_with` gives each subscriber what its properties ask for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::common::{gets, gets_data, gets_nothing, publisher};
use server_sent_events::{Event, History, Overflow, PublishOptions, Publisher, Resumption};

struct User {
    name: &'static str,
    language: &'static str,
}

const ADA: User = User { name: "Ada", language: "en" };
const BOB: User = User { name: "Bob", language: "de" };

#[test]
fn each_gets_what_its_properties_ask_for() {
    let publisher = publisher::<User>();
    let mut ada = publisher.subscription(ADA).open().unwrap();
    let mut bob = publisher.subscription(BOB).open().unwrap();
    let receipt = publisher.publish_with("default channel", |user: &User| {
        Some(Event::new(match user.language {
            "de" => format!("Hallo {}", user.name),
            _ => format!("Hello {}", user.name),
        }))
    });
    assert_eq!(receipt.subscribers(), 2);
    gets_data(&mut ada, "Hello Ada");
    gets_data(&mut bob, "Hallo Bob");
}

#[test]
fn a_closure_that_returns_none_skips_the_subscriber() {
    let publisher = publisher::<User>();
    let mut ada = publisher.subscription(ADA).open().unwrap();
    let mut bob = publisher.subscription(BOB).open().unwrap();
    publisher.publish("before");
    publisher.publish_with("default channel", |user: &User| (user.name != "Ada").then(|| Event::new("not for Ada")));
    publisher.publish("after");
    gets_data(&mut ada, "before");
    gets_data(&mut ada, "after");
    gets_data(&mut bob, "before");
    gets_data(&mut bob, "not for Ada");
    gets_data(&mut bob, "after");
    for mut subscription in [ada, bob] {
        gets_nothing(&mut subscription);
    }
}

#[test]
fn a_subscriber_of_two_channels_gets_it_once() {
    let publisher = publisher::<User>();
    let mut ada = publisher.subscription(ADA).channels(["chat", "news"]).open().unwrap();
    publisher.publish_with(["chat", "news"], |user: &User| Some(Event::new(user.name)));
    gets_data(&mut ada, "Ada");
    gets_nothing(&mut ada);
}

#[test]
fn a_panic_costs_one_subscriber_one_event_and_is_reported() {
    let publisher = publisher::<User>();
    let mut ada = publisher.subscription(ADA).open().unwrap();
    let mut bob = publisher.subscription(BOB).open().unwrap();
    publisher.publish_with("default channel", |user: &User| {
        assert_ne!(user.name, "Ada", "a panic that belongs to this test");
        Some(Event::new("fine"))
    });
    publisher.publish("after");
    gets(&mut ada, "event: gap\ndata: {\"lost\":1}\n\n");
    gets_data(&mut ada, "after");
    gets_data(&mut bob, "fine");
    gets_data(&mut bob, "after");
    assert_eq!(publisher.stats().closures_panicked, 1);
}

#[test]
fn a_panic_whose_payload_panics_too_ends_nothing() {
    struct Payload;
    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("a payload's panic that belongs to this test");
        }
    }
    let publisher = Publisher::new();
    let mut subscription = publisher.subscribe().unwrap();
    publisher.publish_with("default channel", |()| std::panic::panic_any(Payload));
    publisher.publish("after");
    gets(&mut subscription, "event: gap\ndata: {\"lost\":1}\n\n");
    gets_data(&mut subscription, "after");
}

#[test]
fn a_capture_whose_drop_panics_ends_nothing() {
    struct Capture;
    impl Drop for Capture {
        fn drop(&mut self) {
            panic!("a capture's panic that belongs to this test");
        }
    }
    let publish = |publisher: &Publisher| {
        let capture = Capture;
        publisher.publish_with("default channel", move |()| {
            let _capture = &capture;
            Some(Event::new("fine"))
        });
    };
    let publisher = Publisher::builder().max_queued_events(2).build().unwrap();
    let mut subscription = publisher.subscribe().unwrap();
    publish(&publisher);
    gets_data(&mut subscription, "fine");
    // The queue is discarded.
    for _ in 0..3 {
        publish(&publisher);
    }
    assert_eq!(subscription.next(), None);
}

#[test]
fn events_that_skip_a_subscriber_keep_no_timeout_from_passing() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscribe().unwrap();
    let pause = Duration::from_millis(10);
    for _ in 0..100 {
        publisher.publish_with("default channel", move |()| {
            thread::sleep(pause);
            None
        });
    }
    assert!(subscription.recv_timeout(Duration::from_millis(1)).is_err());
    assert!(format!("{subscription:?}").contains("queued: 9"), "more than a few were looked at: {subscription:?}");
}

#[test]
fn the_closure_runs_where_it_is_taken_and_not_where_it_is_published() {
    let publisher = Publisher::new();
    let mut subscription = publisher.subscribe().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    publisher.publish_with("default channel", move |()| {
        counter.fetch_add(1, SeqCst);
        Some(Event::new(thread::current().name().unwrap_or("nameless")))
    });
    assert_eq!(calls.load(SeqCst), 0);
    let taker = thread::Builder::new().name("taker".into());
    let taker = taker.spawn(move || gets_data(&mut subscription, "taker")).unwrap();
    taker.join().unwrap();
    assert_eq!(calls.load(SeqCst), 1);
}

#[test]
fn a_closure_nobody_needs_is_dropped_uncalled() {
    let publisher = Publisher::new();
    let capture = Arc::new(());
    let captured = Arc::clone(&capture);
    publisher.publish_with("default channel", move |()| {
        let _captured = &captured;
        unreachable!("there is no subscriber")
    });
    assert_eq!(Arc::strong_count(&capture), 1);
}

#[test]
fn a_closure_that_is_published_with_a_key_is_kept_to_the_latest() {
    let publisher =
        Publisher::builder_for::<User>().overflow(Overflow::LatestPerKey).max_queued_events(2).build().unwrap();
    let mut ada = publisher.subscription(ADA).open().unwrap();
    for n in 0..100 {
        let options = PublishOptions::new().key("room");
        publisher.publish_with_options("default channel", options, move |user| {
            Some(Event::new(format!("{} {n}", user.name)))
        });
    }
    gets_data(&mut ada, "Ada 99");
    gets_nothing(&mut ada);
    assert_eq!(publisher.stats().unusable_fields, 0);
}

#[test]
fn a_client_resumes_behind_the_id_that_a_closure_was_published_with() {
    let publisher = Publisher::builder_for::<User>().history(History::new()).build().unwrap();
    for n in 1..=3 {
        let options = PublishOptions::new().id(format!("step-{n}")).unwrap();
        let receipt = publisher.publish_with_options("default channel", options, move |user| {
            Some(Event::new(format!("{} {n}", user.name)))
        });
        assert_eq!(receipt.id(), Some(&*format!("step-{n}")));
    }
    let mut ada = publisher.subscription(ADA).last_event_id("step-1".to_owned()).open().unwrap();
    assert_eq!(ada.resumption(), Resumption::Complete);
    gets(&mut ada, "id: step-1\n\n");
    gets(&mut ada, "data: Ada 2\nid: step-2\n\n");
    gets(&mut ada, "data: Ada 3\nid: step-3\n\n");
}

#[test]
fn an_id_or_a_key_that_a_closure_sets_is_counted_where_it_cannot_be_used() {
    let publish = |publisher: &Publisher<User>, event: fn() -> Event| {
        let mut ada = publisher.subscription(ADA).open().unwrap();
        publisher.publish_with("default channel", move |_: &User| Some(event()));
        let frames: String = std::iter::from_fn(|| ada.try_recv().ok().map(String::from)).collect();
        (frames, publisher.stats().unusable_fields)
    };
    let with_id = || Event::new("1").id("mine").unwrap();
    let without_history = publisher::<User>();
    assert_eq!(publish(&without_history, with_id), ("data: 1\nid: mine\n\n".into(), 0));
    assert_eq!(publish(&without_history, || Event::new("1").key("k")).1, 1);

    let with_history = Publisher::builder_for::<User>().history(History::new()).build().unwrap();
    let (frames, counted) = publish(&with_history, with_id);
    assert!(!frames.contains("mine") && frames.contains(&format!("id: {}", with_history.last_event_id().unwrap())));
    assert_eq!(counted, 1);
    assert_eq!(publish(&with_history, || Event::new("1")).1, 1, "an event without either counts for nothing");
}
