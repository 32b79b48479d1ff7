//! A publisher that follows another one: where the followed stream arrives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::deliver::WriterPool;
use crate::event::Event;
use crate::follow::{Begin, Line};
use crate::registry::{Begun, NewEvent, Registry};
use crate::store::{Connection, FollowSink, UnexpectedLine};

/// How long a subscriber may be ahead of the history while it is connected.
const MAX_AHEAD: Duration = Duration::from_secs(5);

/// The followed stream, on its way to the subscribers.
pub(super) struct Following {
    registry: Arc<Registry>,
    pool: Arc<WriterPool>,
    connection: Arc<Connection>,
    channels: Vec<Arc<str>>,
    /// The followed history at the start of the connection, until this one has the same; `None` before and after.
    to_fill: Option<Begin>,
    /// `true` once a connection has begun, and until the stream turns out to be another one.
    has_begun: bool,
    /// When the connection began.
    connected: Instant,
}

impl Following {
    pub(super) fn new(registry: &Arc<Registry>, pool: &Arc<WriterPool>, channels: Vec<Arc<str>>) -> Self {
        let (registry, pool) = (Arc::clone(registry), Arc::clone(pool));
        let connection = Arc::new(Connection::new());
        Self { registry, pool, connection, channels, to_fill: None, has_begun: false, connected: Instant::now() }
    }

    fn begin(&mut self, begin: Begin) -> Result<(), UnexpectedLine> {
        if begin.floors.len() != self.channels.len() {
            return Err(UnexpectedLine);
        }
        let (Begun { is_starting, .. }, deferred) = self.registry.begin_following(&begin);
        self.pool.finish_elsewhere(deferred);
        self.has_begun = true;
        self.connected = Instant::now();
        let reached = begin.cursor.max(self.registry.sequence());
        self.to_fill = is_starting.then_some(begin);
        self.connection.begin(!is_starting);
        self.fill(reached);
        Ok(())
    }

    /// Lets subscribers join once the history has what the followed one had at the start.
    fn fill(&mut self, reached: u64) {
        if let Some(begin) = self.to_fill.take_if(|begin| begin.fill <= reached) {
            self.registry.advance(begin.newest, true);
            self.connection.begin(true);
        }
    }

    fn event(&mut self, sequence: u64, channels: &[Arc<str>], key: Option<String>, (mut event, id): (Event, Arc<str>)) {
        if *id != *self.registry.id(sequence) {
            event = event.with_id(&id);
        }
        if let Some(key) = key {
            event = event.key(key);
        }
        let names: Vec<&str> = channels.iter().map(|channel| &**channel).collect();
        let new_event = NewEvent { sequence: Some(sequence), ..NewEvent::new(&event, true) };
        self.pool.publish_stored(&self.registry, &names, new_event);
    }

    fn channels(&self, positions: &[usize]) -> Result<Vec<Arc<str>>, UnexpectedLine> {
        positions.iter().map(|position| self.channels.get(*position).cloned().ok_or(UnexpectedLine)).collect()
    }
}

/// Gives up waiting for the events that subscribers saw elsewhere, if they have waited for too long on a connection that
/// began at this time. A client that is ahead may have come from a place which received what this one is about to.
pub(super) fn expire_ahead(registry: &Registry, pool: &Arc<WriterPool>, connected: Instant) {
    if let Some(before) = Instant::now().checked_sub(MAX_AHEAD).filter(|before| *before >= connected) {
        pool.finish_elsewhere(registry.expire_ahead(before));
    }
}

impl FollowSink for Following {
    fn take(&mut self, line: Line, event: Option<(Event, Arc<str>)>) -> Result<(), UnexpectedLine> {
        let reached = match line {
            Line::Begin(begin) => return self.begin(begin),
            Line::Event { sequence, .. } | Line::Hole { sequence, .. } | Line::At { sequence } => sequence,
        };
        if !self.has_begun {
            return Err(UnexpectedLine);
        }
        match line {
            // A replay may repeat events.
            _ if reached <= self.registry.sequence() => {}
            Line::Event { channels, key, .. } => {
                let event = event.ok_or(UnexpectedLine)?;
                let channels = self.channels(&channels)?;
                self.event(reached, &channels, key, event);
            }
            Line::Hole { channels, .. } => {
                let channels = self.channels(&channels)?;
                self.pool.finish_elsewhere(self.registry.lose(reached, &channels));
            }
            Line::At { .. } => {
                self.registry.advance(reached, false);
            }
            Line::Begin(_) => {}
        }
        self.fill(reached);
        Ok(())
    }

    fn expire(&mut self) {
        if self.has_begun && !self.connection.is_lost() {
            expire_ahead(&self.registry, &self.pool, self.connected);
        }
    }

    fn last_id(&self) -> Option<String> {
        if self.has_begun { self.registry.newest_id() } else { None }
    }

    fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }
}

#[cfg(all(test, feature = "client"))]
mod tests;
