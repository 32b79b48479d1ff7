//! Streams whose last write was not taken whole, and the large frames that stay in memory because of them.
//!
//! A frame is shared by the history, the queues and the streams that are being sent it. Once the history has evicted
//! it, slow streams alone keep it in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};

use crate::event::FrameId;
use crate::queue::Subscriber;
use crate::sync::Mutex;

/// The slow streams of one publisher.
#[derive(Default)]
pub(super) struct SlowStreams(Mutex<Slow>);

#[derive(Default)]
struct Slow {
    /// The streams and the frames that they hold. The stream that has been slow for longest comes first.
    streams: BTreeMap<u64, (Weak<Subscriber>, Vec<FrameId>)>,
    last: u64,
    /// How many of the streams hold each frame.
    holders: HashMap<FrameId, usize>,
    /// The bytes of these frames, each counted once.
    bytes: usize,
}

/// Keeps a stream on the list of slow streams until it is dropped.
pub(super) struct SlowStream {
    list: Arc<SlowStreams>,
    number: u64,
}

impl Drop for SlowStream {
    fn drop(&mut self) {
        self.list.0.lock().remove(self.number);
    }
}

impl Slow {
    fn remove(&mut self, number: u64) {
        let (_, frames) = self.streams.remove(&number).expect("BUG: a slow stream is not on the list");
        for frame in frames {
            let holders = self.holders.get_mut(&frame).expect("BUG: a frame of a slow stream is not counted");
            *holders -= 1;
            if *holders == 0 {
                self.holders.remove(&frame);
                self.bytes -= frame.bytes;
            }
        }
    }
}

impl SlowStreams {
    /// Adds a stream that holds these large frames, because its client has not taken them.
    pub(super) fn add(self: &Arc<Self>, subscriber: &Arc<Subscriber>, frames: Vec<FrameId>) -> SlowStream {
        let mut slow = self.0.lock();
        slow.last += 1;
        let number = slow.last;
        for frame in &frames {
            let holders = slow.holders.entry(*frame).or_default();
            *holders += 1;
            if *holders == 1 {
                slow.bytes += frame.bytes;
            }
        }
        slow.streams.insert(number, (Arc::downgrade(subscriber), frames));
        SlowStream { list: Arc::clone(self), number }
    }

    /// Returns the streams that must end so that the slow streams alone keep at most this many bytes in memory, those
    /// that have been slow for longest first. `remove_kept` removes the frames that something else holds too. A stream
    /// that holds no other frame is never among them.
    pub(super) fn to_disconnect(
        &self,
        limit: usize,
        remove_kept: impl FnOnce(&mut Vec<FrameId>),
    ) -> Vec<Arc<Subscriber>> {
        let slow = self.0.lock();
        if slow.bytes <= limit {
            return Vec::new();
        }
        let (streams, mut holders) = (slow.streams.clone(), slow.holders.clone());
        drop(slow);
        let mut retained: Vec<FrameId> = holders.keys().copied().collect();
        remove_kept(&mut retained);
        let mut bytes: usize = retained.iter().map(|frame| frame.bytes).sum();
        let retained: HashSet<FrameId> = retained.into_iter().collect();
        let mut slowest = Vec::new();
        for (subscriber, frames) in streams.into_values() {
            if bytes <= limit {
                break;
            }
            let mut holds_retained = false;
            for frame in frames.iter().filter(|frame| retained.contains(frame)) {
                holds_retained = true;
                let holders = holders.get_mut(frame).expect("BUG: a frame of a slow stream is not counted");
                *holders -= 1;
                if *holders == 0 {
                    bytes -= frame.bytes;
                }
            }
            if holds_retained {
                slowest.extend(subscriber.upgrade());
            }
        }
        slowest
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::{Event, Frame};
    use crate::queue::{Overflow, Properties, QueueLimits, SubscriberId};
    use crate::sync::channel::bounded;

    fn subscriber(id: u64) -> Arc<Subscriber> {
        let limits = QueueLimits { events: 10, bytes: 1 << 20, overflow: Overflow::Block(Duration::ZERO) };
        Subscriber::new(SubscriberId(id), Properties::new(()), None, Arc::new(limits), bounded(1).0)
    }

    fn frames() -> Vec<Frame> {
        (0..4).map(|_| Event::new("x".repeat(20_000)).encode()).collect()
    }

    #[test]
    fn the_streams_that_have_been_slow_for_longest_end_until_the_limit_is_kept() {
        let slow = Arc::new(SlowStreams::default());
        let frames = frames();
        let ids: Vec<FrameId> = frames.iter().map(Frame::frame_id).collect();
        let subscribers: Vec<_> = (0..5).map(subscriber).collect();
        let held = [&ids[..1], &ids[..1], &[], &ids[1..2], &ids[2..]];
        let mut guards: Vec<_> =
            subscribers.iter().zip(held).map(|(subscriber, frames)| slow.add(subscriber, frames.to_vec())).collect();
        let slowest = |frames_allowed: usize, kept: &[FrameId]| -> Vec<u64> {
            let remove_kept = |frames: &mut Vec<FrameId>| frames.retain(|frame| !kept.contains(frame));
            let slowest = slow.to_disconnect(frames_allowed * ids[0].bytes, remove_kept);
            slowest.iter().map(|subscriber| subscriber.id().0).collect()
        };
        assert!(slowest(4, &[]).is_empty(), "four frames are held");
        assert_eq!(slowest(3, &[]), [0, 1], "both hold the first frame");
        assert_eq!(slowest(2, &[]), [0, 1, 3], "a stream that holds none is spared");
        assert_eq!(slowest(0, &ids[2..]), [0, 1, 3], "a stream whose frames are held elsewhere is spared");
        assert!(slowest(3, &ids[..1]).is_empty(), "its end would release nothing");
        guards.clear();
        assert!(slowest(0, &[]).is_empty());
        assert_eq!(slow.0.lock().bytes, 0);
    }
}
