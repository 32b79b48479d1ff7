//! The file beside the database: its lock, and the note of what was delivered.

// SQLite's own locks allow several processes, and closing any descriptor of the database drops them. So the lock of the
// process is on a file of its own. This file also holds a note of fixed size, which is overwritten in place after each
// transaction. If the database then turns out to hold less than the note, events are missing: the newest part of its
// log was lost, or an older copy of it was restored.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind::AlreadyExists, ErrorKind::NotFound, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::fault::Fault;
use crate::error::StoreError;

/// The newest event that was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) lineage: String,
    pub(super) era: u64,
    pub(super) sequence: u64,
}

impl Note {
    /// Returns the note as one line. All notes of a lineage have the same length.
    fn to_line(&self) -> String {
        let text = format!("{} {:020} {:020}", self.lineage, self.era, self.sequence);
        format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
    }

    fn from_line(line: &str) -> Option<Self> {
        let (text, crc) = line.strip_suffix('\n')?.rsplit_once(' ')?;
        let is_whole = u32::from_str_radix(crc, 16) == Ok(crc32fast::hash(text.as_bytes()));
        let mut words = text.split(' ');
        let mut next = || words.next().filter(|_| is_whole);
        Some(Self { lineage: next()?.into(), era: next()?.parse().ok()?, sequence: next()?.parse().ok()? })
    }
}

/// The locked file. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct LockFile {
    path: PathBuf,
    file: File,
    /// The file has the length of a note.
    has_note: bool,
    /// This opening has created the file, and has not written to it.
    is_unused: bool,
}

impl LockFile {
    /// Locks the file that belongs to this database.
    pub(super) fn lock(database: &Path) -> Result<Self, StoreError> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |doing, error: &io::Error| Fault::io(doing, &path, error).of(database);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Fault::Failed(format!("{} is not a regular file", path.display())).of(database));
        }
        let (file, is_unused) = loop {
            let (file, is_new) = open(&path).map_err(|error| failed("open", &error))?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => break (file, is_new),
                // Another opening has removed it meanwhile.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { file: database.into() }),
                Err(TryLockError::Error(error)) => return Err(failed("lock", &error)),
            }
        };
        let lock = Self { path, file, has_note: false, is_unused };
        if fs::metadata(database).map_or(true, |metadata| metadata.len() == 0) {
            lock.check_content().map_err(|fault| fault.of(database))?;
        }
        Ok(lock)
    }

    /// Checks that the file beside a new history can be one of ours, since it is overwritten.
    fn check_content(&self) -> Result<(), Fault> {
        let is_ours = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b' ' | b'\n' | 0);
        if self.content()?.iter().all(is_ours) {
            return Ok(());
        }
        Err(Fault::Failed(format!("{} has other content than a lock: move it away", self.path.display())))
    }

    fn content(&self) -> Result<Vec<u8>, Fault> {
        // A longer file holds no note of ours.
        let mut bytes = Vec::new();
        let mut file = &self.file;
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(1_024).read_to_end(&mut bytes));
        read.map_err(|error| Fault::io("read", &self.path, &error))?;
        Ok(bytes)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the note of this lineage, if the file holds one.
    pub(super) fn read(&mut self, lineage: &str) -> Result<Option<Note>, Fault> {
        let bytes = self.content()?;
        let note = std::str::from_utf8(&bytes).ok().and_then(Note::from_line);
        let note = note.filter(|note| note.lineage == lineage);
        self.has_note = note.is_some();
        Ok(note)
    }

    /// Overwrites the note.
    pub(super) fn write(&mut self, note: &Note) -> Result<(), Fault> {
        self.is_unused = false;
        let line = note.to_line();
        let sized = if self.has_note { Ok(()) } else { self.file.set_len(line.len() as u64) };
        let written = sized.and_then(|()| write_at_start(&mut self.file, line.as_bytes()));
        self.has_note = written.is_ok();
        written.map_err(|error| Fault::io("write", &self.path, &error))
    }

    /// Waits until the note is on the disk.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        self.file.sync_data().map_err(|error| Fault::io("sync", &self.path, &error))
    }
}

impl Drop for LockFile {
    /// A start that is refused leaves no file behind that it has created. The file is removed while it is locked, and an
    /// opening that then locks the removed file sees that it is no longer at its path. So two openings never hold two
    /// locks. Where files cannot be compared, the file stays.
    fn drop(&mut self) {
        if self.is_unused && cfg!(unix) {
            let _ = fs::remove_file(&self.path);
        }
        // Closing the file would be too little: another program that is just being started has a copy of its descriptor
        // for a moment, and with it the lock. If this fails, closing is all that can be done.
        let _ = self.file.unlock();
    }
}

/// Opens the file, and returns whether it is new.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    loop {
        match options.create_new(false).open(path) {
            Err(error) if error.kind() == NotFound => {}
            opened => return opened.map(|file| (file, false)),
        }
        match options.create_new(true).open(path) {
            Err(error) if error.kind() == AlreadyExists && !path.is_symlink() => {}
            opened => return opened.map(|file| (file, true)),
        }
    }
}

/// Returns whether this is the file that is at the path now.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|metadata| (metadata.dev(), metadata.ino()));
    identity(file.metadata()) == identity(fs::symlink_metadata(path))
}

#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> bool {
    true
}

#[cfg(unix)]
fn write_at_start(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    file.write_all_at(bytes, 0)
}

#[cfg(not(unix))]
fn write_at_start(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    io::Write::write_all(file, bytes)
}
