//! The examples as child processes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

use super::http::{Client, Events};

/// A running example, killed when it is dropped.
pub struct Example {
    pub process: Child,
    pub url: String,
    output: BufReader<ChildStdout>,
}

impl Example {
    #[track_caller]
    pub fn start(name: &str) -> Self {
        Self::run(Command::new(built_examples().join(name)))
    }

    /// Starts it on this address, on which it can be started again.
    #[track_caller]
    pub fn start_at(name: &str, address: SocketAddr) -> Self {
        let mut command = Command::new(built_examples().join(name));
        command.arg(address.to_string());
        Self::run_as_it_is(command)
    }

    #[track_caller]
    pub fn run(mut command: Command) -> Self {
        command.arg("127.0.0.1:0");
        Self::run_as_it_is(command)
    }

    #[track_caller]
    pub fn run_as_it_is(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut example = Self { process, url: String::new(), output };
        example.url = example.reads_line("listening on ");
        example
    }

    /// Reads the next line, which must begin with this. Returns the rest.
    #[track_caller]
    pub fn reads_line(&mut self, beginning: &str) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().strip_prefix(beginning).expect(&line).to_owned()
    }

    pub fn events(&self, path: &str) -> Events {
        let mut events = Events::get(&format!("{}{path}", self.url));
        events.gets(":\n");
        events
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.url.strip_prefix("http://").unwrap().parse().unwrap())
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Returns a pipe without a reader: each write to it fails.
#[cfg(unix)]
pub fn broken_pipe() -> ChildStdin {
    let mut reader = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
    let writer = reader.stdin.take().unwrap();
    reader.wait().unwrap();
    writer
}

/// Builds the examples, since `cargo test --test it` alone would not, and returns their folder.
pub fn built_examples() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        // From `tests/real_parts` too: the nearest parent folder that has the examples.
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|folder| folder.join("examples").is_dir());
        cargo.args(["build", "--quiet", "--examples"]).current_dir(root.unwrap());
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        // With the variables that `cargo test` sets, build scripts that look at them would run again, and everything that
        // depends on them would be built once more.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                cargo.env_remove(name);
            }
        }
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        // All features, as in the tests: with others, cargo would build the crate and the examples once more.
        for (on, feature) in [
            (cfg!(feature = "client"), "client"),
            (cfg!(feature = "json"), "json"),
            (cfg!(feature = "log"), "log"),
            (cfg!(feature = "redis"), "redis"),
            (cfg!(feature = "redis_tls"), "redis_tls"),
            (cfg!(feature = "rouille"), "rouille"),
            (cfg!(feature = "serde"), "serde"),
            (cfg!(feature = "server"), "server"),
            (cfg!(feature = "sqlite"), "sqlite"),
            (cfg!(feature = "tiny_http_openssl"), "tiny_http_openssl"),
            (cfg!(feature = "test-util"), "test-util"),
        ] {
            if on {
                cargo.args(["--features", feature]);
            }
        }
        assert!(cargo.status().unwrap().success());
        profile.join("examples")
    });
    &FOLDER
}
