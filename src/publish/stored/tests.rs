mod failing;
mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::store::{StoreState, fake::Disk};
use crate::{
    BuildError, EndCause, Event, History, OpenError, Overflow, PublishError, Publisher, Resumption, Subscription,
};

const LONG: Duration = Duration::from_secs(20);

fn on(disk: &Disk) -> Publisher {
    Publisher::builder().history(History::new().store(disk.clone())).heartbeat(None).build().unwrap()
}

fn confirmed(publisher: &Publisher, channel: &str, event: &str) -> String {
    publisher.publish_confirmed(channel, event, LONG).unwrap().id().unwrap().to_owned()
}

/// Returns the data of everything in the subscription's queue.
fn data(subscription: &mut Subscription) -> Vec<String> {
    let frames = std::iter::from_fn(|| subscription.try_recv().ok().map(String::from));
    let lines: Vec<String> = frames.flat_map(|frame| frame.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    lines.iter().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}

/// Waits until the condition holds.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_restart_is_no_gap() {
    let disk = Disk::new(100);
    let seen = {
        let publisher = on(&disk);
        let seen = confirmed(&publisher, "a", "1");
        publisher.publish_to("a", "2");
        publisher.publish_to("b", "not for a");
        seen
    };
    let publisher = on(&disk);
    let mut subscription = publisher.subscription(()).channels("a").last_event_id(seen.as_str()).open().unwrap();
    confirmed(&publisher, "a", "3");
    assert_eq!(subscription.resumption(), Resumption::Complete);
    assert_eq!(data(&mut subscription), ["2", "3"]);
}

#[test]
fn a_lost_tail_is_a_gap_for_a_client_that_saw_it_and_for_one_that_did_not() {
    let disk = Disk::new(100);
    let publisher = on(&disk);
    let kept = confirmed(&publisher, "a", "kept");
    disk.sync();
    let lost = confirmed(&publisher, "a", "lost");
    drop(publisher);
    disk.lose_writes(usize::MAX);

    let publisher = on(&disk);
    let other = confirmed(&publisher, "a", "new");
    assert_ne!(other, lost);
    for id in [&lost, &kept] {
        let mut subscription = publisher.subscription(()).channels("a").last_event_id(id.as_str()).open().unwrap();
        assert_eq!(subscription.resumption(), Resumption::Gap);
        let received = data(&mut subscription);
        assert!(received[0].starts_with("{\"from\""), "{received:?}");
        assert_eq!(received[1..], ["new"], "what is kept is not repeated");
    }
    let mut subscription = publisher.subscription(()).channels("a").last_event_id(other.as_str()).open().unwrap();
    assert_eq!(subscription.resumption(), Resumption::Complete);
    assert!(data(&mut subscription).is_empty());
}

#[test]
fn a_stream_that_begins_after_a_loss_resumes_without_a_gap() {
    let disk = Disk::new(100);
    let publisher = on(&disk);
    confirmed(&publisher, "a", "lost");
    drop(publisher);
    disk.lose_writes(usize::MAX);
    let publisher = on(&disk);
    let start = publisher.last_event_id().unwrap();
    confirmed(&publisher, "a", "new");
    let mut subscription = publisher.subscription(()).channels("a").last_event_id(start).open().unwrap();
    assert_eq!(subscription.resumption(), Resumption::Complete);
    assert_eq!(data(&mut subscription), ["new"]);
}

#[test]
fn an_event_is_delivered_only_after_it_is_stored() {
    let disk = Disk::new(100);
    let publisher = on(&disk);
    let mut subscription = publisher.subscription(()).open().unwrap();
    disk.block(true);
    let receipt = publisher.publish("one");
    assert_eq!((receipt.subscribers(), receipt.id(), receipt.is_refused()), (1, None, false));
    let error = publisher.publish_confirmed("other", "two", Duration::from_millis(20)).unwrap_err();
    assert_eq!(error, PublishError::TimedOut);
    assert_eq!(publisher.store_state(), Some(StoreState::Running { pending: 2 }));
    assert!(data(&mut subscription).is_empty());
    assert_eq!(publisher.flush(Duration::from_millis(20)), Err(PublishError::TimedOut));

    disk.block(false);
    publisher.flush(LONG).unwrap();
    assert_eq!(data(&mut subscription), ["one"]);
    assert_eq!(disk.events(), 2);
    assert_eq!(publisher.store_state(), Some(StoreState::Running { pending: 0 }));
}

