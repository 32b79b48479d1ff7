//! Requests to EventServer as its handler sees them, read from a socket and built for a test.

use std::net::{IpAddr, SocketAddr};

use crate::common::echo::with_bodies;
use crate::common::server::{ParsedResponse, response_to};
use server_sent_events::server::{EventServerBuilder, HandlerError, Request, Response};

/// What the handler makes of a request.
type Describe = fn(&Request) -> Result<String, HandlerError>;

#[track_caller]
fn described(settings: EventServerBuilder, request: &str, describe: Describe) -> ParsedResponse {
    let server = settings.bind("127.0.0.1:0").unwrap();
    let server = server.spawn(move |request| describe(request).map(Response::text)).unwrap();
    response_to(server.local_addr(), request)
}

/// Checks that the handler sees the same whether the request comes from a socket or from the builder.
#[track_caller]
fn is_seen(method: &str, target: &str, lines: &[(&str, &str)], body: &str, describe: Describe, seen: &str) {
    let fields: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}{length}\r\n{body}");
    let response = described(with_bodies(1_000), &request, describe);
    assert_eq!((response.status, &*response.body), (200, seen), "{request:?}");

    let builder =
        lines.iter().fold(Request::builder(method, target), |builder, (name, value)| builder.header(name, value));
    let built = builder.body(body).build().unwrap();
    assert_eq!(describe(&built).as_deref(), Ok(seen), "built: {request:?}");
}

#[test]
fn a_path_is_decoded_and_without_dot_segments() {
    for (target, path) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/./b", "/a/b"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/..", "/"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("/%2e%2e/b", "/b"),
        ("/a/%2E./b", "/b"),
        ("/a/.%2e", "/"),
        ("/a%2f..%2fb", "/b"),
        ("/%2e%2e%2fb", "/b"),
        ("/a%2fb", "/a/b"),
        // An encoded encoding is decoded once.
        ("/%252e%252e/b", "/%2e%2e/b"),
        ("//", "//"),
        ("//a//b", "//a//b"),
        ("//example.org/..", "//"),
        ("/a/...", "/a/..."),
        ("/.a/..b", "/.a/..b"),
        ("/a+b%20c", "/a+b c"),
        ("/gr%C3%BC%C3%9Fe", "/grüße"),
        ("/%", "/%"),
        ("/%2", "/%2"),
        ("/%zz", "/%zz"),
        ("/a?b/../c", "/a"),
        ("/a%3Fb", "/a?b"),
        ("http://localhost/a/../b", "/b"),
        ("http://localhost", "/"),
        ("http://localhost?a=b", "/"),
        ("HTTP://LOCALHOST/a", "/a"),
        ("https://localhost/a", "/a"),
    ] {
        is_seen("GET", target, &[], "", |request| Ok(request.path().to_owned()), path);
    }
}

#[test]
fn the_target_is_unchanged_but_for_its_host() {
    for (target, seen) in [
        ("/a/../%62?c=%64", "/a/../%62?c=%64"),
        ("//example.org/a", "//example.org/a"),
        ("http://localhost/a?b", "/a?b"),
        ("http://localhost?b", "/?b"),
    ] {
        is_seen("GET", target, &[], "", |request| Ok(request.target().to_owned()), seen);
    }
}

fn pairs<'a>(fields: impl Iterator<Item = (impl AsRef<str> + 'a, impl AsRef<str> + 'a)>) -> String {
    fields.map(|(name, value)| format!("[{}={}]", name.as_ref(), value.as_ref())).collect()
}

#[test]
fn a_query_is_decoded() {
    for (target, seen) in [
        ("/", ""),
        ("/?", ""),
        ("/?a=b&c=d&a=e", "[a=b][c=d][a=e]"),
        ("/?a&=b&&c==d", "[a=][=b][c==d]"),
        ("/?a+b=%20%26%3D&%C3%A4=%F0%9F%A6%80", "[a b= &=][ä=🦀]"),
        ("/?a=?b", "[a=?b]"),
        ("/?a=%ff", "[a=\u{fffd}]"),
    ] {
        is_seen("GET", target, &[], "", |request| Ok(pairs(request.query())), seen);
    }
    let first = |request: &Request| Ok(format!("{:?} {:?}", request.query_value("a"), request.query_value("b")));
    is_seen("GET", "/?a=1&a=2", &[], "", first, "Some(\"1\") None");
}

