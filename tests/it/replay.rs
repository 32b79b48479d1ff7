//! A client that resumes takes its events out of the history as it reads, however many there are and however slow it
//! is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::common::writers::Kept;
use crate::common::{PATIENCE, Watchdog, ends, gets_nothing};
use server_sent_events::{EndCause, Event, History, Overflow, Publisher, PublisherBuilder, Resumption, Subscription};

/// More than several batches of a replay hold.
const MANY: u64 = 2_000;

fn builder() -> PublisherBuilder {
    Publisher::builder().history(History::new().max_events_per_channel(100_000)).heartbeat(None)
}

/// Publishes the next numbers to "a", up to this one.
fn publish_up_to(publisher: &Publisher, last: u64) {
    while sequence_of(&publisher.last_event_id().unwrap()) < last {
        let next = sequence_of(&publisher.last_event_id().unwrap()) + 1;
        publisher.publish_to("a", next.to_string());
    }
}

fn sequence_of(id: &str) -> u64 {
    id.rsplit_once('-').unwrap().1.parse().unwrap()
}

/// Returns a publisher with `MANY` events in "a", and a client that resumes with an ID from before them.
fn replaying(builder: PublisherBuilder) -> (Publisher, Subscription) {
    let publisher = builder.build().unwrap();
    let start = publisher.last_event_id();
    publish_up_to(&publisher, MANY);
    let subscription = publisher.subscription(()).channels("a").last_event_id(start).open().unwrap();
    (publisher, subscription)
}

/// Returns the data of the next event; `None` at the end.
fn next_data(subscription: &mut Subscription) -> Option<String> {
    loop {
        let frame = subscription.recv()?;
        if let Some(data) = frame.lines().find_map(|line| line.strip_prefix("data: ")) {
            return Some(data.to_owned());
        }
    }
}

#[track_caller]
fn gets_numbers(subscription: &mut Subscription, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        assert_eq!(next_data(subscription), Some(number.to_string()));
    }
}

/// Receives the numbers after this one, up to a gap. Returns the last of them, and the gap's data.
#[track_caller]
fn gets_numbers_up_to_a_gap(subscription: &mut Subscription, mut last: u64) -> (u64, String) {
    loop {
        let data = next_data(subscription).unwrap();
        if data.starts_with('{') {
            return (last, data);
        }
        last += 1;
        assert_eq!(data, last.to_string());
    }
}

#[test]
fn replay_meets_live_with_neither_a_gap_nor_a_duplicate_while_events_are_published() {
    let _watchdog = Watchdog::new("replay meets live");
    for overflow in [Overflow::Disconnect, Overflow::DropOldest, Overflow::Block(PATIENCE)] {
        let last = MANY * 10;
        let (publisher, mut subscription) = replaying(builder().max_queued_events(100_000).overflow(overflow));
        let publishing = publisher.clone();
        let publisher_thread = thread::spawn(move || publish_up_to(&publishing, last));
        gets_numbers(&mut subscription, 1..=last);
        publisher_thread.join().unwrap();
        gets_nothing(&mut subscription);
    }
}

#[test]
fn nothing_is_queued_for_a_client_that_replays_and_nobody_waits_for_it() {
    let _watchdog = Watchdog::new("a replay while events are published");
    for overflow in [Overflow::Disconnect, Overflow::LatestPerKey, Overflow::Block(PATIENCE * 10)] {
        let (publisher, mut subscription) = replaying(builder().max_queued_events(4).overflow(overflow));
        publish_up_to(&publisher, MANY * 2);
        assert_eq!(
            publisher.publish_to("a", (MANY * 2 + 1).to_string()).subscribers(),
            1,
            "the event is queued for it"
        );
        assert_eq!(publisher.channel_stats("a").queued, 0);
        gets_numbers(&mut subscription, 1..=MANY * 2 + 1);
        gets_nothing(&mut subscription);
        publish_up_to(&publisher, MANY * 2 + 2);
        assert_eq!(publisher.channel_stats("a").queued, 1, "it is live");
    }
}

#[test]
fn a_replay_ends_with_the_last_event_before_the_stream_was_closed() {
    type End = fn(&Publisher, &Subscription);
    let end: [(End, EndCause); 3] = [
        (|publisher, _| publisher.close(), EndCause::Closed),
        (|_, subscription| assert!(subscription.handle().close()), EndCause::Closed),
        (|publisher, _| assert_eq!(publisher.unsubscribe_if("a", |()| true), 1), EndCause::Unsubscribed),
    ];
    for (end, cause) in end {
        let (publisher, mut subscription) = replaying(builder());
        gets_numbers(&mut subscription, 1..=10);
        end(&publisher, &subscription);
        publish_up_to(&publisher, MANY * 2);
        gets_numbers(&mut subscription, 11..=MANY);
        ends(&mut subscription, cause);
    }
}

#[test]
fn a_replay_outlives_its_publisher() {
    let (publisher, mut subscription) = replaying(builder());
    drop(publisher);
    gets_numbers(&mut subscription, 1..=MANY);
    ends(&mut subscription, EndCause::Closed);
}

#[test]
fn a_client_that_is_disconnected_gets_nothing_more_of_its_replay() {
    let (publisher, mut subscription) = replaying(builder());
    gets_numbers(&mut subscription, 1..=10);
    assert_eq!(publisher.disconnect_if(|()| true), 1);
    ends(&mut subscription, EndCause::Disconnected);
}

