//! The thread beside the store thread: it syncs the log of the database, and moves the log's content into the database.

// SQLite appends transactions to a write-ahead log. A checkpoint copies them into the database, after which the log
// begins again from its start. Both need syncs, which take as long as the disk does. So they have a thread and a
// connection of their own:
//
//     log size   0 ........ checkpoint .................... limit
//     append     goes on    goes on                         waits until the log begins again
//     upkeep     syncs      copies beside the appends       copies everything, and makes the log begin again
//
// A log that is written without a pause never begins again by itself, so its limit bounds the file's size.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rusqlite::Connection;

use super::fault::Fault;
use super::{SyncPolicy, file};

/// How long a checkpoint waits for programs that read the file.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);
/// How often the file is looked at if it need not be synced.
const LOOK: Duration = Duration::from_secs(1);
/// Every page in the log has this much before it.
const FRAME_HEADER: u64 = 24;

/// The sizes of the log at which something is done, in bytes.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    checkpoint: u64,
    limit: u64,
}

impl Sizes {
    fn of(max_bytes: usize) -> Self {
        let max_bytes = max_bytes as u64;
        Self { checkpoint: (max_bytes / 4).clamp(128 << 10, 1 << 20), limit: (max_bytes / 2).max(256 << 10) }
    }
}

/// What the store thread and the upkeep thread share.
struct Shared {
    log: Mutex<Log>,
    /// The upkeep thread has something to do.
    work: Condvar,
    /// The log may have begun again.
    done: Condvar,
}

/// Called when the thread fails.
pub(super) type Report = Box<dyn FnOnce(Fault) + Send>;

/// The state of the write-ahead log.
struct Log {
    sizes: Sizes,
    /// The size up to the newest transaction.
    size: u64,
    /// The size at which the next checkpoint is due.
    next_checkpoint: u64,
    /// The size at which `append` waits.
    limit: u64,
    /// Something was written that may not be on the disk.
    is_unsynced: bool,
    is_stopped: bool,
    failure: Option<Fault>,
    /// Called with the failure.
    report: Option<Report>,
}

impl Log {
    fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            size: 0,
            next_checkpoint: sizes.checkpoint,
            limit: sizes.limit,
            is_unsynced: false,
            is_stopped: false,
            failure: None,
            report: None,
        }
    }

    /// Takes note of a transaction, after which the log has this size.
    fn grow(&mut self, size: u64) {
        if size < self.size {
            self.begin_again();
        }
        self.size = size;
        self.is_unsynced = true;
    }

    fn begin_again(&mut self) {
        self.size = 0;
        self.next_checkpoint = self.sizes.checkpoint;
        self.limit = self.sizes.limit;
    }

    fn is_full(&self) -> bool {
        self.size >= self.limit
    }

    fn needs_checkpoint(&self) -> bool {
        self.size >= self.next_checkpoint.min(self.limit)
    }
}

/// The handle of the upkeep thread. Dropping it ends the thread.
pub(super) struct Upkeep {
    shared: Arc<Shared>,
    log_path: PathBuf,
    log_file: Arc<File>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// Makes what the log holds durable, and starts the thread. The writer must have written to the log.
    pub(super) fn start(
        path: &Path,
        lock: &Path,
        writer: &mut Connection,
        sync: SyncPolicy,
        max_bytes: usize,
    ) -> Result<Self, Fault> {
        let sizes = Sizes::of(max_bytes);
        writer.pragma_update(None, "journal_size_limit", sizes.limit as i64)?;
        let page: u32 = writer.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let connection = file::connect(path)?;
        connection.busy_timeout(PATIENCE)?;
        let log_path = file::wal(path);
        let log_file = File::options().write(true).open(&log_path);
        let log_file = Arc::new(log_file.map_err(|error| Fault::io("open", &log_path, &error))?);
        let shared = Arc::new(Shared { log: Mutex::new(Log::new(sizes)), work: Condvar::new(), done: Condvar::new() });
        let worker = Worker {
            shared: Arc::clone(&shared),
            connection,
            files: [path.into(), log_path.clone(), lock.into()].map(|path| (identity(&path), path)),
            log_file: Arc::clone(&log_file),
            sync,
        };
        let mut upkeep = Self { shared, log_path, log_file, thread: None };
        upkeep.sync()?;
        let thread = thread::Builder::new().name("sse upkeep".into()).spawn(move || worker.run());
        let thread = thread.map_err(|error| Fault::Failed(format!("failed to start a thread: {error}")))?;
        let for_hook = Arc::clone(&upkeep.shared);
        writer.wal_hook(Some(move |_: &mut _, pages| {
            for_hook.grow(pages as u64 * (u64::from(page) + FRAME_HEADER));
            Ok(())
        }))?;
        upkeep.thread = Some(thread);
        Ok(upkeep)
    }

