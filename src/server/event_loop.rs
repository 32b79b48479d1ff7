//! The thread that accepts connections, reads requests, and watches sockets.

// Sockets are watched edge-triggered, so each is read until it would block. A stream's socket is registered for writing
// before its first write. Tokens are never reused, so a late event or message finds no connection.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{Ordering::SeqCst, fence};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::acceptor::{Accepted, Acceptor};
use super::body_budget::BodyBudget;
use super::connection::{Action, Connection, Phase};
use super::deadlines::{Timers, after};
use super::handlers::{Handlers, StreamEnd};
use super::notifier::{Message, Notifier, SharedSocket};
use super::{Config, encode};
use crate::log;
use crate::queue::drop_caught;

const LISTENER: Token = Token(0);
/// The notifier's token.
pub(super) const NOTIFIER: Token = Token(1);
const FIRST_CONNECTION: usize = 2;

/// The number of connections beyond the streams: those whose request is being read, and those that get a short
/// response.
const SPARE_CONNECTIONS: usize = 32;

/// The time for which a client's bytes are discarded after its response.
const LINGER: Duration = Duration::from_secs(2);

/// The time for which a stopped server waits for its streams to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The interval at which parked streams are checked for their timeout.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The longest sleep, since operating systems limit the time of a poll.
const LONGEST_SLEEP: Duration = Duration::from_secs(3_600);

/// The number of connections that are accepted before other events are handled.
const MAX_ACCEPTS: usize = 256;

/// The number of writes to a connection before other connections are handled. A client may read as fast as this thread
/// writes.
const MAX_WRITES: usize = 4;

/// The rate in bytes per second below which a body is too slow, after the first
/// [`body_read_timeout`](super::EventServerBuilder::body_read_timeout).
const SLOWEST_BODY: u64 = 4 * 1024;

/// The state of the event loop's thread.
pub(super) struct EventLoop {
    poll: Poll,
    pub(super) acceptor: Acceptor,
    pub(super) config: Config,
    pub(super) notifier: Arc<Notifier>,
    inbox: Receiver<Message>,
    pub(super) handlers: Handlers,
    pub(super) body_budget: Arc<BodyBudget>,
    pub(super) connections: HashMap<usize, Entry>,
    next_token: usize,
    pub(super) timers: Timers,
    /// The connections that may have bytes although their last event has passed.
    pub(super) unread: Vec<usize>,
    /// The connections whose sockets may take more of a response although their last event has passed.
    unwritten: Vec<usize>,
    last_sweep: Instant,
    /// `Some` once the server stops.
    pub(super) stop_deadline: Option<Instant>,
    pub(super) scratch: Vec<u8>,
}

pub(super) struct Entry {
    pub(super) connection: Connection,
    pub(super) socket: Arc<SharedSocket>,
    /// The phase that its deadline is for, and the request that it belongs to.
    pub(super) timed: (Phase, usize),
    /// When that phase began, or last progressed.
    pub(super) since: Instant,
    /// The socket may hold bytes that are not read before the response is written.
    pub(super) has_unread: bool,
}

impl EventLoop {
    pub(super) fn new(
        poll: Poll,
        listener: TcpListener,
        config: Config,
        notifier: Arc<Notifier>,
        inbox: Receiver<Message>,
        handlers: Handlers,
    ) -> io::Result<Self> {
        let acceptor = Acceptor::new(listener, poll.registry(), LISTENER)?;
        let body_budget = BodyBudget::new(config.max_body_memory);
        Ok(Self {
            poll,
            acceptor,
            config,
            notifier,
            inbox,
            handlers,
            body_budget,
            connections: HashMap::new(),
            next_token: FIRST_CONNECTION,
            timers: Timers::default(),
            unread: Vec::new(),
            unwritten: Vec::new(),
            last_sweep: Instant::now(),
            stop_deadline: None,
            scratch: vec![0; 16 * 1024],
        })
    }

    /// Runs until the server is stopped and all connections are closed.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if the poll for ready sockets fails.
    pub(super) fn run(mut self) -> io::Result<()> {
        let result = catch_unwind(AssertUnwindSafe(|| self.watch())).unwrap_or_else(|payload| {
            drop_caught(payload);
            Err(io::Error::other("BUG: the event loop panicked"))
        });
        if let Err(error) = &result {
            log::server_ended(error);
        }
        self.close_all();
        result
    }

