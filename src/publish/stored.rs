//! Publishing with a store: events are accepted here, and committed by the store thread.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::RecvTimeoutError;

use super::event_store::EventStore;
use super::transform::Transforms;
use super::{Publisher, Receipt};
use crate::channels::Channels;
use crate::deliver::WriterPool;
use crate::error::{BuildError, PublishError, StoreError};
use crate::event::{Event, Frame};
use crate::history::{EventLog, History, Restored};
use crate::log::RateLimitedLog;
use crate::queue::Payload;
use crate::registry::{NewEvent, Published, Registry};
use crate::store::{
    Confirmed, Content, NotAccepted, OpenStore, Pipeline, Record, Sink, Store, StoreState, Trim, WindowLimits,
};

/// An event on its way through a store.
pub(super) struct StoredEvent {
    channels: Box<[Arc<str>]>,
    new_event: NewEvent,
    /// When it was published, in milliseconds since 1970.
    at: u64,
}

/// The place where the store thread delivers events.
pub(super) struct Commits {
    pub(super) registry: Arc<Registry>,
    pub(super) pool: Arc<WriterPool>,
    pub(super) warnings: Arc<RateLimitedLog>,
}

impl Sink for Commits {
    type Event = StoredEvent;
    type Committed = Receipt;

    fn record(event: &StoredEvent, sequence: u64) -> Record<'_> {
        let NewEvent { payload, own_id, key, .. } = &event.new_event;
        let content = match payload {
            Payload::Frame(frame) => Content::Fields(Cow::Borrowed(frame)),
            Payload::Closure(render) => match render.transform_call() {
                Some(call) => Content::Transform {
                    name: Cow::Borrowed(&call.name),
                    argument: Cow::Borrowed(&call.argument),
                    fields: Cow::Owned(String::from(call.event.encode_unsealed())),
                },
                None => Content::Closure,
            },
        };
        Record {
            sequence,
            at: event.at,
            channels: Cow::Borrowed(&event.channels),
            own_id: own_id.as_deref().map(Cow::Borrowed),
            finds_own_id: true,
            key: key.as_deref().map(Cow::Borrowed),
            content,
        }
    }

    fn commit(&mut self, event: StoredEvent) -> Receipt {
        let channels: Vec<&str> = event.channels.iter().map(|channel| &**channel).collect();
        let Published { subscribers, id, .. } = self.pool.publish_stored(&self.registry, &channels, event.new_event);
        Receipt { subscribers, id, is_refused: false }
    }

    fn take_trim(&mut self) -> Trim {
        self.registry.take_trim()
    }

    fn close_streams(&mut self) {
        self.pool.finish_elsewhere(self.registry.close());
    }

    fn warn_broken(&mut self, reason: &str) {
        let (warnings, reason) = (Arc::clone(&self.warnings), reason.to_owned());
        self.pool.call(move || warnings.store_failed(&reason));
    }

    fn end(self, events: Vec<StoredEvent>) {
        // The registry outlives the publisher if the store does not end in time.
        let registry = Arc::into_inner(self.registry);
        if registry.is_some() || !events.is_empty() {
            self.pool.call(move || drop((events, registry)));
        }
    }
}

/// A history's log, filled from the store, and the store.
pub(super) struct Restoring {
    pub(super) log: EventLog<Payload>,
    pub(super) store: Box<dyn Store>,
}

/// Opens the store of a history, and fills the log from it.
pub(super) fn restore(
    history: History,
    open: &dyn OpenStore,
    transforms: &Transforms,
    warnings: &RateLimitedLog,
) -> Result<Restoring, StoreError> {
    let mut store = open.open(history.bytes_limit())?;
    let attached = store.attach()?;
    let mut log = EventLog::new(history);
    log.begin_restoring(&attached);
    let now = milliseconds_since_1970();
    let mut evicted = Vec::new();
    store.read(&mut |record| {
        let (sequence, age) = (record.sequence, Duration::from_millis(now.saturating_sub(record.at)));
        let history_id = log.id(sequence);
        match payload(&record, &history_id, transforms) {
            Ok(mut payload) => {
                payload.seal(Some(record.own_id.as_deref().unwrap_or(&history_id)), sequence);
                let Record { channels, own_id, key, finds_own_id, .. } = record;
                let (size, own_id, key) = (payload.size(), own_id.map(Arc::from), key.map(Arc::from));
                let channels = channels.into_owned();
                log.restore(
                    Restored { sequence, age, channels, own_id, key, finds_own_id, payload, size },
                    &mut evicted,
                );
            }
            Err(Hole { unknown_transform }) => {
                if let Some(name) = unknown_transform {
                    warnings.unknown_transform(&name);
                }
                log.restore_hole(sequence, &record.channels, &mut evicted);
            }
        }
        evicted.clear();
    })?;
    log.finish_restoring(attached.sequence);
    Ok(Restoring { log, store })
}

