//! The settings of an `EventServer`, checked before it is bound.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;

use super::notifier::Notifier;
use super::policy::PolicySettings;
use super::{Config, EventServer, event_loop};
use crate::error::InvalidSetting;
use crate::sockets::{self, Options};

/// The settings of an [`EventServer`]; from [`EventServer::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `bind`"]
pub struct EventServerBuilder {
    policy: PolicySettings,
    max_streams: Option<usize>,
    max_streams_per_ip: usize,
    handler_threads: usize,
    write_timeout: Duration,
    header_read_timeout: Duration,
    body_read_timeout: Duration,
    keep_alive_timeout: Duration,
    max_requests_per_connection: usize,
    max_body: usize,
    max_body_memory: Option<usize>,
    trusted_proxies: Vec<IpAddr>,
    sockets: Options,
}

impl EventServerBuilder {
    pub(super) fn new() -> Self {
        Self {
            policy: PolicySettings::default(),
            max_streams: None,
            max_streams_per_ip: usize::MAX,
            handler_threads: 4,
            write_timeout: Duration::from_secs(30),
            header_read_timeout: Duration::from_secs(10),
            body_read_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(30),
            max_requests_per_connection: 100_000,
            max_body: 0,
            max_body_memory: None,
            trusted_proxies: Vec::new(),
            // The event loop has a timeout of its own, which any progress restarts.
            sockets: Options { user_timeout: None, ..Options::default() },
        }
    }

