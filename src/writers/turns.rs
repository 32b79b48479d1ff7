//! The turns of streams: what is to be written is put together, written, and looked for again, for several at a time.

use std::io::{self, Write};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Instant;

use super::{Body, Hangs, Job, Rest, Slot, Stream, Writers};
use crate::http::Batch;
use crate::queue::{NonBlocking, Queue, RunQueue, drop_caught, race_window};
use crate::stats::EndCause;
use crate::subscription::{After, Subscription, Writer};

impl Writers {
    /// How many streams have their turn together.
    const GROUP: usize = 16;

    /// A writer thread: takes what stands on the run queue until it is told to leave.
    ///
    /// Whoever waits for others must not wait long, so what may take long is done alone, and under the supervisor's eyes: it is
    /// woken for that. For all else it need not be, once there is a thread for each processor.
    pub(super) fn run(&self, slot: &Arc<Slot>) {
        let (mut group, mut batch) = (Vec::with_capacity(Self::GROUP), Batch::default());
        let mut next = None;
        while let Ok(job) = next.take().map_or_else(|| self.jobs.recv(), Ok) {
            self.turns.fetch_add(1, Relaxed);
            let may_take_long = !matches!(job, Job::Turn(_));
            slot.since.store(self.now() << 1, SeqCst);
            if (may_take_long || !self.has_threads.load(Relaxed))
                && self.asleep.load(SeqCst)
                && self.asleep.swap(false, SeqCst)
            {
                self.wake_supervisor();
            }
            match job {
                Job::Turn(queue) => next = self.gather(queue, &mut group, &mut batch),
                Job::Alone(queue) => match self.begin(queue, true, &mut batch) {
                    Begun::Turn(turn) => group.push(turn),
                    Begun::Waits => {}
                    Begun::Alone(_) => unreachable!("BUG: it is alone"),
                },
                Job::End(turn) => self.end(*turn),
                Job::Leave => break,
            }
            self.finish(&mut group, &mut batch, slot);
            slot.since.store(0, Relaxed);
        }
        race_window();
        let mut threads = self.threads.lock();
        threads.slots.retain(|other| !Arc::ptr_eq(other, slot));
        threads.leaving -= 1;
        self.has_threads.store(threads.slots.len() >= self.processors, Relaxed);
        drop(threads);
        self.wake_supervisor();
    }

    /// Begins the turns of a few streams that keep nobody waiting, and returns what else was taken from the run queue.
    ///
    /// Between the system calls there is so little to do for a stream that most of its time goes into fetching code and data
    /// which the kernel has pushed out of the processor's caches; for several in a row that is done once. (1,000 streams, of
    /// 6 us for a delivery: 1.3 us without that, 0.9 with it; 8, 32 or 64 at a time are no better.)
    fn gather(&self, first: Arc<Queue>, group: &mut Vec<UnderWay>, batch: &mut Batch) -> Option<Job> {
        let mut queue = first;
        loop {
            match self.begin(queue, false, batch) {
                Begun::Turn(turn) => group.push(turn),
                Begun::Waits => {}
                Begun::Alone(queue) => return Some(Job::Alone(queue)),
            }
            if group.len() == Self::GROUP || batch.bytes().len() >= Subscription::BATCH {
                return None;
            }
            match self.jobs.try_recv() {
                Ok(Job::Turn(next)) => queue = next,
                other => return other.ok(),
            }
        }
    }

    /// Writes what was put together, and ends the turns.
    fn finish(&self, group: &mut Vec<UnderWay>, batch: &mut Batch, slot: &Slot) {
        if group.is_empty() {
            return;
        }
        for turn in &mut *group {
            self.write(turn, batch, slot);
        }
        // Silence begins after the write: one that took longer than the heartbeat's interval was none.
        let written = Instant::now();
        for turn in group.drain(..) {
            self.put_back(turn, written);
        }
        batch.clear();
    }

    /// Whether a stream's first turn may take place now. If not, it waits for another's to be over, still RUNNING.
    fn may_begin(&self, queue: &Arc<Queue>) -> bool {
        let mut beginners = self.beginners.lock();
        if beginners.under_way < (self.max_threads / 4).max(1) {
            beginners.under_way += 1;
            return true;
        }
        beginners.waiting.push_back(Arc::clone(queue));
        false
    }

    /// A first turn is over: the next may take place.
    fn has_begun(&self) {
        let mut beginners = self.beginners.lock();
        beginners.under_way -= 1;
        let next = beginners.waiting.pop_front();
        drop(beginners);
        next.into_iter().for_each(|queue| self.put_job(Job::Alone(queue)));
    }

