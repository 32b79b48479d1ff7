//! The thread that accepts connections, reads requests, and watches sockets.

// Each connection is in one of a few states, and each event moves it to another:
//
//     Reading    its head is not complete            -> Answering, Writing
//     Answering  the closure looks at its request     -> Streaming, Writing
//     Streaming  a writer thread writes to it         -> Lingering
//     Writing    a short answer is on its way         -> Lingering
//     Lingering  all is said; what the client still sends is thrown away until it hangs up or a while is over. Closed at
//                once, its unread bytes would make the kernel reset the connection, and the client lose the answer
//
// Sockets are watched edge-triggered, so each is read until it would block. A stream's socket is registered for writing
// before its first write. Tokens are never used twice, so a late event or message finds nothing.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use super::answers::{busy, message, stream_head};
use super::head::{self, Head};
use super::policy::Verdict;
use super::quota::client;
use super::{Answer, Request, Rules};
use crate::event;
use crate::notices::Notices;
use crate::queue::{NonBlocking, Parking, drop_caught};
use crate::subscription::{Output, SubscriptionHandle, Writer};

const LISTENER: Token = Token(0);
/// Where the front's mail arrives.
pub(super) const MAIL: Token = Token(1);
const FIRST: usize = 2;

/// Connections beyond the streams: those that are being read, and those that are told to come back.
const SPARE: usize = 32;

/// How long what a client still sends is thrown away.
const LINGERS: Duration = Duration::from_secs(2);

/// How long a server that stops waits for its streams' ends.
const STOPS: Duration = Duration::from_secs(5);

/// How often streams that are parked are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// What other threads tell the front.
pub(super) enum Message {
    /// The closure answered with a stream.
    Streams(usize, SubscriptionHandle),
    /// The closure answered with these bytes.
    Says(usize, Vec<u8>),
    /// The stream has ended, and nothing is written any more; whether its socket took all of it.
    Done(usize, bool),
    Stop,
}

/// The way to the front.
pub(super) struct Mailbox {
    messages: Sender<Message>,
    waker: Waker,
}

impl Mailbox {
    pub(super) fn new(messages: Sender<Message>, waker: Waker) -> Self {
        Self { messages, waker }
    }

    pub(super) fn send(&self, message: Message) {
        // An error means that the front has gone, and with it all its connections.
        if self.messages.send(message).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

/// A request for the closure, and where the answer goes.
struct Job {
    token: usize,
    request: Request,
    /// Header lines for the response.
    cors: String,
    peer: Arc<Peer>,
}

type Closure = dyn Fn(&Request) -> Answer + Send + Sync;

/// The socket, shared with a writer thread while it is a stream's. In one piece with all that a write needs, which is one
/// cache line where three had to be fetched (0.1 us of 6 for a delivery).
struct Peer {
    token: usize,
    socket: TcpStream,
    parking: Parking,
    mailbox: Arc<Mailbox>,
}

impl NonBlocking for Peer {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.socket).write(bytes)
    }

    fn parking(&self) -> &Parking {
        &self.parking
    }

    fn is_over(&self, took_all: bool) {
        self.mailbox.send(Message::Done(self.token, took_all));
    }
}

struct Connection {
    peer: Arc<Peer>,
    address: SocketAddr,
    state: State,
    /// It counts as a stream: it is one, or the closure may make one of it.
    counts: bool,
}

enum State {
    Reading(Vec<u8>),
    /// Whether the client has gone, or sent more, meanwhile.
    Answering(Option<io::ErrorKind>),
    Streaming(SubscriptionHandle),
    Writing(Vec<u8>, usize),
    Lingering,
}

