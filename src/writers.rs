//! The writer threads: many handed-over subscriptions on few threads.

// A handed-over stream has no thread of its own. Whoever queues something for it puts it on the run queue, unless
// it is there; a writer thread takes it from there, drains its queue into one buffer, writes that with one
// `write_all` and one `flush`, and looks again.
// How no wake-up is lost stands in `queue.rs`, what a turn is in `writers/turns.rs`, how many threads there are in
// `writers/supervisor.rs`.

mod supervisor;
mod turns;

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex};

use crate::error::InvalidSetting;
use crate::notices::Notices;
use crate::queue::{Queue, RunQueue, race_window};
use crate::stats::EndCause;
use crate::subscription::{After, Output, Runner, Subscription, Writer};

impl Subscription {
    /// Gives the subscription and a writer to the publisher's writer threads, and returns at once.
    ///
    /// They write every frame as it comes, what waits together with one `write_all` and one `flush`. The bytes
    /// are the bare event stream: a response's head must have been written before, and if its body is framed,
    /// framing is the writer's. When the stream ends, the writer is flushed and dropped.
    ///
    /// A handed-over stream costs no thread, unless its writer blocks: then it holds one for that long. A
    /// [`TcpStream`] gets a write deadline of 30 s, past which it is shut down; for any other writer that is up to
    /// whoever made it (`SO_SNDTIMEO` or `TCP_USER_TIMEOUT` on a listener are inherited by the sockets it accepts).
    /// A `TcpStream` must be in blocking mode.
    ///
    /// Its heartbeat comes up to a quarter of the interval late, so that streams which fell silent together are
    /// not all written to together.
    ///
    /// # Errors
    ///
    /// When not one writer thread can be started; the subscription is over and the writer dropped then.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    /// use std::io::Read;
    /// use std::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let mut client = TcpStream::connect(listener.local_addr()?)?;
    /// let (connection, _) = listener.accept()?;
    ///
    /// let publisher = Publisher::new();
    /// publisher.subscribe()?.write_in_background(connection)?;
    /// publisher.publish("hello");
    /// publisher.close();
    ///
    /// let mut stream = String::new();
    /// client.read_to_string(&mut stream)?;
    /// assert_eq!(stream, "data: hello\n\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_in_background(self, writer: impl Write + Send + 'static) -> io::Result<()> {
        self.write_in_background_with_options(writer, BackgroundOptions::new())
    }

    /// [`write_in_background`](Self::write_in_background) with another write timeout, or a closure to call at the end.
    ///
    /// # Errors
    ///
    /// As [`write_in_background`](Self::write_in_background); and [`InvalidInput`](io::ErrorKind::InvalidInput) with an
    /// [`InvalidSetting`] for a timeout of zero.
    pub fn write_in_background_with_options(
        self,
        writer: impl Write + Send + 'static,
        options: BackgroundOptions,
    ) -> io::Result<()> {
        let BackgroundOptions { deadline, on_end } = options;
        if deadline == Some(Duration::ZERO) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, InvalidSetting::new("write_timeout")));
        }
        // A socket is recognised, so that nobody loses its deadline by calling another method.
        let mut writer = Some(writer);
        let socket = (&mut writer as &mut dyn Any).downcast_mut::<Option<TcpStream>>().and_then(Option::take);
        let socket = socket.map(Arc::new);
        let writer: Box<dyn Write + Send> = match (&socket, writer) {
            (Some(socket), _) => Box::new(Socket(Arc::clone(socket))),
            (None, writer) => Box::new(writer.expect("BUG: only a socket is taken out")),
        };
        self.runner().take_over(
            self,
            Output { writer: Writer::Blocks(writer, socket), deadline, head: Vec::new(), chunked: false, on_end },
        )
    }
}

/// How a subscription is [written in the background](Subscription::write_in_background_with_options).
///
/// ```
/// use server_sent_events::{EndCause, BackgroundOptions, Publisher};
/// use std::{sync::mpsc, time::Duration};
///
/// let (ended, end) = mpsc::channel();
/// let options = BackgroundOptions::new()
///     .write_timeout(Duration::from_secs(5))
///     .on_end(move |cause| ended.send(cause).unwrap());
///
/// let publisher = Publisher::new();
/// publisher.subscribe()?.write_in_background_with_options(std::io::sink(), options)?;
/// publisher.close();
/// assert_eq!(end.recv()?, EndCause::Closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "options do nothing until they are given to `write_in_background_with_options`"]
pub struct BackgroundOptions {
    deadline: Option<Duration>,
    on_end: Option<Box<dyn FnOnce(EndCause) + Send>>,
}

impl BackgroundOptions {
    /// Creates options with a write timeout of 30 s and nothing to call.
    pub fn new() -> Self {
        Self { deadline: Some(Duration::from_secs(30)), on_end: None }
    }

