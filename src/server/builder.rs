//! The settings of an EventServer, checked before it is bound.

use std::io;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;

use super::notifier::Notifier;
use super::policy::PolicySettings;
use super::{Config, EventServer, event_loop};
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
            sockets: Options::default(),
        }
    }

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

    /// Sets the limit of streams at once. Above it, clients are told to reconnect later.
    ///
    /// Defaults to the limit of open files, which is raised as far as the system allows, less 64.
    pub fn max_streams(mut self, streams: usize) -> Self {
        self.max_streams = Some(streams);
        self
    }

    /// Sets the limit of streams at once per IP address. Above it, the client is told to reconnect later.
    ///
    /// An IPv6 client counts by its /64, which it usually has to itself. Defaults to no limit: behind a proxy all clients
    /// have one address.
    pub fn max_streams_per_ip(mut self, streams: usize) -> Self {
        self.max_streams_per_ip = streams;
        self
    }

    /// Sets how many threads call the handler. Defaults to 4.
    pub fn handler_threads(mut self, threads: usize) -> Self {
        self.handler_threads = threads;
        self
    }

    /// Sets how long a response may wait for its socket to take anything. Any progress restarts the time.
    ///
    /// After it, a stream ends with [`EndCause::WriteTimedOut`](crate::EndCause::WriteTimedOut), and the connection closes.
    /// Defaults to 30 s, checked once per second.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Sets how long a client may take to send its request, from the connection on. Defaults to 10 s.
    pub fn header_read_timeout(mut self, timeout: Duration) -> Self {
        self.header_read_timeout = timeout;
        self
    }

    /// Sets the size of the kernel's buffer for a client that reads slowly (`SO_SNDBUF`; Linux doubles it).
    ///
    /// What is in the buffer cannot be taken back. A small one finds a slow client sooner and keeps less stale data for it;
    /// a large one is faster to a client far away. Defaults to the kernel's choice, up to about 4 MiB.
    pub fn send_buffer_size(mut self, bytes: usize) -> Self {
        self.sockets.send_buffer_size = Some(bytes);
        self
    }

    /// Sets how many bytes the kernel takes that it cannot send yet (`TCP_NOTSENT_LOWAT`, on Linux). Defaults to 64 KiB.
    ///
    /// It works as [`send_buffer_size`](Self::send_buffer_size), but does not limit fast clients: data that is sent and not
    /// yet acknowledged does not count.
    pub fn notsent_lowat(mut self, bytes: u32) -> Self {
        self.sockets.notsent_lowat = bytes;
        self
    }

    /// Binds to the first of these addresses that can be bound. Port 0 takes a free one.
    ///
    /// Requests are answered from [`serve`](EventServer::serve) or [`spawn`](EventServer::spawn) on.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error for the last address, and an error of the kind
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a setting that is 0, for an origin that no browser sends, such as
    /// `*`, and for a header name that is not a token.
    pub fn bind(self, address: impl ToSocketAddrs) -> io::Result<EventServer> {
        self.check()?;
        let listener = sockets::listen_on(address, self.sockets)?;
        listener.set_nonblocking(true)?;
        let local_addr = listener.local_addr()?;
        let config = Config {
            policy: self.policy.build(local_addr).map_err(invalid)?,
            max_streams: self.max_streams.unwrap_or_else(default_max_streams),
            max_streams_per_ip: self.max_streams_per_ip,
            handler_threads: self.handler_threads,
            write_timeout: self.write_timeout,
            header_read_timeout: self.header_read_timeout,
        };
        let poll = mio::Poll::new()?;
        let (messages, inbox) = unbounded();
        let notifier = Arc::new(Notifier::new(messages, mio::Waker::new(poll.registry(), event_loop::NOTIFIER)?));
        let listener = mio::net::TcpListener::from_std(listener);
        Ok(EventServer { listener, local_addr, poll, config, notifier, inbox })
    }

    /// Checks that no setting is 0.
    fn check(&self) -> io::Result<()> {
        for (setting, is_zero) in [
            ("max_streams", self.max_streams == Some(0)),
            ("max_streams_per_ip", self.max_streams_per_ip == 0),
            ("handler_threads", self.handler_threads == 0),
            ("write_timeout", self.write_timeout.is_zero()),
            ("header_read_timeout", self.header_read_timeout.is_zero()),
        ] {
            if is_zero {
                return Err(invalid(format!("`{setting}` must be greater than 0")));
            }
        }
        Ok(())
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// Returns a limit with one descriptor per stream and some for all else.
fn default_max_streams() -> usize {
    let limit = usize::try_from(open_files()).unwrap_or(usize::MAX);
    limit.saturating_sub((limit / 4).min(64)).max(1)
}

/// Returns the limit of open files, raised as far as the system allows.
fn open_files() -> u64 {
    #[cfg(unix)]
    return rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1_024);
    // Elsewhere there is no limit that matters.
    #[cfg(not(unix))]
    return 65_536;
}
