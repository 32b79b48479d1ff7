//! Rate-limited lines for the operator. They never contain an event's content.

// A line about subscribers has the quota key and the channels of the last one, shortened, since clients choose them in
// many applications. Each kind is logged at once, and then at most once per second with the number of times it happened meanwhile. So a
// thousand clients that are slow together make one line. Without the feature `log` only empty methods are compiled.

use std::fmt::{self, Display};
use std::io;
#[cfg(feature = "log")]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// The subscriber that a line is about.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) quota_key: Option<&'a str>,
    pub(crate) channels: &'a [Arc<str>],
}

impl Subject<'_> {
    /// The number of channels that a line names.
    const MAX_CHANNELS: usize = 4;
}

/// Writes nothing for a subscriber with neither a quota key nor a channel.
impl Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "; ";
        if let Some(key) = self.quota_key {
            write!(f, "{separator}quota key {:?}", shortened(key, 64))?;
            separator = ", ";
        }
        for (n, channel) in self.channels.iter().take(Self::MAX_CHANNELS).enumerate() {
            let word = match (n, self.channels.len()) {
                (0, 1) => "channel ",
                (0, _) => "channels ",
                _ => "",
            };
            write!(f, "{separator}{word}{:?}", shortened(channel, 64))?;
            separator = ", ";
        }
        match self.channels.len().saturating_sub(Self::MAX_CHANNELS) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Returns at most this many characters of a text, and `...` if it has more.
fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The warnings of one publisher or server.
#[derive(Debug)]
pub(crate) struct RateLimitedLog {
    start: Instant,
    queue_full: Kind,
    write_timed_out: Kind,
    ended: Kind,
    no_thread: Kind,
    refused: Kind,
    unusable_field: Kind,
    store_full: Kind,
    event_too_large: Kind,
    closure_refused: Kind,
    loss: Kind,
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
            queue_full: Kind::default(),
            write_timed_out: Kind::default(),
            ended: Kind::default(),
            no_thread: Kind::default(),
            refused: Kind::default(),
            unusable_field: Kind::default(),
            store_full: Kind::default(),
            event_too_large: Kind::default(),
            closure_refused: Kind::default(),
            loss: Kind::default(),
            unknown_transform: Kind::default(),
            #[cfg(feature = "server")]
            no_accept: Kind::default(),
            #[cfg(feature = "tiny_http")]
            no_response: Kind::default(),
            #[cfg(feature = "tiny_http")]
            handler_panicked: Kind::default(),
        }
    }

    /// Logs that slow subscribers were disconnected because their queues were full, the last one of them this one.
    pub(crate) fn queue_full(&self, subscribers: usize, last: Subject<'_>) {
        if let Some(times) = self.queue_full.count(subscribers, self.start) {
            warn(format_args!("disconnected {times} slow subscribers: queue full{last}"));
        }
    }

    /// Logs that slow subscribers were disconnected because a write took too long, the last one of them this one.
    pub(crate) fn write_timed_out(&self, subscribers: usize, last: Subject<'_>) {
        if let Some(times) = self.write_timed_out.count(subscribers, self.start) {
            warn(format_args!("disconnected {times} slow subscribers: write timed out{last}"));
        }
    }

    /// Logs that subscribers ended for a usual cause, the last one of them this one.
    pub(crate) fn ended(&self, subscribers: usize, cause: &dyn Display, last: Subject<'_>) {
        if let Some(times) = self.ended.count(subscribers, self.start) {
            debug(format_args!("{times} streams ended, the last one: {cause}{last}"));
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

    /// Logs that an event was refused because it is larger than the store allows.
    pub(crate) fn event_too_large(&self, size: usize) {
        if let Some(times) = self.event_too_large.count(1, self.start) {
            warn(format_args!("refused {times} events: too large for the store, the last one: {size} bytes"));
        }
    }

    /// Logs that a closure was refused because it cannot travel to other processes.
    pub(crate) fn closure_refused(&self) {
        if let Some(times) = self.closure_refused.count(1, self.start) {
            warn(format_args!(
                "refused {times} closures of publish_with: other processes cannot call them; use publish_through"
            ));
        }
    }

    /// Logs that the ID of a client has shown a loss.
    pub(crate) fn loss(&self) {
        if let Some(times) = self.loss.count(1, self.start) {
            warn(format_args!(
                "events are lost, as only the ID of a client has shown ({times} times): clients that miss them get a gap"
            ));
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
    pub(crate) fn refused(&self, error: &dyn Display, subject: Subject<'_>) {
        if let Some(times) = self.refused.count(1, self.start) {
            let error = shortened(&error.to_string(), 256);
            warn(format_args!("refused {times} subscriptions, the last one: {error}{subject}"));
        }
    }
}

/// Logs that the store that several processes share cannot be used.
pub(crate) fn store_away(reason: &str) {
    warn(format_args!("the shared store is away: {reason}"));
}

/// Logs that the store that several processes share can be used again.
pub(crate) fn store_back() {
    info(format_args!("the shared store is back"));
}

/// Logs that a server ended although it was not stopped.
#[cfg(feature = "server")]
pub(crate) fn server_ended(error: &io::Error) {
    warn(format_args!("the event server ended: {error}"));
}

fn warn(text: fmt::Arguments<'_>) {
    #[cfg(feature = "log")]
    call_logger(log::Level::Warn, text);
    #[cfg(not(feature = "log"))]
    let _ = text;
}

fn info(text: fmt::Arguments<'_>) {
    #[cfg(feature = "log")]
    call_logger(log::Level::Info, text);
    #[cfg(not(feature = "log"))]
    let _ = text;
}

fn debug(text: fmt::Arguments<'_>) {
    #[cfg(feature = "log")]
    call_logger(log::Level::Debug, text);
    #[cfg(not(feature = "log"))]
    let _ = text;
}

/// Calls the application's logger. A panic in it has been reported by the panic hook, and must not end this thread.
#[cfg(feature = "log")]
fn call_logger(level: log::Level, text: fmt::Arguments<'_>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| log::log!(target: "server_sent_events", level, "{text}"))) {
        std::mem::forget(payload);
    }
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
    fn a_line_names_the_quota_key_and_the_channels() {
        let channels: Vec<Arc<str>> = ["a", "b\n", "c", "d", "e", "f"].map(Into::into).into();
        let line = |quota_key, channels| Subject { quota_key, channels }.to_string();
        assert_eq!(line(None, &[]), "");
        assert_eq!(line(Some("Ada"), &[]), "; quota key \"Ada\"");
        assert_eq!(line(None, &channels[..1]), "; channel \"a\"");
        assert_eq!(line(Some("Ada"), &channels[..2]), "; quota key \"Ada\", channels \"a\", \"b\\n\"");
        assert_eq!(line(None, &channels), "; channels \"a\", \"b\\n\", \"c\", \"d\" and 2 more");
    }

    #[test]
    fn a_line_is_short_whatever_clients_choose() {
        let long: Arc<str> = "\u{1}".repeat(100_000).into();
        let line = Subject { quota_key: Some(&long), channels: &vec![Arc::clone(&long); 100] }.to_string();
        assert!(line.len() < 5 * 64 * "\\u{1}".len() + 100, "{}", line.len());
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äöü...");
    }

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