#[test]
fn a_store_that_does_not_keep_up_refuses_events_and_loses_none_that_it_accepted() {
    let disk = Disk::new(10);
    let publisher = on(&disk);
    let mut subscription = publisher.subscription(()).open().unwrap();
    disk.block(true);
    let mut accepted = Vec::new();
    for event in 0..30 {
        if !publisher.publish(event.to_string()).is_refused() {
            accepted.push(event.to_string());
        }
    }
    assert_eq!(accepted.len(), 10);
    assert_eq!(publisher.publish_confirmed("a", "more", LONG), Err(PublishError::Full));
    assert_eq!(publisher.stats().store.events_refused, 21);
    disk.block(false);
    publisher.flush(LONG).unwrap();
    assert_eq!(data(&mut subscription), accepted);
    assert!(!publisher.publish("again").is_refused());
}

#[test]
fn a_broken_store_delivers_live_and_the_next_start_is_a_gap() {
    let disk = Disk::new(100);
    let publisher = on(&disk);
    let seen = confirmed(&publisher, "a", "stored");
    let mut subscription = publisher.subscribe_to("a").unwrap();
    disk.fail(true);
    publisher.publish_to("a", "live only");
    assert_eq!(publisher.flush(LONG), Err(PublishError::Broken));
    assert!(matches!(publisher.store_state(), Some(StoreState::Broken { reason }) if reason.contains("no space left")));
    assert_eq!(publisher.publish_confirmed("a", "refused", LONG), Err(PublishError::Broken));
    assert_eq!(data(&mut subscription), ["live only"]);
    let stats = publisher.stats().store;
    assert_eq!((stats.events_stored, stats.events_not_stored), (1, 1));
    let mut resumed = publisher.subscription(()).channels("a").last_event_id(seen.as_str()).open().unwrap();
    assert_eq!(data(&mut resumed), ["live only"], "the history in memory is complete");
    drop((publisher, subscription, resumed));

    disk.fail(false);
    let publisher = on(&disk);
    let resumed = publisher.subscription(()).channels("a").last_event_id(seen).open().unwrap();
    assert_eq!(resumed.resumption(), Resumption::Gap);
}

#[test]
fn a_loss_that_only_a_client_knows_of_is_a_gap_for_all_after_it() {
    // The lost event is in an era with another event, or in one without.
    for restarts in [0, 1] {
        let disk = Disk::new(100);
        let mut publisher = on(&disk);
        let kept = confirmed(&publisher, "a", "kept");
        for _ in 0..restarts {
            drop(publisher);
            publisher = on(&disk);
        }
        disk.fail(true);
        publisher.publish_to("a", "lost");
        assert_eq!(publisher.flush(LONG), Err(PublishError::Broken));
        let seen = publisher.last_event_id().unwrap();
        drop(publisher);
        disk.fail(false);
        disk.forget_note();

        let publisher = on(&disk);
        let new = confirmed(&publisher, "a", "new");
        assert_eq!(resumption(&publisher, &kept), Resumption::Complete, "nothing shows the loss yet");
        assert_eq!(publisher.stats().store.losses_found, 0);
        for _ in 0..2 {
            assert_eq!(resumption(&publisher, &seen), Resumption::Gap);
            assert_eq!(publisher.stats().store.losses_found, 1);
        }
        assert_eq!(resumption(&publisher, &kept), Resumption::Gap);
        assert_eq!(resumption(&publisher, &new), Resumption::Complete);
        drop(publisher);
        let publisher = on(&disk);
        assert_eq!(resumption(&publisher, &kept), Resumption::Gap, "the store remembers it");
        assert_eq!(resumption(&publisher, &new), Resumption::Complete);
    }
}

#[test]
fn a_stream_that_began_before_the_first_event_resumes_after_restarts() {
    let disk = Disk::new(100);
    let start = on(&disk).last_event_id().unwrap();
    for _ in 0..3 {
        let publisher = on(&disk);
        assert_eq!(resumption(&publisher, &start), Resumption::Complete);
    }
    let publisher = on(&disk);
    confirmed(&publisher, "a", "first");
    let mut resumed = publisher.subscription(()).channels("a").last_event_id(start).open().unwrap();
    assert_eq!(data(&mut resumed), ["first"]);
}

#[test]
fn a_publisher_that_waits_while_the_store_breaks_is_not_confirmed() {
    let disk = Disk::new(100);
    let publisher = on(&disk);
    disk.block(true);
    let waiting = thread::spawn({
        let publisher = publisher.clone();
        move || publisher.publish_confirmed("a", "one", LONG)
    });
    wait_until("it is accepted", || publisher.stats().store.pending == 1);
    disk.fail(true);
    disk.block(false);
    assert_eq!(waiting.join().unwrap(), Err(PublishError::Broken));
}

