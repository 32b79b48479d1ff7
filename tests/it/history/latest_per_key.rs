//! A history that keeps the newest event of each key: newcomers get the state, and resuming clients miss no value.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::common::{Watchdog, parsed, seed};
use fastrand::Rng;
use server_sent_events::{Overflow, PublishOptions, PublisherBuilder, Snapshot};

fn latest() -> PublisherBuilder {
    Publisher::builder().history(History::new().latest_per_key()).heartbeat(None)
}

fn keyed(data: &str, key: &str) -> Event {
    Event::new(data).key(key)
}

/// Returns the data of all events that are ready; a gap is "gap".
fn data_of(subscription: &mut Subscription) -> Vec<String> {
    let stream: String = std::iter::from_fn(|| subscription.try_recv().ok().map(String::from)).collect();
    let data = |event: eventsource_stream::Event| if event.event == "gap" { "gap".into() } else { event.data };
    parsed(&stream).into_iter().map(data).collect()
}

#[test]
fn a_newcomer_gets_the_state_and_not_the_past() {
    let publisher = latest().build().unwrap();
    for (data, key) in [("a1", "a"), ("b1", "b"), ("a2", "a")] {
        publisher.publish(keyed(data, key));
        publisher.publish("past");
    }
    publisher.publish_to("other", keyed("c1", "a"));
    let mut newcomer = publisher.subscribe().unwrap();
    publisher.publish("live");
    publisher.publish(keyed("b2", "b"));
    assert_eq!(data_of(&mut newcomer), ["b1", "a2", "live", "b2"]);
    assert_eq!(newcomer.resumption(), Resumption::NotRequested);
    let mut of_both = publisher.subscribe_to(["default channel", "other"]).unwrap();
    assert_eq!(data_of(&mut of_both), ["a2", "c1", "b2"]);
    assert_eq!(publisher.stats().history.events, 3 + 4, "three values, and four events without a key");
}

#[test]
fn a_replaced_value_is_no_loss_for_a_client_that_resumes() {
    let publisher = latest().build().unwrap();
    let seen = publisher.publish(keyed("a1", "a")).id().map(str::to_owned);
    for data in ["a2", "a3"] {
        publisher.publish(keyed(data, "a"));
        publisher.publish("x");
    }
    let mut resumed = publisher.subscription(()).last_event_id(seen).open().unwrap();
    assert_eq!(resumed.resumption(), Resumption::Complete);
    assert_eq!(data_of(&mut resumed), ["x", "a3", "x"]);
}

#[test]
fn a_value_that_the_limits_evict_is_a_gap_for_a_client_that_has_not_seen_it() {
    let history = History::new().latest_per_key().max_events_per_channel(2);
    let publisher = Publisher::builder().history(history).heartbeat(None).build().unwrap();
    let start = publisher.last_event_id();
    let seen = publisher.publish(keyed("a1", "a")).id().map(str::to_owned);
    publisher.publish(keyed("b1", "b"));
    publisher.publish(keyed("c1", "c"));
    let open = |id: &Option<String>| publisher.subscription(()).last_event_id(id.clone()).open().unwrap();
    assert_eq!(data_of(&mut open(&start)), ["gap", "b1", "c1"]);
    assert_eq!(data_of(&mut open(&seen)), ["b1", "c1"]);
    assert_eq!(data_of(&mut publisher.subscribe().unwrap()), ["b1", "c1"], "a newcomer has lost nothing");
}

#[test]
fn the_keys_of_each_channel_and_of_closures_are_kept_apart() {
    let publisher = latest().build().unwrap();
    let start = publisher.last_event_id();
    publisher.publish_to(["a", "b"], keyed("both", "k"));
    publisher.publish_to("b", keyed("b", "k"));
    for n in 1..=2 {
        let options = PublishOptions::new().key("closure");
        publisher.publish_with_options("a", options, move |()| Some(Event::new(format!("closure {n}"))));
    }
    let of = |channels: &[&str]| {
        let builder = publisher.subscription(()).channels(channels).last_event_id(start.clone());
        data_of(&mut builder.open().unwrap())
    };
    assert_eq!(of(&["a"]), ["both", "closure 2"]);
    assert_eq!(of(&["b"]), ["b"]);
    assert_eq!(of(&["a", "b"]), ["both", "b", "closure 2"]);
}

