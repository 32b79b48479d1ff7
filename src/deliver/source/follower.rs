//! The stream of a publisher that follows this one.

use std::sync::Arc;

use super::{FrameSource, Next};
use crate::event::{self, Frame};
use crate::follow::Line;
use crate::queue::Payload;
use crate::registry::ForFollower;

/// The follower that a stream is for.
pub(super) struct Follower {
    /// The followed channels, in its order.
    channels: Box<[Arc<str>]>,
}

impl FrameSource {
    /// Makes this the stream of a follower of these channels.
    pub(crate) fn follow(&mut self, channels: &[Arc<str>]) {
        self.follower = Some(Box::new(Follower { channels: channels.into() }));
    }

    /// Returns an event of the history with what a follower must know of it.
    ///
    /// A follower is sent nothing else. If there is something else for it, such as a gap, its stream ends, and it learns
    /// the state of the history when it resumes.
    pub(super) fn deliver_to_follower(&mut self, payload: &Payload) -> Next {
        let is_comment = matches!(payload, Payload::Frame(frame) if frame.starts_with(':'));
        let follower = self.follower.as_ref().expect("BUG: the stream is not a follower's");
        let for_follower = match self.registry.upgrade() {
            _ if is_comment => ForFollower::Replaced,
            Some(registry) => registry.for_follower(payload, &follower.channels),
            None => ForFollower::Lost,
        };
        match for_follower {
            ForFollower::Frame(frame) => self.send(frame),
            ForFollower::Replaced => Next::Skipped,
            ForFollower::Lost => {
                if let Some(registry) = self.registry.upgrade() {
                    registry.end_overtaken(&self.subscriber);
                }
                self.see_end()
            }
        }
    }
}

/// Returns the heartbeat of a follower that has been sent everything up to this ID.
pub(super) fn heartbeat(sequence: u64, id: &str) -> Frame {
    event::follow_alone(&Line::At { sequence }, Some(id), 0)
}
