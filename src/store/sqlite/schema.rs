//! The format of the file.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::fault::Fault;

/// The bytes `SSEh`, by which a file is known as a history.
pub(super) const APPLICATION_ID: i64 = 0x5353_4568;
pub(super) const VERSION: i64 = 1;

/// The name and the text of each part of the schema.
const PARTS: [(&str, &str); 5] = [
    (
        "state",
        "CREATE TABLE state (lineage TEXT, sequence INTEGER, horizon INTEGER, last_loss INTEGER, events_sum INTEGER, \
         floors_sum INTEGER, eras_sum INTEGER, closed INTEGER, boot TEXT, synced INTEGER, crc INTEGER)",
    ),
    ("eras", "CREATE TABLE eras (number INTEGER PRIMARY KEY, first INTEGER)"),
    (
        "events",
        "CREATE TABLE events (sequence INTEGER PRIMARY KEY, at INTEGER, channels TEXT, own_id TEXT, \
         finds_own_id INTEGER, key TEXT, transform TEXT, argument TEXT, fields TEXT, crc INTEGER)",
    ),
    ("floors", "CREATE TABLE floors (channel TEXT PRIMARY KEY, floor INTEGER, crc INTEGER) WITHOUT ROWID"),
    (
        "history",
        "CREATE VIEW history AS SELECT (SELECT lineage FROM state) || '.' || ifnull( \
         (SELECT number FROM eras WHERE first <= sequence ORDER BY number DESC LIMIT 1), \
         (SELECT min(number) FROM eras)) || '-' || sequence AS id, \
         strftime('%Y-%m-%d %H:%M:%f', at / 1000.0, 'unixepoch', 'localtime') AS time, \
         channels, own_id, key, transform, argument, fields FROM events ORDER BY sequence",
    ),
];

/// Creates the tables, in a transaction of the caller's.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    PARTS.iter().try_for_each(|(_, part)| connection.execute_batch(part))
}

/// Checks that the file is a history of this version.
pub(super) fn check_version(connection: &Connection) -> Result<(), Fault> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let application_id = number("application_id").map_err(|error| match Fault::from(error) {
        Fault::Damaged(reason) => Fault::Foreign(reason),
        fault => fault,
    })?;
    match number("user_version")? {
        _ if application_id != APPLICATION_ID => Err(Fault::Foreign(format!("application ID {application_id}"))),
        VERSION => Ok(()),
        version if version > VERSION => Err(Fault::NewerVersion(version)),
        version => Err(Fault::Damaged(format!("format version {version}"))),
    }
}

/// Checks the structure of the file, and that its tables are as they were created.
pub(super) fn check_structure(connection: &Connection) -> Result<(), Fault> {
    let report: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if report != "ok" {
        return Err(Fault::Damaged(report));
    }
    check_parts(connection)
}

/// Checks that the schema has exactly the parts that [`create`] makes. Another part, such as a trigger, could change what
/// is stored. SQLite's own tables and indices may be there, for example those of `ANALYZE`.
fn check_parts(connection: &Connection) -> Result<(), Fault> {
    let mut query = connection.prepare("SELECT type, name, sql FROM sqlite_schema")?;
    let mut rows = query.query([])?;
    let mut missing = BTreeMap::from(PARTS);
    while let Some(row) = rows.next()? {
        let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
        if name.starts_with("sqlite_") && matches!(&*kind, "table" | "index") {
            continue;
        }
        match missing.remove(&*name) {
            Some(part) if row.get::<_, Option<String>>(2)?.as_deref() == Some(part) => {}
            Some(_) => return Err(Fault::Damaged(format!("schema of {name}"))),
            None => return Err(Fault::Foreign(format!("the {kind} {name:?} is not part of one"))),
        }
    }
    match missing.pop_first() {
        Some((name, _)) => Err(Fault::Damaged(format!("schema of {name}"))),
        None => Ok(()),
    }
}