#[test]
fn a_connection_lost_before_the_state_is_complete_loses_none_of_it() {
    let publisher = latest().build().unwrap();
    publisher.publish("past");
    for key in ["a", "b", "c"] {
        publisher.publish(keyed(key, key));
    }
    for frames in 0..5 {
        let mut first = publisher.subscribe().unwrap();
        let taken: Vec<String> = (0..frames).map_while(|_| first.try_recv().ok().map(String::from)).collect();
        let id = parsed(&taken.concat()).last().map(|event| event.id.clone());
        // A block with an ID alone is not an event, but the client keeps its ID.
        let id = id.or_else(|| Some(taken.first()?.trim().strip_prefix("id: ")?.to_owned()));
        let mut second = publisher.subscription(()).last_event_id(id).open().unwrap();
        let seen: BTreeSet<String> =
            parsed(&taken.concat()).into_iter().map(|event| event.data).chain(data_of(&mut second)).collect();
        assert!(["a", "b", "c"].iter().all(|value| seen.contains(*value)), "after {frames} frames: {seen:?}");
    }
}

#[test]
fn an_own_id_of_a_replaced_event_is_a_gap() {
    let publisher = latest().build().unwrap();
    for n in 1..=3 {
        publisher.publish(keyed(&n.to_string(), "a").id(format!("own-{n}")).unwrap());
    }
    let open = |id: &str| publisher.subscription(()).last_event_id(id).open().unwrap();
    assert_eq!(open("own-3").resumption(), Resumption::Complete);
    assert_eq!(data_of(&mut open("own-1")), ["gap", "3"]);
    // The same ID again and again is forgotten with its last event.
    for n in 0..100 {
        publisher.publish_to("same", keyed(&n.to_string(), "a").id("same").unwrap());
    }
    publisher.publish_to("same", keyed("last", "a"));
    let unknown = publisher.subscription(()).channels("same").last_event_id("same").open().unwrap();
    assert_eq!(unknown.resumption(), Resumption::Gap);
}

#[test]
fn a_snapshot_and_replay_last_replace_the_state() {
    let publisher = latest().build().unwrap();
    publisher.publish(keyed("a1", "a"));
    publisher.publish("x");
    publisher.publish("y");
    let mut last = publisher.subscription(()).replay_last(2).open().unwrap();
    assert_eq!(data_of(&mut last), ["x", "y"]);
    assert_eq!(data_of(&mut publisher.subscription(()).replay_last(0).open().unwrap()), [""; 0]);
    for after in [None, publisher.last_event_id()] {
        let snapshot = || Snapshot { after: after.clone(), events: vec![Event::new("snapshot")] };
        let mut with_snapshot = publisher.subscription(()).snapshot_with(snapshot).open().unwrap();
        assert_eq!(data_of(&mut with_snapshot), ["snapshot"]);
    }
}

#[test]
fn a_large_state_is_replayed_in_slices_while_it_changes() {
    let publisher = latest().overflow(Overflow::LatestPerKey).build().unwrap();
    let mut values = BTreeMap::new();
    let publish = |values: &mut BTreeMap<usize, String>, key: usize, value: usize| {
        let value = format!("{value} {}", "x".repeat(200));
        publisher.publish(keyed(&format!("{key} {value}"), &key.to_string()));
        values.insert(key, value);
    };
    for key in 0..2_000 {
        publish(&mut values, key, 0);
    }
    let mut newcomer = publisher.subscribe().unwrap();
    let mut seen = BTreeMap::new();
    let mut round = 0;
    while let Ok(frame) = newcomer.try_recv() {
        if let Some((key, value)) = frame.strip_prefix("data: ").and_then(|data| data.lines().next()?.split_once(' ')) {
            seen.insert(key.parse::<usize>().unwrap(), value.to_owned());
        }
        round += 1;
        if round < 1_000 {
            publish(&mut values, round * 7 % 2_000, round);
        }
    }
    assert!(seen == values, "the page's state is not the application's");
}

/// What the history holds by the documentation.
#[derive(Default)]
struct Model {
    sequence: u64,
    rings: BTreeMap<&'static str, Ring>,
}

/// The events of one channel.
#[derive(Default)]
struct Ring {
    /// Each with its key.
    events: Vec<(u64, Option<u32>)>,
    /// The highest evicted sequence.
    floor: u64,
}

const CHANNELS: [&str; 3] = ["a", "b", "c"];
/// The number of events that each channel keeps: fewer than there are keys, so that some states are incomplete.
const KEPT: usize = 6;
const KEYS: u32 = 8;