    /// Allows pages of this origin (CORS) to read the streams. Call it once per origin. Defaults to no origin.
    ///
    /// The origin is what the browser sends: `scheme://host[:port]`, such as `https://example.org`, `tauri://localhost`
    /// or `chrome-extension://ID`. Once an origin is allowed, requests of other origins are answered with 403. The
    /// server's own origin remains allowed: the one whose host and port are those of the `Host` header. Until then, `GET`
    /// and `HEAD` of a foreign page are answered, and the browser keeps the response from the page;
    /// [`OriginPolicy`](crate::OriginPolicy) has all rules.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.policy.origins = self.policy.origins.allow_origin(origin);
        self
    }

    /// Allows the origin `null`: pages from files, `data:` URLs and sandboxed frames of any site.
    pub fn allow_null_origin(mut self) -> Self {
        self.policy.origins = self.policy.origins.allow_null_origin();
        self
    }

    /// Allows pages of the allowed origins to send cookies (`new EventSource(url, { withCredentials: true })`).
    /// Defaults to no cookies.
    pub fn allow_credentials(mut self) -> Self {
        self.policy.allow_credentials = true;
        self
    }

    /// Allows pages of the allowed origins to send this request header, such as `Authorization`. Call it once per
    /// header.
    ///
    /// Before a browser sends other than a few plain headers, it sends a preflight request. `Last-Event-ID` and
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

    /// Allows requests to this host on any port. Requests to other hosts are answered with 403. Call it once per host.
    ///
    /// This prevents DNS rebinding, by which a foreign page reaches a server that is visible only to this machine or
    /// network. The address that the server is bound to is always allowed. On the loopback, `localhost`, `127.0.0.1`
    /// and `[::1]` are allowed too. A host with a scheme, a port or a path is an error of `bind`. Defaults to these on
    /// the loopback, and to any host elsewhere.
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.policy.origins = self.policy.origins.allow_host(host);
        self
    }

    /// Allows requests to any host, even on the loopback.
    pub fn allow_any_host(mut self) -> Self {
        self.policy.origins = self.policy.origins.allow_any_host();
        self
    }

    /// Names the server as browsers know it, for a server behind a proxy. Call it once per name.
    ///
    /// The name is `host[:port]`; [`OriginPolicyBuilder::public_host`](crate::OriginPolicyBuilder::public_host) has the
    /// details. Requests to this host are allowed, and pages of this host are the server's own, whatever `Host` the
    /// proxy sends.
    ///
    /// ```
    /// use server_sent_events::server::EventServer;
    ///
    /// let server = EventServer::builder().public_host("events.example.org").bind("127.0.0.1:0")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn public_host(mut self, host: impl Into<String>) -> Self {
        self.policy.origins = self.policy.origins.public_host(host);
        self
    }

    /// Sets the limit of concurrent streams. Above it, clients are made to reconnect later.
    ///
    /// Defaults to the limit of open files minus 64, or minus a quarter of it if that is less. The limit of open files
    /// is raised as far as the system allows.
    pub fn max_streams(mut self, streams: usize) -> Self {
        self.max_streams = Some(streams);
        self
    }

    /// Sets the limit of concurrent streams per IP address. Above it, the client is made to reconnect later.
    ///
    /// An IPv6 client counts by its /64, which it usually has to itself. Defaults to no limit, because behind a proxy
    /// all clients have one address.
    pub fn max_streams_per_ip(mut self, streams: usize) -> Self {
        self.max_streams_per_ip = streams;
        self
    }

    /// Sets the number of threads that call the handler. Defaults to 4.
    pub fn handler_threads(mut self, threads: usize) -> Self {
        self.handler_threads = threads;
        self
    }

    /// Sets how long a response may wait for its socket to take anything. Any progress restarts the time. Defaults to
    /// 30 s.
    ///
    /// After this timeout a stream ends with [`EndCause::WriteTimedOut`](crate::EndCause::WriteTimedOut), and the
    /// connection closes. The timeout is checked once per second.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Sets how long a client may take to send the head of a request. Defaults to 10 s.
    ///
    /// The time begins with the connection, and for later requests with their first byte. Afterwards the request is
    /// answered with 408.
    pub fn header_read_timeout(mut self, timeout: Duration) -> Self {
        self.header_read_timeout = timeout;
        self
    }

    /// Accepts requests with a body of at most this many bytes, and with it all methods. Defaults to 0: only `GET` and
    /// `HEAD` reach the handler.
    ///
    /// The handler gets a body only if it is whole. A larger one is answered with 413.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    /// use server_sent_events::server::{EventServer, Response};
    ///
    /// let publisher = Publisher::new();
    /// let server = EventServer::builder().max_body(64 * 1024).bind("127.0.0.1:0")?.spawn(move |request| {
    ///     publisher.publish(request.body_text()?);
    ///     Response::status(204)
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Sets how many bytes the bodies of all requests may have together, from their arrival until the handler has
    /// responded. Defaults to 16 MiB, or to eight times [`max_body`](Self::max_body) if that is more.
    ///
    /// If the limit is reached, the slowest body that is still incomplete is answered with 408; if there is no other
    /// one, the request itself with 503. Both responses have the header `Retry-After`.
    pub fn max_body_memory(mut self, bytes: usize) -> Self {
        self.max_body_memory = Some(bytes);
        self
    }

    /// Sets how long a client may take to send a body. Each 4 KiB that arrive extend the time by a second. Defaults to
    /// 10 s. Afterwards the request is answered with 408.
    pub fn body_read_timeout(mut self, timeout: Duration) -> Self {
        self.body_read_timeout = timeout;
        self
    }

    /// Sets how long a connection stays open after a response, to wait for the next request. Defaults to 30 s.
    ///
    /// The server closes such connections earlier if it needs their place for others.
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.keep_alive_timeout = timeout;
        self
    }

    /// Sets the limit of requests per connection. The response to the last one closes the connection. Defaults to
    /// 100,000.
    pub fn max_requests_per_connection(mut self, requests: usize) -> Self {
        self.max_requests_per_connection = requests;
        self
    }

    /// Takes the clients' addresses from the header `X-Forwarded-For` if the request comes from one of these proxies.
    /// Defaults to no proxy: anybody could forge the header.
    ///
    /// [`Request::client_ip`](super::Request::client_ip) and [`max_streams_per_ip`](Self::max_streams_per_ip) use these
    /// addresses. The client is the last address in the header that does not belong to one of these proxies. Networks
    /// cannot be given.
    ///
    /// ```
    /// use server_sent_events::server::EventServer;
    ///
    /// let server = EventServer::builder().trust_forwarded_for([[127, 0, 0, 1].into()]).bind("127.0.0.1:0")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn trust_forwarded_for(mut self, proxies: impl IntoIterator<Item = IpAddr>) -> Self {
        self.trusted_proxies.extend(proxies.into_iter().map(|proxy| proxy.to_canonical()));
        self
    }

    /// Makes buffers small, so that a slow client reads fresh values: [`send_buffer_size`](Self::send_buffer_size) 8 KiB,
    /// [`notsent_lowat`](Self::notsent_lowat) 4 KiB.
    ///
    /// What the kernel has taken can no longer be replaced by a newer value. With the default buffers it takes more than
    /// 64 KiB, which a client that reads 4 KB/s gets 16 s later. With small ones the rest waits in the subscriber's
    /// queue, where [`Overflow::LatestPerKey`](crate::Overflow::LatestPerKey) keeps the newest event of each key. The
    /// price: a distant client gets about 8 KiB per round trip, which is 80 KB/s at 100 ms.
    ///
    /// ```
    /// use server_sent_events::server::EventServer;
    /// use server_sent_events::{Event, Overflow, Publisher};
    ///
    /// let publisher = Publisher::builder().overflow(Overflow::LatestPerKey).build()?;
    /// let streams = publisher.clone();
    /// let server = EventServer::builder().fresh_values().bind("127.0.0.1:0")?.spawn(move |_| streams.subscribe())?;
    /// publisher.publish(Event::new("21.5").key("kitchen"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fresh_values(mut self) -> Self {
        self.sockets.keep_fresh();
        self
    }

    /// Sets the size of the kernel's send buffer per connection (`SO_SNDBUF`; Linux doubles it).
    ///
    /// Data in this buffer cannot be withdrawn. A small buffer detects a slow client sooner and keeps less stale data
    /// for it. A large one is faster to a distant client. Defaults to the kernel's choice, up to about 4 MiB.
    pub fn send_buffer_size(mut self, bytes: usize) -> Self {
        self.sockets.send_buffer_size = Some(bytes);
        self
    }

    /// Sets how many bytes the kernel takes that it cannot send yet (`TCP_NOTSENT_LOWAT`, on Linux). Defaults to 64
    /// KiB.
    ///
    /// It works as [`send_buffer_size`](Self::send_buffer_size) does, but does not limit fast clients: data that is
    /// sent and not yet acknowledged does not count.
    pub fn notsent_lowat(mut self, bytes: u32) -> Self {
        self.sockets.notsent_lowat = bytes;
        self
    }

    /// Binds to the first of these addresses that can be bound. Port 0 takes a free port.
    ///
    /// The server answers requests once [`serve`](EventServer::serve) or [`spawn`](EventServer::spawn) is called.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error for the last address. Returns
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a setting that is 0, for a header name that is not a
    /// token, and for a `max_body_memory` below `max_body`. Also returns it for an [invalid](crate::OriginPolicyError)
    /// origin or host, such as the origin `*`.
    pub fn bind(self, address: impl ToSocketAddrs) -> io::Result<EventServer> {
        self.check()?;
        let max_body_memory = self.body_memory()?;
        let listener = sockets::listen_on(address, self.sockets)?;
        listener.set_nonblocking(true)?;
        let local_addr = listener.local_addr()?;
        let config = Config {
            policy: self.policy.build(local_addr, self.max_body > 0)?,
            max_streams: self.max_streams.unwrap_or_else(default_max_streams),
            max_streams_per_ip: self.max_streams_per_ip,
            handler_threads: self.handler_threads,
            write_timeout: self.write_timeout,
            header_read_timeout: self.header_read_timeout,
            body_read_timeout: self.body_read_timeout,
            keep_alive_timeout: self.keep_alive_timeout,
            max_requests_per_connection: self.max_requests_per_connection,
            max_body: self.max_body,
            max_body_memory,
            trusted_proxies: self.trusted_proxies,
        };
        let poll = mio::Poll::new()?;
        let (messages, inbox) = unbounded();
        let notifier = Arc::new(Notifier::new(messages, mio::Waker::new(poll.registry(), event_loop::NOTIFIER)?));
        let listener = mio::net::TcpListener::from_std(listener);
        Ok(EventServer { listener, local_addr, poll, config, notifier, inbox })
    }

    /// Returns the limit of all bodies, in which one of any size must have room.
    fn body_memory(&self) -> io::Result<usize> {
        let bytes = self.max_body_memory.unwrap_or_else(|| self.max_body.saturating_mul(8).max(16 * 1024 * 1024));
        if bytes < self.max_body {
            let text = "`max_body_memory` must be at least `max_body`";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(bytes)
    }

    /// Checks that no setting is zero.
    fn check(&self) -> Result<(), InvalidSetting> {
        InvalidSetting::check("max_streams", self.max_streams == Some(0))?;
        InvalidSetting::check("max_streams_per_ip", self.max_streams_per_ip == 0)?;
        InvalidSetting::check("handler_threads", self.handler_threads == 0)?;
        InvalidSetting::check("write_timeout", self.write_timeout.is_zero())?;
        InvalidSetting::check("header_read_timeout", self.header_read_timeout.is_zero())?;
        InvalidSetting::check("body_read_timeout", self.body_read_timeout.is_zero())?;
        InvalidSetting::check("keep_alive_timeout", self.keep_alive_timeout.is_zero())?;
        InvalidSetting::check("max_requests_per_connection", self.max_requests_per_connection == 0)?;
        InvalidSetting::check("max_body_memory", self.max_body_memory == Some(0))
    }
}

/// Returns a limit that leaves some descriptors for everything but streams.
fn default_max_streams() -> usize {
    let limit = usize::try_from(open_files()).unwrap_or(usize::MAX);
    limit.saturating_sub((limit / 4).min(64)).max(1)
}

/// Returns the limit of open files, after raising it as far as the system allows.
fn open_files() -> u64 {
    #[cfg(unix)]
    return rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1_024);
    // Other systems have no limit that matters.
    #[cfg(not(unix))]
    return 65_536;
}
