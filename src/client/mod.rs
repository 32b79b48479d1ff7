//! The receiving side: a blocking client of event streams, and their parser.
//!
//! An [`EventSource`](self) needs the feature `client`. The [`Parser`] and its [`Message`] are there with the feature
//! `test-util` too.

#[cfg(feature = "client")]
mod builder;
#[cfg(feature = "client")]
mod connection;
#[cfg(feature = "client")]
mod error;
#[cfg(feature = "client")]
mod event_source;
mod message;
mod parser;
#[cfg(feature = "client")]
mod patience;
#[cfg(feature = "client")]
mod reader;
#[cfg(feature = "client")]
mod redirect;
#[cfg(feature = "client")]
mod stop;
#[cfg(feature = "client")]
mod transport;
#[cfg(feature = "client")]
mod upstream;

#[cfg(feature = "client")]
pub use builder::EventSourceBuilder;
#[cfg(feature = "client")]
pub use error::{ConnectError, ConnectionError};
#[cfg(feature = "client")]
pub use event_source::{ConnectionLost, EndCause, EventSource};
pub use message::Message;
pub use parser::{Parser, ParserError};
#[cfg(feature = "client")]
pub use stop::StopHandle;
#[cfg(feature = "client")]
pub use upstream::Upstream;
#[cfg(all(test, feature = "client"))]
pub(crate) use upstream::take;
