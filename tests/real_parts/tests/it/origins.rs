//! Real browsers: a page of another origin neither reads from a server with an `OriginPolicy` nor publishes to it.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use real_parts::browser::Browser;
use real_parts::common::PATIENCE;
use real_parts::firefox::Firefox;
use real_parts::trying_page::{TryingPage, WAYS, has_published};
use server_sent_events::adapter::tiny_http as sse;
use server_sent_events::{History, OriginPolicy, OriginPolicyBuilder, Publisher};
use tiny_http::{Header, Method, Request, Response};

/// A request with a method that changes something, and the status of its response.
type Change = (String, Option<String>, u16);

/// A server that publishes posted bodies, if the policy allows it.
struct Site {
    address: SocketAddr,
    publisher: Publisher,
    changes: Receiver<Change>,
    stop_handle: sse::StopHandle,
    thread: Option<JoinHandle<()>>,
}

impl Site {
    fn with(settings: OriginPolicyBuilder) -> Self {
        let server = sse::Server::bind("127.0.0.1:0").unwrap();
        let policy = settings.build(server.local_addr().unwrap()).unwrap();
        let publisher = Publisher::builder().history(History::new()).build().unwrap();
        let (address, stop_handle) = (server.local_addr().unwrap(), server.stop_handle());
        let (sender, changes) = channel();
        let published = publisher.clone();
        let thread = thread::spawn(move || {
            server.serve(4, move |request| answers(&published, &policy, &sender, request)).unwrap();
        });
        Self { address, publisher, changes, stop_handle, thread: Some(thread) }
    }

