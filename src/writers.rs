//! The writer threads: many handed-over subscriptions on few threads.

// A handed-over stream has no thread of its own. Whoever queues something for it puts it on the run queue, unless
// it is there; a writer thread takes it from there, drains its queue into one buffer, writes that with one
// `write_all` and one `flush`, and looks again.
// How no wake-up is lost stands in `queue.rs`, how many threads there are in `writers/supervisor.rs`.

mod supervisor;

use std::any::Any;
use std::collections::VecDeque;
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
use crate::notices::Notices;
use crate::queue::{Parking, Queue, Wake, drop_caught, race_window};
use crate::stats::EndCause;
use crate::subscription::{After, Output, Runner, Subscription};

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
        self.runner().take_over(
            self,
            Output { writer, socket, deadline, parking: None, head: Vec::new(), chunked: false, on_end },
        )
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
    /// Past it the socket is shut down, and the stream ends with [`EndCause::WriteTimedOut`]. From 64 KiB on no
    /// further frame is added to a write. Looked at each 10 ms. Other writers are not concerned.
    pub fn write_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// What is called with the cause once the stream has ended. Setting it again replaces it.
    ///
    /// Called exactly once, on a writer thread, without any lock, when the subscriber has left the publisher
    /// and the writer is dropped; not if handing over was an error. It may use the publisher. A panic in it is caught.
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
    /// When it is to be woken because its lifetime is over; `u64::MAX` for never, or when it has been.
    expires: AtomicU64,
    /// When something was written last, in microseconds of the writers' clock.
    written: AtomicU64,
}

struct Body {
    /// It has not had a turn yet.
    is_new: bool,
    subscription: Subscription,
    writer: Box<dyn Write + Send>,
    socket: Option<Arc<TcpStream>>,
    parking: Option<Arc<Parking>>,
    /// What the socket did not take of the last batch, and what comes behind that.
    rest: Vec<u8>,
    after_rest: After,
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
    Watch(Weak<Stream>),
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
    /// When the write began: with the stream, so that nobody takes one stream's age for another's.
    since: u64,
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
    /// How many of them have been told to leave.
    leaving: usize,
    supervised: bool,
}

/// Streams whose first turn is under way or to come. A first write may hang for as long as the client likes, where
/// it has to wait for an earlier answer on the same connection; so they never get all threads.
#[derive(Default)]
struct Beginners {
    under_way: usize,
    waiting: VecDeque<Arc<Stream>>,
}

/// The writer threads of one publisher: none before the first stream is handed over, none after the last handle
/// of the publisher is dropped and the last stream has ended.
pub(crate) struct Writers {
    run_queue: Sender<Job>,
    jobs: Receiver<Job>,
    orders: Sender<Order>,
    ordered: Receiver<Order>,
    threads: Mutex<Threads>,
    beginners: Mutex<Beginners>,
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
    stack: usize,
    notices: Arc<Notices>,
    /// Time is counted in microseconds from here, so that it fits into an atomic.
    start: Instant,
}