#[test]
fn dropping_the_last_handle_stores_and_delivers_what_was_accepted() {
    let disk = Disk::new(1_000);
    let publisher = on(&disk);
    let mut subscription = publisher.subscribe().unwrap();
    disk.block(true);
    for event in 0..100 {
        assert!(!publisher.publish(event.to_string()).is_refused());
    }
    let unblock = thread::spawn({
        let disk = disk.clone();
        move || disk.block(false)
    });
    drop(publisher);
    unblock.join().unwrap();
    assert_eq!(disk.events(), 100);
    assert_eq!(data(&mut subscription).len(), 100);
    assert_eq!(subscription.next(), None);
}

#[test]
fn closing_ends_the_streams_after_the_events_published_before() {
    let disk = Disk::new(100);
    let publisher = on(&disk);
    let subscription = publisher.subscribe().unwrap();
    disk.block(true);
    publisher.publish("the last word");
    publisher.close();
    publisher.publish("for later subscribers");
    disk.block(false);
    let received: Vec<String> = subscription.collect();
    assert!(received.last().unwrap().starts_with("data: the last word\n"), "{received:?}");
}

#[test]
fn a_shutdown_first_stores_and_delivers_what_was_published() {
    let disk = Disk::new(100);
    let publisher = on(&disk);
    let subscription = publisher.subscribe().unwrap();
    let reader = thread::spawn(move || subscription.collect::<String>());
    publisher.publish("the last word");
    assert_eq!(publisher.shutdown(LONG), 0);
    assert!(reader.join().unwrap().contains("data: the last word\n"));
}

#[test]
fn a_shutdown_makes_the_store_durable_even_if_the_publisher_is_never_dropped() {
    let disk = Disk::new(100);
    let publisher = on(&disk);
    let seen = confirmed(&publisher, "a", "one");
    publisher.shutdown(LONG);
    assert_eq!(disk.lose_writes(usize::MAX), 1);
    drop(publisher);
    assert_eq!(resumption(&on(&disk), &seen), Resumption::Complete);
}

#[test]
fn the_store_thread_runs_no_hook_and_no_drop_of_the_application() {
    /// Notes the name of the thread that drops it.
    struct Watched(Arc<AtomicUsize>, Arc<AtomicBool>);
    fn check(calls: &AtomicUsize, is_wrong: &AtomicBool) {
        calls.fetch_add(1, SeqCst);
        is_wrong.fetch_or(thread::current().name() == Some("sse store"), SeqCst);
    }
    impl Drop for Watched {
        fn drop(&mut self) {
            check(&self.0, &self.1);
        }
    }
    let disk = Disk::new(100);
    let (calls, is_wrong) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clock = {
        let (calls, is_wrong, start) = (Arc::clone(&calls), Arc::clone(&is_wrong), Instant::now());
        move || {
            check(&calls, &is_wrong);
            start.elapsed()
        }
    };
    let hook = {
        let (calls, is_wrong) = (Arc::clone(&calls), Arc::clone(&is_wrong));
        move |_: crate::Ended<'_, Watched>| check(&calls, &is_wrong)
    };
    let history = History::new().max_events_per_channel(1).max_age(LONG).clock(clock).store(disk.clone());
    let builder = Publisher::builder_for::<Watched>().history(history).max_queued_events(1).on_end(hook);
    let publisher = builder.build().unwrap();
    let watched = || Watched(Arc::clone(&calls), Arc::clone(&is_wrong));
    let subscription = publisher.subscription(watched()).channels("a").open().unwrap();
    let handle = subscription.handle();
    for _ in 0..3 {
        let captured = watched();
        publisher.publish_with("a", move |_| {
            let _ = &captured;
            None
        });
    }
    publisher.flush(LONG).unwrap();
    drop(subscription);
    assert!(!handle.is_open());
    // Two closures that were evicted, the subscriber's hook and its properties, and at least one look at the clock.
    wait_until("the application was called", || calls.load(SeqCst) >= 5);
    assert!(!is_wrong.load(SeqCst));
}

#[test]
fn a_hook_that_blocks_or_panics_does_not_stop_the_store() {
    let disk = Disk::new(1_000);
    let (released, block) = crossbeam_channel::bounded::<()>(0);
    let builder = Publisher::builder_for::<bool>().history(History::new().store(disk)).max_queued_events(1);
    let publisher = builder
        .on_end(move |ended| {
            if *ended.properties {
                let _ = block.recv_timeout(LONG);
            }
            panic!("the hook panics");
        })
        .build()
        .unwrap();
    let _slow = [true, false].map(|blocks| publisher.subscription(blocks).open().unwrap());
    for event in 0..100 {
        publisher.publish(event.to_string());
    }
    publisher.flush(LONG).unwrap();
    assert_eq!(publisher.stats().ended.queue_full, 2);
    drop(released);
}

