//! Tests that count or change their whole process: its threads, its descriptors, its memory, its limits, its logger. Each
//! runs in a process of its own, so several run side by side.

#[allow(dead_code)] // tests/it uses the rest
#[path = "../common/mod.rs"]
mod common;

mod allocated;
mod own_process;

mod history_memory;
#[cfg(feature = "log")]
mod log;
mod memory;

// The others read `/proc`.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod no_threads_left;
#[cfg(target_os = "linux")]
mod stalled_clients;
#[cfg(target_os = "linux")]
mod threads;

#[cfg(all(feature = "client", target_os = "linux"))]
mod client_stops;

#[cfg(all(feature = "tiny_http", target_os = "linux"))]
mod tiny_http_blocked;

#[cfg(all(feature = "server", target_os = "linux"))]
mod no_harm;
#[cfg(all(feature = "server", target_os = "linux"))]
mod server_bad_input;
#[cfg(all(feature = "server", target_os = "linux"))]
mod server_bodies;
#[cfg(all(feature = "server", target_os = "linux"))]
mod server_body_budget;
#[cfg(all(feature = "server", target_os = "linux"))]
mod server_hostile;
#[cfg(all(feature = "server", target_os = "linux"))]
mod server_keep_alive;
#[cfg(all(feature = "server", target_os = "linux"))]
mod server_random_requests;
#[cfg(all(feature = "server", target_os = "linux"))]
mod server_stalled;
#[cfg(all(feature = "server", target_os = "linux"))]
mod server_threads;
#[cfg(all(feature = "server", target_os = "linux"))]
mod server_unlike_tiny_http;
#[cfg(all(feature = "server", target_os = "linux"))]
mod slow_clients_memory;
