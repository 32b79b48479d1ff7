//! Event streams as answers to requests of [`tiny_http`](https://docs.rs/tiny_http).
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
//! # What it promises
//!
//! Each event is on its way to the client as soon as it is published: `tiny_http`'s own `respond` would hold a
//! live body back until 8 KiB of it are there (76 s to the first byte of a stream of 10 events a second). The
//! client sees the end of the stream. A client that closes is noticed within two heartbeats, one that vanishes
//! when TCP gives up (on Linux 30 s after the first byte that was not acknowledged), one that does not read when the
//! kernel's buffers and its queue are full. The thread that answers requests is never made to wait by a stream.
//!
//! A client whose receive window stays below one segment is reset after 30 s even if it reads steadily: Linux counts
//! from the first such moment.
//!
//! # Threads
//!
//! Besides the thread that `tiny_http` has for each connection, a stream needs a writer thread while a write to it is
//! blocked, up to [`max_writer_threads`](crate::PublisherBuilder::max_writer_threads).
//!
//! The first write waits for the request's body, and for the responses to earlier requests on the same connection. So a
//! client can block it for as long as it likes. At most half of the writer threads may be blocked in a first write.
//! Beyond that new streams are answered [busy](crate::Publisher::respond_busy), until one of these clients gives way;
//! streams that have begun go on. If several streams begin at once, some wait for a moment: a quarter of the threads at
//! most write to streams that began within the last second. A stream that has waited for 30 s, or is disconnected while
//! it waits, is answered busy too.
//!
//! While half of the writer threads are blocked, threads of their own write the busy responses, one for each client
//! whose body has not come, and 1,000 at most. Further ones are written later. A client that sends more than four
//! requests at once on one connection then gets no response to some of them.
//!
//! # Bodies of requests
//!
//! Read them with [`read_body`]: it returns a whole body or an error with a status. The server's own reader ends with
//! the connection if the client offers an upgrade, and reports a body that is cut off as if it were whole. Chunked
//! bodies are answered with status 411: `curl -T -` and a `fetch` whose body is a stream send them.
//!
//! # What it cannot promise
//!
//! `tiny_http` 0.12 is a server for a trusted network, and some of that cannot be mended from outside. On the
//! open internet, put a reverse proxy in front that reads a request whole before it passes it on (`docs/deployment.md`
//! has the lines for nginx). One that asks for `Connection: close` also spares `tiny_http`'s thread for each stream.
//! Without one, a stranger can
//!
//! * abort the program with a request whose `Content-Length` is enormous, whatever its method: that much
//!   memory is asked for when the request is dropped. From 1,025 bytes on, dropping a request, or answering it,
//!   waits for its body;
//! * hold up a thread that answers requests, without a limit of time: by announcing a body that does not come, or by
//!   sending a second request on the connection of a running stream, whose answer waits for the stream's end, with
//!   its first flush. As many such requests as there are answering threads stop the program. Where the answer is a
//!   stream or a [busy response](crate::Publisher::respond_busy), a writer thread waits instead. Clients that block half of
//!   the [writer threads](#threads) keep further streams from beginning, while those that run go on;
//! * hold threads for ever: with half a request, for which there is no time limit, or with a request line that
//!   ends in `HTTP/2.0`.
//!
//! And one that needs no stranger: when the program has no file descriptor left, the server stops accepting
//! connections for good, mostly without telling whoever waits for requests. It needs two for each connection, so
//! keep [`max_subscribers`](crate::PublisherBuilder::max_subscribers) below half the limit of open files.
//!
//! A request header that is not ASCII (`Cookie: name=Zoë`) makes `tiny_http` close the connection without an answer,
//! and the program never sees the request. Encode what a page puts into cookies and headers, with `encodeURIComponent`
//! for example.
//!
//! A client that speaks HTTP/1.0 and asks for a connection that stays open (`ab -k` does) cannot see the
//! end of its stream: HTTP/1.0 ends it by closing the connection, which `tiny_http` does not do then.

use std::io;
use std::time::{Duration, SystemTime};

use tiny_http::{Header, Method, Request, Response};

use crate::adapter::body;
use crate::deliver::{Output, Writer};
use crate::error::BodyError;
use crate::http::{self, LAST_EVENT_ID, ResponseHeaders};
use crate::publish::{Publisher, SubscriptionBuilder};
use crate::subscription::Subscription;

use lazy_writer::LazyWriter;

mod lazy_writer;
mod refusal;
mod server;

pub use server::{IncomingRequests, Server, StopHandle};

