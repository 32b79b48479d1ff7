//! The rows of events and floors. Each has a checksum of all its columns.

use std::borrow::Cow;
use std::sync::Arc;

use crc32fast::Hasher;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::Fault;
use crate::store::{Content, Record};

/// The checksum of a row, column by column.
pub(super) struct RowSum(Hasher);

impl RowSum {
    /// Begins with the table, so that a row never passes for one of another table.
    pub(super) fn of(table: &str) -> Self {
        Self(Hasher::new()).text(Some(table))
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    pub(super) fn text(mut self, text: Option<&str>) -> Self {
        // Lengths separate the columns. No text is that long.
        self = self.number(text.map_or(u64::MAX, |text| text.len() as u64));
        self.0.update(text.unwrap_or_default().as_bytes());
        self
    }

    pub(super) fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// The sum of the checksums of a table's rows, by which a missing or an outdated row is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TableSum(pub(super) u64);

impl TableSum {
    pub(super) fn add(&mut self, crc: u32) {
        self.0 = self.0.wrapping_add(crc.into());
    }

    pub(super) fn remove(&mut self, crc: Option<u32>) {
        self.0 = self.0.wrapping_sub(crc.unwrap_or_default().into());
    }
}

/// The row of an event.
struct EventRow<'a> {
    record: &'a Record<'a>,
    channels: &'a str,
}

impl EventRow<'_> {
    /// Returns the columns of the content: transform, argument, fields.
    fn content(&self) -> [Option<&str>; 3] {
        match &self.record.content {
            Content::Fields(fields) => [None, None, Some(fields)],
            Content::Transform { name, argument, fields } => [Some(name), Some(argument), Some(fields)],
            Content::Closure => [None; 3],
        }
    }

    fn crc(&self) -> u32 {
        let Record { sequence, at, own_id, finds_own_id, key, .. } = self.record;
        let sum = RowSum::of("events").number(*sequence).number(*at).text(Some(self.channels));
        let sum = sum.text(own_id.as_deref()).number((*finds_own_id).into()).text(key.as_deref());
        self.content().into_iter().fold(sum, RowSum::text).finish()
    }
}

/// Inserts an event. Returns the checksum of its row.
pub(super) fn insert_event(connection: &Connection, record: &Record<'_>) -> Result<u32, Fault> {
    let channels: Vec<&str> = record.channels.iter().map(|channel| &**channel).collect();
    let channels = serde_json::to_string(&channels).map_err(|error| Fault::Failed(error.to_string()))?;
    let row = EventRow { record, channels: &channels };
    let (crc, [transform, argument, fields]) = (row.crc(), row.content());
    let Record { sequence, at, own_id, finds_own_id, key, .. } = record;
    connection.prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?.execute(
        params![*sequence as i64, *at as i64, channels, own_id, finds_own_id, key, transform, argument, fields, crc],
    )?;
    Ok(crc)
}

/// Deletes an event. Returns the checksum of its row, if there was one.
pub(super) fn delete_event(connection: &Connection, sequence: u64) -> Result<Option<u32>, Fault> {
    let mut query = connection.prepare_cached("SELECT crc FROM events WHERE sequence = ?1")?;
    let crc = query.query_row([sequence as i64], |row| row.get(0)).optional()?;
    if crc.is_some() {
        connection.prepare_cached("DELETE FROM events WHERE sequence = ?1")?.execute([sequence as i64])?;
    }
    Ok(crc)
}

const SELECT_EVENTS: &str =
    "SELECT sequence, at, channels, own_id, finds_own_id, key, transform, argument, fields, crc FROM events";

/// Returns the event with this sequence.
pub(super) fn event(connection: &Connection, sequence: u64) -> Result<Option<Record<'static>>, Fault> {
    let mut query = connection.prepare_cached(&format!("{SELECT_EVENTS} WHERE sequence = ?1"))?;
    let mut rows = query.query([sequence as i64])?;
    let read = rows.next()?.map(|row| read_event(row, &mut Names::default())).transpose()?;
    Ok(read.map(|(record, _)| record))
}

