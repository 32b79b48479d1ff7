mod lines;
mod model;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::client::{Parser, take};
use crate::error::InvalidSetting;
use crate::store::{FollowSink, HistoryUpstream, StopFollowing, StoreState, Upstream, fake::Disk};
use crate::{Event, History, OpenError, Overflow, PublishError, Publisher, Resumption, Subscription};

const LONG: Duration = Duration::from_secs(20);
const CHANNELS: [&str; 2] = ["a", "b"];

/// An upstream without a network: the test takes what the origin sends, and gives it to the edge.
#[derive(Clone, Default)]
struct Line(Arc<Mutex<Option<Box<dyn FollowSink>>>>);

impl Upstream for Line {
    fn check(&self) -> Result<(), InvalidSetting> {
        Ok(())
    }

    fn channels(&self) -> Vec<Arc<str>> {
        CHANNELS.map(Arc::from).into()
    }

    fn start(&self, sink: Box<dyn FollowSink>) -> Result<Box<dyn StopFollowing>, String> {
        *self.0.lock() = Some(sink);
        Ok(Box::new(self.clone()))
    }
}

impl StopFollowing for Line {
    fn stop(&self) {
        // It holds the registry.
        drop(self.0.lock().take());
    }
}

impl From<Line> for HistoryUpstream {
    fn from(line: Line) -> Self {
        Self(Arc::new(line))
    }
}

struct Edge {
    publisher: Publisher,
    line: Line,
    connection: Option<(Subscription, Parser)>,
}

impl Edge {
    fn new(history: History) -> Self {
        let line = Line::default();
        let publisher = Publisher::builder().history(history.follow(line.clone())).heartbeat(None).build().unwrap();
        Self { publisher, line, connection: None }
    }

    /// Takes at most this many blocks from the origin. Returns how many it took.
    fn receive(&mut self, origin: &Publisher, blocks: usize) -> usize {
        let mut sink = self.line.0.lock();
        let sink = &mut **sink.as_mut().unwrap();
        if self.connection.is_none() {
            let stream = origin.subscription(()).channels(CHANNELS).last_event_id(sink.last_id()).for_follower();
            let Ok(stream) = stream.open() else { return 0 };
            self.connection = Some((stream, Parser::new().for_follower()));
        }
        let (stream, parser) = self.connection.as_mut().unwrap();
        for taken in 0..blocks {
            let Ok(block) = stream.try_recv() else {
                if stream.end_cause().is_some() {
                    self.connection = None;
                }
                return taken;
            };
            for message in parser.push(block.as_bytes()).unwrap() {
                assert!(take(sink, message), "not for a follower: {block}");
            }
        }
        blocks
    }

    fn receive_all(&mut self, origin: &Publisher) {
        // Once more, because the first attempt may see the end of a connection.
        for _ in 0..3 {
            while self.receive(origin, 1_000) > 0 {}
        }
    }

    fn cut(&mut self) {
        self.connection = None;
    }

    fn expire(&self) {
        self.line.0.lock().as_mut().unwrap().expire();
    }
}

fn origin() -> Publisher {
    Publisher::builder().history(History::new()).heartbeat(None).build().unwrap()
}

/// Returns an origin that keeps this many events of each channel.
fn origin_that_keeps(events: usize) -> Publisher {
    Publisher::builder().history(History::new().max_events_per_channel(events)).heartbeat(None).build().unwrap()
}

fn origin_on(disk: &Disk) -> Publisher {
    Publisher::builder().history(History::new().store(disk.clone())).heartbeat(None).build().unwrap()
}

/// Returns an edge that has received everything.
fn edge_of(origin: &Publisher) -> Edge {
    let mut edge = Edge::new(History::new());
    edge.receive_all(origin);
    edge
}

fn id_of(receipt: &crate::Receipt) -> String {
    receipt.id().unwrap().to_owned()
}

fn open(publisher: &Publisher, channels: &[&str], id: Option<&str>) -> Subscription {
    publisher.subscription(()).channels(channels).last_event_id(id).open().unwrap()
}

