//! Adapters for HTTP servers, and what each can and cannot promise.
//!
//! An adapter turns a request of a server and a [`Subscription`](crate::Subscription) into a response. A server needs
//! no adapter if it lends a thread and a writer: see [`Subscription::write_to`](crate::Subscription::write_to). Nor
//! does a server that reads a response's body: see [`Subscription::into_reader`](crate::Subscription::into_reader).
//!
//! | adapter | a stream costs | the client sees the end | safe on the open internet by itself |
//! |---|---|---|---|
//! | `tiny_http` | one thread of the server | yes | no: put a proxy in front |
//! | `rouille`, as a body | a thread of rouille and one of its server; up to 8 KiB per quiet event | yes | no: put a proxy in front |
//! | `rouille`, upgraded | one thread of its server | only if it asked for `Connection: close` | no: put a proxy in front |

#[cfg(any(feature = "tiny_http", feature = "rouille"))]
mod body;
#[cfg(any(feature = "tiny_http", feature = "rouille"))]
mod nudge;
#[cfg(feature = "rouille")]
pub mod rouille;
#[cfg(feature = "tiny_http")]
pub mod tiny_http;
