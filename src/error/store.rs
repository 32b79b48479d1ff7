//! Errors of a store, in which a history is kept.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// The reason why a history cannot be kept in a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreError {
    /// Another publisher uses the file, in this process or another.
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// The file is not one that this crate has created, or it has tables, indices, triggers or views in addition. It is
    /// left as it is.
    Foreign {
        /// The file.
        file: PathBuf,
        /// What shows that.
        reason: String,
    },
    /// A later version of this crate has created the file. It is left as it is.
    NewerVersion {
        /// The file.
        file: PathBuf,
        /// The version of the file's format.
        version: i64,
    },
    /// The file's content has changed since it was written. It is left as it is.
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system or the database has reported an error, such as a full disk.
    Failed {
        /// The file.
        file: PathBuf,
        /// The error.
        reason: String,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { file } => {
                write!(f, "{} is in use by another publisher: give each publisher a file of its own", file.display())
            }
            Self::Foreign { file, reason } => {
                write!(f, "{} is not a history ({reason}): use a file that does not exist yet", file.display())
            }
            Self::NewerVersion { file, version } => {
                write!(f, "{} has the format version {version}: use a newer version of this program", file.display())
            }
            Self::Damaged { file, reason } => {
                write!(
                    f,
                    "{} is damaged ({reason}): restore it, or move it away to begin a new history",
                    file.display()
                )
            }
            Self::Failed { file, reason } => write!(f, "{}: {reason}", file.display()),
        }
    }
}

impl Error for StoreError {}

/// Converts into an error that holds this one, for a function that returns an [`io::Result`].
impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match error {
            StoreError::InUse { .. } => io::ErrorKind::ResourceBusy,
            StoreError::Foreign { .. } | StoreError::NewerVersion { .. } | StoreError::Damaged { .. } => {
                io::ErrorKind::InvalidData
            }
            StoreError::Failed { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
