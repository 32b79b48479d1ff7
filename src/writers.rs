//! The writer threads: many handed-over subscriptions on few threads.

// A handed-over stream has no thread of its own. Whoever queues something for it puts it on the run queue, unless
// it is there; a writer thread takes it from there, drains its queue into one buffer, writes that with one
// `write_all` and one `flush`, and looks again.
//
// # The wake protocol
//
// One atomic location for each stream, `queue::Turn`, with the bits NOTIFIED and RUNNING, and one owner of the
// stream at a time.
//
//     producer                                  writer thread
//     1  queue the item                         a  take the stream from the run queue
//     2  old = fetch_or(NOTIFIED)               b  swap(RUNNING)
//     3  if old == 0: to the run queue          c  drain the queue, until it is seen empty
//                                               d  write
//                                               e  compare_exchange(RUNNING, 0); if it fails: to the run queue
//
// What can happen, by where the producer's 1 and 2 fall; 3 follows from 2:
//
//     I    1, 2 before a, the stream idle: old is 0, 3 puts it on the run queue; c finds the item.
//     II   1, 2 before a, the stream on the run queue already: old has a bit, and the a to come finds the item.
//     III  1 before c, 2 between b and e: c finds the item, and e fails; the turn to come finds nothing. One
//          look too many, none too few.
//     IV   1 after c, 2 before e: e fails, and the turn to come finds the item.
//     V    1 after c, 2 after e: old is 0, 3 puts it on the run queue.
//     VI   1 before c, 2 after e: c finds the item, 3 puts the stream on the run queue; as III.
//     VII  1 before b, 2 between a and b: swap clears NOTIFIED; c comes after b and finds the item.
//     VIII two producers, both 2 after e: only the first sees 0, so the stream is on the run queue once.
//     IX   the stream is not handed over yet: it begins as RUNNING, so 2 never sees 0, and handing over puts it
//          on the run queue itself, whose first c finds what was queued before.
//
// The tests at the end of this file walk through every order of these steps there is. `race_window` marks where a
// test build lingers.
//
// # The supervisor
//
// Writes block, so a peer that does not read holds a writer thread. The supervisor looks, each 10 ms while anything
// is under way, at how long each thread has been at its turn, and starts one more when threads hang and streams
// wait. So the cost is a thread for each stalled connection, not for each connection. It sleeps while nothing
// is under way. A sleeping supervisor is woken by a flag that each turn looks at: the turn marks its slot and
// then reads the flag, the supervisor sets the flag and then reads the slots, so one of them sees the other.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use crate::http::Batch;
use crate::queue::{Queue, Wake, race_window};
use crate::stats::EndCause;
use crate::subscription::{After, Output, Runner, Subscription};

/// How often the supervisor looks while something is under way, and how long a turn takes that counts as stuck.
const TICK: Duration = Duration::from_millis(10);

/// The stack of a writer thread: closures given to `publish_with` run there.
const STACK: usize = 256 * 1024;

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
    /// publisher.subscribe()?.hand_over(connection)?;
    /// publisher.publish("hello");
    /// publisher.close();
    ///
    /// let mut stream = String::new();
    /// client.read_to_string(&mut stream)?;
    /// assert_eq!(stream, "data: hello\n\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hand_over(self, writer: impl Write + Send + 'static) -> io::Result<()> {
        self.hand_over_with(writer, HandOver::new())
    }

    /// [`hand_over`](Self::hand_over) with another write deadline, or something to call at the end.
    ///
    /// # Errors
    ///
    /// As [`hand_over`](Self::hand_over); and [`InvalidInput`](io::ErrorKind::InvalidInput) for a deadline of zero.
    pub fn hand_over_with(self, writer: impl Write + Send + 'static, options: HandOver) -> io::Result<()> {
        let HandOver { deadline, on_end } = options;
        if deadline == Some(Duration::ZERO) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the write deadline is 0: it must be more, or None",
            ));
        }
        // A socket is recognised, so that nobody loses its deadline by calling another method.
        let mut writer = Some(writer);
        let socket = (&mut writer as &mut dyn Any).downcast_mut::<Option<TcpStream>>().and_then(Option::take);
        let socket = socket.map(Arc::new);
        let writer: Box<dyn Write + Send> = match (&socket, writer) {
            (Some(socket), _) => Box::new(Socket(Arc::clone(socket))),
            (None, writer) => Box::new(writer.expect("BUG: only a socket is taken out")),
        };
        self.runner().take_over(self, Output { writer, socket, deadline, head: Vec::new(), chunked: false, on_end })
    }
}

