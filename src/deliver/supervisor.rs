//! The thread that watches the writer threads, and schedules heartbeats and the ends of lifetimes.

// A writer may block, and so may the application's closures: that holds a writer thread. The supervisor looks, each 10
// ms while anything is under way, at how long each thread has been at it, and starts one more when threads hang and
// streams wait. So the cost is a thread for each stalled connection, not for each connection. It sleeps while nothing
// is under way. A sleeping supervisor is woken by a flag: who begins a job marks its slot and then reads the flag, the
// supervisor sets the flag and then reads the slots, so one of them sees the other. A turn of streams that cannot hang
// need not wake it, except that there is to be a thread for each processor: while one is missing, each job reads the
// flag.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Weak};
use std::task::Wake;
use std::time::Duration;

use super::pool::{BlockedWrite, Job, SupervisorInbox, Threads, WorkerStatus, WriterPool};
use super::stream::Stream;
use crate::spread;

/// How often it looks while something is under way, and how long a turn takes that counts as stuck.
const TICK: Duration = Duration::from_millis(10);

/// How long a socket must have hung to be shut down because there may be no further thread.
const LONG_AT_THE_LIMIT: Duration = Duration::from_secs(1);

/// The thread that watches the others, and schedules heartbeats.
pub(super) struct Supervisor {
    pool: Arc<WriterPool>,
    /// When each stream is to be looked at, in microseconds, with its number to tell equal times apart. One that
    /// has ended is found out then.
    watched: BTreeMap<(u64, u64), Weak<Stream>>,
    next_number: u64,
    /// What was seen at the last look at the threads.
    looked: u64,
    jobs_begun: u64,
    waited: bool,
}

/// The threads that take long.
#[derive(Default)]
struct Stuck {
    threads: usize,
    /// Those of them that are blocked in a write.
    in_writes: usize,
    /// The write to a socket that has been blocked for longest, and for how long.
    longest: Option<(Duration, Arc<WorkerStatus>)>,
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

    pub(super) fn new(pool: Arc<WriterPool>) -> Self {
        Self { pool, watched: BTreeMap::new(), next_number: 0, looked: 0, jobs_begun: 0, waited: false }
    }

