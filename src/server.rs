//! EventServer: a strict front for event streams and nothing else.
//!
//! ```no_run
//! use server_sent_events::Publisher;
//! use server_sent_events::server::{Answer, EventServer};
//!
//! let publisher = Publisher::new();
//! let streams = publisher.clone();
//! let server = EventServer::bind("127.0.0.1:5000")?.spawn(move |request| match request.path() {
//!     "/news" => streams.subscription(()).last_event_id(request.last_event_id().map(String::from)).open().into(),
//!     _ => Answer::Status(404, "there is /news".into()),
//! })?;
//! publisher.publish("hello");
//! server.stop();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # When to take which
//!
//! * **tiny_http or rouille**, for few streams in a network that you trust: the page and the stream come from one port, and
//!   one loop answers everything.
//! * **This server**, for many streams, or for strangers. It answers `GET` with event streams, and short texts, and
//!   nothing else: pages and what is posted need another server, on another port, or behind the same proxy. A stream costs no
//!   thread and one descriptor, and a client that stalls costs no thread either.
//!
//! For one public port, have a proxy send the streams' paths here. For nginx, among the README's lines, which say what
//! `@away` is (`examples/nginx-streams.conf`, tested with `hub` behind it):
//!
//! ```nginx
//! location /streams/ {
//!     proxy_pass http://127.0.0.1:5001/; # with the last slash /streams/news is /news there
//!     proxy_http_version 1.1;
//!     proxy_set_header Host localhost;   # what a server on the loopback answers to
//!     proxy_read_timeout 60s;            # longer than the heartbeat, which is 15 s
//!     error_page 502 504 = @away;
//! }
//! ```
//!
//! Without a proxy the page's origin is another one, and the server must [allow](EventServerBuilder::allow_origin) it.
//!
//! # Threads
//!
//! One thread accepts connections, reads requests, sees when a client is gone, and wakes streams whose socket has room again.
//! It never waits for a client. [Four](EventServerBuilder::answering_threads) call the closure. The
//! publisher's writer threads write. A publisher of its own for each kind of stream is fine: they share the one thread.
//!
//! # What it accepts
//!
//! `GET` and `HEAD` of HTTP/1.1 and HTTP/1.0, one for each connection, without a body, whose head comes within 10 s, has no more
//! than 8 KiB and 64 fields, and can be understood in one way only. Everything else is answered with a status and the
//! connection's end: 400 for what is not well-formed or has a body, 403 for a `Host` or an `Origin` that is not allowed,
//! 405 for another method, 408 for a head that does not come in time, 431 for one that is too long, 505 for another
//! version. Whatever a client sends after its request ends its stream, and so does saying that it sends no more.
//!
//! Where there are too many connections, or no descriptor is left, and another comes, the oldest that is no stream is hung
//! up on: heads that do not come keep nobody out.

mod answers;
mod front;
mod head;
mod policy;
mod quota;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};

use crate::error::OpenError;
use crate::sockets::{self, Options};
use crate::subscription::Subscription;

use front::{Front, Mailbox, Message};
pub use head::Request;
use policy::{Policy, PolicySettings};

/// What the closure given to [`EventServer::serve`] answers.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// The event stream. A `HEAD` request gets its head alone, and the subscription ends.
    Stream(Subscription),
    /// The client is to come back later: status 200, a `retry:` between 5 and 10 seconds that differs for each client, and
    /// the end. A status such as 503 would make an `EventSource` give up for good.
    Busy,
    /// The client is not to come back: status 204, after which an `EventSource` does not.
    Stop,
    /// Any other status, with a text for people; an `EventSource` does not come back. A status that is none (below 200, or
    /// over 599) is answered with 500.
    Status(u16, String),
}

impl From<Subscription> for Answer {
    fn from(subscription: Subscription) -> Self {
        Self::Stream(subscription)
    }
}

/// What was not opened is answered by whose fault it is: [`Busy`](Answer::Busy) where there may be room
/// [later](OpenError::is_temporary), otherwise status 400 with the error's text.
impl From<Result<Subscription, OpenError>> for Answer {
    fn from(opened: Result<Subscription, OpenError>) -> Self {
        match opened {
            Ok(subscription) => Self::Stream(subscription),
            Err(error) if error.is_temporary() => Self::Busy,
            Err(error) => Self::Status(400, error.to_string()),
        }
    }
}

/// The settings of an [`EventServer`]; from [`EventServer::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `bind`"]
pub struct EventServerBuilder {
    policy: PolicySettings,
    max_streams: Option<usize>,
    per_address: usize,
    answering_threads: usize,
    write_deadline: Duration,
    head_deadline: Duration,
    sockets: Options,
}

