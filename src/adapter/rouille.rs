//! Event streams as answers to requests of [`rouille`](https://docs.rs/rouille).
//!
//! ```no_run
//! use server_sent_events::Publisher;
//! use server_sent_events::adapter::rouille::server;
//!
//! let publisher = Publisher::new();
//! let server = server("127.0.0.1:5000", move |request| publisher.subscription(()).respond_to(request))?;
//! server.run();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! [`server`] makes a [`rouille::Server`] like its own `new`, and keeps streams that open together from starving.
//!
//! # Which of the two
//!
//! * [`into_rouille`](crate::Subscription::into_rouille) gives a body that rouille reads. Right for a few streams: each
//!   holds one of rouille's threads for as long as it lasts, and a quiet event takes 8 KiB on its way, since that is what
//!   the server below, `tiny_http`, collects before it sends. Every event is sent within 40 ms, one after a pause at once.
//! * [`into_rouille_upgrade`](crate::Subscription::into_rouille_upgrade) takes the connection over from rouille, and
//!   the publisher [writes in the background](crate::Subscription::write_in_background): no thread of rouille's, nothing
//!   but the events themselves, no delay. The price: the client cannot see that the stream has ended.
//!
//! # Threads
//!
//! A [`rouille::Server`] starts a thread for each request, and a stream as a body keeps its. One with a `pool_size` of N
//! (or `start_server_with_pool`)
//! has N threads (by default 8 for each processor) for all requests: **N streams as bodies stop the server**, no other
//! request is answered until one of them ends. With a pool, take the upgrade, or keep
//! [`max_subscribers`](crate::PublisherBuilder::max_subscribers) well below N.
//!
//! A client that does not read stops the thread that writes to it, and its [queue](crate::EndCause::QueueFull) ends its
//! stream and is given back. The thread itself waits until the operating system gives the connection up: rouille binds
//! its own listener, on which no time limit can be set, and keeps the connection to itself.
//!
//! # Bodies of requests
//!
//! Read them with [`read_body`]: it returns a whole body or an error with a status. The server's own reader ends with the
//! connection if the client offers an upgrade, and reports a body that is cut off as if it were whole. rouille's own
//! functions that read a body (`rouille::input`) use that reader. Chunked bodies are answered with status 411.
//!
//! # What it cannot promise
//!
//! rouille stands on `tiny_http`, so what a stranger can do to that, with an announced body or half a request, holds here
//! too (the `tiny_http` adapter's documentation has the list): on the open internet put a proxy in front. And since rouille
//! binds the listener itself, a client that vanishes without a word is noticed only when the operating system gives
//! up, after a quarter of an hour; and no more than 128 connections wait to be accepted, the others try again a second
//! later. For more than a few hundred streams take the `tiny_http` adapter.
//!
//! A request header that is not ASCII (`Cookie: name=Zoë`) makes the server close the connection without an answer, and
//! the program never sees the request. Encode what a page puts into cookies and headers, with `encodeURIComponent` for
//! example.
//!
//! A client that speaks HTTP/1.0 (nginx does unless it has `proxy_http_version 1.1`) cannot be sent a body of
//! unknown length. As a body it gets what is there already, up to 1 MiB, and the end: an `EventSource` comes back
//! after some seconds and, with a [history](crate::History), goes on from there. The upgrade streams to it.

use std::borrow::Cow;
use std::io::{self, Read};
use std::net::ToSocketAddrs;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rouille::{ReadWrite, Request, Response, ResponseBody, Server, Upgrade};

use crate::adapter::body;
use crate::adapter::nudge::Nudger;
use crate::error::BodyError;
use crate::http::{self, LAST_EVENT_ID, ResponseHeaders};
use crate::publisher::SubscriptionBuilder;
use crate::subscription::{Reader, Subscription};

/// How many bytes the server collects before it sends them as a chunk.
const COLLECTED: usize = 8192;

