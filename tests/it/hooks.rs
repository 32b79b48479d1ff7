//! The application's hooks report each subscription: when it opens and why it ends, exactly once each.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::{Watchdog, eventually, seed};
use server_sent_events::{EndCause, Ended, History, OpenError, Opened, Publisher, PublisherBuilder, Subscription};

/// The calls of the hooks, in order: the subscriber, its channels, and why it ended.
type Calls = Arc<Mutex<Vec<(String, String, Option<EndCause>)>>>;

fn builder(calls: &Calls) -> PublisherBuilder<String> {
    let (opened, ended) = (Arc::clone(calls), Arc::clone(calls));
    Publisher::builder_for::<String>()
        .on_open(move |stream| {
            opened.lock().unwrap().push((stream.properties.clone(), stream.channels.join(","), None));
        })
        .on_end(move |stream| {
            ended.lock().unwrap().push((stream.properties.clone(), stream.channels.join(","), Some(stream.cause)));
        })
}

/// Checks that the hooks are called once each for this subscription, in this order, with these channels and this cause.
#[track_caller]
fn are_told(calls: &Calls, name: &str, channels: &str, cause: EndCause) {
    let of_it = || calls.lock().unwrap().iter().filter(|call| call.0 == name).cloned().collect::<Vec<_>>();
    eventually("both hooks were called", || of_it().len() >= 2);
    let call = |cause| (name.to_owned(), channels.to_owned(), cause);
    assert_eq!(of_it(), [call(None), call(Some(cause))]);
}

#[test]
fn each_way_to_end_calls_the_hook_with_its_cause() {
    let calls = Calls::default();
    let publisher = builder(&calls).max_queued_events(1).build().unwrap();
    let open = |name: &str| publisher.subscription(name.to_owned()).channels([name, "all"]);

    drop(open("dropped").open().unwrap());
    are_told(&calls, "dropped", "dropped,all", EndCause::Dropped);

    let _slow = open("slow").open().unwrap();
    publisher.publish_to("slow", "1");
    publisher.publish_to("slow", "2");
    are_told(&calls, "slow", "slow,all", EndCause::QueueFull);

    let _one = open("unsubscribed").open().unwrap();
    publisher.unsubscribe_if(["all", "unsubscribed"], |_| true);
    are_told(&calls, "unsubscribed", "unsubscribed,all", EndCause::Unsubscribed);

    let _one = open("disconnected").open().unwrap();
    publisher.disconnect_if(|name| name == "disconnected");
    are_told(&calls, "disconnected", "disconnected,all", EndCause::Disconnected);

    let closed = open("closed by its handle").open().unwrap();
    closed.handle().close();
    are_told(&calls, "closed by its handle", "closed by its handle,all", EndCause::Closed);

    let mut expired = open("expired").max_lifetime(Duration::from_millis(1)).open().unwrap();
    assert_eq!(expired.next(), None);
    are_told(&calls, "expired", "expired,all", EndCause::Expired);

    struct Broken;
    impl io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    // Of another publisher: the stream goes only after its hook was called, and must not be counted below.
    let other = builder(&calls).build().unwrap();
    let lost = other.subscription("lost".to_owned()).channels(["lost", "all"]).initial_data(["x"]).open().unwrap();
    lost.write_in_background(Broken).unwrap();
    are_told(&calls, "lost", "lost,all", EndCause::ConnectionLost(io::ErrorKind::BrokenPipe));

    let _one = open("closed").open().unwrap();
    publisher.close();
    are_told(&calls, "closed", "closed,all", EndCause::Closed);

    let _one = open("shut down").open().unwrap();
    assert_eq!(publisher.shutdown(Duration::ZERO), 7, "the subscriptions that still exist");
    are_told(&calls, "shut down", "shut down,all", EndCause::Closed);
}

#[test]
fn dropping_the_last_handle_calls_the_hook_which_still_has_a_publisher() {
    let calls = Calls::default();
    let recorded = Arc::clone(&calls);
    let publisher = Publisher::builder_for::<String>()
        .on_end(move |Ended { publisher, properties, cause, .. }| {
            publisher.publish("nobody hears it");
            assert_eq!(publisher.stats().subscribers, 0);
            recorded.lock().unwrap().push((properties.clone(), String::new(), Some(cause)));
        })
        .build()
        .unwrap();
    let _ada = publisher.subscription("Ada".into()).open().unwrap();
    let _bob = publisher.subscription("Bob".into()).open().unwrap();
    let weak = publisher.downgrade();
    drop(publisher);
    assert_eq!(calls.lock().unwrap().len(), 2);
    assert!(weak.upgrade().is_none());
}

