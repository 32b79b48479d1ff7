//! A history in a stream of Redis, which several processes share.

mod attach;
mod connect;
mod entry;
mod reader;
#[cfg(test)]
mod tests;
#[cfg(feature = "redis_tls")]
mod tls;
mod window;
mod writer;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use self::connect::Server;
use self::reader::Reader;
use self::window::Window;
use self::writer::Writer;
use super::shared::{OpenShared, SharedSink, SharedStore};
use super::{HistoryStore, KeptIn, WindowLimits};
use crate::error::InvalidSetting;

/// A stream of Redis in which several processes keep one [`History`](crate::History), so that a client can resume on each
/// of them.
///
/// Each process builds a publisher with the same settings, and all of them are one: an event that is published on one
/// reaches the subscribers of all, in the same order and with the same ID. A client can resume on any of them without a
/// gap.
///
/// An event is delivered once it comes back from Redis, also to the subscribers of the process that published it. The
/// publisher reads the stream into memory first, and refuses subscriptions as
/// [`OpenError::Starting`](crate::OpenError::Starting) until then. Building it does not wait for Redis.
///
/// **If Redis is away**, the streams stay open, and clients resume from memory. Published events wait, and are refused
/// beyond [`max_pending_events`](Self::max_pending_events). The publisher reconnects by itself, after 50 ms to 5 s.
///
/// **If Redis loses events** that were delivered, for example in a power loss or a failover, clients get a `gap` event: at
/// the same place on all processes. Processes that have delivered lost events end their streams, whose clients resume. If
/// Redis has lost everything, all streams end, and resuming clients get a `gap` event.
///
/// **What does not travel.** A closure of [`publish_with`](crate::Publisher::publish_with) is refused; use
/// [`publish_through`](crate::Publisher::publish_through). [`Overflow::Block`](crate::Overflow::Block) is not allowed.
/// Comments, statistics and [`disconnect_if`](crate::Publisher::disconnect_if) are those of one process;
/// [`disconnect_everywhere`](crate::Publisher::disconnect_everywhere) is for all.
///
/// An event may have up to 16 MiB. Redis must be version 7.0 or later, and no cluster. Its memory holds about 100 bytes per event besides the event. To
/// look into the stream, run `redis-cli XREVRANGE NAME + - COUNT 10`. Nothing else may write to it.
///
/// ```no_run
/// use server_sent_events::{History, Publisher, store::Redis};
/// use std::time::Duration;
///
/// let redis = Redis::at("redis://10.0.0.5:6379").stream("chat").max_events(100_000);
/// let publisher = Publisher::builder().history(History::new().store(redis)).build()?;
/// let receipt = publisher.publish_confirmed("chat", "hello", Duration::from_secs(2))?;
/// println!("all processes have the event {:?}", receipt.id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Redis {
    /// With Sentinels, its host is the name of the primary.
    url: String,
    sentinels: Vec<String>,
    #[cfg(feature = "redis_tls")]
    certificates: tls::Certificates,
    stream: String,
    max_events: usize,
    max_pending_events: usize,
    max_pending_bytes: usize,
    read_pause: Duration,
}

/// The largest event. Several are written, and read, together.
const MAX_EVENT_BYTES: usize = 16 << 20;

