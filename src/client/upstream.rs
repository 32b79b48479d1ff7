//! A publisher that another one follows: the connection to it.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::stop::StopSignal;
use super::{ConnectError, EventSource, EventSourceBuilder, Message, StopHandle};
use crate::channels::Channels;
use crate::error::{InvalidSetting, RecvTimeoutError};
use crate::event::Event;
use crate::follow::Line;
use crate::store::{FollowSink, HistoryUpstream, StopFollowing, Upstream as OpenUpstream};

/// How often what has waited for too long is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// The delay after an answer that a client of another kind would accept as the end.
const DELAY_AFTER_END: Duration = Duration::from_secs(5);

/// A publisher for a [history](crate::History::follow) to follow: the origin of an edge.
///
/// Its server must answer the URL with a stream [for followers](crate::SubscriptionBuilder::for_follower) of the same
/// channels, in the same order. A thread follows it for as long as the publisher lives. It reconnects after a delay of
/// 200 ms, which doubles up to 5 seconds, and if nothing has arrived for 30 seconds. So the origin's
/// [heartbeat](crate::SubscriptionBuilder::heartbeat) must come more often. An event may have up to 64 MiB.
///
/// An origin with a [store](crate::store) can restart without a gap.
///
/// ```
/// use server_sent_events::client::Upstream;
/// use server_sent_events::server::{EventServer, Response};
/// use server_sent_events::{History, OpenError, Publisher};
/// use std::{thread, time::Duration};
///
/// // The origin. Its server answers followers.
/// let origin = Publisher::builder().history(History::new()).build()?;
/// let server = EventServer::bind("127.0.0.1:0")?;
/// let url = format!("http://{}/", server.local_addr());
/// let publisher = origin.clone();
/// thread::spawn(move || {
///     server.serve(move |request| {
///         let stream = publisher.subscription(()).channels(["news", "chat"]).last_event_id(request.last_event_id());
///         Ok::<Response, OpenError>(stream.for_follower().heartbeat(Duration::from_secs(2)).open()?.into())
///     })
/// });
/// let id = origin.publish_to("news", "hello").id().map(str::to_owned);
///
/// // The edge, usually on another machine. It has the events of the origin, with their IDs.
/// let upstream = Upstream::at(url).channels(["news", "chat"]);
/// let edge = Publisher::builder().history(History::new().follow(upstream)).build()?;
/// # let deadline = std::time::Instant::now() + Duration::from_secs(20);
/// while edge.last_event_id() != id {
/// #   assert!(std::time::Instant::now() < deadline);
///     thread::sleep(Duration::from_millis(10));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "an upstream does nothing until a history follows it"]
pub struct Upstream {
    url: String,
    channels: Vec<Arc<str>>,
    headers: Vec<(String, String)>,
    root_certificates: Option<Vec<u8>>,
}

impl Upstream {
    /// Creates an upstream at this URL.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), channels: Vec::new(), headers: Vec::new(), root_certificates: None }
    }

    /// Sets the channels of the stream, in the order in which the origin subscribes to them. There must be at least one.
    pub fn channels<By>(mut self, channels: impl Channels<By>) -> Self {
        self.channels = channels.with_names(|names| names.iter().map(|&name| name.into()).collect());
        self
    }

    /// Adds a header to each request, such as `Authorization`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the certificates that sign the origin's, in PEM format, instead of those of the web's authorities.
    ///
    /// If they cannot be read, [`build`](crate::PublisherBuilder::build) returns an error.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    fn client(&self, sink: &dyn FollowSink) -> EventSourceBuilder {
        const LARGEST: usize = 64 * 1024 * 1024;
        let connection = sink.connection();
        let builder = EventSource::builder(&self.url)
            .for_follower()
            .last_event_id(sink.last_id())
            .reconnection_time(Duration::from_millis(200))
            .max_reconnection_delay(Duration::from_secs(5))
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(30))
            .max_line_len(LARGEST)
            .max_event_len(LARGEST)
            .retry_server_errors(true)
            .on_connection_lost(move |lost| connection.lose(lost.error.to_string()));
        let builder =
            self.root_certificates.iter().fold(builder, |builder, pem| builder.root_certificates(pem.clone()));
        self.headers.iter().fold(builder, |builder, (name, value)| builder.header(name, value))
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The headers may hold secrets.
        f.debug_struct("Upstream").field("url", &self.url).field("channels", &self.channels).finish_non_exhaustive()
    }
}

