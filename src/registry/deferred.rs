//! The work that a method of the registry leaves to be done without the ordering lock.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use super::membership::Membership;
use crate::log::RateLimitedLog;
use crate::queue::{Payload, Properties, Subscriber, Wake, call_caught, drop_caught};
use crate::stats::EndCause;
use crate::sync::thread_local;

/// The application's hooks. Called without any lock.
pub(crate) trait Hooks: Send + Sync {
    /// Returns a guard that keeps the hooks' publisher alive. Called under the ordering lock, while the publisher is
    /// alive.
    fn guard(&self) -> Option<Arc<dyn Any + Send + Sync>>;
    fn opened(&self, properties: &Properties, channels: &[Arc<str>]);
    fn ended(&self, properties: &Properties, channels: &[Arc<str>], cause: EndCause);
}

/// A closure that is called with the cause when a subscriber leaves.
pub(crate) type OnLeave = Box<dyn FnOnce(EndCause) + Send>;

/// Work that must be done without the ordering lock.
#[must_use = "`finish` wakes streams, and drops what is the application's"]
#[derive(Default)]
pub(crate) struct Deferred {
    /// Subscribers that have left. They may hold the last reference to properties, whose `Drop` is application code.
    pub(super) left: Vec<Membership>,
    /// The hooks to call for each of them.
    pub(super) hooks: Option<Arc<dyn Hooks>>,
    /// The log for slow subscribers among them.
    pub(super) warnings: Option<Arc<RateLimitedLog>>,
    /// The log for a loss that the ID of a client has shown.
    pub(super) found_loss: Option<Arc<RateLimitedLog>>,
    /// Aborted subscribers, whose streams may be parked or blocked.
    pub(super) aborted: Vec<Arc<Subscriber>>,
    /// Subscribers that had left before. These may be the last references to them.
    pub(super) released: Vec<Arc<Subscriber>>,
    /// Payloads that the history evicted or queues dropped, including closures.
    pub(super) payloads: Vec<Payload>,
    /// Woken only when the lock is free. Otherwise the woken threads compete for the processor with the thread that
    /// still pushes to other subscribers.
    pub(super) wake: Vec<Wake>,
}

thread_local! {
    /// The work left for the call of `finish` that runs on this thread; `None` if none runs.
    static UNFINISHED: RefCell<Option<VecDeque<Deferred>>> = const { RefCell::new(None) };
}

impl Deferred {
    /// Takes the readers to wake, which the caller must then wake.
    pub(crate) fn take_wake(&mut self) -> Vec<Wake> {
        std::mem::take(&mut self.wake)
    }

    /// Adds a reference to a subscriber, for [`finish`](Self::finish) to drop.
    pub(crate) fn release(&mut self, subscriber: Arc<Subscriber>) {
        self.released.push(subscriber);
    }

    fn has_application_code(&self) -> bool {
        // A log is the application's too.
        self.found_loss.is_some() || !(self.left.is_empty() && self.released.is_empty() && self.payloads.is_empty())
    }

    fn wake_all(&mut self) {
        // Aborted streams first. Otherwise a reader that is woken could write its last block by now, which would be cut.
        for subscriber in self.aborted.drain(..) {
            subscriber.interrupt();
        }
        for wake in self.wake.drain(..) {
            wake.wake();
        }
    }

    /// Wakes streams. Returns the application code that is left to run, if there is any.
    ///
    /// For a thread that runs none: it gives the rest to another thread, which then [finishes](Self::finish) it.
    pub(crate) fn wake_only(mut self) -> Option<Self> {
        self.wake_all();
        self.payloads = self.payloads.drain(..).filter_map(Payload::release).collect();
        self.released = self.released.drain(..).filter_map(Arc::into_inner).map(Arc::new).collect();
        self.has_application_code().then_some(self)
    }

