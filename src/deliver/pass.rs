//! One pass of a stream: begin, write, finish; and the stream's end.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::Drained;
use super::batch::{Batch, BatchedWrite};
use super::pool::{BlockedWrite, Job, WorkerStatus, WriterPool};
use super::stream::{PartialWrite, Stream, StreamState, Writer};
use crate::queue::{NonBlockingWrite, call_caught, drop_caught, race_window};
use crate::stats::EndCause;
use crate::sync::atomic::Ordering::{Relaxed, SeqCst};

/// A stream's pass under way.
pub(super) struct Pass {
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
pub(super) enum BeginOutcome {
    Pass(Pass),
    /// The first pass of another stream must be over before its own.
    WaitsForSlot,
    /// It must be alone.
    NeedsToBeAlone(Arc<Stream>),
}

impl WriterPool {
    /// Begins a stream's pass: appends what is to be written to the batch. Only one that is `alone` may have a writer
    /// that blocks, or call the application.
    pub(super) fn begin(&self, stream: Arc<Stream>, alone: bool, batch: &mut Batch) -> BeginOutcome {
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

        let (drained, write) = if state.partial.is_some() {
            (continue_partial(&stream, state), BatchedWrite::default())
        } else {
            batch.begin(&state.head, state.chunked);
            let drained = state.source.fill(batch, alone);
            let write = batch.seal(drained == Drained::Ended);
            if drained == Drained::NeedsCall {
                batch.undo(&write);
                drop(place);
                return BeginOutcome::NeedsToBeAlone(stream);
            }
            state.head = Box::default();
            (drained, write)
        };
        let failed = state.failed.is_some();
        drop(place);
        let outcome = WriteOutcome::Nothing;
        BeginOutcome::Pass(Pass { stream, write, drained, holds_start_slot, failed, outcome })
    }

