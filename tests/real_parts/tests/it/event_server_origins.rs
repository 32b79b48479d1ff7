//! Real browsers: a page of another origin neither reads from an EventServer nor publishes to it, unless it is allowed.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use real_parts::browser::Browser;
use real_parts::common::eventually;
use real_parts::firefox::Firefox;
use real_parts::relay::{Relay, Visit};
use real_parts::trying_page::{TryingPage, WAYS, has_published};
use server_sent_events::server::{EventServer, EventServerBuilder, HandlerError, Request, Response, RunningServer};
use server_sent_events::{History, Publisher};

/// A server that publishes posted bodies, and a relay that records what the browser sends and gets.
struct Site {
    publisher: Publisher,
    relay: Relay,
    requests: Receiver<Request>,
    _server: RunningServer,
}

impl Site {
    fn with(settings: EventServerBuilder) -> Self {
        // With one request per connection, the relay records each.
        let settings = settings.max_body(1_000).max_requests_per_connection(1);
        let publisher = Publisher::builder().history(History::new()).build().unwrap();
        let (sender, requests) = channel();
        let (published, sender) = (publisher.clone(), Mutex::new(sender));
        let server = settings.bind("127.0.0.1:0").unwrap().spawn(move |request| answers(&published, &sender, request));
        let server = server.unwrap();
        Self { publisher, relay: Relay::to(server.local_addr()), requests, _server: server }
    }

    fn address(&self) -> SocketAddr {
        self.relay.address
    }

    /// Waits until at least this many requests of this method are answered, and returns them. The page does not see when
    /// its beacon has arrived.
    #[track_caller]
    fn visits(&self, method: &str, count: usize) -> Vec<Visit> {
        let visits = || -> Vec<Visit> {
            self.relay.visits().into_iter().filter(|visit| visit.head.starts_with(method)).collect()
        };
        eventually("the requests are answered", || {
            visits().len() >= count && visits().iter().all(|visit| !visit.answer.is_empty())
        });
        visits()
    }
}

fn answers(
    publisher: &Publisher,
    requests: &Mutex<Sender<Request>>,
    request: &Request,
) -> Result<Response, HandlerError> {
    // The test may be over.
    let _ = requests.lock().unwrap().send(request.clone());
    match (request.method(), request.path()) {
        ("GET", "/events") => Ok(publisher.subscription(()).initial_data(["secret"]).open().into()),
        ("GET", "/secret") => Ok(Response::text("secret")),
        ("POST" | "PUT", "/publish") => {
            publisher.publish(request.body_text()?);
            Ok(Response::text("published"))
        }
        _ => Ok(Response::status(404)?),
    }
}

#[track_caller]
fn a_foreign_page_can_do_nothing<B>(open: fn(&str) -> B) {
    let page = TryingPage::new();
    let sites = [EventServer::builder(), EventServer::builder().allow_origin("https://example.org")].map(Site::with);
    let _browser = open(&page.url(&sites.each_ref().map(Site::address)));
    for site in &sites {
        page.reports(&[]);
        let posts = site.visits("POST ", WAYS.len());
        // All of them arrived here; otherwise the browser would have refused them, not the server.
        assert_eq!(posts.len(), WAYS.len(), "{posts:?}");
        for post in &posts {
            assert!(post.answer.starts_with("HTTP/1.1 403 "), "{post:?}");
            assert!(
                post.header("Origin").is_some_and(|origin| origin == page.origin() || origin == "null"),
                "{post:?}"
            );
        }
        assert!(posts.iter().any(|post| post.header("Origin") == Some("null")), "{posts:?}");
        assert_eq!(site.publisher.stats().events_published, 0);
        let changes = site.requests.try_iter().filter(|request| !["GET", "OPTIONS"].contains(&request.method()));
        assert_eq!(changes.count(), 0);
    }
    // Once some origin is allowed, the server does not even answer what a foreign page would read. A browser sends no
    // origin with a `no-cors` GET, and hides the response.
    let reads = sites[1].visits("GET ", 4);
    let with_origin: Vec<&Visit> = reads.iter().filter(|read| read.header("Origin").is_some()).collect();
    assert_eq!(with_origin.len(), 3, "{reads:?}");
    assert!(with_origin.iter().all(|read| read.answer.starts_with("HTTP/1.1 403 ")), "{reads:?}");
}

/// What a page sees of a server that allows its origin.
const SEES: [(&str, &str); 5] = [
    ("read", "cors 200 secret"),
    ("events", "secret"),
    ("fetch", "cors 200"),
    ("put", "cors 200"),
    ("token", "cors 200"),
];

#[track_caller]
fn an_allowed_page_can_do_all<B>(open: fn(&str) -> B) {
    let page = TryingPage::new();
    let allows =
        || EventServer::builder().allow_origin(page.origin()).allow_null_origin().allow_header("Authorization");
    let sites = [allows(), allows().allow_credentials()].map(Site::with);
    let seen = sites.each_ref().map(|site| site.publisher.subscribe().unwrap());
    let _browser = open(&page.url(&sites.each_ref().map(Site::address)));
    page.reports(&SEES);
    page.reports(&[&SEES[..], &[("eventsWithCookies", "secret"), ("tokenAndCookies", "cors 200")]].concat());

    for (site, (seen, has_cookies)) in sites.iter().zip(seen.into_iter().zip([false, true])) {
        let posts = site.visits("POST ", WAYS.len() + 1);
        assert!(posts.iter().all(|post| post.answer.starts_with("HTTP/1.1 200 ")), "{posts:?}");
        site.publisher.close();
        let events: String = seen.collect();
        for way in WAYS.into_iter().chain(["put", "token"]).chain(has_cookies.then_some("token-and-cookies")) {
            has_published(&events, way);
        }
        let requests: Vec<Request> = site.requests.try_iter().collect();
        let header_of = |way: &str, name| {
            let request = requests.iter().find(|request| request.body() == way.as_bytes());
            request.and_then(|request| request.header(name))
        };
        assert_eq!((header_of("fetch", "Authorization"), header_of("fetch", "Cookie")), (None, None));
        assert_eq!((header_of("token", "Authorization"), header_of("token", "Cookie")), (Some("Bearer x"), None));
        let both = (header_of("token-and-cookies", "Authorization"), header_of("token-and-cookies", "Cookie"));
        assert_eq!(both, if has_cookies { (Some("Bearer x"), Some("user=ada")) } else { (None, None) });
        // A browser sends cookies before it knows whether the page may see the response.
        let streams = requests.iter().filter(|request| request.path() == "/events");
        assert_eq!(streams.map(|request| request.header("Cookie")).collect::<Vec<_>>(), [None, Some("user=ada")]);
    }
}

#[test]
fn in_chromium_a_foreign_page_neither_reads_nor_publishes() {
    a_foreign_page_can_do_nothing(Browser::with);
}

#[test]
fn in_firefox_a_foreign_page_neither_reads_nor_publishes() {
    a_foreign_page_can_do_nothing(Firefox::opens);
}

#[test]
fn in_chromium_an_allowed_page_reads_and_publishes_with_its_token_and_with_cookies_where_allowed() {
    an_allowed_page_can_do_all(Browser::with);
}

#[test]
fn in_firefox_an_allowed_page_reads_and_publishes_with_its_token_and_with_cookies_where_allowed() {
    an_allowed_page_can_do_all(Firefox::opens);
}
