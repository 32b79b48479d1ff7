//! A `tiny_http::Server` with a listener for event streams, whose connections do not starve.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use tiny_http::{ListenAddr, Listener, Request};

use super::ServerBuilder;
use crate::adapter::nudge::{Nudger, Target};
use crate::error::InvalidSetting;
use crate::log::RateLimitedLog;
use crate::queue::drop_caught;

/// A [`tiny_http::Server`] that is set up for event streams.
///
/// [`serve`](Self::serve) answers requests on several threads until the server is [stopped](Self::stop_handle). A
/// program that needs only one thread can loop over [`incoming_requests`](Self::incoming_requests), which ends at a
/// stop too.
///
/// [`from_listener`](Self::from_listener) takes a socket that listens already, of TCP or of Unix.
///
/// The listener has socket options that `tiny_http::Server::http` does not set, and connections inherit them:
///
/// | option | value | why |
/// |---|---|---|
/// | backlog | 4,096 | all pages reconnect at once after a restart; with the usual backlog of 128, further connections time out |
/// | `TCP_NODELAY` | on | an event does not wait for the acknowledgement of the one before |
/// | keep-alive | after 60 s, then every 15 s | finds clients that vanished |
/// | `TCP_USER_TIMEOUT` (Linux) | 30 s | a write to a client that acknowledges nothing fails after that |
/// | `TCP_NOTSENT_LOWAT` (Linux) | 64 KiB | a slow client is found after 193 KB instead of 3.9 MB, and its events are less stale |
///
/// It also keeps streams from starving. `tiny_http` has a pool with a thread per connection. It can queue a new
/// connection behind one that never ends, even if only ten open together. The new connection then gets no byte. Any
/// further connection makes `tiny_http` take up one that waits. So for a moment after each request a thread connects to
/// the server and closes the connection. It does so five times after a single request, at most 500 times per second
/// while requests arrive, and never while the server is idle.
pub struct Server {
    /// Declared first, so that it ends before the server.
    nudger: Nudger,
    /// Stop handles refer to it weakly, so that the port is free once this is dropped.
    server: Arc<tiny_http::Server>,
    /// Set before the server is unblocked for a stop.
    is_stopped: Arc<AtomicBool>,
    /// The threads in all calls of `serve`.
    serving: AtomicUsize,
    warnings: RateLimitedLog,
}

