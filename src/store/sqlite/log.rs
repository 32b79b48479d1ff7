//! The log in the file: what each operation of the store reads and writes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::fault::Fault;
use super::lock::{LockFile, Note};
use super::state::{Eras, State};
use super::trim::PendingTrim;
use super::upkeep::{self, Upkeep};
use super::{Surroundings, SyncPolicy, file, rows, schema};
use crate::store::{Attached, Record, Trim};

/// How long a transaction waits while another program writes to the file.
const LOCKED: Duration = Duration::from_secs(3_600);

/// The log in an open file.
pub(super) struct OpenLog {
    file: PathBuf,
    sync: SyncPolicy,
    max_bytes: usize,
    surroundings: Surroundings,
    /// The era of this opening; `None` before `attach`.
    era: Option<Era>,
    trim: PendingTrim,
    /// `None` until the era is written.
    upkeep: Option<Upkeep>,
    writer: Connection,
    /// The last field: the lock is released after the connections are closed.
    lock: LockFile,
}

/// What a store knows of the log that it has attached to.
struct Era {
    state: State,
    eras: Eras,
    /// The note of what the file holds before the era; `None` if that is less than was delivered.
    note_before: Option<Note>,
    /// The newest event that was delivered without being stored; 0 if there is none.
    unstored: u64,
    /// A note of such an event is on the disk.
    is_loss_durable: bool,
}

impl Era {
    /// Returns the note of what is delivered.
    fn note(&self) -> Note {
        let sequence = self.state.sequence.max(self.unstored);
        Note { lineage: self.state.lineage.clone(), era: self.eras.last_number(), sequence }
    }
}

impl OpenLog {
    /// Opens the file, which the lock must belong to.
    pub(super) fn open(
        file: &Path,
        lock: LockFile,
        sync: SyncPolicy,
        max_bytes: usize,
        surroundings: Surroundings,
    ) -> Result<Self, Fault> {
        let writer = file::open(file)?;
        let synchronous = if sync == SyncPolicy::Always { "full" } else { "normal" };
        writer.pragma_update(None, "synchronous", synchronous)?;
        let (file, trim) = (file.into(), PendingTrim::default());
        Ok(Self { file, sync, max_bytes, surroundings, era: None, trim, upkeep: None, writer, lock })
    }

    /// Checks everything but the events, and returns the state with which the new era begins.
    pub(super) fn attach(&mut self) -> Result<Attached, Fault> {
        let (era, attached) = self.read_state()?;
        self.era = Some(era);
        Ok(attached)
    }

