//! A client as a process of its own, which prints what it receives.

use std::fmt::Debug;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;

use serde_json::Value;

use crate::common::{PATIENCE, eventually};
use crate::installed::spawn;

/// A running client that prints each message as a line of JSON; killed when dropped.
pub struct Client {
    process: Child,
    messages: Receiver<Value>,
}

impl Client {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut process = spawn(command);
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || {
            for line in output.lines() {
                let line = line.unwrap();
                let message = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
                // The test may be over.
                let _ = sender.send(message);
            }
        });
        Self { process, messages }
    }

    /// Fails if the process has ended.
    #[track_caller]
    pub fn runs(&mut self) {
        let ended = self.process.try_wait().unwrap();
        assert_eq!(ended, None, "the client has ended: see its output above; tests/run installs what it needs");
    }

    /// Returns the next message. If none arrives, fails and names the expected one.
    #[track_caller]
    pub fn next(&mut self, expected: &impl Debug) -> Value {
        match self.messages.recv_timeout(PATIENCE) {
            Ok(message) => message,
            Err(error) => {
                // Its output ends just before the process does.
                eventually("the client runs, or has ended", || {
                    error == RecvTimeoutError::Timeout || self.process.try_wait().unwrap().is_some()
                });
                self.runs();
                panic!("the client has not received {expected:?}");
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
