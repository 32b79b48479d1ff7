//! A client that does not read.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::PATIENCE;
use crate::client::{Message, Parser};

/// A client in memory that takes nothing, until a test lets it read.
///
/// Its [writer](Self::writer) stands for the connection. It blocks each write, as a socket does whose client does not
/// read. Dropping the client breaks the connection.
///
/// ```
/// use server_sent_events::Publisher;
/// use server_sent_events::test_util::{StalledClient, wait_for_subscribers};
///
/// let publisher = Publisher::builder().max_queued_events(10).build()?;
/// let client = StalledClient::new();
/// publisher.subscribe()?.write_in_background(client.writer())?;
/// publisher.publish("first");
/// client.wait_until_blocked();
/// for event in 0..10 {
///     publisher.publish(event.to_string());
/// }
/// assert_eq!(publisher.stats().subscribers, 1);
/// publisher.publish("one too many");
/// assert_eq!(publisher.stats().ended.queue_full, 1);
///
/// client.resume();
/// client.wait_until_closed();
/// assert_eq!(client.messages()[0].data, "first");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StalledClient(Arc<Connection>);

/// The writer of a [`StalledClient`].
pub struct StalledWriter(Arc<Connection>);

#[derive(Default)]
struct Connection {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    reads: bool,
    is_broken: bool,
    is_blocked: bool,
    /// The writers that are not dropped, and whether there was one.
    writers: usize,
    had_writer: bool,
    received: Vec<u8>,
}

impl StalledClient {
    /// Creates a client that does not read.
    #[allow(clippy::new_without_default)] // each client has a connection of its own
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// Returns a writer to this client, for
    /// [`write_in_background`](crate::Subscription::write_in_background) or
    /// [`write_to`](crate::Subscription::write_to).
    pub fn writer(&self) -> StalledWriter {
        let mut state = self.0.state.lock();
        state.writers += 1;
        state.had_writer = true;
        StalledWriter(Arc::clone(&self.0))
    }

    /// Reads on: a blocked write returns, and later ones do not block.
    pub fn resume(&self) {
        self.0.state.lock().reads = true;
        self.0.changed.notify_all();
    }

    /// Returns whether a write is blocked.
    pub fn is_blocked(&self) -> bool {
        self.0.state.lock().is_blocked
    }

    /// Waits until a write is blocked.
    ///
    /// # Panics
    ///
    /// Panics if none is within 20 seconds.
    #[track_caller]
    pub fn wait_until_blocked(&self) {
        self.wait_until("no write is blocked", |state| state.is_blocked);
    }

    /// Waits until the publisher has dropped the writer: the stream is over.
    ///
    /// # Panics
    ///
    /// Panics if that does not happen within 20 seconds.
    #[track_caller]
    pub fn wait_until_closed(&self) {
        self.wait_until("the connection is open", |state| state.had_writer && state.writers == 0);
    }

    /// Returns the bytes that the client has read, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.state.lock().received).into_owned()
    }

    /// Returns the messages that the client has read.
    pub fn messages(&self) -> Vec<Message> {
        Parser::new().push(&self.0.state.lock().received).expect("a message exceeds the parser's limits")
    }

    #[track_caller]
    fn wait_until(&self, otherwise: &str, condition: impl Fn(&State) -> bool) {
        let mut state = self.0.state.lock();
        let result = self.0.changed.wait_while_for(&mut state, |state| !condition(state), PATIENCE);
        assert!(!result.timed_out(), "{otherwise} after {PATIENCE:?}");
    }
}

impl Drop for StalledClient {
    fn drop(&mut self) {
        self.0.state.lock().is_broken = true;
        self.0.changed.notify_all();
    }
}

impl Write for StalledWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        while !state.reads && !state.is_broken {
            state.is_blocked = true;
            self.0.changed.notify_all();
            self.0.changed.wait(&mut state);
        }
        state.is_blocked = false;
        if state.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        state.received.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for StalledWriter {
    fn drop(&mut self) {
        self.0.state.lock().writers -= 1;
        self.0.changed.notify_all();
    }
}

impl fmt::Debug for StalledClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StalledClient").field("is_blocked", &self.is_blocked()).finish_non_exhaustive()
    }
}

impl fmt::Debug for StalledWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StalledWriter").finish_non_exhaustive()
    }
}
