//! A history in an SQLite database.

mod fault;
mod file;
mod lock;
mod log;
mod rows;
mod schema;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod trim;
mod upkeep;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use self::store::SqliteStore;
use super::{HistoryStore, KeptIn, OpenStore, Store, WindowLimits};
use crate::error::{InvalidSetting, StoreError};
use crate::spread;

/// A file in which a [`History`](crate::History) is kept, so that a restart of the program is not a gap.
///
/// The file is an SQLite database, which only one publisher at a time can use. If the file is missing, the publisher
/// creates it, but not its directory. Beside it are `FILE-wal` and `FILE-shm`, which belong to the database, and
/// `FILE.lock`. To copy the history, stop the program and copy the file, or run `sqlite3 FILE '.backup COPY'`. To put a
/// copy back, replace the file, remove `FILE-wal` and `FILE-shm`, and leave `FILE.lock` as it is: it shows what is
/// missing in the copy, so that clients get a gap.
///
/// To look into it, run `sqlite3 FILE 'select * from history'`. This shows each event with its ID, its local time, its
/// channels and its fields. Other programs may read the file at any time. While one keeps a transaction open, the file
/// grows.
///
/// **What it survives.** An event is delivered after it is stored. So after the end of the process every client resumes
/// without a gap, except in channels with [closures](crate::store). On Linux it does not matter how the process ends.
/// Elsewhere nothing tells a crash from a power loss, so a crash is a gap unless the policy is
/// [`Always`](SyncPolicy::Always). After a power loss, [`sync`](Self::sync) decides what is missing, and clients get a gap
/// for it.
///
/// If the disk fails so that not even `FILE.lock` can be written, nothing shows the loss until a client returns with the
/// ID of a lost event. From then on it is a gap for every client that was away.
///
/// **Size.** The database and `FILE-wal` together take at most three times
/// [`max_bytes`](crate::History::max_bytes), and 1 MiB, and the events that are stored in one transaction.
///
/// An event larger than 128 MiB is refused, with the names of its channels.
///
/// **File systems.** The file must be on a local file system. SQLite's log does not work on NFS and most other network
/// file systems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sqlite {
    path: PathBuf,
    sync: SyncPolicy,
    max_pending_events: usize,
    max_pending_bytes: usize,
}

/// The largest event. SQLite refuses a row of 1,000,000,000 bytes. In a row, the names of channels are JSON, in which a
/// byte takes at most six.
const MAX_EVENT_BYTES: usize = 128 << 20;

/// When a store waits until events are on the disk.
///
/// It matters only if the operating system stops without writing its caches, for example in a power loss. The end of the
/// process loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Syncs each transaction before its events are delivered. A power loss loses nothing.
    Always,
    /// Syncs in the background, this long after an event was stored. A power loss loses the events of at most this
    /// time and the time that the sync takes. The next start reports them as a gap.
    Every(Duration),
    /// Leaves it to the operating system. A power loss loses the newest events, often those of half a minute. The next
    /// start reports them as a gap.
    Never,
}

impl Default for SyncPolicy {
    /// Returns `Every` with 50 milliseconds.
    fn default() -> Self {
        Self::Every(Duration::from_millis(50))
    }
}

impl Sqlite {
    /// Names the file that keeps the history. A relative path is resolved when the publisher is built.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            sync: SyncPolicy::default(),
            max_pending_events: 8_192,
            max_pending_bytes: 16 * 1024 * 1024,
        }
    }

    /// Sets when events are synced to the disk. Defaults to [`Every`](SyncPolicy::Every) 50 milliseconds.
    pub fn sync(mut self, policy: SyncPolicy) -> Self {
        self.sync = policy;
        self
    }

    /// Sets the limit of events that are published and not yet stored. Defaults to 8,192.
    ///
    /// If it is reached, the publisher refuses further events.
    pub fn max_pending_events(mut self, events: usize) -> Self {
        self.max_pending_events = events;
        self
    }

    /// Sets the limit of bytes of the events that are published and not yet stored. Defaults to 16 MiB.
    ///
    /// If it is reached, the publisher refuses further events.
    pub fn max_pending_bytes(mut self, bytes: usize) -> Self {
        self.max_pending_bytes = bytes;
        self
    }

    fn open_in(&self, max_bytes: usize, surroundings: Surroundings) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(&self.path, self.sync, max_bytes, surroundings)
    }
}

impl OpenStore for Sqlite {
    /// Locks, checks and opens the file. Creates it if it is missing or empty.
    fn open(&self, max_bytes: usize) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(self.open_in(max_bytes, Surroundings::now())?))
    }

    fn window_limits(&self) -> WindowLimits {
        let (events, bytes) = (self.max_pending_events, self.max_pending_bytes);
        WindowLimits { events, bytes, event_bytes: MAX_EVENT_BYTES }
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        InvalidSetting::check("Sqlite::sync", self.sync == SyncPolicy::Every(Duration::ZERO))?;
        InvalidSetting::check("Sqlite::max_pending_events", self.max_pending_events == 0)?;
        InvalidSetting::check("Sqlite::max_pending_bytes", self.max_pending_bytes == 0)
    }
}

impl From<Sqlite> for HistoryStore {
    fn from(sqlite: Sqlite) -> Self {
        Self(KeptIn::Own(Arc::new(sqlite)))
    }
}

/// What an opening depends on besides the file.
#[derive(Clone, Debug)]
struct Surroundings {
    /// The ID of the operating system's boot; `None` if it is unknown.
    boot: Option<String>,
    /// The number of the era that begins, unless the file has a higher one. It rises with time, and differs if two
    /// openings begin in the same second, for example after an older copy of the file was put back.
    era: u64,
    /// How far the number of the era is above a higher one in the file. It differs too: while the clock is back, an older
    /// copy of the file that is put back would get the same number again.
    step: u64,
}

impl Surroundings {
    fn now() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned());
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since.unwrap_or_default().as_secs();
        let random = spread::random() >> 44;
        Self { boot, era: seconds << 20 | random, step: random + 1 }
    }
}
