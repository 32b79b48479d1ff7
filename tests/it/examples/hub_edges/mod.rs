//! Hubs that follow another hub: its edges.

mod client;
mod kills;
mod oracle;
mod origin_away;
mod resuming;
mod serving;

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use super::hub_history::{Folder, post_event};
use super::*;
use crate::common::example::built_examples;
use crate::common::{PATIENCE, Watchdog, eventually, free_address};
use client::{Block, Client};

/// A hub that keeps its address when it is killed and started again.
struct Hub {
    url: String,
    arguments: Vec<OsString>,
    running: Option<Example>,
}

impl Hub {
    fn new(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let mut hub = Self::stopped(arguments);
        hub.start();
        hub
    }

    /// Creates a hub that is not started yet.
    fn stopped(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let address = free_address().to_string();
        let url = format!("http://{address}");
        let arguments = arguments.into_iter().map(Into::into);
        Self { url, arguments: [address.into()].into_iter().chain(arguments).collect(), running: None }
    }

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

    fn start(&mut self) {
        let mut command = Command::new(built_examples().join("hub"));
        command.args(&self.arguments).env_remove("HUB_PUBLISH_TOKEN");
        self.running = Some(Example::run_as_it_is(command));
    }

    /// Kills the hub as `kill -9` does.
    fn kill(&mut self) {
        self.running = None;
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn get(&self, path: &str) -> (u16, String) {
        get(&self.at(path))
    }

    /// Posts an event, and returns its ID.
    #[track_caller]
    fn post(&self, path: &str, data: &str) -> String {
        post_event(&agent(), &self.at(path), data).expect("the event is stored")
    }

    fn watch(&self, path: &str) -> Watcher {
        Watcher::new(self.running.as_ref().unwrap(), path)
    }

    #[track_caller]
    fn is_healthy(&self) {
        eventually("the hub is healthy", || self.get("/healthz") == (200, "ok\n".into()));
    }

    #[track_caller]
    fn has_figure(&self, figure: &str) {
        eventually(figure, || self.get("/stats").1.contains(&format!("\n{figure}\n")));
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
