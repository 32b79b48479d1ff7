//! The work of a writer thread: jobs from the run queue, and passes of several streams at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Instant;

use super::FrameSource;
use super::batch::{Batch, Sink};
use super::pass::{BeginOutcome, Pass};
use super::pool::{Job, WorkerStatus, WriterPool};
use super::stream::Stream;
use crate::queue::race_window;

impl WriterPool {
    /// How many streams have their passes together. Between the system calls there is so little to do for a stream that
    /// most of its time goes into fetching code and data which the kernel has pushed out of the processor's caches; for
    /// several in a row that is done once.
    const GROUP: usize = 16;

    /// A writer thread: takes jobs from the run queue until it is to leave.
    ///
    /// A stream that others wait for must not take long, so what may take long is done alone, and under the
    /// supervisor's eyes: it is woken for that. For all else it need not be, once there is a thread for each processor.
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
                Job::Drop(stream) => drop(stream),
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
}
