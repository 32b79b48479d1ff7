//! What this process holds: this crate's threads, and descriptors.

use std::fs::read_dir;

/// Returns how many threads of this process have a name with this prefix.
pub fn threads(name: &str) -> usize {
    let tasks = read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|own| own.starts_with(name)).count()
}

/// Returns the number of this process's descriptors.
pub fn descriptors() -> usize {
    read_dir("/proc/self/fd").unwrap().count()
}

/// Returns the number of this crate's threads in this process, and the number of descriptors.
pub fn held() -> (usize, usize) {
    (threads("sse "), descriptors())
}

/// Returns whether neither number has grown. Either may have shrunk: a first count can include a descriptor that is
/// just being closed.
pub fn is_back_at(before: (usize, usize)) -> bool {
    let now = held();
    now.0 <= before.0 && now.1 <= before.1
}
