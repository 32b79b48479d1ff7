//! How the file is found, checked, created and opened. A file that is not a history is never modified.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::fault::Fault;
use super::schema;
use super::state::{Eras, State};
use crate::spread;

/// Returns the absolute path without symbolic links, so that one file has one lock.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, Fault> {
    match fs::canonicalize(path) {
        Ok(file) if file.is_file() => check_names(&file).map(|()| file),
        Ok(_) => Err(Fault::Failed("not a regular file".into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => resolve_new(path),
        Err(error) => Err(Fault::io("find", path, &error)),
    }
}

/// Checks that the file has one name. Under another one it would have another lock, and another log.
#[cfg(unix)]
fn check_names(file: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(file).map_err(|error| Fault::io("find", file, &error))?;
    match metadata.nlink() {
        0 | 1 => Ok(()),
        names => Err(Fault::Failed(format!("it has {names} names (hard links): remove all but one"))),
    }
}

#[cfg(not(unix))]
fn check_names(_file: &Path) -> Result<(), Fault> {
    Ok(())
}

fn resolve_new(path: &Path) -> Result<PathBuf, Fault> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(Fault::Failed("a symbolic link to a file that does not exist".into()));
    }
    let name = path.file_name().ok_or_else(|| Fault::Failed("not the name of a file".into()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found = fs::canonicalize(folder).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Fault::Failed(format!("the directory {} does not exist: create it first", folder.display()))
        }
        _ => Fault::io("find the directory", folder, &error),
    })?;
    Ok(found.join(name))
}

/// Returns the path of SQLite's write-ahead log of this database.
pub(super) fn wal(file: &Path) -> PathBuf {
    let mut path = OsString::from(file);
    path.push("-wal");
    path.into()
}

/// Opens the history in this file. Creates it if the file is missing or empty. The caller must hold the lock.
pub(super) fn open(file: &Path) -> Result<Connection, Fault> {
    let is_empty = fs::metadata(file).map_or(true, |metadata| metadata.len() == 0);
    if !is_empty {
        check_unopened(file)?;
    } else if fs::metadata(wal(file)).is_ok_and(|metadata| metadata.len() > 0) {
        // SQLite would delete the log.
        return Err(Fault::Damaged(format!("it is empty, but its log {} is not", wal(file).display())));
    }
    let connection = connect(file)?;
    if connection.is_readonly("main")? {
        return Err(Fault::Failed("no permission to write the file: let this program write to it".into()));
    }
    if connection.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))? == 0 {
        create(&connection)?;
    }
    // The log may hold a later version than the database.
    schema::check_version(&connection)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Fault::Failed("its file system lacks shared memory: use a local file system".into()));
    }
    Ok(connection)
}

/// Opens one more connection to the file.
pub(super) fn connect(file: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    // A connection that is closed must not write to a file that turned out to be damaged.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // On macOS, a plain fsync leaves the data in the disk's cache. Elsewhere these have no effect.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    Ok(connection)
}

/// Checks the file's version without its log and without locks, because even reading a database may write to it.
fn check_unopened(file: &Path) -> Result<(), Fault> {
    let mut uri = String::from("file:");
    for byte in file.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(*byte as char),
            _ if byte.is_ascii_alphanumeric() => uri.push(*byte as char),
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags)?;
    // Without its log the database may lack pages at its end. This lets SQLite read it all the same.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, true)?;
    schema::check_version(&connection)
}

/// Creates the tables of an empty log, all or none of them.
fn create(connection: &Connection) -> Result<(), Fault> {
    connection.pragma_update(None, "synchronous", "full")?;
    let transaction = connection.unchecked_transaction()?;
    schema::create(&transaction)?;
    let mut state = State::new(format!("{:016x}", spread::random()));
    state.eras = Eras::default().sum();
    state.write(&transaction)?;
    Ok(transaction.commit()?)
}
