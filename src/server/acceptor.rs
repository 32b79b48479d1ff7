//! The listening socket, and the pauses after it failed.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::log::RateLimitedLog;

const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts connections, with pauses after failures.
pub(super) struct Acceptor {
    /// `None` once it is closed.
    listener: Option<TcpListener>,
    /// A connection that was accepted, and for which there was no room.
    held: Option<(TcpStream, SocketAddr)>,
    paused_until: Option<Instant>,
    next_pause: Duration,
    warnings: RateLimitedLog,
}

/// The result of an attempt to accept a connection.
pub(super) enum Accepted {
    Connection(TcpStream, SocketAddr),
    /// No connection is waiting.
    None,
    /// No descriptor or memory is left for now.
    Failed(io::Error),
}

impl Acceptor {
    pub(super) fn new(mut listener: TcpListener, registry: &Registry, token: Token) -> io::Result<Self> {
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Self {
            listener: Some(listener),
            held: None,
            paused_until: None,
            next_pause: SHORTEST_PAUSE,
            warnings: RateLimitedLog::new(),
        })
    }

    pub(super) fn accept(&mut self) -> Accepted {
        if let Some((socket, peer_addr)) = self.held.take() {
            return Accepted::Connection(socket, peer_addr);
        }
        let Some(listener) = &self.listener else { return Accepted::None };
        loop {
            match listener.accept() {
                Ok((socket, peer_addr)) => {
                    self.next_pause = SHORTEST_PAUSE;
                    return Accepted::Connection(socket, peer_addr);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Accepted::None,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return Accepted::Failed(error),
                },
            }
        }
    }

    /// Pauses after a failure, twice as long each time. Another part of the program may hold the descriptors.
    pub(super) fn back_off(&mut self, error: &io::Error) {
        self.warnings.no_accept(error);
        self.paused_until = Some(Instant::now() + self.next_pause);
        self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
    }

    /// Keeps a connection for which there is no room until another one closes, or may be closed. Pauses until then, for
    /// at most a second.
    pub(super) fn hold(&mut self, socket: TcpStream, peer_addr: SocketAddr) {
        if self.listener.is_none() {
            return;
        }
        self.held = Some((socket, peer_addr));
        self.paused_until = Some(Instant::now() + LONGEST_PAUSE);
    }

    /// Accepts again in the next round of the event loop.
    pub(super) fn resume_soon(&mut self) {
        self.paused_until = Some(Instant::now());
    }

    /// Ends a pause in the next round of the event loop, if there is one.
    pub(super) fn end_pause(&mut self) {
        if self.paused_until.is_some() {
            self.resume_soon();
        }
    }

    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Ends the pause if it is over. Returns whether it ended.
    pub(super) fn resume_if_due(&mut self, now: Instant) -> bool {
        self.paused_until.take_if(|until| *until <= now).is_some()
    }

    /// Closes the listening socket, which frees its port.
    pub(super) fn close(&mut self, registry: &Registry) {
        if let Some(mut listener) = self.listener.take() {
            let _ = registry.deregister(&mut listener);
        }
        self.held = None;
        self.paused_until = None;
    }
}