/// Calls the closure with each event in order. Returns the sum of their rows.
pub(super) fn for_each_event(
    connection: &Connection,
    event: &mut dyn FnMut(Record<'static>) -> Result<(), Fault>,
) -> Result<TableSum, Fault> {
    let mut query = connection.prepare(&format!("{SELECT_EVENTS} ORDER BY sequence"))?;
    let mut rows = query.query([])?;
    let (mut sum, mut names) = (TableSum::default(), Names::default());
    while let Some(row) = rows.next()? {
        let (record, crc) = read_event(row, &mut names)?;
        sum.add(crc);
        event(record)?;
    }
    Ok(sum)
}

fn read_event(row: &Row<'_>, names: &mut Names) -> Result<(Record<'static>, u32), Fault> {
    let sequence = row.get::<_, i64>(0)? as u64;
    let text = |column| -> rusqlite::Result<Option<Cow<'static, str>>> {
        Ok(row.get::<_, Option<String>>(column)?.map(Cow::Owned))
    };
    let damaged = || Fault::damaged_row("events", sequence);
    let channels = row.get_ref(2)?.as_str().map_err(|_| damaged())?;
    let content = match (text(6)?, text(7)?, text(8)?) {
        (None, None, Some(fields)) => Content::Fields(fields),
        (Some(name), Some(argument), Some(fields)) => Content::Transform { name, argument, fields },
        (None, None, None) => Content::Closure,
        _ => return Err(damaged()),
    };
    let record = Record {
        sequence,
        at: row.get::<_, i64>(1)? as u64,
        channels: names.parse(channels).ok_or_else(damaged)?.into(),
        own_id: text(3)?,
        finds_own_id: row.get(4)?,
        key: text(5)?,
        content,
    };
    let crc = EventRow { record: &record, channels }.crc();
    if crc == row.get::<_, u32>(9)? { Ok((record, crc)) } else { Err(damaged()) }
}

/// The channels of one event. The next event often has the same.
#[derive(Default)]
struct Names {
    json: String,
    names: Vec<Arc<str>>,
}

impl Names {
    /// Returns the names in a JSON array.
    fn parse(&mut self, json: &str) -> Option<Vec<Arc<str>>> {
        if self.json != json {
            let names: Vec<Cow<'_, str>> = serde_json::from_str(json).ok()?;
            (self.json, self.names) = (json.to_owned(), names.into_iter().map(Arc::from).collect());
        }
        Some(self.names.clone())
    }
}

fn floor_crc(channel: &str, floor: u64) -> u32 {
    RowSum::of("floors").text(Some(channel)).number(floor).finish()
}

/// Sets or removes the floor of a channel, and updates the sum of the rows.
pub(super) fn set_floor(
    connection: &Connection,
    channel: &str,
    floor: Option<u64>,
    sum: &mut TableSum,
) -> Result<(), Fault> {
    let mut query = connection.prepare_cached("SELECT crc FROM floors WHERE channel = ?1")?;
    sum.remove(query.query_row([channel], |row| row.get(0)).optional()?);
    if let Some(floor) = floor {
        let crc = floor_crc(channel, floor);
        let mut replace = connection.prepare_cached("INSERT OR REPLACE INTO floors VALUES (?1, ?2, ?3)")?;
        replace.execute(params![channel, floor as i64, crc])?;
        sum.add(crc);
    } else {
        connection.prepare_cached("DELETE FROM floors WHERE channel = ?1")?.execute([channel])?;
    }
    Ok(())
}

/// The floors of all channels.
type Floors = Vec<(Arc<str>, u64)>;

/// Returns the floors of all channels, and the sum of their rows.
pub(super) fn floors(connection: &Connection) -> Result<(Floors, TableSum), Fault> {
    let mut query = connection.prepare("SELECT channel, floor, crc FROM floors ORDER BY channel")?;
    let mut rows = query.query([])?;
    let (mut floors, mut sum) = (Vec::new(), TableSum::default());
    while let Some(row) = rows.next()? {
        let (channel, floor): (String, i64) = (row.get(0)?, row.get(1)?);
        let crc = floor_crc(&channel, floor as u64);
        if crc != row.get::<_, u32>(2)? {
            return Err(Fault::damaged_row("floors", format_args!("{channel:?}")));
        }
        sum.add(crc);
        floors.push((channel.into(), floor as u64));
    }
    Ok((floors, sum))
}
