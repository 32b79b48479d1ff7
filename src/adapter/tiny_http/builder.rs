//! The settings of a `Server`.

use std::fmt;
use std::io;
use std::net::ToSocketAddrs;

use socket2::SockRef;
use tiny_http::{Listener, SslConfig};

use super::Server;
use crate::adapter::nudge::Target;
use crate::sockets::{self, Options};

/// The settings of a [`Server`]; from [`Server::builder`].
///
/// ```
/// use server_sent_events::adapter::tiny_http::Server;
///
/// let server = Server::builder().notsent_lowat(16 * 1024).bind("127.0.0.1:0")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `bind` or `from_listener`"]
pub struct ServerBuilder {
    sockets: Options,
    tls: Option<SslConfig>,
}

impl ServerBuilder {
    pub(super) fn new() -> Self {
        Self { sockets: Options::default(), tls: None }
    }

    /// Makes buffers small, so that a slow client reads fresh values: [`send_buffer_size`](Self::send_buffer_size) 8 KiB,
    /// [`notsent_lowat`](Self::notsent_lowat) 4 KiB.
    ///
    /// What the kernel has taken can no longer be replaced by a newer value. With the default buffers it takes more than
    /// 64 KiB, which a client that reads 4 KB/s gets 16 s later. With small ones the rest waits in the subscriber's
    /// queue, where [`Overflow::LatestPerKey`](crate::Overflow::LatestPerKey) keeps the newest event of each key. The
    /// price: a distant client gets about 8 KiB per round trip, which is 80 KB/s at 100 ms. It does not affect a Unix
    /// socket.
    ///
    /// ```
    /// use server_sent_events::{Overflow, Publisher, adapter::tiny_http::Server};
    ///
    /// let publisher = Publisher::builder().overflow(Overflow::LatestPerKey).build()?;
    /// let server = Server::builder().fresh_values().bind("127.0.0.1:0")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fresh_values(mut self) -> Self {
        self.sockets.keep_fresh();
        self
    }

    /// Sets the size of the kernel's send buffer per connection (`SO_SNDBUF`; Linux doubles it).
    ///
    /// Data in this buffer cannot be withdrawn. A small buffer detects a slow client sooner and keeps less stale data
    /// for it. A large one is faster to a distant client. Defaults to the kernel's choice, up to about 4 MiB. It does
    /// not affect a Unix socket.
    pub fn send_buffer_size(mut self, bytes: usize) -> Self {
        self.sockets.send_buffer_size = Some(bytes);
        self
    }

    /// Sets how many bytes the kernel takes that it cannot send yet (`TCP_NOTSENT_LOWAT`, on Linux). Defaults to 64
    /// KiB.
    ///
    /// It works as [`send_buffer_size`](Self::send_buffer_size) does, but does not limit fast clients: data that is
    /// sent and not yet acknowledged does not count. It does not affect a Unix socket.
    pub fn notsent_lowat(mut self, bytes: u32) -> Self {
        self.sockets.notsent_lowat = bytes;
        self
    }

    /// Encrypts all connections with TLS, as [`Server::https`] does, whose documentation has the limits of that.
    #[cfg(feature = "tiny_http_openssl")]
    pub fn tls(mut self, config: SslConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Binds a server to the first of these addresses that can be bound. Port 0 takes a free port.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Server::bind`], and with TLS those of [`Server::https`].
    pub fn bind(self, address: impl ToSocketAddrs) -> io::Result<Server> {
        let listener = sockets::listen_on(address, self.sockets)?;
        let target = Target::tcp(listener.local_addr()?);
        self.start(listener.into(), target)
    }

    /// Creates a server for a socket that listens already, as [`Server::from_listener`] does, with these settings.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Server::from_listener`], and with TLS those of [`Server::https`].
    pub fn from_listener(self, listener: impl Into<Listener>) -> io::Result<Server> {
        let listener = listener.into();
        let target = match &listener {
            Listener::Tcp(listener) => {
                // `tiny_http` ends for good if `accept` returns without a connection.
                listener.set_nonblocking(false)?;
                sockets::set_options(SockRef::from(listener), self.sockets)?;
                Target::tcp(listener.local_addr()?)
            }
            #[cfg(unix)]
            Listener::Unix(listener) => {
                listener.set_nonblocking(false)?;
                let address = listener.local_addr()?;
                // `tiny_http` panics for other addresses when it is dropped.
                let path = address.as_pathname().ok_or_else(|| {
                    let text = "unsupported Unix socket: bind it to a path";
                    io::Error::new(io::ErrorKind::InvalidInput, text)
                })?;
                Target::unix(path)?
            }
        };
        self.start(listener, target)
    }

    fn start(self, listener: Listener, target: Target) -> io::Result<Server> {
        #[cfg(feature = "tiny_http_openssl")]
        let target = if self.tls.is_some() { target.with_tls()? } else { target };
        let server = tiny_http::Server::from_listener(listener, self.tls).map_err(io::Error::other)?;
        Server::start(server, target)
    }
}

impl fmt::Debug for ServerBuilder {
    /// Leaves out the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}
