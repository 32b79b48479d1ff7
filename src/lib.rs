//! Server-sent events for Rust programs without an async runtime.
//!
//! Any thread publishes, and every open page receives the event at once. An event stream is an HTTP response that stays
//! open; the browser's `EventSource` reads it and reconnects automatically.
//!
//! # From the top
//!
//! A [`Publisher`] is a handle that any thread can publish with. An [`Event`] is what it publishes: data, and
//! optionally a type, an ID and more; a plain string is an event too. A [`Subscription`] is the receiving end: a
//! blocking iterator that returns the events of one subscriber as text, ready for the wire.
//!
//! # Ten lines show an event
//!
//! `curl -N http://127.0.0.1:5000/` shows one at once, and a page receives them with
//! `new EventSource("/").onmessage = event => console.log(event.data)`:
//!
//! ```no_run
//! # #[cfg(feature = "tiny_http")]
//! use server_sent_events::{Publisher, adapter::tiny_http::Server};
//!
//! # #[cfg(feature = "tiny_http")]
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let publisher = Publisher::new();
//!     for request in Server::bind("127.0.0.1:5000")?.incoming_requests() {
//!         let news = format!("somebody asked for {}", request.url());
//!         publisher.respond(request)?;
//!         publisher.publish(news);
//!     }
//!     Ok(())
//! }
//! # #[cfg(not(feature = "tiny_http"))]
//! # fn main() {}
//! ```
//!
//! # Any thread publishes, and all subscribers see one order
//!
//! [`publish`](Publisher::publish) waits neither for a socket nor for a slow subscriber, unless you [opt in to
//! blocking](Overflow::Block). Events of one thread arrive in the order in which it published them. All subscribers of
//! a channel see the events of all threads in the same order.
//!
//! ```
//! use server_sent_events::Publisher;
//! use std::thread;
//!
//! let publisher = Publisher::new();
//! let subscription = publisher.subscribe()?;
//! let worker = publisher.clone();
//! thread::spawn(move || {
//!     for percent in [0, 50, 100] {
//!         worker.publish(percent.to_string());
//!     }
//! });
//! let first: Vec<String> = subscription.take(2).collect();
//! assert_eq!(first, ["data: 0\n\n", "data: 50\n\n"]);
//! # Ok::<(), server_sent_events::OpenError>(())
//! ```
//!
//! # An event carries more than data
//!
//! ```
//! use server_sent_events::{Event, Publisher};
//! use std::time::Duration;
//!
//! let publisher = Publisher::new();
//! let mut subscription = publisher.subscribe()?;
//! publisher.publish(Event::new("all green\nin 3 min").event("build")?.retry(Duration::from_secs(1))?);
//! assert_eq!(
//!     subscription.next().unwrap(),
//!     "event: build\nretry: 1000\ndata: all green\ndata: in 3 min\n\n",
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Event`] rejects text that would break the stream.
//!
//! # A type of the application's becomes an event
//!
//! Every method that takes an event takes any type that converts into one. So one `impl` decides how an application's
//! events look, and a test of it needs no publisher:
//!
//! ```
//! use server_sent_events::{Event, Publisher};
//!
//! enum Build {
//!     Progress(u8),
//!     Failed { reason: String },
//! }
//!
//! impl From<Build> for Event {
//!     fn from(build: Build) -> Self {
//!         let (event_type, data) = match build {
//!             Build::Progress(percent) => ("progress", percent.to_string()),
//!             Build::Failed { reason } => ("failed", reason),
//!         };
//!         Event::new(data).event(event_type).expect("a type without line ends is valid")
//!     }
//! }
//!
//! let publisher = Publisher::new();
//! publisher.publish(Build::Progress(50));
//! publisher.publish(Build::Failed { reason: "out of memory".into() });
//!
//! let event = Event::from(Build::Progress(50));
//! assert_eq!((event.event_type(), event.data()), (Some("progress"), Some("50")));
//! # Ok::<(), server_sent_events::EventError>(())
//! ```
//!
//! # A channel reaches some of the subscribers
//!
//! A channel is a name. It needs no declaration: it exists as long as it has a subscriber. A subscriber of two channels
//! gets an event that is published to both once.
//!
//! ```
//! # use server_sent_events::Publisher;
//! let publisher = Publisher::new();
//! let mut subscription = publisher.subscribe_to(["job 1", "job 2"])?;
//! publisher.publish_to("job 2", "started");
//! publisher.publish_to("job 3", "started");
//! publisher.publish_to(["job 1", "job 2"], "paused");
//! assert_eq!(subscription.next().unwrap(), "data: started\n\n");
//! assert_eq!(subscription.next().unwrap(), "data: paused\n\n");
//! assert!(subscription.try_recv().is_err());
//! # Ok::<(), server_sent_events::OpenError>(())
//! ```
//!
//! # Each subscriber can get its own event
//!
//! A subscription carries properties of the application's type. [`publish_with`](Publisher::publish_with) takes a
//! closure that makes each subscriber's event from them, or none.
//!
//! ```
//! use server_sent_events::{Event, Publisher};
//!
//! struct User {
//!     name: String,
//! }
//!
//! let publisher = Publisher::builder_for::<User>().build()?;
//! let mut ada = publisher.subscription(User { name: "Ada".into() }).channels("chat").open()?;
//! publisher.publish_with("chat", |user: &User| Some(Event::new(format!("hello, {}", user.name))));
//! assert_eq!(ada.next().unwrap(), "data: hello, Ada\n\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A new page starts with the current state
//!
//! [`initial_data`](SubscriptionBuilder::initial_data) sends a subscriber events before the live ones.
//!
//! ```
//! # use server_sent_events::Publisher;
//! let publisher = Publisher::new();
//! let mut subscription = publisher.subscription(()).initial_data(["3 visits so far"]).open()?;
//! publisher.publish("visit number 4");
//! assert_eq!(subscription.next().unwrap(), "data: 3 visits so far\n\n");
//! assert_eq!(subscription.next().unwrap(), "data: visit number 4\n\n");
//! # Ok::<(), server_sent_events::OpenError>(())
//! ```
//!
//! If the state can change while the subscription opens, make a snapshot of it with
//! [`initial_data_with`](SubscriptionBuilder::initial_data_with). If the state is the newest value of each
//! [key](Event::key), a history [keeps it](History::latest_per_key) and needs no snapshot.
//!
//! # A client that reconnects misses nothing
//!
//! With a [`History`], every event has an ID, and a client that reconnects sends the last one it saw. It gets the
//! events that it missed, in order, each once, before the live ones. If the history has evicted one of them, it gets a
//! `gap` event first.
//!
//! ```
//! use server_sent_events::{History, Publisher, Resumption};
//!
//! let publisher = Publisher::builder().history(History::new()).build()?;
//! let id = publisher.publish("seen").id().map(str::to_owned);
//! publisher.publish("missed");
//! let subscription = publisher.subscription(()).last_event_id(id).open()?;
//! assert_eq!(subscription.resumption(), Resumption::Complete);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The adapters' `respond` methods take the ID from the request. [`subscribe`](Publisher::subscribe) does not resume.
//!
//! A page that is rendered together with its stream reads [`Publisher::last_event_id`] first, then its content, and
//! [starts after](SubscriptionBuilder::start_after) that ID. A stream that begins with a snapshot of the application's
//! state makes it with [`snapshot_with`](SubscriptionBuilder::snapshot_with): each later event is applied once, also
//! after a gap.
//!
//! # A restart loses nothing
//!
//! A history in a [`store`] survives the program. With SQLite (feature `sqlite`), clients that reconnect after a restart,
//! a crash or an update resume exactly. Each event is stored before it is delivered, by a thread of the publisher:
//! [`publish`](Publisher::publish) does not wait, and [`publish_confirmed`](Publisher::publish_confirmed) does.
//! [`publish_through`](Publisher::publish_through) makes personal events that can be stored.
//!
//! With Redis (feature `redis`), several processes share one history, and are one publisher: a client resumes on each of
//! them.
//!
//! # A stream for one client
//!
//! [`SubscriptionHandle::send`] sends an event to one subscriber alone. A stream that belongs to one request, such as
//! the answer of a language model, is in [no channel](Publisher::subscribe_alone).
//!
//! # Any blocking server can send a stream
//!
//! The [`adapter`]s answer requests of tiny_http and rouille. The feature `server` adds a server of this crate, for
//! pages, posts and many streams on one port in the open. For any other server there are four ways:
//!
//! * The iterator: each item is text for a response's body.
//! * [`into_reader`](Subscription::into_reader): a body that the server reads. It can push events through a server that
//!   collects bytes before it sends them.
//! * [`write_to`](Subscription::write_to): the calling thread writes until the stream ends. Its documentation has a
//!   plain server whose clients resume.
//! * [`write_in_background`](Subscription::write_in_background): the publisher's few writer threads write, for
//!   thousands of streams. A stream occupies a thread only while a write to it is blocked. The adapters do this.
//!
//! ```
//! # use server_sent_events::{Publisher, ResponseHeaders, http};
//! # use std::{io::{Read, Write}, net::{TcpListener, TcpStream}};
//! # let listener = TcpListener::bind("127.0.0.1:0")?;
//! # let mut client = TcpStream::connect(listener.local_addr()?)?;
//! let publisher = Publisher::new();
//! let (mut connection, _) = listener.accept()?;
//! connection.write_all(http::response_head(&ResponseHeaders::new()).as_bytes())?;
//! publisher.subscribe()?.write_in_background(connection)?;
//! publisher.publish("hello");
//! # publisher.close();
//! # let mut text = String::new();
//! # client.read_to_string(&mut text)?;
//! # assert!(text.ends_with("\r\n\r\ndata: hello\n\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The module [`http`] has the response's head, its headers, the last event ID of a request, and the body that refuses
//! a client for now. `docs/embedding.md` has programs for the standard library, axum, oxhttp, touche and CGI.
//!
//! A page of any website can send requests to a server on the same machine or network. `OriginPolicy` keeps such pages
//! from publishing: `EventServer` applies it, and the adapters' documentation shows it for tiny_http and rouille.
//!
//! # Every stream ends, and wakes the thread that waits for it
//!
//! * After the queued events: [`close`](Publisher::close) ends all streams,
//!   [`unsubscribe_if`](Publisher::unsubscribe_if) some of them, and a [lifetime](PublisherBuilder::max_lifetime) each
//!   after a time of its own. Dropping the last handle of a publisher closes it.
//! * At once: [`disconnect_if`](Publisher::disconnect_if),
//!   [`disconnect_everywhere`](Publisher::disconnect_everywhere) on all processes that share a history, a full queue, or dropping the [`Subscription`].
//!
//! [`end_cause`](Subscription::end_cause) returns the cause. A silent stream is sent a comment every 15 seconds, its
//! heartbeat. It makes a lost connection visible, and keeps proxies from closing the connection.
//!
//! # A running stream can be observed and controlled
//!
//! A [handle](Subscription::handle) joins and leaves channels and ends the stream, from any thread.
//! [`on_open`](PublisherBuilder::on_open) and [`on_end`](PublisherBuilder::on_end) are called once per subscription.
//! [`subscriber_properties`](Publisher::subscriber_properties) and [`stats`](Publisher::stats) return the current
//! state.
//!
//! # A shutdown delivers what is queued
//!
//! [`shutdown`](Publisher::shutdown) refuses new subscriptions, delivers queued events, and gives each client its own
//! reconnection delay. It waits until all streams have ended, up to the given time. It returns how many it had to
//! disconnect.
//!
//! ```
//! # use server_sent_events::Publisher;
//! # use std::time::Duration;
//! # let publisher = Publisher::new();
//! let disconnected = publisher.shutdown(Duration::from_secs(10));
//! assert_eq!(disconnected, 0);
//! ```
//!
//! # Memory is bounded by default
//!
//! [`PublisherBuilder`] has the table of all limits. If a queue is full, its stream is disconnected, and a client with
//! a history resumes. [`Overflow`] has other policies: drop the oldest event, keep the latest per key, or wait. With
//! [`min_interval`](PublisherBuilder::min_interval) values that change often are sent a few times per second. A
//! [`QuotaPolicy`] decides if the newest page of a user replaces the oldest.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `tiny_http` | yes | [`adapter::tiny_http`](adapter) |
//! | `http` | with an adapter | `last_event_id` in the module [`http`], for other servers |
//! | `tiny_http_openssl` | no | `Server::https` of that adapter, for a trusted network |
//! | `rouille` | no | [`adapter::rouille`](adapter) |
//! | `server` | no | `server::EventServer`, a server for pages, posts and many streams in the open |
//! | `sqlite` | no | `store::Sqlite`, which keeps a history in a file |
//! | `redis` | no | `store::Redis`, a history that several processes share |
//! | `redis_tls` | no | TLS for the connections to Redis |
//! | `json` | no | `Event::json` |
//! | `serde` | no | `Serialize` for [`Stats`], [`ChannelStats`], [`EndCounts`], [`HistoryStats`] and [`StoreStats`] |
//! | `client` | no | `client::EventSource`, a blocking client with TLS |
//! | `log` | no | warnings through the crate `log`: slow subscribers, refused subscriptions, ignored fields, threads and connections that failed, a shared store that is away or back; other ends of streams at the level `debug`. At most one per kind and second. A line about subscribers has the quota key and the channels of the last one |
//! | `test-util` | no | `test_util`: clients in memory and a clock, for tests of what a program publishes |
//!
//! Without features, only crossbeam-channel and parking_lot are compiled.

