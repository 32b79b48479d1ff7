//! One connection as a state machine without a socket: bytes and deadlines in, actions out.

//  state        waits for                                             next
//  ReadingHead  the rest of the request's head                        Handling, Responding
//  Handling     the handler's response                                Streaming, Responding
//  Streaming    the end of the stream, which a writer thread writes   Lingering
//  Responding   room in the socket for the rest of a short response   Lingering
//  Lingering    the client's end of the connection. The client's bytes are discarded: if the socket were closed with
//               unread bytes, the kernel would reset the connection, and the client could lose the response

use std::io;
use std::net::SocketAddr;

use super::Request;
use super::handlers::{CallId, StreamEnd};
use super::quota::StreamSlot;
use super::request::{self, Parsed};
use crate::subscription::SubscriptionHandle;

/// One connection.
pub(super) struct Connection {
    peer_addr: SocketAddr,
    state: State,
}

enum State {
    ReadingHead(Vec<u8>),
    Handling { call: CallId, slot: StreamSlot },
    Streaming { stream: SubscriptionHandle, is_ending: bool, _slot: StreamSlot },
    Responding { bytes: Vec<u8>, written: usize },
    Lingering,
}

/// The next step of the event loop for a connection.
#[derive(Debug)]
pub(super) enum Action {
    /// Do nothing until the next event.
    Wait,
    /// Check the request, and have it answered.
    Dispatch(Request),
    /// Answer invalid input with an error.
    Reject {
        status: u16,
        reason: &'static str,
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
    pub(super) fn new(peer_addr: SocketAddr) -> Self {
        Self { peer_addr, state: State::ReadingHead(Vec::new()) }
    }

    pub(super) fn peer_addr(&self) -> SocketAddr {
        self.peer_addr
    }

    /// Handles bytes from the client.
    pub(super) fn received(&mut self, bytes: &[u8]) -> Action {
        let head = match &mut self.state {
            State::ReadingHead(head) => head,
            // Bytes after a request end its stream: none may follow, and their meaning is unknown.
            State::Handling { .. } | State::Streaming { .. } => return self.lost(io::ErrorKind::InvalidData),
            State::Responding { .. } | State::Lingering => return Action::Wait,
        };
        head.extend_from_slice(bytes);
        match request::parse(head, self.peer_addr) {
            Parsed::Incomplete => Action::Wait,
            Parsed::Invalid(status, reason) => self.reject(status, reason),
            Parsed::Complete(request, length) if length < head.len() && request::is_supported(request.method()) => {
                self.reject(400, "unexpected data after the request")
            }
            Parsed::Complete(request, _) => Action::Dispatch(request),
        }
    }

    /// Handles the end of the client's bytes, or an error of the socket.
    pub(super) fn input_ended(&mut self, error: io::ErrorKind) -> Action {
        match &self.state {
            State::Handling { .. } | State::Streaming { .. } => self.lost(error),
            State::ReadingHead(_) | State::Responding { .. } | State::Lingering => Action::Close,
        }
    }

    /// Handles the connection's deadline.
    pub(super) fn deadline_passed(&mut self) -> Action {
        match &self.state {
            State::ReadingHead(_) => self.reject(408, "the request did not arrive in time"),
            State::Responding { .. } | State::Lingering => Action::Close,
            // These states have no deadline.
            State::Handling { .. } | State::Streaming { .. } => Action::Wait,
        }
    }

    /// Handles that the request was given to the handler.
    pub(super) fn dispatched(&mut self, call: CallId, slot: StreamSlot) {
        self.state = State::Handling { call, slot };
    }

    /// Handles a short response. It is not a stream, so its slot is released.
    pub(super) fn respond(&mut self, bytes: Vec<u8>) -> Action {
        match &self.state {
            State::ReadingHead(_) | State::Handling { .. } => {
                self.state = State::Responding { bytes, written: 0 };
                Action::Write
            }
            State::Streaming { .. } | State::Responding { .. } | State::Lingering => Action::Wait,
        }
    }

    /// Handles that the handler answered with a stream.
    pub(super) fn stream_started(&mut self, stream: SubscriptionHandle) -> Action {
        match std::mem::replace(&mut self.state, State::Lingering) {
            State::Handling { slot, .. } => {
                self.state = State::Streaming { stream, is_ending: false, _slot: slot };
                Action::Wait
            }
            other => {
                self.state = other;
                Action::EndStream(stream, StreamEnd::Lost(io::ErrorKind::ConnectionAborted))
            }
        }
    }

    /// Handles that the stream has ended and nothing more is written.
    pub(super) fn stream_finished(&mut self, took_all: bool) -> Action {
        self.state = State::Lingering;
        // A stream that ended at once has no rest to wait for.
        if took_all { Action::Linger } else { Action::Close }
    }

    /// Returns the unwritten bytes of a short response.
    pub(super) fn unwritten(&self) -> Option<&[u8]> {
        match &self.state {
            State::Responding { bytes, written } => Some(&bytes[*written..]),
            _ => None,
        }
    }

    /// Handles that the socket took this many of those bytes.
    pub(super) fn wrote(&mut self, count: usize) -> Action {
        let State::Responding { bytes, written } = &mut self.state else { return Action::Wait };
        *written += count;
        if *written < bytes.len() {
            return Action::Wait;
        }
        self.state = State::Lingering;
        Action::Linger
    }

    /// Handles the stop of the server. Requests that are under way are still answered.
    pub(super) fn stop(&mut self) -> Action {
        match &mut self.state {
            State::ReadingHead(_) => Action::Close,
            State::Streaming { stream, is_ending, .. } if !*is_ending => {
                *is_ending = true;
                Action::EndStream(stream.clone(), StreamEnd::Close)
            }
            _ => Action::Wait,
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

    fn reject(&self, status: u16, reason: &'static str) -> Action {
        let with_body = !matches!(&self.state, State::ReadingHead(head) if head.starts_with(b"HEAD "));
        Action::Reject { status, reason, with_body }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;
    use crate::Publisher;
    use crate::server::quota::Quota;

    const GET: &[u8] = b"GET /news HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const CLIENT: [u8; 4] = [127, 0, 0, 1];

    /// A connection, the quota from which it takes its only slot, and a publisher for its stream.
    struct Setup {
        connection: Connection,
        quota: Arc<Quota>,
        publisher: Publisher,
    }

    impl Setup {
        fn reading() -> Self {
            let connection = Connection::new((CLIENT, 1).into());
            Self { connection, quota: Quota::new(1, 1), publisher: Publisher::new() }
        }

        fn handling() -> Self {
            let mut setup = Self::reading();
            assert!(matches!(setup.connection.received(GET), Action::Dispatch(_)));
            let slot = setup.quota.try_acquire(CLIENT.into()).unwrap();
            setup.connection.dispatched(CallId(7), slot);
            setup
        }

        fn streaming() -> Self {
            let mut setup = Self::handling();
            let stream = setup.stream();
            assert!(matches!(setup.connection.stream_started(stream), Action::Wait));
            setup
        }

        fn responding(bytes: &[u8]) -> Self {
            let mut setup = Self::handling();
            assert!(matches!(setup.connection.respond(bytes.to_vec()), Action::Write));
            setup
        }

        /// Returns a handle. Its subscription is dropped, since no test here needs it.
        fn stream(&self) -> SubscriptionHandle {
            self.publisher.subscribe().unwrap().handle()
        }

        fn slot_is_free(&self) -> bool {
            self.quota.try_acquire(IpAddr::from(CLIENT)).is_some()
        }
    }

    #[track_caller]
    fn is_rejected(action: &Action, status: u16) {
        assert!(matches!(action, Action::Reject { status: rejected, .. } if *rejected == status), "{action:?}");
    }

    #[test]
    fn a_request_is_dispatched_with_its_last_byte() {
        let mut setup = Setup::reading();
        let (last, first) = GET.split_last().unwrap();
        for byte in first {
            assert!(matches!(setup.connection.received(&[*byte]), Action::Wait));
        }
        let Action::Dispatch(request) = setup.connection.received(&[*last]) else { panic!("not dispatched") };
        assert_eq!((request.method(), request.path()), ("GET", "/news"));
    }

    #[test]
    fn bytes_that_are_no_request_are_rejected() {
        is_rejected(&Setup::reading().connection.received(b"\x16\x03\x01"), 400);
        is_rejected(&Setup::reading().connection.received(&[GET, b"x"].concat()), 400);
        is_rejected(&Setup::reading().connection.deadline_passed(), 408);
        let mut setup = Setup::reading();
        setup.connection.received(b"HEAD / HT");
        assert!(matches!(setup.connection.deadline_passed(), Action::Reject { with_body: false, .. }));
    }

    #[test]
    fn a_client_that_leaves_while_the_handler_runs_has_its_call_withdrawn() {
        for (lose, error) in [
            (|connection| connection.input_ended(io::ErrorKind::ConnectionReset), io::ErrorKind::ConnectionReset),
            (|connection| connection.received(b"x"), io::ErrorKind::InvalidData),
        ] as [(fn(&mut Connection) -> Action, io::ErrorKind); 2]
        {
            let mut setup = Setup::handling();
            let action = lose(&mut setup.connection);
            assert!(matches!(action, Action::Withdraw(CallId(7), lost) if lost == error), "{action:?}");
            drop(setup.connection.close());
            let quota = setup.quota;
            assert!(quota.try_acquire(CLIENT.into()).is_some());
        }
    }

    #[test]
    fn a_stream_ends_once_however_often_its_client_is_lost() {
        let mut setup = Setup::streaming();
        assert!(setup.connection.may_stream());
        let action = setup.connection.received(b"x");
        let lost = StreamEnd::Lost(io::ErrorKind::InvalidData);
        assert!(matches!(action, Action::EndStream(_, end) if end == lost));
        assert!(matches!(setup.connection.received(b"y"), Action::Wait));
        assert!(matches!(setup.connection.input_ended(io::ErrorKind::ConnectionReset), Action::Wait));
        // A writer thread may still hold the socket.
        assert!(!setup.slot_is_free());
        assert!(matches!(setup.connection.stream_finished(false), Action::Close));
        assert!(setup.slot_is_free());
    }

    #[test]
    fn a_stream_that_was_written_to_its_end_lingers_and_frees_its_slot() {
        let mut setup = Setup::streaming();
        assert!(!setup.slot_is_free());
        assert!(matches!(setup.connection.stream_finished(true), Action::Linger));
        assert!(setup.slot_is_free());
        assert!(matches!(setup.connection.received(b"x"), Action::Wait));
        assert!(matches!(setup.connection.input_ended(io::ErrorKind::UnexpectedEof), Action::Close));
    }

    #[test]
    fn a_short_response_is_written_in_parts_and_frees_the_slot_at_once() {
        let mut setup = Setup::responding(b"hello");
        assert!(setup.slot_is_free());
        assert!(matches!(setup.connection.wrote(2), Action::Wait));
        assert_eq!(setup.connection.unwritten(), Some(&b"llo"[..]));
        assert!(matches!(setup.connection.wrote(3), Action::Linger));
        assert_eq!(setup.connection.unwritten(), None);
        assert!(matches!(setup.connection.deadline_passed(), Action::Close));
        assert!(matches!(Setup::responding(b"hello").connection.deadline_passed(), Action::Close));
    }

    #[test]
    fn a_stream_that_comes_too_late_is_ended() {
        let mut setup = Setup::responding(b"hello");
        let stream = setup.stream();
        let lost = StreamEnd::Lost(io::ErrorKind::ConnectionAborted);
        assert!(matches!(setup.connection.stream_started(stream), Action::EndStream(_, end) if end == lost));
        assert_eq!(setup.connection.unwritten(), Some(&b"hello"[..]));
    }

    #[test]
    fn a_stop_closes_connections_without_a_request_and_lets_the_rest_finish() {
        assert!(matches!(Setup::reading().connection.stop(), Action::Close));
        assert!(matches!(Setup::handling().connection.stop(), Action::Wait));
        assert!(matches!(Setup::responding(b"hello").connection.stop(), Action::Wait));
        let mut setup = Setup::streaming();
        assert!(matches!(setup.connection.stop(), Action::EndStream(_, StreamEnd::Close)));
        assert!(matches!(setup.connection.stop(), Action::Wait));
        assert!(matches!(setup.connection.close(), Action::Wait));
        let closed = Setup::streaming().connection.close();
        assert!(matches!(closed, Action::EndStream(_, StreamEnd::Lost(io::ErrorKind::ConnectionAborted))));
    }
}
