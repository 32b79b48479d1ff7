//! Events for one subscriber alone.

use std::sync::{Arc, Mutex};
use std::thread;

use crate::common::{PATIENCE, ends, eventually, gets, gets_data, gets_nothing};
use server_sent_events::{EndCause, Event, History, Overflow, Publisher, Subscription, SubscriptionHandle};

fn opened(publisher: &Publisher) -> (Subscription, SubscriptionHandle) {
    let subscription = publisher.subscribe().unwrap();
    let handle = subscription.handle();
    (subscription, handle)
}

/// Returns the data of all frames up to the end, without frames that are no events.
fn data(subscription: Subscription) -> Vec<String> {
    let data = |frame: String| frame.lines().find_map(|line| line.strip_prefix("data: ").map(str::to_owned));
    subscription.filter_map(data).collect()
}

#[test]
fn a_sent_event_reaches_one_subscriber_in_order() {
    let publisher = Publisher::new();
    let ((mut one, handle), (mut other, _)) = (opened(&publisher), opened(&publisher));
    publisher.publish("first");
    assert!(handle.send("second"));
    publisher.publish("third");
    for expected in ["first", "second", "third"] {
        gets_data(&mut one, expected);
    }
    for expected in ["first", "third"] {
        gets_data(&mut other, expected);
    }
    gets_nothing(&mut one);
    gets_nothing(&mut other);
}

#[test]
fn all_fields_of_a_sent_event_arrive_without_a_history() {
    let publisher = Publisher::new();
    let (mut subscription, handle) = opened(&publisher);
    assert!(handle.send(Event::new("x").event("token").unwrap().id("7").unwrap()));
    gets(&mut subscription, "event: token\ndata: x\nid: 7\n\n");
    assert!(handle.send(Event::comment("hello")));
    gets(&mut subscription, ": hello\n");
    assert_eq!(publisher.stats().unusable_fields, 0);
}

#[test]
fn with_a_history_a_sent_event_has_no_id_and_is_not_kept() {
    let publisher = Publisher::builder().history(History::new()).build().unwrap();
    let mut subscription = publisher.subscription(()).open().unwrap();
    let start = publisher.last_event_id();
    assert!(subscription.handle().send(Event::new("x").id("7").unwrap()));
    assert!(subscription.next().unwrap().starts_with("id: "));
    gets(&mut subscription, "data: x\n\n");
    assert_eq!((publisher.last_event_id(), publisher.stats().unusable_fields), (start.clone(), 1));
    assert_eq!(publisher.stats().history.events, 0);
    let resumed = publisher.subscription(()).last_event_id(start).open().unwrap();
    publisher.close();
    assert_eq!(data(resumed), [""; 0]);
}

#[test]
fn a_subscriber_alone_gets_nothing_that_is_published() {
    let publisher = Publisher::new();
    let mut alone = publisher.subscribe_alone().unwrap();
    let handle = alone.handle();
    publisher.publish("news");
    publisher.publish_to("other", "news");
    assert!(handle.send("yours"));
    gets_data(&mut alone, "yours");
    gets_nothing(&mut alone);
    assert_eq!(handle.join("other").unwrap(), 1);
    publisher.publish_to("other", "now");
    gets_data(&mut alone, "now");
    assert!(handle.send("last") && handle.close());
    gets_data(&mut alone, "last");
    ends(&mut alone, EndCause::Closed);
}

#[test]
fn a_subscriber_alone_stays_when_it_leaves_channels_that_it_is_not_in() {
    let publisher = Publisher::new();
    let mut alone = publisher.subscribe_alone().unwrap();
    assert_eq!(alone.handle().leave(["a", "b"]), 0);
    assert!(alone.handle().send("yours"));
    gets_data(&mut alone, "yours");
    assert_eq!((alone.handle().join("a").unwrap(), alone.handle().leave(["a", "b"])), (1, 1));
    ends(&mut alone, EndCause::Unsubscribed);
}

