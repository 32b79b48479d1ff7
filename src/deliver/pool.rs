//! The writer threads of one publisher, and their run queue.

use std::io;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};
use std::vec;

use super::FrameSource;
use super::slow::SlowStreams;
use super::socket::Socket;
use super::start_slots::StartSlots;
use super::stream::{Output, Stream, StreamState, Writer};
use super::supervisor::Supervisor;
use crate::clock::Clock;
use crate::event::FrameId;
use crate::log::RateLimitedLog;
use crate::queue::{Interrupt, Subscriber, Wake, call_caught, race_window};
use crate::registry::{Deferred, NewEvent, Published, Recipients, Registry};
use crate::stats::EndCause;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use crate::sync::channel::{Receiver, Sender, unbounded};
use crate::sync::{Condvar, Mutex, thread};

/// A job on the run queue.
pub(super) enum Job {
    Pass(Arc<Stream>),
    /// A pass of a stream whose writer may block, or that calls the application.
    PassAlone(Arc<Stream>),
    /// Streams to wake, each followed by its pass. The thread that takes it puts it back without the first
    /// [group](WriterPool::GROUP), so that other threads and other jobs have their turn.
    Wake(vec::IntoIter<Waker>),
    /// The end of a stream: calls the application's hook, and drops what belongs to the application.
    End(Arc<Stream>),
    /// A stream that has ended, of which nothing else is left.
    Drop(Box<Stream>),
    /// Application code of another thread that must not run any.
    Call(Box<dyn FnOnce() + Send>),
    /// Ends the thread that takes this job.
    Leave,
}

/// Messages to the supervisor.
#[derive(Default)]
pub(super) struct SupervisorInbox {
    /// Streams with a heartbeat or a lifetime that have begun.
    pub(super) watch: Vec<Weak<Stream>>,
    /// Streams that are paused, each with the time at which it continues.
    pub(super) paused: Vec<(u64, Weak<Stream>)>,
    /// The time until which the supervisor waits; 0 while it does not.
    pub(super) waits_until: u64,
    /// Set when a job began while the supervisor slept, a thread has left, or the pool may end.
    pub(super) look: bool,
}

/// The status of a writer thread, for the supervisor.
#[derive(Default)]
pub(super) struct WorkerStatus {
    /// 0 while the thread waits for a job. Otherwise the time in microseconds at which its job, or the write in it,
    /// began, times two, plus one for a write.
    pub(super) since: AtomicU64,
    /// The write that the thread may be blocked in, if its writer is a socket, which can be shut down.
    pub(super) blocked: Mutex<Option<BlockedWrite>>,
}

/// A stream that is being written to its socket.
#[derive(Clone)]
pub(super) struct BlockedWrite {
    pub(super) stream: Arc<Stream>,
    pub(super) socket: Arc<Socket>,
    /// When the write began. Kept with the stream, so that one stream's age is never taken for another's.
    pub(super) since: u64,
}

impl BlockedWrite {
    /// Frees the blocked write within microseconds.
    pub(super) fn shut_down(&self, as_timed_out: bool) {
        self.stream.timed_out.fetch_or(as_timed_out, SeqCst);
        self.socket.shut_down();
    }
}

impl WorkerStatus {
    /// Returns how long the thread has been busy with its job or write, and whether it is a write.
    pub(super) fn busy(&self, now: u64) -> Option<(Duration, bool)> {
        let since = self.since.load(SeqCst);
        (since != 0).then(|| (Duration::from_micros(now.saturating_sub(since >> 1)), since & 1 == 1))
    }
}

/// The writer threads of the pool.
#[derive(Default)]
pub(super) struct Threads {
    pub(super) workers: Vec<Arc<WorkerStatus>>,
    /// The number of threads that have been asked to leave.
    pub(super) leaving: usize,
    pub(super) supervised: bool,
}

/// The writer threads of one publisher. The first stream in the background starts them. They end once the last handle
/// of the publisher is dropped and the last stream has ended.
pub(crate) struct WriterPool {
    run_queue: Sender<Job>,
    pub(super) jobs: Receiver<Job>,
    pub(super) inbox: Mutex<SupervisorInbox>,
    /// Notified when the inbox changes. A channel would be slower: its receiver yields the processor a few times before
    /// it sleeps, and the supervisor may be woken for each event.
    pub(super) inbox_changed: Condvar,
    pub(super) threads: Mutex<Threads>,
    pub(super) start_slots: Mutex<StartSlots>,
    pub(super) slow: Arc<SlowStreams>,
    /// The limit of bytes that the slow streams alone keep in memory.
    max_retained_bytes: usize,
    /// The number of streams that have not ended, and of calls that have not returned. Raised under the lock of
    /// `threads`.
    pub(super) under_way: AtomicUsize,
    /// The number of jobs begun. It shows whether the run queue makes progress.
    pub(super) jobs_begun: AtomicU64,
    /// Set while the supervisor sleeps or is about to.
    pub(super) asleep: AtomicBool,
    /// Set while there is a writer thread per processor, so that only blocked threads require another. Changed under
    /// the lock of `threads`.
    pub(super) has_threads: AtomicBool,
    /// Set once no handle of the publisher is left.
    pub(super) closed: AtomicBool,
    pub(super) processors: usize,
    pub(super) max_threads: usize,
    stack_size: usize,
    pub(super) warnings: Arc<RateLimitedLog>,
    /// Times are counted in microseconds from here, so that they fit into an atomic.
    start: Instant,
    pub(super) clock: Clock,
}