impl Server {
    /// Binds a server to the first of these addresses that can be bound. Port 0 takes a free port.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error for the last address, or its error if a thread cannot be started.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Self::builder().bind(address)
    }

    /// Returns a builder for a server with other settings.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    /// Creates a server for a socket that listens already: one that systemd has opened for the program, or a Unix
    /// socket.
    ///
    /// A TCP listener gets the options above, except for the backlog: it keeps its own. It becomes blocking, since
    /// `tiny_http` needs that. The example `activated` takes its socket from systemd.
    ///
    /// A Unix socket must be bound to a path. Its clients are local programs, such as a proxy: their requests have no
    /// [`remote_addr`](Request::remote_addr), and there is no [`local_addr`](Self::local_addr). A client that does not
    /// read blocks a writer thread until it ends, because a Unix socket has no `TCP_USER_TIMEOUT`.
    ///
    /// **Dropping the server removes the file of a Unix socket**, even if another program has created it: `tiny_http`
    /// does that. To keep the file, end the program without dropping the server
    /// ([`forget`](std::mem::forget) it).
    ///
    /// # Errors
    ///
    /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) for a Unix socket without a path, or the operating
    /// system's error if an option cannot be set or a thread cannot be started.
    ///
    /// ```no_run
    /// use server_sent_events::{Publisher, adapter::tiny_http::Server};
    /// # #[cfg(unix)]
    /// use std::os::unix::net::UnixListener;
    ///
    /// # #[cfg(unix)]
    /// # fn main() -> std::io::Result<()> {
    /// // curl -N --unix-socket events.sock http://localhost/
    /// let publisher = Publisher::new();
    /// for request in Server::from_listener(UnixListener::bind("events.sock")?)?.incoming_requests() {
    ///     publisher.respond(request)?;
    /// }
    /// # Ok(())
    /// # }
    /// # #[cfg(not(unix))]
    /// # fn main() {}
    /// ```
    pub fn from_listener(listener: impl Into<Listener>) -> io::Result<Self> {
        Self::builder().from_listener(listener)
    }

    /// Binds a server as [`bind`](Self::bind) does, and encrypts all connections with TLS.
    ///
    /// The certificate, followed by the chain to its root, and the private key are in the format PEM.
    ///
    /// **This is for a trusted network**, as all of `tiny_http` is; on the open internet, put a proxy in front.
    /// `tiny_http` performs each handshake on the thread that accepts connections, without a time limit. So one client
    /// that connects and sends nothing keeps all further clients out, for as long as it likes. Streams that have begun
    /// continue.
    ///
    /// The feature `tiny_http_openssl` uses the OpenSSL of the system, which the system updates. Building needs its
    /// headers and `pkg-config` (Debian: `libssl-dev`). `tiny_http` 0.12 could use rustls instead, but only version
    /// 0.20, which gets no more fixes: a client can make it loop forever (RUSTSEC-2024-0336). So this crate does not
    /// support that. The two exclude each other: a program that enables `ssl-rustls` of `tiny_http` or `rustls` of
    /// rouille does not compile with this feature.
    ///
    /// A handshake also is part of each connection that keeps streams from starving. So there are at most 30 of those
    /// per second, and three after a single request.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`bind`](Self::bind), and OpenSSL's error if the certificate or the key cannot be read, or
    /// if they do not belong together.
    ///
    /// ```no_run
    /// use server_sent_events::{Publisher, adapter::tiny_http::Server};
    /// use std::fs;
    /// use tiny_http::SslConfig;
    ///
    /// // curl -N -k https://localhost:5000/
    /// let publisher = Publisher::new();
    /// let tls = SslConfig { certificate: fs::read("events.pem")?, private_key: fs::read("events.key")? };
    /// for request in Server::https("127.0.0.1:5000", tls)?.incoming_requests() {
    ///     publisher.respond(request)?;
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(feature = "tiny_http_openssl")]
    pub fn https(address: impl ToSocketAddrs, config: tiny_http::SslConfig) -> io::Result<Self> {
        Self::builder().tls(config).bind(address)
    }

    /// Starts the nudges for a server that runs already.
    pub(super) fn start(server: tiny_http::Server, target: Target) -> io::Result<Self> {
        Ok(Self {
            nudger: Nudger::start(target)?,
            server: Arc::new(server),
            is_stopped: Arc::default(),
            serving: AtomicUsize::new(0),
            warnings: RateLimitedLog::new(),
        })
    }

    /// Returns the address the server is bound to.
    ///
    /// # Errors
    ///
    /// Returns [`Unsupported`](io::ErrorKind::Unsupported) if the server listens on a Unix socket;
    /// [`tiny_http::Server::server_addr`] returns its path.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.server.server_addr() {
            ListenAddr::IP(address) => Ok(address),
            #[cfg(unix)]
            ListenAddr::Unix(_) => {
                let text = "the server listens on a Unix socket: it has no IP address";
                Err(io::Error::new(io::ErrorKind::Unsupported, text))
            }
        }
    }

    /// Returns the [`tiny_http::Server`] below.
    ///
    /// Do not receive requests from it: streams may starve then, because this server does not see the requests.
    pub fn get_ref(&self) -> &tiny_http::Server {
        &self.server
    }

    /// Answers requests with the handler on this thread and `threads - 1` others, and blocks until the server is
    /// [stopped](Self::stop_handle).
    ///
    /// The handler may block for a short time: other requests wait then if all threads are busy. It returns the result
    /// of answering the request, such as that of [`Request::respond`] or
    /// [`Publisher::respond`](crate::Publisher::respond). The feature `log` logs an error. If the handler panics, the
    /// request is answered with status 500 unless it has a response, the feature `log` logs the panic, and the thread
    /// continues.
    ///
    /// Requests that arrived before the stop are answered. A handler that still runs is waited for.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) for 0 threads, or the operating system's error if a thread
    /// cannot be started, or if no further connection can be accepted.
    ///
    /// ```
    /// use server_sent_events::{Publisher, adapter::tiny_http::Server};
    /// use std::{thread, time::Duration};
    ///
    /// let publisher = Publisher::new();
    /// let server = Server::bind("127.0.0.1:0")?;
    /// let stop_handle = server.stop_handle();
    /// let streams = publisher.clone();
    /// thread::spawn(move || {
    ///     // At a signal that ends the program.
    ///     streams.shutdown(Duration::from_secs(10));
    ///     stop_handle.stop();
    /// });
    /// server.serve(4, |request| publisher.respond(request))?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn serve(&self, threads: usize, handler: impl Fn(Request) -> io::Result<()> + Sync) -> io::Result<()> {
        InvalidSetting::check("threads", threads == 0)?;
        if self.is_stopped.load(Relaxed) {
            return Ok(());
        }
        self.serving.fetch_add(1, Relaxed);
        let answer = || self.answer_requests(&handler);
        thread::scope(|scope| {
            let mut others = Vec::new();
            let mut result = Ok(());
            for _ in 1..threads {
                self.serving.fetch_add(1, Relaxed);
                let thread = thread::Builder::new().name("tiny_http handler".into());
                match thread.spawn_scoped(scope, answer) {
                    Ok(thread) => others.push(thread),
                    Err(error) => {
                        self.serving.fetch_sub(1, Relaxed);
                        result = Err(error);
                        self.server.unblock();
                        break;
                    }
                }
            }
            result = result.and(answer());
            for thread in others {
                let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("BUG: a handler thread panicked")));
                result = result.and(ended);
            }
            result
        })
    }

    /// Answers requests until the server is unblocked or no longer accepts connections.
    fn answer_requests(&self, handler: &(impl Fn(Request) -> io::Result<()> + Sync)) -> io::Result<()> {
        let error = loop {
            match self.recv() {
                Ok(request) => self.answer(request, handler),
                Err(error) => break error,
            }
        };
        // Each thread passes the end on to the next, and the last one to nobody. So no later call of `recv` sees it.
        if self.serving.fetch_sub(1, Relaxed) > 1 {
            self.server.unblock();
        }
        // If it was unblocked, the error is not the operating system's.
        if error.raw_os_error().is_some() { Err(error) } else { Ok(()) }
    }

    /// Calls the handler. Its panic has been reported by the panic hook, and ends no thread.
    fn answer(&self, request: Request, handler: &impl Fn(Request) -> io::Result<()>) {
        match catch_unwind(AssertUnwindSafe(|| handler(request))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.warnings.no_response(&error),
            Err(payload) => {
                drop_caught(payload);
                self.warnings.handler_panicked();
            }
        }
    }

    /// Returns a handle that stops [`serve`](Self::serve) and a loop over
    /// [`incoming_requests`](Self::incoming_requests) from any thread.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle { server: Arc::downgrade(&self.server), is_stopped: Arc::clone(&self.is_stopped) }
    }

    /// Wakes one thread that waits for a request, or the next one that does, as [`tiny_http::Server::unblock`] does.
    pub fn unblock(&self) {
        self.server.unblock();
    }

    /// Returns the next request, as [`tiny_http::Server::recv`] does. Blocks until there is one.
    ///
    /// # Errors
    ///
    /// Returns an error if the server was [unblocked](Self::unblock) or [stopped](Self::stop_handle), or if it reports
    /// that it no longer accepts connections. Without a free descriptor it usually stops without reporting it.
    pub fn recv(&self) -> io::Result<Request> {
        let request = self.server.recv()?;
        self.nudger.request_arrived(request.remote_addr().copied());
        Ok(request)
    }

    /// Returns the next request, if one arrives within this time, as [`tiny_http::Server::recv_timeout`] does.
    ///
    /// # Errors
    ///
    /// Returns an error if the server no longer accepts connections.
    pub fn recv_timeout(&self, timeout: Duration) -> io::Result<Option<Request>> {
        let request = self.server.recv_timeout(timeout)?;
        request.iter().for_each(|request| self.nudger.request_arrived(request.remote_addr().copied()));
        Ok(request)
    }

    /// Returns the next request, if one has arrived, as [`tiny_http::Server::try_recv`] does.
    ///
    /// # Errors
    ///
    /// Returns an error if the server no longer accepts connections.
    pub fn try_recv(&self) -> io::Result<Option<Request>> {
        let request = self.server.try_recv()?;
        request.iter().for_each(|request| self.nudger.request_arrived(request.remote_addr().copied()));
        Ok(request)
    }

    /// Returns an iterator over the requests, which blocks until the next one.
    ///
    /// It ends when the server is [stopped](Self::stop_handle), or when [`recv`](Self::recv) returns an error. A stop
    /// ends one such loop; use [`serve`](Self::serve) to answer requests on several threads.
    pub fn incoming_requests(&self) -> IncomingRequests<'_> {
        IncomingRequests { server: self }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("local_addr", &self.server.server_addr()).finish_non_exhaustive()
    }
}

