//! The writer threads of one publisher, and what they take their work from.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex};

use super::FrameSource;
use super::slow::SlowStreams;
use super::start_slots::{Leaves, StartSlots};
use super::stream::{Output, Stream, StreamState, Writer};
use super::supervisor::Supervisor;
use crate::event::FrameId;
use crate::log::RateLimitedLog;
use crate::queue::race_window;
use crate::registry::Registry;
use crate::stats::EndCause;

/// What is on the run queue.
pub(super) enum Job {
    Pass(Arc<Stream>),
    /// A pass of a stream whose writer may block, or for which the application is called.
    PassAlone(Arc<Stream>),
    /// A stream is over: the application's hook is called, and what is the application's dropped.
    End(Arc<Stream>),
    /// A stream that has ended, of which nothing else is left.
    Drop(Box<Stream>),
    /// The thread that takes this ends.
    Leave,
}

/// What the supervisor is to do.
#[derive(Default)]
pub(super) struct SupervisorInbox {
    /// Streams with a heartbeat or a lifetime that have begun.
    pub(super) watch: Vec<Weak<Stream>>,
    /// Something began while nobody looked, a thread has left, or all may be over.
    pub(super) look: bool,
}

/// What a writer thread is doing, for the supervisor.
#[derive(Default)]
pub(super) struct WorkerStatus {
    /// 0 while it waits for something to do; else when its job, or the write in it, began, in microseconds, times two,
    /// plus one for a write.
    pub(super) since: AtomicU64,
    /// The write that the thread may be blocked in, if it is to a socket, which can be shut down.
    pub(super) blocked: Mutex<Option<BlockedWrite>>,
}

/// A stream that is being written to its socket.
#[derive(Clone)]
pub(super) struct BlockedWrite {
    pub(super) stream: Arc<Stream>,
    pub(super) socket: Arc<TcpStream>,
    /// When the write began: with the stream, so that nobody takes one stream's age for another's.
    pub(super) since: u64,
}

impl BlockedWrite {
    /// Frees the blocked write within microseconds.
    pub(super) fn shut_down(&self, as_timed_out: bool) {
        self.stream.timed_out.fetch_or(as_timed_out, SeqCst);
        // It fails when the client was quicker.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl WorkerStatus {
    /// Returns how long the thread has been at what it is doing, and whether that is a write.
    pub(super) fn busy(&self, now: u64) -> Option<(Duration, bool)> {
        let since = self.since.load(SeqCst);
        (since != 0).then(|| (Duration::from_micros(now.saturating_sub(since >> 1)), since & 1 == 1))
    }
}

/// The threads there are.
#[derive(Default)]
pub(super) struct Threads {
    pub(super) workers: Vec<Arc<WorkerStatus>>,
    /// How many of them are to leave.
    pub(super) leaving: usize,
    pub(super) supervised: bool,
}

/// The writer threads of one publisher: none before the first stream is written in the background, none after the last
/// handle of the publisher is dropped and the last stream has ended.
pub(crate) struct WriterPool {
    run_queue: Sender<Job>,
    pub(super) jobs: Receiver<Job>,
    pub(super) inbox: Mutex<SupervisorInbox>,
    /// There is something in the inbox. No channel: a thread that waits there yields the processor a few times before
    /// it sleeps, which costs much where the supervisor is woken for each event.
    pub(super) inbox_changed: Condvar,
    pub(super) threads: Mutex<Threads>,
    pub(super) start_slots: Mutex<StartSlots>,
    pub(super) slow: Arc<SlowStreams>,
    /// Streams that have begun and have not ended. Raised under the lock of `threads`.
    pub(super) streams: AtomicUsize,
    /// Jobs begun, passes of several streams among them, to see whether the run queue makes progress.
    pub(super) jobs_begun: AtomicU64,
    /// The supervisor sleeps, or is about to.
    pub(super) asleep: AtomicBool,
    /// There is a writer thread for each processor, so that only blocked ones call for another. Changed under the lock
    /// of `threads`.
    pub(super) has_threads: AtomicBool,
    /// No handle of the publisher is left.
    pub(super) closed: AtomicBool,
    pub(super) processors: usize,
    pub(super) max_threads: usize,
    stack_size: usize,
    pub(super) warnings: Arc<RateLimitedLog>,
    /// Time is counted in microseconds from here, so that it fits into an atomic.
    start: Instant,
}

impl WriterPool {
    pub(crate) fn new(max_threads: usize, stack_size: usize, warnings: Arc<RateLimitedLog>) -> Arc<Self> {
        let (run_queue, jobs) = unbounded();
        Arc::new(Self {
            run_queue,
            jobs,
            inbox: Mutex::default(),
            inbox_changed: Condvar::new(),
            threads: Mutex::default(),
            start_slots: Mutex::new(StartSlots::new(max_threads)),
            slow: Arc::default(),
            streams: AtomicUsize::new(0),
            jobs_begun: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            has_threads: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            processors: thread::available_parallelism().map_or(1, usize::from).min(max_threads),
            max_threads,
            stack_size,
            warnings,
            start: Instant::now(),
        })
    }

    /// Ends the threads as soon as the last stream has ended.
    pub(crate) fn close(&self) {
        self.closed.store(true, SeqCst);
        self.wake_supervisor();
    }