    /// Sets how long one write to a [`TcpStream`] may take; `None` for no limit. Defaults to 30 s.
    ///
    /// Past it the socket is shut down, and the stream ends with [`EndCause::WriteTimedOut`]. From 64 KiB on no
    /// further frame is added to a write. Looked at each 10 ms. Other writers are not concerned.
    pub fn write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.deadline = timeout.into();
        self
    }

    /// What is called with the cause once the stream has ended. Setting it again replaces it.
    ///
    /// Called exactly once, on a writer thread, without any lock, when the subscriber has left the publisher
    /// and the writer is dropped; not if starting was an error. It may use the publisher. A panic in it is caught.
    pub fn on_end(mut self, closure: impl FnOnce(EndCause) + Send + 'static) -> Self {
        self.on_end = Some(Box::new(closure));
        self
    }
}

impl Default for BackgroundOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for BackgroundOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackgroundOptions").field("write_timeout", &self.deadline).finish_non_exhaustive()
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

/// One handed-over stream.
///
/// The queue holds it, and its subscription the queue: a ring that keeps an idle stream alive, and that the
/// stream's end opens by taking the body out.
#[repr(C)]
struct Stream {
    /// When something was written last, in microseconds of the writers' clock.
    written: AtomicU64,
    /// What a turn works with, until the end takes it out. The lock is contended for no more than the moment after a turn; it
    /// is there because the compiler does not know the wake protocol. In one piece with the rest, since each piece is one
    /// more cache line to wait for: in a box of its own it was 0.4 us of 9 for a delivery.
    body: Mutex<Option<Body>>,
    deadline: Option<Duration>,
    /// The supervisor has shut the socket down.
    timed_out: AtomicBool,
    heartbeat: Option<Duration>,
    /// When it is to be woken because its lifetime is over; `u64::MAX` for never, or when it has been.
    expires: AtomicU64,
}

#[repr(C)]
struct Body {
    /// It has not had a turn yet.
    is_new: bool,
    chunked: bool,
    /// Boxed, since it is rare, and the others are to stand close together.
    rest: Option<Box<Rest>>,
    /// What is written before the body's first bytes.
    head: Box<[u8]>,
    writer: Writer,
    subscription: Subscription,
    on_end: Option<Box<dyn FnOnce(EndCause) + Send>>,
}

/// A write whose last part the socket did not take, how much of it is written, and what comes behind it.
struct Rest {
    bytes: Vec<u8>,
    written: usize,
    after: After,
}

impl Body {
    fn may_block(&self) -> bool {
        matches!(self.writer, Writer::Blocks(..))
    }
}

impl Stream {
    /// The stream that the queue's subscription was handed over as.
    fn of(queue: &Queue) -> &Self {
        queue.stream().downcast_ref().expect("BUG: handed over to others")
    }
}

impl RunQueue for Writers {
    fn put(&self, queue: Arc<Queue>) {
        self.put_job(Job::Turn(queue));
    }
}

/// What stands on the run queue.
enum Job {
    Turn(Arc<Queue>),
    /// A turn of a stream whose writer may block, or for which the application is to be called.
    Alone(Arc<Queue>),
    /// A stream is over: the application is told, and what is its own dropped.
    End(Box<turns::UnderWay>),
    /// The thread that takes this ends.
    Leave,
}

/// What the supervisor is told.
#[derive(Default)]
struct Orders {
    /// Streams with a heartbeat or a lifetime that were handed over.
    watch: Vec<Weak<Queue>>,
    /// Something began while nobody looked, a thread has left, or all may be over.
    look: bool,
}

/// What a writer thread is doing, for the supervisor.
#[derive(Default)]
struct Slot {
    /// 0 while it waits for something to do; else when its job, or the write in it, began, in microseconds, times two, plus one
    /// for a write.
    since: AtomicU64,
    /// Where the thread may hang, if it is a socket, which can be shut down.
    hangs: Mutex<Option<Hangs>>,
}

/// A stream that is being written to its socket.
#[derive(Clone)]
struct Hangs {
    queue: Arc<Queue>,
    socket: Arc<TcpStream>,
    /// When the write began: with the stream, so that nobody takes one stream's age for another's.
    since: u64,
}