#[test]
fn a_subscriber_alone_with_an_unknown_id_starts_at_the_newest_event() {
    let publisher = Publisher::builder().history(History::new()).build().unwrap();
    publisher.publish("old");
    let newest = publisher.last_event_id().unwrap();
    let mut alone = publisher.subscription(()).no_channels().last_event_id("unknown").open().unwrap();
    let gap = alone.next().unwrap();
    assert!(gap.starts_with("event: gap\n") && gap.ends_with(&format!("id: {newest}\n\n")), "{gap}");
}

#[test]
fn the_limits_of_the_queue_hold_for_sent_events() {
    let publisher = Publisher::builder().max_queued_events(2).build().unwrap();
    let (mut slow, handle) = opened(&publisher);
    assert!(handle.send("1") && handle.send("2"));
    assert!(!handle.send("3"), "beyond the limit");
    assert!(!handle.is_open());
    ends(&mut slow, EndCause::QueueFull);

    let oldest = publisher.subscription(()).overflow(Overflow::DropOldest).open().unwrap();
    let handle = oldest.handle();
    assert!((0..5).all(|n| handle.send(n.to_string())) && handle.close());
    assert_eq!(data(oldest), ["{\"lost\":3}", "3", "4"]);

    let keyed = publisher.subscription(()).overflow(Overflow::LatestPerKey).open().unwrap();
    let handle = keyed.handle();
    assert!((0..5).all(|n| handle.send(Event::new(n.to_string()).key("k"))) && handle.close());
    assert_eq!(data(keyed), ["4"]);
}

#[test]
fn a_sender_waits_for_a_blocking_subscriber() {
    let publisher = Publisher::builder().max_queued_events(1).overflow(Overflow::Block(PATIENCE)).build().unwrap();
    let (mut subscription, handle) = opened(&publisher);
    let sender = thread::spawn(move || (0..100).all(|n| handle.send(n.to_string())) && handle.close());
    for n in 0..100 {
        gets_data(&mut subscription, &n.to_string());
    }
    assert!(sender.join().unwrap());
    ends(&mut subscription, EndCause::Closed);
}

#[test]
fn an_event_sent_during_a_replay_has_its_place_in_it() {
    const EVENTS: usize = 3_000;
    let publisher = Publisher::builder().history(History::new()).build().unwrap();
    let id = publisher.last_event_id();
    for n in 0..EVENTS {
        publisher.publish(n.to_string());
    }
    let subscription = publisher.subscription(()).last_event_id(id).open().unwrap();
    let handle = subscription.handle();
    let mut expected: Vec<String> = (0..EVENTS).map(|n| n.to_string()).collect();
    for n in 0..10 {
        assert!(handle.send(format!("sent {n}")));
        publisher.publish(format!("published {n}"));
        expected.extend([format!("sent {n}"), format!("published {n}")]);
    }
    assert!(handle.send("last"));
    expected.push("last".into());
    publisher.close();
    assert_eq!(data(subscription), expected);
}

#[test]
fn events_sent_during_a_replay_are_bounded_too() {
    let publisher = Publisher::builder().history(History::new()).max_queued_events(3).build().unwrap();
    let id = publisher.last_event_id();
    for n in 0..3_000 {
        publisher.publish(n.to_string());
    }
    let mut subscription = publisher.subscription(()).last_event_id(id).open().unwrap();
    let handle = subscription.handle();
    assert_eq!((0..10).filter(|n| handle.send(n.to_string())).count(), 3);
    ends(&mut subscription, EndCause::QueueFull);
}

#[test]
fn a_handle_reports_whether_its_subscriber_is_registered() {
    let publisher = Publisher::new();
    let (subscription, handle) = opened(&publisher);
    assert!(handle.is_open());
    drop(subscription);
    assert!(!handle.is_open() && !handle.send("x") && !handle.on_end(|_| panic!("it has left")));
    let (_subscription, handle) = opened(&publisher);
    drop(publisher);
    assert!(!handle.is_open() && !handle.send("x"));
}

