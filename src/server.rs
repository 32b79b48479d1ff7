//! EventServer: one port for pages, posts and event streams, in the open.
//!
//! ```no_run
//! use server_sent_events::Publisher;
//! use server_sent_events::server::{EventServer, HandlerError, Request, Response};
//!
//! const PAGE: &str = r#"<form method="post" action="/news"><input name="text" autofocus></form><pre id="news"></pre>
//! <script>new EventSource("/news").onmessage = event => news.append(event.data + "\n")</script>"#;
//!
//! fn answer(publisher: &Publisher, request: &Request) -> Result<Response, HandlerError> {
//!     match (request.method(), request.path()) {
//!         ("GET", "/") => Ok(Response::html(PAGE)),
//!         ("GET", "/news") => Ok(publisher.subscribe()?.into()),
//!         ("POST", "/news") => {
//!             publisher.publish(request.form_value("text").unwrap_or_default());
//!             Response::redirect("/")
//!         }
//!         _ => Response::status(404),
//!     }
//! }
//!
//! let publisher = Publisher::new();
//! let server = EventServer::builder().max_body(64 * 1024).bind("127.0.0.1:5000")?;
//! server.serve(move |request| answer(&publisher, request))?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! `curl -d text=hello http://127.0.0.1:5000/news` then shows `hello` in each open page.
//!
//! # When to use which server
//!
//! * **This server** for one port in the open, or for many streams. It answers with event streams and with whole
//!   responses: pages, texts, JSON, bytes. A stream occupies one descriptor and no thread, even if its client does not
//!   read. The example `hub` is a program on this server alone.
//! * **tiny_http or rouille** for few streams in a trusted network, or in a program that uses them already.
//!
//! It has no TLS, no HTTP/2, no compression and no routes. For HTTPS, put a proxy in front: `docs/deployment.md` has
//! tested lines for nginx, HAProxy and Caddy. They pass the client's `Host` through, so a server on the loopback must
//! [know](EventServerBuilder::public_host) the public host. The lines also report the client's address, which
//! [`trust_forwarded_for`](EventServerBuilder::trust_forwarded_for) uses.
//!
//! # Threads
//!
//! One thread is the event loop: it accepts connections, reads requests, notices lost connections, and wakes streams
//! whose socket has room again. It never waits for a client and runs no code of the application.
//! [Four](EventServerBuilder::handler_threads) threads call the handler; requests with a body occupy at most three of
//! them, so that streams and pages are answered while posts are slow. One more thread ends the streams of lost
//! connections, and with it runs `on_end` hooks. The publisher's writer threads write the streams. Several publishers
//! can share one server.
//!
//! The server notices at once if a client closes its connection. A client that takes no data is disconnected after the
//! [write timeout](EventServerBuilder::write_timeout), which any progress restarts. A client that vanishes from the
//! network is noticed when TCP gives up, on Linux after about 15 minutes.
//!
//! # What it accepts
//!
//! HTTP/1.1 and HTTP/1.0. `GET` and `HEAD` have no body; other methods reach the handler once
//! [`max_body`](EventServerBuilder::max_body) is set. A body has a `Content-Length` or is chunked, and the handler gets
//! it whole or not at all. A connection stays open for further requests, except after a stream; requests that follow
//! each other are answered in order. An offered upgrade is ignored.
//!
//! Whatever parsers could understand differently is rejected, and the connection closed:
//!
//! | status | reason |
//! |---|---|
//! | 400 | a malformed request; one whose length is announced twice; a body that ends early; bytes after the request of a stream |
//! | 403 | a `Host` or an `Origin` that is [not allowed](crate::OriginPolicy) |
//! | 405 | another method than `GET` and `HEAD`, without `max_body` |
//! | 408 | a head or a body that does not arrive [in](EventServerBuilder::header_read_timeout) [time](EventServerBuilder::body_read_timeout) |
//! | 411 | an HTTP/1.0 request with a body of unknown length |
//! | 413 | a body longer than `max_body` |
//! | 417 | an expectation other than `100-continue` |
//! | 431 | a head longer than 8 KiB, or of more than 64 fields |
//! | 503 | a body for which the [memory of all bodies](EventServerBuilder::max_body_memory) has no room |
//! | 505 | another version |
//!
//! Any byte after the request of a stream ends the stream, and so does the end of the client's side of the connection,
//! unless the request was a `POST` whose handler still ran then.
//!
//! If the limit of connections or of open files is reached and another client connects, the server closes a connection
//! that neither the handler nor a stream has: one that waits for its next request, else the one with the least
//! progress. So incomplete requests cannot keep other clients out.

