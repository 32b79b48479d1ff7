//! Handles that control a live subscription from any thread.

use std::fmt;
#[cfg(feature = "server")]
use std::io;
use std::sync::Weak;

use crate::channels::Channels;
use crate::error::OpenError;
use crate::queue::SubscriberId;
use crate::registry::Registry;
use crate::stats::EndCause;

/// Controls a live subscription from any thread; from [`Subscription::handle`](crate::Subscription::handle).
///
/// A handle keeps neither the subscription nor the publisher alive. Once the subscriber has left, its methods do
/// nothing.
#[derive(Clone)]
pub struct SubscriptionHandle {
    registry: Weak<Registry>,
    id: SubscriberId,
}

impl SubscriptionHandle {
    pub(super) fn new(registry: &Weak<Registry>, id: SubscriberId) -> Self {
        Self { registry: Weak::clone(registry), id }
    }

    /// Adds the subscriber to these channels. Returns how many of them are new to it; 0 if it has left. Does not block.
    ///
    /// The subscriber gets events that are published there from now on. The [history](crate::History) is not replayed.
    ///
    /// # Errors
    ///
    /// Returns the limit that the subscriber would cross, as an [`OpenError`]. It then stays in its earlier channels
    /// only.
    pub fn join<By>(&self, channels: impl Channels<By>) -> Result<usize, OpenError> {
        channels.with_names(|names| {
            self.registry.upgrade().map_or(Ok(0), |registry| registry.join_channels(self.id, names))
        })
    }

    /// Removes the subscriber from these channels. Returns how many of them it was in. Does not block.
    ///
    /// A subscriber that is in no channel afterwards ends after its queued events. To change channels, join the new
    /// ones first.
    pub fn leave<By>(&self, channels: impl Channels<By>) -> usize {
        channels.with_names(|names| self.registry.upgrade().map_or(0, |registry| registry.leave(self.id, names)))
    }

    /// Ends the stream after its queued events, with [`EndCause::Closed`]. Returns `false` if the subscriber has left
    /// already. Does not block.
    pub fn close(&self) -> bool {
        self.end(EndCause::Closed, false)
    }

    /// Ends the stream at once, with [`EndCause::Disconnected`], and drops its queued events. Returns `false` if the
    /// subscriber has left already. Does not block.
    pub fn disconnect(&self) -> bool {
        self.end(EndCause::Disconnected, true)
    }

    /// Ends the stream because its connection is lost.
    #[cfg(feature = "server")]
    pub(crate) fn connection_lost(&self, error: io::ErrorKind) {
        self.end(EndCause::ConnectionLost(error), true);
    }

    fn end(&self, cause: EndCause, at_once: bool) -> bool {
        self.registry.upgrade().is_some_and(|registry| registry.end(self.id, cause, at_once))
    }
}

impl fmt::Debug for SubscriptionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionHandle").field("id", &self.id.0).finish_non_exhaustive()
    }
}
