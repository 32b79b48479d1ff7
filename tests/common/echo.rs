//! An EventServer that accepts bodies, sends each one back, and records what its handler got.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};

use server_sent_events::Publisher;
use server_sent_events::server::{EventServer, EventServerBuilder, HandlerError, Request, Response, RunningServer};

use super::http::Client;
#[cfg(target_os = "linux")]
use super::process::{alone, held, is_back_at};
use super::server::{Said, reads_response};
use super::{PATIENCE, eventually};

/// A `POST` of this path, with these header lines and this body.
pub fn post(path: &str, lines: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n{body}")
}

/// A `POST` of this path whose body has its length.
pub fn post_whole(path: &str, body: &str) -> String {
    post(path, &format!("Content-Length: {}", body.len()), body)
}

/// A `GET` of this path.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A running server. `/stream` is an event stream, `/wait` answers once the test [opens](Self::open) the gate, `/none`
/// has status 204. Everything else is answered with the body that arrived.
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
        let (mut gate, _) = self.changed.wait_timeout_while(gate, PATIENCE, |gate| !gate.is_open).unwrap();
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

    /// A connection on which this has been sent.
    pub fn send(&self, request: impl AsRef<[u8]>) -> Client {
        let mut client = self.connect();
        client.send(&request);
        client
    }

    /// The requests that the handler got since the last call: method, target and body.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
    }

    /// The number of handlers that wait for the gate.
    pub fn waiting(&self) -> usize {
        self.shared.gate.lock().unwrap().waiting
    }

    #[track_caller]
    pub fn waits(&self, handlers: usize) {
        eventually(&format!("{handlers} handlers wait"), || self.waiting() == handlers);
    }

    /// Lets all handlers continue that wait now or later.
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

/// The next response has this status and this body.
#[track_caller]
pub fn responds(client: &mut Client, status: u16, body: &str) -> Said {
    let said = reads_response(client, false);
    // A large body is not printed.
    let begins = |text: &str| text.chars().take(200).collect::<String>();
    assert_eq!((said.status, begins(&said.body), said.body.len()), (status, begins(body), body.len()));
    assert!(said.body == body, "it begins the same");
    said
}

/// The next response has this status, and the server closes the connection after it. Returns its text.
#[track_caller]
pub fn rejects(client: &mut Client, status: u16) -> String {
    let said = reads_response(client, false);
    assert_eq!((said.status, said.header("Connection")), (status, Some("close")), "{}", said.body);
    said.body
}

/// Runs this with a server of these settings, alone. Checks that it leaves no thread, no descriptor and no subscriber
/// behind, and that the server still answers.
#[cfg(target_os = "linux")]
#[track_caller]
pub fn leaves_nothing<T>(settings: EventServerBuilder, test: impl FnOnce(&Echo) -> T) -> T {
    let _alone = alone();
    let before = held();
    let server = Echo::serve(settings);
    let descriptors = held().1;
    let result = test(&server);
    eventually("threads and descriptors are where they were", || held().0 <= most_threads() && held().1 <= descriptors);
    eventually("nobody is subscribed", || server.publisher.stats().subscribers == 0);
    responds(&mut server.send(get("/alive")), 200, "");
    drop(server);
    eventually("the server has left nothing behind", || is_back_at(before));
    result
}

/// The event loop, four handlers, the thread that ends streams, the supervisor, and a writer thread per processor.
pub fn most_threads() -> usize {
    1 + 4 + 1 + 1 + std::thread::available_parallelism().unwrap().get()
}

/// A server with the default settings that accepts bodies up to this size.
pub fn with_bodies(max_body: usize) -> EventServerBuilder {
    EventServer::builder().max_body(max_body)
}
