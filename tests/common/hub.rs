//! The example hub, at an address that it keeps when it is killed and started again.

use std::ffi::OsString;
use std::process::Command;

use super::example::{Example, built_examples};
use super::{eventually, free_address};

/// A hub that keeps its address when it is killed and started again.
pub struct Hub {
    pub url: String,
    pub arguments: Vec<OsString>,
    pub running: Option<Example>,
}

impl Hub {
    #[track_caller]
    pub fn new(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let mut hub = Self::stopped(arguments);
        hub.start();
        hub
    }

    /// Creates a hub that is not started yet.
    #[track_caller]
    pub fn stopped(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let address = free_address().to_string();
        let url = format!("http://{address}");
        let arguments = arguments.into_iter().map(Into::into);
        Self { url, arguments: [address.into()].into_iter().chain(arguments).collect(), running: None }
    }

    #[track_caller]
    pub fn start(&mut self) {
        let mut command = Command::new(built_examples().join("hub"));
        command
            .args(&self.arguments)
            .env_remove("HUB_PUBLISH_TOKEN")
            .env_remove("HUB_REDIS")
            .env_remove("HUB_SENTINELS");
        self.running = Some(Example::run_as_it_is(command));
    }

    /// Kills the hub as `kill -9` does.
    pub fn kill(&mut self) {
        self.running = None;
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Returns the status and the text of a response.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut response = agent.get(self.at(path)).call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    /// Waits until the hub is healthy: it has the events that it serves.
    #[track_caller]
    pub fn is_healthy(&self) {
        eventually("the hub is healthy", || self.get("/healthz") == (200, "ok\n".into()));
    }

    #[track_caller]
    pub fn has_figure(&self, figure: &str) {
        eventually(figure, || self.get("/stats").1.contains(&format!("\n{figure}\n")));
    }
}
