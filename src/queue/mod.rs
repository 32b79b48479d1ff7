//! The events that wait for a subscriber, and how its reader is woken.

// From a payload to the reader that is woken for it:
//
//     payload     what a queue and the history hold: an encoded frame, or a closure to render
//     entries     all payloads in order, or the newest of each key
//     overflow    what happens when a queue is full
//     queue       one lock: the payloads within their limits, losses, the end, and the listener
//     schedule    which thread owns a stream that is written in the background
//     readiness   where such a stream waits until its socket takes more
//     subscriber  the record that the registry, the reader and the writer threads share

mod entries;
mod overflow;
mod payload;
#[allow(clippy::module_inception)] // the queue itself, next to its parts
mod queue;
mod readiness;
mod schedule;
mod subscriber;

pub(crate) use entries::QueueKey;
pub use overflow::Overflow;
pub(crate) use payload::{Payload, Properties, Render, TransformCall, call_caught, drop_caught};
pub(crate) use queue::{Full, Popped, QueueLimits, Wake};
#[cfg(any(feature = "server", test))]
pub(crate) use readiness::Readiness;
pub(crate) use readiness::{Interrupt, NonBlockingWrite};
pub(crate) use schedule::race_window;
pub(crate) use subscriber::{Phase, Subscriber, SubscriberId};
