//! Snapshots: how a subscriber that has missed events begins with the application's state.

use std::sync::Arc;

use super::open::InitialData;
use crate::error::OpenError;
use crate::event::Event;
use crate::history::Resumption;
use crate::queue::Subscriber;
use crate::registry::{Opening, Registry, ReplayFrom};

/// The state of the application at one moment, for [`SubscriptionBuilder::snapshot_with`].
///
/// [`SubscriptionBuilder::snapshot_with`]: crate::SubscriptionBuilder::snapshot_with
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The ID of the newest event that the state contains: [`Publisher::last_event_id`], read under the lock of the
    /// state. Everything newer is replayed. `None` if the state has no such ID. With a [store](crate::store), only events
    /// of [`publish_confirmed`] are surely among those that it covers.
    ///
    /// [`Publisher::last_event_id`]: crate::Publisher::last_event_id
    /// [`publish_confirmed`]: crate::Publisher::publish_confirmed
    pub after: Option<String>,
    /// The events that show the state to the client.
    pub events: Vec<Event>,
}

/// Makes snapshots.
pub(super) type MakeSnapshot<'p> = Box<dyn FnMut() -> Snapshot + 'p>;

/// The number of snapshots that are made before the subscriber is sent a gap. Only the eviction of the events after a
/// snapshot, between its making and the opening, requires another one.
const ATTEMPTS: usize = 3;

/// Opens a subscription that begins with a snapshot unless the client resumes with every event. Returns the opening,
/// and the snapshot's events.
pub(super) fn open<'p>(
    registry: &Registry,
    subscriber: &Arc<Subscriber>,
    channels: &[Arc<str>],
    client: &ReplayFrom,
    mut make: MakeSnapshot<'p>,
) -> Result<(Opening, Option<InitialData<'p>>), OpenError> {
    let mut resumption = Resumption::NotRequested;
    if matches!(client, ReplayFrom::Id(_)) && registry.has_history() {
        if let Some(opening) = registry.open_without_gap(subscriber, channels, client)? {
            return Ok((opening, None));
        }
        resumption = Resumption::Gap;
    }
    let mut attempts = if registry.has_history() { ATTEMPTS } else { 0 };
    while attempts > 0 {
        attempts -= 1;
        let Snapshot { after: Some(after), events } = make() else { break };
        let after = ReplayFrom::Id(after);
        let opening = if attempts > 0 {
            registry.open_without_gap(subscriber, channels, &after)?
        } else {
            Some(registry.open(subscriber, channels, &after)?)
        };
        if let Some(opening) = opening {
            // The snapshot replaces the events that the client misses. A gap is left only if the last attempt failed.
            if opening.resumption == Resumption::Gap {
                resumption = Resumption::Gap;
            }
            return Ok((Opening { resumption, ..opening }, Some(Box::new(|_| events))));
        }
    }
    // The state cannot be placed among the events. Made after the opening, it lacks none of them.
    let opening = registry.open(subscriber, channels, &ReplayFrom::Last(0))?;
    Ok((Opening { resumption, ..opening }, Some(Box::new(move |_| make().events))))
}
