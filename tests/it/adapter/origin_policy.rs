//! The rules about `Host` and `Origin` on other servers: the adapters pass every header to the policy unchanged.

use crate::common::http::{Client, Running};
use server_sent_events::OriginPolicy;

/// The headers of a request, and the status of its response from a server that allows `https://example.org`.
const REQUESTS: [(&str, &str, u16); 13] = [
    ("GET", "Host: localhost", 200),
    ("GET", "Host: example.com", 403),
    ("GET", "X: y", 403),
    ("POST", "Host: localhost", 200),
    ("POST", "host: localhost:5000\r\norigin: http://localhost:5000", 200),
    ("POST", "Host: localhost:5000\r\nOrigin: http://localhost:5001", 403),
    ("POST", "Host: localhost\r\nOrigin: https://example.org", 200),
    ("POST", "Host: localhost\r\nOrigin: tauri://localhost", 403),
    ("POST", "Host: localhost\r\nOrigin: null", 403),
    ("GET", "Host: localhost\r\nOrigin: null", 403),
    ("DELETE", "Host: localhost\r\nOrigin: null", 403),
    ("POST", "Host: localhost\r\nHost: localhost", 400),
    ("POST", "Host: localhost\r\nOrigin: https://example.org\r\nOrigin: https://example.org", 400),
];

fn policy() -> OriginPolicy {
    OriginPolicy::builder().allow_origin("https://example.org").build(([127, 0, 0, 1], 5000)).unwrap()
}

#[track_caller]
fn follows_the_policy(connect: impl Fn() -> Client) {
    for (method, headers, status) in REQUESTS {
        let mut client = connect();
        client.send(&format!("{method} / HTTP/1.1\r\n{headers}\r\n\r\n"));
        let head = client.reads_head();
        assert!(head.status().starts_with(&format!("HTTP/1.1 {status} ")), "{method} {headers}: {}", head.0);
    }
}

#[test]
fn tiny_http_follows_the_policy() {
    use server_sent_events::adapter::tiny_http::check_origin;
    use tiny_http::Response;

    let policy = policy();
    let server = Running::new(move |request| {
        let status = check_origin(&request, &policy).map_or_else(|refused| refused.status(), |()| 200);
        request.respond(Response::empty(status)).unwrap();
    });
    follows_the_policy(|| server.connect());
}

#[test]
#[cfg(feature = "rouille")]
fn rouille_follows_the_policy() {
    use rouille::Response;
    use server_sent_events::adapter::rouille::{check_origin, server};

    let policy = policy();
    let server = server("127.0.0.1:0", move |request| {
        let status = check_origin(request, &policy).map_or_else(|refused| refused.status(), |()| 200);
        Response::text("").with_status_code(status)
    });
    let server = server.unwrap();
    let address = server.server_addr();
    let (thread, stop) = server.stoppable();
    follows_the_policy(|| Client::connect(address));
    stop.send(()).unwrap();
    thread.join().unwrap();
}
