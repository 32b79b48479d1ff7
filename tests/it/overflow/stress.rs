//! Every overflow policy under 8 publishers and readers of all kinds: nobody hangs, nothing is out of order, and all counts
//! add up exactly. `STRESS_ROUNDS` says how many rounds; the default is for every day.

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::{PATIENCE, Watchdog, seed};
use fastrand::Rng;
use server_sent_events::{
    BackgroundOptions, EndCause, Event, History, Overflow, Publisher, Subscription, SubscriptionHandle,
};

const PUBLISHERS: usize = 8;
const EVENTS: usize = 120;
/// So long that nobody is ended for it.
const LONG: Overflow = Overflow::Block(Duration::from_secs(3_600));
/// So short that some are.
const SHORT: Overflow = Overflow::Block(Duration::from_millis(2));

/// How a subscriber is read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reads {
    Iterator,
    /// Only when all is published.
    Late,
    Reader,
    WriteTo,
    HandOver,
    /// So many frames, then it is dropped.
    Quits(usize),
    /// So many writes, then they fail.
    WriteToFails(usize),
    HandOverFails(usize),
}

#[derive(Clone, Debug)]
struct Plan {
    overflow: Overflow,
    frames: usize,
    bytes: usize,
    reads: Reads,
    /// How long it rests after a frame, or a write, now and then.
    rests: Duration,
    /// Somebody leads it: after so many events of one publisher it is closed, or disconnected.
    led: Option<(usize, bool)>,
}

impl Plan {
    fn new(rng: &mut Rng) -> Self {
        let all = [Overflow::Disconnect, Overflow::DropOldest, Overflow::LatestPerKey, LONG, SHORT];
        let overflow = *rng.choice(&all).unwrap();
        let reads = match rng.u32(..10) {
            0..3 => Reads::Iterator,
            3 if overflow != LONG => Reads::Late,
            4 => Reads::Reader,
            5 => Reads::WriteTo,
            6 => Reads::Quits(rng.usize(..200)),
            7 => Reads::WriteToFails(rng.usize(..60)),
            8 => Reads::HandOverFails(rng.usize(..60)),
            _ => Reads::HandOver,
        };
        Self {
            overflow,
            frames: *rng.choice(&[1, 4, 32, 2_000]).unwrap(),
            bytes: *rng.choice(&[1, 400, usize::MAX, usize::MAX]).unwrap(),
            reads,
            rests: Duration::from_micros(*rng.choice(&[0, 0, 20, 200]).unwrap()),
            led: (rng.u32(..8) == 0).then(|| (rng.usize(..EVENTS), rng.bool())),
        }
    }

    fn may_lose(&self) -> bool {
        matches!(self.overflow, Overflow::DropOldest | Overflow::LatestPerKey)
    }
}

/// What a publisher has sent.
#[derive(Clone, Debug)]
struct Sent {
    thread: usize,
    number: usize,
    /// To whom, in bits.
    to: u32,
    key: Option<u32>,
    /// It skips those whose number is odd, or even.
    skips: Option<usize>,
    queued: usize,
    /// Where the history has it.
    id: Option<String>,
    sequence: u64,
}

/// What a reader got.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Event(usize, usize, Option<String>),
    Gap(u64),
}

fn seen(stream: &str) -> Vec<Seen> {
    let frames = stream.split_terminator("\n\n").filter(|frame| frame.contains("data: "));
    frames
        .map(|frame| {
            let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name));
            let data = field("data: ").unwrap();
            if field("event: ") == Some("gap") {
                assert_eq!(field("id: "), None, "a gap that moves the client on");
                return Seen::Gap(data.strip_prefix("{\"lost\":").unwrap().strip_suffix("}").unwrap().parse().unwrap());
            }
            let mut words = data.split(' ').map(|word| word.parse().unwrap_or(0));
            Seen::Event(words.next().unwrap(), words.next().unwrap(), field("id: ").map(str::to_owned))
        })
        .collect()
}

/// Whether it rests now.
fn rests(rng: &mut Rng, time: Duration) {
    match rng.u32(..8) {
        _ if time.is_zero() => {}
        0 => thread::sleep(time),
        1..4 => thread::yield_now(),
        _ => {}
    }
}