impl WriterPool {
    pub(crate) fn new(
        max_threads: usize,
        stack_size: usize,
        max_retained_bytes: usize,
        warnings: Arc<RateLimitedLog>,
        clock: Clock,
    ) -> Arc<Self> {
        let (run_queue, jobs) = unbounded();
        Arc::new(Self {
            run_queue,
            jobs,
            inbox: Mutex::default(),
            inbox_changed: Condvar::new(),
            threads: Mutex::default(),
            start_slots: Mutex::new(StartSlots::new(max_threads)),
            slow: Arc::default(),
            max_retained_bytes,
            under_way: AtomicUsize::new(0),
            jobs_begun: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            has_threads: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            processors: thread::available_parallelism().map_or(1, usize::from).min(max_threads),
            max_threads,
            stack_size,
            warnings,
            start: clock.now(),
            clock,
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
    /// Returns the operating system's error if no writer thread can be started. Nothing is written then, and the source
    /// and the writer are dropped.
    pub(crate) fn write(self: &Arc<Self>, mut source: FrameSource, output: Output) -> io::Result<()> {
        {
            let mut threads = self.threads.lock();
            if let Err(error) = self.start_threads(&mut threads) {
                drop(threads);
                self.warnings.no_thread(&error);
                return Err(error);
            }
            self.under_way.fetch_add(1, SeqCst);
        }
        let Output { writer, write_timeout, head, chunked, can_refuse, on_end } = output;
        source.drop_bell();
        if let Writer::Parks(socket) = &writer {
            source.subscriber().set_socket(Arc::clone(socket) as Arc<dyn Interrupt>);
        }
        let (subscriber, heartbeat) = (Arc::clone(source.subscriber()), source.heartbeat());
        // A little later than the source's own check, whose clock is finer.
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
        subscriber.listen_in_background();
        if heartbeat.is_some() || expires != u64::MAX {
            self.inbox.lock().watch.push(Arc::downgrade(&stream));
            self.inbox_changed.notify_one();
        }
        race_window();
        self.put(Job::Pass(stream));
        Ok(())
    }

    /// Disconnects the streams that have been slow for longest, until the slow streams alone keep at most as many bytes
    /// in memory as the limit allows. Their clients resume. The newest large frame does not count: it was just
    /// published.
    fn disconnect_slowest(&self, registry: &Registry, newest: Option<FrameId>) -> Vec<Deferred> {
        let remove_kept = |frames: &mut Vec<FrameId>| {
            frames.retain(|frame| Some(*frame) != newest);
            registry.remove_kept(frames);
        };
        let slowest = self.slow.to_disconnect(self.max_retained_bytes, remove_kept);
        let end = |subscriber: Arc<Subscriber>| {
            let ended = registry.end_deferred(subscriber.id(), EndCause::QueueFull, true);
            let mut deferred = ended.unwrap_or_default();
            deferred.release(subscriber);
            deferred
        };
        slowest.into_iter().map(end).collect()
    }

    /// Returns whether a stream whose first write may block can begin, now or once others have begun. If not, a writer
    /// that can refuse should refuse.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn can_begin_streams(&self) -> bool {
        !self.start_slots.lock().are_all_blocked(self.now())
    }

    /// Takes a start slot for the stream. Without a free one, returns `false`, and the stream waits in the state
    /// RUNNING.
    pub(super) fn take_start_slot(&self, stream: &Arc<Stream>) -> bool {
        self.start_slots.lock().take(stream, self.now())
    }

    /// Releases the stream's start slot, so that the next stream can begin.
    pub(super) fn release_start_slot(&self, stream: &Arc<Stream>) {
        let granted = self.start_slots.lock().release(stream, self.now());
        self.begin_granted(granted);
    }

    /// Begins or ends streams that have waited for a start slot.
    pub(super) fn run_start_timers(&self) {
        let mut slots = self.start_slots.lock();
        let now = self.now();
        let (left, granted) = (slots.stop_waiting(now), slots.grant(now));
        drop(slots);
        for stream in left {
            // Put on the run queue, because ending a stream calls the application.
            self.put(Job::End(stream));
        }
        self.begin_granted(granted);
    }

    fn begin_granted(&self, granted: Vec<Arc<Stream>>) {
        for stream in granted {
            self.put(Job::PassAlone(stream));
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.at(self.clock.now())
    }

    /// Returns the time in microseconds since the pool's start; never 0.
    pub(super) fn at(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.start).as_micros() as u64 + 1
    }

    /// Publishes an event, and waits for room as its subscribers demand.
    pub(crate) fn publish(&self, registry: &Registry, recipients: Recipients<'_>, event: NewEvent) -> Published {
        let mut next = (event, None);
        loop {
            match registry.publish(recipients, next.0, next.1) {
                Ok((published, mut deferred)) => {
                    self.wake_all(deferred.take_wake());
                    deferred.finish();
                    if published.may_retain {
                        for deferred in self.disconnect_slowest(registry, published.newest_large) {
                            deferred.finish();
                        }
                    }
                    return published;
                }
                Err(waits) => {
                    let (event, ticket) = *waits;
                    ticket.wait();
                    next = (event, Some(ticket));
                }
            }
        }
    }

    /// Publishes an event for a thread that neither waits nor runs application code. No subscriber may have the policy
    /// [`Overflow::Block`](crate::Overflow::Block).
    pub(crate) fn publish_stored(
        self: &Arc<Self>,
        registry: &Registry,
        channels: &[&str],
        event: NewEvent,
    ) -> Published {
        let published = registry.publish(Recipients::Channels(channels), event, None);
        let Ok((published, mut deferred)) = published else { panic!("BUG: a publisher with a store waits for room") };
        self.wake_all(deferred.take_wake());
        self.finish_elsewhere(deferred);
        if published.may_retain {
            for deferred in self.disconnect_slowest(registry, published.newest_large) {
                self.finish_elsewhere(deferred);
            }
        }
        published
    }

    /// Wakes streams here, and runs application code on a writer thread.
    pub(crate) fn finish_elsewhere(self: &Arc<Self>, deferred: Deferred) {
        if let Some(rest) = deferred.wake_only() {
            self.call(move || rest.finish());
        }
    }

    /// Calls application code on a writer thread, which the supervisor watches.
    pub(crate) fn call(self: &Arc<Self>, call: impl FnOnce() + Send + 'static) {
        let mut threads = self.threads.lock();
        // Without a thread, the call waits until a later one starts a thread.
        let _ = self.start_threads(&mut threads);
        self.under_way.fetch_add(1, SeqCst);
        drop(threads);
        self.put(Job::Call(Box::new(call)));
    }

    /// Wakes readers. Many streams are woken by the writer threads, in groups, so that the caller touches none of them.
    fn wake_all(&self, readers: Vec<Wake>) {
        if readers.len() <= Self::GROUP {
            return readers.into_iter().for_each(Wake::wake);
        }
        let streams = readers.into_iter().filter_map(|reader| match reader {
            Wake::Stream(stream) => Some(stream),
            bell => {
                bell.wake();
                None
            }
        });
        let mut streams: Vec<Waker> = streams.collect();
        // The list has room for all subscribers. Where the streams cannot keep up, few are asleep at a time, and many such
        // lists wait in the run queue.
        if streams.len() < streams.capacity() / 2 {
            streams.shrink_to_fit();
        }
        if !streams.is_empty() {
            self.put(Job::Wake(streams.into_iter()));
        }
    }

    /// Runs application code for another thread.
    pub(super) fn run_call(&self, call: Box<dyn FnOnce() + Send>) {
        call_caught(call);
        self.count_done();
    }

    /// Counts that a stream has ended or a call has returned. After the last one, the supervisor may end the pool.
    pub(super) fn count_done(&self) {
        if self.under_way.fetch_sub(1, SeqCst) == 1 && self.closed.load(SeqCst) {
            self.wake_supervisor();
        }
    }

    pub(super) fn put(&self, job: Job) {
        self.run_queue.send(job).expect("BUG: the pool's own receiver has gone");
    }

    /// Lets go of a stream on a thread that runs no application code. If this is the last reference, a writer
    /// thread drops it, since the subscriber's properties go with it.
    pub(super) fn release(&self, stream: Arc<Stream>) {
        if let Some(last) = Arc::into_inner(stream) {
            self.put(Job::Drop(Box::new(last)));
        }
    }

    /// Wakes the supervisor, so that it checks the threads.
    pub(super) fn wake_supervisor(&self) {
        self.inbox.lock().look = true;
        self.inbox_changed.notify_one();
    }

    /// Starts the supervisor and the first writer thread, if they are missing.
    fn start_threads(self: &Arc<Self>, threads: &mut Threads) -> io::Result<()> {
        // The supervisor first: a writer thread without one would never end.
        if !threads.supervised {
            let pool = Arc::clone(self);
            let supervisor = thread::Builder::new().name("sse supervisor".into()).stack_size(128 * 1024);
            supervisor.spawn(move || Supervisor::new(pool).run())?;
            threads.supervised = true;
        }
        // A thread that leaves takes no further job.
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