impl Redis {
    /// Names the server, such as `redis://user:password@10.0.0.5:6379/0`.
    ///
    /// A URL that begins with `rediss` is for TLS, with the feature `redis_tls`. The name or the address in the URL must be
    /// in the server's certificate.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            sentinels: Vec::new(),
            #[cfg(feature = "redis_tls")]
            certificates: tls::Certificates::default(),
            stream: "events".into(),
            max_events: 100_000,
            max_pending_events: 8_192,
            max_pending_bytes: 16 * 1024 * 1024,
            read_pause: Duration::from_millis(1),
        }
    }

    /// Names Sentinels, such as `redis://10.0.0.6:26379`, which are asked for the address of the primary before each
    /// connection.
    ///
    /// The host in the server's URL is then the name by which they know the primary, such as `mymaster` in
    /// `redis://user:password@mymaster`. Each URL has its own user and password, and begins with `rediss` for TLS.
    ///
    /// ```
    /// use server_sent_events::store::Redis;
    ///
    /// let redis = Redis::at("redis://:password@mymaster").sentinels(["redis://10.0.0.6:26379", "redis://10.0.0.7:26379"]);
    /// ```
    pub fn sentinels(mut self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.sentinels = urls.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the certificates of the authorities that may sign the server's certificate, in PEM format. Defaults to those of
    /// the system.
    #[cfg(feature = "redis_tls")]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.roots = Some(pem.into());
        self
    }

    /// Sets the certificate by which the server recognizes this program, with its chain, and its private key, both in PEM
    /// format. Redis needs it unless `tls-auth-clients` is `no`.
    #[cfg(feature = "redis_tls")]
    pub fn client_certificate(mut self, chain_pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.client = Some((chain_pem.into(), key_pem.into()));
        self
    }

    /// Sets the name of the stream. Defaults to `events`.
    ///
    /// All publishers of one history use the same name. The key `{NAME}:history` holds what is known about it.
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.stream = name.into();
        self
    }

    /// Sets how many events the stream keeps. Defaults to 100,000. Redis keeps up to a few hundred more.
    ///
    /// A publisher that starts reads them, as far as its [`max_bytes`](crate::History::max_bytes) can hold them. A
    /// publisher that was away from Redis for longer than this misses the others, and its clients get a `gap` event.
    pub fn max_events(mut self, events: usize) -> Self {
        self.max_events = events;
        self
    }

    /// Sets the limit of events that are published here and have not come back from Redis. Defaults to 8,192.
    ///
    /// If it is reached, the publisher refuses further events.
    pub fn max_pending_events(mut self, events: usize) -> Self {
        self.max_pending_events = events;
        self
    }

    /// Sets the limit of bytes of the events that are published here and have not come back from Redis. Defaults to
    /// 16 MiB.
    ///
    /// If it is reached, the publisher refuses further events.
    pub fn max_pending_bytes(mut self, bytes: usize) -> Self {
        self.max_pending_bytes = bytes;
        self
    }

    /// Sets how long the publisher waits before it reads again, after it has read few events. Defaults to 1 ms. Zero
    /// reads at once.
    ///
    /// The pause collects events, so that Redis answers fewer commands: at 1,000 events per second it needs about half
    /// the processor time. An event arrives later by at most this time.
    pub fn read_pause(mut self, pause: Duration) -> Self {
        self.read_pause = pause;
        self
    }

    /// Returns the key of what is known about the stream. The braces put it into the same slot.
    fn meta_key(&self) -> String {
        format!("{{{}}}:history", self.stream)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URLs may hold passwords.
        f.debug_struct("Redis")
            .field("stream", &self.stream)
            .field("max_events", &self.max_events)
            .finish_non_exhaustive()
    }
}

impl OpenShared for Redis {
    fn check(&self) -> Result<(), InvalidSetting> {
        InvalidSetting::check("Redis::max_events", self.max_events == 0)?;
        InvalidSetting::check("Redis::max_pending_events", self.max_pending_events == 0)?;
        InvalidSetting::check("Redis::max_pending_bytes", self.max_pending_bytes == 0)
    }

    fn window_limits(&self) -> WindowLimits {
        let (events, bytes) = (self.max_pending_events, self.max_pending_bytes);
        WindowLimits { events, bytes, event_bytes: MAX_EVENT_BYTES }
    }

    fn start(&self, sink: Box<dyn SharedSink>) -> Result<Arc<dyn SharedStore>, String> {
        if self.stream.is_empty() {
            return Err("the name of the stream is empty".into());
        }
        let server = Server::new(self).map_err(|error| error.to_string())?;
        let connection = sink.connection();
        let window = Arc::new(Window::new(self.window_limits(), Arc::clone(&connection)));
        let writer = Writer::new(self.clone(), server.clone(), Arc::clone(&window));
        let reader = Reader::new(self.clone(), server, Arc::clone(&window), sink);
        // Ends the first thread if the second one cannot be started.
        let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let started = thread::Builder::new().name(name.into()).spawn(run);
            started.map(drop).map_err(|error| {
                window.stop();
                format!("cannot start a thread: {error}")
            })
        };
        let guarded = |run: Box<dyn FnOnce() + Send>| {
            let (window, connection) = (Arc::clone(&window), Arc::clone(&connection));
            Box::new(move || {
                // Without one of the threads nothing is delivered, so nothing may be accepted.
                if catch_unwind(AssertUnwindSafe(run)).is_err() {
                    connection.lose("a thread of the store has panicked".into());
                    window.stop();
                }
            })
        };
        start("sse redis writer", guarded(Box::new(move || writer.run())))?;
        start("sse redis reader", guarded(Box::new(move || reader.run())))?;
        Ok(window)
    }
}

impl From<Redis> for HistoryStore {
    fn from(redis: Redis) -> Self {
        Self(KeptIn::Shared(Arc::new(redis)))
    }
}