/// Returns the blocks with data, without the line of the ID.
fn received(subscription: &mut Subscription) -> Vec<String> {
    let blocks = std::iter::from_fn(|| subscription.try_recv().ok());
    let blocks =
        blocks.map(|block| block.lines().filter(|line| !line.starts_with("id:")).collect::<Vec<_>>().join("\n"));
    blocks.map(|block| block.trim_end().to_owned()).filter(|block| !block.is_empty()).collect()
}

fn are_gaps(blocks: &[String]) -> bool {
    !blocks.is_empty() && blocks.iter().all(|block| block.starts_with("event: gap\n"))
}

#[test]
fn an_edge_sends_the_same_blocks_as_its_origin() {
    let origin = origin();
    let mut edge = edge_of(&origin);
    let mut streams = [&origin, &edge.publisher].map(|publisher| open(publisher, &CHANNELS, None));
    let event = Event::new("two\nlines ").event("kind").unwrap().retry(Duration::from_millis(7)).unwrap();
    origin.publish_to("a", event.clone());
    origin.publish_to(CHANNELS, event.clone().id("own 1".replace(' ', "-")).unwrap());
    origin.publish_to("b", "");
    origin.publish_to("other", "not followed");
    origin.publish_to("a", Event::new("{\"é\"}"));
    edge.receive_all(&origin);
    let [at_origin, at_edge] = streams
        .each_mut()
        .map(|stream| std::iter::from_fn(|| stream.try_recv().ok()).map(String::from).collect::<Vec<_>>());
    assert_eq!(at_origin, at_edge);
    assert_eq!(at_origin.len(), 5, "the start and four events: {at_origin:?}");
}

#[test]
fn a_client_resumes_anywhere() {
    let origin = origin();
    let ids: Vec<String> = (0..6).map(|n| id_of(&origin.publish_to(CHANNELS[n % 2], format!("{n}")))).collect();
    let edges = [edge_of(&origin), edge_of(&origin)];
    for publisher in edges.iter().map(|edge| &edge.publisher).chain([&origin]) {
        for (seen, id) in ids.iter().enumerate() {
            let mut stream = open(publisher, &CHANNELS, Some(id));
            assert_eq!(stream.resumption(), Resumption::Complete);
            let rest: Vec<String> = (seen + 1..6).map(|n| format!("data: {n}")).collect();
            assert_eq!(received(&mut stream), rest);
        }
    }
}

#[test]
fn an_own_id_is_known_at_the_edge() {
    let origin = origin();
    origin.publish_to("a", Event::new("1").id("mine").unwrap());
    origin.publish_to("a", "2");
    let edge = edge_of(&origin);
    let mut stream = open(&edge.publisher, &["a"], Some("mine"));
    assert_eq!(stream.resumption(), Resumption::Complete);
    assert_eq!(received(&mut stream), ["data: 2"]);
}

#[test]
fn nobody_joins_before_the_history_is_filled() {
    let origin = origin();
    for n in 0..10 {
        origin.publish_to("a", format!("{n}"));
    }
    let mut edge = Edge::new(History::new());
    assert_eq!(edge.publisher.store_state(), Some(StoreState::Starting { reason: None }));
    // The beginning, and ten events. A connection that is cut goes on where it was.
    for _ in 0..11 {
        assert_eq!(edge.publisher.subscribe_to("a").unwrap_err(), OpenError::Starting);
        edge.receive(&origin, 1);
        edge.cut();
        edge.receive(&origin, 1);
    }
    assert_eq!(edge.publisher.store_state(), Some(StoreState::Running { pending: 0 }));
    assert_eq!(edge.publisher.channel_stats("a").history_events, 10);
    drop(open(&edge.publisher, &["a"], None));
}

#[test]
fn an_edge_gaps_where_its_origin_does_and_nowhere_else() {
    let origin = origin_that_keeps(3);
    let quiet = id_of(&origin.publish_to("b", "quiet"));
    let ids: Vec<String> = (0..6).map(|n| id_of(&origin.publish_to("a", format!("{n}")))).collect();
    let edge = edge_of(&origin);
    for (channels, id, expected) in [
        (&["a"][..], &ids[1], Resumption::Gap),
        (&["a"], &ids[2], Resumption::Complete),
        (&["b"], &quiet, Resumption::Complete),
        (&["b"], &ids[0], Resumption::Complete),
        (&["a", "b"], &quiet, Resumption::Gap),
    ] {
        for publisher in [&origin, &edge.publisher] {
            assert_eq!(open(publisher, channels, Some(id)).resumption(), expected, "{channels:?} {id}");
        }
    }
}

