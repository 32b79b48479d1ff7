//! The one row that describes the log, and the eras of the log.

use rusqlite::{Connection, params};

use super::fault::Fault;
use super::lock::Note;
use super::rows::{RowSum, TableSum};

/// The state of the log, as it is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) lineage: String,
    /// The newest sequence that was assigned.
    pub(super) sequence: u64,
    pub(super) horizon: u64,
    pub(super) last_loss: u64,
    pub(super) events: TableSum,
    pub(super) floors: TableSum,
    pub(super) eras: TableSum,
    /// The last run has stored everything that it delivered.
    pub(super) is_closed: bool,
    /// The boot of the operating system in which the last run began; `None` if it is unknown.
    pub(super) boot: Option<String>,
    /// The last run delivered an event only after it was on the disk.
    pub(super) is_synced: bool,
}

impl State {
    /// Creates the state of a log without events.
    pub(super) fn new(lineage: String) -> Self {
        Self {
            lineage,
            sequence: 0,
            horizon: 0,
            last_loss: 0,
            events: TableSum::default(),
            floors: TableSum::default(),
            eras: TableSum::default(),
            is_closed: true,
            boot: None,
            is_synced: false,
        }
    }

    fn crc(&self) -> u32 {
        let sum = RowSum::of("state").text(Some(&self.lineage)).number(self.sequence).number(self.horizon);
        let sum = sum.number(self.last_loss).number(self.events.0).number(self.floors.0).number(self.eras.0);
        sum.number(self.is_closed.into()).text(self.boot.as_deref()).number(self.is_synced.into()).finish()
    }

    /// Replaces the row.
    pub(super) fn write(&self, connection: &Connection) -> Result<(), Fault> {
        let mut update = connection
            .prepare_cached("INSERT OR REPLACE INTO state (rowid, lineage, sequence, horizon, last_loss, events_sum, \
                 floors_sum, eras_sum, closed, boot, synced, crc) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?;
        update.execute(params![
            self.lineage,
            self.sequence as i64,
            self.horizon as i64,
            self.last_loss as i64,
            self.events.0 as i64,
            self.floors.0 as i64,
            self.eras.0 as i64,
            self.is_closed,
            self.boot,
            self.is_synced,
            self.crc()
        ])?;
        Ok(())
    }

    pub(super) fn read(connection: &Connection) -> Result<Self, Fault> {
        let (state, crc) = connection.query_row("SELECT * FROM state", [], |row| {
            let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
            let state = Self {
                lineage: row.get(0)?,
                sequence: number(1)?,
                horizon: number(2)?,
                last_loss: number(3)?,
                events: TableSum(number(4)?),
                floors: TableSum(number(5)?),
                eras: TableSum(number(6)?),
                is_closed: row.get(7)?,
                boot: row.get(8)?,
                is_synced: row.get(9)?,
            };
            Ok((state, row.get::<_, u32>(10)?))
        })?;
        if state.crc() == crc { Ok(state) } else { Err(Fault::damaged_row("state", 1)) }
    }

    /// Returns whether the last run may have delivered events that the file does not hold.
    pub(super) fn has_lost_events(&self, last_era: u64, note: Option<&Note>, boot: Option<&str>) -> bool {
        let is_behind_note = note.is_some_and(|note| note.era > last_era || note.sequence > self.sequence);
        // Within one boot the system keeps what was written, and the note shows whether that is in the file.
        let is_same_boot = boot.is_some() && boot == self.boot.as_deref();
        let is_unproven = if is_same_boot { note.is_none() } else { !self.is_synced };
        is_behind_note || !self.is_closed && is_unproven
    }
}

/// The eras of a log, the oldest first: the number and the first sequence of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Eras(pub(super) Vec<(u64, u64)>);

impl Eras {
    /// Older eras are forgotten. A client of such an era gets a gap.
    pub(super) const MAX: usize = 4_096;

    pub(super) fn last_number(&self) -> u64 {
        self.0.last().map_or(0, |(number, _)| *number)
    }

    /// Adds an era. Earlier ones without events are removed.
    pub(super) fn begin(&mut self, number: u64, first: u64) {
        self.0.retain(|era| era.1 < first);
        self.0.push((number, first));
        let too_many = self.0.len().saturating_sub(Self::MAX);
        self.0.drain(..too_many);
    }

    pub(super) fn sum(&self) -> TableSum {
        let mut sum = TableSum::default();
        for (number, first) in &self.0 {
            sum.add(RowSum::of("eras").number(*number).number(*first).finish());
        }
        sum
    }

    pub(super) fn write(&self, connection: &Connection) -> Result<(), Fault> {
        connection.execute("DELETE FROM eras", [])?;
        let mut insert = connection.prepare("INSERT INTO eras VALUES (?1, ?2)")?;
        for (number, first) in &self.0 {
            insert.execute([*number as i64, *first as i64])?;
        }
        Ok(())
    }

    pub(super) fn read(connection: &Connection) -> Result<Self, Fault> {
        let mut query = connection.prepare("SELECT number, first FROM eras ORDER BY number")?;
        let rows = query.query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)))?;
        Ok(Self(rows.collect::<rusqlite::Result<_>>()?))
    }
}
