//! A real browser, and a page whose streams come from another origin: EventServer allows only the configured origins.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use real_parts::browser::{Browser, Tab};
use real_parts::common::http::Running;
use real_parts::common::{eventually, free_address};
use real_parts::relay::Relay;
use server_sent_events::server::{EventServer, EventServerBuilder, Request, Response, RunningServer};
use server_sent_events::{Event, History, Publisher};

/// Starts a server of an empty page that does not use this crate.
fn pages() -> Running {
    Running::new(|request| {
        let html = tiny_http::Header::from_bytes("Content-Type", "text/html").unwrap();
        request.respond(tiny_http::Response::from_string("<body>").with_header(html)).unwrap();
    })
}

fn origin(pages: &Running) -> String {
    format!("http://{}", pages.address)
}

/// A tab with the page, which subscribes to this address.
fn listens(browser: &Browser, pages: &Running, to: &str, options: &str) -> Tab {
    let tab = browser.opens(&origin(pages));
    tab.until("document.body !== null && location.protocol === 'http:'");
    tab.does("document.cookie = 'user=ada'");
    tab.does(&format!(
        "window.heard = []; window.source = new EventSource('http://{to}/', {options}); \
         source.onmessage = event => heard.push(event.data);"
    ));
    tab
}

/// Returns a publisher whose clients reconnect soon.
fn publisher() -> Publisher {
    Publisher::builder().history(History::new()).build().unwrap()
}

fn soon(data: &str) -> Event {
    Event::new(data).retry(Duration::from_millis(100)).unwrap()
}

fn serve(settings: EventServerBuilder, address: &str, publisher: &Publisher) -> (RunningServer, Receiver<Request>) {
    let publisher = publisher.clone();
    let (sees, seen) = channel();
    let sees = Mutex::new(sees);
    let answer = move |request: &Request| -> Response {
        // The client may already have closed the connection.
        let _ = sees.lock().unwrap().send(request.clone());
        publisher.subscription(()).last_event_id(request.last_event_id()).open().into()
    };
    (settings.bind(address).unwrap().spawn(answer).unwrap(), seen)
}

fn allows(pages: &Running) -> EventServerBuilder {
    EventServer::builder().allow_origin(origin(pages))
}

const FREE: &str = "127.0.0.1:0";
const OPEN: &str = "source.readyState === 1";
const CLOSED: &str = "source.readyState === 2";

#[test]
fn a_page_of_an_allowed_origin_listens_and_misses_nothing_while_its_connection_was_broken() {
    let (browser, pages, publisher) = (Browser::new(), pages(), publisher());
    let (server, _) = serve(allows(&pages), FREE, &publisher);
    let relay = Relay::to(server.local_addr());
    let tab = listens(&browser, &pages, &relay.address.to_string(), "{}");
    tab.until(OPEN);
    let receipt = publisher.publish(soon("before"));
    tab.until("heard.join() === 'before'");
    relay.holds();
    relay.cuts_within("cut short");
    publisher.publish("cut short");
    eventually("the page reconnects", || relay.visits().len() == 2);
    publisher.publish("while it was away");
    relay.lets_go();
    tab.until("heard.join() === 'before,cut short,while it was away'");
    let visits = relay.visits();
    assert_eq!(visits[1].header("Last-Event-ID"), receipt.id());
    assert_eq!(visits[1].header("Origin"), Some(&*origin(&pages)));
    assert!(visits[1].answer.contains(&format!("Access-Control-Allow-Origin: {}\r\n", origin(&pages))));
}

#[test]
fn a_page_of_an_allowed_origin_reconnects_to_a_server_that_was_stopped_and_started() {
    let (browser, pages, publisher) = (Browser::new(), pages(), publisher());
    let address = free_address().to_string();
    let (server, _) = serve(allows(&pages), &address, &publisher);
    let tab = listens(&browser, &pages, &address, "{}");
    tab.until(OPEN);
    let id = publisher.publish(soon("before")).id().map(str::to_owned);
    tab.until("heard.join() === 'before'");
    server.stop().unwrap();
    publisher.publish("meanwhile");
    tab.until("source.readyState === 0");
    let (_server, seen) = serve(allows(&pages), &address, &publisher);
    tab.until("heard.join() === 'before,meanwhile'");
    assert_eq!(seen.recv().unwrap().last_event_id(), id.as_deref());
    publisher.publish("after");
    tab.until("heard.join() === 'before,meanwhile,after'");
}