impl Writers {
    pub(crate) fn new(max_threads: usize, stack: usize, notices: Arc<Notices>) -> Arc<Self> {
        let ((run_queue, jobs), (orders, ordered)) = (unbounded(), unbounded());
        Arc::new(Self {
            run_queue,
            jobs,
            orders,
            ordered,
            threads: Mutex::default(),
            beginners: Mutex::default(),
            streams: AtomicUsize::new(0),
            turns: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
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
        self.order(Order::Look);
    }

    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// Never 0.
    fn at(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.start).as_micros() as u64 + 1
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
            let supervisor = thread::Builder::new().name("sse supervisor".into()).stack_size(128 * 1024);
            supervisor.spawn(move || supervisor::Supervisor::new(writers).run())?;
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
        let thread = thread::Builder::new().name("sse writer".into()).stack_size(self.stack);
        thread.spawn(move || writers.run(&own_slot))?;
        threads.slots.push(slot);
        Ok(())
    }

    /// A writer thread.
    fn run(&self, slot: &Arc<Slot>) {
        let mut batch = Batch::default();
        loop {
            let job = self.jobs.try_recv().or_else(|_| {
                // Between two turns there is no pause to speak of, so only who waits is not busy.
                slot.since.store(0, Relaxed);
                self.jobs.recv()
            });
            let Ok(Job::Turn(stream)) = job else { break };
            self.turns.fetch_add(1, Relaxed);
            self.turn(&stream, &mut batch, slot);
        }
        race_window();
        let mut threads = self.threads.lock();
        threads.slots.retain(|other| !Arc::ptr_eq(other, slot));
        threads.leaving -= 1;
        drop(threads);
        self.order(Order::Look);
    }

    /// Whether a stream's first turn may take place now. If not, it waits for another's to be over, still RUNNING.
    fn may_begin(&self, stream: &Arc<Stream>) -> bool {
        let mut beginners = self.beginners.lock();
        if beginners.under_way < (self.max_threads / 4).max(1) {
            beginners.under_way += 1;
            return true;
        }
        beginners.waiting.push_back(Arc::clone(stream));
        false
    }

    /// A first turn is over: the next may take place.
    fn has_begun(&self) {
        let mut beginners = self.beginners.lock();
        beginners.under_way -= 1;
        let next = beginners.waiting.pop_front();
        drop(beginners);
        next.into_iter().for_each(|stream| self.put(Job::Turn(stream)));
    }

    /// One turn of one stream.
    fn turn(&self, stream: &Arc<Stream>, batch: &mut Batch, slot: &Slot) {
        let began = Instant::now();
        slot.since.store(self.at(began) << 1, SeqCst);
        if self.asleep.load(SeqCst) && self.asleep.swap(false, SeqCst) {
            self.order(Order::Look);
        }
        let mut guard = stream.body.try_lock().expect("BUG: two turns of one stream at once");
        let body = guard.as_mut().expect("BUG: a turn after the end");
        // A socket that hangs is shut down when its deadline is over; whatever else hangs can only be waited for.
        let begins = std::mem::take(&mut body.is_new) && body.socket.is_none() && body.parking.is_none();
        if begins && !self.may_begin(stream) {
            body.is_new = true;
            return;
        }
        let queue = Arc::clone(body.subscription.queue());
        race_window();
        queue.turn.start();
        race_window();

        let outcome = if body.rest.is_empty() {
            batch.begin(&std::mem::take(&mut body.head), body.chunked);
            let after = body.subscription.fill(batch.body(), began);
            let outcome = self.deliver(stream, body, batch.seal(after == After::End), after, slot);
            batch.clear();
            outcome
        } else if queue.is_cut() {
            // Half a chunk was written: the rest is not, and nothing else may follow.
            Outcome::End(Some(io::ErrorKind::ConnectionAborted.into()))
        } else {
            // What was queued while it was parked has notified this turn, which does not look at the queue.
            let after = if body.after_rest == After::End { After::End } else { After::More };
            let rest = std::mem::take(&mut body.rest);
            self.deliver(stream, body, &rest, after, slot)
        };
        if begins {
            self.has_begun();
        }
        race_window();

        match outcome {
            Outcome::End(failed) => {
                let body = guard.take().expect("BUG: it was there a moment ago");
                drop(guard);
                self.end(stream, body, failed);
            }
            Outcome::Parks => {
                let parking = Arc::clone(body.parking.as_ref().expect("BUG: only who can park does not block"));
                drop(guard);
                if !parking.parks() {
                    self.put(Job::Turn(Arc::clone(stream)));
                } else if queue.is_cut() {
                    // Cut before the write, it was told so, and forgot it when it tried.
                    parking.has_room();
                }
            }
            Outcome::GoesOn(after) => {
                drop(guard);
                race_window();
                // A stream that has more goes to the tail: the others come first. It stays RUNNING, so nobody else
                // puts it there.
                if after == After::More || !queue.turn.end() {
                    self.put(Job::Turn(Arc::clone(stream)));
                }
            }
        }
    }

    /// Writes what is to be written, as far as the writer takes it.
    fn deliver(&self, stream: &Arc<Stream>, body: &mut Body, bytes: &[u8], after: After, slot: &Slot) -> Outcome {
        if !bytes.is_empty() {
            let now = self.now();
            slot.since.store(now << 1 | 1, Relaxed);
            if let Some(socket) = &body.socket {
                let (stream, socket) = (Arc::clone(stream), Arc::clone(socket));
                *slot.hangs.lock() = Some(Hangs { stream, socket, since: now });
            }
            let written = match &body.parking {
                Some(parking) if parking.has_timed_out() => {
                    stream.timed_out.store(true, SeqCst);
                    Err(io::ErrorKind::TimedOut.into())
                }
                Some(parking) => {
                    parking.tries();
                    write_some(&mut *body.writer, bytes)
                }
                None => write(&mut *body.writer, bytes).map(|()| bytes.len()),
            };
            if body.socket.is_some() {
                *slot.hangs.lock() = None;
            }
            // Silence begins after the write: one that took longer than the heartbeat's interval was none.
            let done = Instant::now();
            slot.since.store(self.at(done) << 1, Relaxed);
            match written {
                Err(error) => return Outcome::End(Some(error)),
                Ok(written) if written < bytes.len() => {
                    body.rest = bytes[written..].to_vec();
                    body.after_rest = after;
                    return Outcome::Parks;
                }
                Ok(_) => {
                    stream.written.store(self.at(done), Relaxed);
                    body.subscription.written(done);
                }
            }
        }
        if after == After::End { Outcome::End(None) } else { Outcome::GoesOn(after) }
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
        // In this order: when the subscription is gone a shutdown may return, and the program end, and a writer may have
        // something to say in its `Drop`.
        drop_caught((writer, socket));
        drop_caught(subscription);
        if let Some(on_end) = on_end {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| on_end(cause))) {
                drop_caught(payload);
            }
        }
        if self.streams.fetch_sub(1, SeqCst) == 1 && self.closed.load(SeqCst) {
            self.order(Order::Look);
        }
    }
}

