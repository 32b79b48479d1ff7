//! One stream in the background.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::Wake;
use std::time::Duration;

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use super::batch::Pending;
use super::pool::Job;
use super::slow::SlowStream;
use super::{Drained, FrameSource};
use crate::queue::{NonBlockingWrite, Subscriber};
use crate::stats::EndCause;

/// What is called with the cause once a stream has ended.
pub(crate) type OnEnd = Box<dyn FnOnce(EndCause) + Send>;

/// Where a stream is written.
pub(crate) struct Output {
    pub(crate) writer: Writer,
    /// How long one write to the socket may take, and how long the stream may wait to begin.
    pub(crate) write_timeout: Option<Duration>,
    /// What is written before the body.
    pub(crate) head: Vec<u8>,
    pub(crate) chunked: bool,
    /// A writer that is dropped unused refuses the stream. So it does not wait while no start slot can become free.
    pub(crate) can_refuse: bool,
    pub(crate) on_end: Option<OnEnd>,
}

pub(crate) enum Writer {
    /// It may block. With it the socket, where that is known: it can be shut down while a write is blocked.
    Blocks(Box<dyn Write + Send>, Option<Arc<TcpStream>>),
    #[cfg_attr(not(feature = "server"), allow(dead_code))] // whose sockets are the only ones that do not block
    Parks(Arc<dyn NonBlockingWrite>),
}

impl Writer {
    /// Recognises a socket, so that none loses its write timeout.
    pub(crate) fn new(writer: impl Write + Send + 'static) -> Self {
        let mut writer = Some(writer);
        let any: &mut dyn std::any::Any = &mut writer;
        match any.downcast_mut::<Option<TcpStream>>().and_then(Option::take).map(Arc::new) {
            Some(socket) => Self::Blocks(Box::new(Socket(Arc::clone(&socket))), Some(socket)),
            None => Self::Blocks(Box::new(writer.expect("BUG: only a socket is taken out")), None),
        }
    }
}

/// A socket that the supervisor knows too.
struct Socket(Arc<TcpStream>);

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One stream in the background.
///
/// While it is idle, its subscriber's queue holds it, as the one to wake, and it holds the subscriber: a ring that keeps an
/// idle stream alive, and that the stream's end opens.
// What threads only read stands before what passes change, so that waking a stream takes no cache line from the thread that
// writes it.
#[repr(C)]
pub(super) struct Stream {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) run_queue: Sender<Job>,
    pub(super) write_timeout: Option<Duration>,
    pub(super) can_refuse: bool,
    pub(super) heartbeat: Option<Duration>,
    /// When something was written last, in microseconds of the pool's clock.
    pub(super) last_write: AtomicU64,
    /// What a pass works with, until the end takes it out. The lock is contended for no more than the moment after a pass; it
    /// is there because the compiler does not know the schedule. In one piece with the rest, since each piece is one more
    /// cache line to wait for.
    pub(super) state: Mutex<Option<StreamState>>,
    /// The supervisor has shut the socket down.
    pub(super) timed_out: AtomicBool,
    /// When it is to be woken because its lifetime is over; `u64::MAX` for never, or when it has been.
    pub(super) expires: AtomicU64,
}

#[repr(C)]
pub(super) struct StreamState {
    /// It has not had a pass yet.
    pub(super) is_new: bool,
    pub(super) chunked: bool,
    /// Boxed, since it is rare, and the others are to stand close together.
    pub(super) partial: Option<Box<PartialWrite>>,
    /// What is written before the body's first bytes.
    pub(super) head: Box<[u8]>,
    pub(super) writer: Writer,
    pub(super) source: FrameSource,
    pub(super) on_end: Option<OnEnd>,
    /// Why the stream is over, if its writer failed.
    pub(super) failed: Option<io::Error>,
}

/// A write whose last part the socket did not take, and what comes behind it.
pub(super) struct PartialWrite {
    pub(super) pending: Pending,
    pub(super) drained: Drained,
    /// Until it is written, the stream is a slow one.
    pub(super) _slow: SlowStream,
}

impl StreamState {
    pub(super) fn may_block(&self) -> bool {
        matches!(self.writer, Writer::Blocks(..))
    }
}

impl Wake for Stream {
    /// Puts the stream on the run queue. Whoever wakes it has found it idle, or parked.
    fn wake(self: Arc<Self>) {
        let run_queue = self.run_queue.clone();
        // An error means that the pool has ended, which outlives every stream.
        let _ = run_queue.send(Job::Pass(self));
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Arc::clone(self).wake();
    }
}
