//! The threads that run application code: the handler of requests, and the hooks at the end of streams.

// The event loop runs no application code: it must not wait, and a panic must not end it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex};

use super::connection::Incoming;
use super::encode;
use super::notifier::{Message, SharedSocket};
use super::quota::{Quota, StreamSlot};
use super::rejection::Rejection;
use super::response::Kind;
use super::{Request, Response};
use crate::deliver::{Output, Writer};
use crate::queue::{NonBlockingWrite, call_caught, drop_caught};
use crate::stats::EndCause;
use crate::subscription::{Subscription, SubscriptionHandle};

pub(super) type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// A request for the handler.
pub(super) struct Call {
    pub(super) incoming: Box<Incoming>,
    pub(super) socket: Arc<SharedSocket>,
}

/// The number of a call; later calls have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CallId(pub(super) u64);

/// The way in which the server ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// After its queued events.
    Close,
    /// At once, because the connection is lost.
    Lost(io::ErrorKind),
}

/// The handler threads, and the thread that ends streams.
pub(super) struct Handlers {
    calls: Arc<CallQueue>,
    handler_threads: Vec<JoinHandle<()>>,
    /// `None` once the thread is stopped.
    ends: Option<Sender<(SubscriptionHandle, StreamEnd)>>,
    end_thread: Option<JoinHandle<()>>,
}

impl Handlers {
    /// Starts this many handler threads, and the thread that ends streams.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if a thread cannot be started. All started threads then end.
    pub(super) fn start(threads: usize, handler: Arc<Handler>, quota: &Arc<Quota>) -> io::Result<Self> {
        let (ends, to_end) = unbounded();
        let calls = Arc::new(CallQueue::new(threads));
        let mut handlers = Self { calls, handler_threads: Vec::new(), ends: Some(ends), end_thread: None };
        let end_thread = thread::Builder::new().name("sse ends".into());
        handlers.end_thread = Some(end_thread.spawn(move || end_streams(&to_end))?);
        for _ in 0..threads {
            let (calls, handler, quota) = (Arc::clone(&handlers.calls), Arc::clone(&handler), Arc::clone(quota));
            let thread = thread::Builder::new().name("sse handler".into());
            handlers.handler_threads.push(thread.spawn(move || run(&calls, handler, &quota))?);
        }
        Ok(handlers)
    }

    /// Queues a call.
    pub(super) fn dispatch(&self, call: Call) -> CallId {
        self.calls.push(call)
    }

    /// Withdraws a call whose connection is lost. If the handler runs already, its response is dropped.
    pub(super) fn withdraw(&self, call: CallId, lost: io::ErrorKind) {
        self.calls.withdraw(call, lost);
    }

    /// Ends a stream on a separate thread, since hooks may take long.
    pub(super) fn end_stream(&self, stream: SubscriptionHandle, end: StreamEnd) {
        let ends = self.ends.as_ref().expect("BUG: the thread that ends streams stopped before the event loop");
        // This cannot fail: the thread runs until the sender is dropped.
        let _ = ends.send((stream, end));
    }

    /// Waits until the handler threads have finished all calls. No call may be queued afterwards.
    pub(super) fn join_handlers(&mut self) {
        self.calls.close();
        for thread in self.handler_threads.drain(..) {
            // Panics of the application are caught in the thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        self.join_handlers();
        self.ends = None;
        if let Some(thread) = self.end_thread.take() {
            let _ = thread.join();
        }
    }
}

/// The calls that wait for a thread, in order, and those that run.
struct CallQueue {
    calls: Mutex<Calls>,
    available: Condvar,
    /// The limit of running calls with a body. One thread fewer than there are, so that streams and pages are answered
    /// while the application is slow with what clients send.
    max_with_body: usize,
}

#[derive(Default)]
struct Calls {
    last_id: u64,
    waiting: BTreeMap<CallId, Call>,
    waiting_with_body: BTreeMap<CallId, Call>,
    running: HashMap<CallId, Running>,
    running_with_body: usize,
    /// The number of threads that wait for a call.
    idle: usize,
    /// A thread has been woken and has not yet looked for a call. It wakes the next one if there are more.
    is_waking: bool,
    is_closed: bool,
}

struct Running {
    has_body: bool,
    /// The error if the call's connection is lost.
    lost: Option<io::ErrorKind>,
}

impl Calls {
    /// Takes the oldest call that may run.
    fn take(&mut self, max_with_body: usize) -> Option<(CallId, Call)> {
        let plain = self.waiting.first_key_value().map(|(id, _)| *id);
        let with_body = self.waiting_with_body.first_key_value().map(|(id, _)| *id);
        let with_body = with_body.filter(|_| self.running_with_body < max_with_body);
        let has_body = match (plain, with_body) {
            (None, None) => return None,
            (plain, Some(with_body)) => plain.is_none_or(|plain| with_body < plain),
            (Some(_), None) => false,
        };
        let waiting = if has_body { &mut self.waiting_with_body } else { &mut self.waiting };
        let (id, call) = waiting.pop_first().expect("BUG: the first call has gone");
        self.running_with_body += usize::from(has_body);
        self.running.insert(id, Running { has_body, lost: None });
        Some((id, call))
    }

    fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.waiting_with_body.is_empty()
    }

    /// Returns whether the caller must wake a thread, since a call waits and no thread is about to look for one.
    fn wakes_thread(&mut self) -> bool {
        let wakes = self.has_waiting() && self.idle > 0 && !self.is_waking;
        self.is_waking |= wakes;
        wakes
    }
}

impl CallQueue {
    fn new(threads: usize) -> Self {
        Self { calls: Mutex::default(), available: Condvar::new(), max_with_body: (threads - 1).max(1) }
    }