/// After how long a client that is refused reconnects, at the earliest.
const RETRY: Duration = Duration::from_secs(5);

/// How long a stream waits to begin.
const START_TIMEOUT: Duration = Duration::from_secs(30);

impl Subscription {
    /// Answers the request with this stream, and returns at once.
    ///
    /// Status 200, the headers that an event stream needs, a first comment, then every frame as it comes; at the
    /// stream's end the body's. A `HEAD` request gets the head alone. The stream is [written in the
    /// background](Self::write_in_background): the publisher's writer threads take the connection over and write to it,
    /// since both may wait for the client. If half of them are [blocked in a first
    /// write](crate::adapter::tiny_http#threads), the subscription is dropped, and the answer is a [busy
    /// response](Publisher::respond_busy) for 5 seconds.
    ///
    /// # Errors
    ///
    /// When not one writer thread can be started. The subscription is over then, and the request is answered with a
    /// busy response as soon as a thread can be started for that.
    pub fn respond(self, request: Request) -> io::Result<()> {
        self.respond_with_headers(request, &ResponseHeaders::new())
    }

    /// [`respond`](Self::respond) with further headers.
    ///
    /// # Errors
    ///
    /// As [`respond`](Self::respond).
    ///
    /// ```no_run
    /// use server_sent_events::{ResponseHeaders, Publisher, adapter::tiny_http::Server};
    ///
    /// let publisher = Publisher::new();
    /// let headers = ResponseHeaders::new().with("Access-Control-Allow-Origin", "https://example.org")?;
    /// for request in Server::bind("127.0.0.1:5000")?.incoming_requests() {
    ///     publisher.subscribe()?.respond_with_headers(request, &headers)?;
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
            // A stream that is over, whatever it holds, and whose body is not even an empty chunk.
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
    (http::head(chunked, keep_alive, &date, headers).into_bytes(), chunked)
}

/// Answers the request with a busy response that no writer thread writes. Does not block.
fn refuse(request: Request, retry: Duration, headers: &ResponseHeaders) {
    let (mut response, chunked) = head(&request, headers);
    if *request.method() != Method::Head {
        let body = format!(":\n{}", http::busy(retry));
        let body = if chunked { format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()) } else { body };
        response.extend_from_slice(body.as_bytes());
    }
    refusal::refuse(request, response);
}

impl<P: Send + Sync + 'static> Publisher<P> {
    /// Answers the request with a stream that is over at once and makes an `EventSource` come back; returns at
    /// once.
    ///
    /// For a full house: the client tries again after a time between `retry` and twice that, each at its own
    /// moment. A status such as 503 would make it give up for good. A writer thread of the publisher's writes it, or a
    /// [thread of its own](crate::adapter::tiny_http#threads).
    ///
    /// # Errors
    ///
    /// When not one writer thread can be started. The request is answered as soon as a thread can be started for that.
    ///
    /// ```no_run
    /// use server_sent_events::{Publisher, adapter::tiny_http::Server};
    /// use std::time::Duration;
    ///
    /// let publisher = Publisher::builder().max_subscribers(100).build()?;
    /// for request in Server::bind("127.0.0.1:5000")?.incoming_requests() {
    ///     match publisher.subscribe() {
    ///         Ok(subscription) => subscription.respond(request)?,
    ///         Err(_full) => publisher.respond_busy(request, Duration::from_secs(5))?,
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn respond_busy(&self, request: Request, retry: Duration) -> io::Result<()> {
        self.respond_busy_with_headers(request, retry, &ResponseHeaders::new())
    }

    /// Answers as [`respond_busy`](Self::respond_busy) does, with further headers. Returns at once.
    ///
    /// Give it the headers of the streams: without their CORS headers a browser rejects the response for a page of
    /// another origin, and does not reconnect.
    ///
    /// # Errors
    ///
    /// As [`respond_busy`](Self::respond_busy).
    ///
    /// ```no_run
    /// use server_sent_events::{ResponseHeaders, Publisher, adapter::tiny_http::Server};
    /// use std::time::Duration;
    ///
    /// let publisher = Publisher::builder().max_subscribers(100).build()?;
    /// let headers = ResponseHeaders::new().with("Access-Control-Allow-Origin", "https://example.org")?;
    /// for request in Server::bind("127.0.0.1:5000")?.incoming_requests() {
    ///     match publisher.subscribe() {
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
        self.detached(http::busy(retry)).respond_with_headers(request, headers)
    }

    /// Answers the request with a new subscriber of [`DEFAULT_CHANNEL`](crate::DEFAULT_CHANNEL), or, when the house is
    /// full, with a [busy response](Self::respond_busy) for 5 seconds; returns at once. With a
    /// [history](crate::History) the client goes on from the last event id that it says.
    ///
    /// # Errors
    ///
    /// As [`respond_busy`](Self::respond_busy).
    pub fn respond(&self, request: Request) -> io::Result<()>
    where
        P: Default,
    {
        self.subscription(P::default()).respond(request)
    }
}

