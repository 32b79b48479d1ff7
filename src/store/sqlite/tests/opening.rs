//! Which files a store opens, and what it does to the others.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rusqlite::Connection;

use super::*;
use crate::store::sqlite::lock::LockFile;

fn error_of(path: impl Into<PathBuf>) -> StoreError {
    try_open(&Sqlite::at(path), "boot", 1).unwrap_err()
}

/// Returns the content of all files of a directory that a store must leave as they are.
fn contents(folder: &Folder) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().path());
    let ours = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "lock");
    paths.filter(|path| !ours(path)).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn one_file_has_one_store_whatever_its_path() {
    let folder = Folder::new();
    let first = open(&folder.sqlite());
    let file = folder.file("events.db");
    let indirect = folder.0.join("..").join(folder.0.file_name().unwrap()).join("events.db");
    for path in [&file, &indirect] {
        assert_eq!(error_of(path), StoreError::InUse { file: file.clone() });
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&file, folder.file("link")).unwrap();
        assert_eq!(error_of(folder.file("link")), StoreError::InUse { file });
    }
    drop(first);
    open(&folder.sqlite());
}

#[test]
fn a_file_is_free_once_its_store_is_dropped_even_while_the_program_starts_others() {
    let folder = Folder::new();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                assert!(Command::new("true").status().unwrap().success());
            }
        });
        let reopened = catch_unwind(|| (0..200).for_each(|_| drop(open(&folder.sqlite()))));
        is_done.store(true, Ordering::Relaxed);
        reopened.unwrap();
    });
}

#[test]
fn an_empty_file_becomes_a_history() {
    let folder = Folder::new();
    fs::write(folder.file("events.db"), "").unwrap();
    let mut first = open(&folder.sqlite());
    first.store.append(&records(1..=3), Trim::default()).unwrap();
    drop(first);
    assert_eq!(open(&folder.sqlite()).records, records(1..=3));
}

#[test]
fn two_new_files_have_different_lineages() {
    let (one, other) = (Folder::new(), Folder::new());
    assert_ne!(open(&one.sqlite()).attached.lineage, open(&other.sqlite()).attached.lineage);
}

#[test]
fn a_name_may_contain_any_character() {
    let folder = Folder::new();
    for name in ["a?b=c#d%41&e", "\u{1F98A} 'x' \"y\"", ":memory:", "file:x"] {
        let sqlite = Sqlite::at(folder.file(name));
        for _ in 0..2 {
            open(&sqlite);
            assert!(bytes(&folder.file(name)) > 0, "{name}");
        }
    }
}

fn assert_foreign(file: &Path, why: &str) {
    let error = error_of(file);
    let is_foreign =
        matches!(&error, StoreError::Foreign { file: found, reason } if found == file && reason.contains(why));
    assert!(is_foreign, "{error}");
}

#[test]
fn a_foreign_file_is_left_as_it_is() {
    let texts: [&[u8]; 4] = [b"x", b"Dear diary\n", &[0; 8_192], b"SQLite format 3\0 and then something else"];
    for text in texts {
        let folder = Folder::new();
        let file = folder.file("events.db");
        fs::write(&file, text).unwrap();
        let before = contents(&folder);
        assert_foreign(&file, "");
        assert_eq!(contents(&folder), before);
    }
}

#[test]
fn another_database_is_left_as_it_is() {
    for mode in ["delete", "wal"] {
        let folder = Folder::new();
        let file = folder.file("events.db");
        let connection = Connection::open(&file).unwrap();
        connection.pragma_update(None, "journal_mode", mode).unwrap();
        connection.execute_batch("CREATE TABLE state (lineage)").unwrap();
        let before = contents(&folder);
        assert_foreign(&file, "application ID 0");
        assert_eq!(contents(&folder), before, "{mode}");
    }
}

#[test]
fn a_history_with_parts_of_another_program_is_left_as_it_is() {
    for (part, name) in [
        ("CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events; END", "the trigger \"t\""),
        ("CREATE TABLE notes (text)", "the table \"notes\""),
        ("CREATE INDEX by_key ON events (key)", "the index \"by_key\""),
        ("CREATE VIEW keys AS SELECT key FROM events", "the view \"keys\""),
    ] {
        let folder = Folder::new();
        let file = folder.file("events.db");
        open(&folder.sqlite()).store.close(Trim::default()).unwrap();
        let connection = Connection::open(&file).unwrap();
        connection.execute_batch(part).unwrap();
        drop(connection);
        let before = fs::read(&file).unwrap();
        assert_foreign(&file, name);
        assert!(fs::read(&file).unwrap() == before, "{part}");
    }
}

