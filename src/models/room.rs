//! Publishers that wait for room, with `Overflow::Block`.

use std::time::Duration;

use super::{Recorder, Written, explore, frames, publish, settings};
use crate::sync::{FOREVER, thread};
use crate::{DEFAULT_CHANNEL, EndCause, Overflow, Publisher, Subscription};

/// A publisher whose subscribers' queues have room for one event.
fn publisher(timeout: Duration) -> Publisher {
    settings().max_queued_events(1).overflow(Overflow::Block(timeout)).build().unwrap()
}

/// Starts two threads that publish these events, and a last one that then closes the publisher.
fn publish_from_two_threads(publisher: &Publisher) -> thread::JoinHandle<()> {
    let threads = [["1", "2"], ["3", "4"]].map(|events| {
        let publisher = publisher.clone();
        thread::spawn(move || publish(&publisher, &events))
    });
    let publisher = publisher.clone();
    thread::spawn(move || {
        for thread in threads {
            thread.join().unwrap();
        }
        publisher.close();
    })
}

/// Asserts that each event came once, and those of one thread in order.
#[track_caller]
fn assert_all(text: &str) {
    let position = |event: &str| text.find(&frames(&[event])).unwrap_or_else(|| panic!("no {event} in {text:?}"));
    assert!(position("1") < position("2") && position("3") < position("4"), "got {text:?}");
    assert_eq!(text.len(), 4 * frames(&["1"]).len(), "got {text:?}");
}

/// Reads the stream to its end. The queue must never have more events than this.
fn read(mut subscription: Subscription, publisher: &Publisher, most: usize) -> String {
    let mut text = String::new();
    while let Some(frame) = subscription.recv() {
        text.push_str(&frame);
        let queued = publisher.channel_stats(DEFAULT_CHANNEL).queued;
        assert!(queued <= most, "{queued} events are queued");
    }
    text
}

#[test]
fn publishers_that_wait_for_one_subscriber_lose_nothing_and_never_exceed_its_limit() {
    explore(|| {
        let publisher = publisher(2 * FOREVER);
        let subscription = publisher.subscribe().unwrap();
        let publishing = publish_from_two_threads(&publisher);
        assert_all(&read(subscription, &publisher, 1));
        publishing.join().unwrap();
    });
}

#[test]
fn publishers_that_wait_for_two_subscribers_do_not_wait_for_each_other() {
    explore(|| {
        let publisher = publisher(2 * FOREVER);
        let [first, second] = [(); 2].map(|()| publisher.subscribe().unwrap());
        let publishing = publish_from_two_threads(&publisher);
        // Beyond the limit of one event per subscriber, each of the two publishers may queue one.
        let most = 2 * (1 + 2);
        let reading = publisher.clone();
        let reading = thread::spawn(move || read(second, &reading, most));
        let text = read(first, &publisher, most);
        assert_all(&text);
        assert_eq!(reading.join().unwrap(), text);
        publishing.join().unwrap();
    });
}

#[test]
fn a_stream_in_the_background_makes_room_for_its_publishers() {
    explore(|| {
        let publisher = publisher(2 * FOREVER);
        let subscription = publisher.subscribe().unwrap();
        let written = Written::default();
        let end = written.write(subscription, Recorder(written.clone()));
        let publishing = publish_from_two_threads(&publisher);
        end.recv().unwrap();
        publishing.join().unwrap();
        assert_all(&written.text());
        assert_eq!(written.end_cause(), EndCause::Closed);
    });
}

#[test]
fn a_publisher_that_waits_for_a_subscriber_holds_up_only_its_publishers() {
    explore(|| {
        let publisher = publisher(2 * FOREVER);
        let [mut free, mut full] = ["free", "full"].map(|channel| publisher.subscribe_to(channel).unwrap());
        publisher.publish_to(["free", "full"], "0");
        let (to_both, to_free) = (publisher.clone(), publisher);
        let publishing = [
            thread::spawn(move || to_both.publish_to(["free", "full"], "both").subscribers()),
            thread::spawn(move || to_free.publish_to("free", "free").subscribers()),
        ];
        let expect = |subscription: &mut Subscription, event| {
            assert_eq!(subscription.recv().unwrap(), *frames(&[event]));
        };
        expect(&mut free, "0");
        // Whichever publisher came first, only the other one waits for the full queue.
        expect(&mut free, "free");
        expect(&mut full, "0");
        expect(&mut full, "both");
        expect(&mut free, "both");
        assert_eq!(publishing.map(|thread| thread.join().unwrap()), [2, 1]);
    });
}

#[test]
fn a_subscriber_that_leaves_frees_the_publishers_that_wait_for_it() {
    explore(|| {
        let publisher = publisher(2 * FOREVER);
        let [mut subscription, leaving] = [(); 2].map(|()| publisher.subscribe().unwrap());
        let publishing = publish_from_two_threads(&publisher);
        let first = subscription.recv().unwrap();
        drop(leaving);
        assert_all(&(String::from(first) + &read(subscription, &publisher, 2 * (1 + 2))));
        publishing.join().unwrap();
    });
}

#[test]
fn a_subscriber_without_room_until_the_timeout_is_disconnected_and_others_get_events_in_order() {
    explore(|| {
        let publisher = publisher(Duration::from_secs(1));
        let [mut reading, mut idle] = [(); 2].map(|()| publisher.subscribe().unwrap());
        let publishing = publisher.clone();
        let publishing = thread::spawn(move || publish(&publishing, &["1", "2", "3"]));
        let text: String = reading.by_ref().take(3).collect();
        let count = text.matches("data").count();
        assert_eq!(text, frames(&["1", "2", "3"][..count]));
        publishing.join().unwrap();
        let idle_text: String = idle.by_ref().collect();
        assert_eq!((&*idle_text, idle.end_cause()), ("", Some(EndCause::QueueFull)));
        // The time can pass before a thread runs that would make room.
        assert!(count == 3 || reading.end_cause() == Some(EndCause::QueueFull), "got {count}");
    });
}