/// How a subscription is [handed over](Subscription::hand_over_with).
///
/// ```
/// use server_sent_events::{EndCause, HandOver, Publisher};
/// use std::{sync::mpsc, time::Duration};
///
/// let (ended, end) = mpsc::channel();
/// let options = HandOver::new()
///     .write_deadline(Duration::from_secs(5))
///     .on_end(move |cause| ended.send(cause).unwrap());
///
/// let publisher = Publisher::new();
/// publisher.subscribe()?.hand_over_with(std::io::sink(), options)?;
/// publisher.close();
/// assert_eq!(end.recv()?, EndCause::Closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "options do nothing until they are given to `hand_over_with`"]
pub struct HandOver {
    deadline: Option<Duration>,
    on_end: Option<Box<dyn FnOnce(EndCause) + Send>>,
}

impl HandOver {
    /// A write deadline of 30 s, and nothing to call.
    pub fn new() -> Self {
        Self { deadline: Some(Duration::from_secs(30)), on_end: None }
    }

    /// How long one write to a [`TcpStream`] may take; `None` for as long as it likes. Defaults to 30 s.
    ///
    /// Past it the socket is shut down, and the stream ends with [`EndCause::WriteTimedOut`]. One write carries
    /// up to 64 KiB, or one larger frame. Looked at each 10 ms. Other writers are not concerned.
    pub fn write_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// What is called with the cause once the stream has ended. Setting it again replaces it.
    ///
    /// Called exactly once, on a writer thread, without any lock, when the subscriber has left the publisher
    /// and the writer is dropped. It may use the publisher. A panic in it is caught.
    pub fn on_end(mut self, closure: impl FnOnce(EndCause) + Send + 'static) -> Self {
        self.on_end = Some(Box::new(closure));
        self
    }
}

impl Default for HandOver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOver").field("write_deadline", &self.deadline).finish_non_exhaustive()
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
struct Stream {
    writers: Arc<Writers>,
    queue: Weak<Queue>,
    /// What a turn works with. Whoever has the turn holds the lock for all of it, so it is never contended;
    /// it is there because the compiler does not know the wake protocol.
    body: Mutex<Option<Body>>,
    deadline: Option<Duration>,
    /// The supervisor has shut the socket down.
    timed_out: AtomicBool,
    heartbeat: Option<Duration>,
    /// When something was written last, in microseconds of the writers' clock.
    written: AtomicU64,
}

struct Body {
    subscription: Subscription,
    writer: Box<dyn Write + Send>,
    socket: Option<Arc<TcpStream>>,
    head: Vec<u8>,
    chunked: bool,
    on_end: Option<Box<dyn FnOnce(EndCause) + Send>>,
}

impl Wake for Stream {
    fn wake(self: Arc<Self>) {
        let writers = Arc::clone(&self.writers);
        writers.put(Job::Turn(self));
    }
}

/// What stands on the run queue.
enum Job {
    Turn(Arc<Stream>),
    /// The thread that takes this ends.
    Leave,
}

/// What the supervisor is told.
enum Order {
    /// A stream with a heartbeat was handed over.
    Heartbeat(Weak<Stream>),
    /// Look: a turn began while nobody looked, or all may be over.
    Look,
}

/// What a writer thread is doing, for the supervisor.
#[derive(Default)]
struct Slot {
    /// 0 between turns; else when the turn, or its write, began, in microseconds, times two, plus one for a write.
    since: AtomicU64,
    /// Where the thread may hang, if it is a socket, which can be shut down.
    hangs: Mutex<Option<Hangs>>,
}

/// A stream that is being written to its socket.
#[derive(Clone)]
struct Hangs {
    stream: Arc<Stream>,
    socket: Arc<TcpStream>,
}

impl Hangs {
    /// Frees the blocked write within microseconds.
    fn shut_down(&self, as_timed_out: bool) {
        self.stream.timed_out.fetch_or(as_timed_out, SeqCst);
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
    supervised: bool,
}

/// The writer threads of one publisher: none before the first stream is handed over, none after the last handle
/// of the publisher is dropped and the last stream has ended.
pub(crate) struct Writers {
    run_queue: Sender<Job>,
    jobs: Receiver<Job>,
    orders: Sender<Order>,
    ordered: Receiver<Order>,
    threads: Mutex<Threads>,
    /// Streams that are handed over and have not ended. Raised under the lock of `threads`.
    streams: AtomicUsize,
    /// Turns begun, to see whether the run queue makes progress.
    turns: AtomicU64,
    /// The supervisor sleeps, or is about to.
    asleep: AtomicBool,
    /// No handle of the publisher is left.
    closed: AtomicBool,
    processors: usize,
    max_threads: usize,
    /// Time is counted in microseconds from here, so that it fits into an atomic.
    start: Instant,
}

impl Writers {
    pub(crate) fn new(max_threads: usize) -> Arc<Self> {
        let ((run_queue, jobs), (orders, ordered)) = (unbounded(), unbounded());
        Arc::new(Self {
            run_queue,
            jobs,
            orders,
            ordered,
            threads: Mutex::default(),
            streams: AtomicUsize::new(0),
            turns: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            processors: thread::available_parallelism().map_or(1, usize::from).min(max_threads),
            max_threads,
            start: Instant::now(),
        })
    }

