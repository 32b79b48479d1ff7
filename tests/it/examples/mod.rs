//! The examples do what their first lines promise, with real clients.

mod chat;
#[cfg(all(feature = "server", feature = "client"))]
mod hub;
#[cfg(all(feature = "server", feature = "client", feature = "sqlite", target_os = "linux"))] // signals
mod hub_edges;
#[cfg(all(feature = "server", feature = "client", target_os = "linux"))] // signals, and namespaces of processes
mod hub_ends;
#[cfg(all(feature = "server", feature = "client", feature = "sqlite", target_os = "linux"))] // signals
mod hub_history;
#[cfg(all(feature = "server", feature = "client", target_os = "linux"))] // a full disk
mod hub_program;
#[cfg(all(feature = "server", feature = "client", unix))] // a terminal
mod hub_terminal;
mod job_log;
#[cfg(unix)] // signals
mod online;
mod output;
mod posts;
mod progress;
#[cfg(feature = "rouille")]
mod rouille;
#[cfg(unix)] // descriptors of a parent process
mod socket_activation;

use crate::common::example::Example;
use crate::common::http::Events;

/// Returns the status and the text of a response.
fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, String) {
    let mut response = response.unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn get(url: &str) -> (u16, String) {
    answer(agent().get(url).call())
}

fn post(url: &str, body: impl ureq::AsSendBody) -> (u16, String) {
    answer(agent().post(url).send(body))
}

/// An event stream with IDs whose start ID has been read.
struct Watcher {
    events: Events,
    last_event_id: String,
}

impl Watcher {
    #[track_caller]
    fn new(example: &Example, path: &str) -> Self {
        let mut events = example.events(path);
        let start = events.next_frame().unwrap();
        assert!(start.starts_with("id: ") && start.lines().count() == 2, "{start:?} is no start id");
        Self { events, last_event_id: start["id: ".len()..].trim().into() }
    }

    /// Returns the next event without its ID, and skips heartbeats.
    fn next_event(&mut self) -> String {
        loop {
            let frame = self.events.next_frame().unwrap();
            if frame == ":\n" {
                continue;
            }
            let (ids, rest): (Vec<&str>, Vec<&str>) =
                frame.split_inclusive('\n').partition(|line| line.starts_with("id: "));
            assert_eq!(ids.len(), 1, "{frame:?} has no id");
            if rest != ["\n"] {
                self.last_event_id = ids[0]["id: ".len()..].trim().into();
                return rest.concat();
            }
        }
    }

    #[track_caller]
    fn gets(&mut self, event: &str) {
        assert_eq!(self.next_event(), event);
    }
}

#[test]
fn visits_shows_each_visit_to_every_viewer() {
    for name in ["visits"].into_iter().chain(cfg!(feature = "server").then_some("visits_event_server")) {
        shows_each_visit_to_every_viewer(&Example::start(name));
    }
}

fn shows_each_visit_to_every_viewer(visits: &Example) {
    assert!(get(&visits.url).1.contains("<!doctype html>"));
    let mut viewers = [(); 2].map(|()| visits.events("/visits"));
    for viewer in &mut viewers {
        viewer.gets("data: 1 visits so far\n\n");
    }
    get(&visits.url);
    for viewer in &mut viewers {
        viewer.gets("data: visit number 2\n\n");
    }
    assert_eq!(get(&format!("{}/nothing", visits.url)).0, 404);
}

/// A page that could turn a text of another user into HTML contains one of these. Seen in many chat demos: HTML in a
/// name or a text runs.
#[test]
fn no_page_turns_text_into_html() {
    for page in ["visits", "chat", "progress", "job_log"].into_iter().chain(cfg!(feature = "server").then_some("hub")) {
        let example = Example::start(page);
        let (_, html) = get(&example.url);
        assert!(html.contains("textContent"), "{page}");
        for dangerous in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!html.contains(dangerous), "{page}: {dangerous}");
        }
    }
}
