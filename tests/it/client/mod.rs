//! The blocking client, against a server whose every byte a test writes.

mod hostile;
mod limits;
mod receiving;
mod reconnecting;
mod responses;
mod settings;
#[cfg(feature = "server")]
mod with_this_server;

use std::sync::mpsc::{self, Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use server_sent_events::RecvTimeoutError;
use server_sent_events::client::{
    ConnectionError, ConnectionLost, EndCause, EventSource, EventSourceBuilder, Message, StopHandle,
};

use crate::common::PATIENCE;
use crate::common::foreign_server::ForeignServer;

/// Returns a builder of a client that reconnects soon.
fn soon(server: &ForeignServer) -> EventSourceBuilder {
    EventSource::builder(server.url()).reconnection_time(Duration::from_millis(1))
}

/// Returns a builder of a client that reconnects soon, and the connections that it loses.
fn watched(server: &ForeignServer) -> (EventSourceBuilder, Receiver<ConnectionLost>) {
    let (sender, lost) = channel();
    let hook = move |connection: &ConnectionLost| drop(sender.send(connection.clone()));
    (soon(server).on_connection_lost(hook), lost)
}

/// Returns the error of the next connection that is lost.
#[track_caller]
fn loses(lost: &Receiver<ConnectionLost>) -> ConnectionError {
    lost.recv_timeout(PATIENCE).expect("a connection is lost").error
}

/// A program that takes messages on a thread of its own, so that the client reads and reconnects at any time.
struct Program {
    messages: Receiver<Message>,
    stop_handle: StopHandle,
    thread: Option<JoinHandle<EndCause>>,
}

/// Starts a program with this client.
fn runs(builder: EventSourceBuilder) -> Program {
    let mut events = builder.connect().unwrap();
    let stop_handle = events.stop_handle();
    let (sender, messages) = channel();
    let takes = move || {
        let _ = events.by_ref().try_for_each(|message| sender.send(message));
        events.end_cause().cloned().unwrap_or(EndCause::Stopped)
    };
    Program { messages, stop_handle, thread: Some(thread::spawn(takes)) }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop_handle.stop();
    }
}

/// The ways for a test to take messages.
trait Takes {
    /// Returns the next message, or the cause of the end. Panics if neither comes in time.
    fn takes(&mut self) -> Result<Message, EndCause>;
}

impl Takes for EventSource {
    fn takes(&mut self) -> Result<Message, EndCause> {
        self.recv_timeout(PATIENCE).map_err(|error| {
            assert_eq!(error, RecvTimeoutError::Ended);
            self.end_cause().expect("a cause").clone()
        })
    }
}

impl Takes for Program {
    fn takes(&mut self) -> Result<Message, EndCause> {
        self.messages.recv_timeout(PATIENCE).map_err(|error| {
            assert_eq!(error, mpsc::RecvTimeoutError::Disconnected);
            self.thread.take().expect("the program has not ended yet").join().unwrap()
        })
    }
}

#[track_caller]
fn gets(events: &mut impl Takes) -> Message {
    events.takes().expect("a message")
}

/// Checks the data of the next message.
#[track_caller]
fn gets_data(events: &mut impl Takes, data: &str) {
    assert_eq!(gets(events).data, data);
}

/// Checks that the event source ends, and returns the cause.
#[track_caller]
fn ends(events: &mut impl Takes) -> EndCause {
    events.takes().expect_err("the end")
}