impl EventServerBuilder {
    /// Allows pages of this origin (CORS) to read the streams.
    ///
    /// The origin is what the browser sends: `scheme://host[:port]`, such as `https://example.org`, `tauri://localhost`
    /// or `chrome-extension://ID`. Call it once per origin. Defaults to none. As soon as one is allowed, a request of any
    /// other origin is answered with 403, except for the server's own: the one whose host and port are those of the `Host`
    /// header.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.policy.origins.push(origin.into());
        self
    }

    /// Allows the origin `null`: pages from files, `data:` URLs and sandboxed frames, of whatever site.
    pub fn allow_null_origin(mut self) -> Self {
        self.policy.allow_null_origin = true;
        self
    }

    /// Allows pages of the allowed origins to send cookies (`new EventSource(url, { withCredentials: true })`). Defaults to
    /// not.
    pub fn allow_credentials(mut self) -> Self {
        self.policy.allow_credentials = true;
        self
    }

    /// Allows pages of the allowed origins to send this request header, such as `Authorization`.
    ///
    /// A browser asks first (a preflight) for all but a few plain headers. Call it once per header. `Last-Event-ID` and
    /// `Cache-Control` are always allowed.
    ///
    /// ```
    /// use server_sent_events::server::EventServer;
    ///
    /// let settings = EventServer::builder().allow_origin("https://example.org").allow_header("Authorization");
    /// let server = settings.bind("127.0.0.1:0")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn allow_header(mut self, name: impl Into<String>) -> Self {
        self.policy.headers.push(name.into());
        self
    }

    /// Allows requests to this host, whatever the port. Other hosts are answered with 403.
    ///
    /// This stops DNS rebinding, by which a stranger's page reaches a server that only this machine or network can reach.
    /// Call it once per host. The address that the server is bound to is always allowed, and on the loopback also
    /// `localhost`, `127.0.0.1` and `[::1]`. Defaults to these on the loopback, and to any host elsewhere.
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.policy.hosts.push(host.into());
        self
    }

    /// Allows requests to any host, also on the loopback.
    pub fn allow_any_host(mut self) -> Self {
        self.policy.allow_any_host = true;
        self
    }

    /// How many streams there may be at once; above it, clients are told to come back later. Defaults to what the limit of
    /// open files allows, which is raised as far as the system lets it, with 64 to spare.
    pub fn max_streams(mut self, streams: usize) -> Self {
        self.max_streams = Some(streams);
        self
    }

    /// How many streams one address may have at once; above it, it is told to come back later. Defaults to no bound: behind a
    /// proxy all have one address. An IPv6 client counts by its /64, which it usually has to itself.
    pub fn max_streams_per_address(mut self, streams: usize) -> Self {
        self.per_address = streams;
        self
    }

    /// How many threads call the closure. Defaults to 4.
    pub fn answering_threads(mut self, threads: usize) -> Self {
        self.answering_threads = threads;
        self
    }

    /// How long a stream may wait for its socket to take anything; past it, it ends with
    /// [`EndCause::WriteTimedOut`](crate::EndCause::WriteTimedOut). Defaults to 30 s; looked at each second.
    pub fn write_deadline(mut self, deadline: Duration) -> Self {
        self.write_deadline = deadline;
        self
    }

    /// How long a client may take to send its request, from its connection on. Defaults to 10 s.
    pub fn head_deadline(mut self, deadline: Duration) -> Self {
        self.head_deadline = deadline;
        self
    }

    /// How many bytes the kernel keeps for a client that reads slowly (`SO_SNDBUF`; Linux doubles it). Defaults to what
    /// the kernel chooses, up to some 4 MiB.
    ///
    /// What is in there is on its way and cannot be taken back: the smaller it is, the sooner a slow client is found, and
    /// the less stale is what it reads; the larger, the faster a client far away can be.
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.sockets.send_buffer = Some(bytes);
        self
    }

    /// How many bytes the kernel takes that it cannot send yet (`TCP_NOTSENT_LOWAT`, on Linux). Defaults to 64 KiB.
    ///
    /// As [`send_buffer`](Self::send_buffer), but it leaves fast clients their window: what is sent and not acknowledged
    /// does not count.
    pub fn not_sent_low_water(mut self, bytes: u32) -> Self {
        self.sockets.not_sent = bytes;
        self
    }

    /// Binds to the first of these addresses that can be bound; port 0 takes a free one. Nobody is answered before
    /// [`serve`](EventServer::serve) or [`spawn`](EventServer::spawn).
    ///
    /// # Errors
    ///
    /// What the operating system says of the last address; [`InvalidInput`](io::ErrorKind::InvalidInput) for a setting that
    /// is zero, for an origin that no browser sends, such as `*`, and for a header name that is not a token.
    pub fn bind(self, address: impl ToSocketAddrs) -> io::Result<EventServer> {
        let refuse = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        let settings = [
            ("max_streams", self.max_streams == Some(0)),
            ("max_streams_per_address", self.per_address == 0),
            ("answering_threads", self.answering_threads == 0),
            ("write_deadline", self.write_deadline.is_zero()),
            ("head_deadline", self.head_deadline.is_zero()),
        ];
        if let Some((setting, _)) = settings.iter().find(|(_, is_zero)| *is_zero) {
            return refuse(format!("{setting} is 0: it must be more than that"));
        }
        let listener = sockets::listen_on(address, self.sockets)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let policy = match self.policy.build(address) {
            Ok(policy) => policy,
            Err(reason) => return refuse(reason),
        };
        let max_streams = self.max_streams.unwrap_or_else(|| {
            // One for each stream, and some for all else.
            let limit = usize::try_from(open_files()).unwrap_or(usize::MAX);
            limit.saturating_sub((limit / 4).min(64)).max(1)
        });
        let rules = Rules {
            policy,
            max_streams,
            per_address: self.per_address,
            answering_threads: self.answering_threads,
            write_deadline: self.write_deadline,
            head_deadline: self.head_deadline,
        };
        let poll = mio::Poll::new()?;
        let (messages, inbox) = unbounded();
        let mailbox = Arc::new(Mailbox::new(messages, mio::Waker::new(poll.registry(), front::MAIL)?));
        let listener = mio::net::TcpListener::from_std(listener);
        Ok(EventServer { listener, address, poll, rules, mailbox, inbox })
    }
}

