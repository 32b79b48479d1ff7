//! A client in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::{PATIENCE, TestClock};
use crate::client::{Message, Parser};
use crate::error::TryRecvError;
use crate::event::Frame;
use crate::stats::EndCause;
use crate::subscription::Subscription;

/// A client in memory: it parses what a [`Subscription`] sends, as a browser would.
///
/// Heartbeats and other comments fire nothing, so the methods about messages pass over them.
///
/// ```
/// use server_sent_events::test_util::TestClient;
/// use server_sent_events::{EndCause, Event, Publisher};
///
/// let publisher = Publisher::new();
/// let mut client = TestClient::new(publisher.subscribe()?);
/// publisher.publish(Event::new("42 %").event("progress")?);
/// let message = client.next_message();
/// assert_eq!((&*message.event_type, &*message.data), ("progress", "42 %"));
/// client.assert_nothing();
///
/// publisher.close();
/// assert_eq!(client.assert_end(), EndCause::Closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TestClient {
    subscription: Subscription,
    parser: Parser,
    ready: VecDeque<Message>,
}

impl TestClient {
    /// Creates a client of this subscription.
    pub fn new(subscription: Subscription) -> Self {
        Self { subscription, parser: Parser::new(), ready: VecDeque::new() }
    }

    /// Returns the next message. Waits for it.
    ///
    /// # Panics
    ///
    /// Panics if none comes within 20 seconds, or the stream ends.
    #[track_caller]
    pub fn next_message(&mut self) -> Message {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return message;
            }
            let frame = self.wait_for_frame("message");
            self.parse(&frame);
        }
    }

    /// Returns the next frame as it is sent, such as a heartbeat. Waits for it.
    ///
    /// # Panics
    ///
    /// Panics if none comes within 20 seconds, or the stream ends.
    #[track_caller]
    pub fn next_frame(&mut self) -> Frame {
        let frame = self.wait_for_frame("frame");
        self.parse(&frame);
        // The test has seen it.
        self.ready.clear();
        frame
    }

    /// Checks that no message is queued.
    ///
    /// # Panics
    ///
    /// Panics if there is one.
    #[track_caller]
    pub fn assert_nothing(&mut self) {
        while self.ready.is_empty()
            && let Ok(frame) = self.subscription.try_recv()
        {
            self.parse(&frame);
        }
        assert!(self.ready.is_empty(), "expected no message, but got {:?}", self.ready[0]);
    }

    /// Checks that nothing at all is queued, not even a heartbeat.
    ///
    /// # Panics
    ///
    /// Panics if there is something.
    #[track_caller]
    pub fn assert_no_frame(&mut self) {
        if let Ok(frame) = self.subscription.try_recv() {
            panic!("expected no frame, but got {:?}", &*frame);
        }
    }

    /// Checks that the stream ends without another message. Waits for the end, and returns its cause.
    ///
    /// # Panics
    ///
    /// Panics if a message comes, or if the stream does not end within 20 seconds.
    #[track_caller]
    pub fn assert_end(&mut self) -> EndCause {
        let start = Instant::now();
        loop {
            self.assert_nothing();
            if let Some(cause) = self.subscription.end_cause() {
                return cause;
            }
            assert!(start.elapsed() < PATIENCE, "the stream has not ended within {PATIENCE:?}");
            std::thread::sleep(TestClock::LOOK);
        }
    }

    /// Returns the last event ID that the client has been sent, with which a browser would resume; empty if there is
    /// none.
    ///
    /// It includes an ID that the stream begins with, once a message or a check has passed over it.
    pub fn last_event_id(&self) -> &Arc<str> {
        self.parser.last_event_id()
    }

    /// Returns the subscription, whose handle joins and leaves channels.
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    #[track_caller]
    fn wait_for_frame(&mut self, expected: &str) -> Frame {
        let start = Instant::now();
        loop {
            match self.subscription.try_recv() {
                Ok(frame) => return frame,
                Err(TryRecvError::Ended) => {
                    panic!("expected a {expected}, but the stream has ended: {:?}", self.subscription.end_cause());
                }
                Err(TryRecvError::Empty) => {}
            }
            assert!(start.elapsed() < PATIENCE, "expected a {expected}, but none came within {PATIENCE:?}");
            std::thread::sleep(TestClock::LOOK);
        }
    }

    #[track_caller]
    fn parse(&mut self, frame: &Frame) {
        match self.parser.push(frame.as_bytes()) {
            Ok(messages) => self.ready.extend(messages),
            Err(error) => panic!("{error}"),
        }
    }
}
