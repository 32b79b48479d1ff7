//! The integration tests, in one crate: one link, and tests that wait do so in parallel.
//!
//! The tests that count or change their whole process are separate, in `tests/alone`.

#[allow(dead_code)] // tests/alone uses the rest
#[path = "../common/mod.rs"]
mod common;

// --- the sources and the documents ---
mod api;
mod bad_input;
mod house;
mod parts;

// --- events, subscriptions, and how they end ---
mod ending;
mod fan_out;
mod heartbeat;
mod hooks;
mod initial_data;
mod leading;
mod limits;
mod min_interval;
mod ordering;
mod overflow;
mod personal_events;
mod quota_policy;
mod reader;
mod reentrancy;
mod send;
mod shutdown;
mod stress;
mod wire_format;
mod write_to;

// --- streams that are written in the background ---
mod start_slots;
mod write_in_background;

// --- history and resume ---
mod history;
mod replay;
mod resume_model;
#[cfg(all(feature = "tiny_http", feature = "server", feature = "client"))] // the example hub
mod resume_over_sockets;
mod snapshot;

// --- clients ---
#[cfg(feature = "client")]
mod client;
#[cfg(any(feature = "client", feature = "test-util"))]
mod parser;

// --- the tools for tests ---
#[cfg(feature = "test-util")]
mod test_util;

// --- servers ---
mod adapter;
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
mod contract;
#[cfg(feature = "server")]
mod server;

// --- the examples ---
#[cfg(feature = "tiny_http")]
mod examples;
