//! What a writer thread does: passes over streams, several at a time.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::Waker;
use std::time::Instant;

use super::batch::{Batch, BatchedWrite, Sink};
use super::pool::{BlockedWrite, Job, WorkerStatus, WriterPool};
use super::stream::{PartialWrite, Stream, StreamState, Writer};
use super::{Drained, FrameSource};
use crate::queue::{NonBlockingWrite, drop_caught, race_window};
use crate::stats::EndCause;

/// A stream's pass under way.
struct Pass {
    stream: Arc<Stream>,
    /// What of the batch is its write, unless it still has a partial one.
    write: BatchedWrite,
    drained: Drained,
    /// It is the stream's first, and of those that have start slots.
    holds_start_slot: bool,
    /// The stream is over, and nothing more is written.
    failed: bool,
    outcome: WriteOutcome,
}

/// What has become of what was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteOutcome {
    Nothing,
    Written,
    /// The socket takes no more for now.
    WouldBlock,
}

/// What has become of a stream that was taken from the run queue.
enum BeginOutcome {
    Pass(Pass),
    /// The first pass of another stream must be over before its own.
    WaitsForSlot,
    /// It must be alone.
    NeedsToBeAlone(Arc<Stream>),
}

impl WriterPool {
    /// How many streams have their passes together. Between the system calls there is so little to do for a stream that most
    /// of its time goes into fetching code and data which the kernel has pushed out of the processor's caches; for several
    /// in a row that is done once.
    const GROUP: usize = 16;

    /// A writer thread: takes jobs from the run queue until it is to leave.
    ///
    /// A stream that others wait for must not take long, so what may take long is done alone, and under the supervisor's
    /// eyes: it is woken for that. For all else it need not be, once there is a thread for each processor.
    pub(super) fn run(&self, status: &Arc<WorkerStatus>) {
        let (mut group, mut batch) = (Vec::with_capacity(Self::GROUP), Batch::default());
        let mut next = None;
        while let Ok(job) = next.take().map_or_else(|| self.jobs.recv(), Ok) {
            self.jobs_begun.fetch_add(1, Relaxed);
            let may_take_long = !matches!(job, Job::Pass(_));
            status.since.store(self.now() << 1, SeqCst);
            if (may_take_long || !self.has_threads.load(Relaxed))
                && self.asleep.load(SeqCst)
                && self.asleep.swap(false, SeqCst)
            {
                self.wake_supervisor();
            }
            match job {
                Job::Pass(stream) => next = self.collect_group(stream, &mut group, &mut batch),
                Job::PassAlone(stream) => match self.begin(stream, true, &mut batch) {
                    BeginOutcome::Pass(pass) => group.push(pass),
                    BeginOutcome::WaitsForSlot => {}
                    BeginOutcome::NeedsToBeAlone(_) => unreachable!("BUG: it is alone"),
                },
                Job::End(stream) => self.end(&stream),
                Job::Leave => break,
            }
            self.write_group(&mut group, &mut batch, status);
            status.since.store(0, Relaxed);
        }
        race_window();
        let mut threads = self.threads.lock();
        threads.workers.retain(|other| !Arc::ptr_eq(other, status));
        threads.leaving -= 1;
        self.has_threads.store(threads.workers.len() >= self.processors, Relaxed);
        drop(threads);
        self.wake_supervisor();
    }

    /// Begins the passes of a few streams that keep nobody waiting. Returns what else was taken from the run queue.
    fn collect_group(&self, first: Arc<Stream>, group: &mut Vec<Pass>, batch: &mut Batch) -> Option<Job> {
        let mut stream = first;
        loop {
            match self.begin(stream, false, batch) {
                BeginOutcome::Pass(pass) => group.push(pass),
                BeginOutcome::WaitsForSlot => {}
                BeginOutcome::NeedsToBeAlone(stream) => return Some(Job::PassAlone(stream)),
            }
            if group.len() == Self::GROUP || batch.len() >= FrameSource::BATCH {
                return None;
            }
            match self.jobs.try_recv() {
                Ok(Job::Pass(next)) => stream = next,
                other => return other.ok(),
            }
        }
    }

    /// Writes what was collected, and finishes the passes.
    fn write_group(&self, group: &mut Vec<Pass>, batch: &mut Batch, status: &WorkerStatus) {
        if group.is_empty() {
            return;
        }
        for pass in &mut *group {
            self.write_pass(pass, batch, status);
        }
        // Silence begins after the write: one that took longer than the heartbeat's interval was none.
        let written = Instant::now();
        for pass in group.drain(..) {
            self.finish_pass(pass, written);
        }
        batch.clear();
    }

    /// Takes a start slot, if one is free. If not, the stream waits for it, still running.
    fn take_start_slot(&self, stream: &Arc<Stream>) -> bool {
        let mut slots = self.start_slots.lock();
        if slots.under_way < (self.max_threads / 4).max(1) {
            slots.under_way += 1;
            return true;
        }
        slots.waiting.push_back(Arc::clone(stream));
        false
    }