/// A writer that takes its time, takes some writes in two parts, and fails after so many, in the middle.
struct Slow {
    rng: Rng,
    rests: Duration,
    writes: usize,
    /// What was written since the last flush.
    written: Vec<u8>,
    /// What was flushed, and so is delivered.
    delivered: Arc<Mutex<Vec<u8>>>,
    failed: Arc<AtomicBool>,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.writes == 0 {
            self.failed.store(true, SeqCst);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        rests(&mut self.rng, self.rests);
        self.writes -= 1;
        let size = if self.rng.u32(..4) == 0 { bytes.len().div_ceil(2) } else { bytes.len() };
        self.written.extend_from_slice(&bytes[..size]);
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.delivered.lock().unwrap().append(&mut self.written);
        Ok(())
    }
}

/// Reads to the end; returns what is known to be delivered, and why it ended.
fn reads(mut subscription: Subscription, plan: &Plan, mut rng: Rng, published: &AtomicBool) -> (String, EndCause) {
    let (delivered, failed) = (Arc::default(), Arc::default());
    let (handed_over, end) = channel();
    let options = BackgroundOptions::new().on_end(move |cause| handed_over.send(cause).unwrap());
    let mut writer = Slow {
        rng: rng.fork(),
        rests: plan.rests,
        writes: usize::MAX,
        written: Vec::new(),
        delivered: Arc::clone(&delivered),
        failed: Arc::clone(&failed),
    };
    let mut text = String::new();
    let cause = match plan.reads {
        Reads::Iterator | Reads::Late | Reads::Quits(_) => {
            let mut most = if let Reads::Quits(most) = plan.reads { most } else { usize::MAX };
            while plan.reads == Reads::Late && !published.load(SeqCst) {
                thread::yield_now();
            }
            while most > 0 {
                most -= 1;
                let Some(frame) = subscription.recv() else { break };
                text.push_str(&frame);
                rests(&mut rng, plan.rests);
            }
            subscription.end_cause().unwrap_or(EndCause::Dropped)
        }
        Reads::Reader => {
            let mut reader = subscription.into_reader();
            loop {
                let bytes = reader.fill_buf().unwrap();
                let size = bytes.len();
                if size == 0 {
                    break reader.get_ref().end_cause().unwrap();
                }
                text.push_str(std::str::from_utf8(bytes).unwrap());
                reader.consume(size);
                rests(&mut rng, plan.rests);
            }
        }
        Reads::WriteTo => subscription.write_to(writer).unwrap(),
        Reads::WriteToFails(writes) => {
            writer.writes = writes;
            subscription.write_to(writer).unwrap_or_else(|error| EndCause::ConnectionLost(error.kind()))
        }
        Reads::HandOver => {
            subscription.write_in_background_with_options(writer, options).unwrap();
            end.recv().unwrap()
        }
        Reads::HandOverFails(writes) => {
            writer.writes = writes;
            subscription.write_in_background_with_options(writer, options).unwrap();
            let cause = end.recv().unwrap();
            // It may fail when the stream is closed already; the cause stays then, but not all is written.
            if failed.load(SeqCst) { EndCause::ConnectionLost(io::ErrorKind::BrokenPipe) } else { cause }
        }
    };
    text.push_str(std::str::from_utf8(&delivered.lock().unwrap()).unwrap());
    (text, cause)
}