mod acceptor;
mod body;
mod body_budget;
mod builder;
mod connection;
mod deadlines;
mod encode;
mod event_loop;
mod handler_error;
mod handlers;
mod head;
mod notifier;
mod policy;
mod quota;
mod rejection;
mod request;
mod response;
mod transfer;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::Receiver;

pub use builder::EventServerBuilder;
/// For tests/fuzz, which gives a connection bytes without a socket.
#[cfg(sse_fuzz)]
#[doc(hidden)]
pub use connection::oracle::check as check_connection;
use event_loop::EventLoop;
pub use handler_error::HandlerError;
use handlers::Handlers;
use notifier::{Message, Notifier};
use policy::Policy;
use quota::Quota;
pub use request::{Request, RequestBuilder};
pub use response::Response;

/// The checked settings of a server.
#[derive(Debug)]
struct Config {
    policy: Policy,
    max_streams: usize,
    max_streams_per_ip: usize,
    handler_threads: usize,
    max_body: usize,
    max_body_memory: usize,
    max_requests_per_connection: usize,
    write_timeout: Duration,
    header_read_timeout: Duration,
    body_read_timeout: Duration,
    keep_alive_timeout: Duration,
    trusted_proxies: Vec<IpAddr>,
}

/// A server of event streams, pages and posts; see the [module](self).
pub struct EventServer {
    listener: mio::net::TcpListener,
    local_addr: SocketAddr,
    poll: mio::Poll,
    config: Config,
    notifier: Arc<Notifier>,
    inbox: Receiver<Message>,
}