    /// Gives a start slot back: the next stream may begin.
    fn release_start_slot(&self) {
        let mut slots = self.start_slots.lock();
        slots.under_way -= 1;
        let next = slots.waiting.pop_front();
        drop(slots);
        if let Some(stream) = next {
            self.put(Job::PassAlone(stream));
        }
    }

    /// Begins a stream's pass: appends what is to be written to the batch. Only one that is `alone` may have a writer that
    /// blocks, or call the application.
    fn begin(&self, stream: Arc<Stream>, alone: bool, batch: &mut Batch) -> BeginOutcome {
        let mut place = stream.state.lock();
        let state = place.as_mut().expect("BUG: two passes of one stream at once, or one after the end");
        if !alone && state.may_block() {
            drop(place);
            return BeginOutcome::NeedsToBeAlone(stream);
        }
        // A socket that is blocked is shut down when its timeout is over; any other writer can only be waited for.
        let holds_start_slot = state.is_new && matches!(state.writer, Writer::Blocks(_, None));
        if holds_start_slot && !self.take_start_slot(&stream) {
            return BeginOutcome::WaitsForSlot;
        }
        state.is_new = false;
        race_window();
        stream.subscriber.schedule().start();
        race_window();

        let mut write = BatchedWrite::default();
        let drained = match &state.partial {
            Some(partial) => match continues(&stream, state) {
                // What was queued while it was parked has notified this pass, which does not look at the queue.
                Ok(()) if partial.drained != Drained::Ended => Drained::Full,
                Ok(()) => Drained::Ended,
                Err(error) => {
                    state.failed = Some(error);
                    Drained::Ended
                }
            },
            None => {
                batch.begin(&state.head, state.chunked);
                let drained = state.source.fill(batch, alone);
                write = batch.seal(drained == Drained::Ended);
                if drained == Drained::NeedsCall {
                    batch.undo(&write);
                    drop(place);
                    return BeginOutcome::NeedsToBeAlone(stream);
                }
                state.head = Box::default();
                drained
            }
        };
        let failed = state.failed.is_some();
        drop(place);
        let outcome = WriteOutcome::Nothing;
        BeginOutcome::Pass(Pass { stream, write, drained, holds_start_slot, failed, outcome })
    }

    /// Writes what is to be written, as far as the writer takes it.
    fn write_pass(&self, pass: &mut Pass, batch: &Batch, status: &WorkerStatus) {
        let mut place = pass.stream.state.lock();
        let state = place.as_mut().expect("BUG: a stream ended in its pass");
        if pass.failed || (state.partial.is_none() && pass.write.is_empty()) {
            return;
        }
        let written = match &mut state.writer {
            Writer::Parks(writer) => match &mut state.partial {
                Some(partial) => partial.pending.write_some(|bytes| write_some(&**writer, bytes)).map(|all| {
                    if all {
                        state.partial = None;
                    }
                }),
                None => batch.write_some(&pass.write, |bytes| write_some(&**writer, bytes)).map(|pending| {
                    let drained = pass.drained;
                    state.partial = pending.map(|pending| {
                        let frames = pending.large_frames().into_iter().chain(state.source.large_frames()).collect();
                        let _slow = self.slow.add(&pass.stream.subscriber, frames);
                        Box::new(PartialWrite { pending, drained, _slow })
                    });
                }),
            },
            Writer::Blocks(writer, socket) => {
                let since = self.now();
                status.since.store(since << 1 | 1, Relaxed);
                if let Some(socket) = socket {
                    let (stream, socket) = (Arc::clone(&pass.stream), Arc::clone(socket));
                    *status.blocked.lock() = Some(BlockedWrite { stream, socket, since });
                }
                let large = batch.large_frames(&pass.write);
                // It may be blocked for long.
                let slow = (!large.is_empty()).then(|| {
                    let frames = large.into_iter().chain(state.source.large_frames()).collect();
                    self.slow.add(&pass.stream.subscriber, frames)
                });
                let written = write_all(batch, &pass.write, &mut **writer);
                drop(slow);
                if socket.is_some() {
                    *status.blocked.lock() = None;
                }
                written
            }
        };
        match written {
            Err(error) => {
                state.failed = Some(error);
                pass.failed = true;
            }
            Ok(()) if state.partial.is_none() => pass.outcome = WriteOutcome::Written,
            Ok(()) => pass.outcome = WriteOutcome::WouldBlock,
        }
    }

