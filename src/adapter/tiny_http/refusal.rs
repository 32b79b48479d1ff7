//! Writes busy responses while the writer threads can take no further write that may block.

// A request cannot be dropped without a response: `tiny_http` then waits for its body and for the responses to earlier
// requests on its connection, and answers it with status 500. So refusals have threads of their own, up to a limit:
//
// * A request whose body has not arrived occupies a thread until the body arrives or the connection is lost, because
//   only a thread that reads can notice either. `tiny_http` reads no further request from this connection meanwhile.
// * Any other request gives its connection's writer away at once. Behind a stream of this crate it waits until the
//   stream has ended, since no other response may come in between. Then a thread writes the response. The thread waits
//   while the application answers an earlier request on the connection, so a limited number of threads waits for the
//   same connection. The refusals behind them follow in their order. If several threads handle requests, a later
//   request may be refused before an earlier one. So the limit must be above the number of those threads, or the later
//   ones would wait for the earlier ones, and these for a thread.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::SocketAddr;
use std::thread;

use parking_lot::Mutex;
use tiny_http::Request;

use crate::queue::call_caught;

/// The limit of refusal threads. Further refusals wait.
const MAX_THREADS: usize = 1_000;

/// The limit of refusals that have a thread on one connection: more than threads handle requests of it at once.
const MAX_PER_CONNECTION: usize = 64;

type Connection = Box<dyn Write + Send>;

/// The refusals of all publishers, since a server may serve several.
static REFUSALS: Mutex<Option<Refusals>> = Mutex::new(None);

#[derive(Default)]
struct Refusals {
    peers: HashMap<SocketAddr, Peer>,
    waiting: VecDeque<Refusal>,
    threads: usize,
}

/// The streams and refusals on the connections of one peer address.
#[derive(Default)]
struct Peer {
    /// Streams that have begun. No later response is written before they end.
    streams: usize,
    /// Refusals that wait for earlier responses, or for a thread.
    refusals: usize,
    /// Refusals behind them.
    behind: VecDeque<(Connection, Vec<u8>)>,
}

struct Refusal {
    step: Step,
    response: Vec<u8>,
    peer: Option<SocketAddr>,
}

enum Step {
    /// Wait for the body, which has not arrived.
    Drain(Request),
    Answer(Connection),
}

/// Answers the request with this response, without blocking the caller.
pub(super) fn refuse(request: Request, response: Vec<u8>) {
    let peer = request.remote_addr().copied();
    if has_pending_body(&request) {
        enqueue(Refusal { step: Step::Drain(request), response, peer });
    } else {
        answer(request.into_writer(), response, peer);
    }
}

/// Returns whether taking the connection over may wait for the request's body, as far as that is known: the application
/// may have read it.
fn has_pending_body(request: &Request) -> bool {
    // `tiny_http` reads small bodies with the head, unless the client waits to be asked for them.
    let is_asked_for = || request.headers().iter().any(|header| header.field.equiv("Expect"));
    request.body_length().is_some_and(|length| length > 1_024 || length > 0 && is_asked_for())
}

/// Enqueues the response, unless a stream of this crate must end before it. Does not block.
fn answer(connection: Connection, response: Vec<u8>, peer: Option<SocketAddr>) {
    if let Some(address) = peer {
        let mut refusals = REFUSALS.lock();
        let peer = refusals.get_or_insert_default().peers.entry(address).or_default();
        // A connection's writer is never dropped before its turn: `tiny_http` would give the turn to the next one.
        if peer.streams > 0 || peer.refusals == MAX_PER_CONNECTION {
            return peer.behind.push_back((connection, response));
        }
        peer.refusals += 1;
    }
    enqueue(Refusal { step: Step::Answer(connection), response, peer });
}

fn enqueue(refusal: Refusal) {
    let mut refusals = REFUSALS.lock();
    let state = refusals.get_or_insert_default();
    state.waiting.push_back(refusal);
    if state.threads == MAX_THREADS {
        return;
    }
    state.threads += 1;
    drop(refusals);
    if thread::Builder::new().name("sse refusal".into()).stack_size(128 * 1024).spawn(run).is_err() {
        // The refusal stays in the queue, because dropping it may block. The next thread takes it.
        REFUSALS.lock().get_or_insert_default().threads -= 1;
    }
}

/// Runs refusals until none waits.
fn run() {
    loop {
        let mut refusals = REFUSALS.lock();
        let state = refusals.get_or_insert_default();
        let Some(refusal) = state.waiting.pop_front() else {
            state.threads -= 1;
            return;
        };
        drop(refusals);
        call_caught(|| refusal.run());
    }
}

impl Refusal {
    fn run(self) {
        let Self { step, response, peer } = self;
        match step {
            Step::Drain(request) => answer(request.into_writer(), response, peer),
            Step::Answer(mut connection) => {
                let turn = peer.map(Turn);
                let written = connection.write_all(&response);
                // Dropped before the client can have the whole response and send its next request.
                drop(turn);
                // An error means that the connection is lost.
                let _ = written.and_then(|()| connection.flush());
            }
        }
    }
}

/// Counts a refusal on its peer's connections until it is dropped.
struct Turn(SocketAddr);

impl Drop for Turn {
    fn drop(&mut self) {
        leave(self.0, |peer| peer.refusals -= 1);
    }
}

/// A stream that has begun on a connection of this peer address: it has written something, so no earlier response is
/// pending.
pub(super) struct RunningStream(SocketAddr);

impl RunningStream {
    pub(super) fn begin(peer: SocketAddr) -> Self {
        REFUSALS.lock().get_or_insert_default().peers.entry(peer).or_default().streams += 1;
        Self(peer)
    }
}

impl Drop for RunningStream {
    fn drop(&mut self) {
        leave(self.0, |peer| peer.streams -= 1);
    }
}

/// Changes the counts of the peer, and enqueues the responses behind that may be written now.
fn leave(address: SocketAddr, change: impl FnOnce(&mut Peer)) {
    let mut refusals = REFUSALS.lock();
    let peers = &mut refusals.get_or_insert_default().peers;
    let Some(peer) = peers.get_mut(&address) else { return };
    change(peer);
    let mut next = Vec::new();
    while peer.streams == 0 && peer.refusals < MAX_PER_CONNECTION {
        let Some(behind) = peer.behind.pop_front() else { break };
        peer.refusals += 1;
        next.push(behind);
    }
    if peer.streams == 0 && peer.refusals == 0 {
        peers.remove(&address);
    }
    drop(refusals);
    for (connection, response) in next {
        enqueue(Refusal { step: Step::Answer(connection), response, peer: Some(address) });
    }
}
