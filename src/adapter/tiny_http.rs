//! Event streams as responses to requests of [`tiny_http`](https://docs.rs/tiny_http/0.12) 0.12.
//!
//! ```no_run
//! use server_sent_events::{Publisher, adapter::tiny_http::Server};
//!
//! let publisher = Publisher::new();
//! let server = Server::bind("127.0.0.1:5000")?;
//! for request in server.incoming_requests() {
//!     publisher.respond(request)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To answer other paths too, add the crate itself (`cargo add tiny_http@0.12`) for its `Response` and `Header`. The
//! example `visits` serves a page and its stream.
//!
//! # What it promises
//!
//! * **Each event is sent at once.** `tiny_http`'s own `respond` holds a body back until it has 8 KiB.
//! * **The client sees the end of the stream.**
//! * **Lost connections are noticed.** If a client closes its connection, within two heartbeats. If it vanishes, when
//!   TCP gives up: on Linux 30 s after the first byte that was not acknowledged. If it does not read, when the kernel's
//!   buffers and its queue are full.
//! * **A stream never blocks the thread that answers requests.**
//!
//! Linux resets a client whose receive window stays below one segment for 30 s, even if it reads steadily.
//!
//! # Threads
//!
//! `tiny_http` has a thread per connection. A stream also occupies a writer thread while a write to it is blocked, up
//! to [`max_writer_threads`](crate::PublisherBuilder::max_writer_threads).
//!
//! The first write waits for the request's body, and for the responses to earlier requests on the same connection. So a
//! client can block it for as long as it likes. At most half of the writer threads may be blocked in a first write.
//! Beyond that, new streams are answered [busy](crate::Publisher::respond_busy) until one of these writes ends. Streams
//! that have begun continue. If several streams begin at once, some wait for a moment, because at most a quarter of the
//! threads serve streams that began within the last second. A stream that has waited for 30 s, or is disconnected while
//! it waits, is answered busy too.
//!
//! While half of the writer threads are blocked, separate threads write the busy responses: one per client whose body
//! has not arrived, and at most 1,000. Further responses wait. Requests that a client sends ahead on a blocked
//! connection stay in memory until they are answered, without a limit.
//!
//! # Bodies of requests
//!
//! Read them with [`read_body`]: it returns a whole body, or an error with a status. The server's own reader reports a
//! truncated body as if it were whole. If the client offers an upgrade, that reader ends only with the connection.
//! Answer an error with its status, not with `?`: that would end the loop of all requests because of one.
//! `read_body` rejects chunked bodies with status 411: `curl -T -` and a `fetch` whose body is a stream send them.
//!
//! # Foreign pages
//!
//! A page of any website can send requests to a server on the same machine or in the same network, and can publish if a
//! `POST` does. Build an [`OriginPolicy`](crate::OriginPolicy), and call [`check_origin`] before anything else:
//!
//! ```no_run
//! use server_sent_events::adapter::tiny_http::{Server, check_origin};
//! use server_sent_events::{OriginPolicy, Publisher};
//! use tiny_http::Response;
//!
//! let publisher = Publisher::new();
//! let server = Server::bind("127.0.0.1:5000")?;
//! let policy = OriginPolicy::builder().build(server.local_addr()?)?;
//! for request in server.incoming_requests() {
//!     match check_origin(&request, &policy) {
//!         Ok(()) => publisher.respond(request)?,
//!         Err(refused) => {
//!             request.respond(Response::from_string(refused.to_string()).with_status_code(refused.status()))?;
//!         }
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Behind a proxy, name the [public host](crate::OriginPolicyBuilder::public_host).
//!
//! # What it cannot promise
//!
//! `tiny_http` 0.12 is a server for a trusted network, and this crate cannot change some of that from outside. On the
//! open internet, put a proxy in front that reads each request completely before it passes it on (`docs/deployment.md`
//! has the lines for nginx). If the proxy asks for `Connection: close`, a stream also occupies no thread of
//! `tiny_http`. Without a proxy, a client can:
//!
//! * **Abort the program** with a request whose `Content-Length` is enormous, whatever its method. `tiny_http`
//!   allocates that much memory when the request is dropped. From 1,025 bytes on, dropping or answering a request waits
//!   for its body.
//! * **Block a thread that answers requests**, without a time limit. Two kinds of requests do that. One announces a
//!   body that does not arrive. The other is a second request on the connection of a running stream, because its
//!   response waits for the stream's end. As many such requests as there are answering threads stop the program. If the
//!   response is a stream or a [busy response](crate::Publisher::respond_busy), a writer thread waits instead. Clients
//!   that block half of the [writer threads](#threads) keep further streams from beginning; running streams continue.
//! * **Occupy threads forever** with half a request, for which there is no timeout, or with a request line that ends in
//!   `HTTP/2.0`.
//!
//! **Without a free file descriptor the server stops accepting connections for good**, usually without an error. It
//! needs two descriptors per connection, so keep [`max_subscribers`](crate::PublisherBuilder::max_subscribers) below
//! half of the limit of open files.
//!
//! If a request header is not ASCII (`Cookie: name=Zoë`), `tiny_http` closes the connection without a response, and the
//! program never sees the request. Encode what a page puts into cookies and headers, for example with
//! `encodeURIComponent`.
//!
//! A client that speaks HTTP/1.0 and asks for a persistent connection (`ab -k` does) cannot see the end of its stream.
//! HTTP/1.0 ends a body by closing the connection, and `tiny_http` does not close it then.