    /// Begins a stream's turn: appends what is to be written to the batch. Only one that is `alone` may have a writer that
    /// blocks, or call the application.
    fn begin(&self, queue: Arc<Queue>, alone: bool, batch: &mut Batch) -> Begun {
        let stream = Stream::of(&queue);
        let mut place = stream.body.lock();
        let body = place.as_mut().expect("BUG: two turns of one stream at once, or one after the end");
        if !alone && body.may_block() {
            drop(place);
            return Begun::Alone(queue);
        }
        // A socket that hangs is shut down when its deadline is over; whatever else hangs can only be waited for.
        let begins = body.is_new && matches!(body.writer, Writer::Blocks(_, None));
        if begins && !self.may_begin(&queue) {
            return Begun::Waits;
        }
        body.is_new = false;
        race_window();
        queue.turn.start();
        race_window();

        let (mut bytes, mut failed) = (0..0, None);
        let after = if let Some(rest) = &body.rest {
            if queue.is_cut() {
                // Half a chunk was written: the rest is not, and nothing else may follow.
                failed = Some(io::ErrorKind::ConnectionAborted.into());
                After::End
            } else if matches!(&body.writer, Writer::Parks(writer) if writer.parking().has_timed_out()) {
                stream.timed_out.store(true, SeqCst);
                failed = Some(io::ErrorKind::TimedOut.into());
                After::End
            } else if rest.after == After::End {
                After::End
            } else {
                // What was queued while it was parked has notified this turn, which does not look at the queue.
                After::More
            }
        } else {
            batch.begin(&body.head, body.chunked);
            let after = body.subscription.fill(batch.body(), alone);
            bytes = batch.seal(after == After::End);
            if after == After::Call {
                batch.take_back(bytes);
                drop(place);
                return Begun::Alone(queue);
            }
            body.head = Box::default();
            after
        };
        drop(place);
        Begun::Turn(UnderWay { queue, bytes, after, begins, failed, has: Has::Nothing })
    }

    /// Writes what is to be written, as far as the writer takes it.
    fn write(&self, turn: &mut UnderWay, batch: &Batch, slot: &Slot) {
        let stream = Stream::of(&turn.queue);
        let mut place = stream.body.lock();
        let body = place.as_mut().expect("BUG: a stream ended in its turn");
        let fresh = &batch.bytes()[turn.bytes.clone()];
        let bytes = body.rest.as_ref().map_or(fresh, |rest| &rest.bytes[rest.written..]);
        if bytes.is_empty() || turn.failed.is_some() {
            return;
        }
        let written = match &mut body.writer {
            Writer::Parks(writer) => write_some(&**writer, bytes),
            Writer::Blocks(writer, socket) => {
                let since = self.now();
                slot.since.store(since << 1 | 1, Relaxed);
                if let Some(socket) = socket {
                    let (queue, socket) = (Arc::clone(&turn.queue), Arc::clone(socket));
                    *slot.hangs.lock() = Some(Hangs { queue, socket, since });
                }
                let written = write(&mut **writer, bytes).map(|()| bytes.len());
                if socket.is_some() {
                    *slot.hangs.lock() = None;
                }
                written
            }
        };
        match written {
            Err(error) => turn.failed = Some(error),
            Ok(written) if written == bytes.len() => {
                body.rest = None;
                turn.has = Has::Written;
            }
            Ok(written) => {
                if let Some(rest) = &mut body.rest {
                    rest.written += written;
                } else {
                    let bytes = fresh[written..].to_vec();
                    body.rest = Some(Box::new(Rest { bytes, written: 0, after: turn.after }));
                }
                turn.has = Has::ToWait;
            }
        }
    }

    /// Ends a turn. What the application is told at a stream's end may take long, so that is a job of its own.
    fn put_back(&self, turn: UnderWay, now: Instant) {
        if turn.begins {
            self.has_begun();
        }
        let stream = Stream::of(&turn.queue);
        let mut place = stream.body.lock();
        let body = place.as_mut().expect("BUG: a stream ended in its turn");
        if turn.has == Has::Written {
            stream.written.store(self.at(now), Relaxed);
            body.subscription.written(now);
        }
        race_window();
        if turn.failed.is_some() || turn.after == After::End && turn.has != Has::ToWait {
            drop(place);
            return self.put_job(Job::End(Box::new(turn)));
        }
        let queue = &turn.queue;
        race_window();
        let goes_on = match &body.writer {
            Writer::Parks(writer) if turn.has == Has::ToWait => {
                let parks = writer.parking().parks();
                if parks && queue.is_cut() {
                    // Cut before the write, it was told so, and forgot it when it tried.
                    writer.parking().has_room();
                }
                !parks
            }
            _ => turn.after == After::More || !queue.turn.end(),
        };
        drop(place);
        if goes_on {
            // To the tail: the others come first. It stays RUNNING, so nobody else puts it there.
            self.put(turn.queue);
        }
    }