#[test]
fn what_the_origin_evicts_while_it_is_away_is_a_gap_in_its_channel_alone() {
    let origin = origin_that_keeps(3);
    let mut edge = edge_of(&origin);
    let [mut busy, mut quiet] = CHANNELS.map(|channel| open(&edge.publisher, &[channel], None));
    origin.publish_to("b", "before");
    let seen = id_of(&origin.publish_to("a", "before"));
    edge.receive_all(&origin);
    for stream in [&mut busy, &mut quiet] {
        assert_eq!(received(stream), ["data: before"]);
    }
    edge.cut();
    for n in 0..5 {
        origin.publish_to("a", format!("{n}"));
    }
    origin.publish_to("b", "after");
    edge.receive_all(&origin);
    let busy = received(&mut busy);
    assert!(are_gaps(&busy[..1]), "{busy:?}");
    assert_eq!(busy[1..], ["data: 2", "data: 3", "data: 4"]);
    assert_eq!(received(&mut quiet), ["data: after"]);
    assert_eq!(open(&edge.publisher, &["a"], Some(&seen)).resumption(), Resumption::Gap);
    assert_eq!(open(&edge.publisher, &["b"], Some(&seen)).resumption(), Resumption::Complete);
}

#[test]
fn a_restart_of_an_origin_with_a_store_is_no_gap() {
    let disk = Disk::new(100);
    let first = origin_on(&disk);
    let mut edge = edge_of(&first);
    let mut stream = open(&edge.publisher, &["a"], None);
    let seen = first.publish_confirmed("a", "1", LONG).unwrap().id().unwrap().to_owned();
    edge.receive_all(&first);
    first.publish_confirmed("a", "2", LONG).unwrap();
    drop(first);
    edge.cut();
    let second = origin_on(&disk);
    second.publish_confirmed("a", "3", LONG).unwrap();
    edge.receive_all(&second);
    assert_eq!(received(&mut stream), ["data: 1", "data: 2", "data: 3"]);
    let mut resumed = open(&edge.publisher, &["a"], Some(&seen));
    assert_eq!(resumed.resumption(), Resumption::Complete);
    assert_eq!(received(&mut resumed), ["data: 2", "data: 3"]);
}

#[test]
fn a_lost_tail_or_another_history_ends_the_streams_and_is_a_gap_afterwards() {
    let disk = Disk::new(100);
    let first = origin_on(&disk);
    let kept = first.publish_confirmed("a", "kept", LONG).unwrap().id().unwrap().to_owned();
    disk.sync();
    let mut edge = edge_of(&first);
    let lost = first.publish_confirmed("a", "lost", LONG).unwrap().id().unwrap().to_owned();
    edge.receive_all(&first);
    drop(first);
    disk.lose_writes(usize::MAX);
    let second = origin_on(&disk);
    for next in [&second, &origin()] {
        let mut stream = open(&edge.publisher, &["a"], None);
        edge.cut();
        if next.store_state().is_some() {
            next.publish_confirmed("a", "new", LONG).unwrap();
        } else {
            next.publish_to("a", "new");
        }
        edge.receive_all(next);
        assert!(received(&mut stream).is_empty());
        assert!(stream.end_cause().is_some());
        for id in [&kept, &lost] {
            let mut stream = open(&edge.publisher, &["a"], Some(id));
            assert_eq!(stream.resumption(), Resumption::Gap, "{id}");
            assert_eq!(received(&mut stream).last().unwrap(), "data: new");
        }
    }
}

#[test]
fn a_client_that_is_ahead_gets_what_is_newer() {
    let origin = origin();
    let mut edge = edge_of(&origin);
    origin.publish_to("a", "1");
    let ahead = id_of(&origin.publish_to("a", "2"));
    let mut stream = open(&edge.publisher, &["a"], Some(&ahead));
    assert_eq!(stream.resumption(), Resumption::Complete);
    origin.publish_to("a", "3");
    edge.receive_all(&origin);
    edge.expire();
    assert_eq!(received(&mut stream), ["data: 3"]);
}

