//! The supervisor: watches the writer threads, and schedules heartbeats, the ends of lifetimes and of pauses.

// A write or a closure of the application can block a writer thread. While any job runs, the supervisor checks every 10
// ms how long each thread has been busy. If threads are blocked and jobs wait, it starts as many again. So there is a
// thread per blocked write, not per stream, and many clients that stop reading at once hold up the others for a few checks
// only.
//
// While no job runs, the supervisor sleeps. A writer thread that begins a job stores the time in its `WorkerStatus`,
// and then reads `asleep`. The supervisor sets `asleep`, and then reads each `WorkerStatus`. So one of them sees the
// other. A pass that cannot block does not read `asleep`, unless there are fewer threads than processors.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};
use std::task::Wake;
use std::time::Duration;

use super::pool::{BlockedWrite, Job, SupervisorInbox, Threads, WorkerStatus, WriterPool};
use super::stream::Stream;
#[cfg(feature = "test-util")]
use crate::clock::TestClock;
use crate::spread;
use crate::sync::atomic::Ordering::{Relaxed, SeqCst};

/// The interval of the checks while any job runs. A thread that is busy with a job for longer counts as blocked.
const TICK: Duration = Duration::from_millis(10);

/// The time after which a blocked socket may be shut down because the limit of threads is reached.
const LONG_AT_THE_LIMIT: Duration = Duration::from_secs(1);

/// The state of the supervisor's thread.
pub(super) struct Supervisor {
    pool: Arc<WriterPool>,
    /// The streams by the time of their next check, in microseconds. A number makes equal times distinct. A stream that
    /// has ended is removed at its check.
    watched: BTreeMap<(u64, u64), Weak<Stream>>,
    /// The streams whose minimum interval is not over, by the time at which it is.
    paused: BTreeMap<(u64, u64), Weak<Stream>>,
    next_number: u64,
    /// The time of the last check of the threads, and what it found.
    looked: u64,
    jobs_begun: u64,
    waited: bool,
}

/// The threads that have been busy for a `TICK` or longer.
#[derive(Default)]
struct Stuck {
    threads: usize,
    /// The number of them that are in a write.
    in_writes: usize,
    /// The write to a socket that has been blocked for the longest time, and that time.
    longest: Option<(Duration, Arc<WorkerStatus>)>,
}

/// The result of a check of the threads.
#[derive(PartialEq)]
enum Seen {
    Nothing,
    SomethingUnderWay,
    TheEnd,
}

impl Supervisor {
    /// The longest time between two checks of a stream, in microseconds. It bounds how long an ended stream is kept.
    const LONGEST_LOOK_AWAY: u64 = 60_000_000;

