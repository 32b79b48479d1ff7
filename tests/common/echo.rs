//! An EventServer that accepts bodies, sends each one back, and records what its handler received.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};

use server_sent_events::Publisher;
use server_sent_events::server::{EventServer, EventServerBuilder, HandlerError, Request, Response, RunningServer};

use super::http::Client;
use super::server::{ParsedResponse, reads_response};
use super::{Watchdog, eventually};

/// Returns a `POST` of this path, with these header lines and this body.
pub fn post(path: &str, lines: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n{body}")
}

/// Returns a `POST` of this path with this body and its length.
pub fn post_whole(path: &str, body: &str) -> String {
    post(path, &format!("Content-Length: {}", body.len()), body)
}

/// Returns a `GET` of this path.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A running server. `/stream` is an event stream, `/wait` answers once the test [opens](Self::open) the gate, `/none`
/// has status 204. Every other path returns the request's body.
pub struct Echo {
    pub server: RunningServer,
    pub publisher: Publisher,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The method, the target and the body of each request.
    requests: Mutex<Vec<String>>,
    gate: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Default)]
struct Gate {
    is_open: bool,
    waiting: usize,
}

impl Shared {
    fn wait(&self) {
        let mut gate = self.gate.lock().unwrap();
        gate.waiting += 1;
        let (mut gate, _) = self.changed.wait_timeout_while(gate, Watchdog::LIMIT, |gate| !gate.is_open).unwrap();
        gate.waiting -= 1;
        let is_open = gate.is_open;
        drop(gate);
        assert!(is_open, "the gate stayed closed");
    }

    fn answer(&self, publisher: &Publisher, request: &Request) -> Result<Response, HandlerError> {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        self.requests.lock().unwrap().push(format!("{} {} {body}", request.method(), request.target()));
        match request.path() {
            "/stream" => return Ok(publisher.subscribe()?.into()),
            "/wait" => self.wait(),
            "/none" => return Response::status(204),
            _ => {}
        }
        Ok(Response::text(body))
    }
}

impl Echo {
    #[track_caller]
    pub fn serve(settings: EventServerBuilder) -> Self {
        let publisher = Publisher::builder().heartbeat(None).build().unwrap();
        let shared = Arc::new(Shared::default());
        let (streams, answers) = (publisher.clone(), Arc::clone(&shared));
        let server = settings.bind("127.0.0.1:0").unwrap();
        let server = server.spawn(move |request: &Request| answers.answer(&streams, request)).unwrap();
        Self { server, publisher, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// Opens a connection and sends this on it.
    pub fn send(&self, request: impl AsRef<[u8]>) -> Client {
        let mut client = self.connect();
        client.send(&request);
        client
    }

    /// Returns the requests that the handler received since the last call: method, target and body.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
    }

    /// Returns the number of handlers that wait for the gate.
    pub fn waiting(&self) -> usize {
        self.shared.gate.lock().unwrap().waiting
    }

    #[track_caller]
    pub fn waits(&self, handlers: usize) {
        eventually(&format!("{handlers} handlers wait"), || self.waiting() == handlers);
    }

    /// Opens the gate for all handlers that wait for it now or later.
    pub fn open(&self) {
        self.shared.gate.lock().unwrap().is_open = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // No handler may wait longer than the test.
        self.open();
    }
}

/// Checks that the next response has this status and this body.
#[track_caller]
pub fn responds(client: &mut Client, status: u16, body: &str) -> ParsedResponse {
    let response = reads_response(client, false);
    // A large body is not printed.
    let begins = |text: &str| text.chars().take(200).collect::<String>();
    assert_eq!((response.status, begins(&response.body), response.body.len()), (status, begins(body), body.len()));
    assert!(response.body == body, "the bodies differ after the same beginning");
    response
}

/// Checks that the next response has this status, and that the server then closes the connection. Returns its text.
#[track_caller]
pub fn rejects(client: &mut Client, status: u16) -> String {
    let response = reads_response(client, false);
    assert_eq!((response.status, response.header("Connection")), (status, Some("close")), "{}", response.body);
    response.body
}

/// Reads a rejection after which the client may try again.
pub fn rejects_for_now(client: &mut Client, status: u16) {
    let response = reads_response(client, false);
    assert_eq!((response.status, response.header("Retry-After")), (status, Some("1")), "{}", response.body);
}

/// Returns a server with the default settings that accepts bodies up to this size.
pub fn with_bodies(max_body: usize) -> EventServerBuilder {
    EventServer::builder().max_body(max_body)
}
