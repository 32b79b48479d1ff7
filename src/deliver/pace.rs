//! The pace of a stream with a minimum interval: which payloads are taken together, and when the next ones may be.

use std::time::{Duration, Instant};

/// The time of an interval that is beyond the range of the clock.
const LONG: Duration = Duration::from_secs(365 * 86_400);

/// At most one batch per interval. A batch is what is queued at its beginning.
pub(super) struct Pace {
    interval: Duration,
    /// The time from which the next batch may begin.
    opens: Instant,
    /// The number of payloads of the current batch that are not taken yet.
    left: usize,
    /// `true` if no payload of the current batch is taken yet.
    is_new: bool,
}

impl Pace {
    /// Creates a pace whose first batch may begin now.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, opens: now, left: 0, is_new: false }
    }

    /// Returns whether the next payload may be taken. `queued` returns the number of queued payloads.
    pub(super) fn admits(&mut self, now: impl FnOnce() -> Instant, queued: impl FnOnce() -> usize) -> bool {
        if self.left > 0 {
            return true;
        }
        if now() < self.opens {
            return false;
        }
        // One that is pushed after an empty queue was counted begins the batch.
        (self.left, self.is_new) = (queued().max(1), true);
        true
    }

    /// Counts a payload as taken.
    pub(super) fn take(&mut self, now: impl FnOnce() -> Instant) {
        self.left = self.left.saturating_sub(1);
        if std::mem::take(&mut self.is_new) {
            let now = now();
            self.opens = now.checked_add(self.interval).unwrap_or(now + LONG);
        }
    }

    /// Ends the current batch, because the queue is empty.
    pub(super) fn end_batch(&mut self) {
        self.left = 0;
    }

    /// Returns the time from which the next batch may begin.
    pub(super) fn opens(&self) -> Instant {
        self.opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pace of 10 s, and a clock in seconds.
    struct Fixture {
        pace: Pace,
        start: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let start = Instant::now();
            Self { pace: Pace::new(Duration::from_secs(10), start), start }
        }

        /// Takes what may be taken of this many payloads, and returns how many are left.
        fn takes(&mut self, at: u64, mut queued: usize) -> usize {
            let now = self.start + Duration::from_secs(at);
            while queued > 0 && self.pace.admits(|| now, || queued) {
                self.pace.take(|| now);
                queued -= 1;
            }
            if queued == 0 {
                self.pace.end_batch();
            }
            queued
        }
    }

    #[test]
    fn all_that_is_queued_is_taken_together_and_then_nothing_for_the_interval() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.takes(0, 3), 0, "the first batch need not wait");
        assert_eq!(fixture.takes(0, 1), 1);
        assert_eq!(fixture.takes(9, 2), 2);
        assert_eq!(fixture.takes(10, 2), 0);
        assert_eq!(fixture.takes(19, 1), 1);
        assert_eq!(fixture.takes(35, 1), 0, "after silence nothing need wait");
        assert_eq!(fixture.takes(44, 1), 1);
    }

    #[test]
    fn a_payload_that_comes_during_a_batch_waits_for_the_next_one() {
        let mut fixture = Fixture::new();
        let now = fixture.start;
        for _ in 0..2 {
            assert!(fixture.pace.admits(|| now, || 2));
            fixture.pace.take(|| now);
        }
        assert!(!fixture.pace.admits(|| now, || 1));
    }

    #[test]
    fn an_empty_queue_uses_up_no_interval() {
        let mut fixture = Fixture::new();
        let now = fixture.start;
        assert!(fixture.pace.admits(|| now, || 0), "it is looked at");
        fixture.pace.end_batch();
        assert_eq!(fixture.takes(1, 1), 0);
    }

    #[test]
    fn an_interval_beyond_the_clock_is_a_long_one() {
        let now = Instant::now();
        let mut pace = Pace::new(Duration::MAX, now);
        assert!(pace.admits(|| now, || 1));
        pace.take(|| now);
        assert!(pace.opens() > now);
    }
}