/// Stops [`Server::serve`], or a loop over [`Server::incoming_requests`], from any thread; from
/// [`Server::stop_handle`].
#[derive(Clone)]
pub struct StopHandle {
    server: Weak<tiny_http::Server>,
    is_stopped: Arc<AtomicBool>,
}

impl StopHandle {
    /// Makes [`Server::serve`] return, or ends a loop over [`Server::incoming_requests`]. Does not wait for it.
    ///
    /// A later call of `serve` returns at once. Streams and connections continue:
    /// [shut the publisher down](crate::Publisher::shutdown) before, and drop the server afterwards.
    ///
    /// ```
    /// use server_sent_events::{Publisher, adapter::tiny_http::Server};
    /// use std::{thread, time::Duration};
    ///
    /// let publisher = Publisher::new();
    /// let server = Server::bind("127.0.0.1:0")?;
    /// let (streams, stop_handle) = (publisher.clone(), server.stop_handle());
    /// thread::spawn(move || {
    ///     streams.shutdown(Duration::from_secs(10));
    ///     stop_handle.stop();
    /// });
    /// for request in server.incoming_requests() {
    ///     publisher.respond(request)?;
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stop(&self) {
        if !self.is_stopped.swap(true, Relaxed)
            && let Some(server) = self.server.upgrade()
        {
            server.unblock();
        }
    }
}

impl fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopHandle").finish_non_exhaustive()
    }
}

/// An iterator over the requests of a server; from [`Server::incoming_requests`].
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