/// What a turn has come to.
enum Outcome {
    /// It is over, because of the error if there is one.
    End(Option<io::Error>),
    /// The socket takes no more for now.
    Parks,
    GoesOn(After),
}

/// Writes as much as the writer takes without blocking.
fn write_some(writer: &mut dyn Write, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match writer.write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(some) => written += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Writes it all, or says why not; a panic of the writer's is an error like others.
fn write(writer: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    let written = catch_unwind(AssertUnwindSafe(|| writer.write_all(bytes).and_then(|()| writer.flush())));
    written.unwrap_or_else(|payload| {
        drop_caught(payload);
        Err(io::Error::other("the writer panicked"))
    })
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
        let Output { writer, socket, deadline, parking, head, chunked, on_end } = to;
        let (queue, heartbeat) = (Arc::clone(subscription.queue()), subscription.heartbeat());
        // A little later than the subscription looks at itself, whose clock is finer.
        let expires = subscription.expires().map_or(u64::MAX, |expires| self.at(expires) + 1_000);
        let stream = Arc::new(Stream {
            queue: Arc::downgrade(&queue),
            body: Mutex::new(Some(Body {
                is_new: true,
                subscription,
                writer,
                socket,
                parking: parking.clone(),
                rest: Vec::new(),
                after_rest: After::Nothing,
                head,
                chunked,
                on_end,
            })),
            deadline,
            timed_out: AtomicBool::new(false),
            heartbeat,
            expires: AtomicU64::new(expires),
            written: AtomicU64::new(self.now()),
            writers: Arc::clone(&self),
        });
        queue.hand_over(Arc::clone(&stream) as Arc<dyn Wake>, parking.as_ref());
        if heartbeat.is_some() || expires != u64::MAX {
            self.order(Order::Watch(Arc::downgrade(&stream)));
        }
        race_window();
        self.put(Job::Turn(stream));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, Publisher};

    /// Takes so many bytes, then fails for ever, and says whether it was asked again.
    struct Breaks {
        taken: Arc<Mutex<Vec<u8>>>,
        after: usize,
        asked_again: Arc<AtomicBool>,
        broken: bool,
    }

    impl Write for Breaks {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.asked_again.fetch_or(self.broken, SeqCst);
            let mut taken = self.taken.lock();
            let room = self.after - taken.len();
            if room == 0 {
                self.broken = true;
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let some = bytes.len().min(room).min(7);
            taken.extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.asked_again.fetch_or(self.broken, SeqCst);
            Ok(())
        }
    }

    /// What is written of a chunked stream with a head, when the writer breaks after so many bytes.
    fn written(after: usize) -> Vec<u8> {
        let publisher = Publisher::new();
        let subscription = publisher.subscription(()).initial_data(["one", "two"]).open().unwrap();
        let (ended, end) = std::sync::mpsc::channel();
        let (taken, asked_again) = (Arc::default(), Arc::default());
        let writer = Breaks { taken: Arc::clone(&taken), after, asked_again: Arc::clone(&asked_again), broken: false };
        let to = Output {
            writer: Box::new(writer),
            socket: None,
            deadline: None,
            parking: None,
            head: b"HEAD".to_vec(),
            chunked: true,
            on_end: Some(Box::new(move |cause| ended.send(cause).unwrap())),
        };
        subscription.runner().take_over(subscription, to).unwrap();
        publisher.publish(Event::new("three"));
        publisher.close();
        end.recv().unwrap();
        assert!(!asked_again.load(SeqCst), "written to again after an error");
        assert_eq!(publisher.stats().subscribers, 0);
        Arc::try_unwrap(taken).expect("the writer was not dropped before the hook").into_inner()
    }

    #[test]
    fn a_broken_chunk_is_never_followed_by_more() {
        let chunks = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).unwrap().strip_prefix("HEAD").unwrap().to_owned();
            let (mut body, mut rest) = (String::new(), &*text);
            while let Some((size, after)) = rest.split_once("\r\n") {
                let size = usize::from_str_radix(size, 16).unwrap();
                body.push_str(&after[..size]);
                rest = after[size..].strip_prefix("\r\n").unwrap();
            }
            assert_eq!(rest, "");
            body
        };
        let whole = written(usize::MAX);
        assert_eq!(chunks(&whole), "data: one\n\ndata: two\n\ndata: three\n\n");
        for after in 4..40 {
            let part = written(after);
            assert_eq!(part.len(), after);
            // What was queued together may differ, and so the sizes of the chunks, but not the text.
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(|c: char| !c.is_alphabetic(), "");
            assert!(text(&whole).starts_with(text(&part).trim_end_matches(['e', 'd', 'a', 'b'])), "{part:?}");
        }
    }

    #[test]
    fn a_stream_that_is_cut_while_it_is_filled_does_not_park() {
        struct Blocks;
        impl Write for Blocks {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::WouldBlock.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let publisher = Publisher::new();
        let subscription = publisher.subscribe().unwrap();
        let handle = subscription.handle();
        let (ended, end) = std::sync::mpsc::channel();
        let (is_in, inside) = std::sync::mpsc::channel();
        let (goes_on, go_on) = std::sync::mpsc::channel();
        let (is_in, go_on) = (Mutex::new(is_in), Mutex::new(go_on));
        publisher.publish("one");
        publisher.publish_with("default channel", move |()| {
            is_in.lock().send(()).unwrap();
            go_on.lock().recv().unwrap();
            None
        });
        let to = Output {
            writer: Box::new(Blocks),
            socket: None,
            deadline: None,
            parking: Some(Arc::new(Parking::new())),
            head: Vec::new(),
            chunked: true,
            on_end: Some(Box::new(move |cause| ended.send(cause).unwrap())),
        };
        subscription.runner().take_over(subscription, to).unwrap();
        inside.recv().unwrap();
        assert!(handle.disconnect());
        goes_on.send(()).unwrap();
        assert_eq!(end.recv_timeout(Duration::from_secs(3)), Ok(EndCause::Cut));
    }

    /// Takes so many bytes and then no more until it may take all, and counts how often that was asked for in vain.
    #[derive(Clone)]
    struct Narrow {
        taken: Arc<Mutex<Vec<u8>>>,
        room: Arc<AtomicUsize>,
        refused: Arc<AtomicUsize>,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut taken = self.taken.lock();
            let some = bytes.len().min(self.room.load(SeqCst) - taken.len());
            if some == 0 {
                self.refused.fetch_add(1, SeqCst);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            taken.extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_queued_for_a_parked_stream_follows_what_it_could_not_write() {
        let eventually = |condition: &dyn Fn() -> bool| {
            let start = Instant::now();
            while !condition() {
                assert!(start.elapsed() < Duration::from_secs(20));
                thread::yield_now();
            }
        };
        for room in 0..11 {
            let publisher = Publisher::<()>::builder().heartbeat(None).build().unwrap();
            let narrow = Narrow { taken: Arc::default(), room: Arc::new(room.into()), refused: Arc::default() };
            let parking = Arc::new(Parking::new());
            let to = Output {
                writer: Box::new(narrow.clone()),
                socket: None,
                deadline: None,
                parking: Some(Arc::clone(&parking)),
                head: Vec::new(),
                chunked: false,
                on_end: None,
            };
            let subscription = publisher.subscribe().unwrap();
            subscription.runner().take_over(subscription, to).unwrap();
            publisher.publish("one");
            // It has seen its queue empty behind that.
            eventually(&|| narrow.refused.load(SeqCst) > 0);
            publisher.publish("two");
            narrow.room.store(usize::MAX, SeqCst);
            parking.has_room();
            eventually(&|| *narrow.taken.lock() == b"data: one\n\ndata: two\n\n");
        }
    }
}
