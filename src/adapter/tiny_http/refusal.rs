//! Requests that get a busy response although the writer threads cannot take one more write that may block.

// A request cannot be dropped in place of an answer: `tiny_http` then waits for its body and for the responses to
// earlier requests on its connection, and answers it with status 500. So refusals have threads of their own, up to a
// limit:
//
// * A request with a body that has not come occupies one until the body comes or the client leaves: only a thread that reads
//   notices that. `tiny_http` has a thread for each such connection too, and reads no further request from it meanwhile.
// * Any other request gives its connection's writer away at once. Behind a stream of ours it waits until that has
//   ended, since no other response may come in between. Then a thread writes the response. It waits if
//   the application answers an earlier request on the connection, so few threads wait for the same connection. Further
//   requests on it are dropped unanswered, which blocks nobody. They must not wait for those that are being
//   answered: they may be the earlier ones, if several threads handle requests, and then each would wait for the other.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use parking_lot::Mutex;
use tiny_http::Request;

use crate::queue::drop_caught;

/// How many refusals have a thread at the same time. The others wait.
const MAX_THREADS: usize = 1_000;

/// How many refusals at the same time wait for their turn on one connection. The others are not answered.
const MAX_PER_CONNECTION: usize = 4;

type Connection = Box<dyn Write + Send>;

/// Those of all publishers, since a server may serve several.
static REFUSALS: Mutex<Option<Refusals>> = Mutex::new(None);

#[derive(Default)]
struct Refusals {
    peers: HashMap<SocketAddr, Peer>,
    waiting: VecDeque<Refusal>,
    threads: usize,
}

/// What is under way on the connections of one peer address.
#[derive(Default)]
struct Peer {
    /// Streams that have begun. No later response is written before they end.
    streams: usize,
    /// Refusals that wait for earlier responses, or for a thread.
    refusals: usize,
    /// Refusals behind them. Those without a response are not answered.
    behind: Vec<(Connection, Vec<u8>)>,
}

struct Refusal {
    step: Step,
    response: Vec<u8>,
    peer: Option<SocketAddr>,
}

enum Step {
    /// The body has not come.
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

/// Has the response written if no response of ours comes before it. Does not block.
fn answer(connection: Connection, response: Vec<u8>, peer: Option<SocketAddr>) {
    if let Some(address) = peer {
        let mut refusals = REFUSALS.lock();
        let peer = refusals.get_or_insert_default().peers.entry(address).or_default();
        if peer.streams > 0 {
            let is_answered = peer.behind.len() < MAX_PER_CONNECTION;
            return peer.behind.push((connection, if is_answered { response } else { Vec::new() }));
        }
        if peer.refusals == MAX_PER_CONNECTION {
            drop(refusals);
            return drop_caught(connection);
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
        // It stays where it is: dropping it may block. The next thread takes it.
        REFUSALS.lock().get_or_insert_default().threads -= 1;
    }
}

/// A refusal thread: takes what waits until nothing does.
fn run() {
    loop {
        let mut refusals = REFUSALS.lock();
        let state = refusals.get_or_insert_default();
        let Some(refusal) = state.waiting.pop_front() else {
            state.threads -= 1;
            return;
        };
        drop(refusals);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| refusal.run())) {
            drop_caught(payload);
        }
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
                // Before the client can have the whole response, and send its next request.
                drop(turn);
                // An error means that the client has left.
                let _ = written.and_then(|()| connection.flush());
            }
        }
    }
}

/// A refusal that waits for its turn.
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

/// Changes what is under way for the peer. If no stream is left, answers the requests behind it.
fn leave(address: SocketAddr, change: impl FnOnce(&mut Peer)) {
    let mut refusals = REFUSALS.lock();
    let peers = &mut refusals.get_or_insert_default().peers;
    let Some(peer) = peers.get_mut(&address) else { return };
    change(peer);
    let behind = if peer.streams == 0 { std::mem::take(&mut peer.behind) } else { Vec::new() };
    if peer.streams == 0 && peer.refusals == 0 {
        peers.remove(&address);
    }
    drop(refusals);
    for (connection, response) in behind {
        if response.is_empty() {
            drop_caught(connection);
        } else {
            answer(connection, response, Some(address));
        }
    }
}
