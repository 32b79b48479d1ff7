//! A publisher whose history several processes share: where its log arrives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::following::expire_ahead;
use super::stored::{Hole, milliseconds_since_1970, payload};
use super::transform::Transforms;
use crate::deliver::WriterPool;
use crate::follow::Begin;
use crate::log::{self, RateLimitedLog};
use crate::registry::{Begun, NewEvent, Published, Registry};
use crate::store::{Committed, Connection, Record, SharedLog, SharedSink};

/// The log of a shared store, on its way to the subscribers.
pub(super) struct Sharing {
    registry: Arc<Registry>,
    pool: Arc<WriterPool>,
    transforms: Transforms,
    warnings: Arc<RateLimitedLog>,
    connection: Arc<Connection>,
    /// The most events that the history can hold.
    capacity: u64,
    /// The newest sequence of the log at the start of the connection, until the history has it; `None` afterwards.
    to_fill: Option<u64>,
    /// The newest sequence of the log when it was last seen.
    newest: u64,
    has_begun: bool,
    /// When the connection began.
    connected: Instant,
    /// Whether the log has the store as away, and since when.
    logged: (bool, Option<Instant>),
}

/// The shortest time between two lines of the log that the store is away, or back.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

impl Sharing {
    pub(super) fn new(
        registry: &Arc<Registry>,
        pool: &Arc<WriterPool>,
        transforms: &Transforms,
        warnings: &Arc<RateLimitedLog>,
        capacity: usize,
    ) -> Self {
        Self {
            registry: Arc::clone(registry),
            pool: Arc::clone(pool),
            transforms: transforms.clone(),
            warnings: Arc::clone(warnings),
            connection: Arc::new(Connection::new()),
            capacity: capacity as u64,
            to_fill: None,
            newest: 0,
            has_begun: false,
            connected: Instant::now(),
            logged: (false, None),
        }
    }

    /// Lets subscribers join once the history has what the log had at the start of the connection.
    fn fill(&mut self, reached: u64) {
        if self.to_fill.take_if(|newest| *newest <= reached).is_some() {
            self.registry.advance(reached, true);
            self.connection.begin(true);
        }
    }

    /// Returns when an event was published, by the history's clock; `None` for now.
    fn time(&self, at: u64) -> Option<Duration> {
        // The clocks of several machines differ, so only an event that comes late has an age.
        self.to_fill?;
        let age = Duration::from_millis(milliseconds_since_1970().saturating_sub(at));
        Some(self.registry.history_time()?.saturating_sub(age))
    }
}

impl SharedSink for Sharing {
    fn begin(&mut self, log: &SharedLog) -> (u64, bool) {
        let own = self.registry.sequence();
        let oldest_wanted = log.oldest.max((log.newest + 1).saturating_sub(self.capacity));
        let before = oldest_wanted.saturating_sub(1);
        let begin = Begin {
            name: log.lineage.clone(),
            newest: log.newest,
            // What lies between is missing, which shows when the next entry is read.
            cursor: if self.has_begun { before.min(own) } else { before },
            fill: log.newest,
            last_loss: 0,
            eras: log.eras.clone(),
            floors: Vec::new(),
            is_whole: true,
        };
        let (Begun { continues, is_starting }, deferred) = self.registry.begin_following(&begin);
        self.pool.finish_elsewhere(deferred);
        if !self.has_begun || self.connection.is_lost() {
            self.connected = Instant::now();
        }
        self.has_begun = true;
        self.newest = log.newest;
        self.connection.begin(!is_starting);
        let sequence = self.registry.sequence();
        // What is published while the history is filled comes behind.
        let filling = self.to_fill.filter(|_| continues);
        self.to_fill = is_starting.then(|| filling.unwrap_or(log.newest));
        self.fill(sequence);
        (sequence, continues)
    }

    fn event(&mut self, record: Record<'static>) -> Committed {
        let sequence = record.sequence;
        let committed = match payload(&record, &self.registry.id(sequence), &self.transforms) {
            Ok(payload) => {
                let at = self.time(record.at);
                let Record { channels, own_id, key, .. } = record;
                let names: Vec<&str> = channels.iter().map(|channel| &**channel).collect();
                let (own_id, key) = (own_id.map(Arc::from), key.map(Arc::from));
                let event = NewEvent { payload, own_id, key, is_comment: false, at, sequence: Some(sequence) };
                let Published { subscribers, id, .. } = self.pool.publish_stored(&self.registry, &names, event);
                Committed { subscribers, id }
            }
            Err(Hole { unknown_transform }) => {
                if let Some(name) = unknown_transform {
                    let warnings = Arc::clone(&self.warnings);
                    self.pool.call(move || warnings.unknown_transform(&name));
                }
                self.pool.finish_elsewhere(self.registry.lose(sequence, &record.channels));
                Committed::default()
            }
        };
        self.fill(sequence);
        committed
    }

    fn disconnect(&mut self, sequence: u64, quota_key: &str) {
        self.pool.finish_elsewhere(self.registry.disconnect_key(Some(quota_key)));
        self.advance(sequence);
    }

    fn advance(&mut self, sequence: u64) {
        self.registry.advance(sequence, false);
        self.fill(sequence);
    }

    fn lose(&mut self, sequence: u64) {
        self.pool.finish_elsewhere(self.registry.lose_all(sequence));
        // A missing entry may be one that disconnects a quota key. Those that are still allowed resume.
        self.pool.finish_elsewhere(self.registry.disconnect_key(None));
        self.fill(sequence);
    }

    fn expire(&mut self) {
        // Clients that are ahead of a process that is behind itself have seen what is still to come.
        if self.registry.sequence() >= self.newest {
            expire_ahead(&self.registry, &self.pool, self.connected);
        }
    }

    fn report(&mut self, trouble: Option<String>) {
        let (was_away, logged) = self.logged;
        // What changes sooner is logged later, if it is still so.
        if trouble.is_some() == was_away || logged.is_some_and(|logged| logged.elapsed() < LOG_INTERVAL) {
            return;
        }
        self.logged = (trouble.is_some(), Some(Instant::now()));
        self.pool.call(move || match trouble {
            Some(reason) => log::store_away(&reason),
            None => log::store_back(),
        });
    }

    fn take_lost_id(&mut self) -> Option<String> {
        self.registry.take_lost_id()
    }

    fn newest_id(&self) -> Option<String> {
        if self.has_begun { self.registry.newest_id() } else { None }
    }

    fn close_streams(&mut self) {
        self.pool.finish_elsewhere(self.registry.close());
    }

    fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }

    fn end(self: Box<Self>) {
        // The last reference to a closure, whose `Drop` is application code, may be among them.
        let Self { registry, pool, transforms, .. } = *self;
        let registry = Arc::into_inner(registry);
        pool.call(move || drop((registry, transforms)));
    }
}
