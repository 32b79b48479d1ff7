//! How handlers and writer threads reach the event loop, and the socket they share with it.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use crossbeam_channel::Sender;
use mio::Waker;
use mio::net::TcpStream;

use crate::queue::{NonBlockingWrite, Readiness};
use crate::subscription::SubscriptionHandle;

/// A message to the event loop. Each but `Stop` names a connection by its token.
pub(super) enum Message {
    /// The handler answered with a stream. A writer thread writes it from now on.
    StreamStarted(usize, SubscriptionHandle),
    /// The handler answered with these bytes.
    Respond(usize, Vec<u8>),
    /// The stream has ended, and nothing more is written; whether the socket took all of it.
    StreamFinished(usize, bool),
    Stop,
}

/// Sends messages to the event loop and wakes it.
pub(super) struct Notifier {
    messages: Sender<Message>,
    waker: Waker,
}

impl Notifier {
    pub(super) fn new(messages: Sender<Message>, waker: Waker) -> Self {
        Self { messages, waker }
    }

    pub(super) fn send(&self, message: Message) {
        // An error means that the event loop has ended, and with it all its connections.
        if self.messages.send(message).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}

/// A connection's socket, shared with a writer thread while the connection carries a stream.
///
/// It is in one piece with all that a write needs: the writer thread fetches one cache line for it instead of three.
pub(super) struct SharedSocket {
    pub(super) token: usize,
    pub(super) socket: TcpStream,
    pub(super) readiness: Readiness,
    pub(super) notifier: Arc<Notifier>,
}

impl SharedSocket {
    pub(super) fn new(token: usize, socket: TcpStream, notifier: &Arc<Notifier>) -> Arc<Self> {
        Arc::new(Self { token, socket, readiness: Readiness::new(), notifier: Arc::clone(notifier) })
    }
}

impl NonBlockingWrite for SharedSocket {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.socket).write(bytes)
    }

    fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    fn finished(&self, took_all: bool) {
        self.notifier.send(Message::StreamFinished(self.token, took_all));
    }
}