    /// Makes what was written to the log durable.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        self.log_file.sync_data().map_err(|error| Fault::io("sync", &self.log_path, &error))
    }

    /// Waits until the log has room for a transaction.
    pub(super) fn wait_for_room(&self) -> Result<(), Fault> {
        let mut log = self.shared.log.lock();
        while log.failure.is_none() && log.is_full() {
            self.shared.work.notify_one();
            self.shared.done.wait(&mut log);
        }
        log.failure.clone().map_or(Ok(()), Err)
    }

    /// Sets what is called if the thread fails: at once if it has.
    pub(super) fn report_failure(&self, report: Report) {
        let mut log = self.shared.log.lock();
        match log.failure.clone() {
            None => log.report = Some(report),
            Some(failure) => MutexGuard::unlocked(&mut log, || report(failure)),
        }
    }

    /// Ends the thread. What was written is not synced.
    pub(super) fn stop(&mut self) {
        self.shared.log.lock().is_stopped = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn grow(&self, size: u64) {
        let mut log = self.log.lock();
        let was_idle = !log.is_unsynced;
        log.grow(size);
        if was_idle || log.needs_checkpoint() {
            self.work.notify_one();
        }
    }
}

/// The upkeep thread.
struct Worker {
    shared: Arc<Shared>,
    connection: Connection,
    /// The database, its log and its lock, and what they were at the start.
    files: [(Option<(u64, u64)>, PathBuf); 3],
    /// Only SQLite may open the database itself; its log has no locks that closing this would drop.
    log_file: Arc<File>,
    sync: SyncPolicy,
}

impl Worker {
    fn run(self) {
        let mut log = self.shared.log.lock();
        while self.wait_for_work(&mut log) {
            log.is_unsynced = false;
            let (size, is_full, needs_checkpoint) = (log.size, log.is_full(), log.needs_checkpoint());
            let worked = MutexGuard::unlocked(&mut log, || self.work(is_full, needs_checkpoint));
            match worked {
                Ok(true) => log.begin_again(),
                // A reader of the file keeps the log from beginning again. Waiting for it would stop the publisher.
                Ok(false) if is_full => log.limit = size + log.sizes.limit,
                Ok(false) => {}
                Err(fault) => {
                    log.failure = Some(fault.clone());
                    if let Some(report) = log.report.take() {
                        MutexGuard::unlocked(&mut log, || report(fault));
                    }
                }
            }
            if needs_checkpoint && log.size >= size {
                log.next_checkpoint = size + log.sizes.checkpoint;
            }
            self.shared.done.notify_all();
        }
    }

    /// Waits until the log is to be synced or checkpointed. Returns `false` if the thread is to end.
    fn wait_for_work(&self, log: &mut MutexGuard<'_, Log>) -> bool {
        while !log.is_unsynced && !log.is_stopped && !log.needs_checkpoint() {
            self.shared.work.wait(log);
        }
        let interval = if let SyncPolicy::Every(interval) = self.sync { interval } else { LOOK };
        let due = Instant::now().checked_add(interval);
        while !log.is_stopped && !log.needs_checkpoint() {
            match due {
                Some(due) if self.shared.work.wait_until(log, due).timed_out() => break,
                Some(_) => {}
                None => self.shared.work.wait(log),
            }
        }
        !log.is_stopped && log.failure.is_none()
    }

    /// Returns whether the log begins again.
    fn work(&self, is_full: bool, needs_checkpoint: bool) -> Result<bool, Fault> {
        if let Some((_, path)) = self.files.iter().find(|(at_start, path)| identity(path) != *at_start) {
            return Err(Fault::Failed(format!("{} was moved or deleted", path.display())));
        }
        if needs_checkpoint {
            let mode = if is_full { "RESTART" } else { "PASSIVE" };
            let is_busy = checkpoint(&self.connection, mode)?;
            if is_full && !is_busy {
                return Ok(true);
            }
        }
        // A checkpoint that finds nothing to copy syncs nothing.
        if let SyncPolicy::Every(_) = self.sync {
            self.sync_log()?;
        }
        Ok(false)
    }

    fn sync_log(&self) -> Result<(), Fault> {
        self.log_file.sync_data().map_err(|error| Fault::io("sync", &self.files[1].1, &error))
    }
}

/// Copies the log into the database. Returns whether another connection kept it from being complete.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> Result<bool, Fault> {
    Ok(connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(0))?)
}

/// Returns what distinguishes the file from another one at its path; `None` if it is missing.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|_| (0, 0))
}
