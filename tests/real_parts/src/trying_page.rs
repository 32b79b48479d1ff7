//! A page of another origin that tries everything a page can do to a server, for any browser.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;
use server_sent_events::adapter::tiny_http::read_body;
use tiny_http::{Header, Response};

use crate::common::PATIENCE;
use crate::common::http::Running;

/// The names under which the page publishes with requests that a browser sends whether or not the server allows them.
/// It withholds the others, whose preflight is refused.
pub const WAYS: [&str; 7] = ["fetch", "no-cors", "no-referrer", "beacon", "form", "plain-form", "sandboxed"];

/// What the page reports of a server that lets it read nothing. It cannot see which of its requests have published.
pub const BLIND: [(&str, &str); 14] = [
    ("read", "failed"),
    ("readOpaque", "opaque 0 "),
    ("events", "closed"),
    ("eventsWithCookies", "closed"),
    ("fetch", "failed"),
    ("noCors", "opaque 0"),
    ("noReferrer", "opaque 0"),
    ("put", "failed"),
    ("token", "failed"),
    ("tokenAndCookies", "failed"),
    ("beacon", "true"),
    ("form", "sent"),
    ("plainForm", "sent"),
    ("sandboxed", "opaque 0"),
];

/// The server of the page, which does not use this crate's policies.
pub struct TryingPage {
    server: Running,
    reports: Receiver<Value>,
}

impl TryingPage {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let (sender, reports) = channel();
        let server = Running::new(move |mut request| {
            if request.url() == "/report" {
                let body = read_body(&mut request, 10_000).unwrap();
                sender.send(serde_json::from_slice(&body).unwrap()).unwrap();
            }
            let html = Header::from_bytes("Content-Type", "text/html").unwrap();
            let page = Response::from_string(include_str!("trying_page.html")).with_header(html);
            drop(request.respond(page));
        });
        Self { server, reports }
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// Returns the URL under which the page tries these servers, one after the other.
    pub fn url(&self, targets: &[SocketAddr]) -> String {
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        format!("{}/?{}", self.origin(), targets.join(","))
    }

    /// Waits for the report about the next server, and checks it. `seen` has what differs from `BLIND`.
    #[track_caller]
    pub fn reports(&self, seen: &[(&str, &str)]) {
        let report = self.reports.recv_timeout(4 * PATIENCE).expect("a report of the page");
        for (way, blind) in BLIND {
            let expected = seen.iter().find(|(own, _)| *own == way).map_or(blind, |(_, expected)| expected);
            assert_eq!(report[way], expected, "{way}: {report}");
        }
    }
}

/// Checks that the page has published under this name.
#[track_caller]
pub fn has_published(events: &str, way: &str) {
    let is_published = |data: &str| data == way || data.trim_end() == format!("data={way}");
    let mut published = events.lines().filter_map(|line| line.strip_prefix("data: "));
    assert!(published.any(is_published), "{way}: {events}");
}