    pub(super) fn new(pool: Arc<WriterPool>) -> Self {
        Self {
            pool,
            watched: BTreeMap::new(),
            paused: BTreeMap::new(),
            next_number: 0,
            looked: 0,
            jobs_begun: 0,
            waited: false,
        }
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
            let SupervisorInbox { watch, paused, .. } = self.wait_for_messages(seen != Seen::Nothing);
            pool.asleep.store(false, SeqCst);
            for stream in watch {
                self.schedule(stream);
            }
            for (due, stream) in paused {
                self.paused.insert((due, self.next_number), stream);
                self.next_number += 1;
            }
            self.wake_paused();
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

    /// Waits for a message, or until a stream is due. If something is under way, also until the next look.
    fn wait_for_messages(&self, is_under_way: bool) -> SupervisorInbox {
        let pool = &self.pool;
        let first = |streams: &BTreeMap<(u64, u64), _>| streams.first_key_value().map(|((due, _), _)| *due);
        let next_awakening = first(&self.watched).into_iter().chain(first(&self.paused));
        let next_look = is_under_way.then(|| self.looked + TICK.as_micros() as u64);
        let mut inbox = pool.inbox.lock();
        if !inbox.look && inbox.watch.is_empty() && inbox.paused.is_empty() {
            let until = next_awakening.chain(next_look).min();
            inbox.waits_until = until.unwrap_or(u64::MAX);
            match until {
                Some(due) => {
                    let wait = Duration::from_micros(due.saturating_sub(pool.now()));
                    #[cfg(feature = "test-util")]
                    let wait = if pool.clock.is_virtual() { wait.min(TestClock::LOOK) } else { wait };
                    pool.inbox_changed.wait_for(&mut inbox, wait);
                }
                None => pool.inbox_changed.wait(&mut inbox),
            }
        }
        std::mem::take(&mut *inbox)
    }

    /// Schedules the next check of the stream.
    fn schedule(&mut self, weak: Weak<Stream>) {
        let Some(stream) = weak.upgrade() else { return };
        let due = stream.next_awakening(self.next_number);
        self.pool.release(stream);
        let Some(due) = due else { return };
        // Only a distant time is shortened, so that the last checks of several streams stay spread.
        let now = self.pool.now();
        let is_far = due > now.saturating_add(2 * Self::LONGEST_LOOK_AWAY);
        let due = if is_far { now + Self::LONGEST_LOOK_AWAY } else { due };
        self.watched.insert((due, self.next_number), weak);
        self.next_number += 1;
    }

    /// Wakes the streams whose minimum interval is over.
    fn wake_paused(&mut self) {
        let now = self.pool.now();
        while let Some(entry) = self.paused.first_entry().filter(|entry| entry.key().0 <= now) {
            let Some(stream) = entry.remove().upgrade() else { continue };
            if stream.subscriber.schedule().notify() {
                stream.wake_by_ref();
            }
            self.pool.release(stream);
        }
    }

    /// Wakes the streams that have been silent for their interval, and those whose lifetime is over. Their pass then
    /// finds the heartbeat or the end due.
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
                // The next check comes after another interval of silence.
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

    /// Shuts down the sockets of writes that have timed out or whose streams were aborted. Returns the blocked threads.
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
                // The stream has ended, and only this write is left.
                blocked.shut_down(false);
            }
            if stuck.longest.as_ref().is_none_or(|(longest, _)| *longest < busy) {
                stuck.longest = Some((busy, Arc::clone(status)));
            }
        }
        stuck
    }

    /// Starts more threads, up to the limit. At the limit, frees the thread whose write has been blocked for the longest
    /// time.
    fn add_threads(&self, threads: &mut Threads, missing: usize, stuck: Stuck) -> io::Result<()> {
        let room = self.pool.max_threads.saturating_sub(threads.workers.len());
        for _ in 0..missing.min(room) {
            self.pool.start_thread(threads)?;
        }
        let Some((_, status)) = stuck.longest.filter(|_| missing > 0 && room == 0) else { return Ok(()) };
        // The write may be over since the last check, and the thread in another one.
        let now = self.pool.now();
        let is_long =
            |blocked: &&BlockedWrite| Duration::from_micros(now.saturating_sub(blocked.since)) >= LONG_AT_THE_LIMIT;
        if let Some(blocked) = status.blocked.lock().as_ref().filter(is_long) {
            blocked.shut_down(true);
        }
        Ok(())
    }

    /// Checks the threads: ends writes that take too long, and starts or ends threads.
    fn look(&mut self) -> Seen {
        let pool = Arc::clone(&self.pool);
        pool.run_start_timers();
        let mut threads = pool.threads.lock();
        let now = pool.now();
        self.looked = now;

        let stuck = self.end_long_writes(&threads);
        let jobs_begun = pool.jobs_begun.load(Relaxed);
        let waiting = pool.jobs.len();
        let staying = threads.workers.len() - threads.leaving.min(threads.workers.len());
        let available = staying.saturating_sub(stuck.threads);
        // A thread that is blocked in a write needs no processor, so another thread replaces it. A thread that is busy
        // with a closure may need its processor, and is replaced only if no job began since the last check.
        let working = if jobs_begun == self.jobs_begun { available } else { staying.saturating_sub(stuck.in_writes) };
        let missing =
            if self.waited && working < pool.processors { missing_threads(stuck.in_writes, waiting) } else { 0 };
        // If a thread cannot be started, the next check tries again.
        let failed = self.add_threads(&mut threads, missing, stuck).err();
        let over = pool.closed.load(SeqCst) && pool.under_way.load(SeqCst) == 0;
        if over && threads.workers.is_empty() {
            threads.supervised = false;
            return Seen::TheEnd;
        }
        // Surplus threads leave one after the other. At the end all of them leave.
        let is_surplus = threads.leaving == 0 && available > pool.processors;
        let surplus = if over { staying } else { usize::from(is_surplus) };
        threads.leaving += surplus;
        for _ in 0..surplus {
            pool.put(Job::Leave);
        }
        (self.jobs_begun, self.waited) = (jobs_begun, waiting > 0);
        let under_way = over || self.is_anything_under_way(&threads);
        // The application's logger is called without the lock.
        drop(threads);
        if let Some(error) = failed {
            pool.warnings.no_thread(&error);
        }
        if under_way { Seen::SomethingUnderWay } else { Seen::Nothing }
    }
}

/// Returns how many threads to start if jobs wait for too few threads: as many as are blocked in writes, since the
/// streams of the waiting jobs may block as well. With one at a time, a stream would wait for as many checks as streams
/// before it block.
fn missing_threads(in_writes: usize, waiting_jobs: usize) -> usize {
    in_writes.max(1).min(waiting_jobs)
}

impl Stream {
    /// Returns whether nothing was written for the whole interval.
    fn is_silent(&self, now: u64) -> bool {
        self.heartbeat
            .is_some_and(|interval| self.last_write.load(Relaxed).saturating_add(micros(interval).max(1)) <= now)
    }

    /// Returns the time of the next check, if there is one.
    fn next_awakening(&self, number: u64) -> Option<u64> {
        let expires = Some(self.expires.load(Relaxed)).filter(|expires| *expires != u64::MAX);
        self.next_heartbeat(number).into_iter().chain(expires).min()
    }

    /// Returns the time of the check for silence: after the interval, and up to a quarter of it later, so that streams
    /// that fell silent together are spread. Times are rounded up to steps, so that one wake-up serves several streams.
    fn next_heartbeat(&self, number: u64) -> Option<u64> {
        // An interval of 0 would be due forever.
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

#[cfg(test)]
mod tests {
    use super::missing_threads;

    /// Returns the number of checks until all these clients block a thread, and the number of threads at that time.
    fn checks_until_all_block(clients: usize, processors: usize) -> (usize, usize) {
        let (mut threads, mut checks) = (processors, 0);
        while threads < clients {
            threads += missing_threads(threads, clients - threads);
            checks += 1;
        }
        (checks, threads)
    }

    #[test]
    fn many_clients_that_block_at_once_hold_up_others_for_few_checks_and_each_takes_one_thread() {
        assert_eq!(checks_until_all_block(20, 2), (4, 20));
        assert_eq!(checks_until_all_block(250, 2), (7, 250));
        assert_eq!(checks_until_all_block(1_000, 1), (10, 1_000));
    }

    #[test]
    fn closures_that_take_long_get_one_thread_at_a_time() {
        assert_eq!(missing_threads(0, 100), 1);
    }
}