use std::io;
use std::time::{Duration, SystemTime};

use tiny_http::{Header, Method, Request, Response};

use crate::deliver::{Output, Writer};
use crate::http::{self, ResponseHeaders};
use crate::publish::{Publisher, SubscriptionBuilder};
use crate::subscription::Subscription;

use lazy_writer::LazyWriter;

mod builder;
mod lazy_writer;
mod refusal;
mod request;
mod server;

pub use builder::ServerBuilder;
pub use request::{check_origin, last_event_id, read_body};
pub use server::{IncomingRequests, Server, StopHandle};

/// The shortest time after which a refused client reconnects.
const RETRY: Duration = Duration::from_secs(5);

/// The timeout of a stream that waits to begin.
const START_TIMEOUT: Duration = Duration::from_secs(30);

impl Subscription {
    /// Answers the request with this stream. Returns at once.
    ///
    /// This does **not** resume, because the subscription is open already. With a history use
    /// [`SubscriptionBuilder::respond`], which takes the client's last event ID from the request.
    ///
    /// The response has status 200 and the headers that an event stream needs. Its body begins with a comment, then
    /// carries every frame, and ends with the stream. A `HEAD` request gets the head alone. The stream is [written in
    /// the background](Self::write_in_background): the publisher's writer threads take the connection over and write to
    /// it, since both may wait for the client. If half of them are [blocked in a first
    /// write](crate::adapter::tiny_http#threads), the subscription is dropped, and the response is a [busy
    /// response](Publisher::respond_busy) for 5 seconds.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if no writer thread can be started. The subscription is then dropped, and
    /// the request gets a busy response as soon as a thread can be started for it.
    pub fn respond(self, request: Request) -> io::Result<()> {
        self.respond_with_headers(request, &ResponseHeaders::new())
    }

    /// Answers as [`respond`](Self::respond) does, with additional headers. Returns at once.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`respond`](Self::respond).
    ///
    /// ```no_run
    /// use server_sent_events::{ResponseHeaders, Publisher, adapter::tiny_http::Server};
    ///
    /// let publisher = Publisher::new();
    /// let headers = ResponseHeaders::new().with("Access-Control-Allow-Origin", "https://example.org")?;
    /// for request in Server::bind("127.0.0.1:5000")?.incoming_requests() {
    ///     let subscription = publisher.subscription(()).last_event_id_from(&request).open()?;
    ///     subscription.respond_with_headers(request, &headers)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn respond_with_headers(mut self, request: Request, headers: &ResponseHeaders) -> io::Result<()> {
        if !self.can_begin() {
            self.count_refused();
            refuse(request, RETRY, headers);
            return Ok(());
        }
        let (head, mut chunked) = head(&request, headers);
        if *request.method() == Method::Head {
            // The stream ends unsent. Its body is not even an empty chunk.
            self.end_unsent();
            chunked = false;
        } else {
            self.begin_with_comment();
        }
        let writer = Writer::Blocks(Box::new(LazyWriter::new(request, headers)), None);
        let write_timeout = Some(START_TIMEOUT);
        self.write(Output { writer, write_timeout, head, chunked, can_refuse: true, on_end: None })
    }
}

