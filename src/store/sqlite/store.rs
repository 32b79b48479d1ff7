//! The store: an open log, until it fails or is closed.

use std::fmt;
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::lock::LockFile;
use super::log::OpenLog;
use super::{Surroundings, SyncPolicy, file};
use crate::error::StoreError;
use crate::store::{Attached, Record, ReportFailure, Store, Trim};

/// A history in an SQLite database.
pub(super) struct SqliteStore {
    file: PathBuf,
    /// `None` after it is closed.
    log: Option<OpenLog>,
    /// The error after which the store takes no more events. It may hold less than was delivered.
    failure: Option<StoreError>,
}

impl SqliteStore {
    pub(super) fn open(
        path: &Path,
        sync: SyncPolicy,
        max_bytes: usize,
        surroundings: Surroundings,
    ) -> Result<Self, StoreError> {
        let file = file::resolve(path).map_err(|fault| fault.of(path))?;
        let lock = LockFile::lock(&file)?;
        let log = OpenLog::open(&file, lock, sync, max_bytes, surroundings).map_err(|fault| fault.of(&file))?;
        Ok(Self { file, log: Some(log), failure: None })
    }

    /// Uses the log, unless an earlier use has failed.
    fn with_log<T>(&mut self, use_log: impl FnOnce(&mut OpenLog) -> Result<T, Fault>) -> Result<T, StoreError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let log = self.log.as_mut().ok_or_else(|| Fault::Failed("the store is closed".into()));
        log.and_then(use_log).map_err(|fault| self.failure.insert(fault.of(&self.file)).clone())
    }
}

impl Store for SqliteStore {
    fn attach(&mut self) -> Result<Attached, StoreError> {
        self.with_log(OpenLog::attach)
    }

    fn read(&mut self, event: &mut dyn FnMut(Record<'static>)) -> Result<(), StoreError> {
        self.with_log(|log| log.read(event))
    }

    fn append(&mut self, records: &[Record<'_>], trim: Trim) -> Result<(), StoreError> {
        self.with_log(|log| log.write(records, trim, false))
    }

    fn note_unstored(&mut self, sequence: u64) {
        if let Some(log) = &mut self.log {
            log.note_unstored(sequence);
        }
    }

    fn settle(&mut self, trim: Trim) -> Result<(), StoreError> {
        self.with_log(|log| log.settle(trim))
    }

    fn report_failure(&mut self, report: ReportFailure) {
        let file = self.file.clone();
        if let Some(log) = &self.log {
            log.report_failure(Box::new(move |fault| report(fault.of(&file))));
        }
    }

    fn close(&mut self, trim: Trim) -> Result<(), StoreError> {
        self.with_log(|log| log.finish(trim))?;
        self.log = None;
        Ok(())
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("file", &self.file).finish_non_exhaustive()
    }
}
