//! The file of a history, damaged: an error, or a history that is complete or reports a gap. No wrong event.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;
use std::{env, fs};

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::types::Value;
use server_sent_events::client::Parser;
use server_sent_events::store::{Sqlite, SyncPolicy};
use server_sent_events::{Event, History, Publisher, Resumption};
use tempfile::TempDir;

const FILES: [&str; 3] = ["events.db", "events.db-wal", "events.db.lock"];
const CHANNELS: [&str; 2] = ["a", "b"];
const EVENTS: usize = 60;
const PAGE: usize = 4_096;

/// One damage to one file.
#[derive(Arbitrary, Debug)]
enum Damage {
    Change { at: u32, byte: u8 },
    Insert { at: u32, byte: u8 },
    Truncate { at: u32 },
    Zero { page: u8 },
    Exchange { page: u8, other: u8 },
    Row { column: u8, row: u8, value: NewValue },
    Delete { column: u8, row: u8 },
}

#[derive(Arbitrary, Debug)]
enum NewValue {
    Null,
    Integer(i64),
    Small(u8),
    Text(String),
    Bytes(Vec<u8>),
}

/// A column of a table, and the one that names a row.
const COLUMNS: [(&str, &str, &str); 27] = [
    ("events", "sequence", "sequence"),
    ("events", "at", "sequence"),
    ("events", "channels", "sequence"),
    ("events", "own_id", "sequence"),
    ("events", "finds_own_id", "sequence"),
    ("events", "key", "sequence"),
    ("events", "transform", "sequence"),
    ("events", "argument", "sequence"),
    ("events", "fields", "sequence"),
    ("events", "crc", "sequence"),
    ("floors", "channel", "floor"),
    ("floors", "floor", "floor"),
    ("floors", "crc", "floor"),
    ("eras", "number", "number"),
    ("eras", "first", "number"),
    ("state", "lineage", "rowid"),
    ("state", "sequence", "rowid"),
    ("state", "horizon", "rowid"),
    ("state", "last_loss", "rowid"),
    ("state", "events_sum", "rowid"),
    ("state", "floors_sum", "rowid"),
    ("state", "eras_sum", "rowid"),
    ("state", "closed", "rowid"),
    ("state", "boot", "rowid"),
    ("state", "synced", "rowid"),
    ("state", "crc", "rowid"),
    ("sqlite_schema", "sql", "rowid"),
];

/// A history that was published, and its files.
struct Original {
    /// The ID of each event, whose data begins with its number.
    ids: Vec<String>,
    /// After the publisher was closed, and while it was open, as a killed process leaves them.
    files: [Vec<Vec<u8>>; 2],
}

static ORIGINAL: LazyLock<Original> = LazyLock::new(|| {
    let folder = folder();
    let publisher = open(folder.path()).expect("a new file");
    let mut ids = Vec::new();
    for number in 0..EVENTS {
        let mut event = Event::new(data(number)).key(format!("key {}", number % 7));
        if number % 10 == 3 {
            event = event.id(format!("own-{number}")).expect("a valid ID");
        }
        let receipt = publisher.publish_confirmed(channels(number), event, Duration::from_secs(10));
        ids.push(receipt.expect("it is stored").id().expect("it has an ID").to_owned());
    }
    let killed = read(folder.path());
    publisher.close();
    drop(publisher);
    Original { ids, files: [read(folder.path()), killed] }
});

/// Returns a folder in memory, if the system has one.
fn folder() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { env::temp_dir() };
    tempfile::tempdir_in(parent).expect("a folder")
}

fn open(folder: &Path) -> Option<Publisher> {
    let store = Sqlite::at(folder.join(FILES[0])).sync(SyncPolicy::Never);
    Publisher::builder().history(History::new().max_events_per_channel(25).store(store)).build().ok()
}

/// Returns the content of each file; nothing for a missing one.
fn read(folder: &Path) -> Vec<Vec<u8>> {
    FILES.iter().map(|name| fs::read(folder.join(name)).unwrap_or_default()).collect()
}

fn data(number: usize) -> String {
    format!("{number} {}", "x".repeat(number * 37 % 400))
}

fn channels(number: usize) -> &'static [&'static str] {
    [&CHANNELS[..1], &CHANNELS[1..], &CHANNELS[..]][number % 3]
}

