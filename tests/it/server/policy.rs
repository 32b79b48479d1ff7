//! Which requests EventServer answers: Host, Origin, CORS, and how it counts clients.

use std::net::SocketAddr;

use crate::common::http::{Client, FIRST_CHUNK, GET};
use crate::common::server::{ParsedResponse, response_to, send, serve};
use server_sent_events::Publisher;
use server_sent_events::server::{EventServer, EventServerBuilder, RunningServer};

fn running(settings: EventServerBuilder) -> RunningServer {
    serve(settings, &Publisher::new())
}

/// Returns the response of a server with these settings to this request.
#[track_caller]
fn response_of(settings: EventServerBuilder, request: &str) -> ParsedResponse {
    response_to(running(settings).local_addr(), request)
}

fn head(host: &str) -> String {
    format!("HEAD / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn of_origin(method: &str, host: &str, origin: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n")
}

fn refusal(settings: EventServerBuilder) -> String {
    let error = settings.bind("127.0.0.1:0").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    error.to_string()
}

#[test]
fn pages_of_apps_and_extensions_can_be_allowed() {
    for origin in [
        "tauri://localhost",
        "capacitor://localhost",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "vscode-webview://1abc2def",
        "http://[::1]:5000",
        "https://example.org:8443",
    ] {
        let response =
            response_of(EventServer::builder().allow_origin(origin), &of_origin("HEAD", "localhost", origin));
        assert_eq!((response.status, response.header("Access-Control-Allow-Origin")), (200, Some(origin)), "{origin}");
    }
}

#[test]
fn an_origin_that_no_browser_sends_is_an_error_with_the_reason() {
    for (origin, reason) in [
        ("*", "`://` is missing"),
        ("null", "`allow_null_origin` allows null"),
        ("https://example.org:443", "browsers leave out the default port"),
        ("http://example.org:80", "browsers leave out the default port"),
        ("http://user@x", "browsers send no user"),
        ("https://example.org/", "browsers send no path"),
        ("https://example.org?a=b", "browsers send no query"),
        ("https://Example.org", "browsers send lower case"),
    ] {
        let text = format!("invalid origin {origin:?}: expected scheme://host[:port]; {reason}");
        assert_eq!(refusal(EventServer::builder().allow_origin(origin)), text);
    }
}

#[test]
fn the_origin_null_is_allowed_by_its_own_method() {
    let others = EventServer::builder().allow_origin("https://example.org");
    assert_eq!(response_of(others, &of_origin("HEAD", "localhost", "null")).status, 403);
    let response = response_of(EventServer::builder().allow_null_origin(), &of_origin("HEAD", "localhost", "null"));
    assert_eq!((response.status, response.header("Access-Control-Allow-Origin")), (200, Some("null")));
}

#[test]
fn a_preflight_names_the_headers_that_are_allowed() {
    let settings = || EventServer::builder().allow_origin("https://example.org");
    let preflight = of_origin("OPTIONS", "localhost", "https://example.org");
    let response = response_of(settings().allow_header("Authorization").allow_header("X-Requested-With"), &preflight);
    let headers = "Last-Event-ID, Cache-Control, Authorization, X-Requested-With";
    assert_eq!((response.status, response.header("Access-Control-Allow-Headers")), (204, Some(headers)));
    for name in ["", "X Y", "X:", "X\r\nY", "*,", "\u{e4}"] {
        let text = format!("invalid header name {name:?}: expected letters, digits and !#$%&'*+-.^_`|~");
        assert_eq!(refusal(settings().allow_header(name)), text);
    }
}

/// Any page could otherwise publish to a server on this machine.
#[test]
fn a_post_of_a_foreign_page_is_refused_even_if_no_origin_is_allowed() {
    let server = running(EventServer::builder().public_host("example.org"));
    let own = format!("localhost:{}", server.local_addr().port());
    // 405: the server has no use for a body.
    for (method, host, origin, status) in [
        ("POST", &*own, "https://example.com", 403),
        ("PUT", &own, "https://example.com", 403),
        ("DELETE", &own, "https://example.com", 403),
        ("POST", &own, "tauri://localhost", 403),
        ("POST", &own, "null", 403),
        ("POST", &own, &format!("http://{own}"), 405),
        ("POST", "localhost", "https://example.org", 405),
        ("POST", "example.org", "https://example.org", 405),
        ("POST", "localhost", "https://example.org:8443", 403),
        ("OPTIONS", &own, "https://example.com", 405),
        ("HEAD", &own, "https://example.com", 200),
        ("HEAD", &own, "tauri://localhost", 200),
        ("HEAD", &own, "null", 200),
    ] {
        let response = response_to(server.local_addr(), of_origin(method, host, origin));
        assert_eq!((response.status, response.header("Vary")), (status, None), "{method} of {origin} at {host}");
    }
    let refused = response_to(server.local_addr(), of_origin("POST", &own, "null"));
    let text = format!("foreign origin \"null\": only pages of {own} and example.org are allowed");
    assert_eq!(refused.body.trim_end(), text);
    let no_page = "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(response_to(server.local_addr(), no_page).status, 405);
}

#[test]
fn two_origins_are_malformed() {
    let request = "HEAD / HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nOrigin: null\r\n\r\n";
    assert_eq!(response_of(EventServer::builder().allow_null_origin(), request).status, 400);
}