/// The thread that accepts connections, reads requests, and watches sockets.
pub(super) struct Front {
    poll: Poll,
    listener: Option<TcpListener>,
    rules: Rules,
    mailbox: Arc<Mailbox>,
    inbox: Receiver<Message>,
    jobs: Option<Sender<Job>>,
    to_answer: Receiver<Job>,
    connections: HashMap<usize, Connection>,
    next: usize,
    /// How many of them count as streams; and of each address.
    streams: usize,
    addresses: HashMap<IpAddr, usize>,
    /// When a connection's head, or its lingering, is over. In the order of time, since all of one kind take as long.
    heads: VecDeque<(Instant, usize)>,
    lingering: VecDeque<(Instant, usize)>,
    /// Accepting has failed, or there are too many: when it is tried again, and how long the pause after that will be.
    pause: Option<Instant>,
    next_pause: Duration,
    swept: Instant,
    /// When it hangs up on all that is left.
    stops: Option<Instant>,
    scratch: Vec<u8>,
    notices: Notices,
}

impl Front {
    const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);

    /// How many are let in before those who are in have their turn.
    const MOST_ACCEPTS: usize = 256;

    /// How often one connection is read before the others have their turn again.
    const MOST_READS: usize = 64;

    pub(super) fn new(
        poll: Poll,
        mut listener: TcpListener,
        rules: Rules,
        mailbox: Arc<Mailbox>,
        inbox: Receiver<Message>,
    ) -> io::Result<Self> {
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (jobs, to_answer) = unbounded();
        Ok(Self {
            poll,
            listener: Some(listener),
            rules,
            mailbox,
            inbox,
            jobs: Some(jobs),
            to_answer,
            connections: HashMap::new(),
            next: FIRST,
            streams: 0,
            addresses: HashMap::new(),
            heads: VecDeque::new(),
            lingering: VecDeque::new(),
            pause: None,
            next_pause: Self::SHORTEST_PAUSE,
            swept: Instant::now(),
            stops: None,
            scratch: vec![0; 16 * 1024],
            notices: Notices::new(),
        })
    }

    /// Runs until it is stopped and all connections are closed.
    pub(super) fn run(mut self, closure: Arc<Closure>) -> io::Result<()> {
        let mut threads = Vec::new();
        for _ in 0..self.rules.answering_threads {
            let (jobs, closure) = (self.to_answer.clone(), Arc::clone(&closure));
            let mailbox = Arc::clone(&self.mailbox);
            let thread = thread::Builder::new().name("sse answers".into());
            threads.push(thread.spawn(move || jobs.iter().for_each(|job| answer(job, &*closure, &mailbox)))?);
        }
        let result = self.watch();
        let left: Vec<usize> = self.connections.keys().copied().collect();
        left.into_iter().for_each(|token| self.close(token));
        // The threads end with the last job.
        self.jobs = None;
        for thread in threads {
            // Nothing in it panics but the closure, which is caught.
            let _ = thread.join();
        }
        // Nobody watches their sockets.
        for message in self.inbox.try_iter() {
            if let Message::Streams(_, handle) = message {
                handle.peer_has_gone(io::ErrorKind::ConnectionAborted);
            }
        }
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
                match event.token() {
                    LISTENER => self.accept(),
                    MAIL => {}
                    Token(token) => {
                        if event.is_writable() || event.is_write_closed() || event.is_error() {
                            self.has_room(token);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            self.read(token);
                        }
                    }
                }
            }
            while let Ok(message) = self.inbox.try_recv() {
                self.receive(message);
            }
            let now = Instant::now();
            self.look_at_the_clock(now);
            if let Some(stops) = self.stops {
                if self.connections.is_empty() || stops <= now {
                    return Ok(());
                }
            }
        }
    }

    fn next_timeout(&self) -> Option<Duration> {
        let firsts = [self.heads.front(), self.lingering.front()].into_iter().flatten().map(|(due, _)| *due);
        let sweep = (self.streams > 0).then(|| self.swept + SWEEP);
        let next = firsts.chain(self.pause).chain(sweep).chain(self.stops).min()?;
        // Not a little too early, which would be one turn for nothing.
        Some(next.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    fn look_at_the_clock(&mut self, now: Instant) {
        while self.heads.front().is_some_and(|(due, _)| *due <= now) {
            let (_, token) = self.heads.pop_front().expect("BUG: it was there a moment ago");
            let is_late = |connection: &Connection| matches!(connection.state, State::Reading(_));
            if self.connections.get(&token).is_some_and(is_late) {
                self.refuse(token, 408, "the head did not come in time");
            }
        }
        while self.lingering.front().is_some_and(|(due, _)| *due <= now) {
            let (_, token) = self.lingering.pop_front().expect("BUG: it was there a moment ago");
            let is_over = |connection: &Connection| matches!(connection.state, State::Lingering | State::Writing(..));
            if self.connections.get(&token).is_some_and(is_over) {
                self.close(token);
            }
        }
        if self.pause.is_some_and(|until| until <= now) {
            self.pause = None;
            self.accept();
        }
        if now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            for connection in self.connections.values() {
                if connection.peer.parking.parked_for().is_some_and(|parked| parked >= self.rules.write_deadline) {
                    connection.peer.parking.times_out();
                }
            }
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Streams(token, handle) => {
                let stops = self.stops.is_some();
                let Some(connection) = self.connections.get_mut(&token) else {
                    return handle.peer_has_gone(io::ErrorKind::ConnectionAborted);
                };
                let left = if let State::Answering(left) = connection.state { left } else { None };
                match left {
                    Some(error) => handle.peer_has_gone(error),
                    None if stops => drop(handle.close()),
                    None => {}
                }
                connection.state = State::Streaming(handle);
            }
            Message::Says(token, bytes) => self.say(token, bytes),
            Message::Done(token, true) => self.linger(token),
            // Nobody waits for the rest of what is cut off.
            Message::Done(token, false) => self.close(token),
            Message::Stop => self.stop(),
        }
    }

    /// Nobody comes in any more, and streams end after what is queued for them.
    fn stop(&mut self) {
        if self.stops.is_some() {
            return;
        }
        self.stops = Some(Instant::now() + STOPS);
        if let Some(mut listener) = self.listener.take() {
            let _ = self.poll.registry().deregister(&mut listener);
        }
        self.pause = None;
        let tokens: Vec<usize> = self.connections.keys().copied().collect();
        for token in tokens {
            match &self.connections[&token].state {
                State::Reading(_) => self.close(token),
                State::Streaming(handle) => drop(handle.close()),
                State::Answering(_) | State::Writing(..) | State::Lingering => {}
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..Self::MOST_ACCEPTS {
            if self.connections.len() >= self.rules.max_streams.saturating_add(SPARE) && !self.makes_room() {
                // Who waits in the backlog is let in when somebody leaves.
                self.pause = Some(Instant::now() + Self::LONGEST_PAUSE);
                return;
            }
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((socket, address)) => {
                    self.next_pause = Self::SHORTEST_PAUSE;
                    self.welcome(socket, address);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    // No descriptor or memory is left, for now: a server that gives up for that is gone for good.
                    _ if self.makes_room() => {}
                    _ => {
                        self.notices.no_accept(&error);
                        self.pause = Some(Instant::now() + self.next_pause);
                        self.next_pause = (self.next_pause * 2).min(Self::LONGEST_PAUSE);
                        return;
                    }
                },
            }
        }
        // The others have their turn first.
        self.pause = Some(Instant::now());
    }

    /// Hangs up on one that is no stream, for another to come in: who has had an answer, or else who has been sending a
    /// head for the longest time. Most heads come in one piece, so it is those who hold up the others.
    fn makes_room(&mut self) -> bool {
        let goes = |state: &State| matches!(state, State::Lingering | State::Writing(..));
        while let Some((_, token)) = self.lingering.pop_front() {
            if self.connections.get(&token).is_some_and(|connection| goes(&connection.state)) {
                self.close(token);
                return true;
            }
        }
        while let Some((_, token)) = self.heads.pop_front() {
            if self.connections.get(&token).is_some_and(|connection| matches!(connection.state, State::Reading(_))) {
                self.close(token);
                return true;
            }
        }
        false
    }

    fn welcome(&mut self, mut socket: TcpStream, address: SocketAddr) {
        let token = self.next;
        self.next += 1;
        if self.poll.registry().register(&mut socket, Token(token), Interest::READABLE | Interest::WRITABLE).is_err() {
            return;
        }
        let connection = Connection {
            peer: Arc::new(Peer { token, socket, parking: Parking::new(), mailbox: Arc::clone(&self.mailbox) }),
            address,
            state: State::Reading(Vec::new()),
            counts: false,
        };
        self.connections.insert(token, connection);
        self.heads.push_back((Instant::now() + self.rules.head_deadline, token));
        // Most have sent their request already.
        self.read(token);
    }

    /// Reads what there is.
    fn read(&mut self, token: usize) {
        for round in 0.. {
            if round == Self::MOST_READS {
                // A head is complete or too long by now; what a client sends afterwards is nothing to wait for.
                return self.close(token);
            }
            let Some(connection) = self.connections.get_mut(&token) else { return };
            let read = (&connection.peer.socket).read(&mut self.scratch);
            let (bytes, left) = match read {
                Ok(0) => (&[][..], Some(io::ErrorKind::UnexpectedEof)),
                Ok(read) => (&self.scratch[..read], None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => (&[][..], Some(error.kind())),
            };
            match &mut connection.state {
                State::Reading(head) if left.is_none() => {
                    head.extend_from_slice(bytes);
                    match head::read(head, connection.address) {
                        Head::Incomplete => {}
                        Head::Bad(status, reason) => self.refuse(token, status, reason),
                        Head::Complete(request, length)
                            if length < head.len() && head::is_answered(request.method()) =>
                        {
                            self.refuse(
                                token,
                                400,
                                "something follows the request: one for each connection is allowed",
                            );
                        }
                        Head::Complete(request, _) => self.ask(token, request),
                    }
                }
                State::Reading(_) => return self.close(token),
                // Whatever follows a request ends its stream: it was not asked for, and who knows what it means.
                State::Answering(gone) => {
                    gone.get_or_insert(left.unwrap_or(io::ErrorKind::InvalidData));
                    if left.is_some() {
                        return;
                    }
                }
                State::Streaming(handle) => {
                    handle.peer_has_gone(left.unwrap_or(io::ErrorKind::InvalidData));
                    if left.is_some() {
                        return;
                    }
                }
                State::Writing(..) | State::Lingering if left.is_some() => return self.close(token),
                State::Writing(..) | State::Lingering => {}
            }
        }
    }

    /// Has the request answered: by the rules, or by the closure.
    fn ask(&mut self, token: usize, request: Request) {
        let connection = self.connections.get_mut(&token).expect("BUG: it was there a moment ago");
        let is_head = request.method == "HEAD";
        let cors = match self.rules.policy.check(&request) {
            Verdict::Allow { headers } => headers,
            Verdict::Respond { status, headers, text } => {
                return self.say(token, message(status, &headers, text, !is_head));
            }
        };
        let count = self.addresses.get(&client(connection.address.ip())).copied().unwrap_or(0);
        if self.streams >= self.rules.max_streams || count >= self.rules.per_address {
            return self.say(token, busy(&cors, is_head));
        }
        connection.counts = true;
        connection.state = State::Answering(None);
        self.streams += 1;
        *self.addresses.entry(client(connection.address.ip())).or_default() += 1;
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(Job { token, request, cors, peer: Arc::clone(&connection.peer) });
        }
    }

    /// Refuses what is no request.
    fn refuse(&mut self, token: usize, status: u16, reason: &str) {
        let state = self.connections.get(&token).map(|connection| &connection.state);
        let is_head = matches!(state, Some(State::Reading(bytes)) if bytes.starts_with(b"HEAD "));
        self.say(token, message(status, self.rules.policy.vary(), reason, !is_head));
    }

    /// Writes a short answer, as far as the socket takes it now.
    fn say(&mut self, token: usize, bytes: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if let State::Answering(Some(_)) = connection.state {
            return self.close(token);
        }
        connection.state = State::Writing(bytes, 0);
        self.counts_no_more(token);
        self.lingering.push_back((Instant::now() + LINGERS, token));
        self.go_on_writing(token);
    }

    fn has_room(&mut self, token: usize) {
        let Some(connection) = self.connections.get(&token) else { return };
        match connection.state {
            State::Answering(_) | State::Streaming(_) => connection.peer.parking.has_room(),
            State::Writing(..) => self.go_on_writing(token),
            State::Reading(_) | State::Lingering => {}
        }
    }

    fn go_on_writing(&mut self, token: usize) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let State::Writing(bytes, written) = &mut connection.state else { return };
        while *written < bytes.len() {
            match (&connection.peer.socket).write(&bytes[*written..]) {
                Ok(some) => *written += some,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(token),
            }
        }
        self.linger(token);
    }

    /// All is said.
    fn linger(&mut self, token: usize) {
        self.counts_no_more(token);
        let Some(connection) = self.connections.get_mut(&token) else { return };
        connection.state = State::Lingering;
        if connection.peer.socket.shutdown(Shutdown::Write).is_err() {
            return self.close(token);
        }
        self.lingering.push_back((Instant::now() + LINGERS, token));
        // What came meanwhile has had its event.
        self.read(token);
    }

    /// It is no stream, and will not be one: another may take its place.
    fn counts_no_more(&mut self, token: usize) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if !std::mem::take(&mut connection.counts) {
            return;
        }
        self.streams -= 1;
        let address = client(connection.address.ip());
        let count = self.addresses.get_mut(&address).expect("BUG: an address that nobody counted");
        *count -= 1;
        if *count == 0 {
            self.addresses.remove(&address);
        }
    }

    fn close(&mut self, token: usize) {
        self.counts_no_more(token);
        let Some(connection) = self.connections.remove(&token) else { return };
        if let State::Streaming(handle) = &connection.state {
            handle.peer_has_gone(io::ErrorKind::ConnectionAborted);
        }
        // A writer thread may hold the socket for a moment: nothing more is to go out on it. It fails when the peer was
        // quicker.
        let _ = connection.peer.socket.shutdown(Shutdown::Both);
        // A stream whose end is queued is not to wait for room that nobody tells it of any more: its next write fails.
        connection.peer.parking.has_room();
        // Somebody who waits may come in now; not from in here, which may be on the way in.
        if let Some(pause) = &mut self.pause {
            *pause = Instant::now();
        }
    }
}

