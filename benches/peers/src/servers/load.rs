//! The clients: streams that count the events they receive, and connections that post.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::posting::{AnswerReader, Posters};
use memchr::memmem::Finder;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// An event's data has its number in this form once: `{"number":` and ten digits.
const MARK: &[u8] = b"{\"number\":";
const DIGITS: usize = 10;
const MARKED: usize = MARK.len() + DIGITS;

/// Returns the request that publishes the event with this number: 208 bytes with its field and the blank line.
pub fn post(number: u64, path: &str) -> Vec<u8> {
    let data = format!(
        "{{\"number\":{number:010},\"user\":\"Ada\",\"text\":\"the build is green again\",\"tags\":[\"build\",\"green\"],\
         \"time\":1700000000000,\"more\":\"to make it as long as in the other benchmarks: {:026}\"}}",
        0
    );
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: ");
    format!("{head}{}\r\n\r\n{data}", data.len()).into_bytes()
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Where the bytes of a response belong.
enum Place {
    /// In the head, of which this has been received.
    Head(Vec<u8>),
    /// In the line with a chunk's size, whose digits gave this number so far.
    Size(usize),
    /// In a chunk, of which these bytes are missing.
    Chunk(usize),
    /// In the line end after a chunk.
    ChunkEnd,
    /// In a body without chunks.
    Body,
}

struct Stream {
    socket: TcpStream,
    place: Place,
    /// The last bytes of the body, which may be the begin of a mark.
    tail: Vec<u8>,
    received: u64,
    /// The number of the next event, if none is missing.
    next: u64,
}

impl Stream {
    /// Takes received bytes, and passes each event's number on.
    fn take(&mut self, mut bytes: &[u8], mark: &Finder<'_>, found: &mut impl FnMut(u64)) -> io::Result<()> {
        while let [first, rest @ ..] = bytes {
            match &mut self.place {
                Place::Head(head) => {
                    head.push(*first);
                    bytes = rest;
                    if head.ends_with(b"\r\n\r\n") {
                        self.place = after_head(head)?;
                    }
                }
                Place::Size(size) => {
                    if *first == b'\n' {
                        self.place = Place::Chunk(*size);
                    } else if let Some(digit) = char::from(*first).to_digit(16) {
                        *size = *size * 16 + digit as usize;
                    }
                    bytes = rest;
                }
                Place::Chunk(0) => return Err(io::Error::other("the stream ended")),
                Place::Chunk(missing) => {
                    let (data, rest) = bytes.split_at(bytes.len().min(*missing));
                    *missing -= data.len();
                    if *missing == 0 {
                        self.place = Place::ChunkEnd;
                    }
                    self.scan(data, mark, found);
                    bytes = rest;
                }
                Place::ChunkEnd => {
                    if *first == b'\n' {
                        self.place = Place::Size(0);
                    }
                    bytes = rest;
                }
                Place::Body => {
                    self.scan(bytes, mark, found);
                    bytes = &[];
                }
            }
        }
        Ok(())
    }

    fn scan(&mut self, data: &[u8], mark: &Finder<'_>, found: &mut impl FnMut(u64)) {
        // Too short for a mark that does not begin in the tail.
        let begin = &data[..data.len().min(MARKED - 1)];
        let joined = [&self.tail, begin].concat();
        for text in [&*joined, data] {
            for place in mark.find_iter(text) {
                let digits = text.get(place + MARK.len()..place + MARKED);
                if let Some(number) = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()) {
                    self.received += 1;
                    if number == self.next {
                        self.next += 1;
                    }
                    found(number);
                }
            }
        }
        let last = if data.len() < MARKED { &joined } else { data };
        self.tail.clear();
        self.tail.extend_from_slice(&last[last.len().saturating_sub(MARKED - 1)..]);
    }
}

fn after_head(head: &[u8]) -> io::Result<Place> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200 ") || !head.contains("text/event-stream") {
        return Err(io::Error::other(head));
    }
    Ok(if head.contains("transfer-encoding: chunked") { Place::Size(0) } else { Place::Body })
}

/// The streams of one server.
pub struct Streams {
    poll: Poll,
    streams: Vec<Stream>,
    events: Events,
    buffer: Vec<u8>,
    mark: Finder<'static>,
}

/// What a load came to.
#[derive(Clone, Copy, Default)]
pub struct Received {
    pub deliveries: u64,
    pub posts: u64,
    /// From before the first post until the last delivery.
    pub seconds: f64,
    pub p50: f64,
    pub p99: f64,
}

