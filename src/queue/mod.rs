//! What waits for a subscriber, and who is woken for it.

// From what is queued to who is woken:
//
//     payload     what a queue and the history hold: an encoded frame, or a closure to render
//     entries     all of it in order, or the newest of each key
//     overflow    what happens when a queue is full
//     queue       one lock: payloads within limits, losses, the end, and who listens
//     schedule    whose turn it is with a stream that is written in the background
//     readiness   where such a stream waits until its socket takes more
//     subscriber  the record that the registry, the reader and the writer threads share

mod entries;
mod overflow;
mod payload;
#[allow(clippy::module_inception)] // the queue proper, among what belongs to it
mod queue;
mod readiness;
mod schedule;
mod subscriber;

pub use overflow::Overflow;
pub(crate) use payload::{Payload, Properties, Render, drop_caught};
pub(crate) use queue::{Full, Popped, QueueLimits, Wake};
pub(crate) use readiness::NonBlockingWrite;
#[cfg(any(feature = "server", test))]
pub(crate) use readiness::Readiness;
pub(crate) use schedule::race_window;
pub(crate) use subscriber::{Subscriber, SubscriberId};
