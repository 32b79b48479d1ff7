//! The locks, atomics, channels, threads and times through which queues, the registry and writer threads share state.

// An ordinary build re-exports those of its libraries, so this module costs nothing. A test build with `--cfg sse_loom`
// or `--cfg sse_shuttle` replaces them by those of a model checker, which decides when each thread runs. `src/models.rs`
// has the models. `tests/it/house.rs` checks that the modules in question use no others.
//
// `Arc`, `Weak` and `OnceLock` are those of std in every build, because they never make a thread wait. A model switches
// threads at each step of a type below, so it explores their order too, up to such a step.

#[cfg(not(all(test, any(sse_loom, sse_shuttle))))]
mod system {
    pub(crate) use std::sync::atomic;
    pub(crate) use std::thread;
    pub(crate) use std::thread_local;
    /// Returns the time that passes for threads that wait.
    pub(crate) use std::time::Instant as MonotonicClock;

    pub(crate) use crossbeam_channel as channel;
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
}

#[cfg(all(test, any(sse_loom, sse_shuttle)))]
mod model;

#[cfg(all(test, any(sse_loom, sse_shuttle)))]
pub(crate) use model::*;
#[cfg(not(all(test, any(sse_loom, sse_shuttle))))]
pub(crate) use system::*;