#[test]
fn a_page_of_another_origin_is_refused_and_does_not_reconnect() {
    let (browser, pages, publisher) = (Browser::new(), pages(), publisher());
    let settings = EventServer::builder().allow_origin("https://example.org");
    let (server, seen) = serve(settings, FREE, &publisher);
    let relay = Relay::to(server.local_addr());
    let tab = listens(&browser, &pages, &relay.address.to_string(), "{}");
    tab.until(CLOSED);
    assert_eq!((relay.visits().len(), publisher.stats().subscribers), (1, 0));
    eventually("the response has arrived", || relay.visits()[0].answer.starts_with("HTTP/1.1 403 "));
    assert!(seen.try_recv().is_err(), "the handler was called");
}

/// If no origin is allowed, the server refuses none: the browser keeps the response from the page.
#[test]
fn without_cors_a_page_of_another_origin_receives_nothing() {
    let (browser, pages, publisher) = (Browser::new(), pages(), publisher());
    let (server, _) = serve(EventServer::builder(), FREE, &publisher);
    let tab = listens(&browser, &pages, &server.local_addr().to_string(), "{}");
    tab.until(CLOSED);
    tab.until("heard.length === 0");
    eventually("it has closed its connection", || publisher.stats().subscribers == 0);
}

#[test]
fn a_page_reconnects_later_when_the_server_is_full() {
    let (browser, pages, publisher) = (Browser::new(), pages(), publisher());
    let (server, _) = serve(allows(&pages).max_streams(1), FREE, &publisher);
    let address = server.local_addr().to_string();
    let first = listens(&browser, &pages, &address, "{}");
    first.until(OPEN);
    let second = listens(&browser, &pages, &address, "{}");
    second.until("source.readyState === 0");
    first.closes();
    eventually("there is room", || publisher.stats().subscribers == 0);
    // In five to ten seconds.
    second.until(OPEN);
}

#[test]
fn cookies_come_along_only_where_that_is_allowed() {
    let (browser, pages, publisher) = (Browser::new(), pages(), publisher());
    let cookie = |request: Request| request.header("Cookie").map(str::to_owned);
    let (server, seen) = serve(allows(&pages).allow_credentials(), FREE, &publisher);
    let address = server.local_addr().to_string();
    listens(&browser, &pages, &address, "{ withCredentials: true }").until(OPEN);
    assert_eq!(cookie(seen.recv().unwrap()).as_deref(), Some("user=ada"));
    listens(&browser, &pages, &address, "{}").until(OPEN);
    assert_eq!(cookie(seen.recv().unwrap()), None);

    let (server, _) = serve(allows(&pages), FREE, &publisher);
    listens(&browser, &pages, &server.local_addr().to_string(), "{ withCredentials: true }").until(CLOSED);
}

#[test]
fn a_page_that_sets_headers_passes_its_preflight() {
    let (browser, pages, publisher) = (Browser::new(), pages(), publisher());
    let (server, seen) = serve(allows(&pages), FREE, &publisher);
    let relay = Relay::to(server.local_addr());
    let tab = browser.opens(&origin(&pages));
    tab.until("document.body !== null && location.protocol === 'http:'");
    let headers = "{ 'Last-Event-ID': 'x'.repeat(200), 'Cache-Control': 'no-cache' }";
    tab.does(&format!(
        "fetch('http://{}/', {{ headers: {headers} }}).then(answer => {{ window.status = answer.status; }});",
        relay.address
    ));
    tab.until("String(window.status) === '200'");
    assert!(relay.visits()[0].head.starts_with("OPTIONS "), "{:?}", relay.visits());
    assert_eq!(seen.recv().unwrap().last_event_id(), Some(&*"x".repeat(200)));
}