impl Subscription {
    /// The response whose body is this stream.
    ///
    /// Status 200, the headers that an event stream needs, a first comment, then every frame as it comes; at the
    /// stream's end the body's. It is `Content-Encoding: identity`, or `rouille::content_encoding::apply` would read
    /// it to its end first. A `HEAD` request gets the head alone. Returns at once; rouille's thread then reads the
    /// body, and ends the stream when the client has gone ([`EndCause::Dropped`](crate::EndCause::Dropped)).
    ///
    /// ```no_run
    /// # use server_sent_events::{Publisher, adapter::rouille::{respond_busy, server}};
    /// # use std::time::Duration;
    /// # let publisher = Publisher::new();
    /// let server = server("127.0.0.1:5000", move |_request| match publisher.subscribe() {
    ///     Ok(subscription) => subscription.into_rouille(),
    ///     Err(_full) => respond_busy(Duration::from_secs(5)),
    /// })?;
    /// server.run();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_rouille(self) -> Response {
        self.into_rouille_with_headers(&ResponseHeaders::new())
    }

    /// [`into_rouille`](Self::into_rouille) with further headers.
    pub fn into_rouille_with_headers(mut self, headers: &ResponseHeaders) -> Response {
        self.begin_with_comment();
        response(headers, ResponseBody::from_reader(Body(self.into_reader().pad_to(COLLECTED))))
    }

    /// Returns the response that takes the connection over from rouille and [writes the stream in the
    /// background](Self::write_in_background).
    ///
    /// No thread of rouille's stays with it, and nothing is filled up: each event is sent as it comes, by the
    /// publisher's writer threads. For this the response says `Connection: upgrade`, and has neither a length nor chunks.
    /// By HTTP's rules (RFC 9112 6.3) it ends with its connection; but the server below does not
    /// close that, unless the client asked for `Connection: close`, as proxies mostly do, or speaks HTTP/1.0. So
    /// **the client cannot see that the stream has ended**: an `EventSource` does not come back after
    /// [`close`](crate::Publisher::close) or after its queue was full, but waits on, in silence.
    ///
    /// The request is that to which this is the answer; a `HEAD` request gets the head alone. If not one writer thread can
    /// be started, the stream is over after its head.
    ///
    /// ```no_run
    /// # use server_sent_events::{Publisher, adapter::rouille::{respond_busy, server}};
    /// # use std::time::Duration;
    /// # let publisher = Publisher::new();
    /// let server = server("127.0.0.1:5000", move |request| match publisher.subscribe() {
    ///     Ok(subscription) => subscription.into_rouille_upgrade(request),
    ///     Err(_full) => respond_busy(Duration::from_secs(5)),
    /// })?;
    /// server.pool_size(8).run();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_rouille_upgrade(self, request: &Request) -> Response {
        self.into_rouille_upgrade_with_headers(request, &ResponseHeaders::new())
    }

    /// [`into_rouille_upgrade`](Self::into_rouille_upgrade) with further headers.
    pub fn into_rouille_upgrade_with_headers(mut self, request: &Request, headers: &ResponseHeaders) -> Response {
        let head = response(headers, ResponseBody::empty());
        if request.method() == "HEAD" {
            return head;
        }
        self.begin_with_comment();
        Response { upgrade: Some(Box::new(HandOver(Some(self)))), ..head }
    }
}