    /// Waits for this many changes.
    #[track_caller]
    fn changes(&self, count: usize) -> Vec<Change> {
        (0..count).map(|_| self.changes.recv_timeout(PATIENCE).expect("a request")).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.publisher.close();
        self.stop_handle.stop();
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn answers(
    publisher: &Publisher,
    policy: &OriginPolicy,
    changes: &Sender<Change>,
    mut request: Request,
) -> io::Result<()> {
    let origin = request.headers().iter().find(|header| header.field.equiv("Origin"));
    let origin = origin.map(|header| header.value.to_string());
    let method = request.method().clone();
    let response = match sse::check_origin(&request, policy) {
        Err(refused) => Response::from_string(refused.to_string()).with_status_code(refused.status()),
        Ok(()) => match (&method, request.url()) {
            (Method::Get, "/events") => {
                return publisher.subscription(()).initial_data(["secret"]).open().unwrap().respond(request);
            }
            (Method::Get, "/") => page(include_str!("../../../../examples/visits/page.html")),
            (Method::Get, _) => Response::from_string("secret"),
            (Method::Post | Method::Put, "/publish") => {
                let body = sse::read_body(&mut request, 1_000).unwrap();
                publisher.publish(String::from_utf8(body).unwrap());
                Response::from_string("published")
            }
            _ => Response::from_string("not here").with_status_code(404),
        },
    };
    if !matches!(method, Method::Get | Method::Head | Method::Options) {
        changes.send((method.to_string(), origin, response.status_code().0)).unwrap();
    }
    request.respond(response)
}

fn page(html: &str) -> Response<io::Cursor<Vec<u8>>> {
    Response::from_string(html).with_header(Header::from_bytes("Content-Type", "text/html").unwrap())
}

/// Opens the page in a browser. Returns the statuses of its posts, and the data of all events that it published.
#[track_caller]
fn tries<B>(
    settings: fn(OriginPolicyBuilder, String) -> OriginPolicyBuilder,
    open: fn(&str) -> B,
) -> (Vec<u16>, String) {
    let page = TryingPage::new();
    let origin = page.origin();
    let site = Site::with(settings(OriginPolicy::builder(), origin.clone()));
    let seen = site.publisher.subscribe().unwrap();
    let _browser = open(&page.url(&[site.address]));
    // Without CORS headers a page sees none of this, wherever it comes from.
    page.reports(&[]);
    // All of them arrived here; otherwise the browser would have refused them, not the server.
    let changes = site.changes(WAYS.len());
    assert!(site.changes.try_recv().is_err());
    for (method, page, _) in &changes {
        assert_eq!(method, "POST");
        assert!(page.as_deref().is_some_and(|page| page == origin || page == "null"), "{changes:?}");
    }
    assert!(changes.iter().any(|(_, page, _)| page.as_deref() == Some("null")), "{changes:?}");
    site.publisher.close();
    let events: String = seen.collect();
    (changes.into_iter().map(|(.., status)| status).collect(), events)
}

#[track_caller]
fn a_foreign_page_can_do_nothing<B>(open: fn(&str) -> B) {
    let (statuses, events) = tries(|settings, _| settings, open);
    assert_eq!(statuses, [403; WAYS.len()]);
    assert!(!events.contains("data:"), "{events}");
}

/// The other test would pass with requests that publish nothing anyway.
#[track_caller]
fn a_page_that_is_allowed_publishes_in_all_these_ways<B>(open: fn(&str) -> B) {
    let (statuses, events) = tries(|settings, origin| settings.allow_origin(origin).allow_null_origin(), open);
    assert_eq!(statuses, [200; WAYS.len()]);
    for way in WAYS {
        has_published(&events, way);
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
fn in_chromium_an_allowed_page_publishes() {
    a_page_that_is_allowed_publishes_in_all_these_ways(Browser::with);
}

#[test]
fn in_firefox_an_allowed_page_publishes() {
    a_page_that_is_allowed_publishes_in_all_these_ways(Firefox::opens);
}

#[test]
fn a_page_of_the_server_itself_publishes_by_fetch_and_by_form() {
    let site = Site::with(OriginPolicy::builder());
    let mut seen = site.publisher.subscribe().unwrap();
    let (_browser, tab) = Browser::with(&format!("http://{}/", site.address));
    tab.until("document.body !== null && location.protocol === 'http:'");
    let origin = Some(format!("http://{}", site.address));
    tab.does("fetch('/publish', { method: 'POST', body: 'by fetch' });");
    assert_eq!(site.changes(1), [("POST".into(), origin.clone(), 200)]);
    assert!(seen.by_ref().any(|event| event.starts_with("data: by fetch\n")));
    tab.does("document.body.innerHTML = '<form method=post action=/publish><input name=data value=form></form>';");
    tab.does("document.forms[0].submit();");
    assert_eq!(site.changes(1), [("POST".into(), origin, 200)]);
    assert!(seen.any(|event| event.starts_with("data: data=form\n")));
}

/// By DNS rebinding, a page has the server's address under a name of its own: the browser treats them as one origin.
#[test]
fn a_page_whose_name_leads_to_the_server_neither_reads_nor_publishes() {
    let site = Site::with(OriginPolicy::builder());
    let port = site.address.port();
    // Chromium takes every name below `localhost` for this machine.
    let (_browser, tab) = Browser::with(&format!("http://rebound.localhost:{port}/"));
    tab.until("document.body !== null && location.hostname === 'rebound.localhost'");
    tab.shows(
        "body",
        &["host \"rebound.localhost:PORT\" not allowed: use localhost, 127.0.0.1 or [::1]"
            .replace("PORT", &port.to_string())
            .as_str()],
    );
    tab.does("fetch('/secret').then(answer => answer.text()).then(text => { window.read = text; });");
    tab.until("String(window.read).startsWith('host \"rebound.localhost:')");
    tab.does("fetch('/publish', { method: 'POST', body: 'evil' });");
    assert_eq!(site.changes(1), [("POST".into(), Some(format!("http://rebound.localhost:{port}")), 403)]);
    site.publisher.close();
    assert_eq!(site.publisher.stats().events_published, 0);
}