#[test]
fn a_history_that_another_program_has_looked_into_still_opens() {
    let folder = Folder::new();
    let mut store = open(&folder.sqlite()).store;
    store.append(&records(1..=3), Trim::default()).unwrap();
    store.close(Trim::default()).unwrap();
    let connection = Connection::open(folder.file("events.db")).unwrap();
    connection.query_row("SELECT count(*) FROM history", [], |_| Ok(())).unwrap();
    connection.execute_batch("PRAGMA analysis_limit = 0; ANALYZE; VACUUM").unwrap();
    drop(connection);
    assert_eq!(open(&folder.sqlite()).records, records(1..=3));
}

#[test]
fn a_newer_version_is_left_as_it_is() {
    for (is_in_log, version) in [(false, 2), (true, 2), (false, i64::from(i32::MAX))] {
        let folder = Folder::new();
        let file = folder.file("events.db");
        open(&folder.sqlite()).store.close(Trim::default()).unwrap();
        let connection = crate::store::sqlite::file::connect(&file).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
        if !is_in_log {
            connection.pragma_update(None, "journal_mode", "delete").unwrap();
        }
        drop(connection);
        let mut before = contents(&folder);
        assert_eq!(error_of(&file), StoreError::NewerVersion { file: file.clone(), version });
        let mut after = contents(&folder);
        // The index of the log belongs to the processes that have it open.
        for files in [&mut before, &mut after] {
            files.remove(&folder.file("events.db-shm"));
        }
        assert_eq!(after, before);
    }
}

#[test]
fn a_history_without_its_database_is_damaged() {
    let folder = Folder::new();
    drop(open(&folder.sqlite()));
    for is_empty in [true, false] {
        let file = folder.file("events.db");
        if is_empty {
            fs::write(&file, "").unwrap()
        } else {
            fs::remove_file(&file).unwrap()
        }
        let before = contents(&folder);
        let error = error_of(&file).to_string();
        assert!(error.contains("its log") && error.contains("events.db-wal"), "{error}");
        assert_eq!(contents(&folder), before);
    }
}

#[test]
fn an_error_names_what_the_user_can_change() {
    let folder = Folder::new();
    fs::create_dir(folder.file("directory")).unwrap();
    let missing = folder.file("missing").join("events.db");
    let text = |path: &Path| error_of(path).to_string();
    assert!(text(&missing).contains("missing does not exist: create it first"), "{}", text(&missing));
    assert!(text(&folder.file("directory")).contains("not a regular file"));
    assert!(text(Path::new("")).contains("not the name of a file"), "{}", text(Path::new("")));
    assert!(text(Path::new("/dev/null")).contains("not a regular file"));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.file("nothing"), folder.file("dangling")).unwrap();
        assert!(text(&folder.file("dangling")).contains("a symbolic link to a file that does not exist"));
    }
}

/// Even root may not write to it.
#[cfg(target_os = "linux")]
#[test]
fn a_read_only_file_system_is_an_error_that_says_so() {
    let name = "opening::a_read_only_file_system_is_an_error_that_says_so";
    if let Some(folder) = child::folder() {
        let error = error_of(folder.join("events.db")).to_string();
        assert!(error.contains("events.db.lock: Read-only") && error.contains("use a directory"), "{error}");
        return;
    }
    let folder = Folder::new();
    open(&folder.sqlite()).store.close(Trim::default()).unwrap();
    let mount = "mount --bind \"$SSE_CHILD\" \"$SSE_CHILD\" && mount -o remount,ro,bind \"$SSE_CHILD\"";
    child::run_with_mount(name, &folder.0, mount);
}

/// What is not permitted, the error's reason, and what it advises.
#[cfg(target_os = "linux")]
const NOT_PERMITTED: [(&str, u32, &str, &str); 6] = [
    ("events.db", 0o000, "SQLite cannot open it, or its log", "read and write the files"),
    ("events.db", 0o444, "no permission to write the file", "let this program write to it"),
    ("events.db.lock", 0o444, "failed to open FOLDER/events.db.lock: Permission denied", "read and write the files"),
    ("", 0o000, "failed to find FOLDER/events.db: Permission denied", "create files in their directory"),
    ("", 0o555, "SQLite cannot open it, or its log", "create files in their directory"),
    // Without a database in it.
    (
        "empty",
        0o555,
        "failed to open FOLDER/empty/events.db.lock: Permission denied",
        "create files in their directory",
    ),
];