    /// Writes what is to be written, as far as the writer takes it.
    pub(super) fn write_pass(&self, pass: &mut Pass, batch: &Batch, status: &WorkerStatus) {
        let mut place = pass.stream.state.lock();
        let state = place.as_mut().expect("BUG: a stream ended in its pass");
        if pass.failed || (state.partial.is_none() && pass.write.is_empty()) {
            return;
        }
        let written = match &state.writer {
            Writer::Parks(_) => self.write_some(pass, state, batch),
            Writer::Blocks(..) => self.write_all(pass, state, batch, status),
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

    /// Writes as much as the socket takes without blocking, of the partial write or of the pass's.
    fn write_some(&self, pass: &Pass, state: &mut StreamState, batch: &Batch) -> io::Result<()> {
        let StreamState { writer: Writer::Parks(writer), partial, source, .. } = state else {
            unreachable!("BUG: this writer blocks");
        };
        if let Some(PartialWrite { pending, .. }) = partial.as_deref_mut() {
            if pending.write_some(|bytes| write_some(&**writer, bytes))? {
                *partial = None;
            }
            return Ok(());
        }
        let pending = batch.write_some(&pass.write, |bytes| write_some(&**writer, bytes))?;
        *partial = pending.map(|pending| {
            let frames = pending.large_frames().into_iter().chain(source.large_frames()).collect();
            let _slow = self.slow.add(&pass.stream.subscriber, frames);
            Box::new(PartialWrite { pending, drained: pass.drained, _slow })
        });
        Ok(())
    }

    /// Writes all of the pass's write, under the supervisor's eyes.
    fn write_all(&self, pass: &Pass, state: &mut StreamState, batch: &Batch, status: &WorkerStatus) -> io::Result<()> {
        let StreamState { writer: Writer::Blocks(writer, socket), source, .. } = state else {
            unreachable!("BUG: this writer does not block");
        };
        let since = self.now();
        status.since.store(since << 1 | 1, Relaxed);
        if let Some(socket) = socket {
            let (stream, socket) = (Arc::clone(&pass.stream), Arc::clone(socket));
            *status.blocked.lock() = Some(BlockedWrite { stream, socket, since });
        }
        let large = batch.large_frames(&pass.write);
        // A write with large frames may be blocked for long.
        let slow = (!large.is_empty()).then(|| {
            let frames = large.into_iter().chain(source.large_frames()).collect();
            self.slow.add(&pass.stream.subscriber, frames)
        });
        let written = write_all(batch, &pass.write, &mut **writer);
        drop(slow);
        if socket.is_some() {
            *status.blocked.lock() = None;
        }
        written
    }

    /// Finishes a pass. The application's hook at a stream's end may take long, so that is a job of its own.
    pub(super) fn finish_pass(&self, pass: Pass, now: Instant) {
        if pass.holds_start_slot {
            self.release_start_slot(&pass.stream);
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
        let socket = match &state.writer {
            Writer::Parks(writer) if pass.outcome == WriteOutcome::WouldBlock => Some(Arc::clone(writer)),
            _ => None,
        };
        drop(place);
        if let Some(socket) = socket {
            return park(pass.stream, &*socket);
        }
        if pass.drained == Drained::Full {
            // To the tail: the others come first. It stays running, so nobody else puts it there.
            return self.put(Job::Pass(pass.stream));
        }
        if pass.drained == Drained::Paused && !self.pause(&pass.stream) {
            return self.put(Job::Pass(pass.stream));
        }
        let subscriber = Arc::clone(&stream.subscriber);
        if let Err(notified) = subscriber.finish(Waker::from(pass.stream)) {
            notified.wake();
        }
    }

    /// Pauses a stream until its interval is over. Returns `false` if the stream has ended, and needs another pass.
    fn pause(&self, stream: &Arc<Stream>) -> bool {
        let place = stream.state.lock();
        let Some(opens) = place.as_ref().expect("BUG: a stream ended in its pass").source.pause() else { return false };
        drop(place);
        // Rounded up, so that one wake-up of the supervisor serves several streams.
        let due = self.at(opens).next_multiple_of(1_000);
        let mut inbox = self.inbox.lock();
        inbox.paused.push((due, Arc::downgrade(stream)));
        if due < inbox.waits_until {
            self.inbox_changed.notify_one();
        }
        true
    }

    /// Ends a stream: leaves the registry, drops the writer, calls the hook once. Nothing that the application does
    /// there costs the pool its thread.
    pub(super) fn end(&self, stream: &Arc<Stream>) {
        let state = stream.state.lock().take().expect("BUG: a stream ended twice");
        let StreamState { mut source, writer, on_end, failed, .. } = state;
        let timed_out = stream.timed_out.load(SeqCst);
        let took_all = failed.is_none();
        if let Some(error) = failed {
            source.leave(if timed_out { EndCause::WriteTimedOut } else { EndCause::ConnectionLost(error.kind()) });
        } else if timed_out {
            // It has waited too long for a start slot. Any other stream has left before.
            source.leave(EndCause::WriteTimedOut);
        }
        let cause = stream.subscriber.end_cause().expect("BUG: a stream ended without a cause");
        // In this order: once the source is dropped a shutdown may return, and the program end, and a writer may have
        // something to write in its `Drop`.
        match writer {
            Writer::Blocks(writer, socket) => drop_caught((writer, socket)),
            Writer::Parks(writer) => writer.finished(took_all),
        }
        drop_caught(source);
        // Another holder of the record must drop nothing of the application's with it.
        let (payloads, _) = stream.subscriber.abort(cause, None);
        drop(payloads);
        stream.subscriber.stop_listening();
        if let Some(on_end) = on_end {
            call_caught(|| on_end(cause));
        }
        self.count_done();
    }
}

/// Parks the stream until its socket is ready. If it is ready already, puts the stream on the run queue.
fn park(stream: Arc<Stream>, socket: &dyn NonBlockingWrite) {
    let subscriber = Arc::clone(&stream.subscriber);
    if let Err(ready) = socket.readiness().park(Waker::from(stream)) {
        ready.wake();
    } else if subscriber.is_aborted() {
        // Aborted before the write, it was woken, and forgot it when it wrote.
        socket.readiness().set_ready();
    }
}

/// Returns how a pass goes on that continues a partial write. It does not look at the queue: what was queued while the
/// stream was parked has notified this pass.
fn continue_partial(stream: &Stream, state: &mut StreamState) -> Drained {
    match continues(stream, state) {
        Ok(()) if state.partial.as_ref().is_some_and(|partial| partial.drained == Drained::Ended) => Drained::Ended,
        Ok(()) => Drained::Full,
        Err(error) => {
            state.failed = Some(error);
            Drained::Ended
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
