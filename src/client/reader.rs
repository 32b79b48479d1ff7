//! The thread of an event source: it connects, reads, and reconnects.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Sender, select};

use super::connection::{Failure, Requests, read};
use super::error::ConnectionError;
use super::event_source::{ConnectionLost, EndCause};
use super::stop::StopSignal;
use super::{Message, Parser};
use crate::queue::call_caught;
use crate::spread;

/// The number of bytes that are read at once.
const READ: usize = 16 * 1024;

/// The shortest delay: a server may send a reconnection time of zero.
const MIN_DELAY: Duration = Duration::from_millis(100);

/// What one read has completed.
pub(super) struct Batch {
    pub(super) messages: Vec<Message>,
    /// The last event ID after the messages.
    pub(super) last_event_id: Arc<str>,
}

pub(super) type OnConnectionLost = dyn Fn(&ConnectionLost) + Send + Sync;

/// The delays between connections.
pub(super) struct Delays {
    /// The reconnection time until the server sends one.
    pub(super) reconnection_time: Duration,
    pub(super) max_reconnection_delay: Duration,
}

impl Delays {
    /// Returns the delay after this number of failures in a row: at least the reconnection time, doubled for each
    /// failure after the first, and up to half as much again at random.
    fn after(&self, failures: u32, sent: Option<Duration>, random: f64) -> Duration {
        let time = sent.unwrap_or(self.reconnection_time).max(MIN_DELAY);
        let doubled = time.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
        let delay = doubled.min(self.max_reconnection_delay.max(time));
        delay.saturating_add(Duration::try_from_secs_f64(delay.as_secs_f64() / 2.0 * random).unwrap_or_default())
    }
}

/// The state of the thread.
pub(super) struct Reader {
    pub(super) requests: Requests,
    pub(super) parser: Parser,
    pub(super) delays: Delays,
    pub(super) batches: Sender<Batch>,
    pub(super) signal: Arc<StopSignal>,
    pub(super) end: Arc<OnceLock<EndCause>>,
    pub(super) on_connection_lost: Option<Box<OnConnectionLost>>,
}

impl Reader {
    /// Runs until the stream ends or is stopped.
    pub(super) fn run(mut self) {
        let mut failures = 0;
        loop {
            let failure = self.read_stream(&mut failures);
            if self.signal.is_stopped() {
                return;
            }
            let error = match failure {
                Failure::Lost(error) => error,
                Failure::End(cause) => {
                    let _ = self.end.set(cause);
                    return;
                }
            };
            let delay = self.delays.after(failures, self.parser.reconnection_time(), spread::random_share());
            failures = failures.saturating_add(1);
            if let Some(hook) = &self.on_connection_lost {
                call_caught(|| hook(&ConnectionLost { error, delay }));
            }
            if self.signal.wait(delay) {
                return;
            }
        }
    }

    /// Reads one stream until it fails. Resets the number of failures once an event stream has begun well.
    fn read_stream(&mut self, failures: &mut u32) -> Failure {
        let mut body = match self.requests.open(self.parser.last_event_id()) {
            Ok(body) => body,
            Err(failure) => return failure,
        };
        self.parser.start_stream();
        let mut buffer = vec![0; READ];
        loop {
            let id_before = Arc::clone(self.parser.last_event_id());
            let messages = match read(&mut body, &mut buffer) {
                // Messages before an error are delivered first.
                Ok(count) => self.parser.push(&buffer[..count]).unwrap_or_default(),
                Err(error) => {
                    *failures = 0;
                    return Failure::Lost(error);
                }
            };
            let last_event_id = Arc::clone(self.parser.last_event_id());
            if (!messages.is_empty() || last_event_id != id_before) && !self.send(Batch { messages, last_event_id }) {
                return Failure::End(EndCause::Stopped);
            }
            // The server would send the same again: the delay grows.
            if let Some(error) = self.parser.error() {
                return Failure::Lost(ConnectionError::Parser(error));
            }
        }
    }

    /// Waits for room. Returns `false` if the event source was stopped.
    fn send(&self, batch: Batch) -> bool {
        select! {
            send(self.batches, batch) -> sent => sent.is_ok(),
            recv(self.signal.stopped()) -> _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn delays() -> Delays {
        Delays { reconnection_time: SECOND, max_reconnection_delay: 10 * SECOND }
    }

    #[test]
    fn the_first_delay_is_the_reconnection_time_and_later_ones_double_up_to_the_limit() {
        let after = |failures| delays().after(failures, None, 0.0);
        let expected = [1, 2, 4, 8, 10, 10].map(|seconds| seconds * SECOND);
        assert_eq!([0, 1, 2, 3, 4, u32::MAX].map(after), expected);
    }

    #[test]
    fn the_server_can_set_the_time_and_even_exceed_the_limit() {
        assert_eq!(delays().after(1, Some(3 * SECOND), 0.0), 6 * SECOND);
        assert_eq!(delays().after(5, Some(60 * SECOND), 0.0), 60 * SECOND);
        assert_eq!(delays().after(0, Some(Duration::ZERO), 0.0), MIN_DELAY);
        assert_eq!(delays().after(9, Some(Duration::MAX), 1.0), Duration::MAX);
        delays().after(9, Some(Duration::from_millis(u64::MAX)), 1.0);
    }

    #[test]
    fn chance_adds_up_to_half() {
        assert_eq!(delays().after(0, None, 0.5), SECOND * 5 / 4);
        assert_eq!(delays().after(0, None, 1.0), SECOND * 3 / 2);
    }
}