#[test]
fn a_form_is_decoded() {
    for (body, seen) in [("", ""), ("a=b&c=%C3%A4+d&a=", "[a=b][c=ä d][a=]"), ("a=%ff\u{0}&&b", "[a=\u{fffd}\0][b=]")]
    {
        is_seen("POST", "/", &[], body, |request| Ok(pairs(request.form())), seen);
    }
}

#[test]
fn a_cookie_is_found_in_each_header() {
    let cookies = |request: &Request| Ok(format!("{:?} {:?}", request.cookie("a"), request.cookie("id")));
    for (lines, seen) in [
        (&[][..], "None None"),
        (&[("Cookie", "a=b")], "Some(\"b\") None"),
        (&[("cookie", "xa=1; a=b=c; id=\"q\" ;a=d")], "Some(\"b=c\") Some(\"\\\"q\\\"\")"),
        (&[("Cookie", "id=1"), ("Cookie", "a=2")], "Some(\"2\") Some(\"1\")"),
        (&[("Cookie", "a; id; =a")], "None None"),
        (&[("Cookie", "A=1; ID=2")], "None None"),
        (&[("Cookie", "a=;;; id=%20")], "Some(\"\") Some(\"%20\")"),
    ] {
        is_seen("GET", "/", lines, "", cookies, seen);
    }
}

#[test]
fn headers_are_found_by_name_and_in_order() {
    let lines = &[("X-A", "1"), ("x-a", "2"), ("X-B", " \tb c\t "), ("X-C", ""), ("X-D", "grüße")];
    let seen = |request: &Request| {
        let names: Vec<&str> =
            request.headers().map(|(name, _)| name).filter(|name| name.starts_with(['X', 'x'])).collect();
        let values = ["x-A", "X-B", "x-c", "X-D", "X-E"].map(|name| request.header(name));
        Ok(format!("{names:?} {values:?}"))
    };
    let expected = r#"["X-A", "x-a", "X-B", "X-C", "X-D"] [Some("1"), Some("b c"), Some(""), Some("grüße"), None]"#;
    is_seen("GET", "/", lines, "", seen, expected);
}

#[test]
fn a_text_is_utf_8_or_a_400() {
    is_seen("POST", "/", &[], "grüße\0\r\n", |request| Ok(request.body_text()?.to_owned()), "grüße\0\r\n");
    let server = with_bodies(1_000).bind("127.0.0.1:0").unwrap();
    let server =
        server.spawn(|request| Ok::<_, HandlerError>(Response::text(request.body_text()?.to_owned()))).unwrap();
    let request = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\na\xff\xfe";
    let response = response_to(server.local_addr(), request);
    assert_eq!((response.status, response.body.starts_with("the body is not UTF-8")), (400, true), "{}", response.body);
}

#[test]
fn the_last_event_id_comes_from_the_header_or_the_query() {
    let id = |request: &Request| Ok(format!("{:?}", request.last_event_id()));
    for (target, lines, seen) in [
        ("/", &[][..], "None"),
        ("/", &[("Last-Event-ID", "7-1")], "Some(\"7-1\")"),
        ("/?lastEventId=7%2D2", &[], "Some(\"7-2\")"),
        ("/?lastEventId=7-2", &[("last-event-id", "7-1")], "Some(\"7-1\")"),
        ("/?lastEventId=7-2", &[("last-event-id", "")], "Some(\"7-2\")"),
        ("/?lastEventId=", &[], "None"),
    ] {
        is_seen("GET", target, lines, "", id, seen);
    }
}

