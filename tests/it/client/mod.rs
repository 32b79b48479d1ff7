//! The blocking client, against a server whose every byte a test writes.

mod hostile;
mod limits;
mod receiving;
mod reconnecting;
mod responses;
mod settings;
#[cfg(feature = "server")]
mod with_this_server;

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use server_sent_events::client::{ConnectionError, ConnectionLost, EventSource, EventSourceBuilder, Message};

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

#[track_caller]
fn gets(events: &mut EventSource) -> Message {
    events.recv_timeout(PATIENCE).expect("a message")
}

/// Checks the data of the next message.
#[track_caller]
fn gets_data(events: &mut EventSource, data: &str) {
    assert_eq!(gets(events).data, data);
}

/// Checks that the event source has ended, and returns the cause.
#[track_caller]
fn ends(events: &mut EventSource) -> server_sent_events::client::EndCause {
    assert_eq!(events.recv(), None);
    events.end_cause().expect("a cause").clone()
}