#[test]
fn a_channel_that_is_joined_meanwhile_counts_from_then_on_and_one_that_is_left_up_to_then() {
    let publisher = builder().build().unwrap();
    let start = publisher.last_event_id();
    publisher.publish_to("b", "before");
    publish_up_to(&publisher, MANY);
    let mut subscription = publisher.subscription(()).channels("a").last_event_id(start).open().unwrap();
    let handle = subscription.handle();
    handle.join("b").unwrap();
    publisher.publish_to("b", "joined");
    assert_eq!(handle.leave("a"), 1);
    publisher.publish_to("a", "too late");
    publisher.publish_to("b", "live");
    gets_numbers(&mut subscription, 2..=MANY);
    assert_eq!(next_data(&mut subscription).as_deref(), Some("joined"));
    assert_eq!(next_data(&mut subscription).as_deref(), Some("live"));
    gets_nothing(&mut subscription);
}

#[test]
fn comments_that_are_published_during_a_replay_are_not_delivered() {
    let (publisher, mut subscription) = replaying(builder());
    publisher.publish_to("a", Event::comment("meanwhile"));
    gets_numbers(&mut subscription, 1..=MANY);
    gets_nothing(&mut subscription);
}

/// Returns a publisher whose events expire when the test chooses, and a client that replays them.
fn ageing(overflow: Overflow) -> (Publisher, Subscription, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&now);
    let history =
        History::new().max_age(Duration::from_secs(10)).clock(move || Duration::from_secs(clock.load(SeqCst)));
    let (publisher, subscription) = replaying(builder().history(history).overflow(overflow));
    (publisher, subscription, now)
}

#[test]
fn a_client_whose_replay_is_evicted_before_it_is_read_is_disconnected_and_resumes_with_a_gap() {
    for overflow in [Overflow::Disconnect, Overflow::LatestPerKey, Overflow::Block(PATIENCE)] {
        let (publisher, mut subscription, now) = ageing(overflow);
        gets_numbers(&mut subscription, 1..=10);
        now.store(100, SeqCst);
        publish_up_to(&publisher, MANY + 1);
        let mut last = 10;
        while let Some(data) = next_data(&mut subscription) {
            last += 1;
            assert_eq!(data, last.to_string());
        }
        assert!(last < MANY, "all of it was in the first batch");
        assert_eq!(subscription.end_cause(), Some(EndCause::QueueFull));
        let epoch = publisher.last_event_id().unwrap().rsplit_once('-').unwrap().0.to_owned();
        let again = publisher.subscription(()).channels("a").last_event_id(format!("{epoch}-{last}"));
        assert_eq!(again.open().unwrap().resumption(), Resumption::Gap);
    }
}

#[test]
fn a_client_that_drops_the_oldest_is_sent_a_gap_where_its_replay_was_evicted_and_goes_on_behind_it() {
    let (publisher, mut subscription, now) = ageing(Overflow::DropOldest);
    gets_numbers(&mut subscription, 1..=10);
    now.store(100, SeqCst);
    publish_up_to(&publisher, MANY + 3);
    let (last, gap) = gets_numbers_up_to_a_gap(&mut subscription, 10);
    assert!(gap.contains(&format!("-{last}\",\"to\":")) && gap.contains(&format!("-{MANY}\"}}")), "{gap}");
    gets_numbers(&mut subscription, MANY + 1..=MANY + 3);
    gets_nothing(&mut subscription);
}

/// Each channel remembers what it has evicted: channel "a" had lost more, and that hid what "b" had lost.
#[test]
fn an_eviction_in_any_of_the_channels_of_a_replay_is_reported() {
    let now = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&now);
    let history = History::new()
        .max_events_per_channel(3_000)
        .max_age(Duration::from_secs(15))
        .clock(move || Duration::from_secs(clock.load(SeqCst)));
    let publisher = builder().history(history).overflow(Overflow::DropOldest).build().unwrap();
    for n in 1..=3_000 {
        // The first 1,000 expire before the others.
        now.store(if n <= 1_000 { 0 } else { 11 }, SeqCst);
        publisher.publish_to("b", n.to_string());
    }
    for n in 3_001..=6_400 {
        publisher.publish_to("a", n.to_string());
    }
    let mut subscription = publisher.subscription(()).channels(["a", "b"]).replay_last(6_000).open().unwrap();
    assert_eq!(subscription.resumption(), Resumption::Gap, "\"a\" has lost 400 events before");
    assert!(next_data(&mut subscription).unwrap().starts_with('{'));
    gets_numbers(&mut subscription, 1..=100);
    now.store(16, SeqCst);
    let (last, gap) = gets_numbers_up_to_a_gap(&mut subscription, 100);
    assert!(last < 1_000 && gap.contains("-1000\"}"), "{last}, {gap}");
    gets_numbers(&mut subscription, (1_001..=3_000).chain(3_401..=6_400));
    gets_nothing(&mut subscription);
}

#[test]
fn every_way_to_read_gets_the_whole_replay() {
    let expected: String = (1..=MANY).map(|n| format!("data: {n}\n")).collect();
    let data = |stream: &[u8]| {
        let stream = String::from_utf8(stream.to_vec()).unwrap();
        stream.split_inclusive('\n').filter(|line| line.starts_with("data: ")).collect::<String>()
    };
    let (publisher, subscription) = replaying(builder());
    publisher.close();
    let written = Kept::default();
    assert_eq!(subscription.write_to(written.clone()).unwrap(), EndCause::Closed);
    assert!(data(written.text().as_bytes()) == expected);

    let (publisher, subscription) = replaying(builder());
    publisher.close();
    let read = std::io::read_to_string(subscription.into_reader()).unwrap();
    assert!(data(read.as_bytes()) == expected);

    let (publisher, subscription) = replaying(builder());
    let (client, server) = std::os::unix::net::UnixStream::pair().unwrap();
    subscription.write_in_background(server).unwrap();
    publisher.close();
    assert!(data(std::io::read_to_string(client).unwrap().as_bytes()) == expected);
}
