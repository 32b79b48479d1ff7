//! The way from a URL to messages: connecting, reading, and reconnecting.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, at, bounded, never, select_biased};

use super::connection::{Failure, READ, Requests, Stream, read};
use super::error::ConnectionError;
use super::event_source::{ConnectionLost, EndCause};
use super::patience::Patience;
use super::stop::StopSignal;
use super::{Message, Parser};
use crate::deliver::{NoFrame, Wait};
use crate::queue::call_caught;
use crate::spread;

/// The shortest delay: a server may send a reconnection time of zero.
const MIN_DELAY: Duration = Duration::from_millis(100);

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

/// What a client does now.
enum State {
    /// A thread requests the stream, and sends the answer.
    Connecting(Receiver<Result<Stream, Failure>>),
    /// The calls of the program read the stream.
    Reading(Body),
    /// The client waits to reconnect; forever without a time.
    Delayed(Option<Instant>),
    Ended(EndCause),
}

/// The body of a response, and what was read of it.
struct Body {
    stream: Stream,
    buffer: Box<[u8]>,
    /// The part of the buffer that is not parsed yet.
    unparsed: Range<usize>,
}

impl Body {
    fn new(stream: Stream) -> Self {
        Self { stream, buffer: vec![0; READ].into(), unparsed: 0..0 }
    }

    /// Returns the next message, or `None` if it has not come in time.
    fn next_message(&mut self, parser: &mut Parser) -> Result<Option<Message>, ConnectionError> {
        loop {
            let mut rest = &self.buffer[self.unparsed.clone()];
            let message = parser.next_message(&mut rest);
            self.unparsed.start = self.unparsed.end - rest.len();
            if message.is_some() {
                return Ok(message);
            }
            if let Some(error) = parser.error() {
                return Err(ConnectionError::Parser(error));
            }
            let Some(count) = read(&mut self.stream, &mut self.buffer)? else { return Ok(None) };
            self.unparsed = 0..count;
        }
    }
}

/// Connects, reads and reconnects, on the threads that take messages.
///
/// Only a request has a thread of its own, for it may take longer than a call.
pub(super) struct Reader {
    requests: Arc<Requests>,
    parser: Parser,
    delays: Delays,
    on_connection_lost: Option<Box<OnConnectionLost>>,
    patience: Arc<Patience>,
    signal: Arc<StopSignal>,
    state: State,
    /// The number of connections in a row that failed.
    failures: u32,
}

impl Reader {
    /// Starts to connect.
    pub(super) fn start(
        requests: Requests,
        parser: Parser,
        delays: Delays,
        on_connection_lost: Option<Box<OnConnectionLost>>,
        patience: Arc<Patience>,
        signal: Arc<StopSignal>,
    ) -> io::Result<Self> {
        let requests = Arc::new(requests);
        let state = connect(&requests, parser.last_event_id())?;
        Ok(Self { requests, parser, delays, on_connection_lost, patience, signal, state, failures: 0 })
    }

    /// Returns the last event ID, up to the last message that was returned.
    pub(super) fn last_event_id(&self) -> &Arc<str> {
        self.parser.last_event_id()
    }

    pub(super) fn end_cause(&self) -> Option<&EndCause> {
        if let State::Ended(cause) = &self.state { Some(cause) } else { None }
    }

    /// Returns the next message, if one comes in time.
    pub(super) fn next(&mut self, wait: Wait) -> Result<Message, NoFrame> {
        // A request has its own timeouts.
        if matches!(self.state, State::Reading(_)) {
            self.patience.start(wait);
        }
        loop {
            if self.signal.is_stopped() && self.end_cause().is_none() {
                self.state = State::Ended(EndCause::Stopped);
            }
            match &mut self.state {
                State::Connecting(answer) => match receive(answer, &self.signal, wait)? {
                    Some(Ok(stream)) => {
                        self.parser.start_stream();
                        self.patience.start(wait);
                        self.state = State::Reading(Body::new(stream));
                    }
                    Some(Err(Failure::End(cause))) => self.state = State::Ended(cause),
                    Some(Err(Failure::Lost(error))) => self.lose(error),
                    None => {}
                },
                State::Reading(body) => match body.next_message(&mut self.parser) {
                    Ok(message) => return message.ok_or(NoFrame::Timeout),
                    Err(error) => {
                        // After an error of the parser the server would send the same again: the delay grows.
                        if !matches!(error, ConnectionError::Parser(_)) {
                            self.failures = 0;
                        }
                        self.lose(error);
                    }
                },
                State::Delayed(until) => {
                    if pause(*until, &self.signal, wait)? {
                        self.reconnect();
                    }
                }
                State::Ended(_) => return Err(NoFrame::Ended),
            }
        }
    }

    /// Begins the delay before the next connection.
    fn lose(&mut self, error: ConnectionError) {
        // The connection is closed before the hook is called.
        self.state = State::Delayed(None);
        if self.signal.is_stopped() {
            return;
        }
        let delay = self.delays.after(self.failures, self.parser.reconnection_time(), spread::random_share());
        self.failures = self.failures.saturating_add(1);
        self.state = State::Delayed(Instant::now().checked_add(delay));
        if let Some(hook) = &self.on_connection_lost {
            call_caught(|| hook(&ConnectionLost { error, delay }));
        }
    }

    fn reconnect(&mut self) {
        self.patience.start(Wait::Forever);
        match connect(&self.requests, self.parser.last_event_id()) {
            Ok(connecting) => self.state = connecting,
            Err(error) => self.lose(ConnectionError::Io { kind: error.kind(), text: error.to_string() }),
        }
    }
}

/// Requests the stream on a thread of its own, which ends with the answer.
fn connect(requests: &Arc<Requests>, last_event_id: &Arc<str>) -> io::Result<State> {
    let (sender, answer) = bounded(1);
    let (requests, last_event_id) = (Arc::clone(requests), Arc::clone(last_event_id));
    let request = move || {
        // The event source may be dropped.
        let _ = sender.send(requests.open(&last_event_id));
    };
    thread::Builder::new().name("sse client".into()).spawn(request)?;
    Ok(State::Connecting(answer))
}

/// Returns the answer to a request, or `None` after a stop.
fn receive(
    answer: &Receiver<Result<Stream, Failure>>,
    signal: &StopSignal,
    wait: Wait,
) -> Result<Option<Result<Stream, Failure>>, NoFrame> {
    let timeout = timeout(wait);
    select_biased! {
        recv(signal.stopped()) -> _ => Ok(None),
        recv(answer) -> answer => Ok(Some(answer.unwrap_or_else(|_| Err(Failure::Lost(panicked()))))),
        recv(timeout) -> _ => Err(NoFrame::Timeout),
    }
}

/// Waits for the end of a delay. Returns `false` after a stop, and fails if the call must end before.
fn pause(until: Option<Instant>, signal: &StopSignal, wait: Wait) -> Result<bool, NoFrame> {
    let (delay, timeout) = (until.map_or_else(never, at), timeout(wait));
    select_biased! {
        recv(signal.stopped()) -> _ => Ok(false),
        recv(delay) -> _ => Ok(true),
        recv(timeout) -> _ => Err(NoFrame::Timeout),
    }
}

/// Returns a receiver that is ready when the call must end.
fn timeout(wait: Wait) -> Receiver<Instant> {
    match wait {
        Wait::Not => at(Instant::now()),
        Wait::Until(deadline) => at(deadline),
        Wait::Forever => never(),
    }
}

fn panicked() -> ConnectionError {
    ConnectionError::Io { kind: io::ErrorKind::Other, text: "the request panicked".into() }
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
