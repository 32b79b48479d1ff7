//! Posts by clients of other projects to an EventServer: answered at once, and published once.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use real_parts::common::{Watchdog, gets_data, gets_nothing};
use real_parts::installed::{node, python, spawn};
use server_sent_events::server::{EventServer, HandlerError, Request, Response, RunningServer};
use server_sent_events::{Publisher, Subscription};

const MAX_BODY: usize = 4 << 20;

/// A server that publishes each post.
struct Server {
    server: RunningServer,
    events: Subscription,
    peers: Arc<Mutex<HashSet<SocketAddr>>>,
    _watchdog: Watchdog,
}

impl Server {
    fn start() -> Self {
        let publisher = Publisher::builder().heartbeat(None).max_queued_bytes(16 << 20).build().unwrap();
        let (events, peers) = (publisher.subscribe().unwrap(), Arc::new(Mutex::new(HashSet::new())));
        let seen = Arc::clone(&peers);
        let answer = move |request: &Request| -> Result<Response, HandlerError> {
            seen.lock().unwrap().insert(request.peer_addr());
            publisher.publish(request.body_text()?);
            Response::status(204)
        };
        let server = EventServer::builder().max_body(MAX_BODY).bind("127.0.0.1:0").unwrap().spawn(answer).unwrap();
        Self { server, events, peers, _watchdog: Watchdog::new("a client's posts") }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.server.local_addr())
    }

    /// Runs this client, which prints a line per response. Checks that each post was answered with 204 and published
    /// once, over this many connections at most.
    #[track_caller]
    fn takes(mut self, command: &mut Command, posts: &[&str], connections: usize) {
        let start = Instant::now();
        let output = spawn(command).wait_with_output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        println!("{:?}: {:?}", command.get_program(), start.elapsed());
        assert!(output.status.success(), "{command:?}: {printed}");
        assert_eq!(printed.lines().collect::<Vec<_>>(), vec!["{\"status\": 204}"; posts.len()], "{command:?}");
        for post in posts {
            gets_data(&mut self.events, post);
        }
        gets_nothing(&mut self.events);
        let peers = self.peers.lock().unwrap().len();
        assert!(peers <= connections, "{peers} connections");
    }
}

fn curl(server: &Server, arguments: &[&str]) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-q", "--silent", "--show-error", "--max-time", "20", "--write-out", "{\"status\": %{http_code}}\n"]);
    curl.args(arguments).arg(server.url());
    curl
}

#[test]
fn curl_that_offers_http_2() {
    let server = Server::start();
    let mut curl = curl(&server, &["--http2", "-d", "hello"]);
    server.takes(&mut curl, &["hello"], 1);
}

#[test]
fn curl_that_names_an_upgrade() {
    for upgrade in ["Connection: upgrade", "Connection: Upgrade\r\nUpgrade: websocket"] {
        let server = Server::start();
        let mut curl = curl(&server, &["-H", upgrade, "-d", "hello"]);
        server.takes(&mut curl, &["hello"], 1);
    }
}

#[test]
fn curl_with_chunks_and_with_http_1_0() {
    let server = Server::start();
    let mut command = curl(&server, &["-H", "Transfer-Encoding: chunked", "-d", "hello"]);
    server.takes(&mut command, &["hello"], 1);
    let server = Server::start();
    let mut command = curl(&server, &["--http1.0", "-d", "hello"]);
    server.takes(&mut command, &["hello"], 1);
}

/// curl waits with more than 1 MiB unless the server asks for the body. It would wait for longer than it may take.
#[test]
fn curl_that_waits_to_be_asked_for_its_body() {
    let server = Server::start();
    let body = "x".repeat(2 << 20);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &body).unwrap();
    let data = format!("@{}", file.path().display());
    let mut curl = curl(&server, &["-H", "Expect: 100-continue", "--data-binary", &data, "--expect100-timeout", "100"]);
    server.takes(&mut curl, &[&body], 1);
}

#[test]
fn javas_http_client() {
    let server = Server::start();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/Post.java");
    let mut java = Command::new("java");
    java.arg(program).arg(server.url());
    server.takes(&mut java, &["hello", "again", "in chunks", ""], 2);
}

#[test]
fn nodes_fetch() {
    let server = Server::start();
    let mut node = node(include_str!("../../clients/post.mjs"));
    node.arg(server.url());
    server.takes(&mut node, &["hello", "a=b+c", "in chunks"], 2);
}

#[test]
fn a_session_of_pythons_requests() {
    let server = Server::start();
    let mut python = python("requests_post.py");
    python.arg(server.url());
    let posts: Vec<String> = (0..100).map(|n| n.to_string()).chain(["in chunks".to_owned()]).collect();
    let posts: Vec<&str> = posts.iter().map(|post| &**post).collect();
    server.takes(&mut python, &posts, 1);
}
