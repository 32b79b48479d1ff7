//! Tests of one subscriber's queue.

use super::*;
use crate::event::Event;
use crate::sync::channel::{Receiver, TryRecvError, bounded};

const LIMITS: QueueLimits = QueueLimits { events: 3, bytes: 1_000, overflow: Overflow::Disconnect };

struct Fixture {
    queue: Queue,
    schedule: Schedule,
    bell: Receiver<()>,
}

impl Fixture {
    fn new(overflow: Overflow) -> Self {
        let (sender, bell) = bounded(1);
        Self {
            queue: Queue::new(Arc::new(QueueLimits { overflow, ..LIMITS }), sender),
            schedule: Schedule::new(),
            bell,
        }
    }

    /// Pushes, and returns how many payloads were dropped for it; `None` if there was no room.
    fn push(&self, data: &str, key: Option<&str>) -> Option<usize> {
        let mut dropped = Vec::new();
        let payload = Payload::Frame(Event::new(data).encode());
        let key = key.map(|key| QueueKey { channel: None, key: key.into() });
        let wake = self.queue.push(&payload, key.as_ref(), &mut dropped, &self.schedule).ok()?;
        if let Some(wake) = wake {
            wake.wake();
        }
        Some(dropped.len())
    }

    fn pop(&self) -> Option<(u64, String)> {
        match self.queue.pop(true) {
            Popped::Payload { lost, payload: Payload::Frame(frame), .. } => {
                Some((lost, frame.trim().trim_start_matches("data: ").to_owned()))
            }
            _ => None,
        }
    }
}

#[test]
fn the_bell_rings_once_for_a_reader_that_has_seen_the_queue_empty() {
    let fixture = Fixture::new(Overflow::Disconnect);
    let rings = || fixture.bell.try_recv() == Ok(());
    fixture.push("1", None);
    assert!(!rings(), "the reader has not seen it empty");
    assert!(fixture.pop().is_some() && fixture.pop().is_none());
    fixture.push("2", None);
    assert!(rings());
    fixture.push("3", None);
    assert!(!rings(), "it has rung already");
    assert!(fixture.pop().is_some() && fixture.pop().is_some() && fixture.pop().is_none());
    fixture.queue.close(EndCause::Closed, &fixture.schedule).expect("a reader listens").wake();
    assert!(rings());
    assert_eq!(fixture.queue.end(), Some(EndCause::Closed), "the first cause counts");
}

#[test]
fn the_bell_is_gone_once_the_stream_is_written_in_the_background() {
    let fixture = Fixture::new(Overflow::Disconnect);
    fixture.queue.listen_in_background();
    assert_eq!(fixture.bell.try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn an_aborted_queue_delivers_only_its_end() {
    let fixture = Fixture::new(Overflow::Disconnect);
    assert!(fixture.pop().is_none());
    fixture.push("1", None);
    assert_eq!(fixture.bell.try_recv(), Ok(()));
    let (payloads, _) = fixture.queue.abort(EndCause::QueueFull, None, &fixture.schedule);
    assert_eq!(payloads.len(), 1);
    assert!(matches!(fixture.queue.pop(true), Popped::Ended), "delivered from an aborted queue");
}

#[test]
fn an_aborted_queue_delivers_its_farewell_once() {
    let fixture = Fixture::new(Overflow::LatestPerKey);
    fixture.push("1", Some("a"));
    let farewell = Some(Event::new("farewell").encode());
    let (payloads, _) = fixture.queue.abort(EndCause::Replaced, farewell, &fixture.schedule);
    assert_eq!(payloads.len(), 1);
    assert_eq!(fixture.pop(), Some((0, "farewell".into())));
    assert!(matches!(fixture.queue.pop(true), Popped::Ended));
}

#[test]
fn a_closed_queue_delivers_its_payloads_and_then_its_end() {
    let fixture = Fixture::new(Overflow::Disconnect);
    fixture.push("1", None);
    let _ = fixture.queue.close(EndCause::Closed, &fixture.schedule);
    assert_eq!(fixture.pop(), Some((0, "1".into())));
    assert!(matches!(fixture.queue.pop(true), Popped::Ended));
}

#[test]
fn the_newest_event_of_a_key_is_queued_last() {
    let fixture = Fixture::new(Overflow::LatestPerKey);
    for (data, key) in [("a1", Some("a")), ("x", None), ("b1", Some("b"))] {
        assert_eq!(fixture.push(data, key), Some(0));
    }
    assert_eq!(fixture.push("a2", Some("a")), Some(1));
    assert_eq!([(); 3].map(|()| fixture.pop().unwrap().1), ["x", "b1", "a2"]);
    assert_eq!(fixture.push("a3", Some("a")), Some(0), "the popped event is no longer queued");
    assert!(fixture.pop().is_some());
}

#[test]
fn losses_are_reported_once_with_the_next_payload() {
    let fixture = Fixture::new(Overflow::DropOldest);
    let dropped: Vec<_> = (0..5).map(|n| fixture.push(&n.to_string(), None)).collect();
    assert_eq!(dropped, [Some(0), Some(0), Some(0), Some(1), Some(1)]);
    assert_eq!((fixture.pop(), fixture.pop()), (Some((2, "2".into())), Some((0, "3".into()))));
}

#[test]
fn an_empty_queue_has_room_for_any_payload_and_a_full_one_for_none() {
    let fixture = Fixture::new(Overflow::Disconnect);
    assert_eq!(fixture.push(&"x".repeat(10_000), None), Some(0));
    assert_eq!(fixture.push("", None), None);
    assert!(fixture.pop().is_some());
    assert_eq!([(); 4].map(|()| fixture.push("x", None)), [Some(0), Some(0), Some(0), None]);
}
