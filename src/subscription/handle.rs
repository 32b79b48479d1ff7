//! What controls a live subscription from any thread.

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
/// It keeps neither the subscription nor the publisher alive. Once the subscriber has left, its methods do nothing.
#[derive(Clone)]
pub struct SubscriptionHandle {
    registry: Weak<Registry>,
    id: SubscriberId,
}

impl SubscriptionHandle {
    pub(super) fn new(registry: &Weak<Registry>, id: SubscriberId) -> Self {
        Self { registry: Weak::clone(registry), id }
    }

    /// Adds the subscriber to these channels. Returns how many of them it was not in before; 0 if it has left. Does not block.
    ///
    /// It gets what is published there from now on; the [history](crate::History) is not replayed.
    ///
    /// # Errors
    ///
    /// [`OpenError`] names the limit that it would cross. It stays in the channels that it was in before, then.
    pub fn join<By>(&self, channels: impl Channels<By>) -> Result<usize, OpenError> {
        channels.with_names(|names| {
            self.registry.upgrade().map_or(Ok(0), |registry| registry.join_channels(self.id, names))
        })
    }

    /// Takes the subscriber out of these channels. Returns how many of them it was in. Does not block.
    ///
    /// If it is in no channel any longer, it ends after what is queued for it. So to change channels, join the new ones
    /// first.
    pub fn leave<By>(&self, channels: impl Channels<By>) -> usize {
        channels.with_names(|names| self.registry.upgrade().map_or(0, |registry| registry.leave(self.id, names)))
    }

    /// Ends the stream after what is queued for it, with [`EndCause::Closed`]. Does not wait. Returns `false` if it has left
    /// already.
    pub fn close(&self) -> bool {
        self.end(EndCause::Closed, false)
    }

    /// Ends the stream at once, with [`EndCause::Disconnected`], and drops what is queued. Does not wait. Returns `false` if it
    /// has left already.
    pub fn disconnect(&self) -> bool {
        self.end(EndCause::Disconnected, true)
    }

    /// Ends the stream, whose connection is lost.
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
