//! Event streams as responses to requests of [`rouille`](https://docs.rs/rouille/3.6) 3.6.
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
//! [`server`] creates a [`rouille::Server`] as its own `new` does, and keeps streams that open together from starving.
//!
//! # Body or upgrade
//!
//! * [`into_rouille`](crate::Subscription::into_rouille) returns a body that rouille reads. It suits a few streams:
//!   each occupies one of rouille's threads until it ends. A quiet event takes up to 8 KiB, because the server below,
//!   `tiny_http`, collects that much before it sends. Every event is sent within 40 ms, and at once after a pause.
//! * [`into_rouille_upgrade`](crate::Subscription::into_rouille_upgrade) takes the connection over from rouille, and
//!   the publisher [writes in the background](crate::Subscription::write_in_background). A stream then occupies no
//!   thread of rouille, and only the events are sent, without delay. The price: the client cannot see that the stream
//!   has ended.
//!
//! # Threads
//!
//! A [`rouille::Server`] starts a thread per request, and a stream as a body keeps its thread. A server with a
//! `pool_size` of N (or `start_server_with_pool`) has N threads for all requests, by default 8 per processor. **N
//! streams as bodies stop the server**: it answers no other request until one of them ends. With a pool, use the
//! upgrade, or keep [`max_subscribers`](crate::PublisherBuilder::max_subscribers) well below N.
//!
//! If a client does not read, the thread that writes to it is blocked. The stream ends when its [queue is
//! full](crate::EndCause::QueueFull). But the thread stays blocked until the operating system gives the connection up.
//! This crate can set no timeout, because rouille binds its own listener and keeps the connection to itself.
//!
//! # Bodies of requests
//!
//! Read them with [`read_body`]: it returns a whole body, or an error with a status. The server's own reader reports a
//! truncated body as if it were whole. If the client offers an upgrade, that reader ends only with the connection.
//! rouille's own functions that read a body (`rouille::input`) use it. `read_body` rejects chunked bodies with status
//! 411.
//!
//! # Foreign pages
//!
//! A page of any website can send requests to a server on the same machine or in the same network, and can publish if a
//! `POST` does. Build an [`OriginPolicy`], and call [`check_origin`] before anything else:
//!
//! ```no_run
//! use rouille::Response;
//! use server_sent_events::adapter::rouille::{check_origin, server};
//! use server_sent_events::{OriginPolicy, Publisher};
//! use std::net::SocketAddr;
//!
//! let publisher = Publisher::new();
//! let address: SocketAddr = ([127, 0, 0, 1], 5000).into();
//! let policy = OriginPolicy::builder().build(address)?;
//! let server = server(address, move |request| match check_origin(request, &policy) {
//!     Ok(()) => publisher.subscription(()).respond_to(request),
//!     Err(refused) => Response::text(refused.to_string()).with_status_code(refused.status()),
//! })?;
//! server.run();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Behind a proxy, name the [public host](crate::OriginPolicyBuilder::public_host).
//!
//! # Limits of this adapter
//!
//! rouille is built on `tiny_http`, and shares its weaknesses against an announced body or half a request. The
//! `tiny_http` adapter's documentation lists them: on the open internet, put a proxy in front.
//!
//! rouille binds the listener itself. So a client that vanishes silently is detected only when the operating system
//! gives up, after about a quarter of an hour. At most 128 connections wait to be accepted; further ones try again a
//! second later. For more than a few hundred streams, use the `tiny_http` adapter.
//!
//! If a request header is not ASCII (`Cookie: name=Zoë`), the server closes the connection without a response, and the
//! program never sees the request. Encode what a page puts into cookies and headers, for example with
//! `encodeURIComponent`.
//!
//! A client that speaks HTTP/1.0 cannot be sent a body of unknown length. nginx does so unless it has
//! `proxy_http_version 1.1`. As a body, such a client gets what is ready, up to 1 MiB, and the end. An `EventSource`
//! then reconnects after a few seconds and, with a [history](crate::History), resumes. The upgrade streams to such a
//! client.

use std::borrow::Cow;
use std::io::{self, Read};
use std::net::ToSocketAddrs;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rouille::{ReadWrite, Request, Response, ResponseBody, Server, Upgrade};

use crate::adapter::body;
use crate::adapter::nudge::{Nudger, Target};
use crate::error::{BodyError, OriginRefused};
use crate::http::{self, LAST_EVENT_ID, ResponseHeaders};
use crate::origin::OriginPolicy;
use crate::publish::SubscriptionBuilder;
use crate::subscription::{Reader, Subscription};

/// The number of bytes that the server collects before it sends them as a chunk.
const COLLECTED: usize = 8192;

