//! Streams whose last write was not taken whole, and the large frames that they keep in memory.
//!
//! The history, the queues and the streams share a frame. Once the history has evicted a frame, only slow streams keep
//! it in memory. The publisher counts the bytes of such frames; this list shows which streams hold them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::event::FrameId;
use crate::queue::Subscriber;

/// The slow streams of one publisher, ordered by how long they have been slow.
#[derive(Default)]
pub(super) struct SlowStreams(Mutex<Slow>);

#[derive(Default)]
struct Slow {
    streams: BTreeMap<u64, (Weak<Subscriber>, Vec<FrameId>)>,
    last: u64,
}

/// Marks a stream as slow until it is dropped.
pub(super) struct SlowStream {
    list: Arc<SlowStreams>,
    number: u64,
}

impl Drop for SlowStream {
    fn drop(&mut self) {
        self.list.0.lock().streams.remove(&self.number);
    }
}

impl SlowStreams {
    /// Adds a stream that still has to send these large frames, besides those in its queue.
    pub(super) fn add(self: &Arc<Self>, subscriber: &Arc<Subscriber>, frames: Vec<FrameId>) -> SlowStream {
        let mut slow = self.0.lock();
        slow.last += 1;
        let number = slow.last;
        slow.streams.insert(number, (Arc::downgrade(subscriber), frames));
        SlowStream { list: Arc::clone(self), number }
    }

    /// Returns the slowest streams that must end to release this many bytes of large frames.
    ///
    /// A frame counts as released when no other slow stream holds it, even if the history still does: which frames that
    /// are is not known here, and the streams that have been slow for longest seldom hold one of them. Streams that hold the newest large frame are
    /// spared, because it was just published.
    pub(super) fn slowest(&self, bytes: usize, newest: Option<FrameId>) -> Vec<Arc<Subscriber>> {
        let slow = self.0.lock();
        let held: Vec<(Arc<Subscriber>, Vec<FrameId>)> = slow
            .streams
            .values()
            .filter_map(|(subscriber, frames)| {
                let subscriber = subscriber.upgrade()?;
                let mut frames = frames.clone();
                frames.extend(subscriber.queued_large_frames());
                Some((subscriber, frames))
            })
            .collect();
        drop(slow);
        let mut holders: HashMap<FrameId, usize> = HashMap::new();
        for frame in held.iter().flat_map(|(_, frames)| frames) {
            *holders.entry(*frame).or_default() += 1;
        }
        let (mut released, mut slowest) = (0, Vec::new());
        for (subscriber, frames) in held {
            if released >= bytes {
                break;
            }
            if frames.is_empty() || newest.is_some_and(|newest| frames.contains(&newest)) {
                continue;
            }
            for frame in frames {
                let holders = holders.get_mut(&frame).expect("BUG: a held frame is not counted");
                *holders -= 1;
                if *holders == 0 {
                    released += frame.bytes;
                }
            }
            slowest.push(subscriber);
        }
        slowest
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::event::{Event, Frame};
    use crate::queue::{Overflow, Properties, QueueLimits, SubscriberId};

    fn subscriber(id: u64) -> Arc<Subscriber> {
        let limits = QueueLimits { events: 10, bytes: 1 << 20, overflow: Overflow::Block(Duration::ZERO) };
        Subscriber::new(SubscriberId(id), Properties::new(()), None, Arc::new(limits), bounded(1).0)
    }

    fn frames() -> Vec<Frame> {
        (0..4).map(|_| Event::new("x".repeat(20_000)).encode()).collect()
    }

    #[test]
    fn the_slowest_are_those_that_have_been_slow_for_longest_until_enough_is_released() {
        let slow = Arc::new(SlowStreams::default());
        let frames = frames();
        let ids: Vec<FrameId> = frames.iter().map(Frame::frame_id).collect();
        let subscribers: Vec<_> = (0..5).map(subscriber).collect();
        let held = [&ids[..1], &ids[..1], &[], &ids[1..2], &ids[2..]];
        let guards: Vec<_> =
            subscribers.iter().zip(held).map(|(subscriber, frames)| slow.add(subscriber, frames.to_vec())).collect();
        let slowest = |bytes, newest| -> Vec<u64> {
            slow.slowest(bytes, newest).iter().map(|subscriber| subscriber.id().0).collect()
        };
        assert_eq!(slowest(1, None), [0, 1], "both hold the first frame");
        assert_eq!(slowest(ids[0].bytes + 1, None), [0, 1, 3], "one that holds none is not to blame");
        assert_eq!(slowest(usize::MAX, Some(ids[3])), [0, 1, 3]);
        drop(guards);
        assert!(slowest(usize::MAX, None).is_empty());
    }
}