impl EventServer {
    /// Binds a server with the default settings: only `GET` and `HEAD` reach the handler, see
    /// [`max_body`](EventServerBuilder::max_body).
    ///
    /// # Errors
    ///
    /// Returns the operating system's error for the last address.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Self::builder().bind(address)
    }

    /// Returns a builder for a server with other settings.
    ///
    /// ```
    /// use server_sent_events::server::EventServer;
    ///
    /// let server = EventServer::builder().allow_origin("https://example.org").bind("127.0.0.1:0")?;
    /// println!("streams on http://{}", server.local_addr());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn builder() -> EventServerBuilder {
        EventServerBuilder::new()
    }

    /// Returns the address the server is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns a handle that stops the server from any thread.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle { notifier: Arc::clone(&self.notifier) }
    }

    /// Answers requests on this thread until the server is [stopped](Self::stop_handle).
    ///
    /// Each request is given to the handler on one of a few [threads](EventServerBuilder::handler_threads). The handler
    /// may block for a short time: other requests wait if all these threads are busy, but streams continue. It is not
    /// called if the connection is lost meanwhile. If it panics, its request is answered with status 500.
    ///
    /// A handler with several kinds of responses is easiest as a function that returns `Result<Response, HandlerError>`.
    /// In a closure, the type of the error must be named.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if a thread cannot be started, before any request is answered, or if it
    /// does not report which sockets are ready.
    pub fn serve<R>(self, handler: impl Fn(&Request) -> R + Send + Sync + 'static) -> io::Result<()>
    where
        R: Into<Response>,
    {
        self.start(handler)?.run()
    }

    /// Answers requests as [`serve`](Self::serve) does, on a new thread.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if a thread cannot be started. All of the server's threads run when this
    /// returns.
    pub fn spawn<R>(self, handler: impl Fn(&Request) -> R + Send + Sync + 'static) -> io::Result<RunningServer>
    where
        R: Into<Response>,
    {
        let (local_addr, stop_handle) = (self.local_addr, self.stop_handle());
        let event_loop = self.start(handler)?;
        let thread = thread::Builder::new().name("sse event loop".into()).spawn(move || event_loop.run())?;
        Ok(RunningServer { local_addr, stop_handle, thread: Some(thread) })
    }

    /// Starts all threads but the event loop's.
    fn start<R>(self, handler: impl Fn(&Request) -> R + Send + Sync + 'static) -> io::Result<EventLoop>
    where
        R: Into<Response>,
    {
        let Self { listener, poll, config, notifier, inbox, .. } = self;
        let quota = Quota::new(config.max_streams, config.max_streams_per_ip);
        let handler = Arc::new(move |request: &Request| handler(request).into());
        let handlers = Handlers::start(config.handler_threads, handler, &quota)?;
        EventLoop::new(poll, listener, config, notifier, inbox, handlers)
    }
}

impl fmt::Debug for EventServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventServer").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// Stops an [`EventServer`] from any thread; from [`EventServer::stop_handle`].
#[derive(Clone, Debug)]
pub struct StopHandle {
    notifier: Arc<Notifier>,
}

impl StopHandle {
    /// Stops the server, without waiting for it.
    ///
    /// The server accepts no further connection and ends its streams after their queued events. After five seconds it
    /// closes the connections that have not taken them. To send a farewell first, and to spread the reconnections,
    /// [shut the publisher down](crate::Publisher::shutdown) before.
    pub fn stop(&self) {
        self.notifier.send(Message::Stop);
    }
}

/// A server that runs on its own thread; from [`EventServer::spawn`]. Dropping it stops the server and waits for its
/// end.
#[derive(Debug)]
#[must_use = "dropping it stops the server"]
pub struct RunningServer {
    local_addr: SocketAddr,
    stop_handle: StopHandle,
    /// `None` once it is joined.
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl RunningServer {
    /// Returns the address the server is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns a handle that stops the server from any thread.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop_handle.clone()
    }

    /// Returns whether the server still answers requests, or is not yet finished with stopping.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Waits until the server ends: because it is [stopped](Self::stop_handle), or because of an error.
    ///
    /// # Errors
    ///
    /// Returns the error that ended the server without a stop. The feature `log` logs it too.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    /// use server_sent_events::server::EventServer;
    ///
    /// let publisher = Publisher::new();
    /// let server = EventServer::bind("127.0.0.1:0")?.spawn(move |request| {
    ///     publisher.subscription(()).last_event_id(request.last_event_id()).open()
    /// })?;
    /// let stop_handle = server.stop_handle();
    /// std::thread::spawn(move || stop_handle.stop());
    /// server.join()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn join(mut self) -> io::Result<()> {
        self.wait()
    }

    /// Stops the server as [`StopHandle::stop`] does, and waits until it has ended.
    ///
    /// It waits for handlers and `on_end` hooks that still run: neither may call this, or drop the server.
    ///
    /// # Errors
    ///
    /// Returns the error that had ended the server before.
    pub fn stop(mut self) -> io::Result<()> {
        self.stop_handle.stop();
        self.wait()
    }

    fn wait(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(io::Error::other("BUG: the event loop panicked")))
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.stop_handle.stop();
        // The error has been logged.
        let _ = self.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_that_ended_a_server_is_returned() {
        let ended = || {
            let EventServer { local_addr, notifier, .. } = EventServer::bind("127.0.0.1:0").unwrap();
            let thread = thread::spawn(|| Err(io::Error::other("as it should")));
            RunningServer { local_addr, stop_handle: StopHandle { notifier }, thread: Some(thread) }
        };
        assert_eq!(ended().join().unwrap_err().to_string(), "as it should");
        assert_eq!(ended().stop().unwrap_err().to_string(), "as it should");
    }
}