/// Starts the store thread.
pub(super) fn start(
    store: Box<dyn Store>,
    sequence: u64,
    limits: WindowLimits,
    registry: &Arc<Registry>,
    pool: &Arc<WriterPool>,
    warnings: &Arc<RateLimitedLog>,
) -> Result<Pipeline<Commits>, BuildError> {
    let (registry, pool, warnings) = (Arc::clone(registry), Arc::clone(pool), Arc::clone(warnings));
    Pipeline::start(store, Commits { registry, pool, warnings }, sequence, limits)
        .map_err(|error| BuildError::StoreThread { reason: error.to_string() })
}

/// An event of a store that cannot be restored.
pub(super) struct Hole {
    pub(super) unknown_transform: Option<String>,
}

/// Returns the payload of an event from a store, which has this ID in the history. It is not sealed.
pub(super) fn payload(record: &Record<'_>, history_id: &str, transforms: &Transforms) -> Result<Payload, Hole> {
    Ok(match &record.content {
        Content::Fields(fields) => Payload::Frame(Frame::unsealed(fields, history_id)),
        Content::Transform { name, argument, fields } => {
            let unknown = || Hole { unknown_transform: Some(name.to_string()) };
            let mut event = Event::decode(fields);
            event = match &record.own_id {
                Some(id) => event.with_id(id),
                None => event,
            };
            event = match &record.key {
                Some(key) => event.key(&**key),
                None => event,
            };
            transforms.payload(name, event, argument).ok_or_else(unknown)?
        }
        Content::Closure => return Err(Hole { unknown_transform: None }),
    })
}

pub(super) fn milliseconds_since_1970() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// How long dropping the last handle of a publisher waits for its store.
pub(super) const CLOSING_PATIENCE: Duration = Duration::from_secs(5);

