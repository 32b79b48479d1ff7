//! Deadlines of connections, at most one each.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Connections, ordered by their deadlines.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    ordered: BTreeSet<(Instant, usize)>,
    by_token: HashMap<usize, Instant>,
}

impl Deadlines {
    /// Sets the deadline of a connection. Replaces an earlier one.
    pub(super) fn set(&mut self, token: usize, deadline: Instant) {
        if let Some(old) = self.by_token.insert(token, deadline) {
            self.ordered.remove(&(old, token));
        }
        self.ordered.insert((deadline, token));
    }

    /// Removes the deadline of a connection, if it has one.
    pub(super) fn clear(&mut self, token: usize) {
        if let Some(old) = self.by_token.remove(&token) {
            self.ordered.remove(&(old, token));
        }
    }

    /// Returns the next deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.ordered.first().map(|(deadline, _)| *deadline)
    }

    /// Removes the next deadline if it has passed, and returns its connection.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<usize> {
        self.next().filter(|deadline| *deadline <= now)?;
        self.pop_first()
    }

    /// Removes the next deadline, passed or not, and returns its connection.
    pub(super) fn pop_first(&mut self) -> Option<usize> {
        let (_, token) = self.ordered.pop_first()?;
        self.by_token.remove(&token);
        Some(token)
    }
}

/// Returns the deadline after this timeout. A timeout beyond the range of the clock gets a deadline in the far future.
pub(super) fn after(now: Instant, timeout: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    now.checked_add(timeout.min(FAR)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_comes_first_and_a_connection_has_one() {
        let (mut deadlines, start) = (Deadlines::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for (token, seconds) in [(1, 3), (2, 1), (3, 2), (1, 4), (4, 1)] {
            deadlines.set(token, at(seconds));
        }
        deadlines.clear(4);
        deadlines.clear(5);
        assert_eq!(deadlines.next(), Some(at(1)));
        assert_eq!(deadlines.pop_due(start), None);
        let due: Vec<usize> = std::iter::from_fn(|| deadlines.pop_due(at(3))).collect();
        assert_eq!(due, [2, 3]);
        assert_eq!((deadlines.pop_first(), deadlines.pop_first(), deadlines.next()), (Some(1), None, None));
    }

    #[test]
    fn a_timeout_of_any_length_has_a_deadline() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::from_secs(1)), now + Duration::from_secs(1));
        assert!(after(now, Duration::MAX) > now + Duration::from_secs(1_000_000));
    }
}