    /// The threads end as soon as the last stream has.
    pub(crate) fn close(&self) {
        self.closed.store(true, SeqCst);
        self.order(Order::Look);
    }

    /// Never 0.
    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64 + 1
    }

    fn put(&self, job: Job) {
        self.run_queue.send(job).expect("BUG: the writers hold the run queue's other end");
    }

    fn order(&self, order: Order) {
        self.orders.send(order).expect("BUG: the writers hold the other end");
    }

    /// Starts what is missing: a supervisor, and one writer thread at least.
    fn start_threads(self: &Arc<Self>, threads: &mut Threads) -> io::Result<()> {
        // In this order: a thread without a supervisor would never end.
        if !threads.supervised {
            let writers = Arc::clone(self);
            let supervisor = thread::Builder::new().name("sse supervisor".into()).stack_size(STACK);
            supervisor.spawn(move || Supervisor::new(writers).run())?;
            threads.supervised = true;
        }
        if threads.slots.is_empty() {
            self.start_thread(threads)?;
        }
        Ok(())
    }

    fn start_thread(self: &Arc<Self>, threads: &mut Threads) -> io::Result<()> {
        let slot = Arc::new(Slot::default());
        let (writers, own_slot) = (Arc::clone(self), Arc::clone(&slot));
        let thread = thread::Builder::new().name("sse writer".into()).stack_size(STACK);
        thread.spawn(move || writers.run(&own_slot))?;
        threads.slots.push(slot);
        Ok(())
    }

    /// A writer thread.
    fn run(&self, slot: &Arc<Slot>) {
        let mut batch = Batch::default();
        while let Ok(Job::Turn(stream)) = self.jobs.recv() {
            self.turns.fetch_add(1, Relaxed);
            self.turn(&stream, &mut batch, slot);
            slot.since.store(0, SeqCst);
        }
        self.threads.lock().slots.retain(|other| !Arc::ptr_eq(other, slot));
        self.order(Order::Look);
    }

    /// One turn of one stream.
    fn turn(&self, stream: &Arc<Stream>, batch: &mut Batch, slot: &Slot) {
        slot.since.store(self.now() << 1, SeqCst);
        if self.asleep.load(SeqCst) && self.asleep.swap(false, SeqCst) {
            self.order(Order::Look);
        }
        let mut guard = stream.body.try_lock().expect("BUG: two turns of one stream at once");
        let body = guard.as_mut().expect("BUG: a turn after the end");
        let queue = Arc::clone(body.subscription.queue());
        race_window();
        queue.turn.start();
        race_window();

        batch.begin(&std::mem::take(&mut body.head), body.chunked);
        let after = body.subscription.fill(batch.body());
        let bytes = batch.seal(after == After::End);
        let mut failed = None;
        if !bytes.is_empty() {
            let now = self.now();
            slot.since.store(now << 1 | 1, SeqCst);
            if let Some(socket) = &body.socket {
                *slot.hangs.lock() = Some(Hangs { stream: Arc::clone(stream), socket: Arc::clone(socket) });
            }
            failed = write(&mut *body.writer, bytes).err();
            if body.socket.is_some() {
                *slot.hangs.lock() = None;
            }
            slot.since.store(now << 1, SeqCst);
            stream.written.store(now, Relaxed);
        }
        race_window();

        if failed.is_some() || after == After::End {
            let body = guard.take().expect("BUG: it was there a moment ago");
            drop(guard);
            self.end(stream, body, failed);
            return;
        }
        drop(guard);
        // A stream that has more goes to the tail: the others come first. It stays RUNNING, so nobody else puts
        // it there.
        if after == After::More || !queue.turn.end() {
            self.put(Job::Turn(Arc::clone(stream)));
        }
    }

