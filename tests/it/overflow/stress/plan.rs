//! What each subscriber does.

use std::time::Duration;

use super::publishers::EVENTS;
use crate::overflow::LONG;
use fastrand::Rng;
use server_sent_events::Overflow;

/// So short that some subscribers reach it.
const SHORT: Overflow = Overflow::Block(Duration::from_millis(2));

/// How a subscriber is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reads {
    Iterator,
    /// Only after everything was published.
    Late,
    Reader,
    WriteTo,
    HandOver,
    /// This many frames, then it is dropped.
    Quits(usize),
    /// This many writes, then they fail.
    WriteToFails(usize),
    HandOverFails(usize),
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub overflow: Overflow,
    pub frames: usize,
    pub bytes: usize,
    pub reads: Reads,
    /// How long it rests after a frame, or a write, from time to time.
    pub rests: Duration,
    /// Its handle closes or disconnects it after this many events of one publisher.
    pub led: Option<(usize, bool)>,
}

impl Plan {
    pub fn new(rng: &mut Rng) -> Self {
        let all = [Overflow::Disconnect, Overflow::DropOldest, Overflow::LatestPerKey, LONG, SHORT];
        let overflow = *rng.choice(&all).unwrap();
        let reads = match rng.u32(..10) {
            0..3 => Reads::Iterator,
            3 if overflow != LONG => Reads::Late,
            4 => Reads::Reader,
            5 => Reads::WriteTo,
            6 => Reads::Quits(rng.usize(..200)),
            7 => Reads::WriteToFails(rng.usize(..60)),
            8 => Reads::HandOverFails(rng.usize(..60)),
            _ => Reads::HandOver,
        };
        Self {
            overflow,
            frames: *rng.choice(&[1, 4, 32, 2_000]).unwrap(),
            bytes: *rng.choice(&[1, 400, usize::MAX, usize::MAX]).unwrap(),
            reads,
            rests: Duration::from_micros(*rng.choice(&[0, 0, 20, 200]).unwrap()),
            led: (rng.u32(..8) == 0).then(|| (rng.usize(..EVENTS), rng.bool())),
        }
    }

    pub fn may_lose(&self) -> bool {
        matches!(self.overflow, Overflow::DropOldest | Overflow::LatestPerKey)
    }
}
