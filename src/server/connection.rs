//! One connection as a state machine without a socket: bytes and deadlines in, actions out.

//  state        waits for                                             next
//  Reading      the next request's head                               Admitting
//  Admitting    the server's decision whether it takes the request    ReadingBody, Handling, Responding
//  ReadingBody  the rest of the request's body                        Handling, Responding
//  Handling     the handler's response, which its thread writes       Streaming, Responding, Reading
//  Streaming    the end of the stream, which a writer thread writes   Lingering
//  Responding   room in the socket for the rest of a response         Reading, Lingering
//  Lingering    the client's end of the connection. The client's bytes are discarded: if the socket were closed with
//               unread bytes, the kernel would reset the connection, and the client could lose the response

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;

use super::body::{BodyReader, Framing};
use super::body_budget::{BodyBudget, BodyBytes};
use super::encode::Outgoing;
use super::handlers::{CallId, StreamEnd};
use super::head::{self, Parsed};
use super::quota::StreamSlot;
use super::rejection::Rejection;
use super::request::Request;
use crate::subscription::SubscriptionHandle;

/// One connection.
pub(super) struct Connection {
    peer_addr: SocketAddr,
    /// Bytes that are not part of a request yet.
    input: Vec<u8>,
    /// The number of requests so far.
    requests: usize,
    /// The client sends nothing more. It may still wait for responses.
    input_ended: bool,
    /// The server stops, so no further request is read.
    is_stopping: bool,
    state: State,
}

enum State {
    Reading,
    Admitting,
    ReadingBody { incoming: Box<Incoming>, reader: BodyReader, bytes: BodyBytes },
    Handling { call: CallId, may_stream: bool },
    Streaming { stream: SubscriptionHandle, is_ending: bool, _slot: StreamSlot },
    Responding(Outgoing),
    Lingering,
}

/// The phases of a connection, by what its deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No request has begun since the last response.
    Idle,
    Head,
    Body,
    /// The handler or a stream has the connection, without a deadline.
    Busy,
    Responding,
    Lingering,
}

/// A request that the server has taken.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) request: Request,
    /// Header lines for the response.
    pub(super) headers: String,
    pub(super) keep_alive: bool,
    /// More bytes arrived with the request, so it cannot be answered with a stream.
    pub(super) is_followed: bool,
    /// The memory of its body, counted until the handler has responded.
    pub(super) body_bytes: Option<BodyBytes>,
}

const BODY_ENDED: Rejection = Rejection::bad("the body ended before its announced end");

pub(super) const NO_BODY_MEMORY: Rejection =
    Rejection::temporary(503, "the memory for bodies is exhausted; try again later");

/// The next step of the event loop for a connection.
#[derive(Debug)]
pub(super) enum Action {
    /// Do nothing until the next event.
    Wait,
    /// Read again from the socket, since bytes may be left there.
    Read,
    /// Have the handler's thread wake the event loop when it has responded, since there is something to do then.
    AwaitHandler,
    /// Decide whether the server takes the request, whose body is announced so.
    Admit(Request, Framing),
    /// Ask the client to send the body (`Expect: 100-continue`).
    Continue,
    /// The memory for bodies is exhausted. Make room, then [resume](Connection::resume).
    MakeRoom,
    /// Have the request answered.
    Dispatch(Box<Incoming>),
    /// Answer invalid input with an error.
    Reject {
        rejection: Rejection,
        with_body: bool,
    },
    /// Write the unwritten bytes, as far as the socket takes them.
    Write,
    /// Shut down the sending side, since everything is written.
    Linger,
    /// End the stream. The connection stays until the writer thread has finished the stream.
    EndStream(SubscriptionHandle, StreamEnd),
    /// Withdraw the call, queued or running, and close the connection.
    Withdraw(CallId, io::ErrorKind),
    Close,
}

impl Connection {
    /// The number of bytes that are read ahead of the current request. They do not count as a body's, and many
    /// connections may wait for a slow handler.
    const MAX_READ_AHEAD: usize = 4 * 1024;