#[test]
fn a_client_that_is_ahead_is_told_a_gap_that_it_has_not_seen() {
    let origin = origin_that_keeps(2);
    let mut edge = edge_of(&origin);
    edge.cut();
    let ids: Vec<String> = (0..6).map(|n| id_of(&origin.publish_to("a", format!("{n}")))).collect();
    // Events 2 and 3 are missing for the first, and none for the second.
    let mut streams = [&ids[1], &ids[3]].map(|id| open(&edge.publisher, &["a"], Some(id)));
    edge.receive_all(&origin);
    let [first, second] = streams.each_mut().map(received);
    assert!(are_gaps(&first[..1]), "{first:?}");
    assert_eq!(first[1..], ["data: 4", "data: 5"]);
    assert_eq!(second, ["data: 4", "data: 5"]);
}

#[test]
fn an_id_that_turns_out_to_be_of_another_event_is_a_gap_before_the_next_event() {
    let origin = origin_on(&Disk::new(100));
    let mut edge = edge_of(&origin);
    let first = origin.publish_confirmed("a", "1", LONG).unwrap();
    let name = first.id().unwrap().split('.').next().unwrap();
    let mut stream = open(&edge.publisher, &["a"], Some(&format!("{name}.{}-1", u64::MAX)));
    assert_eq!(stream.resumption(), Resumption::Complete, "it may be of an era that the edge has not heard of");
    edge.receive_all(&origin);
    assert!(received(&mut stream).is_empty(), "the edge may still be at the end of the era before");
    origin.publish_confirmed("a", "2", LONG).unwrap();
    edge.receive_all(&origin);
    let blocks = received(&mut stream);
    assert!(are_gaps(&blocks[..1]), "{blocks:?}");
    assert_eq!(blocks[1..], ["data: 2"]);
}

#[test]
fn a_client_whose_gap_reaches_beyond_the_edge_is_sent_it_once() {
    let origin = origin_that_keeps(2);
    let seen = id_of(&origin.publish_to("b", "1"));
    let mut edge = edge_of(&origin);
    edge.cut();
    origin.publish_to("b", "2");
    let lost = id_of(&origin.publish_to("a", "3"));
    origin.publish_to("a", "4");
    origin.publish_to("a", "5");
    // The edge knows what the origin has evicted, and has received no event yet.
    assert_eq!(edge.receive(&origin, 1), 1);
    assert_eq!(edge.publisher.last_event_id().as_ref(), Some(&seen));
    let mut stream = open(&edge.publisher, &["a"], Some(&seen));
    let gap = stream.next().unwrap();
    assert_eq!(gap, format!("event: gap\ndata: {{\"from\":\"{seen}\",\"to\":\"{lost}\"}}\nid: {lost}\n\n"));
    edge.receive_all(&origin);
    assert_eq!(received(&mut stream), ["data: 4", "data: 5"]);
}

#[test]
fn an_edge_that_reconnects_before_it_receives_an_event_sends_a_gap_once() {
    let origin = origin_that_keeps(2);
    origin.publish_to("a", "1");
    let mut edge = edge_of(&origin);
    let mut stream = open(&edge.publisher, &["a"], None);
    edge.cut();
    for number in 2..=4 {
        origin.publish_to("a", number.to_string());
    }
    for _ in 0..3 {
        assert_eq!(edge.receive(&origin, 1), 1);
        edge.cut();
    }
    let blocks = received(&mut stream);
    assert!(are_gaps(&blocks) && blocks.len() == 1, "{blocks:?}");
    // What has gone missing since is a gap of its own.
    origin.publish_to("a", "5");
    edge.receive_all(&origin);
    let blocks = received(&mut stream);
    assert!(are_gaps(&blocks[..1]), "{blocks:?}");
    assert_eq!(blocks[1..], ["data: 4", "data: 5"]);
}

