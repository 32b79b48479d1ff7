//! The state machine of a connection, without a socket.

use std::net::IpAddr;

use super::*;
use crate::Publisher;
use crate::server::encode;
use crate::server::quota::Quota;

const GET: &[u8] = b"GET /news HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: &[u8] = b"POST /news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n";
const CLIENT: [u8; 4] = [127, 0, 0, 1];

/// A connection, the quota from which it takes its only slot, the budget of its bodies, and a publisher for its
/// stream.
struct Setup {
    connection: Connection,
    quota: Arc<Quota>,
    budget: Arc<BodyBudget>,
    publisher: Publisher,
}

fn response(keep_alive: bool) -> Outgoing {
    encode::message(200, "hello", "", true, keep_alive)
}

/// Lets the socket take this many bytes of the response. Returns the next action, and whether there were any.
fn write(connection: &mut Connection, count: usize) -> Option<Action> {
    connection.write(|slices| Ok(slices.iter().map(|slice| slice.len()).sum::<usize>().min(count))).map(Result::unwrap)
}

impl Setup {
    fn reading() -> Self {
        let connection = Connection::new((CLIENT, 1).into());
        let (quota, budget) = (Quota::new(1, 1), BodyBudget::new(100));
        Self { connection, quota, budget, publisher: Publisher::new() }
    }

    /// Takes the requests in these bytes, and reads bodies within this limit.
    fn taking(bytes: &[u8], max_body: usize) -> (Self, Action) {
        let mut setup = Self::reading();
        let action = setup.connection.received(bytes);
        let action = setup.admit(action, max_body);
        (setup, action)
    }

    /// Admits the request of this action.
    fn admit(&mut self, action: Action, max_body: usize) -> Action {
        let Action::Admit(request, framing) = action else { panic!("no request: {action:?}") };
        let keep_alive = request.keeps_alive();
        let incoming =
            Box::new(Incoming { request, headers: String::new(), keep_alive, is_followed: false, body_bytes: None });
        let reader = BodyReader::new(framing, max_body).unwrap();
        self.connection.admitted(incoming, reader, &self.budget)
    }

    /// Gives the request to the handler.
    fn handling_request(bytes: &[u8]) -> (Self, Box<Incoming>) {
        let (mut setup, action) = Self::taking(bytes, 100);
        let Action::Dispatch(incoming) = action else { panic!("not dispatched: {action:?}") };
        setup.connection.dispatched(CallId(7), incoming.request.method() == "GET");
        (setup, incoming)
    }

    fn handling() -> Self {
        Self::handling_request(GET).0
    }

    fn streaming() -> Self {
        let mut setup = Self::handling();
        let action = setup.start_stream();
        assert!(matches!(action, Action::Wait));
        setup
    }

    fn start_stream(&mut self) -> Action {
        let slot = self.quota.try_acquire(CLIENT.into()).unwrap();
        let stream = self.stream();
        self.connection.stream_started(stream, slot)
    }

