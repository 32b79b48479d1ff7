//! Tests that count the threads and descriptors of their process, one at a time: each holds the lock of
//! `process::alone`.
//!
//! They read `/proc`, so they run on Linux only.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // tests/it uses the rest
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
