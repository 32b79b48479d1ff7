//! Index of the adapters, and what each can and cannot promise.
//!
//! An adapter takes a request of a server's and a [`Subscription`](crate::Subscription), and answers the one
//! with the other. Every server that lends a thread and a writer can do without: see
//! [`Subscription::write_to`](crate::Subscription::write_to).
//!
//! | adapter | a stream costs | the client sees the end | protected by itself against strangers |
//! |---|---|---|---|
//! | `tiny_http` | no thread of ours, and one of the server's | yes | no: put a proxy in front |

#[cfg(feature = "tiny_http")]
pub mod tiny_http;