impl Model {
    fn publish(&mut self, channels: &[&'static str], key: Option<u32>) {
        self.sequence += 1;
        for channel in channels {
            let ring = self.rings.entry(channel).or_default();
            ring.events.retain(|(_, own)| own.is_none() || *own != key);
            ring.events.push((self.sequence, key));
        }
        while let Some(gone) = self.gone() {
            for ring in self.rings.values_mut().filter(|ring| ring.events.iter().any(|(sequence, _)| *sequence == gone))
            {
                ring.floor = gone;
                ring.events.retain(|(sequence, _)| *sequence > gone);
            }
        }
    }

    /// Returns an event that no channel has among its newest.
    fn gone(&self) -> Option<u64> {
        let newest = |ring: &Ring| ring.events.len().saturating_sub(KEPT);
        let kept: BTreeSet<_> = self.rings.values().flat_map(|ring| &ring.events[newest(ring)..]).collect();
        let all = self.rings.values().flat_map(|ring| &ring.events);
        all.filter(|event| !kept.contains(event)).map(|(sequence, _)| *sequence).next()
    }

    /// Returns what a subscriber of these channels gets: a gap, and the sequences of the events.
    fn expected(&self, channels: &[&str], after: Option<u64>) -> (bool, BTreeSet<u64>) {
        let rings: Vec<_> = channels.iter().filter_map(|channel| self.rings.get(channel)).collect();
        let is_gap = after.is_some_and(|after| rings.iter().any(|ring| ring.floor > after));
        let events = rings.iter().flat_map(|ring| &ring.events);
        let wanted = |(sequence, key): &&(u64, Option<u32>)| match after {
            Some(after) => *sequence > after,
            None => key.is_some(),
        };
        (is_gap, events.filter(wanted).map(|(sequence, _)| *sequence).collect())
    }
}

#[test]
fn every_newcomer_and_every_resuming_client_gets_what_the_model_says() {
    let steps = std::env::var("MODEL_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(20_000);
    let seed = seed("latest per key");
    let _watchdog = Watchdog::new(&format!("the model with SEED={seed}"));
    let mut rng = Rng::with_seed(seed);
    let (mut gaps, mut states) = (0, 0);
    for _ in 0..steps / 200 {
        let history = History::new().latest_per_key().max_events_per_channel(KEPT);
        let publisher = Publisher::builder().history(history).heartbeat(None).build().unwrap();
        let mut model = Model::default();
        // The value of each key of each channel, as the application and as a client has it.
        let mut values: BTreeMap<(&str, u32), u64> = BTreeMap::new();
        let mut ids = vec![publisher.last_event_id().unwrap()];
        for _ in 0..200 {
            let channels: Vec<&'static str> = CHANNELS.into_iter().filter(|_| rng.bool()).collect();
            if channels.is_empty() {
                continue;
            }
            if rng.u32(..4) > 0 {
                let key = (rng.u32(..3) > 0).then(|| rng.u32(..KEYS));
                model.publish(&channels, key);
                let event = Event::new(model.sequence.to_string());
                let event = if let Some(key) = key { event.key(key.to_string()) } else { event };
                ids.push(publisher.publish_to(&channels, event).id().unwrap().to_owned());
                if let Some(key) = key {
                    values.extend(channels.iter().map(|channel| ((*channel, key), model.sequence)));
                }
                continue;
            }
            let after = rng.bool().then(|| rng.usize(..ids.len()) as u64);
            let id = after.map(|after| ids[after as usize].clone());
            let mut client = publisher.subscription(()).channels(&channels).last_event_id(id).open().unwrap();
            let (gap, expected) = model.expected(&channels, after);
            let mut got = data_of(&mut client);
            assert_eq!(got.first().is_some_and(|first| first == "gap"), gap, "after {after:?} of {channels:?}");
            got.retain(|data| data != "gap");
            let got: Vec<u64> = got.iter().map(|data| data.parse().unwrap()).collect();
            // A gap's replay begins at the lowest floor, which can be below what it was asked for.
            if gap {
                assert!(expected.iter().all(|sequence| got.contains(sequence)), "{got:?} lacks some of {expected:?}");
            } else {
                assert_eq!(got, expected.iter().copied().collect::<Vec<_>>(), "after {after:?} of {channels:?}");
            }
            // Without a gap, each value that the client does not have by now is one that it had when it left.
            if let (Some(after), false) = (after, gap) {
                let missed =
                    values.iter().filter(|((channel, _), value)| channels.contains(channel) && **value > after);
                assert!(missed.into_iter().all(|(_, value)| got.contains(value)), "a value is missing");
            }
            gaps += usize::from(gap);
            states += usize::from(after.is_none() && got.len() > 1);
        }
    }
    println!("{steps} steps, {gaps} gaps, {states} states");
    assert!(gaps > steps / 1_000 && states > steps / 1_000, "too little happened");
}