/// Returns the head of an event stream, and whether its body is chunked.
fn head(request: &Request, headers: &ResponseHeaders) -> (Vec<u8>, bool) {
    let chunked = *request.http_version() >= (1, 1);
    let says_close = |header: &Header| {
        header.field.equiv("Connection") && header.value.as_str().to_ascii_lowercase().contains("close")
    };
    let keep_alive = !request.headers().iter().any(says_close);
    let date = httpdate::fmt_http_date(SystemTime::now());
    (http::head(chunked, keep_alive, Some(&date), headers).into_bytes(), chunked)
}

/// Answers the request with a busy response that no writer thread writes. Does not block.
fn refuse(request: Request, retry: Duration, headers: &ResponseHeaders) {
    let (mut response, chunked) = head(&request, headers);
    if *request.method() != Method::Head {
        let body = format!(":\n{}", http::retry_later(retry));
        let body = if chunked { format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()) } else { body };
        response.extend_from_slice(body.as_bytes());
    }
    refusal::refuse(request, response);
}

impl<P: Send + Sync + 'static> Publisher<P> {
    /// Answers the request with a stream that ends at once and makes an `EventSource` reconnect later. Returns at once.
    ///
    /// Use it when a limit is reached. The client reconnects after a random time between `retry` and twice that. A
    /// status such as 503 would make it give up for good. A writer thread writes the response, or a [separate
    /// thread](crate::adapter::tiny_http#threads).
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if no writer thread can be started. The request is answered as soon as a
    /// thread can be started for it.
    ///
    /// ```no_run
    /// use server_sent_events::{Publisher, adapter::tiny_http::Server};
    /// use std::time::Duration;
    ///
    /// let publisher = Publisher::builder().max_subscribers(100).build()?;
    /// for request in Server::bind("127.0.0.1:5000")?.incoming_requests() {
    ///     match publisher.subscription(()).last_event_id_from(&request).open() {
    ///         Ok(subscription) => subscription.respond(request)?,
    ///         Err(_full) => publisher.respond_busy(request, Duration::from_secs(5))?,
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn respond_busy(&self, request: Request, retry: Duration) -> io::Result<()> {
        self.respond_busy_with_headers(request, retry, &ResponseHeaders::new())
    }

    /// Answers as [`respond_busy`](Self::respond_busy) does, with additional headers. Returns at once.
    ///
    /// Give it the headers of the streams: without their CORS headers a browser rejects the response for a page of
    /// another origin, and does not reconnect.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`respond_busy`](Self::respond_busy).
    ///
    /// ```no_run
    /// use server_sent_events::{ResponseHeaders, Publisher, adapter::tiny_http::Server};
    /// use std::time::Duration;
    ///
    /// let publisher = Publisher::builder().max_subscribers(100).build()?;
    /// let headers = ResponseHeaders::new().with("Access-Control-Allow-Origin", "https://example.org")?;
    /// for request in Server::bind("127.0.0.1:5000")?.incoming_requests() {
    ///     match publisher.subscription(()).last_event_id_from(&request).open() {
    ///         Ok(subscription) => subscription.respond_with_headers(request, &headers)?,
    ///         Err(_full) => publisher.respond_busy_with_headers(request, Duration::from_secs(5), &headers)?,
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn respond_busy_with_headers(
        &self,
        request: Request,
        retry: Duration,
        headers: &ResponseHeaders,
    ) -> io::Result<()> {
        if !self.can_begin_streams() {
            refuse(request, retry, headers);
            return Ok(());
        }
        self.detached(http::retry_later(retry)).respond_with_headers(request, headers)
    }

    /// Answers the request with the stream of a new subscriber of [`DEFAULT_CHANNEL`](crate::DEFAULT_CHANNEL), with
    /// default properties. Returns at once.
    ///
    /// With a [history](crate::History) the client resumes after the last event ID that it sends. If a limit is
    /// reached, the response is a [busy response](Self::respond_busy) for 5 seconds.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`respond_busy`](Self::respond_busy).
    pub fn respond(&self, request: Request) -> io::Result<()>
    where
        P: Default,
    {
        self.subscription(P::default()).respond(request)
    }
}