impl Streams {
    /// Opens these streams, and posts until an event reaches each of them.
    pub fn open(address: SocketAddr, count: usize, path: &str) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut streams = Vec::with_capacity(count);
        for token in 0..count {
            let mut socket = std::net::TcpStream::connect_timeout(&address, PATIENCE)?;
            socket.set_nodelay(true)?;
            let accept = "Accept: text/event-stream\r\n";
            socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{accept}\r\n").as_bytes())?;
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            poll.registry().register(&mut socket, Token(token), Interest::READABLE)?;
            streams.push(Stream { socket, place: Place::Head(Vec::new()), tail: Vec::new(), received: 0, next: 0 });
        }
        let (events, buffer) = (Events::with_capacity(1024), vec![0; 64 * 1024]);
        let mut this = Self { poll, streams, events, buffer, mark: Finder::new(MARK) };
        this.warm_up(address, path)?;
        Ok(this)
    }

    fn warm_up(&mut self, address: SocketAddr, path: &str) -> io::Result<()> {
        let mut poster = Poster::connect(address)?;
        for number in 1..=60 {
            poster.post(&post(number, path))?;
            let mut reached = 0;
            let end = Instant::now() + Duration::from_millis(500);
            while reached < self.streams.len() && Instant::now() < end {
                self.receive(Duration::from_millis(50), &mut |received| reached += usize::from(received == number))?;
            }
            if reached == self.streams.len() {
                return Ok(());
            }
        }
        Err(io::Error::other("no event reached all streams within half a second"))
    }

    /// Waits for bytes for at most this time, and reads what there is. Returns whether there was anything.
    fn receive(&mut self, patience: Duration, found: &mut impl FnMut(u64)) -> io::Result<bool> {
        let Self { poll, streams, events, buffer, mark } = self;
        poll.poll(events, Some(patience))?;
        for event in &*events {
            let stream = &mut streams[event.token().0];
            loop {
                match stream.socket.read(buffer) {
                    Ok(0) => return Err(io::Error::other("the server closed a stream")),
                    Ok(count) => stream.take(&buffer[..count], mark, found)?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(!events.is_empty())
    }

    /// Posts this many events per second for this time, on one connection.
    ///
    /// # Errors
    ///
    /// Returns an error if the posts fall behind, or if an event does not reach each stream, in order.
    pub fn at_pace(&mut self, address: SocketAddr, path: &str, rate: u64, window: Duration) -> io::Result<Received> {
        let count = rate * window.as_secs();
        let sent: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let wanted = count * self.streams.len() as u64;
        let (start, is_over) = (Instant::now(), AtomicBool::new(false));
        let mut latencies = Vec::with_capacity(wanted as usize);
        self.streams.iter_mut().for_each(|stream| stream.next = FIRST);
        let posting = thread::scope(|scope| {
            let posts = scope.spawn(|| {
                let result = post_at_pace(address, path, rate, &sent, start);
                is_over.store(true, Relaxed);
                result
            });
            let mut last = Instant::now();
            while latencies.len() < wanted as usize {
                let mut found = |number: u64| {
                    let Some(sent) = number.checked_sub(FIRST).and_then(|index| sent.get(index as usize)) else {
                        return;
                    };
                    latencies.push(start.elapsed().as_nanos() as u64 - sent.load(Relaxed));
                };
                if self.receive(Duration::from_millis(100), &mut found)? {
                    last = Instant::now();
                }
                if is_over.load(Relaxed) && last.elapsed() > Duration::from_secs(2) {
                    break;
                }
            }
            posts.join().map_err(|_| io::Error::other("the poster panicked"))?
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let complete = self.streams.iter().filter(|stream| stream.next == FIRST + count).count();
        if complete < self.streams.len() {
            return Err(io::Error::other(format!("{} of {wanted} events delivered", latencies.len())));
        }
        if posting > window + window / 10 {
            let posted = count as f64 / posting.as_secs_f64();
            return Err(io::Error::other(format!("{posted:.1} posts/s instead of {rate}")));
        }
        latencies.sort_unstable();
        let percentile = |share: usize| latencies[(latencies.len() - 1) * share / 100] as f64 / 1e6;
        Ok(Received { deliveries: wanted, posts: count, seconds, p50: percentile(50), p99: percentile(99) })
    }

    /// Posts on these connections as fast as posts are answered.
    pub fn saturated(
        &mut self,
        address: SocketAddr,
        path: &str,
        connections: usize,
        window: Duration,
    ) -> io::Result<Received> {
        let mut posters = Posters::connect(address, connections)?;
        let (start, is_over) = (Instant::now(), AtomicBool::new(false));
        let mut deliveries = 0;
        let posts = thread::scope(|scope| {
            let posts = scope.spawn(|| {
                let mut number = FIRST;
                let posts = posters.post_for(window, || {
                    number += 1;
                    post(number, path)
                });
                is_over.store(true, Relaxed);
                posts
            });
            while !is_over.load(Relaxed) {
                self.receive(Duration::from_millis(100), &mut |_| deliveries += 1)?;
            }
            posts.join().map_err(|_| io::Error::other("the poster panicked"))?
        })?;
        Ok(Received { deliveries, posts, seconds: start.elapsed().as_secs_f64(), ..Received::default() })
    }
}

/// The number of the first event after those to warm up.
const FIRST: u64 = 1_000;

struct Poster {
    socket: std::net::TcpStream,
    answer: AnswerReader,
}

impl Poster {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, answer: AnswerReader::default() })
    }

    fn post(&mut self, request: &[u8]) -> io::Result<()> {
        self.socket.write_all(request)?;
        let mut buffer = [0; 4_096];
        loop {
            match self.socket.read(&mut buffer)? {
                0 => return Err(io::Error::other("the server closed the connection of the posts")),
                count if self.answer.push(&buffer[..count])? => return Ok(()),
                _ => {}
            }
        }
    }
}

/// Posts one event for each place of `sent`, and stores there when. Returns the time that it took.
fn post_at_pace(
    address: SocketAddr,
    path: &str,
    rate: u64,
    sent: &[AtomicU64],
    start: Instant,
) -> io::Result<Duration> {
    let mut poster = Poster::connect(address)?;
    for (index, sent) in (0..).zip(sent) {
        let request = post(FIRST + index, path);
        let due = start + Duration::from_micros(index * 1_000_000 / rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        sent.store(start.elapsed().as_nanos() as u64, Relaxed);
        poster.post(&request)?;
    }
    Ok(start.elapsed())
}