    /// The end: leave the registry, drop the writer, the hook once. Nothing that the application does there
    /// costs us the thread.
    fn end(&self, stream: &Stream, body: Body, failed: Option<io::Error>) {
        let Body { mut subscription, writer, socket, on_end, .. } = body;
        if let Some(error) = failed {
            let timed_out = stream.timed_out.load(SeqCst);
            subscription.leave(if timed_out { EndCause::WriteTimedOut } else { EndCause::Disconnected(error.kind()) });
        }
        let cause = subscription.queue().ending().expect("BUG: an end without a cause");
        let _ = catch_unwind(AssertUnwindSafe(|| drop(subscription)));
        let _ = catch_unwind(AssertUnwindSafe(|| drop((writer, socket))));
        if let Some(on_end) = on_end {
            let _ = catch_unwind(AssertUnwindSafe(|| on_end(cause)));
        }
        if self.streams.fetch_sub(1, SeqCst) == 1 && self.closed.load(SeqCst) {
            self.order(Order::Look);
        }
    }
}

/// Writes it all, or says why not; a panic of the writer's is an error like others.
fn write(writer: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    let written = catch_unwind(AssertUnwindSafe(|| writer.write_all(bytes).and_then(|()| writer.flush())));
    written.unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
}

impl Runner for Writers {
    fn take_over(self: Arc<Self>, subscription: Subscription, to: Output) -> io::Result<()> {
        {
            let mut threads = self.threads.lock();
            self.start_threads(&mut threads)?;
            self.streams.fetch_add(1, SeqCst);
        }
        let Output { writer, socket, deadline, head, chunked, on_end } = to;
        let (queue, heartbeat) = (Arc::clone(subscription.queue()), subscription.heartbeat());
        let stream = Arc::new(Stream {
            queue: Arc::downgrade(&queue),
            body: Mutex::new(Some(Body { subscription, writer, socket, head, chunked, on_end })),
            deadline,
            timed_out: AtomicBool::new(false),
            heartbeat,
            written: AtomicU64::new(self.now()),
            writers: Arc::clone(&self),
        });
        queue.hand_over(Arc::clone(&stream) as Arc<dyn Wake>);
        if heartbeat.is_some() {
            self.order(Order::Heartbeat(Arc::downgrade(&stream)));
        }
        race_window();
        self.put(Job::Turn(stream));
        Ok(())
    }
}

/// The thread that watches the others, and schedules heartbeats.
struct Supervisor {
    writers: Arc<Writers>,
    /// When each stream is to be looked at, in microseconds, with its number to tell equal times apart. One that
    /// has ended is found out then.
    heartbeats: BTreeMap<(u64, u64), Weak<Stream>>,
    next_number: u64,
    /// What was seen at the last look at the threads.
    looked: u64,
    turns: u64,
    waited: bool,
}

/// What a look at the threads showed.
#[derive(PartialEq)]
enum Seen {
    Nothing,
    SomethingUnderWay,
    TheEnd,
}

impl Supervisor {
    /// No stream is forgotten for longer, so that those which have ended do not pile up behind a long interval.
    const LONGEST_LOOK_AWAY: u64 = 60_000_000;

    fn new(writers: Arc<Writers>) -> Self {
        Self { writers, heartbeats: BTreeMap::new(), next_number: 0, looked: 0, turns: 0, waited: false }
    }

    fn run(mut self) {
        let mut seen = Seen::SomethingUnderWay;
        loop {
            if seen == Seen::Nothing {
                self.writers.asleep.store(true, SeqCst);
                if self.is_anything_under_way(&self.writers.threads.lock()) {
                    self.writers.asleep.store(false, SeqCst);
                    seen = Seen::SomethingUnderWay;
                }
            }
            let next_heartbeat = self.heartbeats.first_key_value().map(|((due, _), _)| *due);
            let next_look = (seen != Seen::Nothing).then(|| self.looked + TICK.as_micros() as u64);
            let order = match next_heartbeat.into_iter().chain(next_look).min() {
                Some(due) => {
                    let wait = Duration::from_micros(due.saturating_sub(self.writers.now()));
                    self.writers.ordered.recv_timeout(wait).ok()
                }
                None => self.writers.ordered.recv().ok(),
            };
            self.writers.asleep.store(false, SeqCst);
            let writers = Arc::clone(&self.writers);
            for order in order.into_iter().chain(writers.ordered.try_iter()) {
                if let Order::Heartbeat(stream) = order {
                    self.schedule(stream);
                }
            }
            self.send_heartbeats();
            if self.looked + TICK.as_micros() as u64 <= self.writers.now() {
                seen = self.look();
            } else {
                seen = Seen::SomethingUnderWay;
            }
            if seen == Seen::TheEnd {
                return;
            }
        }
    }

