//! Server-sent events for Rust programs without an async runtime.
//!
//! A program with threads has something to tell, and a browser wants to see it live. An event stream is a
//! response that never ends, over plain HTTP; the browser's own `EventSource` reads it and reconnects by itself.
//!
//! # From the top
//!
//! A [`Publisher`] is a handle that any thread may publish with. An [`Event`] is what it publishes: data, and
//! perhaps a type or an id; a plain string is one too. A [`Subscription`] is the other end, a blocking
//! iterator that gives one subscriber its events as text that is ready for the wire.
//!
//! # Hello, world
//!
//! Eleven lines of server, and `new EventSource("/")` in a page:
//!
//! ```no_run
//! # #[cfg(feature = "tiny_http")]
//! use server_sent_events::{Publisher, adapter::tiny_http::Server};
//!
//! # #[cfg(feature = "tiny_http")]
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let publisher = Publisher::new();
//!     let server = Server::bind("127.0.0.1:5000")?;
//!     for request in server.incoming_requests() {
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
//! # Publish from any thread
//!
//! [`publish`](Publisher::publish) never waits for a socket, nor for a slow reader unless [that was
//! asked for](Overflow::Block). What one thread
//! publishes arrives in that order; what several publish, all subscribers of a channel see in one order.
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
//! # Say more than data
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
//! Text that could break the stream is refused where the event is made; see [`Event`].
//!
//! # Channels
//!
//! A channel is a name that subscribers share. It needs no declaration: it is there as long as somebody
//! subscribes to it. Who subscribes to two and is published to through both gets the event once.
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
//! # Properties: to each their own
//!
//! A publisher may know something about each subscriber, and publish a closure that makes of it the event
//! for that one, or none: [`publish_with`](Publisher::publish_with).
//!
//! # Initial data
//!
//! A page that has just been opened wants to see how things stand:
//! [`initial_data`](SubscriptionBuilder::initial_data) gives one subscriber events before the live ones.
//!
//! # A client that comes back
//!
//! With a [`History`] every event has an id, and a client that reconnects says the last one that it saw. It gets what
//! it has missed, in order, each event once, before the live ones; or an event of type `gap`, if something of that is
//! gone. [`last_event_id`](SubscriptionBuilder::last_event_id) says where it was,
//! [`resumption`](Subscription::resumption) how that went.
//!
//! ```
//! use server_sent_events::{History, Publisher, Resumption};
//!
//! let publisher = Publisher::<()>::builder().history(History::new()).build()?;
//! let id = publisher.publish("seen").id().map(str::to_owned);
//! publisher.publish("missed");
//! let subscription = publisher.subscription(()).last_event_id(id).open()?;
//! assert_eq!(subscription.resumption(), Resumption::Complete);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A page that is rendered together with a stream reads [`Publisher::last_event_id`] first, then its content, and
//! [starts after](SubscriptionBuilder::start_after) that id; a stream that begins with a snapshot makes it with
//! [`initial_data_with`](SubscriptionBuilder::initial_data_with), for those who need one.
//!
//! # Four ways to the client
//!
//! * The iterator: each item is text for a response's body. For any server that takes an iterator, or for tests.
//! * [`into_reader`](Subscription::into_reader): a body that is read, for a server that wants one, and pushes events
//!   through a server that collects bytes before it sends them.
//! * [`write_to`](Subscription::write_to): this thread is the connection's thread, until the stream ends.
//! * [`write_in_background`](Subscription::write_in_background): the publisher's few writer threads deliver, thousands of
//!   streams if need be, and none of them occupies a thread unless a write to it is blocked. The adapters do this.
//!
//! ```
//! # use server_sent_events::Publisher;
//! # use std::{io::{Read, Write}, net::{TcpListener, TcpStream}};
//! # let listener = TcpListener::bind("127.0.0.1:0")?;
//! # let mut client = TcpStream::connect(listener.local_addr()?)?;
//! let publisher = Publisher::new();
//! let (mut connection, _) = listener.accept()?;
//! connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n")?;
//! publisher.subscribe()?.write_in_background(connection)?;
//! publisher.publish("hello");
//! # publisher.close();
//! # let mut text = String::new();
//! # client.read_to_string(&mut text)?;
//! # assert!(text.ends_with("\r\n\r\ndata: hello\n\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How a stream ends
//!
//! [`close`](Publisher::close) ends all streams, [`unsubscribe_if`](Publisher::unsubscribe_if) some, after what is
//! queued for them; so does dropping the last handle of a publisher. [`disconnect_if`](Publisher::disconnect_if) ends some at
//! once. A thread that blocks on a subscription is woken by it. Dropping a [`Subscription`] takes it out at once.
//! [`end_cause`](Subscription::end_cause) tells why.
//!
//! A silent stream is sent a comment every 15 seconds, its heartbeat: that is how a server learns
//! that a client has gone, and what keeps proxies from cutting the connection.
//!
//! # Lead a stream that runs
//!
//! A [handle](Subscription::handle) joins and leaves channels and ends the stream, from any thread, also when it is
//! written in the background. With a [lifetime](PublisherBuilder::max_lifetime), clients reconnect now and then, each at its
//! own time.
//!
//! # Know who is there
//!
//! [`on_open`](PublisherBuilder::on_open) and [`on_end`](PublisherBuilder::on_end) are called once for each subscription, with
//! its properties, its channels and the cause. [`subscriber_properties`](Publisher::subscriber_properties) and
//! [`stats`](Publisher::stats) return the current state.
//!
//! # Shut down
//!
//! [`shutdown`](Publisher::shutdown) lets nobody in any more, delivers what is queued, says goodbye, tells each client another
//! time to come back, and waits until all streams have ended.
//!
//! ```
//! # use server_sent_events::Publisher;
//! # use std::time::Duration;
//! # let publisher = Publisher::new();
//! let cut_off = publisher.shutdown(Duration::from_secs(10));
//! assert_eq!(cut_off, 0);
//! ```
//!
//! # What is bounded
//!
//! | what | bound | at the bound | set by |
//! |---|---|---|---|
//! | what waits for one subscriber | 1,024 events and 1 MiB | its stream ends at once, the queue is thrown away; or the oldest goes, the newest of a key stays, the publisher waits: [`Overflow`] | [`max_queued_events`](PublisherBuilder::max_queued_events), [`max_queued_bytes`](PublisherBuilder::max_queued_bytes), [`overflow`](PublisherBuilder::overflow) |
//! | one write to a socket in the background | 30 s | its stream ends, the socket is shut down | [`write_timeout`](BackgroundOptions::write_timeout) |
//! | what a client that does not read holds of the kernel's memory | some 200 KB with our listeners on Linux, 4 MB with others | the write waits, see above | the adapters and servers |
//! | writer threads | one for each processor, and one for each connection that hangs, up to 1,000 | sockets that hang are shut down, the longest first | [`max_writer_threads`](PublisherBuilder::max_writer_threads) |
//! | writer threads that are blocked in a stream's first write, to anything but a socket | half of them | later streams wait to begin, 30 s at most; the adapter for tiny_http answers busy | [`max_writer_threads`](PublisherBuilder::max_writer_threads) |
//! | what a history keeps | 8,192 events a channel, 64 MiB in all | the oldest goes; who asks for it is told | [`History`] |
//! | subscriptions | 10,000 | [`OpenError`], which the adapters answer so that a browser comes back | [`max_subscribers`](PublisherBuilder::max_subscribers) |
//! | subscribers of one channel | as many | the same | [`max_subscribers_per_channel`](PublisherBuilder::max_subscribers_per_channel) |
//! | subscriptions of one address, user, or what you like | as many | the same | [`max_subscribers_per_quota_key`](PublisherBuilder::max_subscribers_per_quota_key), [`quota_key`](SubscriptionBuilder::quota_key) |
//! | channels of one subscriber | 64 | [`OpenError`], a status 400 | [`max_channels_per_subscriber`](PublisherBuilder::max_channels_per_subscriber) |
//! | a channel's name | 256 bytes | the same | [`max_channel_name_len`](PublisherBuilder::max_channel_name_len) |
//! | how long a stream lives | for ever | it ends, and the client comes back | [`max_lifetime`](PublisherBuilder::max_lifetime) |
//! | how long a shutdown takes | what you give it | the streams left are disconnected | [`shutdown`](Publisher::shutdown) |
//! | log lines | one of a kind each second | it says how often it happened | feature `log` |
//!
//! # Servers
//!
//! [`adapter`] has those that are known to this crate. With the feature `server` there is one of its own, for many
//! streams or for strangers. Any other that lends a thread and a writer can use
//! [`Subscription::write_to`], one that takes a body [`Subscription::into_reader`], or the iterator itself.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `tiny_http` | yes | [`adapter::tiny_http`](adapter) |
//! | `rouille` | no | [`adapter::rouille`](adapter) |
//! | `server` | no | `server::EventServer`, a server of event streams and nothing else |
//! | `json` | no | `Event::json` |
//! | `log` | no | log lines, through the crate `log`: slow subscribers that were disconnected, threads that could not start, subscriptions that were refused, connections that could not be accepted; each kind at most once a second |
//!
//! Without any, only crossbeam-channel and parking_lot are compiled.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod adapter;
mod channels;
mod deliver;
mod error;
mod event;
mod history;
// Its functions are for the adapters, and not each uses all; without one only `ResponseHeaders` and `Batch` are used.
#[cfg_attr(not(all(feature = "tiny_http", feature = "server")), allow(dead_code))]
mod http;
mod notices;
mod publisher;
mod queue;
mod registry;
#[cfg(feature = "server")]
pub mod server;
#[cfg(any(feature = "tiny_http", feature = "server"))]
mod sockets;
mod stats;
mod subscription;

pub use channels::{Channels, DEFAULT_CHANNEL};
#[cfg(any(feature = "tiny_http", feature = "rouille"))]
pub use error::BodyError;
pub use error::{EventError, EventField, HeaderError, InvalidSetting, OpenError, RecvTimeoutError, TryRecvError};
pub use event::{Event, Frame, HeartbeatStyle};
pub use history::{History, Resumption};
pub use http::ResponseHeaders;
pub use publisher::{
    PublishOptions, Publisher, PublisherBuilder, Receipt, Shutdown, SubscriptionBuilder, WeakPublisher,
};
pub use queue::Overflow;
pub use stats::{ChannelStats, EndCause, EndCounts, HistoryStats, Stats};
pub use subscription::{BackgroundOptions, Reader, Subscription, SubscriptionHandle};

/// The README's code, compiled as tests.
#[cfg(all(doctest, feature = "tiny_http"))]
#[doc = include_str!("../README.md")]
struct Readme;