#[test]
fn the_clients_address_is_the_nearest_untrusted_one() {
    let proxies = ["127.0.0.1", "10.0.0.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
    for (lines, seen) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.7", "192.0.2.7"),
        ("x-forwarded-for:192.0.2.7", "192.0.2.7"),
        // The client can write anything before that.
        ("X-Forwarded-For: 198.51.100.1, 192.0.2.7", "192.0.2.7"),
        ("X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 192.0.2.7", "192.0.2.7"),
        ("X-Forwarded-For: 198.51.100.1, 192.0.2.7, 10.0.0.1", "192.0.2.7"),
        ("X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\nX-Forwarded-For: 2001:db8::1 ,\t10.0.0.1", "192.0.2.7"),
        ("X-Forwarded-For: 127.0.0.1, 192.0.2.7", "192.0.2.7"),
        ("X-Forwarded-For: 192.0.2.7:4711", "192.0.2.7"),
        ("X-Forwarded-For: 2001:db8::7", "2001:db8::7"),
        ("X-Forwarded-For: [2001:db8::7]", "2001:db8::7"),
        ("X-Forwarded-For: [2001:db8::7]:4711", "2001:db8::7"),
        ("X-Forwarded-For: ::ffff:192.0.2.7", "192.0.2.7"),
        ("X-Forwarded-For: 192.0.2.7,, ,", "192.0.2.7"),
        // All of them are proxies.
        ("X-Forwarded-For: 10.0.0.1", "10.0.0.1"),
        // An entry that is no address cannot be trusted, and neither can anything before it.
        ("X-Forwarded-For: unknown", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.7, unknown", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.7, \"x\", 10.0.0.1", "10.0.0.1"),
        ("X-Forwarded-For: 192.0.2.7.9", "127.0.0.1"),
        ("X-Forwarded-For: localhost", "127.0.0.1"),
        ("X-Forwarded-For:", "127.0.0.1"),
        ("X-Real-IP: 192.0.2.7", "127.0.0.1"),
        ("Forwarded: for=192.0.2.7", "127.0.0.1"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n\r\n");
        let request = request.replace("\r\n\r\n\r\n", "\r\n\r\n");
        let client = |request: &Request| Ok(request.client_ip().to_string());
        assert_eq!(
            described(with_bodies(1_000).trust_forwarded_for(proxies), &request, client).body,
            seen,
            "{lines:?}"
        );
        // No other client is trusted.
        let settings = [with_bodies(1_000), with_bodies(1_000).trust_forwarded_for(proxies.into_iter().skip(1))];
        for settings in settings {
            assert_eq!(described(settings, &request, client).body, "127.0.0.1", "{lines:?}");
        }
        let peer = |request: &Request| Ok(request.peer_addr().ip().to_string());
        let trusting = with_bodies(1_000).trust_forwarded_for(proxies);
        assert_eq!(described(trusting, &request, peer).body, "127.0.0.1");
    }
}

#[test]
fn a_built_request_has_the_address_it_is_given() {
    let address: SocketAddr = "[2001:db8::7]:4711".parse().unwrap();
    let request = Request::builder("GET", "/").peer_addr(address).build().unwrap();
    assert_eq!((request.peer_addr(), request.client_ip()), (address, address.ip()));
    let mapped: SocketAddr = "[::ffff:192.0.2.7]:4711".parse().unwrap();
    let request = Request::builder("GET", "/").peer_addr(mapped).build().unwrap();
    assert_eq!(request.client_ip(), "192.0.2.7".parse::<IpAddr>().unwrap());
    assert!(Request::builder("GET", "/").build().unwrap().client_ip().is_loopback());
}

#[test]
fn a_request_that_the_server_would_reject_cannot_be_built() {
    let with = |name: &str, value: &str| Request::builder("POST", "/").header(name, value);
    for (builder, reason) in [
        (Request::builder("", "/"), "method"),
        (Request::builder("PO ST", "/"), "malformed"),
        (Request::builder("CONNECT", "/"), "CONNECT"),
        (Request::builder("GET", ""), "malformed"),
        (Request::builder("GET", "news"), "slash"),
        (Request::builder("GET", "/a b"), "malformed"),
        (Request::builder("GET", "/ä"), "percent-encoded"),
        (Request::builder("GET", "/#a"), "percent-encoded"),
        (Request::builder("GET", "/%ff"), "UTF-8"),
        (Request::builder("GET", "/").body("x"), "no body"),
        (with("X Y", "a"), "malformed"),
        (with("X", "a\0"), "malformed"),
        (with("X", "a\n"), "bare"),
        (with("Host", "a b"), "Host"),
        (with("Host", "a").header("Host", "a"), "Host"),
        (with("Content-Length", "5").body("hello"), "several"),
        (with("Transfer-Encoding", "chunked").body("hello"), "both"),
        (with("Transfer-Encoding", "chunked"), "without"),
        (with("X", &"x".repeat(9_000)), "8 KiB"),
    ] {
        let error = builder.clone().build().expect_err(reason);
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(reason), "{error} for {builder:?}");
    }
}

/// A value must not add a second header, or the test would send a different request than it shows.
#[test]
fn a_built_header_is_one_header() {
    for value in ["a\r\nX-Admin: yes", "a\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "a\r\n b"] {
        let built = Request::builder("GET", "/").header("X", value).build();
        assert!(built.is_err(), "{built:?}");
    }
    for target in ["/ HTTP/1.1\r\nX: y\r\nZ:", "/\r\n"] {
        let built = Request::builder("GET", target).build();
        assert!(built.is_err(), "{built:?}");
    }
}