    fn push(&self, call: Call) -> CallId {
        let mut calls = self.calls.lock();
        calls.last_id += 1;
        let id = CallId(calls.last_id);
        let has_body = !call.incoming.request.body().is_empty();
        if has_body { &mut calls.waiting_with_body } else { &mut calls.waiting }.insert(id, call);
        let wakes = calls.wakes_thread();
        drop(calls);
        if wakes {
            self.available.notify_one();
        }
        id
    }

    /// Returns the oldest call that may run, or `None` once the queue is closed and empty. Blocks until then.
    fn next(&self) -> Option<(CallId, Call)> {
        let mut calls = self.calls.lock();
        loop {
            if let Some(call) = calls.take(self.max_with_body) {
                let wakes = calls.wakes_thread();
                drop(calls);
                if wakes {
                    self.available.notify_one();
                }
                return Some(call);
            }
            if calls.is_closed && !calls.has_waiting() {
                return None;
            }
            calls.idle += 1;
            self.available.wait(&mut calls);
            calls.idle -= 1;
            calls.is_waking = false;
        }
    }

    fn withdraw(&self, id: CallId, lost: io::ErrorKind) {
        let mut calls = self.calls.lock();
        let waiting = calls.waiting.remove(&id).or_else(|| calls.waiting_with_body.remove(&id));
        if let Some(running) = calls.running.get_mut(&id) {
            running.lost.get_or_insert(lost);
        }
        drop(calls);
        // Its socket may close here, without the lock.
        drop(waiting);
    }

    /// Marks a call as finished. Returns the error if its connection is lost.
    fn finish(&self, id: CallId) -> Option<io::ErrorKind> {
        let mut calls = self.calls.lock();
        let Running { has_body, lost } = calls.running.remove(&id).expect("BUG: a finished call was not running");
        calls.running_with_body -= usize::from(has_body);
        lost
    }

    fn close(&self) {
        self.calls.lock().is_closed = true;
        self.available.notify_all();
    }
}

/// Runs a handler thread.
fn run(calls: &CallQueue, handler: Arc<Handler>, quota: &Arc<Quota>) {
    while let Some((id, call)) = calls.next() {
        let response = catch_unwind(AssertUnwindSafe(|| handler(&call.incoming.request))).unwrap_or_else(|payload| {
            drop_caught(payload);
            Response::error(500, "the handler panicked")
        });
        match calls.finish(id) {
            None => respond(call, response, quota),
            Some(lost) => discard(response, lost),
        }
    }
    // The last thread drops what the handler has captured.
    drop_caught(handler);
}

/// Sends a response, or starts its stream.
fn respond(call: Call, response: Response, quota: &Arc<Quota>) {
    let Call { incoming, socket } = call;
    let Incoming { request, headers, keep_alive, is_followed, body_bytes } = *incoming;
    let is_head = request.method() == "HEAD";
    let outgoing = match response.kind {
        Kind::Stream(subscription) if is_head => {
            drop_caught(subscription);
            encode::stream_without_body(&response.headers, &headers)
        }
        Kind::Stream(subscription) if is_followed => {
            drop_caught(subscription);
            encode::rejection(Rejection::bad("unexpected data after the request of a stream"), &headers, true)
        }
        Kind::Stream(subscription) => match quota.try_acquire(request.client_ip()) {
            Some(slot) => {
                let head = encode::stream_head(&response.headers, &headers, !request.is_http_1_0());
                return start_stream(*subscription, slot, head, !request.is_http_1_0(), &socket);
            }
            None => {
                drop_caught(subscription);
                encode::retry_later(&response.headers, &headers, false)
            }
        },
        Kind::RetryLater => encode::retry_later(&response.headers, &headers, is_head),
        Kind::Content { status, content_type, body } => {
            let content = encode::Content { status, content_type: &content_type, body, own: &response.headers };
            encode::content(content, &request, &headers, keep_alive)
        }
    };
    // Until now the handler needed the body. A client that has the response finds its memory free.
    drop((request, body_bytes));
    socket.respond(outgoing);
}

/// Gives a subscription to its publisher's writer threads.
fn start_stream(
    mut subscription: Subscription,
    slot: StreamSlot,
    head: Vec<u8>,
    chunked: bool,
    socket: &Arc<SharedSocket>,
) {
    // Sent first, so that the event loop knows the stream before it ends.
    socket.notifier.send(Message::StreamStarted(socket.token, subscription.handle(), slot));
    subscription.begin_with_comment();
    let writer = Writer::Parks(Arc::clone(socket) as Arc<dyn NonBlockingWrite>);
    let output = Output { writer, write_timeout: None, head, chunked, can_refuse: false, on_end: None };
    // After an error the subscription is dropped, and application code may panic in its `Drop`.
    let started = catch_unwind(AssertUnwindSafe(|| subscription.write(output)));
    if !matches!(started, Ok(Ok(()))) {
        socket.finished(false);
    }
    if let Err(payload) = started {
        drop_caught(payload);
    }
}

/// Drops a response whose connection is lost.
fn discard(response: Response, lost: io::ErrorKind) {
    call_caught(|| {
        if let Kind::Stream(mut subscription) = response.kind {
            subscription.leave(EndCause::ConnectionLost(lost));
        }
    });
}

/// Runs the thread that ends streams.
fn end_streams(ends: &Receiver<(SubscriptionHandle, StreamEnd)>) {
    for (stream, end) in ends {
        call_caught(|| match end {
            StreamEnd::Close => drop(stream.close()),
            StreamEnd::Lost(error) => stream.connection_lost(error),
        });
    }
}