    /// Wakes streams, and runs application code: hooks, and the `Drop` of properties and closures.
    ///
    /// That code may publish, which may end further subscribers, whose hooks may publish again. So the outermost call
    /// on a thread works through a list, and a nested call adds its work to that list. The stack does not grow.
    pub(crate) fn finish(mut self) {
        self.wake_all();
        if !self.has_application_code() {
            return;
        }
        let is_outermost = UNFINISHED.try_with(|unfinished| match &mut *unfinished.borrow_mut() {
            Some(list) => {
                list.push_back(std::mem::take(&mut self));
                false
            }
            none => {
                *none = Some(VecDeque::new());
                true
            }
        });
        match is_outermost {
            Ok(false) => {}
            Ok(true) => {
                let mut next = Some(self);
                while let Some(deferred) = next {
                    deferred.call_application();
                    next = UNFINISHED.with(|list| list.borrow_mut().as_mut().and_then(VecDeque::pop_front));
                }
                UNFINISHED.with(|list| list.replace(None));
            }
            // The thread is about to end, and its list is gone.
            Err(_) => self.call_application(),
        }
    }

    /// Logs why the subscribers have left.
    fn log_ends(&self, warnings: &RateLimitedLog) {
        let mut slow: [(usize, Option<&Membership>); 2] = Default::default();
        let mut others = (0, None);
        for left in &self.left {
            let cause = left.end_cause();
            let (count, last) = match cause {
                EndCause::QueueFull => &mut slow[0],
                EndCause::WriteTimedOut => &mut slow[1],
                _ => {
                    others = (others.0 + 1, Some((cause, left)));
                    continue;
                }
            };
            (*count, *last) = (*count + 1, Some(left));
        }
        if let (count, Some(last)) = slow[0] {
            warnings.queue_full(count, last.subject());
        }
        if let (count, Some(last)) = slow[1] {
            warnings.write_timed_out(count, last.subject());
        }
        if let (count, Some((cause, last))) = others {
            warnings.ended(count, &cause, last.subject());
        }
    }

    /// Runs application code. Each panic is caught where it happens, so that the rest still runs.
    fn call_application(self) {
        if let Some(warnings) = self.warnings.as_ref().filter(|_| cfg!(feature = "log")) {
            self.log_ends(warnings);
        }
        if let Some(warnings) = self.found_loss {
            warnings.loss();
        }
        // Each guard is dropped after its hook was called.
        for left in self.left {
            let cause = left.end_cause();
            let Membership { subscriber, channels, on_leave, guard, .. } = left;
            for closure in on_leave {
                call_caught(|| closure(cause));
            }
            if let Some(hooks) = self.hooks.as_ref().filter(|_| subscriber.mark_left(&channels)) {
                hooks.ended(subscriber.properties(), &channels, cause);
            }
            // A panic in a `Drop` must not skip the remaining hooks, and must not end this thread.
            drop_caught((subscriber, guard));
        }
        drop((self.payloads, self.released));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::super::{Limits, NewEvent, QuotaPolicy, Recipients, Registry};
    use super::*;
    use crate::queue::Render;
    use crate::stats::Counters;

    struct Watched(Arc<AtomicBool>);

    impl Drop for Watched {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }

    fn registry() -> Registry {
        let limits = Limits {
            subscribers: 1,
            channels: 1,
            channel_name_len: 1,
            per_channel: 1,
            per_quota_key: 1,
            quota_policy: QuotaPolicy::default(),
        };
        let warnings = Arc::new(RateLimitedLog::new());
        Registry::new(limits, None, Arc::new(Counters::new(Arc::clone(&warnings))), None, warnings)
    }

    #[test]
    fn a_thread_that_runs_no_application_code_drops_no_closure() {
        let is_dropped = Arc::new(AtomicBool::new(false));
        let captured = Watched(Arc::clone(&is_dropped));
        let render = Render::new(
            move |_| {
                let _ = &captured;
                None
            },
            None,
            false,
        );
        let payload = Payload::Closure(Arc::new(render));
        let new_event = NewEvent { payload, own_id: None, key: None, is_comment: false, at: None, sequence: None };
        let published = registry().publish(Recipients::Channels(&["a"]), new_event, None);
        let (_, deferred) = published.unwrap_or_else(|_| panic!("nothing waits"));
        let rest = deferred.wake_only();
        assert!(!is_dropped.load(SeqCst), "the publishing thread has dropped it");
        rest.unwrap().finish();
        assert!(is_dropped.load(SeqCst));
    }
}
