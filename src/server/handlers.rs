//! The threads that run application code: the handler of requests, and the hooks at the end of streams.

// The event loop runs no application code: it must not wait, and a panic must not end it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex};

use super::notifier::{Message, SharedSocket};
use super::response::{self, Kind};
use super::{Request, Response};
use crate::deliver::{Output, Writer};
use crate::queue::{NonBlockingWrite, drop_caught};
use crate::stats::EndCause;
use crate::subscription::{Subscription, SubscriptionHandle};

pub(super) type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// A request for the handler.
pub(super) struct Call {
    pub(super) request: Request,
    /// Header lines for the response.
    pub(super) headers: String,
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
    pub(super) fn start(threads: usize, handler: Arc<Handler>) -> io::Result<Self> {
        let (ends, to_end) = unbounded();
        let calls = Arc::new(CallQueue::default());
        let mut handlers = Self { calls, handler_threads: Vec::new(), ends: Some(ends), end_thread: None };
        let end_thread = thread::Builder::new().name("sse ends".into());
        handlers.end_thread = Some(end_thread.spawn(move || end_streams(&to_end))?);
        for _ in 0..threads {
            let (calls, handler) = (Arc::clone(&handlers.calls), Arc::clone(&handler));
            let thread = thread::Builder::new().name("sse handler".into());
            handlers.handler_threads.push(thread.spawn(move || run(&calls, handler))?);
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
#[derive(Default)]
struct CallQueue {
    calls: Mutex<Calls>,
    available: Condvar,
}

#[derive(Default)]
struct Calls {
    last_id: u64,
    waiting: BTreeMap<CallId, Call>,
    /// The running calls, each with an error if its connection is lost.
    running: HashMap<CallId, Option<io::ErrorKind>>,
    is_closed: bool,
}

impl CallQueue {
    fn push(&self, call: Call) -> CallId {
        let mut calls = self.calls.lock();
        calls.last_id += 1;
        let id = CallId(calls.last_id);
        calls.waiting.insert(id, call);
        drop(calls);
        self.available.notify_one();
        id
    }

    /// Returns the oldest call, or `None` once the queue is closed and empty. Blocks until then.
    fn next(&self) -> Option<(CallId, Call)> {
        let mut calls = self.calls.lock();
        loop {
            if let Some((id, call)) = calls.waiting.pop_first() {
                calls.running.insert(id, None);
                return Some((id, call));
            }
            if calls.is_closed {
                return None;
            }
            self.available.wait(&mut calls);
        }
    }

    fn withdraw(&self, id: CallId, lost: io::ErrorKind) {
        let mut calls = self.calls.lock();
        let waiting = calls.waiting.remove(&id);
        if let Some(running) = calls.running.get_mut(&id) {
            running.get_or_insert(lost);
        }
        drop(calls);
        // Its socket may close here, without the lock.
        drop(waiting);
    }

    /// Marks a call as finished. Returns the error if its connection is lost.
    fn finish(&self, id: CallId) -> Option<io::ErrorKind> {
        self.calls.lock().running.remove(&id).expect("BUG: a finished call was not running")
    }

    fn close(&self) {
        self.calls.lock().is_closed = true;
        self.available.notify_all();
    }
}

/// Runs a handler thread.
fn run(calls: &CallQueue, handler: Arc<Handler>) {
    while let Some((id, call)) = calls.next() {
        let response = catch_unwind(AssertUnwindSafe(|| handler(&call.request))).unwrap_or_else(|payload| {
            drop_caught(payload);
            Response::status(500, "the handler panicked")
        });
        match calls.finish(id) {
            None => respond(call, response),
            Some(lost) => discard(response, lost),
        }
    }
    // The last thread drops what the handler has captured.
    drop_caught(handler);
}

/// Sends a response, or starts its stream.
fn respond(call: Call, response: Response) {
    let Call { request, headers, socket } = call;
    let is_head = request.method() == "HEAD";
    let bytes = match response.0 {
        Kind::Stream(subscription) if is_head => {
            drop_caught(subscription);
            response::stream_head(&headers, false)
        }
        Kind::Stream(subscription) => return start_stream(*subscription, &request, &headers, &socket),
        Kind::RetryLater => response::retry_later(&headers, is_head),
        Kind::DoNotReconnect => response::message(204, &headers, "", true),
        Kind::Status(status @ 200..=599, text) => response::message(status, &headers, &text, !is_head),
        Kind::Status(..) => response::message(500, &headers, "the handler returned an invalid status code", !is_head),
    };
    socket.notifier.send(Message::Respond(socket.token, bytes));
}

/// Gives a subscription to its publisher's writer threads.
fn start_stream(mut subscription: Subscription, request: &Request, headers: &str, socket: &Arc<SharedSocket>) {
    // Sent first, so that the event loop knows the stream before it ends.
    socket.notifier.send(Message::StreamStarted(socket.token, subscription.handle()));
    subscription.begin_with_comment();
    let chunked = !request.is_http_1_0();
    let writer = Writer::Parks(Arc::clone(socket) as Arc<dyn NonBlockingWrite>);
    let head = response::stream_head(headers, chunked);
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
    let discarded = catch_unwind(AssertUnwindSafe(|| {
        if let Kind::Stream(mut subscription) = response.0 {
            subscription.leave(EndCause::ConnectionLost(lost));
        }
    }));
    if let Err(payload) = discarded {
        drop_caught(payload);
    }
}

/// Runs the thread that ends streams.
fn end_streams(ends: &Receiver<(SubscriptionHandle, StreamEnd)>) {
    for (stream, end) in ends {
        let ended = catch_unwind(AssertUnwindSafe(|| match end {
            StreamEnd::Close => drop(stream.close()),
            StreamEnd::Lost(error) => stream.connection_lost(error),
        }));
        if let Err(payload) = ended {
            drop_caught(payload);
        }
    }
}
