//! Tests of the store, through the trait that the publisher uses.

mod child;
mod damage;
mod disk;
mod losses;
mod model;
mod opening;
mod reopening;
mod size;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fmt, fs, process};

use super::state::Eras;
use super::{Sqlite, SqliteStore, Surroundings};
use crate::error::StoreError;
use crate::spread;
use crate::store::{Attached, Content, Record, Store, Trim};

/// A directory of one test, which is removed after it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = env::temp_dir().join(format!("sse-{}-{:x}", process::id(), spread::random()));
        fs::create_dir(&path).unwrap();
        Self(fs::canonicalize(path).unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Returns the store of the usual file.
    fn sqlite(&self) -> Sqlite {
        Sqlite::at(self.file("events.db"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const MAX_BYTES: usize = 64 << 20;

/// Everything that a store returns when it is opened.
struct Opened {
    store: SqliteStore,
    attached: Attached,
    records: Vec<Record<'static>>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("attached", &self.attached).finish_non_exhaustive()
    }
}

fn open(sqlite: &Sqlite) -> Opened {
    try_open(sqlite, "this boot", 1_000).unwrap()
}

fn try_open(sqlite: &Sqlite, boot: &str, seconds: u64) -> Result<Opened, StoreError> {
    try_open_with(sqlite, MAX_BYTES, boot, seconds)
}

fn try_open_with(sqlite: &Sqlite, max_bytes: usize, boot: &str, seconds: u64) -> Result<Opened, StoreError> {
    let boot = Some(boot.to_owned()).filter(|boot| !boot.is_empty());
    let mut store = sqlite.open_in(max_bytes, Surroundings { boot, era: seconds, step: 1 })?;
    let attached = store.attach()?;
    let mut records = Vec::new();
    store.read(&mut |record| records.push(record))?;
    Ok(Opened { store, attached, records })
}

/// Returns an event whose columns depend on its sequence.
fn record(sequence: u64) -> Record<'static> {
    let channels: Vec<Arc<str>> = (0..1 + sequence % 3).map(|channel| format!("channel {channel}").into()).collect();
    let fields = || format!("data: {sequence}\n").repeat(1 + sequence as usize % 7).into();
    let content = match sequence % 5 {
        0 => Content::Transform { name: "not to".into(), argument: format!("{sequence}").into(), fields: fields() },
        1 => Content::Closure,
        _ => Content::Fields(fields()),
    };
    Record {
        sequence,
        at: 1_700_000_000_000 + sequence,
        channels: channels.into(),
        own_id: sequence.is_multiple_of(4).then(|| format!("own-{sequence}").into()),
        finds_own_id: sequence % 8 != 4,
        key: sequence.is_multiple_of(3).then(|| "key".into()),
        content,
    }
}

fn records(sequences: impl IntoIterator<Item = u64>) -> Vec<Record<'static>> {
    sequences.into_iter().map(record).collect()
}

/// Returns what is evicted: these events, and the floors of these channels.
fn trim(evicted: &[u64], floors: &[(&str, Option<u64>)], horizon: u64) -> Trim {
    let floors = floors.iter().map(|(channel, floor)| ((*channel).into(), *floor)).collect();
    Trim { evicted: evicted.into(), floors, horizon, ambiguous: Vec::new(), last_loss: 0 }
}

fn bytes(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len())
}
