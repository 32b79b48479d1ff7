//! Every overflow policy under 8 publishers and readers of all kinds: no thread stays blocked, nothing is out of order,
//! and all counts add up exactly. `STRESS_ROUNDS` is the number of rounds; the default is for everyday use.

mod checks;
mod plan;
mod publishers;
mod readers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use self::checks::Subscriber;
use self::plan::Plan;
use self::publishers::{EVENTS, PUBLISHERS, Sent, publishes};
use self::readers::{reads, seen};
use crate::common::{Watchdog, seed};
use fastrand::Rng;
use server_sent_events::{EndCause, History, Publisher, Subscription};

/// Runs one round. Returns how many streams did not stay, and how many events were dropped.
fn round(rng: &mut Rng) -> (usize, u64) {
    let (has_history, one_by_one) = (rng.bool(), rng.bool());
    let mut builder = Publisher::builder_for::<usize>().heartbeat(None);
    if has_history {
        builder = builder.history(History::new().max_events_per_channel(16));
    }
    let publisher = builder.build().unwrap();
    let plans: Vec<Plan> = (0..rng.usize(1..10)).map(|_| Plan::new(rng)).collect();
    let skipped: Arc<Vec<AtomicU64>> = Arc::new(plans.iter().map(|_| AtomicU64::new(0)).collect());
    let subscriptions: Vec<Subscription> = (plans.iter().enumerate())
        .map(|(number, plan)| {
            let channels = ["all".to_owned(), number.to_string()];
            let subscription = publisher.subscription(number).channels(channels).overflow(plan.overflow);
            subscription.max_queued_events(plan.frames).max_queued_bytes(plan.bytes).open().unwrap()
        })
        .collect();
    let handles: Vec<_> =
        plans.iter().zip(&subscriptions).map(|(plan, subscription)| (plan.led, subscription.handle())).collect();
    let (published, over) = (AtomicBool::new(false), AtomicBool::new(false));

    let (mut log, subscribers) = thread::scope(|threads| {
        let readers: Vec<_> = (subscriptions.into_iter().zip(&plans))
            .map(|(subscription, plan)| {
                let (rng, published) = (rng.fork(), &published);
                threads.spawn(move || reads(subscription, plan, rng, published))
            })
            .collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|thread| {
                let (publisher, handles, skipped, mut rng) = (&publisher, &handles, &skipped, rng.fork());
                threads.spawn(move || publishes(publisher, thread, handles, one_by_one, skipped, &mut rng))
            })
            .collect();
        threads.spawn(|| {
            while !over.load(SeqCst) {
                let stats = publisher.stats();
                let out = stats.events_delivered + stats.events_skipped + stats.events_dropped;
                assert!(out <= stats.events_queued, "{stats:?}");
                thread::yield_now();
            }
        });
        let log: Vec<Sent> = publishers.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect();
        publisher.close();
        published.store(true, SeqCst);
        let readers: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        over.store(true, SeqCst);
        let subscribers = readers.into_iter().zip(&plans).zip(&**skipped).enumerate();
        let subscribers = subscribers.map(|(number, (((text, cause), plan), skipped))| {
            let (seen, skipped) = (seen(&text), skipped.load(SeqCst));
            Subscriber { number, plan, seen, cause, skipped }
        });
        (log, subscribers.collect::<Vec<_>>())
    });

    log.sort_by_key(|sent| sent.sequence);
    let mut dropped = Some(0);
    for subscriber in &subscribers {
        let check = || subscriber.check(&log, one_by_one, has_history);
        let lost = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).unwrap_or_else(|panic| {
            let (cause, plan) = (subscriber.cause, subscriber.plan);
            eprintln!("of {plan:?}, which ended with {cause:?}; history: {has_history}, one by one: {one_by_one}");
            std::panic::resume_unwind(panic)
        });
        let lost = lost.or_else(|| (!subscriber.plan.may_lose()).then_some(0));
        dropped = dropped.zip(lost).map(|(dropped, lost)| dropped + lost);
    }
    let stats = publisher.stats();
    let sum = |count: &dyn Fn(&Subscriber) -> u64| subscribers.iter().map(count).sum::<u64>();
    assert_eq!((stats.subscribers, stats.channels, stats.closures_panicked), (0, 0, 0));
    assert_eq!(stats.events_published, (PUBLISHERS * EVENTS) as u64);
    assert_eq!(stats.events_queued, log.iter().map(|sent| sent.queued as u64).sum::<u64>());
    assert_eq!(stats.events_delivered, sum(&|subscriber| subscriber.events().count() as u64));
    assert_eq!(stats.events_skipped, sum(&|subscriber| subscriber.skipped));
    assert!(stats.events_dropped >= sum(&|subscriber| subscriber.reported()));
    if let Some(dropped) = dropped {
        assert_eq!(stats.events_dropped, dropped, "{stats:?}");
    }
    let rest = stats.events_queued - stats.events_delivered - stats.events_skipped - stats.events_dropped;
    if subscribers.iter().all(|subscriber| subscriber.cause == EndCause::Closed) {
        assert_eq!(rest, 0, "{stats:?}");
    }
    (subscribers.iter().filter(|subscriber| !subscriber.stayed()).count(), stats.events_dropped)
}

#[test]
fn every_policy_adds_up_under_8_publishers_and_readers_of_all_kinds() {
    let rounds: u64 = std::env::var("STRESS_ROUNDS").map_or(40, |rounds| rounds.parse().unwrap());
    let seed = seed("overflow stress");
    let limit = Watchdog::LIMIT + Duration::from_secs(rounds);
    let _watchdog = Watchdog::with_limit(&format!("overflow stress with SEED={seed}"), limit);
    let mut rng = Rng::with_seed(seed);
    let (mut left, mut dropped) = (0, 0);
    for _ in 0..rounds {
        let of_round = round(&mut rng);
        left += of_round.0;
        dropped += of_round.1;
    }
    println!("overflow stress: {left} streams left early, {dropped} events were dropped");
    assert!(left > 10 && dropped > 1_000, "too little stress: {left} left early, {dropped} dropped");
}
