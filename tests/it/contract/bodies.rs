//! A request's body is read whole, or rejected with a status. The site sends back each body it reads.

use super::servers::{MAX_BODY, Site, Start};
use crate::common::http::Client;

promises! {
    [tiny_http rouille] {
        a_body_is_read_to_its_announced_length_whatever_the_connection_is_for,
        a_body_that_ends_early_is_rejected_whole,
        a_body_of_no_valid_length_is_rejected_before_it_is_read,
        a_body_that_waits_to_be_asked_for_is_asked_for,
    }
}

/// Returns a `POST` with these headers and this body.
fn request(headers: &str, body: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}")
}

const UPGRADE: &str =
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n";

#[track_caller]
fn responds(client: &mut Client, status: u16, text: &str, case: &str) {
    let head = client.reads_head();
    assert!(head.status().starts_with(&format!("HTTP/1.1 {status} ")), "{case}: {}", head.0);
    assert_eq!(head.values("Content-Length"), [text.len().to_string()], "{case}");
    client.reads(text);
}

/// The client stays connected and still gets its response. Java's HttpClient and `curl --http2` offer HTTP/2 on each
/// plain request, and the body used to never end.
/// plain request, and then the body never ended.
fn a_body_is_read_to_its_announced_length_whatever_the_connection_is_for(start: Start) {
    let server = start(Site::new());
    for connection in
        ["", "Connection: close\r\n", UPGRADE, "connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n"]
    {
        for length in [0, 1, 5, 1_024, 1_025, MAX_BODY] {
            let body = "x".repeat(length);
            let mut client = server.connect();
            client.send(&request(&format!("{connection}Content-Length: {length}\r\n"), &body));
            responds(&mut client, 200, &body, &format!("{length} {connection:?}"));
        }
        let mut client = server.connect();
        client.send(&request(connection, ""));
        responds(&mut client, 200, "", connection);
    }
    // The next request begins where the body ends.
    let mut client = server.connect();
    for length in [2_000, 5, 0, 1_025] {
        let body = "x".repeat(length);
        client.send(&request(&format!("Content-Length: {length}\r\n"), &body));
        responds(&mut client, 200, &body, "one after the other");
    }
    // Other methods have bodies too.
    let mut client = server.connect();
    client.send("GET /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
    responds(&mut client, 200, "hello", "GET");
}

fn a_body_that_ends_early_is_rejected_whole(start: Start) {
    let server = start(Site::new());
    for connection in ["", UPGRADE] {
        for (sent, announced) in [(0, 1_025), (2_000, 2_500), (2_999, 3_000)] {
            let mut client = server.connect();
            client.send(&request(&format!("{connection}Content-Length: {announced}\r\n"), &"x".repeat(sent)));
            client.shuts_down_writing();
            let text = format!("body incomplete: {sent} of {announced} bytes arrived");
            responds(&mut client, 400, &text, connection);
        }
    }
    // Without an upgrade, tiny_http itself waits for a short body and closes the connection.
    let mut client = server.connect();
    client.send(&request(&format!("{UPGRADE}Content-Length: 5\r\n"), "hell"));
    client.shuts_down_writing();
    responds(&mut client, 400, "body incomplete: 4 of 5 bytes arrived", "hell");
}

/// The rejection comes at once: the server does not wait for the body.
fn a_body_of_no_valid_length_is_rejected_before_it_is_read(start: Start) {
    let server = start(Site::new());
    const INVALID: (u16, &str) = (400, "invalid content-length: expected one decimal number");
    const BOTH: (u16, &str) = (400, "both content-length and transfer-encoding: send only a content-length");
    const CHUNKED: (u16, &str) = (411, "chunked body: send a content-length instead");
    const ENCODED: (u16, &str) = (400, "unsupported transfer-encoding: send a content-length instead");
    const LARGE: (u16, &str) = (413, "body too large: at most 3000 bytes are allowed");
    for connection in ["", UPGRADE] {
        for (headers, body, (status, text)) in [
            ("Content-Length: five\r\n", "", INVALID),
            ("Content-Length: +5\r\n", "hello", INVALID),
            ("Content-Length: 5, 5\r\n", "", INVALID),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", "hello", INVALID),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "", BOTH),
            ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", CHUNKED),
            ("Transfer-Encoding: chunked\r\n", "5\r\nhel", CHUNKED),
            ("Transfer-Encoding: chunked\r\n", "zz", CHUNKED),
            ("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", "", CHUNKED),
            ("Transfer-Encoding: gzip, chunked\r\n", "", ENCODED),
            ("Content-Length: 3001\r\n", "", LARGE),
            ("Content-Length: 3001\r\n", "not all of it", LARGE),
            ("Content-Length: 3001\r\nExpect: 100-continue\r\n", "", LARGE),
            ("Content-Length: 18446744073709551616\r\n", "", LARGE),
        ] {
            let mut client = server.connect();
            client.send(&request(&format!("{connection}{headers}"), body));
            responds(&mut client, status, text, &format!("{headers:?} {connection:?}"));
        }
    }
}

/// curl does this with more than 1 MiB.
fn a_body_that_waits_to_be_asked_for_is_asked_for(start: Start) {
    let server = start(Site::new());
    for connection in ["", UPGRADE] {
        for length in [5, 2_000] {
            let body = "x".repeat(length);
            let mut client = server.connect();
            let headers = format!("{connection}Content-Length: {length}\r\nExpect: 100-continue\r\n");
            client.send(&request(&headers, ""));
            assert!(client.reads_head().status().starts_with("HTTP/1.1 100 "));
            client.send(&body);
            responds(&mut client, 200, &body, connection);
        }
    }
}
