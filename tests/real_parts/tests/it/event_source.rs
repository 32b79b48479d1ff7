//! The client and servers of other projects: axum, better-sse, sse-starlette, Go's net/http, and nginx in front of hub.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use futures_util::StreamExt;
use real_parts::common::PATIENCE;
use real_parts::common::hub::Hub;
use real_parts::installed::{node, python, spawn};
use real_parts::proxy::{Site, Way};
use server_sent_events::client::{ConnectionError, ConnectionLost, EndCause, EventSource};
use server_sent_events::{RecvTimeoutError, TryRecvError};

/// Receives all nine events of a server, which breaks the connection after every third one.
#[track_caller]
fn resumes(url: &str) {
    let (sender, lost) = channel();
    let events = EventSource::builder(format!("{url}/redirect")).reconnection_time(Duration::from_millis(1));
    let hook = move |lost: &ConnectionLost| sender.send(lost.error.clone()).unwrap();
    let mut events = events.on_connection_lost(hook).connect().unwrap();
    for id in 1..=9 {
        let message = events.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{error} at {id}"));
        assert_eq!(message.data, format!("event {id} \u{2705}"));
        assert_eq!(&*message.id, id.to_string());
        assert_eq!(message.event_type, if id % 2 == 1 { "odd" } else { "message" });
    }
    assert_eq!(events.recv_timeout(PATIENCE), Err(RecvTimeoutError::Ended));
    assert_eq!(events.end_cause(), Some(&EndCause::NoContent));
    let errors: Vec<ConnectionError> = lost.try_iter().collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
}

/// A server as a process, killed when it is dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    #[track_caller]
    fn start(command: &mut Command) -> Self {
        let mut process = spawn(command);
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").expect("see its output above").to_owned();
        Self { process, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn better_sse() {
    resumes(&Server::start(&mut node(include_str!("../../clients/better_sse_server.mjs"))).url);
}

#[test]
fn sse_starlette() {
    resumes(&Server::start(&mut python("sse_starlette_server.py")).url);
}

#[test]
fn go_net_http() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("server");
    let mut go = Command::new("go");
    go.env("GOCACHE", folder.path()).env("GOFLAGS", "-mod=mod").args(["build", "-o"]).arg(&program);
    go.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/server.go")).stdin(Stdio::null());
    assert!(go.status().expect("go is missing: tests/run installs it").success());
    resumes(&Server::start(&mut Command::new(program)).url);
}

async fn events_after(headers: HeaderMap) -> Response {
    let last: u64 = headers.get("Last-Event-ID").map_or(0, |id| id.to_str().unwrap().parse().unwrap());
    if last >= 9 {
        return StatusCode::NO_CONTENT.into_response();
    }
    let event = |id: u64| {
        let event = Event::default().id(id.to_string()).data(format!("event {id} \u{2705}"));
        event.event(if id % 2 == 1 { "odd" } else { "message" }).retry(Duration::from_millis(1))
    };
    let events = futures_util::stream::iter((last + 1..=last + 3).map(event).map(Ok).collect::<Vec<_>>());
    // An error breaks the connection.
    let broken = futures_util::stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(std::io::Error::other("broken"))
    });
    Sse::new(events.chain(broken)).into_response()
}

#[test]
fn axum() {
    let (sender, address) = channel();
    thread::spawn(move || {
        let serve = async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let redirect = get(async || Redirect::temporary("/stream"));
            let router = Router::new().route("/stream", get(events_after)).route("/redirect", redirect);
            axum::serve(listener, router).await.unwrap();
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serve);
    });
    resumes(&format!("http://{}", address.recv_timeout(PATIENCE).unwrap()));
}

/// Waits until a channel behind the proxy has a watcher, and publishes to it.
#[track_caller]
fn publishes(site: &Site, data: &str) {
    real_parts::common::eventually("the client is subscribed", || site.post(Way::Http1, "/c", data) == 1);
}

