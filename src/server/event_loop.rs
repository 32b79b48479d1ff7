//! The thread that accepts connections, reads requests, and watches sockets.

// Sockets are watched edge-triggered, so each is read until it would block. A stream's socket is registered for writing
// before its first write. Tokens are never reused, so a late event or message finds no connection.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::acceptor::{Accepted, Acceptor};
use super::connection::{Action, Connection};
use super::deadlines::{Deadlines, after};
use super::handlers::{Call, Handlers, StreamEnd};
use super::notifier::{Message, Notifier, SharedSocket};
use super::policy::Verdict;
use super::quota::Quota;
use super::{Config, Request, response};
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

/// The number of reads of a connection per event. A connection with more bytes is closed: its head is complete or too
/// long by then, and nothing may follow it.
const MAX_READS: usize = 64;

/// The state of the event loop's thread.
pub(super) struct EventLoop {
    poll: Poll,
    acceptor: Acceptor,
    config: Config,
    notifier: Arc<Notifier>,
    inbox: Receiver<Message>,
    handlers: Handlers,
    quota: Arc<Quota>,
    connections: HashMap<usize, Entry>,
    next_token: usize,
    /// The deadline of each connection's head.
    head_deadlines: Deadlines,
    /// The deadline of each connection with a short response: its write timeout, or the end of lingering.
    linger_deadlines: Deadlines,
    last_sweep: Instant,
    /// `Some` once the server stops.
    stop_deadline: Option<Instant>,
    scratch: Vec<u8>,
}

