//! The servers under test, each with the same site.

use std::any::Any;
use std::net::SocketAddr;
use std::time::Duration;

use crate::common::http::{Client, Events};
use server_sent_events::{Publisher, PublisherBuilder, ResponseHeaders};

/// The page's origin that a site with CORS allows.
pub const ORIGIN: &str = "https://example.org";

/// The maximum number of bytes of a body that the site reads.
#[cfg(any(feature = "tiny_http", feature = "rouille"))]
pub const MAX_BODY: usize = 3_000;

/// The shortest time after which a refused client reconnects. The longest is twice that.
pub const RETRY: Duration = Duration::from_secs(5);

/// The routes of a server under test:
///
/// * `/busy` is refused.
/// * `/last-event-id` returns the ID that the request has, as `Debug` formats it.
/// * `/echo` returns the request's body. EventServer does not have it.
/// * Any other path is a stream of the channel of that name, slash included.
pub struct Site {
    publisher: Publisher,
    /// Whether pages of `ORIGIN` may read all this, with credentials.
    has_cors: bool,
    /// The headers that an adapter adds to streams and refusals.
    headers: ResponseHeaders,
}

impl Site {
    /// Without heartbeats: only events push events through.
    pub fn new() -> Self {
        Self::with(Publisher::builder().heartbeat(None))
    }

    pub fn with(settings: PublisherBuilder) -> Self {
        Self { publisher: settings.build().unwrap(), has_cors: false, headers: ResponseHeaders::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers = self.headers.with(name, value).unwrap();
        self
    }

    pub fn cors(mut self) -> Self {
        self.has_cors = true;
        let site = self.header("Access-Control-Allow-Origin", ORIGIN);
        site.header("Access-Control-Allow-Credentials", "true").header("Vary", "Origin")
    }
}

/// Starts a server with this site.
pub type Start = fn(Site) -> UnderTest;

/// A running server, stopped when it is dropped.
pub struct UnderTest {
    pub publisher: Publisher,
    address: SocketAddr,
    _server: Box<dyn Any>,
}

impl Drop for UnderTest {
    /// A stream that has not ended could keep the server from stopping.
    fn drop(&mut self) {
        self.publisher.close();
    }
}

impl UnderTest {
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Opens a connection and sends a request with these headers on it.
    pub fn ask(&self, method: &str, target: &str, headers: &str) -> Client {
        let mut client = self.connect();
        client.send(&format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"));
        client
    }

    pub fn get(&self, target: &str) -> Client {
        self.ask("GET", target, "")
    }

    /// Opens a stream and reads its beginning.
    #[track_caller]
    pub fn opened(&self, target: &str) -> Client {
        let mut client = self.get(target);
        client.reads_until(":\n");
        client
    }

    /// Opens a stream as a real client reads it.
    #[track_caller]
    pub fn events(&self, target: &str) -> Events {
        Events::get(&format!("http://{}{target}", self.address))
    }

    /// Opens a stream and reads its first comment.
    #[track_caller]
    pub fn begun(&self, target: &str) -> Events {
        let mut events = self.events(target);
        events.gets(":\n");
        events
    }
}

#[cfg(feature = "tiny_http")]
pub fn tiny_http(site: Site) -> UnderTest {
    use ::tiny_http::Response;
    use server_sent_events::adapter::tiny_http::{last_event_id, read_body};

    let Site { publisher, headers, .. } = site;
    let answers = publisher.clone();
    let server = crate::common::http::Running::new(move |mut request| {
        let path = request.url().split('?').next().unwrap().to_owned();
        match &*path {
            "/busy" => answers.respond_busy_with_headers(request, RETRY, &headers).unwrap(),
            "/last-event-id" => {
                let id = last_event_id(&request);
                request.respond(Response::from_string(format!("{id:?}"))).unwrap();
            }
            "/echo" => {
                let (status, text) = match read_body(&mut request, MAX_BODY) {
                    Ok(body) => (200, String::from_utf8(body).unwrap()),
                    Err(error) => (error.status(), error.to_string()),
                };
                request.respond(Response::from_string(text).with_status_code(status)).unwrap();
            }
            channel => answers.subscription(()).channels(channel).respond_with_headers(request, &headers).unwrap(),
        }
    });
    UnderTest { publisher, address: server.address, _server: Box::new(server) }
}

#[cfg(feature = "rouille")]
pub fn rouille(site: Site) -> UnderTest {
    use ::rouille::Response;
    use server_sent_events::adapter::rouille::{last_event_id, read_body, respond_busy_with_headers};

    let Site { publisher, headers, .. } = site;
    let answers = publisher.clone();
    let server = crate::adapter::rouille::Running::new(move |request| match &*request.url() {
        "/busy" => respond_busy_with_headers(RETRY, &headers),
        "/last-event-id" => Response::text(format!("{:?}", last_event_id(request))),
        "/echo" => match read_body(request, MAX_BODY) {
            Ok(body) => Response::text(String::from_utf8(body).unwrap()),
            Err(error) => Response::text(error.to_string()).with_status_code(error.status()),
        },
        channel => answers.subscription(()).channels(channel).respond_to_with_headers(request, &headers),
    });
    UnderTest { publisher, address: server.address, _server: Box::new(server) }
}

#[cfg(feature = "server")]
pub fn event_server(site: Site) -> UnderTest {
    use server_sent_events::server::{EventServer, Request, Response};

    let mut settings = EventServer::builder();
    if site.has_cors {
        settings = settings.allow_origin(ORIGIN).allow_credentials();
    }
    let publisher = site.publisher;
    let answers = publisher.clone();
    let handler = move |request: &Request| match request.path() {
        "/busy" => Response::retry_later(),
        "/last-event-id" => Response::text(format!("{:?}\n", request.last_event_id())),
        channel => answers.subscription(()).channels(channel).last_event_id(request.last_event_id()).open().into(),
    };
    let server = settings.bind("127.0.0.1:0").unwrap().spawn(handler).unwrap();
    UnderTest { publisher, address: server.local_addr(), _server: Box::new(server) }
}
