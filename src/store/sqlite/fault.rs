//! The errors inside the store, before they name its file.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, NotADatabase, PermissionDenied, ReadOnly};

use crate::error::StoreError;

/// What to do if SQLite or the operating system has no access.
const PERMISSION: &str = ": let this program read and write the files, and create files in their directory";

/// The reason why an operation on the file has failed.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Foreign(String),
    NewerVersion(i64),
    Damaged(String),
    Failed(String),
}

impl Fault {
    /// Creates a fault of a row whose content cannot be right.
    pub(super) fn damaged_row(table: &str, row: impl std::fmt::Display) -> Self {
        Self::Damaged(format!("table {table}, row {row}"))
    }

    /// Creates a fault of an operation on this path.
    pub(super) fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => PERMISSION,
            io::ErrorKind::ReadOnlyFilesystem => ": use a directory that this program can write to",
            _ => "",
        };
        Self::Failed(format!("failed to {doing} {}: {error}{remedy}", path.display()))
    }

    pub(super) fn of(self, file: &Path) -> StoreError {
        let file = file.into();
        match self {
            Self::Foreign(reason) => StoreError::Foreign { file, reason },
            Self::NewerVersion(version) => StoreError::NewerVersion { file, version },
            Self::Damaged(reason) => StoreError::Damaged { file, reason },
            Self::Failed(reason) => StoreError::Failed { file, reason },
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error;
        if matches!(error.sqlite_error_code(), Some(CannotOpen | ReadOnly | PermissionDenied)) {
            // It does not name the file that it cannot open: the database, its log or the log's index.
            return Self::Failed(format!("SQLite cannot open it, or its log beside it ({error}){PERMISSION}"));
        }
        let is_damage = match &error {
            Error::SqliteFailure(failure, _) => matches!(failure.code, DatabaseCorrupt | NotADatabase),
            // A row is missing, or holds a value of another type.
            Error::QueryReturnedNoRows
            | Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..) => true,
            _ => false,
        };
        if is_damage { Self::Damaged(error.to_string()) } else { Self::Failed(error.to_string()) }
    }
}
