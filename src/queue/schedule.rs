//! Which thread owns a stream that is written in the background: no wake-up is lost, and no two threads write.

use crate::sync::atomic::{AtomicU8, Ordering::SeqCst};

// The schedule has two bits, NOTIFIED and RUNNING, like the state of a tokio task. A stream has at most one owner at a
// time:
//
//     producer                                  writer thread
//     1  push the payload                       a  take the stream from the run queue
//     2  `notify`: set NOTIFIED                 b  `start`: set RUNNING, clear NOTIFIED
//     3  if neither bit was set:                c  drain the queue, until it is seen empty
//        put the stream on the run queue        d  write
//                                               e  `finish`: clear RUNNING, unless NOTIFIED is set;
//                                                  then put the stream on the run queue
//
//     NOTIFIED  RUNNING   the stream is                                             set by
//        0         0      idle, without an owner                                    e
//        1         0      on the run queue, or about to be put there                2
//        0         1      owned by a writer thread, parked, or not started yet      b, and at first
//        1         1      owned, parked or not started, with a push it may not see  2
//
// One invariant: a payload is pushed before its `notify`, and the queue is drained after `start`. So if the drain
// misses a payload, its `notify` comes after `start`. Then either `finish` fails or `notify` finds the stream idle, and
// both put the stream on the run queue again. The test below walks through every order of these steps. `race_window`
// marks where a test build pauses.

/// The state that decides which thread owns a stream.
pub(crate) struct Schedule(AtomicU8);

impl Schedule {
    /// A push that no pass has seen yet.
    const NOTIFIED: u8 = 0b01;
    /// The stream has an owner: a writer thread, or before its first pass the thread that starts it.
    const RUNNING: u8 = 0b10;

    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(Self::RUNNING))
    }

    /// Marks the stream as notified. Returns `true` if it was idle; the caller must then put it on the run queue.
    #[must_use = "a stream that was idle must be put on the run queue"]
    pub(crate) fn notify(&self) -> bool {
        self.0.fetch_or(Self::NOTIFIED, SeqCst) == 0
    }

    /// Marks the stream as running, before its queue is drained. A later push notifies it again.
    pub(crate) fn start(&self) {
        self.0.swap(Self::RUNNING, SeqCst);
    }

    /// Marks the stream as idle, after its queue was seen empty. Returns `false` if it was notified meanwhile; the
    /// caller then still owns it.
    pub(crate) fn finish(&self) -> bool {
        self.0.compare_exchange(Self::RUNNING, 0, SeqCst, SeqCst).is_ok()
    }
}

/// Pauses in a test build (`--cfg sse_race_windows`), so that another thread can run in between.
#[inline]
pub(crate) fn race_window() {
    #[cfg(sse_race_windows)]
    {
        use std::hash::{BuildHasher, RandomState};
        match RandomState::new().hash_one(0) % 16 {
            0 => std::thread::sleep(std::time::Duration::from_micros(50)),
            1..8 => std::thread::yield_now(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wake protocol alone, with the steps of the table above.
    struct Model {
        schedule: Schedule,
        /// The number of payloads in the queue.
        queued: usize,
        /// How often the stream is on the run queue.
        on_run_queue: usize,
        /// The next step of each writer thread, if it has taken the stream.
        threads: [Option<Step>; 2],
        /// The next step of each producer.
        producers: [Option<Step>; 2],
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Step {
        Queue,
        Notify,
        Start,
        Drain,
        Finish,
    }

    impl Model {
        fn new(idle: bool) -> Self {
            let model = Self {
                schedule: Schedule::new(),
                queued: 0,
                on_run_queue: 1,
                threads: [None; 2],
                producers: [Some(Step::Queue); 2],
            };
            // A new background stream is put on the run queue; an idle one has had that pass.
            if idle {
                assert!(model.schedule.finish());
                return Self { on_run_queue: 0, ..model };
            }
            model
        }

        /// Does the next step of producer 0 or 1, or thread 2 or 3. Returns `false` if it has none.
        fn step(&mut self, actor: usize) -> bool {
            if let Some(producer) = self.producers.get_mut(actor) {
                match producer.take() {
                    Some(Step::Queue) => {
                        self.queued += 1;
                        *producer = Some(Step::Notify);
                    }
                    Some(Step::Notify) => self.on_run_queue += usize::from(self.schedule.notify()),
                    _ => return false,
                }
            } else {
                let thread = &mut self.threads[actor - 2];
                match thread.take() {
                    None if self.on_run_queue > 0 => {
                        self.on_run_queue -= 1;
                        *thread = Some(Step::Start);
                    }
                    Some(Step::Start) => {
                        self.schedule.start();
                        *thread = Some(Step::Drain);
                    }
                    Some(Step::Drain) => {
                        self.queued = 0;
                        *thread = Some(Step::Finish);
                    }
                    Some(Step::Finish) => self.on_run_queue += usize::from(!self.schedule.finish()),
                    _ => return false,
                }
            }
            let owners = self.on_run_queue + self.threads.iter().flatten().count();
            assert!(owners <= 1, "the stream has {owners} owners");
            true
        }
    }

    /// Walks through every order of the steps of two producers and two threads. Returns the number of orders.
    fn every_order(idle: bool) -> usize {
        let mut orders = 0;
        let mut prefixes = vec![Vec::new()];
        while let Some(prefix) = prefixes.pop() {
            let after = |prefix: &[usize]| {
                let mut model = Model::new(idle);
                assert!(prefix.iter().all(|actor| model.step(*actor)));
                model
            };
            let mut over = true;
            for actor in 0..4 {
                if after(&prefix).step(actor) {
                    over = false;
                    prefixes.push([&prefix[..], &[actor]].concat());
                }
            }
            if over {
                let model = after(&prefix);
                assert_eq!(model.queued, 0, "{prefix:?} lost a wake-up");
                assert!(model.schedule.notify(), "{prefix:?} left the stream without an owner");
                orders += 1;
            }
        }
        orders
    }

    #[test]
    fn no_order_of_steps_loses_a_wake_up() {
        assert_eq!(every_order(true), 172);
        assert_eq!(every_order(false), 8148);
    }
}
