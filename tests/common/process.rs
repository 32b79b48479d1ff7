//! What this process holds: threads of ours, and descriptors.

use std::fs::read_dir;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::eventually;

/// Lets one test of the process run at a time, for those that count its threads and descriptors.
#[track_caller]
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    eventually("no thread is left of the test before", || threads("sse ") == 0);
    alone
}

/// How many threads of this process have a name that begins so.
pub fn threads(name: &str) -> usize {
    let tasks = read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|own| own.starts_with(name)).count()
}

/// How many descriptors this process has.
pub fn descriptors() -> usize {
    read_dir("/proc/self/fd").unwrap().count()
}

/// How many threads of ours this process has, and how many descriptors.
pub fn held() -> (usize, usize) {
    (threads("sse "), descriptors())
}

/// No more than then. There may be less: a first count has been seen to hold a descriptor that soon was gone.
pub fn is_back_at(before: (usize, usize)) -> bool {
    let now = held();
    now.0 <= before.0 && now.1 <= before.1
}