#[test]
fn a_policy_that_lets_publishers_wait_is_refused_with_a_store() {
    let history = || History::new().store(Disk::new(1));
    let block = Overflow::Block(LONG);
    let error = Publisher::builder().history(history()).overflow(block).build().unwrap_err();
    assert!(matches!(error, BuildError::InvalidSetting(setting) if setting.setting() == "overflow"));
    let publisher = Publisher::builder().history(history()).build().unwrap();
    let error = publisher.subscription(()).overflow(block).open().unwrap_err();
    assert!(matches!(error, OpenError::InvalidSetting(setting) if setting.setting() == "overflow"));
    assert!(error.to_string().contains("use another policy"));
}

#[test]
fn a_closure_is_a_hole_after_a_restart_and_a_transform_is_not() {
    let disk = Disk::new(100);
    let build = || {
        Publisher::builder_for::<bool>()
            .history(History::new().store(disk.clone()))
            .transform("shout", |loud: &bool, event: &Event, end: &str| {
                let text = String::from(&*event.encode());
                let text = text.trim_start_matches("data: ").trim_end();
                loud.then(|| Event::new(format!("{}{end}", text.to_uppercase())))
            })
            .build()
            .unwrap()
    };
    let resumed = |publisher: &Publisher<bool>, channel: &str, id: &str| {
        let mut subscription = publisher.subscription(true).channels(channel).last_event_id(id).open().unwrap();
        (subscription.resumption(), data(&mut subscription))
    };
    let publisher = build();
    let start = publisher.publish_confirmed(["with", "through"], "both", LONG).unwrap().id().unwrap().to_owned();
    publisher.publish_with("with", |_: &bool| Some(Event::new("closure")));
    publisher.publish_to("with", "after it");
    publisher.publish_through("shout", "through", "hello", "!").unwrap();
    publisher.flush(LONG).unwrap();
    assert_eq!(resumed(&publisher, "with", &start), (Resumption::Complete, vec!["closure".into(), "after it".into()]));
    assert_eq!(resumed(&publisher, "through", &start), (Resumption::Complete, vec!["HELLO!".into()]));
    drop(publisher);

    let publisher = build();
    assert_eq!(resumed(&publisher, "through", &start), (Resumption::Complete, vec!["HELLO!".into()]));
    let (resumption, received) = resumed(&publisher, "with", &start);
    assert_eq!((resumption, &received[1..]), (Resumption::Gap, &["after it".to_owned()][..]));
    drop(publisher);

    let without = Publisher::builder_for::<bool>().history(History::new().store(disk.clone())).build().unwrap();
    assert_eq!(resumed(&without, "through", &start).0, Resumption::Gap);
    assert_eq!(without.publish_through("shout", "a", "b", "c").unwrap_err().name(), "shout");
}

#[test]
fn ids_of_the_application_resume_after_a_restart() {
    let disk = Disk::new(100);
    let event = |id: &str| Event::new(id).id(id).unwrap();
    let publisher = on(&disk);
    for id in ["x1", "x2", "x3"] {
        assert_eq!(publisher.publish_confirmed("a", event(id), LONG).unwrap().id(), Some(id));
    }
    drop(publisher);
    let publisher = on(&disk);
    let mut subscription = publisher.subscription(()).channels("a").last_event_id("x1").open().unwrap();
    assert_eq!(
        (subscription.resumption(), data(&mut subscription)),
        (Resumption::Complete, vec!["x2".into(), "x3".into()])
    );
}

#[test]
fn an_id_whose_older_event_was_evicted_is_a_gap_after_a_restart_too() {
    let disk = Disk::new(100);
    let build = || {
        let history = History::new().max_events_per_channel(2).store(disk.clone());
        Publisher::builder().history(history).build().unwrap()
    };
    let publisher = build();
    for id in ["same", "x1", "same"] {
        publisher.publish_to("a", Event::new(id).id(id).unwrap());
    }
    drop(publisher);
    let publisher = build();
    let subscription = publisher.subscription(()).channels("a").last_event_id("same").open().unwrap();
    assert_eq!(subscription.resumption(), Resumption::Gap);
}