    /// Writes the stream in the background until it ends. Does not block.
    ///
    /// # Errors
    ///
    /// If not one writer thread can be started. Nothing was written then; the source and the writer are dropped.
    pub(crate) fn write(self: &Arc<Self>, mut source: FrameSource, output: Output) -> io::Result<()> {
        {
            let mut threads = self.threads.lock();
            if let Err(error) = self.start_threads(&mut threads) {
                drop(threads);
                self.warnings.no_thread(&error);
                return Err(error);
            }
            self.streams.fetch_add(1, SeqCst);
        }
        let Output { writer, write_timeout, head, chunked, can_refuse, on_end } = output;
        let socket = if let Writer::Parks(writer) = &writer { Some(Arc::clone(writer)) } else { None };
        source.drop_bell();
        let (subscriber, heartbeat) = (Arc::clone(source.subscriber()), source.heartbeat());
        // A little later than the source looks at itself, whose clock is finer.
        let expires = source.expires().map_or(u64::MAX, |expires| self.at(expires) + 1_000);
        let (partial, failed) = (None, None);
        let state = StreamState { is_new: true, chunked, partial, head: head.into(), source, writer, on_end, failed };
        let stream = Arc::new(Stream {
            state: Mutex::new(Some(state)),
            subscriber: Arc::clone(&subscriber),
            run_queue: self.run_queue.clone(),
            write_timeout,
            can_refuse,
            timed_out: AtomicBool::new(false),
            heartbeat,
            expires: AtomicU64::new(expires),
            last_write: AtomicU64::new(self.now()),
        });
        subscriber.listen_in_background(socket.as_ref());
        if heartbeat.is_some() || expires != u64::MAX {
            self.inbox.lock().watch.push(Arc::downgrade(&stream));
            self.inbox_changed.notify_one();
        }
        race_window();
        self.put(Job::Pass(stream));
        Ok(())
    }

    /// Disconnects the slowest streams that together are the only ones to hold so many bytes of large frames. They
    /// resume.
    pub(crate) fn disconnect_slowest(&self, registry: &Registry, bytes: usize, newest: Option<FrameId>) {
        for subscriber in self.slow.slowest(bytes, newest) {
            registry.end(subscriber.id(), EndCause::QueueFull, true);
        }
    }

    /// Returns whether a stream whose first write may block can still begin, or waits for no longer than others take to
    /// begin. Otherwise a writer that can refuse should do it.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn can_begin_streams(&self) -> bool {
        !self.start_slots.lock().are_all_blocked(self.now())
    }

    /// Takes a start slot, if one is free. If not, the stream waits for it, still running.
    pub(super) fn take_start_slot(&self, stream: &Arc<Stream>) -> bool {
        self.start_slots.lock().take(stream, self.now())
    }

    /// Gives a start slot back: the next stream may begin.
    pub(super) fn release_start_slot(&self, stream: &Arc<Stream>) {
        let granted = self.start_slots.lock().release(stream, self.now());
        for stream in granted {
            self.put(Job::PassAlone(stream));
        }
    }

    /// Has streams begin, or end, that have waited for a start slot.
    pub(super) fn run_start_timers(&self) {
        let mut slots = self.start_slots.lock();
        let now = self.now();
        let (left, granted) = (slots.stop_waiting(now), slots.grant(now));
        drop(slots);
        for leaves in left {
            // Not here: ending a stream calls the application.
            match leaves {
                Leaves::Aborted(stream) => self.put(Job::End(stream)),
                Leaves::TimedOut(stream) => {
                    stream.timed_out.store(true, SeqCst);
                    self.put(Job::End(stream));
                }
            }
        }
        for stream in granted {
            self.put(Job::PassAlone(stream));
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// Never 0.
    pub(super) fn at(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.start).as_micros() as u64 + 1
    }

    pub(super) fn put(&self, job: Job) {
        self.run_queue.send(job).expect("BUG: the pool's own receiver has gone");
    }

    /// Lets go of a stream on a thread that runs no application code. If this is the last reference, a writer thread drops it,
    /// since the subscriber's properties go with it.
    pub(super) fn release(&self, stream: Arc<Stream>) {
        if let Some(last) = Arc::into_inner(stream) {
            self.put(Job::Drop(Box::new(last)));
        }
    }

    /// Has the supervisor look how the threads are doing.
    pub(super) fn wake_supervisor(&self) {
        self.inbox.lock().look = true;
        self.inbox_changed.notify_one();
    }

    /// Starts what is missing: a supervisor, and one writer thread at least.
    fn start_threads(self: &Arc<Self>, threads: &mut Threads) -> io::Result<()> {
        // In this order: a thread without a supervisor would never end.
        if !threads.supervised {
            let pool = Arc::clone(self);
            let supervisor = thread::Builder::new().name("sse supervisor".into()).stack_size(128 * 1024);
            supervisor.spawn(move || Supervisor::new(pool).run())?;
            threads.supervised = true;
        }
        // Those that are leaving take nothing any longer.
        if threads.workers.len() <= threads.leaving {
            self.start_thread(threads)?;
        }
        Ok(())
    }

    pub(super) fn start_thread(self: &Arc<Self>, threads: &mut Threads) -> io::Result<()> {
        let status = Arc::new(WorkerStatus::default());
        let (pool, own_status) = (Arc::clone(self), Arc::clone(&status));
        let thread = thread::Builder::new().name("sse writer".into()).stack_size(self.stack_size);
        thread.spawn(move || pool.run(&own_status))?;
        threads.workers.push(status);
        self.has_threads.store(threads.workers.len() >= self.processors, Relaxed);
        Ok(())
    }
}
