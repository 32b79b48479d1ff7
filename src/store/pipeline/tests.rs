//! A store thread that panics while it commits an event, which only a fault in this crate can cause.

use std::time::Duration;

use super::*;
use crate::store::fake::Disk;
use crate::store::{Content, OpenStore};

const LONG: Duration = Duration::from_secs(20);

/// Panics on one event. Notes what else it is called for.
struct Panicking {
    calls: Sender<String>,
    /// The thread waits for this before it commits the event that panics.
    go: Receiver<()>,
}

impl Sink for Panicking {
    type Event = &'static str;
    type Committed = ();

    fn record<'a>(event: &'a &'static str, sequence: u64) -> Record<'a> {
        let content = Content::Fields((*event).into());
        let channels = Vec::new().into();
        Record { sequence, at: 0, channels, own_id: None, finds_own_id: true, key: None, content }
    }

    fn commit(&mut self, event: &'static str) {
        if event == "panics" {
            let _ = self.go.recv_timeout(LONG);
            panic!("the sink panics");
        }
        let _ = self.calls.send(event.into());
    }

    fn take_trim(&mut self) -> Trim {
        Trim::default()
    }

    fn close_streams(&mut self) {
        let _ = self.calls.send("close".into());
    }

    fn warn_broken(&mut self, reason: &str) {
        let _ = self.calls.send(reason.into());
    }

    fn end(self, events: Vec<&'static str>) {
        let _ = self.calls.send(format!("end {events:?}"));
    }
}

#[test]
fn a_panic_of_the_store_thread_refuses_further_events_and_ends_the_streams_that_were_to_end() {
    let mut store = Disk::new(100).open(0).unwrap();
    store.attach().unwrap();
    let (calls, called) = crossbeam_channel::unbounded();
    let (go, wait) = bounded(1);
    let limits = WindowLimits { events: 100, bytes: 1_000, event_bytes: 100 };
    let pipeline = Pipeline::start(store, Panicking { calls, go: wait }, 0, limits).unwrap();
    pipeline.offer("first", 1).unwrap();
    let confirmed = pipeline.offer_confirmed("panics", 1).unwrap();
    pipeline.offer("later", 1).unwrap();
    assert!(pipeline.close_streams());
    go.send(()).unwrap();
    assert!(confirmed.recv_timeout(LONG).is_err());
    assert!(pipeline.flush(Instant::now() + LONG));
    let called: Vec<String> = called.iter().collect();
    assert_eq!(called, ["first", "the store thread has panicked", "close", "end [\"later\"]"]);

    assert!(matches!(pipeline.state(), StoreState::Broken { reason } if reason.contains("panicked")));
    assert_eq!(pipeline.offer("refused", 1), Err(NotAccepted::Ended));
    assert!(!pipeline.close_streams(), "the caller ends the streams");
    let started = Instant::now();
    pipeline.settle(started + LONG);
    pipeline.end(LONG);
    assert!(started.elapsed() < LONG);
}
