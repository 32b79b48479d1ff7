//! The thread that reads the stream, and commits its events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Connection, RedisError};

use super::Redis;
use super::attach::{Seen, attach};
use super::connect::{BackOff, Server, describe};
use super::entry::{self, Entry, Origin};
use super::window::Window;
use crate::store::shared::SharedSink;
use crate::store::{Committed, SharedLog};

/// How often a connection attaches again, to see whether its server is still the primary.
const PROBE: Duration = Duration::from_secs(5);

/// How long Redis waits for the next event before it answers.
const BLOCK: Duration = Duration::from_secs(1);

/// The most entries that are read together. Redis has no limit of bytes for that, so this is few enough for as many of the
/// largest events (`MAX_EVENT_BYTES`), which may follow small ones.
const COUNT: usize = 32;

/// Fewer are read together if the ones before were so large that they would be more than this.
const BYTES: usize = 4 << 20;

/// The thread that reads the stream.
pub(super) struct Reader {
    settings: Redis,
    server: Server,
    window: Arc<Window>,
    sink: Box<dyn SharedSink>,
    origins: Origins,
    /// How many entries are read next.
    count: usize,
    /// The history that was read last, and its newest era.
    attached: Option<(String, u64)>,
}

/// Where the reader is on one connection.
struct Position {
    log: SharedLog,
    /// The sequence of the newest entry that was read.
    sequence: u64,
}

/// The number of the newest event of each publisher.
///
/// A publisher sends an event again if it does not know whether Redis has it.
#[derive(Default)]
struct Origins(HashMap<Arc<str>, Newest>);

struct Newest {
    number: u64,
    sequence: u64,
}

impl Origins {
    /// The most publishers. Each start of a process is one.
    const LIMIT: usize = 10_000;

    /// Returns whether the event in the entry with this sequence has been read before.
    fn is_known(&mut self, origin: &Origin, sequence: u64) -> bool {
        if self.0.len() >= Self::LIMIT && !self.0.contains_key(&origin.publisher) {
            self.forget_half();
        }
        let newest = self.0.entry(Arc::clone(&origin.publisher)).or_insert(Newest { number: 0, sequence });
        newest.sequence = sequence;
        let is_known = origin.number <= newest.number;
        newest.number = origin.number.max(newest.number);
        is_known
    }

    /// Forgets the publishers that have been silent for longest.
    fn forget_half(&mut self) {
        let mut sequences: Vec<u64> = self.0.values().map(|newest| newest.sequence).collect();
        let (_, middle, _) = sequences.select_nth_unstable(Self::LIMIT / 2);
        let middle = *middle;
        self.0.retain(|_, newest| newest.sequence > middle);
    }
}

impl Reader {
    pub(super) fn new(settings: Redis, server: Server, window: Arc<Window>, sink: Box<dyn SharedSink>) -> Self {
        Self { settings, server, window, sink, origins: Origins::default(), count: 1, attached: None }
    }

    pub(super) fn run(mut self) {
        let mut back_off = BackOff::new();
        while let Err(error) = self.read(&mut back_off) {
            let reason = describe(&error);
            self.sink.connection().lose(reason.clone());
            self.sink.report(Some(reason));
            if self.window.wait(back_off.next()) {
                break;
            }
        }
        self.sink.end();
    }

    /// Connects, and reads. Returns once the window is stopped.
    fn read(&mut self, back_off: &mut BackOff) -> Result<(), RedisError> {
        let mut connection = self.server.connect()?;
        while !self.window.is_stopped() {
            let mut position = self.attach(&mut connection)?;
            let probe = Instant::now() + PROBE;
            let mut is_first = true;
            while !self.window.is_stopped() && Instant::now() < probe {
                if !self.read_next(&mut connection, &mut position)? {
                    if is_first {
                        let kind = redis::ErrorKind::Client;
                        return Err(
                            (kind, "the stream has entries of an unknown era, which others have written").into()
                        );
                    }
                    break;
                }
                back_off.reset();
                self.sink.report(self.window.failure());
                is_first = false;
            }
        }
        Ok(())
    }

    fn attach(&mut self, connection: &mut Connection) -> Result<Position, RedisError> {
        let lost = self.sink.take_lost_id();
        let newest = self.sink.newest_id();
        let mut log = None;
        for seen in [lost, newest] {
            let seen = seen.as_deref().and_then(Seen::parse);
            if seen.is_some() || log.is_none() {
                log = Some(attach(connection, &self.settings, seen.as_ref())?);
            }
        }
        let log = log.expect("BUG: the connection is not attached");
        let (sequence, continues) = self.sink.begin(&log);
        if !continues {
            self.origins = Origins::default();
        }
        let attached = (log.lineage.clone(), log.newest_era());
        if self.attached.as_ref().is_some_and(|before| *before != attached) {
            // What Redis has lost may have been sent by this publisher, and not have come back.
            self.window.attach();
        }
        self.attached = Some(attached);
        Ok(Position { log, sequence })
    }

    /// Waits for the next entries. Returns `false` if the state of the log must be read again.
    fn read_next(&mut self, connection: &mut Connection, position: &mut Position) -> Result<bool, RedisError> {
        let after = format!("{}-{}", position.log.era(position.sequence), position.sequence);
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(self.count).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        command.arg("STREAMS").arg(&self.settings.stream).arg(after);
        let reply = command.query(connection)?;
        let other_form = || (redis::ErrorKind::UnexpectedReturnType, "an entry has another form").into();
        let entries = entry::entries(reply).ok_or_else::<RedisError, _>(other_form)?;
        let (count, largest) = (entries.len(), entries.iter().map(|(_, _, entry)| entry.size()).max().unwrap_or(0));
        let is_short = count < self.count;
        // As many as fit if all are as large, and at most twice as many as before.
        self.count = (BYTES / largest.max(1)).min(self.count * 2).clamp(1, COUNT);
        for (era, sequence, entry) in entries {
            if sequence <= position.sequence || era != position.log.era(sequence) {
                return Ok(false);
            }
            self.take(position, sequence, entry);
        }
        self.sink.expire();
        if is_short && count > 0 && !self.settings.read_pause.is_zero() {
            self.window.wait(self.settings.read_pause);
        }
        Ok(true)
    }

    fn take(&mut self, position: &mut Position, sequence: u64, entry: Entry) {
        if sequence > position.sequence + 1 {
            // Entries are missing: trimmed before they were read, or deleted.
            self.sink.lose(sequence - 1);
            self.window.skip(sequence - 1);
        }
        position.sequence = sequence;
        match entry {
            Entry::Event { origin, .. } | Entry::Disconnect { origin, .. }
                if self.origins.is_known(&origin, sequence) =>
            {
                self.window.count_duplicate();
                self.sink.advance(sequence);
            }
            Entry::Event { origin, record } => {
                let committed = self.sink.event(record);
                self.commit(&origin, committed);
            }
            Entry::Disconnect { origin, quota_key } => {
                self.sink.disconnect(sequence, &quota_key);
                self.commit(&origin, Committed::default());
            }
            Entry::Era | Entry::Skippable => self.sink.advance(sequence),
            Entry::Loss | Entry::Unknown => self.sink.lose(sequence),
        }
    }

    fn commit(&mut self, origin: &Origin, committed: Committed) {
        if self.window.commit(origin, committed) {
            self.sink.close_streams();
        }
    }
}