impl<P: Send + Sync + 'static> SubscriptionBuilder<'_, P> {
    /// Opens it and answers the request with its stream; with a [history](crate::History) the client goes on from the
    /// last event id that it says. Returns at once.
    ///
    /// Where a limit is reached that may have room [later](crate::OpenError::is_temporary), also that of [blocked
    /// streams](crate::adapter::tiny_http#threads), the answer is a [busy response](Publisher::respond_busy) for 5
    /// seconds, after which a browser comes back. Any other [`OpenError`](crate::OpenError) is the request's fault: it
    /// is answered with status 400 and the error's text, and a browser does not come back.
    ///
    /// # Errors
    ///
    /// As [`respond_busy`](Publisher::respond_busy). Or that the status 400 could not be written.
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

    /// Answers as [`respond`](Self::respond) does, with further headers. Returns at once.
    ///
    /// Every response carries them: the stream, the busy response, and the one with status 400. So a browser lets a
    /// page of another origin reconnect after a busy response.
    ///
    /// # Errors
    ///
    /// As [`respond`](Self::respond).
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
        // Before it is opened, so that no hook is called for a stream that cannot begin.
        if !publisher.can_begin_streams() {
            publisher.count_refused();
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
                request.respond(response)
            }
        }
    }

    /// Takes the [last event id](last_event_id) from the request, and with it what the client has missed out of the
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

/// The id of the last event that the client saw, if it says so: from the header `Last-Event-ID`, else from
/// `lastEventId` in the query, for those who cannot set a header.
///
/// It is the client's word, of any length and content; an empty one is none.
///
/// ```
/// use server_sent_events::adapter::tiny_http::last_event_id;
///
/// let request: tiny_http::Request = tiny_http::TestRequest::new().with_path("/news?lastEventId=a%2D7").into();
/// assert_eq!(last_event_id(&request).as_deref(), Some("a-7"));
/// ```
pub fn last_event_id(request: &Request) -> Option<String> {
    let header = request.headers().iter().find(|header| header.field.equiv(LAST_EVENT_ID));
    http::last_event_id(header.map(|header| header.value.as_str()), request.url())
}

/// Reads the body of the request, whole, or rejects it.
///
/// Reads as much as `Content-Length` announces and no more. With [`Request::as_reader`](tiny_http::Request::as_reader)
/// alone, a body never ends if the client offers an upgrade (`curl --http2` and Java's `HttpClient` offer HTTP/2 on
/// each plain request), and a body that is cut off reads as if it were whole. A request without `Content-Length` has an
/// empty body. The client is asked to continue if it waits for that (`Expect: 100-continue`), unless the body is
/// rejected.
///
/// Blocks until the body or the end of the connection has arrived.
///
/// # Errors
///
/// [`BodyError`], with the status of the response: 400 for a body that ends early and for a length that is not one
/// number, 411 for a chunked body, and 413 for one larger than `max_bytes`. A chunked body is rejected because
/// `tiny_http` does not report whether it is whole. The last two are rejected before any of the body is read.
///
/// ```no_run
/// use server_sent_events::{Publisher, adapter::tiny_http::{Server, read_body}};
/// use tiny_http::Response;
///
/// let publisher = Publisher::new();
/// for mut request in Server::bind("127.0.0.1:5000")?.incoming_requests() {
///     match read_body(&mut request, 64 * 1024) {
///         Ok(body) => {
///             publisher.publish(String::from_utf8_lossy(&body));
///             request.respond(Response::empty(204))?;
///         }
///         Err(error) => {
///             request.respond(Response::from_string(error.to_string()).with_status_code(error.status()))?;
///         }
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_body(request: &mut Request, max_bytes: usize) -> Result<Vec<u8>, BodyError> {
    let headers = request.headers().iter().map(|header| (header.field.as_str().as_str(), header.value.as_str()));
    match body::length(headers, max_bytes)? {
        0 => Ok(Vec::new()),
        length => body::read(request.as_reader(), length),
    }
}