#[test]
fn a_refused_subscription_calls_no_hook() {
    let calls = Calls::default();
    let publisher = builder(&calls).max_subscribers(1).build().unwrap();
    let _one = publisher.subscription("one".into()).open().unwrap();
    let refused = publisher.subscription("two".into()).open();
    assert_eq!(refused.unwrap_err(), OpenError::TooManySubscribers { limit: 1 });
    assert_eq!(calls.lock().unwrap().len(), 1);
}

#[test]
fn a_hook_may_use_the_publisher_and_may_panic() {
    let _watchdog = Watchdog::new("a_hook_may_use_the_publisher_and_may_panic");
    let calls = Calls::default();
    let recorded = Arc::clone(&calls);
    let publisher = Publisher::builder_for::<String>()
        .max_queued_events(2)
        .on_open(|Opened { publisher, properties: name, .. }| {
            publisher.publish(format!("{name} has come"));
            assert!(publisher.stats().subscribers > 0);
            panic!("on purpose");
        })
        .on_end(move |Ended { publisher, properties: name, channels, cause, .. }| {
            recorded.lock().unwrap().push((name.clone(), channels.join(","), Some(cause)));
            publisher.publish(format!("{name} has left"));
            drop(publisher.subscriber_properties("default channel"));
            panic!("on purpose");
        })
        .build()
        .unwrap();
    let mut ada = publisher.subscription("Ada".into()).open().unwrap();
    crate::common::gets_data(&mut ada, "Ada has come");
    // Each publish in a hook fills the queues further.
    let _others: Vec<_> = (0..10).map(|n| publisher.subscription(n.to_string()).open().unwrap()).collect();
    for _ in 0..10 {
        publisher.publish("x");
    }
    eventually("the hook was called once per slow subscriber", || calls.lock().unwrap().len() == 11);
    assert_eq!(publisher.stats().ended.queue_full, 11);
}

/// The users online, as the hooks report them, while subscribers open, leave, disconnect and close from many threads.
#[test]
fn the_two_hooks_are_called_once_each_and_in_order_however_it_ends() {
    let _watchdog = Watchdog::new("the_two_hooks_are_called_once_each");
    let mut random = fastrand::Rng::with_seed(seed("the_two_hooks_are_called_once_each"));
    let calls = Calls::default();
    let publisher = builder(&calls).max_queued_events(3).build().unwrap();
    thread::scope(|threads| {
        for thread in 0..6 {
            let mut random = random.fork();
            let publisher = publisher.clone();
            threads.spawn(move || {
                for n in 0..300 {
                    let subscription = publisher.subscription(format!("{thread} {n}")).open().unwrap();
                    match random.u8(..5) {
                        0 => drop(subscription.handle().close()),
                        1 => drop(subscription.handle().disconnect()),
                        2 => subscription.write_in_background(io::sink()).unwrap(),
                        3 => drop(publisher.publish("x")),
                        _ => {}
                    }
                    if random.u8(..100) == 0 {
                        publisher.close();
                    }
                }
            });
        }
        threads.spawn(|| {
            for _ in 0..300 {
                assert!(publisher.disconnect_if(|name| name.ends_with('7')) < 7);
            }
        });
    });
    publisher.close();
    let calls = || calls.lock().unwrap().clone();
    eventually("all have ended", || calls().len() == 2 * 6 * 300);
    let mut online = std::collections::BTreeSet::new();
    for (name, _, cause) in calls() {
        let was_right = if cause.is_none() { online.insert(name.clone()) } else { online.remove(&name) };
        assert!(was_right, "{name}: {cause:?}");
    }
    assert_eq!(online.len(), 0);
}

/// Either the subscription or the publisher may be dropped first.
#[test]
fn the_end_hook_is_called_even_if_the_last_handle_is_dropped_at_the_same_moment() {
    for round in 0..2_000 {
        let calls = Calls::default();
        let publisher = builder(&calls).build().unwrap();
        let subscription = publisher.subscription("one".into()).open().unwrap();
        let dropping = thread::spawn(move || drop(subscription));
        for _ in 0..round * 2 {
            std::hint::spin_loop();
        }
        drop(publisher);
        dropping.join().unwrap();
        assert_eq!(calls.lock().unwrap().len(), 2, "round {round}");
    }
}

