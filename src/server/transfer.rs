//! What the event loop does with one connection: read, admit its request, write its response, close.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{Ordering::SeqCst, fence};
use std::time::Instant;

use super::body::{BodyReader, Framing};
use super::connection::{Action, Incoming, NO_BODY_MEMORY};
use super::encode::{self, Outgoing};
use super::event_loop::{Entry, EventLoop};
use super::handlers::Call;
use super::policy::Verdict;
use super::rejection::Rejection;
use super::request::Request;

/// The number of reads of a connection before other connections are handled.
const MAX_READS: usize = 16;

impl EventLoop {
    /// Reads until the socket would block, or the connection takes no more for now.
    ///
    /// On Linux, a read that does not fill the buffer has taken all bytes (epoll(7), question 9), and an event tells of
    /// later ones. It does not show the end of the bytes: that is read only if the caller knows of it.
    pub(super) fn read(&mut self, token: usize, to_end: bool) {
        for _ in 0..MAX_READS {
            let Some(Entry { connection, socket, has_unread, .. }) = self.connections.get_mut(&token) else { return };
            let limit = connection.read_limit().min(self.scratch.len());
            if limit == 0 {
                *has_unread = true;
                return;
            }
            let action = match (&socket.socket).read(&mut self.scratch[..limit]) {
                Ok(0) => {
                    let action = connection.input_ended(io::ErrorKind::UnexpectedEof);
                    return self.apply(token, action);
                }
                Ok(count) => {
                    let action = connection.received(&self.scratch[..count]);
                    let is_last = cfg!(any(target_os = "linux", target_os = "android")) && !to_end;
                    if is_last && count < limit {
                        return self.apply(token, action);
                    }
                    action
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let action = connection.input_ended(error.kind());
                    return self.apply(token, action);
                }
            };
            self.apply(token, action);
        }
        self.unread.push(token);
    }

    /// Decides whether the server takes a request.
    pub(super) fn admit(&mut self, token: usize, mut request: Request, framing: Framing) -> Action {
        let Some(Entry { connection, .. }) = self.connections.get_mut(&token) else { return Action::Wait };
        request.trust_forwarded_for(&self.config.trusted_proxies);
        let keep_alive = request.keeps_alive()
            && connection.requests() < self.config.max_requests_per_connection
            && self.stop_deadline.is_none();
        let with_body = request.method() != "HEAD";
        let headers = match self.config.policy.check(&request) {
            Verdict::Allow { headers } => headers,
            Verdict::Respond { status, headers, text } => {
                // An unread body is not read any further.
                let keep_alive = keep_alive && framing == Framing::None;
                return self.respond(token, encode::message(status, text, &headers, with_body, keep_alive));
            }
        };
        let reader = match BodyReader::new(framing, self.config.max_body) {
            _ if !request.expects_only_continue() => {
                Err(Rejection::new(417, "the only supported Expect is 100-continue"))
            }
            reader => reader,
        };
        match reader {
            Ok(reader) => {
                let incoming =
                    Box::new(Incoming { request, headers, keep_alive, is_followed: false, body_bytes: None });
                connection.admitted(incoming, reader, &self.body_budget)
            }
            Err(rejection) => self.respond(token, encode::rejection(rejection, &headers, with_body)),
        }
    }

    /// Sends the interim response that asks for the body.
    pub(super) fn ask_for_body(&mut self, token: usize) -> Action {
        const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        let Some(Entry { connection, socket, .. }) = self.connections.get_mut(&token) else { return Action::Wait };
        // Earlier responses are written, so there is room for so few bytes.
        match (&socket.socket).write(CONTINUE) {
            Ok(count) if count == CONTINUE.len() => connection.resume(),
            _ => Action::Close,
        }
    }

    /// Frees memory for a body: rejects the slowest other one. If there is none, rejects this one.
    pub(super) fn make_room_for_body(&mut self, token: usize) -> Action {
        let Some(slowest) = self.timers.slowest_body(token) else {
            return Action::Reject { rejection: NO_BODY_MEMORY, with_body: true };
        };
        let rejection =
            Rejection::temporary(408, "the body arrives too slowly, and others need its memory; try again later");
        self.apply(slowest, Action::Reject { rejection, with_body: true });
        self.connections.get_mut(&token).map_or(Action::Wait, |entry| entry.connection.resume())
    }

    /// Makes the handler's thread wake the event loop after the response, unless it has responded already.
    pub(super) fn await_handler(&mut self, token: usize) -> Action {
        let Some(Entry { socket, .. }) = self.connections.get(&token) else { return Action::Wait };
        socket.awaits_response.store(true, SeqCst);
        fence(SeqCst);
        // If the thread has responded before it could see the flag, its message is taken in the next round.
        Action::Read
    }

    /// Gives a whole request to the handler.
    pub(super) fn dispatch(&mut self, token: usize, incoming: Box<Incoming>) -> Action {
        let Some(Entry { connection, socket, .. }) = self.connections.get_mut(&token) else { return Action::Wait };
        let is_read = matches!(incoming.request.method(), "GET" | "HEAD");
        socket.awaits_response.store(incoming.is_followed, SeqCst);
        let call = self.handlers.dispatch(Call { incoming, socket: Arc::clone(socket) });
        connection.dispatched(call, is_read);
        Action::Wait
    }

    /// Starts a response that is not a stream.
    pub(super) fn respond(&mut self, token: usize, outgoing: Outgoing) -> Action {
        self.connections.get_mut(&token).map_or(Action::Wait, |entry| entry.connection.respond(outgoing))
    }

    pub(super) fn writable(&mut self, token: usize) {
        let Some(Entry { connection, socket, .. }) = self.connections.get(&token) else { return };
        if connection.may_stream() {
            socket.readiness.set_ready();
        } else {
            self.apply(token, Action::Write);
        }
    }

    /// Writes once to the socket, if a response has unwritten bytes.
    pub(super) fn write(&mut self, token: usize) -> Action {
        let Some(Entry { connection, socket, since, .. }) = self.connections.get_mut(&token) else {
            return Action::Wait;
        };
        let written = connection.write(|slices| match (&socket.socket).write_vectored(slices) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            written => written,
        });
        match written {
            None => Action::Wait,
            Some(Ok(action)) => {
                *since = Instant::now();
                action
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Action::Wait,
            Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Action::Write,
            Some(Err(_)) => Action::Close,
        }
    }

    /// Shuts down the sending side, then discards what the client still sends.
    pub(super) fn linger(&mut self, token: usize) -> Action {
        let Some(Entry { socket, .. }) = self.connections.get(&token) else { return Action::Wait };
        // The event for bytes that arrived before has passed already.
        if socket.socket.shutdown(Shutdown::Write).is_ok() { Action::Read } else { Action::Close }
    }

    pub(super) fn close(&mut self, token: usize) {
        let Some(Entry { connection, socket, timed, .. }) = self.connections.remove(&token) else { return };
        self.timers.clear(timed.0, token);
        match connection.close() {
            Action::Withdraw(call, error) => self.handlers.withdraw(call, error),
            Action::EndStream(stream, end) => self.handlers.end_stream(stream, end),
            _ => {}
        }
        // A writer thread may hold the socket for a moment, and must send nothing more. The call fails if the client
        // closed first.
        let _ = socket.socket.shutdown(Shutdown::Both);
        // A parked stream must not wait for room that is no longer reported. Its next write fails.
        socket.readiness.set_ready();
        // The pause ends later, since `accept` may be the caller.
        self.acceptor.end_pause();
    }
}