impl<P: Send + Sync + 'static> Publisher<P> {
    /// Publishes an event, and waits until it is stored and delivered, for at most `timeout`.
    ///
    /// Blocks until the [store](crate::store) has the event and has given it its ID, which the receipt then has. The
    /// receipt counts the subscribers of this process that it was queued for. Without a store, this is
    /// [`publish_to`](Self::publish_to), and does not block.
    ///
    /// # Errors
    ///
    /// Returns a [`PublishError`] if the event is refused, or not stored in time.
    ///
    /// ```
    /// use server_sent_events::{History, Publisher};
    /// use std::time::Duration;
    ///
    /// let publisher = Publisher::builder().history(History::new()).build()?;
    /// let receipt = publisher.publish_confirmed("chat", "hello", Duration::from_secs(2))?;
    /// assert_eq!(receipt.id(), publisher.last_event_id().as_deref());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish_confirmed<By>(
        &self,
        channels: impl Channels<By>,
        event: impl Into<Event>,
        timeout: Duration,
    ) -> Result<Receipt, PublishError> {
        let event = event.into();
        if self.core.upstream.is_some() && !event.is_comment() {
            return Err(PublishError::Follows);
        }
        let Some(store) = self.core.store.as_ref().filter(|_| !event.is_comment()) else {
            return Ok(self.publish_to(channels, event));
        };
        if store.is_broken() {
            return Err(PublishError::Broken);
        }
        let (event, size, _) = channels.with_names(|names| self.stored_event(names, NewEvent::new(&event, true)));
        let confirmed = store.offer_confirmed(event, size).map_err(|refused| self.note_refused(refused, size))?;
        match confirmed.recv_timeout(timeout) {
            Ok(Confirmed::Stored(receipt)) => Ok(receipt),
            Ok(Confirmed::DeliveredOnly) => Err(PublishError::Broken),
            Err(RecvTimeoutError::Timeout) => Err(PublishError::TimedOut),
            Err(RecvTimeoutError::Disconnected) if store.is_broken() => Err(PublishError::Broken),
            Err(RecvTimeoutError::Disconnected) => Err(PublishError::TimedOut),
        }
    }

    /// Waits until every event that was published before is stored and delivered, for at most `timeout`. Without a
    /// [store](crate::store), returns at once.
    ///
    /// # Errors
    ///
    /// Returns [`PublishError::TimedOut`], or [`PublishError::Broken`] if the store has failed.
    pub fn flush(&self, timeout: Duration) -> Result<(), PublishError> {
        let Some(store) = &self.core.store else { return Ok(()) };
        let is_done = store.flush(far_deadline(Instant::now(), timeout));
        match (store.is_broken(), is_done) {
            (true, _) => Err(PublishError::Broken),
            (false, false) => Err(PublishError::TimedOut),
            (false, true) => Ok(()),
        }
    }

    /// Returns the state of the history's [store](crate::store), or of the publisher that it
    /// follows. Returns `None` without either.
    pub fn store_state(&self) -> Option<StoreState> {
        let followed = self.core.upstream.as_ref().map(|followed| followed.connection.state());
        followed.or_else(|| self.core.store.as_ref().map(|store| store.state()))
    }

    /// The memory that the name of a channel takes besides its text, rounded up.
    const CHANNEL_NAME: usize = 48;

    /// Gives an event to the store thread.
    pub(super) fn offer(&self, store: &dyn EventStore, names: &[&str], new_event: NewEvent) -> Receipt {
        if !store.takes_closures() && new_event.payload.is_nameless() {
            self.core.warnings.closure_refused();
            return Receipt { subscribers: 0, id: None, is_refused: true };
        }
        let (event, size, subscribers) = self.stored_event(names, new_event);
        match store.offer(event, size) {
            Ok(()) => Receipt { subscribers, id: None, is_refused: false },
            Err(refused) => {
                self.note_refused(refused, size);
                Receipt { subscribers: 0, id: None, is_refused: true }
            }
        }
    }

    /// Logs why an event was not accepted, and returns the error.
    fn note_refused(&self, refused: NotAccepted, size: usize) -> PublishError {
        match refused {
            NotAccepted::Full => self.core.warnings.store_full(),
            NotAccepted::TooLarge => self.core.warnings.event_too_large(size),
            NotAccepted::Ended | NotAccepted::Away => {}
        }
        error(refused)
    }

    /// Returns the event for the store thread, its size, and how many subscribers its channels have.
    fn stored_event(&self, names: &[&str], new_event: NewEvent) -> (StoredEvent, usize, usize) {
        // The history's clock belongs to the application, so it is not called on the store thread.
        let (subscribers, at) = self.core.registry.count_subscribers(names);
        let channels: Box<[Arc<str>]> = names.iter().map(|&name| name.into()).collect();
        let names_size: usize = names.iter().map(|name| name.len() + Self::CHANNEL_NAME).sum();
        let own_size: usize = [&new_event.own_id, &new_event.key].into_iter().flatten().map(|text| text.len()).sum();
        let size = new_event.payload.size() + own_size + names_size + size_of::<StoredEvent>();
        let new_event = NewEvent { at, ..new_event };
        (StoredEvent { channels, new_event, at: milliseconds_since_1970() }, size, subscribers)
    }
}

/// Returns the error for the caller.
pub(super) fn error(refused: NotAccepted) -> PublishError {
    match refused {
        NotAccepted::Full => PublishError::Full,
        NotAccepted::TooLarge => PublishError::TooLarge,
        NotAccepted::Ended => PublishError::Closed,
        NotAccepted::Away => PublishError::Away,
    }
}

/// Returns the time after this duration, or after a year if it is longer.
pub(super) fn far_deadline(start: Instant, duration: Duration) -> Instant {
    start.checked_add(duration).unwrap_or(start + Duration::from_secs(365 * 86_400))
}

#[cfg(test)]
mod tests;
