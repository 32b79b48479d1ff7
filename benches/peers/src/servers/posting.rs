//! Connections that post one event after the other, and stay open.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// Reads one response of a connection whose requests are answered one by one.
#[derive(Default)]
pub struct AnswerReader {
    received: Vec<u8>,
}

impl AnswerReader {
    /// Takes received bytes. Returns whether the response is whole.
    ///
    /// # Errors
    ///
    /// Returns an error if it is no response, if its status is not 2xx, or if its length is not known in advance.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.received.extend_from_slice(bytes);
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) = response.parse(&self.received).map_err(io::Error::other)? else {
            return Ok(false);
        };
        let code = response.code.unwrap_or(0);
        let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
        if !(200..300).contains(&code) || (code != 204 && length.is_none()) {
            return Err(io::Error::other(String::from_utf8_lossy(&self.received)));
        }
        let whole = self.received.len() >= head + length.unwrap_or(0);
        if whole {
            self.received.clear();
        }
        Ok(whole)
    }
}

/// Connections of one thread, each of which posts again as soon as its last post is answered.
pub struct Posters {
    poll: Poll,
    sockets: Vec<(TcpStream, AnswerReader)>,
}

impl Posters {
    pub fn connect(address: SocketAddr, connections: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut sockets = Vec::new();
        for token in 0..connections {
            let socket = std::net::TcpStream::connect(address)?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            poll.registry().register(&mut socket, Token(token), Interest::READABLE)?;
            sockets.push((socket, AnswerReader::default()));
        }
        Ok(Self { poll, sockets })
    }

    /// Posts for this time, each time the request that `next` returns. Returns the number of answered posts.
    pub fn post_for(&mut self, window: Duration, mut next: impl FnMut() -> Vec<u8>) -> io::Result<u64> {
        let end = Instant::now() + window;
        let mut events = Events::with_capacity(64);
        let (mut answered, mut open) = (0, self.sockets.len());
        for (socket, _) in &mut self.sockets {
            socket.write_all(&next())?;
        }
        while open > 0 {
            self.poll.poll(&mut events, Some(Duration::from_secs(10)))?;
            if events.is_empty() {
                return Err(io::Error::other("no answer for 10 s"));
            }
            for event in &events {
                let (socket, answer) = &mut self.sockets[event.token().0];
                if !reads_answer(socket, answer)? {
                    continue;
                }
                answered += 1;
                if Instant::now() < end {
                    socket.write_all(&next())?;
                } else {
                    open -= 1;
                }
            }
        }
        Ok(answered)
    }
}

/// Reads until the socket would block. Returns whether the response is whole.
fn reads_answer(socket: &mut TcpStream, answer: &mut AnswerReader) -> io::Result<bool> {
    let mut buffer = [0; 4_096];
    let mut whole = false;
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("the server closed a connection")),
            Ok(count) => whole |= answer.push(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(whole),
            Err(error) => return Err(error),
        }
    }
}
