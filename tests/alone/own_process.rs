//! Each test in a process of its own: this program again, with that test alone.

use std::process::Command;

const RUNS_ALONE: &str = "RUNS_ALONE";

/// Runs the rest of the test in a process of its own, on that process's main thread. Returns from the test in the process
/// that waits for it.
macro_rules! own_process {
    () => {
        fn here() {}
        if !$crate::own_process::is_alone() {
            return $crate::own_process::passes(std::any::type_name_of_val(&here));
        }
    };
}
pub(crate) use own_process;

/// Returns whether this process runs one test, and nothing else.
pub fn is_alone() -> bool {
    std::env::var_os(RUNS_ALONE).is_some()
}

/// Returns this program with this test alone. With one test at a time, the harness starts no thread for it.
pub fn alone(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads", "1"]).env(RUNS_ALONE, "1");
    command
}

/// Runs the test that has this function, and checks that it passes.
#[track_caller]
pub fn passes(function: &str) {
    let (_crate, path) = function.split_once("::").unwrap();
    let test = path.strip_suffix("::here").unwrap();
    let output = alone(test).output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{}\n{text}", output.status);
    println!("{text}");
}
