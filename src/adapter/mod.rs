//! Index of the adapters, and what each can and cannot promise.
//!
//! An adapter takes a request of a server's and a [`Subscription`](crate::Subscription), and answers the one
//! with the other. Every server that lends a thread and a writer can do without: see
//! [`Subscription::write_to`](crate::Subscription::write_to). So can one that takes a body that is read: see
//! [`Subscription::into_reader`](crate::Subscription::into_reader).
//!
//! | adapter | a stream costs | the client sees the end | protected by itself against strangers |
//! |---|---|---|---|
//! | `tiny_http` | no thread of ours, and one of the server's | yes | no: put a proxy in front |
//! | `rouille`, as a body | a thread of rouille's and one of its server's; up to 8 KiB for each quiet event | yes | no: put a proxy in front |
//! | `rouille`, upgraded | no thread of ours, and one of its server's | only if it asked for `Connection: close` | no: put a proxy in front |

#[cfg(any(feature = "tiny_http", feature = "rouille"))]
mod body;
#[cfg(any(feature = "tiny_http", feature = "rouille"))]
mod nudge;
#[cfg(feature = "rouille")]
pub mod rouille;
#[cfg(feature = "tiny_http")]
pub mod tiny_http;