/// The limit of open files, raised as far as the system lets it.
fn open_files() -> u64 {
    #[cfg(unix)]
    return rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1_024);
    // Elsewhere there is none that matters.
    #[cfg(not(unix))]
    return 65_536;
}

/// What a server keeps to.
#[derive(Debug)]
struct Rules {
    policy: Policy,
    max_streams: usize,
    per_address: usize,
    answering_threads: usize,
    write_deadline: Duration,
    head_deadline: Duration,
}

/// A server of event streams and nothing else; see the [module](self).
pub struct EventServer {
    listener: mio::net::TcpListener,
    address: SocketAddr,
    poll: mio::Poll,
    rules: Rules,
    mailbox: Arc<Mailbox>,
    inbox: Receiver<Message>,
}

impl EventServer {
    /// A server with the default settings.
    ///
    /// # Errors
    ///
    /// What the operating system says of the last address.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Self::builder().bind(address)
    }

    /// A server whose settings are chosen one by one.
    ///
    /// ```
    /// use server_sent_events::server::EventServer;
    ///
    /// let server = EventServer::builder().allow_origin("https://example.org").bind("127.0.0.1:0")?;
    /// println!("streams on http://{}", server.local_addr());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn builder() -> EventServerBuilder {
        EventServerBuilder {
            policy: PolicySettings::default(),
            max_streams: None,
            per_address: usize::MAX,
            answering_threads: 4,
            write_deadline: Duration::from_secs(30),
            head_deadline: Duration::from_secs(10),
            sockets: Options::default(),
        }
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What stops it from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper { mailbox: Arc::clone(&self.mailbox) }
    }

    /// Answers requests on this thread, until it is [stopped](Self::stopper).
    ///
    /// The closure is called for each request, by one of a few [threads](EventServerBuilder::answering_threads). It may block
    /// a little: as many requests as there are such threads wait for it, while streams go on. A panic in it costs that
    /// request a 500 and nothing else.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started, or the operating system fails to say which sockets are ready.
    pub fn serve<A>(self, answer: impl Fn(&Request) -> A + Send + Sync + 'static) -> io::Result<()>
    where
        A: Into<Answer>,
    {
        let Self { listener, poll, rules, mailbox, inbox, .. } = self;
        Front::new(poll, listener, rules, mailbox, inbox)?
            .run(Arc::new(move |request: &Request| answer(request).into()))
    }

    /// Answers requests on a thread of its own, as [`serve`](Self::serve) does.
    ///
    /// # Errors
    ///
    /// When that thread cannot be started.
    pub fn spawn<A>(self, answer: impl Fn(&Request) -> A + Send + Sync + 'static) -> io::Result<RunningServer>
    where
        A: Into<Answer>,
    {
        let (address, stopper) = (self.address, self.stopper());
        let thread = thread::Builder::new().name("sse front".into());
        let thread = thread.spawn(move || self.serve(answer))?;
        Ok(RunningServer { address, stopper, thread: Some(thread) })
    }
}

impl fmt::Debug for EventServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventServer").field("local_addr", &self.address).finish_non_exhaustive()
    }
}

/// Stops an [`EventServer`] from any thread; from [`EventServer::stopper`].
#[derive(Clone, Debug)]
pub struct Stopper {
    mailbox: Arc<Mailbox>,
}

impl Stopper {
    /// Has the server stop, and does not wait for it: it accepts nobody any more, and ends its streams after what is queued
    /// for them; after five seconds it hangs up on those that have not taken that.
    ///
    /// To say goodbye first, and to have clients come back at different times, [shut the publisher
    /// down](crate::Publisher::shutdown) before.
    pub fn stop(&self) {
        self.mailbox.send(Message::Stop);
    }
}

/// A server that runs on a thread of its own, stopped when it is dropped; from [`EventServer::spawn`].
#[derive(Debug)]
#[must_use = "dropping it stops the server"]
pub struct RunningServer {
    address: SocketAddr,
    stopper: Stopper,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl RunningServer {
    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What stops it from another thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Stops the server, as [`Stopper::stop`] does, and waits until it has. So does dropping it.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            // What it failed with, or panicked over, has ended it all the same.
            let _ = thread.join();
        }
    }
}