    /// The end: leave the registry, drop the writer, the hook once. Nothing that the application does there
    /// costs us the thread.
    fn end(&self, turn: UnderWay) {
        let UnderWay { queue, failed, .. } = turn;
        let stream = Stream::of(&queue);
        let body = stream.body.lock().take().expect("BUG: a stream ended twice");
        let Body { mut subscription, writer, on_end, .. } = body;
        let took_all = failed.is_none();
        if let Some(error) = failed {
            let timed_out = stream.timed_out.load(SeqCst);
            subscription.leave(if timed_out {
                EndCause::WriteTimedOut
            } else {
                EndCause::ConnectionLost(error.kind())
            });
        }
        let cause = queue.ending().expect("BUG: an end without a cause");
        // In this order: when the subscription is gone a shutdown may return, and the program end, and a writer may have
        // something to say in its `Drop`.
        match writer {
            Writer::Blocks(writer, socket) => drop_caught((writer, socket)),
            Writer::Parks(writer) => writer.is_over(took_all),
        }
        drop_caught(subscription);
        // Whoever else still holds the queue is to drop nothing of the application's with it.
        queue.throw_away();
        if let Some(on_end) = on_end
            && let Err(payload) = catch_unwind(AssertUnwindSafe(|| on_end(cause)))
        {
            drop_caught(payload);
        }
        if self.streams.fetch_sub(1, SeqCst) == 1 && self.closed.load(SeqCst) {
            self.wake_supervisor();
        }
    }
}

/// A stream's turn under way.
pub(super) struct UnderWay {
    queue: Arc<Queue>,
    /// Where in the batch its bytes are, unless it still has a rest.
    bytes: Range<usize>,
    after: After,
    /// It is the stream's first, and of those that count.
    begins: bool,
    /// Why the stream is over.
    failed: Option<io::Error>,
    has: Has,
}

/// What has become of what was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Has {
    Nothing,
    Written,
    /// The socket takes no more for now.
    ToWait,
}

/// What has become of a stream that was taken from the run queue.
enum Begun {
    Turn(UnderWay),
    /// Another's first turn is to be over before its own.
    Waits,
    /// It must be alone.
    Alone(Arc<Queue>),
}

/// Writes as much as the writer takes without blocking.
fn write_some(writer: &dyn NonBlocking, bytes: &[u8]) -> io::Result<usize> {
    let (mut written, mut tries) = (0, false);
    while written < bytes.len() {
        match writer.write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(some) => written += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Only now, and not for each write: it is a cache line that nobody else needs (0.07 us of 6).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !tries => {
                writer.parking().tries();
                tries = true;
            }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::thread;
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;
    use crate::queue::Parking;
    use crate::subscription::Output;
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
            writer: Writer::Blocks(Box::new(writer), None),
            deadline: None,
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
            // What was queued together may differ, and so where chunks begin and their sizes, but not the text between.
            let text = |bytes: &[u8]| {
                String::from_utf8_lossy(bytes).replace(|c: char| c.is_ascii_hexdigit() || c.is_whitespace(), "")
            };
            assert!(text(&whole).starts_with(&text(&part)), "{part:?}");
        }
    }

    #[test]
    fn a_stream_that_is_cut_while_it_is_filled_does_not_park() {
        let publisher = Publisher::new();
        let subscription = publisher.subscribe().unwrap();
        let handle = subscription.handle();
        let (ended, end) = std::sync::mpsc::channel();
        let (is_in, inside) = std::sync::mpsc::channel();
        let (goes_on, go_on) = std::sync::mpsc::channel();
        let (is_in, go_on) = (Mutex::new(is_in), Mutex::new(go_on));
        publisher.publish_with("default channel", move |()| {
            is_in.lock().send(()).unwrap();
            go_on.lock().recv().unwrap();
            Some(Event::new("one"))
        });
        let to = Output {
            writer: Writer::Parks(Narrow::new(0)),
            deadline: None,
            head: Vec::new(),
            chunked: true,
            on_end: Some(Box::new(move |cause| ended.send(cause).unwrap())),
        };
        subscription.runner().take_over(subscription, to).unwrap();
        inside.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(handle.disconnect());
        goes_on.send(()).unwrap();
        assert_eq!(end.recv_timeout(Duration::from_secs(3)), Ok(EndCause::Disconnected));
    }

    /// Takes so many bytes and then no more until it may take all, and counts how often that was asked for in vain.
    struct Narrow {
        taken: Mutex<Vec<u8>>,
        room: AtomicUsize,
        refused: AtomicUsize,
        parking: Parking,
    }

    impl Narrow {
        fn new(room: usize) -> Arc<Self> {
            let (taken, refused) = (Mutex::default(), AtomicUsize::new(0));
            Arc::new(Self { taken, room: room.into(), refused, parking: Parking::new() })
        }
    }

    impl NonBlocking for Narrow {
        fn write(&self, bytes: &[u8]) -> io::Result<usize> {
            let mut taken = self.taken.lock();
            let some = bytes.len().min(self.room.load(SeqCst) - taken.len());
            if some == 0 {
                self.refused.fetch_add(1, SeqCst);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            taken.extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn parking(&self) -> &Parking {
            &self.parking
        }

        fn is_over(&self, _: bool) {}
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
            let narrow = Narrow::new(room);
            let to = Output {
                writer: Writer::Parks(Arc::clone(&narrow) as Arc<dyn NonBlocking>),
                deadline: None,
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
            narrow.parking.has_room();
            eventually(&|| *narrow.taken.lock() == b"data: one\n\ndata: two\n\n");
        }
    }
}
