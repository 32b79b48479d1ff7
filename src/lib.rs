//! Draft.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
pub mod adapter;
mod channels;
mod error;
mod event;
// Its functions are for the adapters; without one only `Headers` is used.
#[cfg_attr(not(feature = "tiny_http"), allow(dead_code))]
mod http;
mod publisher;
mod registry;
mod stats;
mod subscription;

pub use channels::{Channels, DEFAULT_CHANNEL};
pub use error::{BuildError, EventError, Field, HeaderError, NextTimeoutError, OpenError, TryNextError};
pub use event::{Event, Frame};
pub use http::Headers;
pub use publisher::{Publisher, PublisherBuilder, Receipt, SubscriptionBuilder, WeakPublisher};
pub use stats::{EndCause, Ended, Stats};
pub use subscription::Subscription;
