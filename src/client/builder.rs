//! The settings of a client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Parser;
use super::connection::{RequestSettings, Requests};
use super::error::ConnectError;
use super::event_source::{ConnectionLost, EventSource};
use super::patience::Patience;
use super::reader::{Delays, OnConnectionLost, Reader};
use super::stop::StopSignal;
use crate::error::InvalidSetting;
use crate::publish::LastEventId;

/// The settings of an [`EventSource`]; from [`EventSource::builder`].
///
/// Everything that can grow has a limit:
///
/// | what | limit | at the limit | set by |
/// |---|---|---|---|
/// | a line of the stream | 4 MiB | the connection is dropped, and the client reconnects after growing delays | [`max_line_len`](Self::max_line_len) |
/// | the data of an event | 16 MiB | the connection is dropped, and the client reconnects after growing delays | [`max_event_len`](Self::max_event_len) |
/// | bytes that the program has not taken | those of 2 reads of up to 64 KiB, and the system's buffer | the client reads nothing | |
/// | resolving, connecting, and the response's head | 30 s each | the client reconnects | [`connect_timeout`](Self::connect_timeout) |
/// | the response's head | 32 KiB | the client reconnects | |
/// | redirects | 20 | the client reconnects | |
/// | silence | 90 s | the connection is dropped, and the client reconnects | [`read_timeout`](Self::read_timeout) |
/// | the delay before a connection | 60 s and half as much again, or the server's reconnection time | | [`max_reconnection_delay`](Self::max_reconnection_delay) |
#[must_use = "a builder does nothing until `connect`"]
pub struct EventSourceBuilder {
    requests: RequestSettings,
    parser: Parser,
    max_line_len: usize,
    max_event_len: usize,
    delays: Delays,
    on_connection_lost: Option<Box<OnConnectionLost>>,
}

impl EventSourceBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            requests: RequestSettings {
                url,
                headers: Vec::new(),
                root_certificates: None,
                connect_timeout: Duration::from_secs(30),
                read_timeout: Some(Duration::from_secs(90)),
                retry_server_errors: false,
            },
            parser: Parser::new(),
            max_line_len: Parser::MAX_LINE_LEN,
            max_event_len: Parser::MAX_EVENT_LEN,
            delays: Delays {
                reconnection_time: Duration::from_secs(3),
                max_reconnection_delay: Duration::from_secs(60),
            },
            on_connection_lost: None,
        }
    }

    /// Adds a header to each request, such as `Authorization`.
    ///
    /// A redirect to another origin (scheme, host or port) is followed without `Authorization`, and each redirect without `Cookie`. All other
    /// headers are sent to the target too.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.requests.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the last event ID that the first request sends. Defaults to none.
    pub fn last_event_id(mut self, id: impl LastEventId) -> Self {
        self.parser = self.parser.resume_after(&id.into_id().unwrap_or_default());
        self
    }

    /// Sets the certificates that sign the server's, in PEM format, instead of those of the web's authorities.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.requests.root_certificates = Some(pem.into());
        self
    }

    /// Sets the delay before the client reconnects, until the server sends a reconnection time. Defaults to 3 seconds.
    ///
    /// The delay is at least 100 ms. It varies at random, by up to half as much again, so that many clients do not
    /// return at the same moment. It doubles with each connection in a row that fails.
    pub fn reconnection_time(mut self, time: Duration) -> Self {
        self.delays.reconnection_time = time;
        self
    }

    /// Sets the limit up to which the delay doubles. Defaults to 60 seconds.
    ///
    /// A longer reconnection time of the server counts nevertheless.
    pub fn max_reconnection_delay(mut self, delay: Duration) -> Self {
        self.delays.max_reconnection_delay = delay;
        self
    }

    /// Sets the timeout of each step until the stream begins: resolving the name, connecting, and receiving the
    /// response's head. Defaults to 30 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.requests.connect_timeout = timeout;
        self
    }

    /// Sets the silence after which the client drops a connection and reconnects; `None` for never. Defaults to 90
    /// seconds.
    ///
    /// It detects a connection that was lost without a sign. Most proxies close a silent stream after 60 seconds, so
    /// most servers send a comment more often. For a server that does not, choose `None`.
    #[doc(alias = "watchdog")]
    pub fn read_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.requests.read_timeout = timeout.into();
        self
    }

    /// Sets how many bytes a line of the stream may have. Defaults to 4 MiB.
    pub fn max_line_len(mut self, bytes: usize) -> Self {
        self.max_line_len = bytes;
        self
    }

    /// Sets how many bytes the data of an event may have. Defaults to 16 MiB.
    pub fn max_event_len(mut self, bytes: usize) -> Self {
        self.max_event_len = bytes;
        self
    }

    /// Sets whether the client reconnects after a response with status 429, or 500 to 599. Defaults to `false`.
    ///
    /// By the standard these end the stream. Set it for a server behind a proxy: while the server restarts, the proxy
    /// answers with 502 or 503.
    pub fn retry_server_errors(mut self, retry: bool) -> Self {
        self.requests.retry_server_errors = retry;
        self
    }

    /// Sets the hook that is called for each connection that is lost or cannot be made, before the delay. Setting it
    /// again replaces it.
    ///
    /// The thread that takes messages calls it, within that call. It is not called if the event source ends. A panic in
    /// the hook is caught.
    pub fn on_connection_lost(mut self, hook: impl Fn(&ConnectionLost) + Send + Sync + 'static) -> Self {
        self.on_connection_lost = Some(Box::new(hook));
        self
    }

    /// Makes it the client of a publisher that is followed.
    pub(super) fn for_follower(mut self) -> Self {
        self.parser = self.parser.for_follower();
        self
    }

    /// Starts the client. Does not wait for the server.
    ///
    /// # Errors
    ///
    /// Returns a [`ConnectError`] if a setting is invalid, or the thread cannot start.
    pub fn connect(self) -> Result<EventSource, ConnectError> {
        InvalidSetting::check("connect_timeout", self.requests.connect_timeout.is_zero())?;
        InvalidSetting::check_option("read_timeout", self.requests.read_timeout)?;
        InvalidSetting::check("max_line_len", self.max_line_len == 0)?;
        InvalidSetting::check("max_event_len", self.max_event_len == 0)?;
        let (signal, patience) = (Arc::new(StopSignal::new()), Arc::new(Patience::new()));
        let requests = Requests::new(self.requests, &signal, &patience)?;
        let parser = self.parser.max_line_len(self.max_line_len).max_event_len(self.max_event_len);
        let reader =
            Reader::start(requests, parser, self.delays, self.on_connection_lost, patience, Arc::clone(&signal));
        Ok(EventSource::new(reader.map_err(|error| ConnectError::Thread(error.kind()))?, signal))
    }
}

impl fmt::Debug for EventSourceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The headers may hold secrets.
        f.debug_struct("EventSourceBuilder")
            .field("url", &self.requests.url)
            .field("connect_timeout", &self.requests.connect_timeout)
            .field("read_timeout", &self.requests.read_timeout)
            .field("max_line_len", &self.max_line_len)
            .field("max_event_len", &self.max_event_len)
            .finish_non_exhaustive()
    }
}
