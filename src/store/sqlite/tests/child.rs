//! Tests that run in a process of their own: this test program, started once more for one test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

const VARIABLE: &str = "SSE_CHILD";

/// Returns the directory that the test is to use, if this is the other process.
pub(super) fn folder() -> Option<PathBuf> {
    env::var_os(VARIABLE).map(PathBuf::from)
}

/// Returns a command that runs a test of these in another process, after a prefix of shell commands.
fn command(shell: &[&str], test: &str, folder: &Path, prefix: &str) -> Command {
    let mut command = Command::new(shell[0]);
    let test = format!("{}::{test}", module_path!().split_once("::").unwrap().1.rsplit_once("::").unwrap().0);
    let script = format!("{prefix}exec \"$0\" --exact {test} --nocapture --test-threads 1");
    command.args(&shell[1..]).arg("-c").arg(script).arg(env::current_exe().unwrap()).env(VARIABLE, folder);
    command
}

/// Runs a test in another process, which must succeed. Returns its output.
pub(super) fn run(test: &str, folder: &Path, prefix: &str) -> String {
    assert_success(command(&["sh"], test, folder, prefix))
}

/// Runs a test in another process that sees its directory through a mount. Skips it if this user may not mount.
pub(super) fn run_with_mount(test: &str, folder: &Path, mount: &str) {
    let shell = ["unshare", "--user", "--map-root-user", "--mount", "sh"];
    let mut can_mount = Command::new(shell[0]);
    can_mount.args(&shell[1..]).arg("-c").arg(mount).env(VARIABLE, folder).stderr(Stdio::null());
    if can_mount.status().is_ok_and(|status| status.success()) {
        let _ = assert_success(command(&shell, test, folder, &format!("{mount} && ")));
    } else {
        eprintln!("skipped: this user may not mount file systems");
    }
}

/// Runs a test in another process that has no privileges, even if this user has. Returns its output, or `None` if this
/// user may not start such a process.
pub(super) fn run_without_privileges(test: &str, folder: &Path) -> Option<String> {
    let shell = ["unshare", "--user", "sh"];
    let mut can_start = Command::new(shell[0]);
    can_start.args(&shell[1..]).args(["-c", "true"]).stderr(Stdio::null());
    if can_start.status().is_ok_and(|status| status.success()) {
        return Some(assert_success(command(&shell, test, folder, "")));
    }
    eprintln!("skipped: this user may not start a process without privileges");
    None
}

fn assert_success(mut command: Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// Waits to be killed.
pub(super) fn wait_forever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}

/// A test that runs in another process.
pub(super) struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    pub(super) fn start(test: &str, folder: &Path, prefix: &str) -> Self {
        let mut child = command(&["sh"], test, folder, prefix).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Returns the next line of its output; `None` at the end.
    pub(super) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.output.read_line(&mut line).unwrap() > 0).then(|| line.trim_end().to_owned())
    }

    pub(super) fn wait_for_line(&mut self, expected: &str) {
        while self.line().expect("the other process has ended") != expected {}
    }

    /// Kills it, as `kill -9` does.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
