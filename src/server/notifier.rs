//! How handlers and writer threads notify the event loop, and the socket that they share with it.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst, fence};

use crossbeam_channel::{Receiver, Sender, TryIter};
use mio::Waker;
use mio::net::TcpStream;

use super::encode::Outgoing;
use super::quota::StreamSlot;
use crate::queue::{NonBlockingWrite, Readiness};
use crate::subscription::SubscriptionHandle;

/// A message to the event loop. All but `Stop` name a connection by its token.
pub(super) enum Message {
    /// The handler answered with a stream. A writer thread writes it from now on.
    StreamStarted(usize, SubscriptionHandle, StreamSlot),
    /// The handler answered with content, of which the rest is to be written.
    Respond(usize, Outgoing),
    /// The handler's thread has written the whole response, and another request may follow.
    Responded(usize),
    /// The stream has ended and nothing more is written. The flag is set if the socket took every byte.
    StreamFinished(usize, bool),
    Stop,
}

/// Sends messages to the event loop, and wakes it.
pub(super) struct Notifier {
    messages: Sender<Message>,
    waker: Waker,
    /// Set while the event loop is about to take the messages. It clears the flag before it takes them.
    is_woken: AtomicBool,
    /// Set by the event loop while it needs to know of each response at once, before it looks for messages.
    awaits_responses: AtomicBool,
}

impl Notifier {
    pub(super) fn new(messages: Sender<Message>, waker: Waker) -> Self {
        Self { messages, waker, is_woken: AtomicBool::new(false), awaits_responses: AtomicBool::new(false) }
    }

    pub(super) fn send(&self, message: Message) {
        // An error means that the event loop has ended, and all its connections are closed.
        if self.messages.send(message).is_ok() && !self.is_woken.swap(true, SeqCst) {
            let _ = self.waker.wake();
        }
    }

    /// Sends a message that the event loop may take at its next event.
    pub(super) fn send_lazily(&self, message: Message) {
        let _ = self.messages.send(message);
    }

    /// Chooses whether each response wakes the event loop. The caller must take the messages afterwards.
    pub(super) fn await_responses(&self, awaits: bool) {
        self.awaits_responses.store(awaits, SeqCst);
        fence(SeqCst);
    }

    pub(super) fn wake(&self) {
        let _ = self.waker.wake();
    }

    /// Returns the messages so far. Later ones wake the event loop again.
    pub(super) fn take<'a>(&self, inbox: &'a Receiver<Message>) -> TryIter<'a, Message> {
        self.is_woken.store(false, SeqCst);
        inbox.try_iter()
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}

/// A connection's socket, shared with a writer thread while the connection carries a stream.
///
/// Everything that a write needs is in one allocation, so that the writer thread fetches few cache lines.
pub(super) struct SharedSocket {
    pub(super) token: usize,
    pub(super) socket: TcpStream,
    pub(super) readiness: Readiness,
    pub(super) notifier: Arc<Notifier>,
    /// Set by the event loop while there is something to do after the response, before it looks for the message that
    /// the response is written. The handler's thread reads it after it has sent that message.
    pub(super) awaits_response: AtomicBool,
}

impl SharedSocket {
    pub(super) fn new(token: usize, socket: TcpStream, notifier: &Arc<Notifier>) -> Arc<Self> {
        let (readiness, notifier) = (Readiness::new(), Arc::clone(notifier));
        Arc::new(Self { token, socket, readiness, notifier, awaits_response: AtomicBool::new(false) })
    }

    /// Writes a response, as far as the socket takes it, and leaves the rest to the event loop.
    ///
    /// Most responses are written whole. Then the event loop need not be woken: it learns of the response when the next
    /// request arrives.
    pub(super) fn respond(&self, mut outgoing: Outgoing) {
        // After an error the event loop writes again, and meets the error too.
        let written = outgoing.write(|slices| (&self.socket).write_vectored(slices)).unwrap_or(false);
        if !written || !outgoing.keep_alive {
            return self.notifier.send(Message::Respond(self.token, outgoing));
        }
        self.notifier.send_lazily(Message::Responded(self.token));
        fence(SeqCst);
        if self.awaits_response.load(SeqCst) || self.notifier.awaits_responses.load(SeqCst) {
            self.notifier.wake();
        }
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
