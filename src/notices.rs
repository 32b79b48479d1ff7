//! What an operator must know, as log lines: few, and without the content of any event.

// Each kind is told at once, and then at most once a second, with how often it has happened meanwhile: a thousand
// clients that are slow together are one line. Without the feature `log` nothing of this is compiled but the empty methods.

use std::io;
#[cfg(feature = "log")]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// The log lines of one publisher.
#[derive(Debug)]
pub(crate) struct Notices {
    start: Instant,
    slow: Kind,
    no_thread: Kind,
    refused: Kind,
    unusable_field: Kind,
    #[cfg(feature = "server")]
    no_accept: Kind,
}

impl Notices {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            slow: Kind::default(),
            no_thread: Kind::default(),
            refused: Kind::default(),
            unusable_field: Kind::default(),
            #[cfg(feature = "server")]
            no_accept: Kind::default(),
        }
    }

    /// Slow subscribers were ended.
    pub(crate) fn slow(&self, subscribers: usize) {
        if let Some(times) = self.slow.happened(subscribers, self.start) {
            warn(format_args!("disconnected {times} slow subscribers: queue full"));
        }
    }

    /// A writer thread could not be started.
    pub(crate) fn no_thread(&self, error: &io::Error) {
        if let Some(times) = self.no_thread.happened(1, self.start) {
            warn(format_args!("failed to start {times} writer threads: {error}"));
        }
    }

    /// A connection could not be accepted.
    #[cfg(feature = "server")]
    pub(crate) fn no_accept(&self, error: &io::Error) {
        if let Some(times) = self.no_accept.happened(1, self.start) {
            warn(format_args!("failed to accept {times} connections, retrying: {error}"));
        }
    }

    /// An event of a closure had a field that cannot be used.
    pub(crate) fn unusable_field(&self) {
        if let Some(times) = self.unusable_field.happened(1, self.start) {
            warn(format_args!(
                "ignored the ID or key of {times} events from publish_with closures: use PublishOptions"
            ));
        }
    }

    /// A subscription was refused.
    pub(crate) fn refused(&self, error: &dyn std::fmt::Display) {
        if let Some(times) = self.refused.happened(1, self.start) {
            warn(format_args!("refused {times} subscriptions, the last one: {error}"));
        }
    }
}

/// Logs that a server ended although nobody stopped it.
#[cfg(feature = "server")]
pub(crate) fn server_ended(error: &io::Error) {
    warn(format_args!("the event server ended: {error}"));
}

fn warn(text: std::fmt::Arguments<'_>) {
    // The logger is the application's: a panic in it, of which the panic hook has told, must not cost us the thread.
    #[cfg(feature = "log")]
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| log::warn!(target: "server_sent_events", "{text}"))) {
        std::mem::forget(payload);
    }
    #[cfg(not(feature = "log"))]
    let _ = text;
}

/// One kind of notice, and when it was given last.
#[derive(Debug, Default)]
struct Kind {
    /// In seconds since the start, plus one; 0 for never.
    told: AtomicU64,
    /// How often it has happened since.
    untold: AtomicU64,
}

impl Kind {
    /// How often it has happened since it was told, if it is to be told now.
    fn happened(&self, times: usize, start: Instant) -> Option<u64> {
        if cfg!(not(feature = "log")) || times == 0 {
            return None;
        }
        self.happened_at(times, start.elapsed().as_secs() + 1)
    }

    fn happened_at(&self, times: usize, now: u64) -> Option<u64> {
        self.untold.fetch_add(times as u64, Relaxed);
        let told = self.told.load(Relaxed);
        // Of several at once, one tells it.
        let is_due = now > told && self.told.compare_exchange(told, now, Relaxed, Relaxed).is_ok();
        is_due.then(|| self.untold.swap(0, Relaxed)).filter(|times| *times > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_notice_is_logged_at_once_and_later_ones_together_once_a_second() {
        let kind = Kind::default();
        assert_eq!(kind.happened_at(1, 1), Some(1));
        assert_eq!(kind.happened_at(5, 1), None);
        assert_eq!(kind.happened_at(1, 1), None);
        assert_eq!(kind.happened_at(1, 2), Some(7));
        assert_eq!(kind.happened_at(2, 9), Some(2));
    }
}
