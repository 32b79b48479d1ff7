//! What a history follows, instead of being kept in a store.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::StoreState;
use crate::error::InvalidSetting;
use crate::event::Event;
use crate::follow::Line;

/// A publisher for a [history](crate::History) to follow; made from the settings of a client.
#[cfg(any(feature = "client", test))]
pub struct HistoryUpstream(pub(crate) Arc<dyn Upstream>);

#[cfg(any(feature = "client", test))]
impl std::fmt::Debug for HistoryUpstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HistoryUpstream").finish_non_exhaustive()
    }
}

/// The stream of another publisher.
pub(crate) trait Upstream: Send + Sync {
    /// Checks the settings.
    fn check(&self) -> Result<(), InvalidSetting>;

    /// Returns the channels of the stream.
    fn channels(&self) -> Vec<Arc<str>>;

    /// Starts a thread that follows the stream until it is stopped. Returns the reason if that is not possible.
    fn start(&self, sink: Box<dyn FollowSink>) -> Result<Box<dyn StopFollowing>, String>;
}

/// The place where a followed stream arrives.
pub(crate) trait FollowSink: Send {
    /// Takes the next block: its extra line, and its event with the event's ID, if it has one.
    fn take(&mut self, line: Line, event: Option<(Event, Arc<str>)>) -> Result<(), UnexpectedLine>;

    /// Gives up what has waited for too long. Must be called about once per second while the stream is connected.
    fn expire(&mut self);

    /// Returns the ID after which the stream must continue; `None` if it must begin anew.
    fn last_id(&self) -> Option<String>;

    /// Returns the state of the connection.
    fn connection(&self) -> Arc<Connection>;
}

/// A block that cannot come at this place.
#[derive(Debug)]
pub(crate) struct UnexpectedLine;

/// The thread that follows a stream.
pub(crate) trait StopFollowing: Send + Sync {
    /// Stops the thread. Does not wait for it.
    fn stop(&self);
}

/// The state of the connection to the followed publisher.
pub(crate) struct Connection(Mutex<State>);

struct State {
    store: StoreState,
    is_connected: bool,
    /// How often the connection was lost.
    lost: u64,
}

impl Connection {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State { store: StoreState::Starting { reason: None }, is_connected: false, lost: 0 }))
    }

    pub(crate) fn state(&self) -> StoreState {
        self.0.lock().store.clone()
    }

    /// Returns how often the connection was lost.
    pub(crate) fn times_lost(&self) -> u64 {
        self.0.lock().lost
    }

    pub(crate) fn is_lost(&self) -> bool {
        !self.0.lock().is_connected
    }

    /// Notes that the stream has begun. `is_filled` means that the history has what the followed one had.
    pub(crate) fn begin(&self, is_filled: bool) {
        let mut state = self.0.lock();
        state.store =
            if is_filled { StoreState::Running { pending: 0 } } else { StoreState::Starting { reason: None } };
        state.is_connected = true;
    }

    /// Notes that the connection was lost, or cannot be made.
    pub(crate) fn lose(&self, reason: String) {
        let mut state = self.0.lock();
        if std::mem::take(&mut state.is_connected) {
            state.lost += 1;
        }
        state.store = match state.store {
            // Subscriptions are refused until the history is filled.
            StoreState::Starting { .. } => StoreState::Starting { reason: Some(reason) },
            StoreState::Away { since, .. } => StoreState::Away { since, reason },
            _ => StoreState::Away { since: Instant::now(), reason },
        };
    }
}