impl<P: Send + Sync + 'static> SubscriptionBuilder<'_, P> {
    /// Opens the subscription, and answers the request with its stream. Returns at once.
    ///
    /// With a [history](crate::History) the client resumes after the last event ID that it sends.
    ///
    /// If a [temporary](crate::OpenError::is_temporary) limit is reached, or that of [blocked
    /// streams](crate::adapter::tiny_http#threads), the response is a [busy response](Publisher::respond_busy) for 5
    /// seconds, after which a browser reconnects. For any other [`OpenError`](crate::OpenError) the request is at
    /// fault. The response then has status 400 and the error's text, and a browser does not reconnect.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`respond_busy`](Publisher::respond_busy).
    ///
    /// ```no_run
    /// use server_sent_events::{Publisher, adapter::tiny_http::Server};
    ///
    /// let publisher = Publisher::builder().max_subscribers_per_quota_key(6).build()?;
    /// for request in Server::bind("127.0.0.1:5000")?.incoming_requests() {
    ///     let address = request.remote_addr().map(|address| address.ip().to_string()).unwrap_or_default();
    ///     publisher.subscription(()).channels("news").quota_key(address).respond(request)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn respond(self, request: Request) -> io::Result<()> {
        self.respond_with_headers(request, &ResponseHeaders::new())
    }

    /// Answers as [`respond`](Self::respond) does, with additional headers. Returns at once.
    ///
    /// Every response carries them: the stream, the busy response, and the one with status 400. So a browser lets a
    /// page of another origin reconnect after a busy response.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`respond`](Self::respond).
    ///
    /// ```no_run
    /// use server_sent_events::{ResponseHeaders, Publisher, adapter::tiny_http::Server};
    ///
    /// let publisher = Publisher::builder().max_subscribers(100).build()?;
    /// let headers = ResponseHeaders::new().with("Access-Control-Allow-Origin", "https://example.org")?;
    /// for request in Server::bind("127.0.0.1:5000")?.incoming_requests() {
    ///     publisher.subscription(()).channels("news").respond_with_headers(request, &headers)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn respond_with_headers(self, request: Request, headers: &ResponseHeaders) -> io::Result<()> {
        let publisher = self.publisher();
        // Checked before opening, so that no hook is called for a stream that cannot begin.
        if !publisher.can_begin_streams() {
            self.count_refused();
            refuse(request, RETRY, headers);
            return Ok(());
        }
        match self.last_event_id_from(&request).open() {
            Ok(subscription) => subscription.respond_with_headers(request, headers),
            Err(error) if error.is_temporary() => publisher.respond_busy_with_headers(request, RETRY, headers),
            Err(error) => {
                let mut response = Response::from_string(error.to_string()).with_status_code(400);
                for (name, value) in headers.own() {
                    response.add_header(Header::from_bytes(name, value).expect("BUG: a header was not checked"));
                }
                // Not on this thread: it may have to wait for the request's body, or for earlier responses.
                let mut bytes = Vec::new();
                let is_head = *request.method() == Method::Head;
                response.raw_print(&mut bytes, request.http_version().clone(), request.headers(), is_head, None)?;
                refusal::refuse(request, bytes);
                Ok(())
            }
        }
    }

    /// Sets the [last event ID](Self::last_event_id) to the one of the request, so that the client resumes. Needs a
    /// [history](crate::History).
    ///
    /// ```no_run
    /// use server_sent_events::{History, Publisher, adapter::tiny_http::Server};
    ///
    /// let publisher = Publisher::builder().history(History::new()).build()?;
    /// for request in Server::bind("127.0.0.1:5000")?.incoming_requests() {
    ///     let subscription = publisher.subscription(()).channels("news").last_event_id_from(&request).open()?;
    ///     subscription.respond(request)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn last_event_id_from(self, request: &Request) -> Self {
        self.last_event_id(last_event_id(request))
    }
}
