//! Deadlines of connections, at most one each.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::connection::Phase;

/// The deadlines of all connections, by their phases.
#[derive(Debug, Default)]
pub(super) struct Timers {
    idle: Deadlines,
    head: Deadlines,
    body: Deadlines,
    responding: Deadlines,
    lingering: Deadlines,
}

impl Timers {
    /// Returns the deadlines of a phase; `None` for the phase that has none.
    fn of(&mut self, phase: Phase) -> Option<&mut Deadlines> {
        match phase {
            Phase::Idle => Some(&mut self.idle),
            Phase::Head => Some(&mut self.head),
            Phase::Body => Some(&mut self.body),
            Phase::Responding => Some(&mut self.responding),
            Phase::Lingering => Some(&mut self.lingering),
            Phase::Busy => None,
        }
    }

    pub(super) fn set(&mut self, phase: Phase, token: usize, deadline: Instant) {
        if let Some(deadlines) = self.of(phase) {
            deadlines.set(token, deadline);
        }
    }

    pub(super) fn clear(&mut self, phase: Phase, token: usize) {
        if let Some(deadlines) = self.of(phase) {
            deadlines.clear(token);
        }
    }

    /// Returns the next deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        let all = [&self.idle, &self.head, &self.body, &self.responding, &self.lingering];
        all.into_iter().filter_map(Deadlines::next).min()
    }

    /// Removes a deadline that has passed, and returns its connection.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<usize> {
        let all = [&mut self.idle, &mut self.head, &mut self.body, &mut self.responding, &mut self.lingering];
        all.into_iter().find_map(|deadlines| deadlines.pop_due(now))
    }

    /// Returns the connection that is closed first to make room for others: one that has its response, else one
    /// without a request. If there is neither, returns the one whose request or response has made no progress for the
    /// longest time.
    pub(super) fn to_evict(&self, since: impl Fn(usize) -> Option<Instant>) -> Option<usize> {
        let slow = [&self.head, &self.body, &self.responding].into_iter().filter_map(Deadlines::first);
        let slowest = || slow.min_by_key(|token| since(*token));
        self.lingering.first().or_else(|| self.idle.first()).or_else(slowest)
    }

    /// Returns the slowest connection that sends a body, except this one: the one whose deadline is next.
    pub(super) fn slowest_body(&self, except: usize) -> Option<usize> {
        self.body.ordered.iter().map(|(_, token)| *token).find(|token| *token != except)
    }
}

/// Connections, ordered by their deadlines.
#[derive(Debug, Default)]
struct Deadlines {
    ordered: BTreeSet<(Instant, usize)>,
    by_token: HashMap<usize, Instant>,
}

impl Deadlines {
    /// Sets the deadline of a connection. Replaces an earlier one.
    fn set(&mut self, token: usize, deadline: Instant) {
        match self.by_token.insert(token, deadline) {
            Some(old) if old == deadline => return,
            Some(old) => drop(self.ordered.remove(&(old, token))),
            None => {}
        }
        self.ordered.insert((deadline, token));
    }

    /// Removes the deadline of a connection, if it has one.
    fn clear(&mut self, token: usize) {
        if let Some(old) = self.by_token.remove(&token) {
            self.ordered.remove(&(old, token));
        }
    }

    /// Returns the next deadline.
    fn next(&self) -> Option<Instant> {
        self.ordered.first().map(|(deadline, _)| *deadline)
    }

    /// Returns the connection with the next deadline.
    fn first(&self) -> Option<usize> {
        self.ordered.first().map(|(_, token)| *token)
    }

    /// Removes the next deadline if it has passed, and returns its connection.
    fn pop_due(&mut self, now: Instant) -> Option<usize> {
        self.next().filter(|deadline| *deadline <= now)?;
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
        assert_eq!((deadlines.pop_due(at(4)), deadlines.pop_due(at(9)), deadlines.next()), (Some(1), None, None));
    }

    #[test]
    fn room_is_made_by_a_connection_that_needs_its_place_least() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let since = |token| Some(at(if token == 3 { 0 } else { 1 }));
        assert_eq!(timers.to_evict(since), None);
        let phases = [Phase::Head, Phase::Body, Phase::Responding, Phase::Idle, Phase::Lingering, Phase::Busy];
        for (token, phase) in (1..).zip(phases) {
            timers.set(phase, token, at(10 - token as u64));
        }
        for (phase, token) in [(Phase::Lingering, 5), (Phase::Idle, 4), (Phase::Responding, 3)] {
            assert_eq!(timers.to_evict(since), Some(token));
            timers.clear(phase, token);
        }
        assert_eq!((timers.slowest_body(7), timers.slowest_body(2)), (Some(2), None));
        assert_eq!((timers.next(), timers.pop_due(at(8)), timers.pop_due(at(8))), (Some(at(8)), Some(2), None));
    }

    #[test]
    fn a_timeout_of_any_length_has_a_deadline() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::from_secs(1)), now + Duration::from_secs(1));
        assert!(after(now, Duration::MAX) > now + Duration::from_secs(1_000_000));
    }
}