thread_local! {
    /// The depth of calls of the application's code on this thread.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Records how deep the calls of `act` nest.
fn nested(deepest: &AtomicUsize, act: impl FnOnce()) {
    DEPTH.set(DEPTH.get() + 1);
    deepest.fetch_max(DEPTH.get(), SeqCst);
    act();
    DEPTH.set(DEPTH.get() - 1);
}

const CHAIN: usize = 1_000;

#[test]
fn hooks_that_publish_do_not_nest_however_many_subscribers_that_ends() {
    let _watchdog = Watchdog::new("hooks that publish");
    let (deepest, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (deepest_seen, called) = (Arc::clone(&deepest), Arc::clone(&calls));
    let publisher = Publisher::builder()
        .on_end(move |ended| {
            called.fetch_add(1, SeqCst);
            nested(&deepest_seen, || drop(ended.publisher.publish("somebody has left")));
        })
        .build()
        .unwrap();
    // Each event ends one: the first has room for one, the next for two.
    let open = |n: usize| publisher.subscription(()).max_queued_events(n + 1).open().unwrap();
    let _subscribers: Vec<Subscription> = (0..CHAIN).map(open).collect();
    publisher.publish("1");
    publisher.publish("2");
    assert_eq!((calls.load(SeqCst), deepest.load(SeqCst)), (CHAIN, 1));
}

/// Publishes when it is dropped.
struct Farewell {
    publisher: Publisher,
    deepest: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
        nested(&self.deepest, || drop(self.publisher.publish("one was evicted")));
    }
}

#[test]
fn closures_that_publish_when_they_are_dropped_do_not_nest_however_many_that_evicts() {
    let _watchdog = Watchdog::new("drops that publish");
    let (deepest, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let publisher = Publisher::builder().history(History::new().max_events_per_channel(CHAIN)).build().unwrap();
    for _ in 0..CHAIN {
        let (deepest, dropped) = (Arc::clone(&deepest), Arc::clone(&dropped));
        let farewell = Farewell { publisher: publisher.clone(), deepest, dropped };
        publisher.publish_with("default channel", move |()| {
            let _captured = &farewell;
            None
        });
    }
    publisher.publish("this evicts the first of them");
    assert_eq!((dropped.load(SeqCst), deepest.load(SeqCst)), (CHAIN, 1));
}

struct PanicsWhenDropped(bool);

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        if self.0 {
            panic!("properties that panic when they are dropped");
        }
    }
}

#[test]
fn properties_that_panic_when_they_are_dropped_cost_nobody_else_a_hook() {
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let publisher = Publisher::builder_for::<PanicsWhenDropped>()
        .max_queued_events(1)
        .on_end(move |_| {
            called.fetch_add(1, SeqCst);
        })
        .build()
        .unwrap();
    let subscribers: Vec<Subscription> = [false, true, true, false]
        .map(|panics| publisher.subscription(PanicsWhenDropped(panics)).open().unwrap())
        .into();
    publisher.publish("1");
    assert_eq!(publisher.publish("2").subscribers(), 0, "all of them were full");
    assert_eq!(calls.load(SeqCst), 4);
    drop(subscribers);
    let one = publisher.subscription(PanicsWhenDropped(true)).open().unwrap();
    drop(one);
    assert_eq!(publisher.disconnect_if(|_| true), 0);
    assert_eq!((calls.load(SeqCst), publisher.stats().subscribers), (5, 0));
}

#[test]
fn a_subscriber_that_leaves_during_on_open_is_reported_with_the_channels_that_it_was_in_last() {
    let calls = Calls::default();
    let ended = Arc::clone(&calls);
    let publisher = Publisher::builder_for::<String>()
        .on_open(|stream| {
            assert_eq!(stream.publisher.unsubscribe_if("first", |_| true), 1);
            assert_eq!(stream.publisher.disconnect_if(|_| true), 1);
        })
        .on_end(move |stream| {
            ended.lock().unwrap().push((stream.properties.clone(), stream.channels.join(","), Some(stream.cause)));
        });
    let publisher = publisher.build().unwrap();
    let subscription = publisher.subscription("Ada".to_owned()).channels(["first", "second"]).open().unwrap();
    let call = ("Ada".to_owned(), "second".to_owned(), Some(EndCause::Disconnected));
    assert_eq!(*calls.lock().unwrap(), [call]);
    drop(subscription);
}
