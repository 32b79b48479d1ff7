//! The memory that the bodies of all requests may take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The limit of received bytes of all bodies, and their current number.
#[derive(Debug)]
pub(super) struct BodyBudget {
    max: usize,
    /// It guards no other data.
    used: AtomicUsize,
    /// Those of them whose bodies are whole, so that only the handler can release them.
    whole: AtomicUsize,
}

impl BodyBudget {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicUsize::new(0), whole: AtomicUsize::new(0) })
    }

    /// Returns a reservation of no bytes, to grow.
    pub(super) fn reserve_none(self: &Arc<Self>) -> BodyBytes {
        BodyBytes { budget: Arc::clone(self), bytes: 0, is_whole: false }
    }
}

/// The memory that is reserved for one body, released on drop.
#[derive(Debug)]
pub(super) struct BodyBytes {
    budget: Arc<BodyBudget>,
    bytes: usize,
    is_whole: bool,
}

impl BodyBytes {
    /// Reserves this many bytes in total. Returns `false` if the budget does not allow that; nothing changes then.
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let reserve = |used: usize| used.checked_add(more).filter(|used| *used <= self.budget.max);
        let reserved = self.budget.used.fetch_update(Relaxed, Relaxed, reserve).is_ok();
        if reserved {
            self.bytes += more;
        }
        reserved
    }

    /// Releases what exceeds this many bytes.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.budget.used.fetch_sub(less, Relaxed);
        self.bytes -= less;
    }

    /// Returns whether the budget would allow this many bytes if no other body were being read.
    pub(super) fn may_grow_to(&self, bytes: usize) -> bool {
        self.budget.whole.load(Relaxed).checked_add(bytes).is_some_and(|all| all <= self.budget.max)
    }

    /// Marks the body as whole. It grows no further.
    pub(super) fn set_whole(&mut self) {
        self.is_whole = true;
        self.budget.whole.fetch_add(self.bytes, Relaxed);
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        if self.is_whole {
            self.budget.whole.fetch_sub(self.bytes, Relaxed);
        }
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bodies_together_stay_within_the_budget() {
        let budget = BodyBudget::new(10);
        let (mut first, mut second) = (budget.reserve_none(), budget.reserve_none());
        assert!(first.grow_to(6) && first.grow_to(3));
        assert!(!second.grow_to(5) && second.grow_to(4));
        assert!(!first.grow_to(7) && first.grow_to(6));
        second.shrink_to(5);
        assert!(!first.grow_to(7));
        second.shrink_to(3);
        assert!(first.grow_to(7) && !first.grow_to(8));
        drop(second);
        assert!(first.grow_to(10) && !first.grow_to(usize::MAX));
        first.set_whole();
        let third = budget.reserve_none();
        assert!(third.may_grow_to(0) && !third.may_grow_to(1) && !third.may_grow_to(usize::MAX));
        drop(first);
        assert!(third.may_grow_to(10) && !third.may_grow_to(11));
        assert_eq!((budget.used.load(Relaxed), budget.whole.load(Relaxed)), (0, 0));
    }
}