struct Entry {
    connection: Connection,
    socket: Arc<SharedSocket>,
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
        let quota = Quota::new(config.max_streams, config.max_streams_per_ip);
        Ok(Self {
            poll,
            acceptor,
            config,
            notifier,
            inbox,
            handlers,
            quota,
            connections: HashMap::new(),
            next_token: FIRST_CONNECTION,
            head_deadlines: Deadlines::default(),
            linger_deadlines: Deadlines::default(),
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
            for event in &events {
                self.handle_event(event);
            }
            while let Ok(message) = self.inbox.try_recv() {
                self.receive(message);
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
            self.read(token);
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::StreamStarted(token, stream) => match self.connections.get_mut(&token) {
                Some(entry) => {
                    let action = entry.connection.stream_started(stream);
                    self.apply(token, action);
                    if self.stop_deadline.is_some() {
                        self.stop_connection(token);
                    }
                }
                None => self.handlers.end_stream(stream, StreamEnd::Lost(io::ErrorKind::ConnectionAborted)),
            },
            Message::Respond(token, bytes) => self.respond(token, bytes),
            Message::StreamFinished(token, took_all) => {
                if let Some(entry) = self.connections.get_mut(&token) {
                    let action = entry.connection.stream_finished(took_all);
                    self.apply(token, action);
                }
            }
            Message::Stop => self.stop(),
        }
    }

    /// Performs the action of a connection.
    fn apply(&mut self, token: usize, action: Action) {
        match action {
            Action::Wait => {}
            Action::Dispatch(request) => self.dispatch(token, request),
            Action::Reject { status, reason, with_body } => {
                let bytes = response::message(status, self.config.policy.vary(), reason, with_body);
                self.respond(token, bytes);
            }
            Action::Write => self.continue_write(token),
            Action::Linger => self.linger(token),
            Action::EndStream(stream, end) => self.handlers.end_stream(stream, end),
            Action::Withdraw(call, error) => {
                self.handlers.withdraw(call, error);
                self.close(token);
            }
            Action::Close => self.close(token),
        }
    }

    fn accept(&mut self) {
        for _ in 0..MAX_ACCEPTS {
            let is_full = self.connections.len() >= self.config.max_streams.saturating_add(SPARE_CONNECTIONS);
            if is_full && !self.evict_oldest() {
                return self.acceptor.pause();
            }
            match self.acceptor.accept() {
                Accepted::Connection(socket, peer_addr) => self.register(socket, peer_addr),
                Accepted::None => return,
                // A server that gave up for lack of a descriptor would be gone for good.
                Accepted::Failed(_) if self.evict_oldest() => {}
                Accepted::Failed(error) => return self.acceptor.back_off(&error),
            }
        }
        self.acceptor.resume_soon();
    }

    /// Closes one connection without a stream: one that has its response, or else the one whose head has been
    /// incomplete the longest. Returns whether there was one. Most heads arrive in one piece, so an old incomplete head
    /// is most likely to keep others out.
    fn evict_oldest(&mut self) -> bool {
        let oldest = self.linger_deadlines.pop_first().or_else(|| self.head_deadlines.pop_first());
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
        self.connections.insert(token, Entry { connection: Connection::new(peer_addr), socket });
        self.head_deadlines.set(token, after(Instant::now(), self.config.header_read_timeout));
        // Most clients have sent their request by now.
        self.read(token);
    }

    /// Reads until the socket would block.
    fn read(&mut self, token: usize) {
        for _ in 0..MAX_READS {
            let Some(Entry { connection, socket }) = self.connections.get_mut(&token) else { return };
            let action = match (&socket.socket).read(&mut self.scratch) {
                Ok(0) => {
                    let action = connection.input_ended(io::ErrorKind::UnexpectedEof);
                    return self.apply(token, action);
                }
                Ok(count) => connection.received(&self.scratch[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let action = connection.input_ended(error.kind());
                    return self.apply(token, action);
                }
            };
            self.apply(token, action);
        }
        self.close(token);
    }

    /// Answers a request by the policy or by a limit, or gives it to the handler.
    fn dispatch(&mut self, token: usize, request: Request) {
        let Some(Entry { connection, socket }) = self.connections.get_mut(&token) else { return };
        let is_head = request.method() == "HEAD";
        let headers = match self.config.policy.check(&request) {
            Verdict::Allow { headers } => headers,
            Verdict::Respond { status, headers, text } => {
                return self.respond(token, response::message(status, &headers, &text, !is_head));
            }
        };
        let Some(slot) = self.quota.try_acquire(connection.peer_addr().ip()) else {
            return self.respond(token, response::retry_later(&headers, is_head));
        };
        self.head_deadlines.clear(token);
        let call = self.handlers.dispatch(Call { request, headers, socket: Arc::clone(socket) });
        connection.dispatched(call, slot);
    }

    /// Starts a short response.
    fn respond(&mut self, token: usize, bytes: Vec<u8>) {
        let Some(entry) = self.connections.get_mut(&token) else { return };
        let action = entry.connection.respond(bytes);
        if matches!(action, Action::Write) {
            self.head_deadlines.clear(token);
            self.linger_deadlines.set(token, after(Instant::now(), self.config.write_timeout));
        }
        self.apply(token, action);
    }

    fn writable(&mut self, token: usize) {
        let Some(Entry { connection, socket }) = self.connections.get(&token) else { return };
        if connection.may_stream() {
            socket.readiness.set_ready();
        } else {
            self.continue_write(token);
        }
    }

    /// Writes the rest of a short response, as far as the socket takes it.
    fn continue_write(&mut self, token: usize) {
        let mut has_progressed = false;
        loop {
            let Some(Entry { connection, socket }) = self.connections.get_mut(&token) else { return };
            let Some(bytes) = connection.unwritten() else { return };
            match (&socket.socket).write(bytes) {
                Ok(count) if count > 0 => {
                    has_progressed = true;
                    let action = connection.wrote(count);
                    self.apply(token, action);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return self.close(token),
            }
        }
        if has_progressed {
            self.linger_deadlines.set(token, after(Instant::now(), self.config.write_timeout));
        }
    }

    /// Shuts down the sending side, then discards what the client still sends.
    fn linger(&mut self, token: usize) {
        let Some(entry) = self.connections.get(&token) else { return };
        if entry.socket.socket.shutdown(Shutdown::Write).is_err() {
            return self.close(token);
        }
        self.linger_deadlines.set(token, after(Instant::now(), LINGER));
        // The event for bytes that arrived before has passed already.
        self.read(token);
    }

    fn close(&mut self, token: usize) {
        let Some(Entry { connection, socket }) = self.connections.remove(&token) else { return };
        self.head_deadlines.clear(token);
        self.linger_deadlines.clear(token);
        match connection.close() {
            Action::Withdraw(call, error) => self.handlers.withdraw(call, error),
            Action::EndStream(stream, end) => self.handlers.end_stream(stream, end),
            _ => {}
        }
        // A writer thread may hold the socket for a moment, and must send nothing more. The call fails if the client
        // closed first.
        let _ = socket.socket.shutdown(Shutdown::Both);
        // A parked stream must not wait for room that is no longer reported. Its next write fails.
        socket.readiness.set_ready();
        // The pause ends later, since `accept` may be the caller.
        self.acceptor.end_pause();
    }

    fn next_timeout(&self) -> Option<Duration> {
        let sweep = (!self.connections.is_empty()).then(|| self.last_sweep + SWEEP_INTERVAL);
        let deadlines = [self.head_deadlines.next(), self.linger_deadlines.next(), self.acceptor.paused_until(), sweep];
        let next = deadlines.into_iter().chain([self.stop_deadline]).flatten().min()?;
        let sleep = next.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP);
        // Waking slightly too early would cost a round without work.
        Some(sleep + Duration::from_millis(1))
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(token) = self.head_deadlines.pop_due(now).or_else(|| self.linger_deadlines.pop_due(now)) {
            if let Some(entry) = self.connections.get_mut(&token) {
                let action = entry.connection.deadline_passed();
                self.apply(token, action);
            }
        }
        if self.acceptor.resume_if_due(now) {
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
        self.acceptor.close(self.poll.registry());
        let tokens: Vec<usize> = self.connections.keys().copied().collect();
        for token in tokens {
            self.stop_connection(token);
        }
    }

    fn stop_connection(&mut self, token: usize) {
        if let Some(entry) = self.connections.get_mut(&token) {
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
            if let Message::StreamStarted(_, stream) = message {
                self.handlers.end_stream(stream, StreamEnd::Lost(io::ErrorKind::ConnectionAborted));
            }
        }
    }
}