impl From<Upstream> for HistoryUpstream {
    fn from(upstream: Upstream) -> Self {
        Self(Arc::new(upstream))
    }
}

impl OpenUpstream for Upstream {
    fn check(&self) -> Result<(), InvalidSetting> {
        if self.channels.is_empty() { Err(InvalidSetting::names_no_channel()) } else { Ok(()) }
    }

    fn channels(&self) -> Vec<Arc<str>> {
        self.channels.clone()
    }

    fn start(&self, sink: Box<dyn FollowSink>) -> Result<Box<dyn StopFollowing>, String> {
        let events = self.client(&*sink).connect().map_err(|error| error.to_string())?;
        let stop = Arc::new(Stop { signal: StopSignal::new(), client: Mutex::new(events.stop_handle()) });
        let follower = Follower { upstream: self.clone(), sink, stop: Arc::clone(&stop) };
        let thread = thread::Builder::new().name("sse upstream".into());
        thread.spawn(move || follower.run(events)).map_err(|error| error.to_string())?;
        Ok(Box::new(stop))
    }
}

/// Stops the thread, whatever it waits for.
struct Stop {
    signal: StopSignal,
    client: Mutex<StopHandle>,
}

impl StopFollowing for Arc<Stop> {
    fn stop(&self) {
        self.signal.stop();
        self.client.lock().stop();
    }
}

/// The thread that follows.
struct Follower {
    upstream: Upstream,
    sink: Box<dyn FollowSink>,
    stop: Arc<Stop>,
}

impl Follower {
    fn run(mut self, mut events: EventSource) {
        loop {
            let reason = self.read(&mut events);
            drop(events);
            self.sink.connection().lose(reason);
            events = loop {
                if self.stop.signal.wait(DELAY_AFTER_END) {
                    return;
                }
                match self.connect() {
                    Ok(events) => break events,
                    Err(error) => self.sink.connection().lose(error.to_string()),
                }
            };
        }
    }

    fn connect(&self) -> Result<EventSource, ConnectError> {
        let events = self.upstream.client(&*self.sink).connect()?;
        *self.stop.client.lock() = events.stop_handle();
        if self.stop.signal.is_stopped() {
            events.stop_handle().stop();
        }
        Ok(events)
    }

    /// Takes what arrives until the stream ends, and returns the reason.
    fn read(&mut self, events: &mut EventSource) -> String {
        let mut looked = Instant::now();
        loop {
            match events.recv_timeout(LOOK) {
                Ok(message) => {
                    if !take(&mut *self.sink, message) {
                        return "the server's answer is not a stream for followers of these channels".into();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Ended) => {
                    return events.end_cause().map(ToString::to_string).unwrap_or_default();
                }
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.sink.expire();
            }
        }
    }
}

/// Takes one message. Returns `false` if it cannot come from a publisher that is followed.
pub(crate) fn take(sink: &mut dyn FollowSink, message: Message) -> bool {
    let Some(line) = message.follow.as_deref().and_then(Line::parse) else { return false };
    let (line, event) = match (line, event(&message)) {
        (line @ Line::Event { .. }, Some(event)) => (line, Some((event, message.id))),
        (Line::Event { sequence, channels, .. }, None) => (Line::Hole { sequence, channels }, None),
        (line, _) => (line, None),
    };
    sink.take(line, event).is_ok()
}

/// Returns the event of a message; `None` if this version does not allow it.
fn event(message: &Message) -> Option<Event> {
    let mut event = Event::new(message.data.as_str());
    if message.event_type != "message" {
        event = event.event(&*message.event_type).ok()?;
    }
    match message.retry {
        Some(time) => event.retry(time).ok(),
        None => Some(event),
    }
}