#[cfg(target_os = "linux")]
#[test]
fn a_missing_permission_is_an_error_that_says_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let name = "opening::a_missing_permission_is_an_error_that_says_what_to_do";
    if let Some(folder) = child::folder() {
        println!("\nerror {}", error_of(folder.join("events.db")));
        return;
    }
    for (path, mode, reason, advice) in NOT_PERMITTED {
        let folder = Folder::new();
        open(&folder.sqlite()).store.close(Trim::default()).unwrap();
        fs::create_dir(folder.file("empty")).unwrap();
        let restricted = folder.file(path);
        let before = fs::metadata(&restricted).unwrap().permissions();
        fs::set_permissions(&restricted, PermissionsExt::from_mode(mode)).unwrap();
        let place = if path == "empty" { &restricted } else { &folder.0 };
        let output = child::run_without_privileges(name, place);
        fs::set_permissions(&restricted, before).unwrap();
        let Some(output) = output else { return };
        let error = output.lines().find_map(|line| line.strip_prefix("error ")).unwrap();
        let reason = reason.replace("FOLDER", folder.0.to_str().unwrap());
        let file = place.join("events.db");
        assert!(error.starts_with(file.to_str().unwrap()), "{error}");
        assert!(error.contains(&reason) && error.contains(advice), "{path:?} {mode:o}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn a_start_that_is_refused_leaves_no_lock_file_of_its_own() {
    let folder = Folder::new();
    let (file, lock) = (folder.file("events.db"), folder.file("events.db.lock"));
    fs::write(&file, "Dear diary\n").unwrap();
    assert_foreign(&file, "");
    assert!(!lock.exists());
    fs::write(&lock, "").unwrap();
    assert_foreign(&file, "");
    assert!(lock.exists(), "it was there before");
    fs::remove_file(&file).unwrap();
    drop(open(&folder.sqlite()));
    assert!(bytes(&lock) > 0, "a history has one");
}

/// Removing a file that another opening has open could give each of them a lock.
#[test]
fn openings_that_remove_the_lock_file_never_hold_it_at_once() {
    let folder = Folder::new();
    let (is_held, held) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let deadline = Instant::now() + Duration::from_secs(20);
                while held.load(Ordering::SeqCst) < 3_000 && Instant::now() < deadline {
                    let Ok(lock) = LockFile::lock(&folder.file("events.db")) else { continue };
                    assert!(!is_held.swap(true, Ordering::SeqCst), "two openings hold the lock");
                    held.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    is_held.store(false, Ordering::SeqCst);
                    drop(lock);
                }
            });
        }
    });
    assert!(held.load(Ordering::SeqCst) > 0);
}

#[test]
fn two_processes_never_share_a_file() {
    let name = "opening::two_processes_never_share_a_file";
    if let Some(folder) = child::folder() {
        let _opened = open(&Sqlite::at(folder.join("events.db")));
        println!("\nopened");
        child::wait_forever();
    }
    let folder = Folder::new();
    let mut other = child::Running::start(name, &folder.0, "");
    other.wait_for_line("opened");
    let file = folder.file("events.db");
    assert_eq!(error_of(&file), StoreError::InUse { file });
    other.kill();
    open(&folder.sqlite());
}

#[cfg(unix)]
#[test]
fn a_file_with_two_names_is_refused_because_each_name_would_have_its_own_lock() {
    let folder = Folder::new();
    drop(open(&folder.sqlite()));
    fs::hard_link(folder.file("events.db"), folder.file("other.db")).unwrap();
    for name in ["events.db", "other.db"] {
        let error = error_of(folder.file(name));
        assert!(error.to_string().contains("it has 2 names (hard links): remove all but one"), "{error}");
    }
    fs::remove_file(folder.file("other.db")).unwrap();
    open(&folder.sqlite());
}

#[test]
fn a_lock_file_of_another_program_is_left_as_it_is() {
    let folder = Folder::new();
    fs::write(folder.file("events.db.lock"), "# precious").unwrap();
    let error = error_of(folder.file("events.db"));
    assert!(error.to_string().contains("has other content than a lock: move it away"), "{error}");
    assert_eq!(fs::read_to_string(folder.file("events.db.lock")).unwrap(), "# precious");
    assert!(!folder.file("events.db").exists());
}

#[cfg(unix)]
#[test]
fn a_lock_file_that_is_a_link_is_not_followed() {
    let folder = Folder::new();
    fs::write(folder.file("victim"), "").unwrap();
    std::os::unix::fs::symlink(folder.file("victim"), folder.file("events.db.lock")).unwrap();
    let error = error_of(folder.file("events.db"));
    assert!(error.to_string().contains("is not a regular file"), "{error}");
    assert_eq!(fs::read(folder.file("victim")).unwrap(), b"");
}

#[test]
fn two_openings_in_the_same_second_have_different_eras() {
    let eras: std::collections::BTreeSet<u64> = (0..100).map(|_| super::super::Surroundings::now().era).collect();
    assert!(eras.len() > 90, "{} of 100", eras.len());
}