#[test]
fn closures_for_the_end_are_called_once_with_the_cause_before_the_hook() {
    let causes = Arc::new(Mutex::new(Vec::new()));
    let noted = |name: &'static str| {
        let causes = Arc::clone(&causes);
        move |cause: EndCause| causes.lock().unwrap().push((name, cause))
    };
    let hook = noted("hook");
    let publisher = Publisher::builder().on_end(move |ended| hook(ended.cause)).build().unwrap();
    type End = fn(Subscription);
    for (end, cause) in [
        (drop as End, EndCause::Dropped),
        (|subscription| assert!(subscription.handle().close()), EndCause::Closed),
        (|subscription| assert!(subscription.handle().disconnect()), EndCause::Disconnected),
    ] {
        let (subscription, handle) = opened(&publisher);
        assert!(
            handle.on_end(noted("first")) && handle.on_end(|_| panic!("as it should")) && handle.on_end(noted("last"))
        );
        end(subscription);
        assert_eq!(std::mem::take(&mut *causes.lock().unwrap()), [("first", cause), ("last", cause), ("hook", cause)]);
    }
}

#[test]
fn a_closure_for_the_end_may_use_the_publisher() {
    let publisher = Publisher::new();
    let ((leaving, handle), (mut staying, other)) = (opened(&publisher), opened(&publisher));
    let news = publisher.clone();
    handle.on_end(move |_| {
        news.publish("one has left");
        other.close();
    });
    drop(leaving);
    gets_data(&mut staying, "one has left");
    ends(&mut staying, EndCause::Closed);
}

#[test]
fn the_id_that_the_client_sent_is_known() {
    let publisher = Publisher::new();
    let with = publisher.subscription(()).last_event_id("token 17").open().unwrap();
    assert_eq!(with.handle().last_event_id(), Some("token 17"));
    assert_eq!(publisher.subscribe().unwrap().handle().last_event_id(), None);
}

#[test]
fn sent_events_are_written_in_the_background_too() {
    let publisher = Publisher::new();
    let subscription = publisher.subscribe_alone().unwrap();
    let handle = subscription.handle();
    let kept = crate::common::writers::Kept::default();
    subscription.write_in_background(kept.clone()).unwrap();
    assert!((0..100).all(|n| handle.send(n.to_string())) && handle.close());
    let expected: String = (0..100).map(|n| format!("data: {n}\n\n")).collect();
    eventually("all is written", || kept.text() == expected);
}

#[cfg(feature = "server")]
#[test]
fn a_worker_stops_soon_after_its_client_has_left() {
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    use crate::common::{http::GET, server::send};
    use server_sent_events::server::EventServer;

    let publisher = Publisher::new();
    let (started, workers) = channel();
    let alone = publisher.clone();
    let server = EventServer::bind("127.0.0.1:0").unwrap();
    let server = server.spawn(move |_| {
        let subscription = alone.subscribe_alone();
        let (handle, started) = (subscription.as_ref().unwrap().handle(), started.clone());
        thread::spawn(move || {
            let (ended, ends) = channel();
            handle.on_end(move |cause| ended.send((cause, Instant::now())).unwrap());
            while handle.send("token") {
                thread::sleep(Duration::from_millis(1));
            }
            started.send((Instant::now(), ends.recv().unwrap())).unwrap();
        });
        subscription
    });
    let server = server.unwrap();
    let mut client = send(server.local_addr(), GET);
    client.reads_until("data: token\n");
    let left = Instant::now();
    drop(client);
    let (stopped, (cause, ended)) = workers.recv_timeout(PATIENCE).unwrap();
    println!(
        "the worker stopped {:?} after its client had left, and its closure ran {:?} after",
        stopped - left,
        ended - left
    );
    assert!(matches!(cause, EndCause::ConnectionLost(_)), "{cause:?}");
}
