//! Every public error, one small type per operation.

mod event;
mod http;
mod open;
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
mod origin;
mod publish;
mod receive;
mod setting;
mod store;

pub use event::{EventError, EventField};
#[cfg(any(feature = "tiny_http", feature = "rouille"))]
pub use http::BodyError;
pub use http::HeaderError;
pub use open::OpenError;
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
pub use origin::{OriginPolicyError, OriginRefused};
pub use publish::{BuildError, PublishError, UnknownTransform};
pub use receive::{RecvTimeoutError, TryRecvError};
pub use setting::{InvalidSetting, ParseOverflowError};
pub use store::StoreError;