/// Publishes, and tells what.
fn publishes(
    publisher: &Publisher<usize>,
    thread: usize,
    handles: &[(Option<(usize, bool)>, SubscriptionHandle)],
    one_by_one: bool,
    skipped: &Arc<Vec<AtomicU64>>,
    rng: &mut Rng,
) -> Vec<Sent> {
    let everybody = (1 << handles.len()) - 1;
    let mut log = Vec::new();
    for number in 0..EVENTS {
        if thread == 0 {
            for (led, handle) in handles {
                match led {
                    Some((after, true)) if *after == number => drop(handle.close()),
                    Some((after, false)) if *after == number => drop(handle.disconnect()),
                    _ => {}
                }
            }
        }
        let one = rng.usize(..handles.len());
        let (to, channels) = match rng.u32(..3) {
            _ if one_by_one => (1 << one, vec![one.to_string()]),
            0 => (everybody, vec!["all".to_owned()]),
            1 => (everybody, vec![one.to_string(), "all".to_owned()]),
            _ => {
                let other = rng.usize(..handles.len());
                (1 << one | 1 << other, vec![one.to_string(), other.to_string()])
            }
        };
        let data = format!("{thread} {number} {}", "x".repeat(*rng.choice(&[0, 0, 10, 150]).unwrap()));
        let key = rng.bool().then(|| rng.u32(..3));
        let skips = (rng.u32(..4) == 0).then(|| rng.usize(..2));
        let receipt = match skips {
            Some(parity) => {
                let skipped = Arc::clone(skipped);
                publisher.publish_with(&channels, move |subscriber| {
                    if subscriber % 2 == parity {
                        skipped[*subscriber].fetch_add(1, SeqCst);
                    }
                    (subscriber % 2 != parity).then(|| Event::new(&data))
                })
            }
            None => {
                let event = key.iter().fold(Event::new(data), |event, key| event.key(key.to_string()));
                publisher.publish_to(&channels, event)
            }
        };
        let id = receipt.id().map(str::to_owned);
        let sequence = id.as_ref().map_or(0, |id| id.rsplit('-').next().unwrap().parse().unwrap());
        let key = key.filter(|_| skips.is_none());
        log.push(Sent { thread, number, to, key, skips, queued: receipt.subscribers(), id, sequence });
    }
    log
}

/// What one subscriber got, besides what was sent to it.
struct Subscriber<'a> {
    number: usize,
    plan: &'a Plan,
    seen: Vec<Seen>,
    cause: EndCause,
    skipped: u64,
}