    fn watch(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        loop {
            match self.poll.poll(&mut events, self.next_timeout()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            // Before the events: what arrives on a connection may follow a response.
            self.receive_all();
            for event in &events {
                self.handle_event(event);
            }
            self.receive_all();
            for token in std::mem::take(&mut self.unread) {
                self.read(token, true);
            }
            for token in std::mem::take(&mut self.unwritten) {
                self.apply(token, Action::Write);
            }
            let now = Instant::now();
            self.run_timers(now);
            let is_over = |deadline| self.connections.is_empty() || deadline <= now;
            if self.stop_deadline.is_some_and(is_over) {
                return Ok(());
            }
        }
    }

    fn handle_event(&mut self, event: &Event) {
        let token = match event.token() {
            LISTENER => return self.accept(),
            NOTIFIER => return,
            Token(token) => token,
        };
        if event.is_writable() || event.is_write_closed() || event.is_error() {
            self.writable(token);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(token, event.is_read_closed() || event.is_error());
        }
    }

    pub(super) fn receive_all(&mut self) {
        let inbox = self.inbox.clone();
        for message in self.notifier.take(&inbox) {
            self.receive(message);
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::StreamStarted(token, stream, slot) => match self.connections.get_mut(&token) {
                Some(entry) => {
                    let action = entry.connection.stream_started(stream, slot);
                    self.apply(token, action);
                    if self.stop_deadline.is_some() {
                        self.stop_connection(token);
                    }
                }
                None => self.handlers.end_stream(stream, StreamEnd::Lost(io::ErrorKind::ConnectionAborted)),
            },
            Message::Respond(token, outgoing) => {
                let action = self.respond(token, outgoing);
                self.apply(token, action);
            }
            Message::Responded(token) => {
                if let Some(entry) = self.connections.get_mut(&token) {
                    let action = entry.connection.responded_by_handler();
                    self.apply(token, action);
                }
            }
            Message::StreamFinished(token, took_all) => {
                if let Some(entry) = self.connections.get_mut(&token) {
                    let action = entry.connection.stream_finished(took_all);
                    self.apply(token, action);
                }
            }
            Message::Stop => self.stop(),
        }
    }

    /// Performs the actions of a connection, until it waits for the next event.
    pub(super) fn apply(&mut self, token: usize, mut action: Action) {
        let mut writes = 0;
        loop {
            action = match action {
                Action::Wait => break,
                Action::Read => {
                    self.unread.push(token);
                    break;
                }
                Action::Admit(request, framing) => self.admit(token, request, framing),
                Action::AwaitHandler => self.await_handler(token),
                Action::Continue => self.ask_for_body(token),
                Action::MakeRoom => self.make_room_for_body(token),
                Action::Dispatch(incoming) => self.dispatch(token, incoming),
                Action::Reject { rejection, with_body } => {
                    self.respond(token, encode::rejection(rejection, self.config.policy.vary(), with_body))
                }
                Action::Write if writes == MAX_WRITES => {
                    self.unwritten.push(token);
                    break;
                }
                Action::Write => {
                    writes += 1;
                    self.write(token)
                }
                Action::Linger => self.linger(token),
                Action::EndStream(stream, end) => {
                    self.handlers.end_stream(stream, end);
                    break;
                }
                Action::Withdraw(call, error) => {
                    self.handlers.withdraw(call, error);
                    Action::Close
                }
                Action::Close => return self.close(token),
            }
        }
        self.set_deadline(token);
        let Some(entry) = self.connections.get_mut(&token) else { return };
        if entry.has_unread && entry.connection.read_limit() > 0 {
            // The event for these bytes has passed.
            entry.has_unread = false;
            self.unread.push(token);
        }
    }

    /// Sets the deadline of the connection's phase.
    fn set_deadline(&mut self, token: usize) {
        let Some(entry) = self.connections.get_mut(&token) else { return };
        let phase = entry.connection.phase();
        let timed = (phase, entry.connection.requests());
        if timed != entry.timed {
            self.timers.clear(entry.timed.0, token);
            (entry.timed, entry.since) = (timed, Instant::now());
            if phase != Phase::Busy {
                // It may be closed for another one.
                self.acceptor.end_pause();
            }
        }
        let timeout = match phase {
            Phase::Busy => return,
            Phase::Idle => self.config.keep_alive_timeout,
            Phase::Head => self.config.header_read_timeout,
            Phase::Body => {
                let received = entry.connection.body_received() as u64;
                self.config.body_read_timeout.saturating_add(Duration::from_millis(received * 1_000 / SLOWEST_BODY))
            }
            Phase::Responding => self.config.write_timeout,
            Phase::Lingering => LINGER,
        };
        self.timers.set(phase, token, after(entry.since, timeout));
    }

    fn accept(&mut self) {
        for _ in 0..MAX_ACCEPTS {
            match self.acceptor.accept() {
                Accepted::Connection(socket, peer_addr) => {
                    let is_full = self.connections.len() >= self.config.max_streams.saturating_add(SPARE_CONNECTIONS);
                    if is_full && !self.make_room() {
                        return self.acceptor.hold(socket, peer_addr);
                    }
                    self.register(socket, peer_addr);
                }
                Accepted::None => return,
                // A server that gave up for lack of a descriptor would be gone for good.
                Accepted::Failed(_) if self.make_room() => {}
                Accepted::Failed(error) => return self.acceptor.back_off(&error),
            }
        }
        self.acceptor.resume_soon();
    }

    /// Makes room for another connection. If that is not possible now, each response wakes this thread from now on.
    fn make_room(&mut self) -> bool {
        if self.evict_oldest() {
            return true;
        }
        let before = self.connections.len();
        self.notifier.await_responses(true);
        // Some connections may have had their response before.
        self.receive_all();
        let has_room = self.connections.len() < before || self.evict_oldest();
        self.notifier.await_responses(!has_room);
        has_room
    }

    /// Closes one connection that neither the handler nor a stream has. Returns whether there was one.
    fn evict_oldest(&mut self) -> bool {
        let since = |token| self.connections.get(&token).map(|entry: &Entry| entry.since);
        let oldest = self.timers.to_evict(since);
        if let Some(token) = oldest {
            self.close(token);
        }
        oldest.is_some()
    }

    fn register(&mut self, mut socket: TcpStream, peer_addr: SocketAddr) {
        let token = self.next_token;
        self.next_token += 1;
        if self.poll.registry().register(&mut socket, Token(token), Interest::READABLE | Interest::WRITABLE).is_err() {
            return;
        }
        let socket = SharedSocket::new(token, socket, &self.notifier);
        let connection = Connection::new(peer_addr);
        let timed = (Phase::Busy, 0);
        self.connections.insert(token, Entry { connection, socket, timed, since: Instant::now(), has_unread: false });
        self.set_deadline(token);
        // Most clients have sent their request by now. If they have sent more, an event tells.
        self.read(token, false);
    }

    fn next_timeout(&self) -> Option<Duration> {
        if !self.unread.is_empty() || !self.unwritten.is_empty() {
            return Some(Duration::ZERO);
        }
        let sweep = (!self.connections.is_empty()).then(|| self.last_sweep + SWEEP_INTERVAL);
        let deadlines = [self.timers.next(), self.acceptor.paused_until(), sweep, self.stop_deadline];
        let next = deadlines.into_iter().flatten().min()?;
        let sleep = next.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP);
        // Waking slightly too early would cost a round without work.
        Some(sleep + Duration::from_millis(1))
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(token) = self.timers.pop_due(now) {
            if let Some(entry) = self.connections.get_mut(&token) {
                let action = entry.connection.deadline_passed();
                self.apply(token, action);
            }
        }
        if self.acceptor.resume_if_due(now) {
            self.notifier.await_responses(false);
            self.accept();
        }
        if now.duration_since(self.last_sweep) >= SWEEP_INTERVAL {
            self.last_sweep = now;
            self.expire_blocked_streams();
        }
    }