    fn responding(keep_alive: bool) -> Self {
        let mut setup = Self::handling();
        assert!(matches!(setup.connection.respond(response(keep_alive)), Action::Write));
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
    assert!(matches!(action, Action::Reject { rejection, .. } if rejection.status == status), "{action:?}");
}

#[test]
fn a_request_is_dispatched_with_its_last_byte() {
    for (request, body) in [(GET.to_vec(), ""), ([POST, b"hello"].concat(), "hello")] {
        let mut setup = Setup::reading();
        let (last, first) = request.split_last().unwrap();
        for byte in first {
            let action = setup.connection.received(&[*byte]);
            if let Action::Admit(..) = action {
                assert!(matches!(setup.admit(action, 100), Action::Wait));
            } else {
                assert!(matches!(action, Action::Wait), "{action:?}");
            }
        }
        let action = setup.connection.received(&[*last]);
        let action = if let Action::Admit(..) = action { setup.admit(action, 100) } else { action };
        let Action::Dispatch(incoming) = action else { panic!("not dispatched: {action:?}") };
        assert_eq!((incoming.request.path(), incoming.request.body_text()), ("/news", Ok(body)));
    }
}

#[test]
fn bytes_that_are_no_request_are_rejected() {
    is_rejected(&Setup::reading().connection.received(b"\x16\x03\x01"), 400);
    is_rejected(&Setup::reading().connection.received(&[GET, b"\r\n"].concat()), 400);
    is_rejected(&Setup::reading().connection.deadline_passed(), 408);
    let mut setup = Setup::reading();
    setup.connection.received(b"HEAD / HT");
    assert!(matches!(setup.connection.deadline_passed(), Action::Reject { with_body: false, .. }));
}

#[test]
fn a_body_is_given_to_the_handler_only_if_it_is_whole() {
    let begin = || Setup::taking(&[POST, b"hell"].concat(), 100).0;
    assert_eq!((begin().connection.phase(), begin().connection.body_received()), (Phase::Body, 4));
    is_rejected(&begin().connection.input_ended(io::ErrorKind::UnexpectedEof), 400);
    is_rejected(&begin().connection.deadline_passed(), 408);
    assert!(matches!(begin().connection.input_ended(io::ErrorKind::ConnectionReset), Action::Close));
    assert!(matches!(begin().connection.stop(), Action::Close));
    let chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    is_rejected(&Setup::taking(chunked, 100).1, 400);
}

#[test]
fn a_body_that_the_budget_has_no_room_for_waits_for_room() {
    let (mut setup, action) = Setup::taking(POST, 100);
    assert!(matches!(action, Action::Wait));
    let mut other = setup.budget.reserve_none();
    assert!(other.grow_to(96));
    assert!(matches!(setup.connection.received(b"hello"), Action::MakeRoom));
    drop(other);
    let Action::Dispatch(incoming) = setup.connection.resume() else { panic!("not dispatched") };
    assert_eq!(incoming.request.body(), b"hello");
    // The memory is counted until the handler has responded.
    assert!(!setup.budget.reserve_none().grow_to(96));
    drop(incoming);
    assert!(setup.budget.reserve_none().grow_to(100));
}

#[test]
fn a_client_is_asked_for_its_body_unless_it_sends_it_anyway() {
    let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let (mut setup, action) = Setup::taking(head, 100);
    assert!(matches!(action, Action::Continue));
    assert!(matches!(setup.connection.resume(), Action::Wait));
    assert!(matches!(setup.connection.received(b"hello"), Action::Dispatch(_)));
    assert!(matches!(Setup::taking(&[&head[..], b"hello"].concat(), 100).1, Action::Dispatch(_)));
}

#[test]
fn a_client_that_sends_no_more_after_its_post_still_gets_the_response() {
    let (mut setup, _) = Setup::handling_request(&[POST, b"hello"].concat());
    assert!(matches!(setup.connection.input_ended(io::ErrorKind::UnexpectedEof), Action::AwaitHandler));
    assert!(matches!(setup.connection.input_ended(io::ErrorKind::UnexpectedEof), Action::Wait));
    assert!(matches!(setup.connection.respond(response(true)), Action::Write));
    assert!(matches!(write(&mut setup.connection, usize::MAX), Some(Action::Linger)));
    let (mut setup, _) = Setup::handling_request(&[POST, b"hello"].concat());
    let reset = setup.connection.input_ended(io::ErrorKind::ConnectionReset);
    assert!(matches!(reset, Action::Withdraw(..)), "{reset:?}");
}

#[test]
fn requests_that_follow_each_other_are_answered_in_order() {
    let (mut setup, _) = Setup::handling_request(&[GET, POST, b"hello", GET].concat());
    assert!((1..Connection::MAX_READ_AHEAD).contains(&setup.connection.read_limit()));
    setup.connection.received(&vec![b' '; setup.connection.read_limit()]);
    assert_eq!(setup.connection.read_limit(), 0, "it reads ahead without a limit");
    let (mut setup, _) = Setup::handling_request(&[GET, POST, b"hello", GET].concat());
    for method in ["POST", "GET"] {
        setup.connection.respond(response(true));
        let action = write(&mut setup.connection, usize::MAX).unwrap();
        let Action::Dispatch(incoming) = setup.admit(action, 100) else { panic!("not dispatched") };
        assert_eq!(incoming.request.method(), method);
        setup.connection.dispatched(CallId(8), true);
    }
    setup.connection.respond(response(true));
    assert!(matches!(write(&mut setup.connection, usize::MAX), Some(Action::Wait)));
    assert_eq!((setup.connection.phase(), setup.connection.requests()), (Phase::Idle, 3));
    assert!(matches!(setup.connection.deadline_passed(), Action::Close));
}

#[test]
fn a_stream_whose_client_sent_more_than_its_request_ends() {
    let (mut setup, _) = Setup::handling_request(&[GET, GET].concat());
    let lost = StreamEnd::Lost(io::ErrorKind::InvalidData);
    assert!(matches!(setup.start_stream(), Action::EndStream(_, end) if end == lost));
}

#[test]
fn a_client_that_leaves_while_the_handler_runs_has_its_call_withdrawn() {
    for error in [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof] {
        let action = Setup::handling().connection.input_ended(error);
        assert!(matches!(action, Action::Withdraw(CallId(7), lost) if lost == error), "{action:?}");
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
fn a_response_is_written_in_parts() {
    let mut setup = Setup::responding(false);
    let text = [&response(false).head[..], b"hello\n"].concat();
    let mut written = Vec::new();
    for step in [1, 10, text.len() - 14, 1, 1] {
        let action = setup.connection.write(|slices| {
            written.extend(slices.iter().flat_map(|slice| slice.iter()).take(step));
            Ok(step)
        });
        assert!(matches!(action, Some(Ok(Action::Write))), "{action:?}");
    }
    assert_eq!(written.len(), text.len() - 1);
    assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&text[..text.len() - 1]));
    assert!(matches!(write(&mut setup.connection, 1), Some(Action::Linger)));
    assert!(write(&mut setup.connection, 1).is_none());
    assert!(matches!(setup.connection.deadline_passed(), Action::Close));
    assert!(matches!(Setup::responding(false).connection.deadline_passed(), Action::Close));
}

#[test]
fn a_stream_that_comes_too_late_is_ended_and_frees_its_slot() {
    let mut setup = Setup::responding(true);
    let lost = StreamEnd::Lost(io::ErrorKind::ConnectionAborted);
    assert!(matches!(setup.start_stream(), Action::EndStream(_, end) if end == lost));
    assert!(setup.slot_is_free());
    assert_eq!(setup.connection.phase(), Phase::Responding);
}

#[test]
fn a_stop_closes_connections_without_a_request_and_lets_the_rest_finish() {
    assert!(matches!(Setup::reading().connection.stop(), Action::Close));
    assert!(matches!(Setup::handling().connection.stop(), Action::Wait));
    let mut responding = Setup::responding(true).connection;
    assert!(matches!(responding.stop(), Action::Wait));
    assert!(matches!(write(&mut responding, usize::MAX), Some(Action::Linger)));
    let mut setup = Setup::streaming();
    assert!(matches!(setup.connection.stop(), Action::EndStream(_, StreamEnd::Close)));
    assert!(matches!(setup.connection.stop(), Action::Wait));
    assert!(matches!(setup.connection.close(), Action::Wait));
    let closed = Setup::streaming().connection.close();
    assert!(matches!(closed, Action::EndStream(_, StreamEnd::Lost(io::ErrorKind::ConnectionAborted))));
}
