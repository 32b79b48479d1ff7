//! The clients that `tests/run` installs, as processes.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

fn installed(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/real_parts").join(path)
}

/// A program for Node, which finds the npm packages.
pub fn node(program: &str) -> Command {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let node = installed(&format!("node_modules/node-linux-{architecture}/bin/node"));
    let mut command = Command::new(node.canonicalize().unwrap_or(node));
    command.args(["--input-type=module", "--eval", program]);
    // A program that is not a file finds its packages there.
    command.current_dir(installed(""));
    command
}

/// A program for Python, from the folder `clients`.
pub fn python(program: &str) -> Command {
    let mut command = Command::new(installed("venv/bin/python"));
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients").join(program));
    command
}

/// Starts a client whose output is read.
#[track_caller]
pub fn spawn(command: &mut Command) -> Child {
    // Ignores any proxy of the environment: everything runs on this machine.
    command.env("NO_PROXY", "*").env("no_proxy", "*").stdout(Stdio::piped());
    match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("{} is missing: tests/run installs it", command.get_program().display())
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}
