//! A `tiny_http::Server` whose listener is set up for event streams, and whose connections do not starve.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Deref;
use std::time::Duration;

use tiny_http::Request;

use crate::adapter::nudge::Nudger;
use crate::sockets;

/// A [`tiny_http::Server`] that is fit for event streams, to which it dereferences.
///
/// What `tiny_http::Server::http` leaves out is set on the listener, from which accepted connections inherit it:
///
/// | option | value | why |
/// |---|---|---|
/// | backlog | 4,096 | all pages reconnect at once after a restart; 128 connections would wait, the others time out |
/// | `TCP_NODELAY` | on | an event is not held back for the acknowledgement of the one before |
/// | keep-alive | after 60 s, then each 15 s | finds peers that are gone without a word |
/// | `TCP_USER_TIMEOUT` (Linux) | 30 s | a write to a peer that acknowledges nothing fails after that |
/// | `TCP_NOTSENT_LOWAT` (Linux) | 64 KiB | a slow client is found after 193 KB instead of 3.9 MB, and so gets less stale |
///
/// It also keeps streams from starving. `tiny_http` has a pool with a thread for each connection. It can
/// put a new connection behind one that never ends, so that it gets no byte, ever: up to 220 of 1,000 streams that
/// opened together, and of ten some now and then. Any further connection makes the pool take up one that waits, so for as
/// long as requests have come in lately a thread connects to the server and hangs up, and each request that comes of it
/// counts as one: five times after a request that comes alone, up to 500 times a second while they keep coming. An
/// idle server costs nothing.
pub struct Server {
    /// Dropped first, so that it ends before the server.
    nudger: Nudger,
    server: tiny_http::Server,
}

impl Server {
    /// Binds to the first of these addresses that can be bound; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// What the operating system says of the last address, or that a thread cannot be started.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let listener = sockets::listen_on(address, sockets::Options::default())?;
        let nudger = Nudger::start(listener.local_addr()?)?;
        let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        Ok(Self { nudger, server })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.server_addr().to_ip().expect("BUG: bound to an IP address")
    }

    /// Blocks until a request has come, as [`tiny_http::Server::recv`].
    ///
    /// # Errors
    ///
    /// When the server was [unblocked](tiny_http::Server::unblock), or says that it accepts no connections any more;
    /// without a free descriptor it mostly stops without saying so.
    pub fn recv(&self) -> io::Result<Request> {
        let request = self.server.recv()?;
        self.nudger.request_arrived();
        Ok(request)
    }

    /// A request, if one comes within this time, as [`tiny_http::Server::recv_timeout`].
    ///
    /// # Errors
    ///
    /// When the server accepts no connections any more.
    pub fn recv_timeout(&self, timeout: Duration) -> io::Result<Option<Request>> {
        let request = self.server.recv_timeout(timeout)?;
        request.iter().for_each(|_| self.nudger.request_arrived());
        Ok(request)
    }

    /// A request, if one has come already, as [`tiny_http::Server::try_recv`].
    ///
    /// # Errors
    ///
    /// When the server accepts no connections any more.
    pub fn try_recv(&self) -> io::Result<Option<Request>> {
        let request = self.server.try_recv()?;
        request.iter().for_each(|_| self.nudger.request_arrived());
        Ok(request)
    }

    /// Blocks for each request, and ends when [`recv`](Self::recv) gives an error.
    pub fn incoming_requests(&self) -> IncomingRequests<'_> {
        IncomingRequests { server: self }
    }
}

impl Deref for Server {
    type Target = tiny_http::Server;

    fn deref(&self) -> &tiny_http::Server {
        &self.server
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("local_addr", &self.local_addr()).finish_non_exhaustive()
    }
}

/// Blocks for each request; from [`Server::incoming_requests`].
#[derive(Debug)]
pub struct IncomingRequests<'a> {
    server: &'a Server,
}

impl Iterator for IncomingRequests<'_> {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        self.server.recv().ok()
    }
}