impl Subscription {
    /// Returns the response whose body is this stream.
    ///
    /// This does **not** resume, because the subscription is open already. For a history open it with
    /// [`last_event_id`], or use [`SubscriptionBuilder::respond_to`].
    ///
    /// It has status 200 and the headers that an event stream needs. Its body begins with a comment, then carries every
    /// frame, and ends with the stream. It has `Content-Encoding: identity`, since `rouille::content_encoding::apply`
    /// would otherwise read the body to its end first. A `HEAD` request gets the head alone.
    ///
    /// Returns at once. rouille's thread then reads the body, and ends the stream when the connection is lost
    /// ([`EndCause::Dropped`](crate::EndCause::Dropped)).
    ///
    /// ```no_run
    /// # use server_sent_events::{Publisher, adapter::rouille::{last_event_id, respond_busy, server}};
    /// # use std::time::Duration;
    /// # let publisher = Publisher::new();
    /// let server = server("127.0.0.1:5000", move |request| {
    ///     match publisher.subscription(()).last_event_id(last_event_id(request)).open() {
    ///         Ok(subscription) => subscription.into_rouille(),
    ///         Err(_full) => respond_busy(Duration::from_secs(5)),
    ///     }
    /// })?;
    /// server.run();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_rouille(self) -> Response {
        self.into_rouille_with_headers(&ResponseHeaders::new())
    }

    /// Returns the response of [`into_rouille`](Self::into_rouille) with additional headers.
    pub fn into_rouille_with_headers(mut self, headers: &ResponseHeaders) -> Response {
        self.begin_with_comment();
        response(headers, ResponseBody::from_reader(Body(self.into_reader().pad_to(COLLECTED))))
    }

    /// Returns the response that takes the connection over from rouille and [writes the stream in the
    /// background](Self::write_in_background).
    ///
    /// This does **not** resume by itself: open the subscription with the request's [`last_event_id`].
    ///
    /// `request` is the request to answer. A `HEAD` request gets the head alone. The stream occupies no thread of
    /// rouille, and needs no padding: the publisher's writer threads send each event at once. For this, the response
    /// has the header `Connection: upgrade`, and neither a length nor chunks.
    ///
    /// By HTTP's rules (RFC 9112 6.3) such a response ends with its connection. But the server below does not close the
    /// connection, unless the client asked for `Connection: close`, as most proxies do, or speaks HTTP/1.0. So **the
    /// client cannot see that the stream has ended**. An `EventSource` does not reconnect after
    /// [`close`](crate::Publisher::close) or after its queue was full, but waits in silence.
    ///
    /// If no writer thread can be started, the stream ends after its head.
    ///
    /// ```no_run
    /// # use server_sent_events::{Publisher, adapter::rouille::{last_event_id, respond_busy, server}};
    /// # use std::time::Duration;
    /// # let publisher = Publisher::new();
    /// let server = server("127.0.0.1:5000", move |request| {
    ///     match publisher.subscription(()).last_event_id(last_event_id(request)).open() {
    ///         Ok(subscription) => subscription.into_rouille_upgrade(request),
    ///         Err(_full) => respond_busy(Duration::from_secs(5)),
    ///     }
    /// })?;
    /// server.pool_size(8).run();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_rouille_upgrade(self, request: &Request) -> Response {
        self.into_rouille_upgrade_with_headers(request, &ResponseHeaders::new())
    }

    /// Returns the response of [`into_rouille_upgrade`](Self::into_rouille_upgrade) with additional headers.
    pub fn into_rouille_upgrade_with_headers(mut self, request: &Request, headers: &ResponseHeaders) -> Response {
        let head = response(headers, ResponseBody::empty());
        if request.method() == "HEAD" {
            return head;
        }
        self.begin_with_comment();
        Response { upgrade: Some(Box::new(BackgroundUpgrade(Some(self)))), ..head }
    }
}

impl<P: Send + Sync + 'static> SubscriptionBuilder<'_, P> {
    /// Opens the subscription, and returns the response whose body is its stream. With a [history](crate::History) the
    /// client resumes after its last event ID.
    ///
    /// If a [temporary](crate::OpenError::is_temporary) limit is reached, the response is a [busy
    /// response](respond_busy) for 5 seconds, after which a browser reconnects. For any other
    /// [`OpenError`](crate::OpenError) the request is at fault. The response then has status 400 and the error's text,
    /// and a browser does not reconnect.
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