/// Calls the closure, and sends its answer on the way.
fn answer(job: Job, closure: &Closure, mailbox: &Arc<Mailbox>) {
    let Job { token, request, cors, peer } = job;
    let answer = catch_unwind(AssertUnwindSafe(|| closure(&request))).unwrap_or_else(|payload| {
        drop_caught(payload);
        Answer::Status(500, "the program failed".into())
    });
    let is_head = request.method == "HEAD";
    let says = match answer {
        Answer::Stream(subscription) if is_head => {
            drop_caught(subscription);
            stream_head(&cors, false)
        }
        Answer::Stream(mut subscription) => {
            mailbox.send(Message::Streams(token, subscription.handle()));
            subscription.begin_with(event::heartbeat());
            let chunked = !request.is_http_1_0;
            let writer = Writer::Parks(Arc::clone(&peer) as Arc<dyn NonBlocking>);
            let to = Output { writer, deadline: None, head: stream_head(&cors, chunked), chunked, on_end: None };
            let runner = subscription.runner();
            // After an error the subscription is dropped, and with it what is the application's, which may panic.
            let handed_over = catch_unwind(AssertUnwindSafe(|| runner.take_over(subscription, to)));
            if !matches!(handed_over, Ok(Ok(()))) {
                peer.is_over(false);
            }
            return handed_over.map_or_else(drop_caught, drop);
        }
        Answer::Busy => busy(&cors, is_head),
        Answer::Stop => message(204, &cors, "", true),
        Answer::Status(status @ 200..=599, text) => message(status, &cors, &text, !is_head),
        Answer::Status(..) => message(500, &cors, "the program answered with a status that is none", !is_head),
    };
    mailbox.send(Message::Says(token, says));
}