#[test]
fn a_subscriber_that_is_too_slow_ends_as_without_a_store() {
    let disk = Disk::new(100);
    let history = History::new().store(disk);
    let publisher = Publisher::builder().history(history).max_queued_events(2).build().unwrap();
    let mut subscription = publisher.subscribe().unwrap();
    for event in 0..5 {
        publisher.publish(event.to_string());
    }
    publisher.flush(LONG).unwrap();
    assert_eq!(publisher.stats().ended.queue_full, 1);
    assert!(data(&mut subscription).is_empty());
    assert_eq!(subscription.end_cause(), Some(EndCause::QueueFull));
}

const HOUR: Duration = Duration::from_secs(3_600);

/// Returns a publisher that keeps events for two hours, by a clock that starts at zero.
fn with_max_age(disk: &Disk, clock: &Arc<AtomicUsize>) -> Publisher {
    let clock = Arc::clone(clock);
    let clock = move || HOUR * clock.load(SeqCst) as u32;
    let history = History::new().max_age(2 * HOUR + HOUR / 2).clock(clock).store(disk.clone());
    Publisher::builder().history(history).build().unwrap()
}

fn resumption(publisher: &Publisher, id: &str) -> Resumption {
    publisher.subscription(()).channels("a").last_event_id(id).open().unwrap().resumption()
}

#[test]
fn an_event_does_not_become_younger_by_a_restart() {
    let disk = Disk::new(100);
    let seen = {
        let publisher = with_max_age(&disk, &Arc::default());
        let seen = confirmed(&publisher, "a", "seen");
        confirmed(&publisher, "a", "missed");
        seen
    };
    let hours = |count: u64| HOUR.as_millis() as u64 * count;
    disk.change_times(|at| at - hours(1));
    let clock = Arc::new(AtomicUsize::new(0));
    let publisher = with_max_age(&disk, &clock);
    clock.store(1, SeqCst);
    assert_eq!(resumption(&publisher, &seen), Resumption::Complete);
    clock.store(2, SeqCst);
    assert_eq!(resumption(&publisher, &seen), Resumption::Gap);
    drop(publisher);
    assert_eq!(disk.events(), 0);
}

#[test]
fn events_that_became_too_old_while_the_program_was_down_are_a_gap() {
    let disk = Disk::new(100);
    let seen = {
        let publisher = with_max_age(&disk, &Arc::default());
        let seen = confirmed(&publisher, "a", "seen");
        confirmed(&publisher, "a", "missed");
        seen
    };
    disk.change_times(|at| at - 3 * HOUR.as_millis() as u64);
    assert_eq!(resumption(&with_max_age(&disk, &Arc::default()), &seen), Resumption::Gap);
}

#[test]
fn a_clock_that_was_set_back_by_a_year_costs_no_event() {
    let year = 365 * 24 * HOUR.as_millis() as u64;
    for change in [|at, year| at + year, |_, _| u64::MAX] {
        let disk = Disk::new(100);
        let seen = {
            let publisher = with_max_age(&disk, &Arc::default());
            let seen = confirmed(&publisher, "a", "seen");
            confirmed(&publisher, "a", "missed");
            seen
        };
        disk.change_times(|at| change(at, year));
        let clock = Arc::new(AtomicUsize::new(0));
        let publisher = with_max_age(&disk, &clock);
        assert_eq!(resumption(&publisher, &seen), Resumption::Complete);
        clock.store(3, SeqCst);
        assert_eq!(resumption(&publisher, &seen), Resumption::Gap, "their age counts from the start");
    }
}

#[test]
fn threads_that_publish_at_once_see_one_order_that_is_the_stores() {
    let disk = Disk::new(10_000);
    let publisher = on(&disk);
    let start = publisher.last_event_id().unwrap();
    let mut live = publisher.subscription(()).channels(["a", "b"]).open().unwrap();
    thread::scope(|threads| {
        for thread in 0..4 {
            let publisher = &publisher;
            threads.spawn(move || {
                for n in 0..100 {
                    publisher.publish_to(if n % 2 == 0 { "a" } else { "b" }, format!("{thread} {n}"));
                }
            });
        }
    });
    publisher.flush(LONG).unwrap();
    let received = data(&mut live);
    assert_eq!(received.len(), 400);
    for thread in 0..4 {
        let of_one = received.iter().filter_map(|data| data.strip_prefix(&format!("{thread} ")));
        assert!(of_one.map(|n| n.parse::<u32>().unwrap()).eq(0..100), "each thread's events are in its order");
    }
    drop((publisher, live));
    let publisher = on(&disk);
    let mut resumed = publisher.subscription(()).channels(["a", "b"]).last_event_id(start).open().unwrap();
    assert_eq!(data(&mut resumed), received);
}