    fn expire_blocked_streams(&self) {
        for Entry { socket, .. } in self.connections.values() {
            if socket.readiness.parked_for().is_some_and(|parked| parked >= self.config.write_timeout) {
                socket.readiness.expire();
            }
        }
    }

    /// Stops accepting connections, and ends streams after their queued events.
    fn stop(&mut self) {
        if self.stop_deadline.is_some() {
            return;
        }
        self.stop_deadline = Some(Instant::now() + STOP_TIMEOUT);
        // Connections that have their response are idle, and close at once.
        self.receive_all();
        let tokens: Vec<usize> = self.connections.keys().copied().collect();
        for token in tokens {
            self.stop_connection(token);
        }
        // Last: once a client is refused, no open connection takes another request.
        self.acceptor.close(self.poll.registry());
    }

    fn stop_connection(&mut self, token: usize) {
        if let Some(entry) = self.connections.get_mut(&token) {
            // The connection closes as soon as the handler has responded.
            entry.socket.awaits_response.store(true, SeqCst);
            fence(SeqCst);
            self.unread.push(token);
            let action = entry.connection.stop();
            self.apply(token, action);
        }
    }

    fn close_all(mut self) {
        let tokens: Vec<usize> = self.connections.keys().copied().collect();
        for token in tokens {
            self.close(token);
        }
        self.handlers.join_handlers();
        // The last calls may have started streams whose sockets are no longer watched.
        for message in self.inbox.try_iter() {
            if let Message::StreamStarted(_, stream, _) = message {
                self.handlers.end_stream(stream, StreamEnd::Lost(io::ErrorKind::ConnectionAborted));
            }
        }
    }
}
