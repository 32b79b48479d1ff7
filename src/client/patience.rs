//! How long the reads of one call may wait.

use std::time::Instant;

use parking_lot::Mutex;

use crate::deliver::Wait;

/// The number of reads that one call may make after its deadline, if bytes are there. A server that sends no message but
/// enough comments cannot hold the call any longer.
const LATE_READS: u32 = 4;

/// The deadline of the program's call. The event source sets it, and the connection obeys it.
///
/// It passes by ureq, whose own timeouts are fixed for a request.
pub(super) struct Patience(Mutex<State>);

struct State {
    deadline: Option<Instant>,
    late_reads: u32,
}

impl Patience {
    /// Creates a deadline that never comes, for a request.
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { deadline: None, late_reads: 0 }))
    }

    /// Starts a call.
    pub(super) fn start(&self, wait: Wait) {
        let deadline = match wait {
            Wait::Not => Some(Instant::now()),
            Wait::Until(deadline) => Some(deadline),
            Wait::Forever => None,
        };
        *self.0.lock() = State { deadline, late_reads: LATE_READS };
    }

    /// Returns the deadline for the next read. A read after the deadline takes only bytes that are there.
    ///
    /// Fails if the call has made too many such reads.
    pub(super) fn next_read(&self, now: Instant) -> Result<Option<Instant>, Exhausted> {
        let mut state = self.0.lock();
        if state.deadline.is_some_and(|deadline| deadline <= now) {
            state.late_reads = state.late_reads.checked_sub(1).ok_or(Exhausted)?;
        }
        Ok(state.deadline)
    }
}

/// The call must end, even if bytes are there.
#[derive(Debug, PartialEq)]
pub(super) struct Exhausted;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn reads_after_the_deadline_are_limited_for_each_call() {
        let patience = Patience::new();
        let now = Instant::now();
        assert_eq!(patience.next_read(now), Ok(None));
        let deadline = now + Duration::from_secs(1);
        for _ in 0..2 {
            patience.start(Wait::Until(deadline));
            for _ in 0..1_000 {
                assert_eq!(patience.next_read(now), Ok(Some(deadline)));
            }
            for _ in 0..LATE_READS {
                assert_eq!(patience.next_read(deadline), Ok(Some(deadline)));
            }
            assert_eq!(patience.next_read(deadline), Err(Exhausted));
        }
    }
}
