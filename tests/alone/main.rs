//! Tests that count the threads and descriptors of their process, one at a time: each takes the lock of `process::alone`.
//!
//! Linux only, since they read `/proc`.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // some of it is for `tests/it`
#[path = "../common/mod.rs"]
mod common;

mod threads;

#[cfg(feature = "tiny_http")]
mod tiny_http_blocked;

#[cfg(feature = "server")]
mod no_harm;
#[cfg(feature = "server")]
mod server_bad_input;
#[cfg(feature = "server")]
mod server_bodies;
#[cfg(feature = "server")]
mod server_hostile;
#[cfg(feature = "server")]
mod server_keep_alive;
#[cfg(feature = "server")]
mod server_random_requests;
#[cfg(feature = "server")]
mod server_stalled;
#[cfg(feature = "server")]
mod server_threads;
#[cfg(feature = "server")]
mod server_unlike_tiny_http;