/// Behind a proxy that sends `Host: localhost`, no page of the server has that origin.
#[test]
fn pages_of_the_public_host_are_the_servers_own() {
    let server = running(EventServer::builder().public_host("example.org").allow_origin("https://example.com"));
    for (origin, expected) in [
        ("https://example.org", (200, None)),
        ("https://example.com", (200, Some("https://example.com"))),
        ("https://example.net", (403, None)),
        ("tauri://localhost", (403, None)),
        ("null", (403, None)),
    ] {
        let response = response_to(server.local_addr(), of_origin("HEAD", "localhost", origin));
        assert_eq!((response.status, response.header("Access-Control-Allow-Origin")), expected, "{origin}");
    }
    let text = "invalid public host \"a/b\": expected a name, an IPv4 address or an IPv6 address in brackets, and optionally a port";
    assert_eq!(refusal(EventServer::builder().public_host("a/b")), text);
}

/// A page on the internet may send requests to a server on the loopback only if this is answered.
#[test]
fn a_preflight_for_a_private_network_is_answered_for_an_allowed_origin() {
    let server = running(EventServer::builder().allow_origin("https://example.org"));
    let preflight = |origin: &str, asks: &str| {
        let head = of_origin("OPTIONS", "localhost", origin);
        let asks = format!("Access-Control-Request-Private-Network: {asks}\r\n\r\n");
        response_to(server.local_addr(), head.replace("\r\n\r\n", &format!("\r\n{asks}")))
    };
    let own = "http://localhost";
    for (origin, asks, status, allows) in [
        ("https://example.org", "true", 204, Some("true")),
        ("https://example.org", "false", 204, None),
        (own, "true", 204, None),
        ("https://example.com", "true", 403, None),
    ] {
        let response = preflight(origin, asks);
        assert_eq!(
            (response.status, response.header("Access-Control-Allow-Private-Network")),
            (status, allows),
            "{origin}"
        );
    }
}

/// A cache that stores a response without `Vary` gives it to every origin.
#[test]
fn every_response_varies_by_origin_once_one_is_allowed() {
    let server = running(EventServer::builder().allow_origin("https://example.org").max_streams(1));
    let address = server.local_addr();
    let varies = |request: &str, status: u16| {
        let response = response_to(address, request);
        assert_eq!((response.status, response.header("Vary")), (status, Some("Origin")), "{request}");
    };
    varies(&head("localhost"), 200);
    varies(&head("example.com"), 403);
    varies(&of_origin("HEAD", "localhost", "https://example.org"), 200);
    varies(&of_origin("HEAD", "localhost", "https://example.com"), 403);
    varies("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 204);
    varies("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405);
    varies("garbage\r\n\r\n", 400);
    let mut stream = send(address, GET);
    assert_eq!(stream.reads_head().values("Vary"), ["Origin"]);
    varies(GET, 200);
    assert_eq!(response_of(EventServer::builder(), &head("localhost")).header("Vary"), None);
}

#[test]
fn a_page_of_the_servers_own_origin_is_answered_whatever_its_scheme() {
    let settings = EventServer::builder().allow_origin("https://example.com").allow_host("example.org");
    let server = running(settings);
    let address = server.local_addr();
    let own = format!("localhost:{}", address.port());
    for (host, origin, status) in [
        (&*own, format!("http://{own}"), 200),
        (&own, format!("https://{own}"), 200),
        ("example.org", "https://example.org".into(), 200),
        ("example.org:443", "https://example.org".into(), 200),
        ("example.org", "https://example.org:8443".into(), 403),
        (&own, "http://localhost".into(), 403),
        (&own, format!("http://127.0.0.1:{}", address.port()), 403),
    ] {
        let response = response_to(address, of_origin("HEAD", host, &origin));
        assert_eq!(
            (response.status, response.header("Access-Control-Allow-Origin")),
            (status, None),
            "{origin} at {host}"
        );
    }
}

fn bound_to(address: &str, settings: EventServerBuilder) -> RunningServer {
    let publisher = Publisher::new();
    settings.bind(address).unwrap().spawn(move |_| publisher.subscribe()).unwrap()
}

#[test]
#[cfg(target_os = "linux")] // elsewhere 127.0.0.2 is no address of the loopback
fn a_server_answers_at_the_address_it_is_bound_to() {
    for settings in [EventServer::builder(), EventServer::builder().allow_host("example.org")] {
        let server = bound_to("127.0.0.2:0", settings);
        for (host, status) in [("127.0.0.2", 200), ("127.0.0.2:1", 200), ("localhost", 200), ("127.0.0.3", 403)] {
            assert_eq!(response_to(server.local_addr(), head(host)).status, status, "{host}");
        }
    }
}

#[test]
fn the_loopback_in_ipv6_spelling_is_protected_as_the_loopback() {
    let server = bound_to("[::ffff:127.0.0.1]:0", EventServer::builder());
    let port = server.local_addr().port();
    for (host, status) in [("example.org", 403), ("127.0.0.1", 200), ("[::ffff:127.0.0.1]", 200), ("localhost", 200)] {
        assert_eq!(response_to(([127, 0, 0, 1], port).into(), head(host)).status, status, "{host}");
    }
}

/// Connects from this address of the loopback and requests a stream.
fn stream_from(from: &str, to: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
    socket.bind(&from.parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut client = Client::on(socket.into());
    client.send(GET);
    client.reads_head();
    client
}

#[test]
#[cfg(target_os = "linux")]
fn ipv4_clients_of_an_ipv6_server_are_counted_each() {
    let server = bound_to("[::]:0", EventServer::builder().max_streams_per_ip(1));
    let address = SocketAddr::from(([127, 0, 0, 1], server.local_addr().port()));
    let mut first = stream_from("127.0.0.1:0", address);
    first.reads(FIRST_CHUNK);
    stream_from("127.0.0.2:0", address).reads(FIRST_CHUNK);
    stream_from("127.0.0.1:0", address).reads_until(": busy\n");
}