/// The input is which files, which of them is damaged, after which event a client resumes, and the damage.
pub fn check(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let original = &*ORIGINAL;
    let mut files = original.files[usize::from(input.arbitrary().unwrap_or(0_u8)) % 2].clone();
    let file = usize::from(input.arbitrary().unwrap_or(0_u8)) % FILES.len();
    let last = usize::from(input.arbitrary().unwrap_or(0_u8)) % EVENTS;
    let mut rows = Vec::new();
    while !input.is_empty() && rows.len() < 4 {
        match Damage::arbitrary(&mut input) {
            Ok(damage @ (Damage::Row { .. } | Damage::Delete { .. })) if file == 0 => rows.push(damage),
            Ok(damage) => apply(&damage, &mut files[file]),
            Err(_) => break,
        }
    }
    let folder = folder();
    for (name, content) in FILES.iter().zip(&files).filter(|(_, content)| !content.is_empty()) {
        fs::write(folder.path().join(name), content).expect("a file");
    }
    // Changes of rows are changes of the database, and what it logs then belongs to it.
    rows.iter().for_each(|damage| drop(apply_to_rows(damage, &folder.path().join(FILES[0]))));
    if let Some(publisher) = open(folder.path()) {
        judge(&publisher, original, last);
    }
}

fn apply(damage: &Damage, content: &mut Vec<u8>) {
    let length = content.len();
    let place = |at: u32| at as usize % (length + 1);
    // The start of a page; of the log, that of a frame's page.
    let pages = length / PAGE;
    match damage {
        Damage::Change { at, byte } if place(*at) < length => content[place(*at)] = *byte,
        Damage::Insert { at, byte } => content.insert(place(*at), *byte),
        Damage::Truncate { at } => content.truncate(place(*at)),
        Damage::Zero { page } if pages > 0 => {
            let at = usize::from(*page) % pages * PAGE;
            content[at..at + PAGE].fill(0);
        }
        Damage::Exchange { page, other } if pages > 0 => {
            let [one, other] = [page, other].map(|page| usize::from(*page) % pages * PAGE);
            let page = content[one..one + PAGE].to_vec();
            content.copy_within(other..other + PAGE, one);
            content[other..other + PAGE].copy_from_slice(&page);
        }
        _ => {}
    }
}

fn apply_to_rows(damage: &Damage, file: &Path) -> rusqlite::Result<()> {
    let database = rusqlite::Connection::open(file)?;
    let place = |column: &u8| COLUMNS[usize::from(*column) % COLUMNS.len()];
    let which = |table, row: &u8| -> rusqlite::Result<i64> {
        let rows: i64 = database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        Ok(i64::from(*row) % rows.max(1))
    };
    match damage {
        Damage::Row { column, row, value } => {
            let (table, column, key) = place(column);
            let value = match value {
                NewValue::Null => Value::Null,
                NewValue::Integer(number) => Value::Integer(*number),
                NewValue::Small(number) => Value::Integer((*number).into()),
                NewValue::Text(text) => Value::Text(text.clone()),
                NewValue::Bytes(bytes) => Value::Blob(bytes.clone()),
            };
            let one = format!("(SELECT {key} FROM {table} ORDER BY {key} LIMIT 1 OFFSET ?2)");
            let change = format!("UPDATE {table} SET {column} = ?1 WHERE {key} = {one}");
            database.execute(&change, rusqlite::params![value, which(table, row)?])?;
        }
        Damage::Delete { column, row } => {
            let (table, _, key) = place(column);
            let one = format!("(SELECT {key} FROM {table} ORDER BY {key} LIMIT 1 OFFSET ?1)");
            database.execute(&format!("DELETE FROM {table} WHERE {key} = {one}"), [which(table, row)?])?;
        }
        _ => {}
    }
    Ok(())
}

/// Resumes after an event, and checks what comes.
fn judge(publisher: &Publisher, original: &Original, last: usize) {
    let id = &original.ids[last];
    let Ok(mut subscription) = publisher.subscription(()).channels(CHANNELS).last_event_id(id).heartbeat(None).open()
    else {
        return;
    };
    publisher.close();
    let (mut parser, mut received) = (Parser::new(), Vec::new());
    while let Some(frame) = subscription.recv() {
        for message in parser.push(frame.as_bytes()).expect("a valid stream") {
            if message.is_gap() {
                continue;
            }
            let number = message.data.split(' ').next().and_then(|number| number.parse().ok());
            let number: usize = number.unwrap_or_else(|| panic!("a wrong event: {message:?}"));
            let is_original = number < EVENTS && message.data == data(number) && *message.id == original.ids[number];
            assert!(is_original, "a wrong event: {message:?}");
            received.push(number);
        }
    }
    assert!(received.is_sorted_by(|a, b| a < b), "twice, or out of order: {received:?}");
    if subscription.resumption() == Resumption::Complete {
        assert_eq!(received, Vec::from_iter(last + 1..EVENTS), "events are missing without a gap, after {last}");
    }
}
