//! No code of the caller runs under a lock: wherever it runs, it can call every method of the publisher.
//!
//! The lock is not reentrant, so a call under it deadlocks, and the watchdog ends the test.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::common::Watchdog;
use server_sent_events::{Event, History, Publisher, Subscription, WeakPublisher};

thread_local! {
    /// Whether this thread is already in a callback: what a callback creates has callbacks of its own.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Calls every method of the publisher, and counts that it did.
struct Caller {
    publisher: WeakPublisher<Caller>,
    closes: bool,
    /// A callback created it: if it called too, it would create another one, without an end.
    is_silent: bool,
    calls: Arc<AtomicUsize>,
}

impl Caller {
    fn call(&self) {
        if self.is_silent || INSIDE.replace(true) {
            return;
        }
        if let Some(publisher) = self.publisher.upgrade() {
            publisher.publish("x");
            publisher.publish_to(["a", "b"], "x");
            publisher.publish_with("a", |_: &Caller| None);
            let subscription = publisher.subscription(self.clone()).channels(["a", "c"]).open();
            drop(publisher.subscriber_properties(["a", "b"]));
            publisher.unsubscribe_if("c", |_| true);
            let _ = (publisher.stats(), publisher.downgrade(), publisher.clone(), format!("{publisher:?}"));
            drop(subscription);
            if self.closes {
                publisher.close();
            }
            self.calls.fetch_add(1, SeqCst);
        }
        INSIDE.set(false);
    }
}

impl Clone for Caller {
    fn clone(&self) -> Self {
        self.call();
        let is_silent = INSIDE.get();
        Self { publisher: self.publisher.clone(), closes: self.closes, is_silent, calls: Arc::clone(&self.calls) }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.call();
    }
}

impl AsRef<str> for Caller {
    fn as_ref(&self) -> &str {
        self.call();
        "a"
    }
}

impl From<Caller> for Event {
    fn from(caller: Caller) -> Self {
        caller.call();
        Event::new("from a caller")
    }
}

/// A publisher of small queues with one subscriber, and what calls back into it.
struct Scene {
    publisher: Publisher<Caller>,
    subscription: Subscription,
    calls: Arc<AtomicUsize>,
}

impl Scene {
    fn new() -> Self {
        let publisher = Publisher::builder_for().max_queued_events(4).max_subscribers(3).build().unwrap();
        let calls = Arc::default();
        let caller =
            Caller { publisher: publisher.downgrade(), closes: false, is_silent: false, calls: Arc::clone(&calls) };
        let subscription = publisher.subscription(caller).channels(["a", "b"]).open().unwrap();
        Self { publisher, subscription, calls }
    }

    fn caller(&self) -> Caller {
        Caller { publisher: self.publisher.downgrade(), closes: true, is_silent: false, calls: Arc::clone(&self.calls) }
    }
}

/// Runs `act` under a watchdog, and checks that something called back.
#[track_caller]
fn calls_back(what: &str, act: impl FnOnce(Scene)) {
    let _watchdog = Watchdog::new(what);
    let scene = Scene::new();
    let calls = Arc::clone(&scene.calls);
    act(scene);
    assert_ne!(calls.load(SeqCst), 0, "{what}: nothing called back");
}

#[test]
fn filters_may_call_every_method() {
    calls_back("the filter of unsubscribe", |scene| {
        let caller = scene.caller();
        scene.publisher.unsubscribe_if(["a", "b"], |_| {
            caller.call();
            true
        });
    });
}

#[test]
fn channel_names_and_their_iterators_may_call_every_method() {
    calls_back("AsRef<str> in publish_to", |scene| {
        scene.publisher.publish_to(scene.caller(), "x");
    });
    calls_back("an iterator in publish_to", |scene| {
        let caller = scene.caller();
        let names = ["a", "b"].into_iter().inspect(|_| caller.call());
        scene.publisher.publish_to(names, "x");
    });
    calls_back("AsRef<str> in subscribers", |scene| drop(scene.publisher.subscriber_properties([scene.caller()])));
    calls_back("AsRef<str> in unsubscribe", |scene| {
        scene.publisher.unsubscribe_if([scene.caller()], |_| true);
    });
    calls_back("AsRef<str> in channels", |scene| {
        let builder = scene.publisher.subscription(scene.caller()).channels([scene.caller()]);
        drop(builder.open());
    });
}

#[test]
fn conversions_into_an_event_may_call_every_method() {
    calls_back("Into<Event> in publish_to", |scene| {
        scene.publisher.publish_to("a", scene.caller());
    });
    calls_back("Into<Event> in initial_data", |scene| {
        drop(scene.publisher.subscription(scene.caller()).initial_data([scene.caller()]).open());
    });
}

#[test]
fn closures_may_call_every_method() {
    calls_back("a closure that is called", |mut scene| {
        let caller = scene.caller();
        scene.publisher.publish_with("a", move |_: &Caller| {
            caller.call();
            Some(Event::new("x"))
        });
        assert!(scene.subscription.try_recv().is_ok());
    });
    let unused = |scene: &Scene, channel: &str| {
        let caller = scene.caller();
        scene.publisher.publish_with(channel, move |_: &Caller| {
            let _captured = &caller;
            None
        });
    };
    calls_back("an unused closure is dropped", |scene| unused(&scene, "nobody is here"));
    calls_back("a closure is dropped with its subscription", |scene| {
        unused(&scene, "a");
        drop(scene.subscription);
    });
    calls_back("a full queue drops closures", |scene| {
        for _ in 0..5 {
            unused(&scene, "a");
        }
    });
    calls_back("a closure is dropped after the publisher has closed", |scene| {
        unused(&scene, "a");
        scene.publisher.close();
        drop(scene.subscription);
    });
}

#[test]
fn closures_that_the_history_evicts_may_call_every_method() {
    let _watchdog = Watchdog::new("a history that evicts closures");
    let now = Arc::new(AtomicUsize::new(0));
    let clock = Arc::clone(&now);
    let history = History::new().max_events_per_channel(2).max_age(Duration::from_secs(1));
    let history = history.clock(move || Duration::from_secs(clock.load(SeqCst) as u64));
    let publisher = Publisher::builder_for::<Caller>().history(history).build().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let caller =
        || Caller { publisher: publisher.downgrade(), closes: true, is_silent: false, calls: Arc::clone(&calls) };
    let publish = || {
        let caller = caller();
        publisher.publish_with("kept", move |_: &Caller| {
            let _captured = &caller;
            None
        });
    };
    publish();
    publish();
    assert_eq!(calls.load(SeqCst), 0, "they are kept");
    publish();
    assert_eq!(calls.load(SeqCst), 1, "the oldest of three was evicted");
    now.store(10, SeqCst);
    drop(publisher.subscription(caller()).channels("kept").open().unwrap());
    assert!(calls.load(SeqCst) > 2, "the others had expired when a subscriber joined");
}

#[test]
fn properties_may_call_every_method_when_they_are_dropped() {
    calls_back("with the subscription", |scene| drop(scene.subscription));
    calls_back("with a subscription after close", |scene| {
        scene.publisher.close();
        drop(scene.subscription);
    });
    calls_back("by close, after its subscription took its end", |mut scene| {
        scene.publisher.close();
        assert!(scene.subscription.next().is_none());
        drop(scene.subscription);
    });
    calls_back("with the list of subscribers", |scene| {
        let subscribers = scene.publisher.subscriber_properties("a");
        drop(scene.subscription);
        let before = scene.calls.load(SeqCst);
        drop(subscribers);
        assert_ne!(scene.calls.load(SeqCst), before);
    });
    calls_back("at the subscriber limit", |scene| {
        // None that closes: the subscriber limit would never be reached.
        let caller = || Caller {
            publisher: scene.publisher.downgrade(),
            closes: false,
            is_silent: false,
            calls: Arc::clone(&scene.calls),
        };
        let open = |_| scene.publisher.subscription(caller()).channels("b").open();
        let opened: Vec<_> = (0..5).map(open).collect();
        assert!(opened.last().unwrap().is_err());
    });
    calls_back("by a refused subscription", |scene| {
        assert!(scene.publisher.subscription(scene.caller()).channels([""; 0]).open().is_err());
    });
    calls_back("by a full queue", |scene| {
        for _ in 0..5 {
            scene.publisher.publish_to("a", "x");
        }
        drop(scene.subscription);
    });
}
