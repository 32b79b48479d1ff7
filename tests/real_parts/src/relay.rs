//! A TCP relay between clients and a server, to break connections while both ends are alive.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Instant;

/// A relay that runs until the process ends.
#[derive(Clone)]
pub struct Relay {
    pub address: SocketAddr,
    server: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    holds: bool,
    cuts_at: Option<(String, Cut)>,
    cut: Option<Instant>,
    visits: Vec<Visit>,
}

/// Where a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before the last byte of a frame.
    Within,
    /// After a frame.
    After,
}

/// A client's connection, and how it began.
#[derive(Clone, Debug)]
pub struct Visit {
    pub at: Instant,
    /// The request line and headers.
    pub head: String,
    /// The first bytes of the response.
    pub answer: String,
    /// The number of comments without text and of IDs without an event that were relayed: a stream's first bytes, and
    /// its heartbeats.
    pub heartbeats: usize,
}

impl Visit {
    /// Returns the value of a header of the request.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl Relay {
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self { address: listener.local_addr().unwrap(), server, state: Arc::default() };
        let accepting = relay.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (at, relay) = (Instant::now(), accepting.clone());
                // The connection usually ends with an error: this relay exists for that.
                thread::spawn(move || relay.passes(client?, at));
            }
        });
        relay
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    /// Holds new connections from now on: their requests are recorded, and not relayed.
    pub fn holds(&self) {
        self.state().holds = true;
    }

    pub fn lets_go(&self) {
        self.state().holds = false;
        self.state.1.notify_all();
    }

    /// Breaks the connection, once, before the last byte of the frame that contains this text.
    pub fn cuts_within(&self, text: &str) {
        self.cuts(Cut::Within, text);
    }

    /// Breaks the connection, once, at the frame that contains this text.
    pub fn cuts(&self, at: Cut, text: &str) {
        let mut state = self.state();
        state.cuts_at = Some((text.to_owned(), at));
        state.cut = None;
    }

    /// The time at which it was about to break the connection for `cuts`; `None` before that.
    pub fn cut(&self) -> Option<Instant> {
        self.state().cut
    }

    /// Returns the connections so far whose request headers have arrived.
    pub fn visits(&self) -> Vec<Visit> {
        self.state().visits.clone()
    }

    fn passes(&self, mut client: TcpStream, at: Instant) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let visit = Visit { at, head: String::from_utf8(head.clone()).unwrap(), answer: String::new(), heartbeats: 0 };
        let mut state = self.state();
        let number = state.visits.len();
        state.visits.push(visit);
        drop(self.state.1.wait_while(state, |state| state.holds).unwrap());

        let mut server = TcpStream::connect(self.server)?;
        server.write_all(&head)?;
        let (mut requests, mut server_too) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut requests, &mut server_too);
            let _ = server_too.shutdown(Shutdown::Both);
        });
        let result = self.answers(&mut server, &mut client, number);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
        result
    }

    /// Relays the server's bytes, until its end or the break.
    fn answers(&self, server: &mut TcpStream, client: &mut TcpStream, number: usize) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        let mut frame = Vec::new();
        loop {
            let mut heartbeats = 0;
            let read = server.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            let mut pass = read;
            let mut state = self.state();
            for (at, byte) in buffer[..read].iter().enumerate() {
                if *byte == b'\n' && frame.ends_with(b"\n") {
                    let text = String::from_utf8_lossy(&frame);
                    if let Some((_, cut)) = state.cuts_at.take_if(|(part, _)| text.contains(&**part)) {
                        pass = if cut == Cut::Within { at } else { at + 1 };
                        state.cut = Some(Instant::now());
                        break;
                    }
                    let has = |field| text.lines().any(|line| line.starts_with(field));
                    heartbeats += usize::from(has("id: ") && !has("data: "));
                    frame.clear();
                } else {
                    frame.push(*byte);
                    heartbeats += usize::from(frame == b":\n" || frame.ends_with(b"\n:\n"));
                }
            }
            drop(state);
            client.write_all(&buffer[..pass])?;
            // After it was relayed: a test that sees it here may break the connection, and it has still arrived.
            let mut state = self.state();
            let visit = &mut state.visits[number];
            visit.heartbeats += heartbeats;
            if visit.answer.len() < 1024 {
                visit.answer.push_str(&String::from_utf8_lossy(&buffer[..pass]));
            }
            drop(state);
            if pass < read {
                return Ok(());
            }
        }
    }
}
