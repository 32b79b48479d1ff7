//! What an edge does with lines that an origin may send, and with those that it may not.

use super::*;

impl Edge {
    /// Gives a block to the edge. Returns whether it can come from an origin.
    fn gets(&mut self, block: &str) -> bool {
        let mut sink = self.line.0.lock();
        let sink = &mut **sink.as_mut().unwrap();
        let messages = Parser::new().for_follower().push(block.as_bytes()).unwrap();
        messages.into_iter().all(|message| take(sink, message))
    }

    fn gets_event(&mut self, sequence: u64, channels: &str) {
        assert!(self.gets(&format!("follow: event {sequence} {channels}\ndata: {sequence}\nid: log-{sequence}\n\n")));
    }

    fn resumption(&self, channel: &str, id: &str) -> Resumption {
        open(&self.publisher, &[channel], Some(id)).resumption()
    }
}

#[test]
fn a_line_that_cannot_come_is_refused() {
    let mut edge = Edge::new(History::new());
    let begin = "follow: begin log 9 0 0 0 - 0,0 whole\n\n";
    for block in [
        "data: an ordinary event\n\n",
        "follow: event 1 0\ndata: x\n\n",
        "follow: at 1\n\n",
        "follow: begin log 9 0 0 0 - 0 whole\n\n",
        "follow: other 1\n\n",
    ] {
        assert!(!edge.gets(block), "before the beginning: {block}");
    }
    assert!(edge.gets(begin));
    for block in ["data: x\n\n", "follow: event 10 2\ndata: x\n\n", "follow: hole 10 7\n\n"] {
        assert!(!edge.gets(block), "{block}");
    }
    edge.gets_event(10, "0");
    assert_eq!(edge.publisher.last_event_id().as_deref(), Some("log-10"));
}

#[test]
fn an_event_that_comes_again_is_ignored() {
    let mut edge = Edge::new(History::new());
    assert!(edge.gets("follow: begin log 3 0 0 0 - 0,0 whole\n\n"));
    let mut stream = open(&edge.publisher, &["a"], None);
    edge.gets_event(5, "0");
    assert!(edge.gets("follow: begin log 6 3 6 0 - 0,0 rest\n\n"));
    for sequence in [4, 5, 6] {
        edge.gets_event(sequence, "0");
    }
    assert_eq!(received(&mut stream), ["data: 5", "data: 6"]);
}

#[test]
fn a_channel_that_has_evicted_an_event_stays_without_it() {
    let mut edge = Edge::new(History::new().max_events_per_channel(1));
    assert!(edge.gets("follow: begin log 12 4 10 0 - 4,9 whole\n\n"));
    edge.gets_event(5, "0,1");
    edge.gets_event(10, "0,1");
    for (id, expected) in [("log-7", Resumption::Gap), ("log-9", Resumption::Complete)] {
        assert_eq!(edge.resumption("b", id), expected, "{id}");
    }
}

#[test]
fn what_a_stream_leaves_out_is_missing() {
    let mut edge = Edge::new(History::new());
    assert!(edge.gets("follow: begin log 60 50 55 0 - 0,0 rest\n\n"));
    edge.gets_event(55, "0");
    assert_eq!(edge.resumption("a", "log-49"), Resumption::Gap);
    assert_eq!(edge.resumption("a", "log-50"), Resumption::Complete);
}

#[test]
fn a_stream_that_reads_the_history_gets_nothing_of_another_one() {
    let mut edge = Edge::new(History::new());
    assert!(edge.gets("follow: begin log 0 0 0 0 - 0,0 whole\n\n"));
    for sequence in 1..=2_000 {
        edge.gets_event(sequence, "0");
    }
    let mut live = open(&edge.publisher, &["a"], Some("log-0"));
    let mut closed = open(&edge.publisher, &["a"], Some("log-0"));
    let handle = closed.handle();
    assert!(handle.close());
    assert!(edge.gets("follow: begin other 2000 0 1 0 - 0,0 whole\n\n"));
    assert!(edge.gets("follow: event 1990 0\ndata: of another history\nid: other-1990\n\n"));
    for stream in [&mut live, &mut closed] {
        let received = received(stream);
        assert!(!received.contains(&"data: of another history".to_owned()), "{received:?}");
    }
}