impl<P: Send + Sync + 'static> SubscriptionBuilder<'_, P> {
    /// Opens it and makes the response whose body is its stream; with a [history](crate::History) the client goes on from
    /// the last event id that it says.
    ///
    /// Where a limit is reached that may have room [later](crate::OpenError::is_temporary), the answer is a [busy
    /// response](respond_busy) for 5 seconds, after which a browser comes back. Any other [`OpenError`](crate::OpenError) is the request's fault: it
    /// is answered with status 400 and the error's text, and a browser does not come back.
    ///
    /// ```no_run
    /// # use server_sent_events::{Publisher, adapter::rouille::server};
    /// # let publisher = Publisher::new();
    /// let server = server("127.0.0.1:5000", move |request| {
    ///     publisher.subscription(()).channels("news").respond_to(request)
    /// })?;
    /// server.run();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn respond_to(self, request: &Request) -> Response {
        self.respond_to_with_headers(request, &ResponseHeaders::new())
    }

    /// Makes the response that [`respond_to`](Self::respond_to) makes, with further headers.
    ///
    /// Every response carries them: the stream, the busy response, and the one with status 400. So a browser lets a page of
    /// another origin reconnect after a busy response.
    ///
    /// ```no_run
    /// # use server_sent_events::{ResponseHeaders, Publisher, adapter::rouille::server};
    /// # let publisher = Publisher::new();
    /// let headers = ResponseHeaders::new().with("Access-Control-Allow-Origin", "https://example.org")?;
    /// let server = server("127.0.0.1:5000", move |request| {
    ///     publisher.subscription(()).channels("news").respond_to_with_headers(request, &headers)
    /// })?;
    /// server.run();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn respond_to_with_headers(self, request: &Request, headers: &ResponseHeaders) -> Response {
        match self.last_event_id(last_event_id(request)).open() {
            Ok(subscription) => subscription.into_rouille_with_headers(headers),
            Err(error) if error.is_temporary() => respond_busy_with_headers(Duration::from_secs(5), headers),
            Err(error) => {
                let mut response = Response::text(error.to_string()).with_status_code(400);
                response.headers.extend(headers.own().map(owned));
                response
            }
        }
    }
}

/// A [`rouille::Server`] that is fit for event streams; port 0 takes a free one.
///
/// As [`Server::new`], with one addition: it keeps streams from starving. Below rouille, `tiny_http` can put a new
/// connection behind one that never ends, so that it gets no byte, ever, even when only ten open together. Any further
/// connection makes it take up one that waits, so for a moment after each request a thread connects to the server and
/// hangs up, five times after a request that comes alone; an idle server costs nothing.
///
/// # Errors
///
/// What the operating system says of the address, or that a thread cannot be started.
///
/// ```
/// use server_sent_events::{Publisher, adapter::rouille::server};
///
/// let publisher = Publisher::new();
/// let answers = publisher.clone();
/// let server = server("127.0.0.1:0", move |request| match &*request.url() {
///     "/events" => answers.subscribe().unwrap().into_rouille(),
///     _ => rouille::Response::empty_404(),
/// })?;
/// println!("listening on {}", server.server_addr());
/// let (thread, stop) = server.stoppable();
/// # stop.send(()).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn server<F>(
    address: impl ToSocketAddrs,
    handler: F,
) -> io::Result<Server<impl Fn(&Request) -> Response + Send + Sync + 'static>>
where
    F: Fn(&Request) -> Response + Send + Sync + 'static,
{
    // The handler lives as long as the server, and so does what it holds.
    let nudger = Arc::new(OnceLock::<Nudger>::new());
    let knocks = Arc::clone(&nudger);
    let server = Server::new(address, move |request: &Request| {
        knocks.get().into_iter().for_each(Nudger::request_arrived);
        handler(request)
    });
    let server = server.map_err(io::Error::other)?;
    nudger.set(Nudger::start(server.server_addr())?).expect("BUG: set once");
    Ok(server)
}

/// The response with a stream that is over at once and makes an `EventSource` come back.
///
/// For a full house: the client tries again after a time between `retry` and twice that, each at its own moment. A
/// status such as 503 would make it give up for good.
///
/// ```
/// use server_sent_events::adapter::rouille::respond_busy;
/// use std::time::Duration;
///
/// assert_eq!(respond_busy(Duration::from_secs(5)).status_code, 200);
/// ```
pub fn respond_busy(retry: Duration) -> Response {
    respond_busy_with_headers(retry, &ResponseHeaders::new())
}

/// Makes the response that [`respond_busy`] makes, with further headers.
///
/// Give it the headers of the streams: without their CORS headers a browser rejects the response for a page of another
/// origin, and does not reconnect.
///
/// ```
/// use server_sent_events::{ResponseHeaders, adapter::rouille::respond_busy_with_headers};
/// use std::time::Duration;
///
/// let headers = ResponseHeaders::new().with("Access-Control-Allow-Origin", "https://example.org")?;
/// let response = respond_busy_with_headers(Duration::from_secs(5), &headers);
/// assert!(response.headers.iter().any(|(name, _)| name == "Access-Control-Allow-Origin"));
/// # Ok::<(), server_sent_events::HeaderError>(())
/// ```
pub fn respond_busy_with_headers(retry: Duration, headers: &ResponseHeaders) -> Response {
    response(headers, ResponseBody::from_string(http::busy(retry)))
}

