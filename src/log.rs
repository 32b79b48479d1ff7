//! Rate-limited warnings for the operator. They never contain an event's content.

// Each kind is logged at once, and then at most once per second with the number of times it happened meanwhile. So a
// thousand clients that are slow together make one line. Without the feature `log` only empty methods are compiled.

use std::io;
#[cfg(feature = "log")]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// The warnings of one publisher or server.
#[derive(Debug)]
pub(crate) struct RateLimitedLog {
    start: Instant,
    slow: Kind,
    no_thread: Kind,
    refused: Kind,
    unusable_field: Kind,
    store_full: Kind,
    unknown_transform: Kind,
    #[cfg(feature = "server")]
    no_accept: Kind,
    #[cfg(feature = "tiny_http")]
    no_response: Kind,
    #[cfg(feature = "tiny_http")]
    handler_panicked: Kind,
}

impl RateLimitedLog {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            slow: Kind::default(),
            no_thread: Kind::default(),
            refused: Kind::default(),
            unusable_field: Kind::default(),
            store_full: Kind::default(),
            unknown_transform: Kind::default(),
            #[cfg(feature = "server")]
            no_accept: Kind::default(),
            #[cfg(feature = "tiny_http")]
            no_response: Kind::default(),
            #[cfg(feature = "tiny_http")]
            handler_panicked: Kind::default(),
        }
    }

    /// Logs that slow subscribers were disconnected.
    pub(crate) fn slow(&self, subscribers: usize) {
        if let Some(times) = self.slow.count(subscribers, self.start) {
            warn(format_args!("disconnected {times} slow subscribers: queue full"));
        }
    }

    /// Logs that a writer thread failed to start.
    pub(crate) fn no_thread(&self, error: &io::Error) {
        if let Some(times) = self.no_thread.count(1, self.start) {
            warn(format_args!("failed to start {times} writer threads: {error}"));
        }
    }

    /// Logs that a connection could not be accepted.
    #[cfg(feature = "server")]
    pub(crate) fn no_accept(&self, error: &io::Error) {
        if let Some(times) = self.no_accept.count(1, self.start) {
            warn(format_args!("failed to accept {times} connections, retrying: {error}"));
        }
    }

    /// Logs that a handler could not answer a request.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn no_response(&self, error: &io::Error) {
        if let Some(times) = self.no_response.count(1, self.start) {
            warn(format_args!("failed to answer {times} requests, the last one: {error}"));
        }
    }

    /// Logs that a handler panicked.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn handler_panicked(&self) {
        if let Some(times) = self.handler_panicked.count(1, self.start) {
            warn(format_args!("the handler panicked on {times} requests"));
        }
    }

    /// Logs that a closure's event had an ID or a key that cannot be used.
    pub(crate) fn unusable_field(&self) {
        if let Some(times) = self.unusable_field.count(1, self.start) {
            warn(format_args!(
                "ignored the ID or key of {times} events from publish_with closures: use PublishOptions"
            ));
        }
    }

    /// Logs that an event was refused because too many wait to be stored.
    pub(crate) fn store_full(&self) {
        if let Some(times) = self.store_full.count(1, self.start) {
            warn(format_args!("refused {times} events: too many wait to be stored"));
        }
    }

    /// Logs that the store has failed, which happens once.
    pub(crate) fn store_failed(&self, reason: &str) {
        warn(format_args!("events are no longer stored: {reason}"));
    }

    /// Logs that an event in the store needs a transform that the publisher does not have.
    pub(crate) fn unknown_transform(&self, name: &str) {
        if let Some(times) = self.unknown_transform.count(1, self.start) {
            warn(format_args!("dropped {times} stored events of unknown transforms, the last one: {name:?}"));
        }
    }

    /// Logs that a subscription was refused.
    pub(crate) fn refused(&self, error: &dyn std::fmt::Display) {
        if let Some(times) = self.refused.count(1, self.start) {
            warn(format_args!("refused {times} subscriptions, the last one: {error}"));
        }
    }
}

/// Logs that a server ended although it was not stopped.
#[cfg(feature = "server")]
pub(crate) fn server_ended(error: &io::Error) {
    warn(format_args!("the event server ended: {error}"));
}

fn warn(text: std::fmt::Arguments<'_>) {
    // The logger belongs to the application. Its panic has been reported by the panic hook, and must not end this
    // thread.
    #[cfg(feature = "log")]
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| log::warn!(target: "server_sent_events", "{text}"))) {
        std::mem::forget(payload);
    }
    #[cfg(not(feature = "log"))]
    let _ = text;
}

/// One kind of warning, and the time of its last line.
#[derive(Debug, Default)]
struct Kind {
    /// The time of the last line, in seconds since the start plus one; 0 for never.
    last_logged: AtomicU64,
    /// The number of times it has happened since then.
    unlogged: AtomicU64,
}

impl Kind {
    /// Counts it. Returns how often it happened since the last line, if a new line is due.
    fn count(&self, times: usize, start: Instant) -> Option<u64> {
        if cfg!(not(feature = "log")) || times == 0 {
            return None;
        }
        self.count_at(times, start.elapsed().as_secs() + 1)
    }

    fn count_at(&self, times: usize, now: u64) -> Option<u64> {
        self.unlogged.fetch_add(times as u64, Relaxed);
        let last = self.last_logged.load(Relaxed);
        // If several threads get here at once, one of them logs.
        let is_due = now > last && self.last_logged.compare_exchange(last, now, Relaxed, Relaxed).is_ok();
        is_due.then(|| self.unlogged.swap(0, Relaxed)).filter(|times| *times > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_notice_is_logged_at_once_and_later_ones_together_once_a_second() {
        let kind = Kind::default();
        assert_eq!(kind.count_at(1, 1), Some(1));
        assert_eq!(kind.count_at(5, 1), None);
        assert_eq!(kind.count_at(1, 1), None);
        assert_eq!(kind.count_at(1, 2), Some(7));
        assert_eq!(kind.count_at(2, 9), Some(2));
    }
}
