//! Many streams on few writer threads.

// A stream in the background has no thread of its own. A publisher that queues something for it puts it on the run queue,
// unless it is there; a writer thread takes it from there, drains its queue into a batch, writes that with one `write_all`
// and one `flush`, and looks again.
//
//     source      what a subscriber is sent next
//     batch       what is written together
//     stream      one stream in the background: its source, its writer, and what its socket has not taken yet
//     pool        the threads there are, and the run queue
//     worker      what a writer thread does
//     slow        streams whose last write was not taken whole, and what they keep in memory
//     start_slots which streams may begin
//     supervisor  the thread that watches the others, and schedules heartbeats and the ends of lifetimes
//
// How no wake-up is lost is explained in `queue/schedule.rs`.

mod batch;
mod pool;
mod slow;
mod source;
mod start_slots;
mod stream;
mod supervisor;
mod worker;

pub(crate) use batch::{Batch, Sink};
pub(crate) use pool::WriterPool;
pub(crate) use source::{Drained, FrameSource, NoFrame, SourceSettings, Wait};
pub(crate) use stream::{OnEnd, Output, Writer};