#[test]
fn an_id_that_never_comes_is_a_gap_after_some_seconds() {
    let origin = origin();
    let last = id_of(&origin.publish_to("a", "1"));
    let mut edge = edge_of(&origin);
    let forged = format!("{}-99999", last.rsplit_once('-').unwrap().0);
    let mut stream = open(&edge.publisher, &["a"], Some(&forged));
    origin.publish_to("a", "2");
    edge.receive_all(&origin);
    assert!(received(&mut stream).is_empty());
    let deadline = Instant::now() + LONG;
    let gap = loop {
        edge.expire();
        let received = received(&mut stream);
        if !received.is_empty() {
            break received;
        }
        assert!(Instant::now() < deadline, "no gap");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(are_gaps(&gap), "{gap:?}");
    origin.publish_to("a", "3");
    edge.receive_all(&origin);
    assert_eq!(received(&mut stream), ["data: 3"]);
}

#[test]
fn a_closure_is_a_gap_at_the_edge() {
    let origin = origin();
    let mut edge = edge_of(&origin);
    let [mut with, mut without] = CHANNELS.map(|channel| open(&edge.publisher, &[channel], None));
    origin.publish_with("a", |()| Some(Event::new("personal")));
    origin.publish_to(CHANNELS, "for all");
    edge.receive_all(&origin);
    let with = received(&mut with);
    assert!(are_gaps(&with[..1]), "{with:?}");
    assert_eq!(with[1..], ["data: for all"]);
    assert_eq!(received(&mut without), ["data: for all"]);
}

#[test]
fn the_newest_event_of_each_key_is_kept_at_the_edge_too() {
    let origin = Publisher::builder().history(History::new().latest_per_key()).build().unwrap();
    let publish = |key: &str, data: &str| origin.publish_to("a", Event::new(data).key(key));
    publish("x y", "1");
    publish("z", "2");
    let mut edge = Edge::new(History::new().latest_per_key());
    edge.receive_all(&origin);
    publish("x y", "3");
    // It replaces an event that waits for the follower.
    publish("x y", "4");
    edge.receive_all(&origin);
    assert_eq!(received(&mut open(&edge.publisher, &["a"], None)), ["data: 2", "data: 4"]);
}

#[test]
fn nothing_is_published_at_an_edge() {
    let edge = edge_of(&origin());
    let publisher = &edge.publisher;
    assert!(publisher.publish_to("a", "1").is_refused());
    assert!(publisher.publish_with("a", |()| None).is_refused());
    assert_eq!(publisher.publish_confirmed("a", "1", LONG).unwrap_err(), PublishError::Follows);
    let mut stream = open(publisher, &["a"], None);
    assert!(stream.handle().send("to one"));
    assert_eq!(received(&mut stream), ["data: to one"]);
}

#[test]
fn an_edge_can_have_edges() {
    let origin = origin();
    origin.publish_to("a", "1");
    let mut edge = edge_of(&origin);
    let mut outer = edge_of(&edge.publisher);
    let mut stream = open(&outer.publisher, &["a"], None);
    let id = id_of(&origin.publish_to("a", "2"));
    edge.receive_all(&origin);
    outer.receive_all(&edge.publisher);
    assert_eq!(received(&mut stream), ["data: 2"]);
    assert_eq!(open(&outer.publisher, &["a"], Some(&id)).resumption(), Resumption::Complete);
    // The edge between them begins anew, and is behind the outer one for a while.
    edge = Edge::new(History::new());
    outer.cut();
    assert_eq!(outer.receive(&edge.publisher, 1), 0);
    edge.receive_all(&origin);
    origin.publish_to("a", "3");
    edge.receive_all(&origin);
    outer.receive_all(&edge.publisher);
    assert_eq!(received(&mut stream), ["data: 3"]);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let both = History::new().store(Disk::new(9)).follow(Line::default());
    assert!(Publisher::builder().history(both).build().is_err());
    let blocks = Publisher::builder().history(History::new().follow(Line::default()));
    assert!(blocks.overflow(Overflow::Block(LONG)).build().is_err());
    let error = Publisher::new().subscription(()).for_follower().open().unwrap_err();
    assert_eq!(error.to_string(), "`for_follower` needs a publisher with a history: set `PublisherBuilder::history`");
}