impl Hangs {
    /// Frees the blocked write within microseconds.
    fn shut_down(&self, as_timed_out: bool) {
        Stream::of(&self.queue).timed_out.fetch_or(as_timed_out, SeqCst);
        // It fails when the peer was quicker.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Slot {
    /// How long the thread has been at what it is doing, and whether that is a write.
    fn busy(&self, now: u64) -> Option<(Duration, bool)> {
        let since = self.since.load(SeqCst);
        (since != 0).then(|| (Duration::from_micros(now.saturating_sub(since >> 1)), since & 1 == 1))
    }
}

/// The threads there are.
#[derive(Default)]
struct Threads {
    slots: Vec<Arc<Slot>>,
    /// How many of them have been told to leave.
    leaving: usize,
    supervised: bool,
}

/// Streams whose first turn is under way or to come. A first write may hang for as long as the client likes, where
/// it has to wait for an earlier answer on the same connection; so they never get all threads.
#[derive(Default)]
struct Beginners {
    under_way: usize,
    waiting: VecDeque<Arc<Queue>>,
}

/// The writer threads of one publisher: none before the first stream is handed over, none after the last handle
/// of the publisher is dropped and the last stream has ended.
pub(crate) struct Writers {
    run_queue: Sender<Job>,
    jobs: Receiver<Job>,
    orders: Mutex<Orders>,
    /// There are orders. No channel: who waits there yields the processor a few times before it sleeps, which was half of what
    /// the supervisor cost where it is woken for each event.
    ordered: Condvar,
    threads: Mutex<Threads>,
    beginners: Mutex<Beginners>,
    /// Streams that are handed over and have not ended. Raised under the lock of `threads`.
    streams: AtomicUsize,
    /// Jobs begun, turns of several streams among them, to see whether the run queue makes progress.
    turns: AtomicU64,
    /// The supervisor sleeps, or is about to.
    asleep: AtomicBool,
    /// There is a writer thread for each processor, so that only those which hang call for another. Changed under the lock of
    /// `threads`.
    has_threads: AtomicBool,
    /// No handle of the publisher is left.
    closed: AtomicBool,
    processors: usize,
    max_threads: usize,
    stack: usize,
    notices: Arc<Notices>,
    /// Time is counted in microseconds from here, so that it fits into an atomic.
    start: Instant,
}

impl Writers {
    pub(crate) fn new(max_threads: usize, stack: usize, notices: Arc<Notices>) -> Arc<Self> {
        let (run_queue, jobs) = unbounded();
        Arc::new(Self {
            run_queue,
            jobs,
            orders: Mutex::default(),
            ordered: Condvar::new(),
            threads: Mutex::default(),
            beginners: Mutex::default(),
            streams: AtomicUsize::new(0),
            turns: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            has_threads: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            processors: thread::available_parallelism().map_or(1, usize::from).min(max_threads),
            max_threads,
            stack,
            notices,
            start: Instant::now(),
        })
    }

    /// The threads end as soon as the last stream has.
    pub(crate) fn close(&self) {
        self.closed.store(true, SeqCst);
        self.wake_supervisor();
    }

    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// Never 0.
    fn at(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.start).as_micros() as u64 + 1
    }

    fn put_job(&self, job: Job) {
        self.run_queue.send(job).expect("BUG: the writers hold the run queue's other end");
    }

    /// Has the supervisor look how the threads are doing.
    fn wake_supervisor(&self) {
        self.orders.lock().look = true;
        self.ordered.notify_one();
    }

    /// Has the supervisor wake the stream when its heartbeat or its end is due.
    fn watch(&self, queue: Weak<Queue>) {
        self.orders.lock().watch.push(queue);
        self.ordered.notify_one();
    }

    /// Starts what is missing: a supervisor, and one writer thread at least.
    fn start_threads(self: &Arc<Self>, threads: &mut Threads) -> io::Result<()> {
        // In this order: a thread without a supervisor would never end.
        if !threads.supervised {
            let writers = Arc::clone(self);
            let supervisor = thread::Builder::new().name("sse supervisor".into()).stack_size(128 * 1024);
            supervisor.spawn(move || supervisor::Supervisor::new(writers).run())?;
            threads.supervised = true;
        }
        // Those that are leaving take nothing any more.
        if threads.slots.len() <= threads.leaving {
            self.start_thread(threads)?;
        }
        Ok(())
    }

    fn start_thread(self: &Arc<Self>, threads: &mut Threads) -> io::Result<()> {
        let slot = Arc::new(Slot::default());
        let (writers, own_slot) = (Arc::clone(self), Arc::clone(&slot));
        let thread = thread::Builder::new().name("sse writer".into()).stack_size(self.stack);
        thread.spawn(move || writers.run(&own_slot))?;
        threads.slots.push(slot);
        self.has_threads.store(threads.slots.len() >= self.processors, Relaxed);
        Ok(())
    }
}

impl Runner for Writers {
    fn take_over(self: Arc<Self>, subscription: Subscription, to: Output) -> io::Result<()> {
        {
            let mut threads = self.threads.lock();
            if let Err(error) = self.start_threads(&mut threads) {
                drop(threads);
                self.notices.no_thread(&error);
                return Err(error);
            }
            self.streams.fetch_add(1, SeqCst);
        }
        let Output { writer, deadline, head, chunked, on_end } = to;
        let parks_at = if let Writer::Parks(writer) = &writer { Some(Arc::clone(writer)) } else { None };
        let (queue, heartbeat) = (Arc::clone(subscription.queue()), subscription.heartbeat());
        // A little later than the subscription looks at itself, whose clock is finer.
        let expires = subscription.expires().map_or(u64::MAX, |expires| self.at(expires) + 1_000);
        let stream = Box::new(Stream {
            body: Mutex::new(Some(Body {
                is_new: true,
                chunked,
                rest: None,
                head: head.into(),
                subscription,
                writer,
                on_end,
            })),
            deadline,
            timed_out: AtomicBool::new(false),
            heartbeat,
            expires: AtomicU64::new(expires),
            written: AtomicU64::new(self.now()),
        });
        queue.hand_over(Arc::clone(&self) as Arc<dyn RunQueue>, stream, parks_at.as_ref());
        if heartbeat.is_some() || expires != u64::MAX {
            self.watch(Arc::downgrade(&queue));
        }
        race_window();
        self.put(queue);
        Ok(())
    }
}
