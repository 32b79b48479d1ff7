//! What must be done without the ordering lock once a method of the registry has returned.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use super::membership::Membership;
use crate::log::RateLimitedLog;
use crate::queue::{Payload, Properties, Subscriber, Wake, drop_caught};
use crate::stats::EndCause;

/// The hooks of the application. Called without any lock.
pub(crate) trait Hooks: Send + Sync {
    /// Returns a guard that keeps the hooks' publisher alive. Called under the ordering lock, before the publisher can have
    /// ended.
    fn guard(&self) -> Option<Arc<dyn Any + Send + Sync>>;
    fn opened(&self, properties: &Properties, channels: &[Arc<str>]);
    fn ended(&self, properties: &Properties, channels: &[Arc<str>], cause: EndCause);
}

/// What must be done without the ordering lock.
#[must_use = "`finish` wakes streams, and drops what is the application's"]
#[derive(Default)]
pub(crate) struct Deferred {
    /// Subscribers that have left. They may hold the last reference to properties, whose `Drop` is the application's.
    pub(super) left: Vec<Membership>,
    /// Called for each of them.
    pub(super) hooks: Option<Arc<dyn Hooks>>,
    /// Where slow ones of them are logged.
    pub(super) notices: Option<Arc<RateLimitedLog>>,
    /// Those that were aborted, and may wait for a socket.
    pub(super) aborted: Vec<Arc<Subscriber>>,
    /// What the history evicted and queues dropped, closures among it.
    pub(super) payloads: Vec<Payload>,
    /// Not before the lock is free: threads that wake up while other subscribers are still being pushed to take the
    /// processor away from that.
    pub(super) wake: Vec<Wake>,
}

thread_local! {
    /// What a call of `finish` on this thread still has to do; `None` while there is none.
    static UNFINISHED: RefCell<Option<VecDeque<Deferred>>> = const { RefCell::new(None) };
}

impl Deferred {
    /// Wakes streams, and runs what is the application's: hooks, and the `Drop` of properties and closures.
    ///
    /// That may publish, which may end further subscribers, whose hooks may publish again. So the outermost call on a thread
    /// works off a list, and a call from within leaves its work there: the stack does not grow.
    pub(crate) fn finish(mut self) {
        for wake in self.wake.drain(..) {
            wake.wake();
        }
        for subscriber in self.aborted.drain(..) {
            subscriber.wake_parked();
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
                    next = UNFINISHED.with_borrow_mut(|list| list.as_mut().and_then(VecDeque::pop_front));
                }
                UNFINISHED.set(None);
            }
            // The thread is about to end, and its list is gone.
            Err(_) => self.call_application(),
        }
    }

    /// A panic in what is the application's is caught where it is called, so that the rest is done all the same.
    fn call_application(self) {
        if let Some(notices) = &self.notices {
            let is_slow = |left: &&Membership| left.subscriber.end_cause() == Some(EndCause::QueueFull);
            notices.slow(self.left.iter().filter(is_slow).count());
        }
        // The last of what a guard keeps may go with it: the hooks have been called then.
        for Membership { subscriber, channels, guard, .. } in self.left {
            if let Some(hooks) = self.hooks.as_ref().filter(|_| subscriber.mark_left()) {
                let cause = subscriber.end_cause().expect("BUG: a subscriber left without a cause");
                hooks.ended(subscriber.properties(), &channels, cause);
            }
            // A `Drop` that panics must keep no hook of the others from being called, and end no thread but its own.
            drop_caught((subscriber, guard));
        }
        drop(self.payloads);
    }
}