impl Subscriber<'_> {
    /// It was there to the end, and all that was queued for it is delivered.
    fn stayed(&self) -> bool {
        self.cause == EndCause::Closed && !matches!(self.plan.led, Some((_, true)))
    }

    fn events(&self) -> impl Iterator<Item = (usize, usize, &Option<String>)> {
        self.seen.iter().filter_map(|seen| match seen {
            Seen::Event(thread, number, id) => Some((*thread, *number, id)),
            Seen::Gap(_) => None,
        })
    }

    fn told(&self) -> u64 {
        self.seen.iter().map(|seen| if let Seen::Gap(lost) = seen { *lost } else { 0 }).sum()
    }

    fn skips(&self, sent: &Sent) -> bool {
        sent.skips == Some(self.number % 2)
    }

    /// Checks what can be said of this subscriber alone. Returns how many were dropped for it, if that is known.
    fn check(&self, log: &[Sent], one_by_one: bool, has_history: bool) -> Option<u64> {
        let sent: Vec<&Sent> = log.iter().filter(|sent| sent.to >> self.number & 1 == 1).collect();
        let delivered = self.events().count() as u64;

        // The order of each publisher, and nothing twice.
        let mut next = [0; PUBLISHERS];
        for (thread, number, id) in self.events() {
            assert!(next[thread] <= number, "thread {thread}: {number} comes late, or twice");
            next[thread] = number + 1;
            let Some(sent) = sent.iter().find(|sent| (sent.thread, sent.number) == (thread, number)) else {
                panic!("{thread} {number} was not for it")
            };
            assert_eq!(*id, sent.id);
            assert!(!self.skips(sent));
        }

        // With a history the order of all is known, without one that of each publisher.
        let wanted = |thread: Option<usize>| {
            let of_thread = sent.iter().filter(move |sent| thread.is_none_or(|thread| sent.thread == thread));
            of_thread.filter(|sent| !self.skips(sent)).map(|sent| (sent.thread, sent.number)).collect::<Vec<_>>()
        };
        let got = |thread: Option<usize>| {
            let of_thread = self.events().filter(move |event| thread.is_none_or(|thread| event.0 == thread));
            of_thread.map(|event| (event.0, event.1)).collect::<Vec<_>>()
        };
        let orders = if has_history { vec![None] } else { (0..PUBLISHERS).map(Some).collect() };
        if !self.plan.may_lose() {
            assert_eq!(self.told(), 0);
            for order in orders {
                let (wanted, got) = (wanted(order), got(order));
                assert!(wanted.starts_with(&got), "there is a hole");
                assert!(!self.stayed() || wanted == got, "it stayed, and misses something");
            }
        } else if has_history && self.plan.overflow == Overflow::DropOldest {
            self.gaps_stand_where_something_is_lost(&sent);
        } else if has_history {
            self.has_the_newest(&sent);
        }

        // What was queued for it.
        let queued: u64 = match (self.stayed(), one_by_one) {
            (true, _) => {
                assert!(sent.iter().all(|sent| sent.queued > 0));
                sent.len() as u64
            }
            (false, true) => sent.iter().map(|sent| sent.queued as u64).sum(),
            (false, false) => return None,
        };
        let rest = queued.checked_sub(delivered + self.skipped + self.told()).expect("more came out than in");
        match (self.cause, self.plan.overflow) {
            (EndCause::Closed, Overflow::LatestPerKey) => {
                let keyed = sent.iter().filter(|sent| sent.key.is_some()).count() as u64;
                assert!(rest <= keyed, "{rest} of {keyed} were replaced");
                return Some(rest);
            }
            (EndCause::Closed, _) => assert_eq!(rest, 0, "lost without a word"),
            (_, Overflow::LatestPerKey | Overflow::DropOldest) => return None,
            _ => {
                // Besides the queue, what the reader had in its hands when the stream was cut: one item, or a batch.
                let batch = if matches!(self.plan.reads, Reads::Iterator | Reads::Late) { 1 } else { 1_025 };
                assert!(rest <= (self.plan.frames + batch) as u64, "{rest} of {} were left", self.plan.frames);
            }
        }
        Some(self.told())
    }

    /// Between two events that it saw, just as many are missing as the gaps there tell.
    fn gaps_stand_where_something_is_lost(&self, sent: &[&Sent]) {
        let mut rest = sent.iter();
        let mut told = 0;
        for seen in &self.seen {
            let (thread, number) = match seen {
                Seen::Gap(lost) => {
                    told += lost;
                    assert!(*lost > 0);
                    continue;
                }
                Seen::Event(thread, number, _) => (*thread, *number),
            };
            let missing: Vec<_> =
                rest.by_ref().take_while(|sent| (sent.thread, sent.number) != (thread, number)).collect();
            // Of those that skip it, some may be lost as well.
            let (most, least) = (missing.len(), missing.iter().filter(|sent| !self.skips(sent)).count());
            assert!((least as u64..=most as u64).contains(&told), "{told} told, {least} to {most} missing");
            told = 0;
        }
        if self.stayed() {
            let (most, least) = (rest.clone().count(), rest.filter(|sent| !self.skips(sent)).count());
            assert!(least as u64 <= told && told <= most as u64, "{told} told at the end, {least} to {most} missing");
        }
    }

    /// It has the newest of each key, and all without one; in order.
    fn has_the_newest(&self, sent: &[&Sent]) {
        let place =
            |thread, number| sent.iter().position(|sent| (sent.thread, sent.number) == (thread, number)).unwrap();
        let places: Vec<usize> = self.events().map(|(thread, number, _)| place(thread, number)).collect();
        assert!(places.is_sorted_by(|a, b| a < b), "out of order");
        let until = if self.stayed() { sent.len() } else { places.last().map_or(0, |last| last + 1) };
        for (at, missing) in sent[..until].iter().enumerate() {
            if self.skips(missing) || places.binary_search(&at).is_ok() {
                continue;
            }
            // It was replaced by one that came later, and that is here, or is replaced in turn.
            let newer = sent[at + 1..].iter().any(|newer| newer.key == missing.key);
            assert!(missing.key.is_some() && newer, "{missing:?} is missing");
        }
    }
}

/// One round; returns how many streams did not stay, and how many events were dropped.
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
    assert!(stats.events_dropped >= sum(&|subscriber| subscriber.told()));
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
    let limit = PATIENCE * 3 + Duration::from_secs(rounds);
    let _watchdog = Watchdog::new(&format!("overflow stress with SEED={seed}"), limit);
    let mut rng = Rng::with_seed(seed);
    let (mut left, mut dropped) = (0, 0);
    for _ in 0..rounds {
        let of_round = round(&mut rng);
        left += of_round.0;
        dropped += of_round.1;
    }
    println!("overflow stress: {left} streams left early, {dropped} events were dropped");
    assert!(left > 10 && dropped > 1_000, "it was no stress: {left} left early, {dropped} dropped");
}
