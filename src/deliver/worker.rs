//! The loop of a writer thread: it runs jobs from the run queue, and passes of several streams together.

use std::sync::Arc;
use std::task::Waker;
use std::vec;

use super::FrameSource;
use super::batch::{Batch, Sink};
use super::pass::{BeginOutcome, Pass};
use super::pool::{Job, WorkerStatus, WriterPool};
use super::stream::{Stream, wake_group};
use crate::queue::race_window;
use crate::sync::atomic::Ordering::{Relaxed, SeqCst};

impl WriterPool {
    /// The maximum number of streams whose passes run together. Between system calls a stream needs little work. Most
    /// of its time goes into loading code and data that the kernel has evicted from the processor's caches. A group
    /// loads them once.
    pub(super) const GROUP: usize = 16;

    /// Runs jobs from the run queue until the thread must leave.
    ///
    /// A pass that may block or call the application runs alone, and wakes the supervisor, which then watches it. Any
    /// other pass wakes the supervisor only while there are fewer threads than processors.
    pub(super) fn run(&self, status: &Arc<WorkerStatus>) {
        let (mut group, mut batch) = (Vec::with_capacity(Self::GROUP), Batch::default());
        let mut next = None;
        while let Ok(job) = next.take().map_or_else(|| self.jobs.recv(), Ok) {
            self.jobs_begun.fetch_add(1, Relaxed);
            let may_take_long = !matches!(job, Job::Pass(_) | Job::Wake(_));
            status.since.store(self.now() << 1, SeqCst);
            if (may_take_long || !self.has_threads.load(Relaxed))
                && self.asleep.load(SeqCst)
                && self.asleep.swap(false, SeqCst)
            {
                self.wake_supervisor();
            }
            match job {
                Job::Pass(stream) => next = self.collect_group(stream, &mut group, &mut batch),
                Job::Wake(streams) => self.pass_woken(streams, &mut group, &mut batch, status),
                Job::PassAlone(stream) => match self.begin(stream, true, &mut batch) {
                    BeginOutcome::Pass(pass) => group.push(pass),
                    BeginOutcome::WaitsForSlot => {}
                    BeginOutcome::NeedsToBeAlone(_) => unreachable!("BUG: it is alone"),
                },
                Job::End(stream) => self.end(&stream),
                Job::Drop(stream) => drop(stream),
                Job::Call(call) => self.run_call(call),
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

    /// Begins the passes of a few streams that cannot block. Returns the other job that it took from the run queue, if
    /// any.
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

    /// Wakes the first group of these streams, and begins the passes of those that cannot block.
    fn pass_woken(
        &self,
        mut streams: vec::IntoIter<Waker>,
        group: &mut Vec<Pass>,
        batch: &mut Batch,
        status: &WorkerStatus,
    ) {
        let woken = wake_group(streams.by_ref().take(Self::GROUP));
        if streams.len() > 0 {
            self.put(Job::Wake(streams));
        }
        for stream in woken {
            match self.begin(stream, false, batch) {
                BeginOutcome::Pass(pass) => group.push(pass),
                BeginOutcome::WaitsForSlot => {}
                BeginOutcome::NeedsToBeAlone(stream) => self.put(Job::PassAlone(stream)),
            }
            if batch.len() >= FrameSource::BATCH {
                self.write_group(group, batch, status);
            }
        }
    }

    /// Writes the collected passes, and finishes them.
    fn write_group(&self, group: &mut Vec<Pass>, batch: &mut Batch, status: &WorkerStatus) {
        if group.is_empty() {
            return;
        }
        for pass in &mut *group {
            self.write_pass(pass, batch, status);
        }
        // Taken after the writes: a write that took longer than the heartbeat's interval was not silence.
        let written = self.clock.now();
        for pass in group.drain(..) {
            self.finish_pass(pass, written);
        }
        batch.clear();
    }
}