/// Takes messages, of which none comes, until a connection is lost.
#[track_caller]
fn loses(events: &mut EventSource, lost: &Receiver<ConnectionError>) -> ConnectionError {
    let mut error = None;
    real_parts::common::eventually("a connection is lost", || {
        assert_eq!(events.try_recv(), Err(TryRecvError::Empty));
        error = lost.try_recv().ok();
        error.is_some()
    });
    error.unwrap()
}

#[test]
fn nginx_with_tls_in_front_of_hub() {
    let mut site = Site::start();
    let url = site.url(Way::Http2, "/c");
    assert!(url.starts_with("https://"));
    let (sender, lost) = channel();
    let builder = EventSource::builder(url).root_certificates(site.root_certificate());
    let builder =
        builder.reconnection_time(Duration::from_millis(1)).max_reconnection_delay(Duration::from_millis(500));
    let hook = move |lost: &ConnectionLost| sender.send(lost.error.clone()).unwrap();
    let mut events = builder.on_connection_lost(hook).connect().unwrap();
    publishes(&site, "one");
    let first = events.recv_timeout(PATIENCE).unwrap();
    assert!(first.data == "one" && !first.id.is_empty());

    // While hub is away, nginx closes connections without a response: see examples/nginx.conf.
    site.hub.process.kill().unwrap();
    for _ in 0..3 {
        loses(&mut events, &lost);
    }
    site.starts_hub_again();
    // It reconnects while the program takes messages.
    let mut taken = Vec::new();
    real_parts::common::eventually("the client is subscribed again", || {
        taken.extend(events.try_recv());
        site.post(Way::Http1, "/c", "two") == 1
    });
    while taken.len() < 2 {
        taken.push(events.recv_timeout(PATIENCE).unwrap());
    }
    // Another hub does not know the ID of the first.
    assert!(taken[0].is_gap());
    assert_eq!(taken[1].data, "two");
}

#[test]
fn a_certificate_of_another_root_is_rejected() {
    let (site, other) = (Site::start(), Site::start());
    for certificate in [None, Some(other.root_certificate())] {
        let (sender, lost) = channel();
        let mut builder = EventSource::builder(site.url(Way::Http2, "/c"));
        if let Some(certificate) = certificate {
            builder = builder.root_certificates(certificate);
        }
        let hook = move |lost: &ConnectionLost| sender.send(lost.error.clone()).unwrap();
        let mut events = builder.on_connection_lost(hook).connect().unwrap();
        let error = loses(&mut events, &lost).to_string();
        assert!(error.contains("certificate"), "{error}");
    }
}

#[test]
fn an_edge_follows_an_origin_behind_nginx_with_tls() {
    let site = Site::start();
    let origin = site.url(Way::Http2, "");
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("root.pem");
    std::fs::write(&roots, site.root_certificate()).unwrap();
    let arguments = ["--upstream".into(), origin.into(), "c".into(), "--upstream-ca".into(), roots.into_os_string()];
    let edge = Hub::new(arguments);
    edge.is_healthy();
    let mut events = EventSource::builder(edge.at("/c")).last_event_id("unknown").connect().unwrap();
    assert!(events.recv_timeout(PATIENCE).unwrap().is_gap());
    site.post(Way::Http2, "/c", "over TLS");
    assert_eq!(events.recv_timeout(PATIENCE).unwrap().data, "over TLS");
}

#[test]
fn an_edge_does_not_follow_an_origin_whose_certificate_another_root_has_signed() {
    let site = Site::start();
    let edge = Hub::new(["--upstream", &site.url(Way::Http2, ""), "c"]);
    // It was not there before the first attempt.
    edge.has_figure("sse_store_connected 0");
    real_parts::common::eventually("the edge says why it has no events", || {
        let (status, text) = edge.get("/healthz");
        status == 503 && text.contains("certificate")
    });
}