    /// Returns the response of [`respond_to`](Self::respond_to) with additional headers.
    ///
    /// Every response carries them: the stream, the busy response, and the one with status 400. So a browser lets a
    /// page of another origin reconnect after a busy response.
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

/// Creates a [`rouille::Server`] for event streams. Port 0 takes a free port.
///
/// It works as [`Server::new`] does, and also keeps streams from starving. `tiny_http`, the server below rouille, can
/// queue a new connection behind one that never ends, even if only ten open together. The new connection then gets no
/// byte. Any further connection makes `tiny_http` take up one that waits. So for a moment after each request a thread
/// connects to the server and closes the connection. It does so five times after a single request, and never while the
/// server is idle.
///
/// # Errors
///
/// Returns the operating system's error if the address cannot be bound or a thread cannot be started.
///
/// ```
/// use server_sent_events::{Publisher, adapter::rouille::server};
///
/// let publisher = Publisher::new();
/// let answers = publisher.clone();
/// let server = server("127.0.0.1:0", move |request| match &*request.url() {
///     "/events" => answers.subscription(()).respond_to(request),
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
    // The handler holds the nudger, and lives as long as the server.
    let nudger = Arc::new(OnceLock::<Nudger>::new());
    let held_by_handler = Arc::clone(&nudger);
    let server = Server::new(address, move |request: &Request| {
        if let Some(nudger) = held_by_handler.get() {
            nudger.request_arrived(Some(*request.remote_addr()));
        }
        handler(request)
    });
    let server = server.map_err(io::Error::other)?;
    nudger.set(Nudger::start(Target::tcp(server.server_addr()))?).expect("BUG: the nudger was set twice");
    Ok(server)
}

/// Returns a response whose stream ends at once and makes an `EventSource` reconnect later.
///
/// Use it when a limit is reached. The client reconnects after a random time between `retry` and twice that. A status
/// such as 503 would make it give up for good.
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

/// Returns the response of [`respond_busy`] with additional headers.
///
/// Give it the headers of the streams. Without their CORS headers a browser rejects the response for a page of another
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
    response(headers, ResponseBody::from_string(http::retry_later(retry)))
}

/// Returns the ID of the last event that the client saw, if the request has one.
///
/// The ID comes from the header `Last-Event-ID`, else from `lastEventId` in the query, for clients that cannot set a
/// header. The client may send any text of any length. An empty ID counts as none.
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

/// Reads the whole body of the request, or rejects it. Blocks until the body has arrived or the connection has ended.
///
/// It reads exactly as many bytes as `Content-Length` announces. [`Request::data`](rouille::Request::data) alone has
/// two faults. If the client offers an upgrade, the body never ends (`curl --http2` and Java's `HttpClient` offer
/// HTTP/2 on each plain request). And a truncated body looks whole.
///
/// A request without `Content-Length` has an empty body. A client that waits for `100 Continue` is sent it, unless the
/// body is rejected.
///
/// # Errors
///
/// Returns a [`BodyError`], which has a status for the response:
///
/// * 400 for a body that ends early, for a length that is not one number, and for an encoding other than chunked.
/// * 411 for a chunked body, because the server below rouille does not report whether it is whole.
/// * 413 for a body larger than `max_bytes`.
/// * 500 ([`BodyError::AlreadyTaken`]) if `Request::data` was called before.
///
/// A body is rejected with 411 or 413 before any of it is read.
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

/// Checks whether the policy allows the request, by its method, `Host` and `Origin`.
///
/// # Errors
///
/// Returns the errors of [`OriginPolicy::check`], which have a status and a text for the response.
///
/// ```
/// use rouille::Request;
/// use server_sent_events::{OriginPolicy, adapter::rouille::check_origin};
///
/// let policy = OriginPolicy::builder().build(([127, 0, 0, 1], 5000))?;
/// let post = |origin: &str| {
///     let headers = vec![("Host".into(), "localhost:5000".into()), ("Origin".into(), origin.to_owned().into())];
///     Request::fake_http("POST", "/", headers, vec![])
/// };
/// assert!(check_origin(&post("http://localhost:5000"), &policy).is_ok());
/// assert_eq!(check_origin(&post("https://evil.example"), &policy).unwrap_err().status(), 403);
/// # Ok::<(), server_sent_events::OriginPolicyError>(())
/// ```
pub fn check_origin(request: &Request, policy: &OriginPolicy) -> Result<(), OriginRefused> {
    policy.check(request.method(), request.headers())
}

/// Returns a response with the headers of an event stream.
fn response(headers: &ResponseHeaders, data: ResponseBody) -> Response {
    let identity = ("Content-Encoding".into(), "identity".into());
    let headers = headers.all().map(owned).chain([identity]).collect();
    Response { status_code: 200, headers, data, upgrade: None }
}

/// Converts a header for rouille.
fn owned((name, value): (&str, &str)) -> (Cow<'static, str>, Cow<'static, str>) {
    (name.to_owned().into(), value.to_owned().into())
}

/// The body that rouille reads.
struct Body(Reader);

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    /// Appends what is ready. The server calls this if the client takes no chunks, since it needs the length before it
    /// sends a byte. A live stream has no end, so waiting for one would collect events without a bound.
    fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let before = bytes.len();
        self.0.take_ready(bytes);
        Ok(bytes.len() - before)
    }
}

/// Starts writing in the background once rouille has given the connection away.
struct BackgroundUpgrade(Option<Subscription>);

impl Upgrade for BackgroundUpgrade {
    fn build(&mut self, connection: Box<dyn ReadWrite + Send>) {
        if let Some(subscription) = self.0.take() {
            // After an error the stream is over, and no response can report it.
            let _ = subscription.write_in_background(connection);
        }
    }
}