    pub(super) fn new(peer_addr: SocketAddr) -> Self {
        Self {
            peer_addr,
            input: Vec::new(),
            requests: 0,
            input_ended: false,
            is_stopping: false,
            state: State::Reading,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match &self.state {
            State::Reading if self.requests > 0 && self.input.is_empty() => Phase::Idle,
            State::Reading => Phase::Head,
            State::ReadingBody { .. } => Phase::Body,
            State::Admitting | State::Handling { .. } | State::Streaming { .. } => Phase::Busy,
            State::Responding(_) => Phase::Responding,
            State::Lingering => Phase::Lingering,
        }
    }

    /// Returns the number of requests so far.
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    /// Returns how many bytes of the current body have been received.
    pub(super) fn body_received(&self) -> usize {
        if let State::ReadingBody { reader, .. } = &self.state { reader.received() } else { 0 }
    }

    /// Returns how many bytes may be read from the socket now. If there are none, it is read again after the response.
    pub(super) fn read_limit(&self) -> usize {
        match &self.state {
            State::Handling { .. } | State::Responding(_) => Self::MAX_READ_AHEAD.saturating_sub(self.input.len()),
            State::ReadingBody { reader, .. } => reader.announced().max(Self::MAX_READ_AHEAD),
            State::Reading | State::Admitting => Self::MAX_READ_AHEAD,
            State::Streaming { .. } | State::Lingering => usize::MAX,
        }
    }

    /// Handles bytes from the client.
    pub(super) fn received(&mut self, bytes: &[u8]) -> Action {
        match &self.state {
            // Bytes after a request end its stream: none may follow, and their meaning is unknown.
            State::Streaming { .. } => return self.lost(io::ErrorKind::InvalidData),
            State::Responding(outgoing) if !outgoing.keep_alive => return Action::Wait,
            State::Lingering => return Action::Wait,
            _ => {}
        }
        self.input.extend_from_slice(bytes);
        if let State::Handling { .. } = self.state { Action::AwaitHandler } else { self.resume() }
    }

    /// Continues with the bytes that have been received.
    pub(super) fn resume(&mut self) -> Action {
        match &mut self.state {
            State::Reading => self.read_head(),
            State::ReadingBody { .. } => self.read_body(),
            _ => Action::Wait,
        }
    }

    fn read_head(&mut self) -> Action {
        match head::parse(&self.input, self.peer_addr) {
            Parsed::Incomplete => Action::Wait,
            Parsed::Invalid(rejection) => self.reject(rejection),
            Parsed::Complete(request, framing, length) => {
                self.consume(length);
                if framing == Framing::None && matches!(head::parse(&self.input, self.peer_addr), Parsed::Invalid(_)) {
                    let rejection = Rejection::bad("unexpected data after the request");
                    return Action::Reject { rejection, with_body: request.method() != "HEAD" };
                }
                self.requests += 1;
                self.state = State::Admitting;
                Action::Admit(request, framing)
            }
        }
    }

    /// Handles that the server takes the request, with the headers for its response.
    pub(super) fn admitted(&mut self, incoming: Box<Incoming>, reader: BodyReader, budget: &Arc<BodyBudget>) -> Action {
        if reader.is_complete() {
            return self.dispatch(incoming);
        }
        let expects = incoming.request.expects_continue() && self.input.is_empty();
        self.state = State::ReadingBody { incoming, reader, bytes: budget.reserve_none() };
        if expects { Action::Continue } else { self.read_body() }
    }

    fn read_body(&mut self) -> Action {
        let State::ReadingBody { reader, bytes, .. } = &mut self.state else { return Action::Wait };
        // Counted before they are copied, so that no body grows beyond the budget. What follows the body is none of it.
        let count = reader.received() + self.input.len().min(reader.max_left());
        if !bytes.grow_to(count) {
            // Other bodies that are being read are not rejected in vain.
            return if bytes.may_grow_to(count) { Action::MakeRoom } else { self.reject(NO_BODY_MEMORY) };
        }
        match reader.read(&self.input) {
            Err(rejection) => self.reject(rejection),
            Ok(count) => {
                let is_complete = reader.is_complete();
                self.consume(count);
                if is_complete {
                    self.dispatch_body()
                } else if self.input_ended {
                    self.reject(BODY_ENDED)
                } else {
                    Action::Wait
                }
            }
        }
    }

    fn dispatch_body(&mut self) -> Action {
        let State::ReadingBody { mut incoming, reader, mut bytes } =
            std::mem::replace(&mut self.state, State::Admitting)
        else {
            unreachable!("BUG: no body is being read");
        };
        bytes.shrink_to(reader.received());
        incoming.request.set_body(reader.into_body());
        bytes.set_whole();
        incoming.body_bytes = Some(bytes);
        self.dispatch(incoming)
    }

    fn dispatch(&self, mut incoming: Box<Incoming>) -> Action {
        incoming.keep_alive &= !(self.input_ended && self.input.is_empty());
        incoming.is_followed = !self.input.is_empty();
        Action::Dispatch(incoming)
    }

    fn consume(&mut self, count: usize) {
        self.input.drain(..count);
        if self.input.is_empty() {
            // Most connections will carry a stream, which needs no buffer.
            self.input = Vec::new();
        }
    }

    /// Handles the end of the client's bytes, or an error of the socket.
    pub(super) fn input_ended(&mut self, error: io::ErrorKind) -> Action {
        let is_end = error == io::ErrorKind::UnexpectedEof;
        // A request that others follow is answered too: it cannot have a stream.
        let is_followed = !self.input.is_empty();
        match &self.state {
            State::Handling { may_stream, .. } if is_end && (!*may_stream || is_followed) => {
                if std::mem::replace(&mut self.input_ended, true) { Action::Wait } else { Action::AwaitHandler }
            }
            State::Responding(_) if is_end => {
                self.input_ended = true;
                Action::Wait
            }
            State::Handling { .. } | State::Streaming { .. } => self.lost(error),
            State::ReadingBody { .. } if is_end => self.reject(BODY_ENDED),
            _ => Action::Close,
        }
    }

    /// Handles the connection's deadline.
    pub(super) fn deadline_passed(&mut self) -> Action {
        match self.phase() {
            Phase::Head => self.reject(Rejection::new(408, "the request did not arrive in time")),
            Phase::Body => self.reject(Rejection::new(408, "the body did not arrive in time")),
            Phase::Idle | Phase::Responding | Phase::Lingering => Action::Close,
            Phase::Busy => Action::Wait,
        }
    }

    /// Handles that the request was given to the handler.
    pub(super) fn dispatched(&mut self, call: CallId, may_stream: bool) {
        self.state = State::Handling { call, may_stream };
    }

    /// Handles a response that is not a stream.
    pub(super) fn respond(&mut self, outgoing: Outgoing) -> Action {
        match &self.state {
            State::Streaming { .. } | State::Responding(_) | State::Lingering => Action::Wait,
            _ => {
                self.state = State::Responding(outgoing);
                Action::Write
            }
        }
    }

    /// Handles that the handler answered with a stream.
    pub(super) fn stream_started(&mut self, stream: SubscriptionHandle, slot: StreamSlot) -> Action {
        let aborted = |stream| Action::EndStream(stream, StreamEnd::Lost(io::ErrorKind::ConnectionAborted));
        match &self.state {
            State::Handling { may_stream, .. } => {
                // The client may have closed the connection while an earlier request was handled.
                let is_closed = *may_stream && self.input_ended;
                self.state = State::Streaming { stream, is_ending: false, _slot: slot };
                if !self.input.is_empty() {
                    self.lost(io::ErrorKind::InvalidData)
                } else if is_closed {
                    self.lost(io::ErrorKind::UnexpectedEof)
                } else {
                    Action::Wait
                }
            }
            _ => aborted(stream),
        }
    }

    /// Handles that the stream has ended and nothing more is written.
    pub(super) fn stream_finished(&mut self, took_all: bool) -> Action {
        self.state = State::Lingering;
        // A stream that ended at once has no rest to wait for.
        if took_all { Action::Linger } else { Action::Close }
    }

    /// Writes the rest of a response with this function, once. Returns `None` if there is nothing to write.
    pub(super) fn write(
        &mut self,
        write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Option<io::Result<Action>> {
        let State::Responding(outgoing) = &mut self.state else { return None };
        Some(match outgoing.write(write) {
            Err(error) => Err(error),
            Ok(false) => Ok(Action::Write),
            Ok(true) => {
                let keep_alive = outgoing.keep_alive;
                Ok(self.responded(keep_alive))
            }
        })
    }

    /// Handles that the handler's thread has written the whole response, and that another request may follow.
    pub(super) fn responded_by_handler(&mut self) -> Action {
        if let State::Handling { .. } = self.state { self.responded(true) } else { Action::Wait }
    }

    /// Handles that a response is written.
    fn responded(&mut self, keep_alive: bool) -> Action {
        let action = if keep_alive && !self.is_stopping {
            self.state = State::Reading;
            self.resume()
        } else {
            Action::Linger
        };
        if matches!(action, Action::Linger) || (matches!(action, Action::Wait) && self.input_ended) {
            self.state = State::Lingering;
            self.input = Vec::new();
            return Action::Linger;
        }
        action
    }

    /// Handles the stop of the server. Requests that are under way are still answered.
    pub(super) fn stop(&mut self) -> Action {
        match &mut self.state {
            State::Reading | State::ReadingBody { .. } => Action::Close,
            State::Streaming { stream, is_ending, .. } if !*is_ending => {
                *is_ending = true;
                Action::EndStream(stream.clone(), StreamEnd::Close)
            }
            _ => {
                // Closes after the response.
                self.is_stopping = true;
                Action::Wait
            }
        }
    }

    /// Handles that the server closes the connection. Returns what must still be done for it.
    pub(super) fn close(mut self) -> Action {
        self.lost(io::ErrorKind::ConnectionAborted)
    }

    /// Returns whether a writer thread may write to the socket, now or soon.
    pub(super) fn may_stream(&self) -> bool {
        matches!(self.state, State::Handling { .. } | State::Streaming { .. })
    }

    fn lost(&mut self, error: io::ErrorKind) -> Action {
        match &mut self.state {
            State::Handling { call, .. } => Action::Withdraw(*call, error),
            State::Streaming { stream, is_ending, .. } if !*is_ending => {
                *is_ending = true;
                Action::EndStream(stream.clone(), StreamEnd::Lost(error))
            }
            _ => Action::Wait,
        }
    }

    fn reject(&self, rejection: Rejection) -> Action {
        let is_head = matches!(self.state, State::Reading) && self.input.starts_with(b"HEAD ");
        Action::Reject { rejection, with_body: !is_head }
    }
}

#[cfg(any(test, sse_fuzz))]
pub(super) mod oracle;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;
