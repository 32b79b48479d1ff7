//! Hubs that follow another hub: its edges.

mod client;
mod kills;
mod oracle;
mod origin_away;
mod resuming;
mod serving;

use std::process::Command;
use std::time::Duration;

use super::hub_history::{Folder, post_event};
use super::*;
use crate::common::example::built_examples;
use crate::common::hub::Hub;
use crate::common::{PATIENCE, Watchdog, eventually};
use client::{Block, Client};

impl Hub {
    /// Starts a hub whose history survives the program.
    fn with_file(folder: &Folder) -> Self {
        Self::new(["--history".into(), folder.history()])
    }

    fn in_memory() -> Self {
        Self::new([""; 0])
    }

    /// Starts an edge, and waits until it serves what the origin has.
    fn edge(origin: &Self, channels: &[&str]) -> Self {
        let edge = Self::new(Self::upstream(origin, channels));
        edge.is_healthy();
        edge
    }

    fn upstream<'a>(origin: &'a Self, channels: &[&'a str]) -> Vec<&'a str> {
        [&["--upstream", &origin.url], channels].concat()
    }

    /// Posts an event, and returns its ID.
    #[track_caller]
    fn post(&self, path: &str, data: &str) -> String {
        post_event(&agent(), &self.at(path), data).expect("the event is stored")
    }

    fn watch(&self, path: &str) -> Watcher {
        Watcher::new(self.running.as_ref().unwrap(), path)
    }

    /// Returns everything that the hub holds of these channels, each event with its ID.
    #[track_caller]
    fn events(&self, path: &str, last: &str) -> Vec<(String, String)> {
        let mut client = Client::after("an ID from nowhere");
        client.reads_until(&self.at(path), last);
        client.events()
    }
}

fn watchdog(test: &str) -> Watchdog {
    watchdog_of(test, Watchdog::LIMIT)
}

fn watchdog_of(test: &str, limit: Duration) -> Watchdog {
    // Not within the limit: the first test builds the examples.
    built_examples();
    Watchdog::with_limit(test, limit)
}
