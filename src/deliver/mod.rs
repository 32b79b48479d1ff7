//! Delivery of many streams by few writer threads.

// A stream in the background has no thread of its own. A publisher that queues a payload for it puts the stream on the
// run queue, unless it is there. A writer thread takes the stream from the run queue, and drains the stream's queue
// into a batch. It writes the batch with one `write_all` and one `flush`, then checks the queue again.
//
//     outcome     how long to wait for the next frame, and why there is none
//     source      what a subscriber is sent next
//     pace        when it may be sent, if the subscription has a minimum interval
//     batch       frames that are written together
//     socket      the sockets among writers, in which a blocked write can be ended
//     stream      one stream in the background: its source, its writer, and what its socket has not taken yet
//     pool        the writer threads and the run queue
//     worker      the work of a writer thread
//     pass        one pass of a stream: begin, write, finish
//     slow        streams whose last write was not taken whole, and the frames that they keep in memory
//     start_slots the streams that may begin, and those that wait for it
//     supervisor  the thread that watches the writer threads, and schedules heartbeats and the ends of lifetimes
//
// `queue/schedule.rs` explains why no wake-up is lost.

mod batch;
mod outcome;
mod pace;
mod pass;
mod pool;
mod slow;
mod socket;
mod source;
mod start_slots;
mod stream;
mod supervisor;
#[cfg(test)]
mod tests;
#[cfg(all(test, sse_loom))]
mod unsupervised;
mod worker;

pub(crate) use batch::{Batch, BatchedWrite, Sink};
pub(crate) use outcome::{Drained, NoFrame, Wait};
pub(crate) use pool::WriterPool;
pub(crate) use socket::{Socket, WatchedSocket};
pub(crate) use source::{FrameSource, SourceSettings};
pub(crate) use stream::{OnEnd, Output, Writer};