/// The id of the last event that the client saw, if it says so: from the header `Last-Event-ID`, else from
/// `lastEventId` in the query, for those who cannot set a header.
///
/// It is the client's word, of any length and content; an empty one is none.
///
/// ```
/// use rouille::Request;
/// use server_sent_events::adapter::rouille::last_event_id;
///
/// let request = Request::fake_http("GET", "/news?lastEventId=a%2D7", vec![], vec![]);
/// assert_eq!(last_event_id(&request).as_deref(), Some("a-7"));
/// ```
pub fn last_event_id(request: &Request) -> Option<String> {
    http::last_event_id(request.header(LAST_EVENT_ID), request.raw_url())
}

/// Reads the body of the request, whole, or rejects it.
///
/// Reads as much as `Content-Length` announces and no more. With [`Request::data`](rouille::Request::data) alone, a body
/// never ends if the client offers an upgrade (`curl --http2` and Java's `HttpClient` offer HTTP/2 on each plain
/// request), and a body that is cut off reads as if it were whole. A request without `Content-Length` has an empty body.
/// The client is asked to continue if it waits for that (`Expect: 100-continue`), unless the body is rejected.
///
/// Blocks until the body or the end of the connection has arrived.
///
/// # Errors
///
/// [`BodyError`], with the status of the response: 400 for a body that ends early and for a length that is not one
/// number, 411 for a chunked body, and 413 for one larger than `max_bytes`. A chunked body is rejected because the server
/// below rouille does not report whether it is whole. The last two are rejected before any of the body is read.
/// [`BodyError::AlreadyTaken`] (500) if `Request::data` was called before.
///
/// ```
/// use rouille::Request;
/// use server_sent_events::{BodyError, adapter::rouille::read_body};
///
/// let request = |length: &str| {
///     Request::fake_http("POST", "/", vec![("Content-Length".into(), length.into())], b"hello".to_vec())
/// };
/// assert_eq!(read_body(&request("5"), 100), Ok(b"hello".to_vec()));
/// assert_eq!(read_body(&request("6"), 100), Err(BodyError::Incomplete { received: 5, announced: 6 }));
/// assert_eq!(read_body(&request("5"), 4), Err(BodyError::TooLarge { limit: 4 }));
/// ```
pub fn read_body(request: &Request, max_bytes: usize) -> Result<Vec<u8>, BodyError> {
    match body::length(request.headers(), max_bytes)? {
        0 => Ok(Vec::new()),
        length => body::read(request.data().ok_or(BodyError::AlreadyTaken)?, length),
    }
}

/// A response with the headers of an event stream.
fn response(headers: &ResponseHeaders, data: ResponseBody) -> Response {
    let identity = ("Content-Encoding".into(), "identity".into());
    let headers = headers.all().map(owned).chain([identity]).collect();
    Response { status_code: 200, headers, data, upgrade: None }
}

/// A header as rouille takes it.
fn owned((name, value): (&str, &str)) -> (Cow<'static, str>, Cow<'static, str>) {
    (name.to_owned().into(), value.to_owned().into())
}

/// The body as rouille reads it.
struct Body(Reader);

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    /// Asked for by the server when the client takes no chunks: it wants to know the length before it sends a byte.
    /// The end never comes by itself, and what it collects until then has no bound.
    fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let before = bytes.len();
        self.0.take_ready(bytes);
        Ok(bytes.len() - before)
    }
}

/// Hands the stream over as soon as the connection is there.
struct HandOver(Option<Subscription>);

impl Upgrade for HandOver {
    fn build(&mut self, connection: Box<dyn ReadWrite + Send>) {
        if let Some(subscription) = self.0.take() {
            // An error means that the stream is over, which is all that can be done about it here.
            let _ = subscription.write_in_background(connection);
        }
    }
}
