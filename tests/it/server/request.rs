//! What a handler sees of a request.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use super::*;
use crate::common::http::Client;

/// Returns what the handler sees of this request.
#[track_caller]
fn seen<T: Send + 'static>(request: &str, look: impl Fn(&Request) -> T + Send + Sync + 'static) -> T {
    let (sees, sight) = channel();
    let sees: Mutex<Sender<T>> = Mutex::new(sees);
    let server = answers(move |request| {
        sees.lock().unwrap().send(look(request)).unwrap();
        Response::do_not_reconnect()
    });
    assert_eq!(response_to(server.local_addr(), request).status, 204);
    sight.recv().unwrap()
}

#[test]
fn the_path_and_the_query_are_decoded() {
    let look = |request: &Request| {
        let query: Vec<(String, String)> =
            request.query().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        (request.path().to_owned(), query, request.query_value("b"), request.query_value("c"))
    };
    let (path, query, second, none) = seen(&get("/a%20b/%C3%A4?a=1%202&b=x+y&b=z&d"), look);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(path, "/a b/\u{e4}");
    assert_eq!(query, [pair("a", "1 2"), pair("b", "x y"), pair("b", "z"), pair("d", "")]);
    assert_eq!((second.as_deref(), none), (Some("x y"), None));
}

#[test]
fn an_absolute_target_is_its_path() {
    let ask = |target: &str| seen(&get(target), |request| (request.path().to_owned(), request.query_value("q")));
    for (target, path, query) in [
        ("http://localhost/a?q=1", "/a", Some("1")),
        ("https://localhost/a", "/a", None),
        ("HTTP://LOCALHOST/a", "/a", None),
        ("http://localhost", "/", None),
        ("http://localhost?q=/b", "/", Some("/b")),
        ("/http://localhost/a", "/http://localhost/a", None),
    ] {
        assert_eq!(ask(target), (path.to_owned(), query.map(str::to_owned)), "{target}");
    }
}

#[test]
fn headers_are_found_in_whatever_case() {
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nX-One: 1\r\nx-one: 2\r\nX-Odd:  a\u{e4}\t \r\n\r\n";
    let look = |request: &Request| {
        let all = request.headers().count();
        (all, ["X-ONE", "x-odd", "x-two"].map(|name| request.header(name).map(str::to_owned)))
    };
    let found = ["1", "a\u{e4}"].map(|value| Some(value.to_owned()));
    assert_eq!(seen(request, look), (4, [found[0].clone(), found[1].clone(), None]));
}

#[test]
fn headers_that_are_not_utf_8_are_read_as_far_as_they_are() {
    let (sees, sight) = channel();
    let sees = Mutex::new(sees);
    let server = answers(move |request| {
        sees.lock().unwrap().send(request.last_event_id().map(str::to_owned)).unwrap();
        Response::do_not_reconnect()
    });
    let ask = |value: &[u8]| {
        let request = [b"GET / HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: ", value, b"\r\n\r\n"].concat();
        assert_eq!(response_to(server.local_addr(), request).status, 204);
        sight.recv().unwrap().unwrap()
    };
    assert_eq!(ask("\u{e4}".as_bytes()), "\u{e4}");
    assert_eq!(ask(b"a\xffb"), "a\u{fffd}b");
}

#[test]
fn the_peer_is_the_address_of_the_client() {
    let (sees, sight) = channel();
    let sees = Mutex::new(sees);
    let server = answers(move |request| {
        sees.lock().unwrap().send(request.peer_addr()).unwrap();
        Response::do_not_reconnect()
    });
    let mut client = Client::connect(server.local_addr());
    let own = client.address();
    client.send(GET);
    assert_eq!(sight.recv().unwrap(), own);
}

#[test]
fn a_request_has_its_method() {
    let look = |request: &Request| request.method().to_owned();
    assert_eq!(seen(GET, look), "GET");
    assert_eq!(seen("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n", look), "HEAD");
}