    /// Finishes a pass. The application's hook at a stream's end may take long, so that is a job of its own.
    fn finish_pass(&self, pass: Pass, now: Instant) {
        if pass.holds_start_slot {
            self.release_start_slot();
        }
        let stream = &pass.stream;
        let mut place = stream.state.lock();
        let state = place.as_mut().expect("BUG: a stream ended in its pass");
        if pass.outcome == WriteOutcome::Written {
            stream.last_write.store(self.at(now), Relaxed);
            state.source.written(now);
        }
        race_window();
        if pass.failed || pass.drained == Drained::Ended && pass.outcome != WriteOutcome::WouldBlock {
            drop(place);
            return self.put(Job::End(pass.stream));
        }
        race_window();
        let is_parked = match &state.writer {
            Writer::Parks(writer) if pass.outcome == WriteOutcome::WouldBlock => {
                let parked = writer.readiness().park();
                if parked && stream.subscriber.is_aborted() {
                    // Aborted before the write, it was woken, and forgot it when it wrote.
                    writer.readiness().set_ready();
                }
                parked
            }
            _ => false,
        };
        drop(place);
        if is_parked {
            return;
        }
        if pass.drained == Drained::Full || pass.outcome == WriteOutcome::WouldBlock {
            // To the tail: the others come first. It stays running, so nobody else puts it there.
            return self.put(Job::Pass(pass.stream));
        }
        let subscriber = Arc::clone(&stream.subscriber);
        if let Err(notified) = subscriber.finish(Waker::from(pass.stream)) {
            notified.wake();
        }
    }

    /// Ends a stream: leaves the registry, drops the writer, calls the hook once. Nothing that the application does there
    /// costs the pool its thread.
    fn end(&self, stream: &Arc<Stream>) {
        let state = stream.state.lock().take().expect("BUG: a stream ended twice");
        let StreamState { mut source, writer, on_end, failed, .. } = state;
        let took_all = failed.is_none();
        if let Some(error) = failed {
            let timed_out = stream.timed_out.load(SeqCst);
            source.leave(if timed_out { EndCause::WriteTimedOut } else { EndCause::ConnectionLost(error.kind()) });
        }
        let cause = stream.subscriber.end_cause().expect("BUG: a stream ended without a cause");
        // In this order: once the source is dropped a shutdown may return, and the program end, and a writer may have
        // something to write in its `Drop`.
        match writer {
            Writer::Blocks(writer, socket) => drop_caught((writer, socket)),
            Writer::Parks(writer) => writer.is_over(took_all),
        }
        drop_caught(source);
        // Whoever else still holds the record is to drop nothing of the application's with it.
        let (payloads, _) = stream.subscriber.abort(cause);
        drop(payloads);
        stream.subscriber.stop_listening();
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

/// Returns whether a partial write may be continued.
fn continues(stream: &Stream, state: &StreamState) -> io::Result<()> {
    if stream.subscriber.is_aborted() {
        // Half a chunk was written: the rest is not, and nothing else may follow.
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    if matches!(&state.writer, Writer::Parks(writer) if writer.readiness().has_timed_out()) {
        stream.timed_out.store(true, SeqCst);
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(())
}

/// Writes as much as the writer takes without blocking.
fn write_some(writer: &dyn NonBlockingWrite, bytes: &[u8]) -> io::Result<usize> {
    let (mut written, mut cleared) = (0, false);
    while written < bytes.len() {
        match writer.write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(some) => written += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Only now, and not for each write: it is a cache line that nobody else needs.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !cleared => {
                writer.readiness().clear_ready();
                cleared = true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Writes it all. A panic of the writer's is an error like others.
fn write_all(batch: &Batch, write: &BatchedWrite, writer: &mut dyn Write) -> io::Result<()> {
    let written = AssertUnwindSafe(|| batch.write_all(write, writer).and_then(|()| writer.flush()));
    catch_unwind(written).unwrap_or_else(|payload| {
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
    use crate::deliver::Output;
    use crate::queue::Readiness;
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
            write_timeout: None,
            head: b"HEAD".to_vec(),
            chunked: true,
            on_end: Some(Box::new(move |cause| ended.send(cause).unwrap())),
        };
        subscription.write(to).unwrap();
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
    fn a_stream_that_is_aborted_while_it_is_filled_does_not_park() {
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
            write_timeout: None,
            head: Vec::new(),
            chunked: true,
            on_end: Some(Box::new(move |cause| ended.send(cause).unwrap())),
        };
        subscription.write(to).unwrap();
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
        readiness: Readiness,
    }

    impl Narrow {
        fn new(room: usize) -> Arc<Self> {
            let (taken, refused) = (Mutex::default(), AtomicUsize::new(0));
            Arc::new(Self { taken, room: room.into(), refused, readiness: Readiness::new() })
        }
    }

    impl NonBlockingWrite for Narrow {
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

        fn readiness(&self) -> &Readiness {
            &self.readiness
        }

        fn is_over(&self, _: bool) {}
    }

    #[test]
    fn events_queued_for_a_parked_stream_follow_its_unwritten_rest() {
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
                writer: Writer::Parks(Arc::clone(&narrow) as Arc<dyn NonBlockingWrite>),
                write_timeout: None,
                head: Vec::new(),
                chunked: false,
                on_end: None,
            };
            let subscription = publisher.subscribe().unwrap();
            subscription.write(to).unwrap();
            publisher.publish("one");
            // It has seen its queue empty behind that.
            eventually(&|| narrow.refused.load(SeqCst) > 0);
            publisher.publish("two");
            narrow.room.store(usize::MAX, SeqCst);
            narrow.readiness.set_ready();
            eventually(&|| *narrow.taken.lock() == b"data: one\n\ndata: two\n\n");
        }
    }
}