// docs.rs labels what needs a feature.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod adapter;
mod channels;
#[cfg(any(feature = "client", feature = "test-util"))]
pub mod client;
mod clock;
mod deliver;
mod error;
mod event;
// Only a client follows.
#[cfg_attr(not(feature = "client"), allow(dead_code))]
mod follow;
mod history;
// Its private functions serve the adapters, and no adapter uses all of them.
#[cfg_attr(not(all(feature = "tiny_http", feature = "server")), allow(dead_code))]
pub mod http;
mod log;
#[cfg(all(test, any(sse_loom, sse_shuttle)))]
mod models;
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
mod origin;
mod publish;
mod queue;
mod registry;
#[cfg(feature = "server")]
pub mod server;
#[cfg(any(feature = "tiny_http", feature = "server"))]
mod sockets;
mod spread;
mod stats;
pub mod store;
mod subscription;
mod sync;
#[cfg(feature = "test-util")]
pub mod test_util;

pub use channels::{Channels, DEFAULT_CHANNEL};
#[cfg(any(feature = "tiny_http", feature = "rouille"))]
pub use error::BodyError;
pub use error::{
    BuildError, EventError, EventField, HeaderError, InvalidSetting, OpenError, ParseOverflowError, PublishError,
    RecvTimeoutError, StoreError, TryRecvError, UnknownTransform,
};
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
pub use error::{OriginPolicyError, OriginRefused};
pub use event::{Event, Frame, HeartbeatStyle};
pub use history::{History, Resumption};
pub use http::ResponseHeaders;
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
pub use origin::{OriginPolicy, OriginPolicyBuilder};
pub use publish::{
    Ended, LastEventId, Opened, PublishOptions, Publisher, PublisherBuilder, Receipt, Shutdown, Snapshot,
    SubscriptionBuilder, WeakPublisher,
};
pub use queue::Overflow;
pub use registry::QuotaPolicy;
pub use stats::{ChannelStats, EndCause, EndCounts, HistoryStats, Stats, StoreStats};
pub use subscription::{BackgroundOptions, Reader, Subscription, SubscriptionHandle};

/// The code of the documents, compiled as tests.
#[cfg(all(doctest, feature = "tiny_http"))]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/deployment.md")]
struct Documents;

/// The code of the document that needs the tools for tests.
#[cfg(all(doctest, feature = "test-util"))]
#[doc = include_str!("../docs/cookbook.md")]
struct Cookbook;

/// The code of the document that needs a client and a server.
#[cfg(all(doctest, feature = "server", feature = "client"))]
#[doc = include_str!("../docs/edges.md")]
struct DocumentWithClient;

/// The code of the document that needs Redis.
#[cfg(all(doctest, feature = "redis"))]
#[doc = include_str!("../docs/scale.md")]
struct DocumentWithRedis;

/// The code of the documents that need stores.
#[cfg(all(doctest, feature = "tiny_http", feature = "sqlite", feature = "redis"))]
#[doc = include_str!("../docs/resume.md")]
struct DocumentsWithSqlite;