    /// Notes when the stream is to be looked at next.
    fn schedule(&mut self, stream: Weak<Stream>) {
        let Some(interval) = stream.upgrade().and_then(|stream| stream.next_heartbeat(self.next_number)) else {
            return;
        };
        let due = interval.min(self.writers.now() + Self::LONGEST_LOOK_AWAY);
        self.heartbeats.insert((due, self.next_number), stream);
        self.next_number += 1;
    }

    /// Wakes the streams that were silent for so long. The turn then finds nothing queued, and the heartbeat due.
    fn send_heartbeats(&mut self) {
        let now = self.writers.now();
        while let Some(entry) = self.heartbeats.first_entry().filter(|entry| entry.key().0 <= now) {
            let weak = entry.remove();
            let Some(stream) = weak.upgrade() else { continue };
            if stream.is_silent(now) {
                stream.queue.upgrade().iter().for_each(|queue| queue.notify());
                // It is looked at again when it has been silent for as long once more.
                stream.written.fetch_max(now, Relaxed);
            }
            self.schedule(weak);
        }
    }

    fn is_anything_under_way(&self, threads: &Threads) -> bool {
        let now = self.writers.now();
        !self.writers.jobs.is_empty()
            || threads.slots.len() > self.writers.processors
            || threads.slots.iter().any(|slot| slot.busy(now).is_some())
    }

    /// Looks how the threads are doing, ends writes that take too long, and has one thread more or less.
    fn look(&mut self) -> Seen {
        let writers = Arc::clone(&self.writers);
        let mut threads = writers.threads.lock();
        let now = writers.now();
        self.looked = now;

        let (mut stuck, mut stuck_in_writes, mut longest) = (0, 0, None);
        for slot in &threads.slots {
            let Some((busy, writes)) = slot.busy(now) else { continue };
            if busy < TICK {
                continue;
            }
            stuck += 1;
            stuck_in_writes += usize::from(writes);
            if let Some(hangs) = slot.hangs.lock().as_ref() {
                if hangs.stream.deadline.is_some_and(|deadline| deadline <= busy) {
                    hangs.shut_down(true);
                } else if hangs.stream.queue.upgrade().is_some_and(|queue| queue.is_cut()) {
                    // It has ended; what it hangs in is all that is left of it.
                    hangs.shut_down(false);
                }
                if longest.as_ref().is_none_or(|(longest, _)| *longest < busy) {
                    longest = Some((busy, hangs.clone()));
                }
            }
        }

        let turns = writers.turns.load(Relaxed);
        let waits = !writers.jobs.is_empty();
        // A thread that hangs in a write needs no processor, so another takes its place. One that is long at
        // something else, a closure, may need it; its place is taken only when nothing moves at all.
        let working = threads.slots.len() - if turns == self.turns { stuck } else { stuck_in_writes };
        if waits && self.waited && working < writers.processors {
            if threads.slots.len() < writers.max_threads {
                // If it cannot be started, the next look tries again.
                let _ = writers.start_thread(&mut threads);
            } else if let Some((_, hangs)) = longest {
                hangs.shut_down(true);
            }
        }
        let over = writers.closed.load(SeqCst) && writers.streams.load(SeqCst) == 0;
        if over && threads.slots.is_empty() {
            threads.supervised = false;
            return Seen::TheEnd;
        }
        if !waits {
            // A surplus thread goes; at the end they all are.
            let surplus =
                if over { threads.slots.len() } else { usize::from(threads.slots.len() - stuck > writers.processors) };
            (0..surplus).for_each(|_| writers.put(Job::Leave));
        }
        (self.turns, self.waited) = (turns, waits);
        if over || self.is_anything_under_way(&threads) { Seen::SomethingUnderWay } else { Seen::Nothing }
    }
}

impl Stream {
    /// Whether nothing was written for the whole interval.
    fn is_silent(&self, now: u64) -> bool {
        self.heartbeat.is_some_and(|interval| self.written.load(Relaxed).saturating_add(micros(interval)) <= now)
    }

    /// When to look whether it is silent: after the interval, and up to a quarter of it later, so that streams which
    /// fell silent together are spread; in steps, so that one awakening serves several.
    fn next_heartbeat(&self, number: u64) -> Option<u64> {
        let interval = micros(self.heartbeat?);
        // Multiples of the golden ratio fall evenly.
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) as f64 / u64::MAX as f64;
        let due =
            self.written.load(Relaxed).saturating_add(interval).saturating_add((interval as f64 / 4.0 * spread) as u64);
        let step = (interval / 64).max(1);
        Some(due.checked_next_multiple_of(step).unwrap_or(u64::MAX))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