    pub(super) fn run(mut self) {
        let pool = Arc::clone(&self.pool);
        let mut seen = Seen::SomethingUnderWay;
        loop {
            if seen == Seen::Nothing {
                pool.asleep.store(true, SeqCst);
                if self.is_anything_under_way(&pool.threads.lock()) {
                    pool.asleep.store(false, SeqCst);
                    seen = Seen::SomethingUnderWay;
                }
            }
            let next_awakening = self.watched.first_key_value().map(|((due, _), _)| *due);
            let next_look = (seen != Seen::Nothing).then(|| self.looked + TICK.as_micros() as u64);
            let mut inbox = pool.inbox.lock();
            if !inbox.look && inbox.watch.is_empty() {
                match next_awakening.into_iter().chain(next_look).min() {
                    Some(due) => {
                        let wait = Duration::from_micros(due.saturating_sub(pool.now()));
                        pool.inbox_changed.wait_for(&mut inbox, wait);
                    }
                    None => pool.inbox_changed.wait(&mut inbox),
                }
            }
            let SupervisorInbox { watch, .. } = std::mem::take(&mut *inbox);
            drop(inbox);
            pool.asleep.store(false, SeqCst);
            for stream in watch {
                self.schedule(stream);
            }
            self.wake_watched();
            if self.looked + TICK.as_micros() as u64 <= pool.now() {
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
    fn schedule(&mut self, weak: Weak<Stream>) {
        let Some(stream) = weak.upgrade() else { return };
        let due = stream.next_awakening(self.next_number);
        self.pool.release(stream);
        let Some(due) = due else { return };
        // Cut off only where much is left, so that the last look is not one for all.
        let now = self.pool.now();
        let is_far = due > now.saturating_add(2 * Self::LONGEST_LOOK_AWAY);
        let due = if is_far { now + Self::LONGEST_LOOK_AWAY } else { due };
        self.watched.insert((due, self.next_number), weak);
        self.next_number += 1;
    }

    /// Wakes the streams that were silent for so long, and those whose lifetime is over. The turn then finds nothing
    /// queued, and the heartbeat or the end due.
    fn wake_watched(&mut self) {
        let now = self.pool.now();
        while let Some(entry) = self.watched.first_entry().filter(|entry| entry.key().0 <= now) {
            let weak = entry.remove();
            let Some(stream) = weak.upgrade() else { continue };
            let expires = stream.expires.load(Relaxed) <= now;
            if expires {
                stream.expires.store(u64::MAX, Relaxed);
            }
            if expires || stream.is_silent(now) {
                if stream.subscriber.schedule().notify() {
                    stream.wake_by_ref();
                }
                // It is looked at again when it has been silent for as long once more.
                stream.last_write.fetch_max(now, Relaxed);
            }
            self.pool.release(stream);
            self.schedule(weak);
        }
    }

    fn is_anything_under_way(&self, threads: &Threads) -> bool {
        let now = self.pool.now();
        !self.pool.jobs.is_empty()
            || threads.workers.len() > self.pool.processors
            || threads.leaving > 0
            || threads.workers.iter().any(|status| status.busy(now).is_some())
    }

    /// Ends writes that take too long, or whose streams have ended. Returns the threads that take long.
    fn end_long_writes(&self, threads: &Threads) -> Stuck {
        let now = self.looked;
        let mut stuck = Stuck::default();
        for status in &threads.workers {
            let Some((_, writes)) = status.busy(now).filter(|(busy, _)| *busy >= TICK) else { continue };
            stuck.threads += 1;
            stuck.in_writes += usize::from(writes);
            let blocked = status.blocked.lock();
            let Some(blocked) = blocked.as_ref() else { continue };
            let busy = Duration::from_micros(now.saturating_sub(blocked.since));
            if blocked.stream.write_timeout.is_some_and(|timeout| timeout <= busy) {
                blocked.shut_down(true);
            } else if blocked.stream.subscriber.is_aborted() {
                // It has ended; this write is all that is left of it.
                blocked.shut_down(false);
            }
            if stuck.longest.as_ref().is_none_or(|(longest, _)| *longest < busy) {
                stuck.longest = Some((busy, Arc::clone(status)));
            }
        }
        stuck
    }

    /// Looks how the threads are doing, ends writes that take too long, and has one thread more or less.
    fn look(&mut self) -> Seen {
        let pool = Arc::clone(&self.pool);
        pool.run_start_timers();
        let mut threads = pool.threads.lock();
        let now = pool.now();
        self.looked = now;

        let Stuck { threads: stuck, in_writes, longest } = self.end_long_writes(&threads);
        let jobs_begun = pool.jobs_begun.load(Relaxed);
        let waits = !pool.jobs.is_empty();
        let staying = threads.workers.len() - threads.leaving.min(threads.workers.len());
        // A thread that is blocked in a write needs no processor, so another takes its place. One that takes long for
        // something else, a closure, may need it. Its place is taken only if nothing moves at all.
        let working = staying.saturating_sub(if jobs_begun == self.jobs_begun { stuck } else { in_writes });
        let mut failed = None;
        if waits && self.waited && working < pool.processors {
            if threads.workers.len() < pool.max_threads {
                // If it cannot be started, the next look tries again.
                failed = pool.start_thread(&mut threads).err();
            } else if let Some((_, status)) = longest {
                // Looked at once more, since the write may be over by now.
                let is_long = |blocked: &&BlockedWrite| {
                    Duration::from_micros(pool.now().saturating_sub(blocked.since)) >= LONG_AT_THE_LIMIT
                };
                if let Some(blocked) = status.blocked.lock().as_ref().filter(is_long) {
                    blocked.shut_down(true);
                }
            }
        }
        let over = pool.closed.load(SeqCst) && pool.streams.load(SeqCst) == 0;
        if over && threads.workers.is_empty() {
            threads.supervised = false;
            return Seen::TheEnd;
        }
        // A surplus thread goes, one after the other; at the end they all do.
        let is_surplus = threads.leaving == 0 && staying.saturating_sub(stuck) > pool.processors;
        let surplus = if over { staying } else { usize::from(is_surplus) };
        threads.leaving += surplus;
        for _ in 0..surplus {
            pool.put(Job::Leave);
        }
        (self.jobs_begun, self.waited) = (jobs_begun, waits);
        let under_way = over || self.is_anything_under_way(&threads);
        // The application's logger is told without the lock.
        drop(threads);
        if let Some(error) = failed {
            pool.warnings.no_thread(&error);
        }
        if under_way { Seen::SomethingUnderWay } else { Seen::Nothing }
    }
}

impl Stream {
    /// Whether nothing was written for the whole interval.
    fn is_silent(&self, now: u64) -> bool {
        self.heartbeat
            .is_some_and(|interval| self.last_write.load(Relaxed).saturating_add(micros(interval).max(1)) <= now)
    }

    /// When to look at it, if ever.
    fn next_awakening(&self, number: u64) -> Option<u64> {
        let expires = Some(self.expires.load(Relaxed)).filter(|expires| *expires != u64::MAX);
        self.next_heartbeat(number).into_iter().chain(expires).min()
    }

    /// When to look whether it is silent: after the interval, and up to a quarter of it later, so that streams which
    /// fell silent together are spread; in steps, so that one awakening serves several.
    fn next_heartbeat(&self, number: u64) -> Option<u64> {
        // An interval that rounds to nothing would be due for ever.
        let interval = micros(self.heartbeat?).max(1);
        let share = spread::even_share(0, number);
        let due = self
            .last_write
            .load(Relaxed)
            .saturating_add(interval)
            .saturating_add((interval as f64 / 4.0 * share) as u64);
        let step = (interval / 64).max(1);
        Some(due.checked_next_multiple_of(step).unwrap_or(u64::MAX))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
