//! One stream in the background.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use super::batch::Pending;
use super::pool::Job;
use super::slow::SlowStream;
use super::socket::Socket;
use super::{Drained, FrameSource};
use crate::queue::{NonBlockingWrite, Subscriber};
use crate::stats::EndCause;
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::sync::channel::Sender;
use crate::sync::{Mutex, thread_local};

/// The closure that is called with the cause once a stream has ended.
pub(crate) type OnEnd = Box<dyn FnOnce(EndCause) + Send>;

/// The destination of a stream.
pub(crate) struct Output {
    pub(crate) writer: Writer,
    /// The timeout of one write to the socket, and of the wait to begin.
    pub(crate) write_timeout: Option<Duration>,
    /// The bytes before the body.
    pub(crate) head: Vec<u8>,
    pub(crate) chunked: bool,
    /// A writer that is dropped unused refuses the stream. So it does not wait while no start slot can become free.
    pub(crate) can_refuse: bool,
    pub(crate) on_end: Option<OnEnd>,
}

pub(crate) enum Writer {
    /// A writer that may block, with its socket if that is known: the socket can be shut down while a write is blocked.
    Blocks(Box<dyn Write + Send>, Option<Arc<Socket>>),
    // Only the sockets of `EventServer` do not block.
    #[cfg_attr(not(feature = "server"), allow(dead_code))]
    Parks(Arc<dyn NonBlockingWrite>),
}

impl Writer {
    /// Wraps a writer. Recognizes a socket, so that its write timeout applies. Returns it with the bytes that were
    /// buffered for the socket.
    pub(crate) fn new(writer: impl Write + Send + 'static) -> (Self, Vec<u8>) {
        match Socket::recognize(writer) {
            Ok((socket, buffered)) => {
                let socket = Arc::new(socket);
                (Self::Blocks(Box::new(SharedSocket(Arc::clone(&socket))), Some(socket)), buffered)
            }
            Err(writer) => (Self::Blocks(Box::new(writer), None), Vec::new()),
        }
    }
}

/// A socket that the supervisor shares.
struct SharedSocket(Arc<Socket>);

impl Write for SharedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One stream in the background.
///
/// While the stream is idle, its subscriber's queue owns it through the waker, and it owns the subscriber. This cycle
/// keeps an idle stream alive. The end of the stream breaks it.
// The fields that threads only read come before those that passes change. So waking a stream takes no cache line from
// the thread that writes it.
#[repr(C)]
pub(super) struct Stream {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) run_queue: Sender<Job>,
    pub(super) write_timeout: Option<Duration>,
    pub(super) can_refuse: bool,
    pub(super) heartbeat: Option<Duration>,
    /// The time of the last write, in microseconds of the pool's clock.
    pub(super) last_write: AtomicU64,
    /// The state that a pass works with; `None` after the end. The schedule already gives a stream one owner, but the
    /// compiler does not know that. So the lock is contended only briefly after a pass. The state is not boxed, since
    /// each allocation adds a cache line to wait for.
    pub(super) state: Mutex<Option<StreamState>>,
    /// `true` if the stream ends with `WriteTimedOut`.
    pub(super) timed_out: AtomicBool,
    /// The time at which the supervisor must wake the stream because its lifetime is over; `u64::MAX` for never, or
    /// afterwards.
    pub(super) expires: AtomicU64,
}

#[repr(C)]
pub(super) struct StreamState {
    /// `true` if the stream has had no pass yet.
    pub(super) is_new: bool,
    pub(super) chunked: bool,
    /// Boxed, since it is rare, so that the other fields stay close together.
    pub(super) partial: Option<Box<PartialWrite>>,
    /// The bytes before the body.
    pub(super) head: Box<[u8]>,
    pub(super) writer: Writer,
    pub(super) source: FrameSource,
    pub(super) on_end: Option<OnEnd>,
    /// The writer's error, if the writer failed.
    pub(super) failed: Option<io::Error>,
}

/// A write that the socket did not take whole, and the result of draining the queue for it.
pub(super) struct PartialWrite {
    pub(super) pending: Pending,
    pub(super) drained: Drained,
    /// Marks the stream as slow until the rest is written.
    pub(super) _slow: SlowStream,
}

impl StreamState {
    pub(super) fn may_block(&self) -> bool {
        matches!(self.writer, Writer::Blocks(..))
    }
}

thread_local! {
    /// The streams that this writer thread has woken and passes itself. `None` while it does not wake a group.
    static WOKEN: RefCell<Option<Vec<Arc<Stream>>>> = const { RefCell::new(None) };
}

/// Wakes a group of streams. Returns them, for their passes on this thread.
pub(super) fn wake_group(streams: impl ExactSizeIterator<Item = Waker>) -> Vec<Arc<Stream>> {
    WOKEN.with(|woken| woken.replace(Some(Vec::with_capacity(streams.len()))));
    for stream in streams {
        stream.wake();
    }
    WOKEN.with(RefCell::take).expect("BUG: a group was woken within a group")
}

impl Wake for Stream {
    /// Puts the stream on the run queue, or gives it to the thread that wakes its group. The caller has found it idle
    /// or parked.
    fn wake(self: Arc<Self>) {
        let mut stream = Some(self);
        WOKEN.with(|woken| {
            if let Some(group) = &mut *woken.borrow_mut() {
                group.extend(stream.take());
            }
        });
        if let Some(stream) = stream {
            let run_queue = stream.run_queue.clone();
            // An error means that the pool has ended. The pool outlives every stream, so there is none.
            let _ = run_queue.send(Job::Pass(stream));
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Arc::clone(self).wake();
    }
}