    /// Calls the closure with each event, in order, and begins the era if all of them are right.
    pub(super) fn read(&mut self, event: &mut dyn FnMut(Record<'static>)) -> Result<(), Fault> {
        let state = &self.era.as_ref().ok_or_else(not_attached)?.state;
        let sum = rows::for_each_event(&self.writer, &mut |record| {
            if record.sequence > state.sequence {
                return Err(Fault::damaged_row("events", record.sequence));
            }
            event(record);
            Ok(())
        })?;
        if sum == state.events { self.begin_era() } else { Err(Fault::Damaged("table events".into())) }
    }

    /// Reads and checks everything but the events, and decides how the new era begins.
    fn read_state(&mut self) -> Result<(Era, Attached), Fault> {
        schema::check_structure(&self.writer)?;
        let mut state = State::read(&self.writer)?;
        let mut eras = Eras::read(&self.writer)?;
        if eras.sum() != state.eras {
            return Err(Fault::Damaged("table eras".into()));
        }
        let (floors, sum) = rows::floors(&self.writer)?;
        if sum != state.floors {
            return Err(Fault::Damaged("table floors".into()));
        }
        let note = self.lock.read(&state.lineage)?;
        let has_lost = state.has_lost_events(eras.last_number(), note.as_ref(), self.surroundings.boot.as_deref());
        let before = Note { lineage: state.lineage.clone(), era: eras.last_number(), sequence: state.sequence };
        let last = eras.last_number().max(note.map_or(0, |note| note.era));
        let first = state.sequence + 1;
        eras.begin(self.surroundings.era.max(last + self.surroundings.step), first);
        if has_lost {
            // A stream that begins now has a position after the loss.
            (state.sequence, state.last_loss) = (first, first);
        }
        let attached = Attached {
            lineage: state.lineage.clone(),
            eras: eras.0.clone(),
            sequence: state.sequence,
            last_loss: state.last_loss,
            floors,
            horizon: state.horizon,
        };
        Ok((
            Era { state, eras, note_before: (!has_lost).then_some(before), unstored: 0, is_loss_durable: false },
            attached,
        ))
    }

    /// Writes the new era, so that the next start knows of this one.
    fn begin_era(&mut self) -> Result<(), Fault> {
        if self.upkeep.is_some() {
            return Ok(());
        }
        let era = self.era.as_ref().ok_or_else(not_attached)?;
        if let Some(note) = &era.note_before {
            // Once the era has begun, a missing note means a loss.
            self.lock.write(note)?;
        }
        let (eras, boot, is_synced) =
            (era.eras.clone(), self.surroundings.boot.clone(), self.sync == SyncPolicy::Always);
        self.transact(|connection, state| {
            eras.write(connection)?;
            (state.eras, state.boot, state.is_synced, state.is_closed) = (eras.sum(), boot, is_synced, false);
            Ok(())
        })?;
        self.upkeep = Some(Upkeep::start(&self.file, self.lock.path(), &mut self.writer, self.sync, self.max_bytes)?);
        // Another program may hold a lock for long. Events wait for it, within the limits of what may be pending.
        self.writer.busy_timeout(LOCKED)?;
        self.write_note()
    }

    /// Runs one transaction, which ends with the new state.
    fn transact(&mut self, change: impl FnOnce(&Connection, &mut State) -> Result<(), Fault>) -> Result<(), Fault> {
        let era = self.era.as_mut().ok_or_else(not_attached)?;
        let connection = &self.writer;
        let run = |sql: &str| -> Result<(), Fault> {
            connection.prepare_cached(sql)?.execute([])?;
            Ok(())
        };
        let mut state = era.state.clone();
        run("BEGIN IMMEDIATE")?;
        let changed = change(connection, &mut state).and_then(|()| state.write(connection));
        let committed = changed.and_then(|()| run("COMMIT"));
        if committed.is_err() {
            // Some errors have ended the transaction already.
            let _ = run("ROLLBACK");
        } else {
            era.state = state;
        }
        committed
    }

    fn write_note(&mut self) -> Result<(), Fault> {
        self.era.as_ref().map_or(Ok(()), |era| self.lock.write(&era.note()))
    }

    /// Stores these events, and deletes what is evicted, possibly later if there are events. `is_last` means that the
    /// next start finds nothing missing.
    pub(super) fn write(&mut self, records: &[Record<'_>], trim: Trim, is_last: bool) -> Result<(), Fault> {
        self.begin_era()?;
        self.upkeep.as_ref().map_or(Ok(()), Upkeep::wait_for_room)?;
        let has_stored_all = self.era.as_ref().is_some_and(|era| era.unstored == 0);
        let was_settled = self.era.as_ref().is_some_and(|era| era.state.is_closed);
        self.trim.add(trim, records);
        let is_trim_due = records.is_empty() || self.trim.is_due(self.max_bytes);
        let trim = if is_trim_due { std::mem::take(&mut self.trim) } else { PendingTrim::default() };
        self.transact(|connection, state| {
            for record in records {
                state.events.add(rows::insert_event(connection, record)?);
                state.sequence = record.sequence;
            }
            state.is_closed = is_last && has_stored_all;
            trim.apply(connection, state)
        })?;
        if was_settled && !is_last {
            // Otherwise a power loss could leave a file that looks complete, without these events.
            self.sync()?;
        }
        self.write_note()
    }

    fn sync(&self) -> Result<(), Fault> {
        self.upkeep.as_ref().map_or(Ok(()), Upkeep::sync)
    }

    /// Makes everything durable. If nothing is written later, the next start finds nothing missing.
    pub(super) fn settle(&mut self, trim: Trim) -> Result<(), Fault> {
        self.write(&[], trim, true)?;
        self.sync()?;
        self.lock.sync()?;
        Ok(())
    }

    /// Sets what is called if the log fails beside the transactions.
    pub(super) fn report_failure(&self, report: upkeep::Report) {
        if let Some(upkeep) = &self.upkeep {
            upkeep.report_failure(report);
        }
    }

    /// Notes that an event was delivered that is not stored.
    pub(super) fn note_unstored(&mut self, sequence: u64) {
        let Some(era) = &mut self.era else { return };
        era.unstored = sequence.max(era.unstored);
        let note = era.note();
        // The store has failed already, perhaps because of its disk. The note is only an attempt. Without it, the loss
        // shows once a client resumes from such an event.
        if self.lock.write(&note).is_ok() && !era.is_loss_durable {
            era.is_loss_durable = self.lock.sync().is_ok();
        }
    }

    /// Stores the last trim, and makes the database durable without its write-ahead log.
    pub(super) fn finish(&mut self, trim: Trim) -> Result<(), Fault> {
        self.settle(trim)?;
        if let Some(mut upkeep) = self.upkeep.take() {
            upkeep.stop();
        }
        // While another program reads the file, its log may stay.
        self.writer.busy_timeout(upkeep::PATIENCE)?;
        upkeep::checkpoint(&self.writer, "TRUNCATE")?;
        // Closing the connection then removes the log.
        self.writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        Ok(())
    }
}

fn not_attached() -> Fault {
    Fault::Failed("BUG: the store is not attached".into())
}
