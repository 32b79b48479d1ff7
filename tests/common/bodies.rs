//! Bodies of requests on the wire, for a server that sends back each body it reads: whole, or rejected with a status.

use super::http::Client;

/// The most that the server reads.
pub const MAX_BODY: usize = 3_000;

/// A `POST` with these headers and this body.
fn request(headers: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}")
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

/// The client stays connected and still gets its response: no body goes on until the connection ends.
#[track_caller]
pub fn are_read_to_their_announced_length(connect: impl Fn() -> Client) {
    for connection in
        ["", "Connection: close\r\n", UPGRADE, "connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n"]
    {
        for length in [0, 1, 5, 1_024, 1_025, MAX_BODY] {
            let body = "x".repeat(length);
            let mut client = connect();
            client.send(&request(&format!("{connection}Content-Length: {length}\r\n"), &body));
            responds(&mut client, 200, &body, &format!("{length} {connection:?}"));
        }
        let mut client = connect();
        client.send(&request(connection, ""));
        responds(&mut client, 200, "", connection);
    }
    // The next request begins where the body ends.
    let mut client = connect();
    for length in [2_000, 5, 0, 1_025] {
        let body = "x".repeat(length);
        client.send(&request(&format!("Content-Length: {length}\r\n"), &body));
        responds(&mut client, 200, &body, "one after the other");
    }
    // Other methods have bodies too.
    let mut client = connect();
    client.send("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
    responds(&mut client, 200, "hello", "GET");
}

#[track_caller]
pub fn that_end_early_are_rejected(connect: impl Fn() -> Client) {
    for connection in ["", UPGRADE] {
        for (sent, announced) in [(0, 1_025), (2_000, 2_500), (2_999, 3_000)] {
            let mut client = connect();
            client.send(&request(&format!("{connection}Content-Length: {announced}\r\n"), &"x".repeat(sent)));
            client.says_no_more();
            let text = format!("body incomplete: {sent} of {announced} bytes arrived");
            responds(&mut client, 400, &text, connection);
        }
    }
    // Without an upgrade, tiny_http itself waits for a short body and closes the connection.
    let mut client = connect();
    client.send(&request(&format!("{UPGRADE}Content-Length: 5\r\n"), "hell"));
    client.says_no_more();
    responds(&mut client, 400, "body incomplete: 4 of 5 bytes arrived", "hell");
}

/// At once: none of the body is waited for.
#[track_caller]
pub fn of_no_valid_length_are_rejected(connect: impl Fn() -> Client) {
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
            let mut client = connect();
            client.send(&request(&format!("{connection}{headers}"), body));
            responds(&mut client, status, text, &format!("{headers:?} {connection:?}"));
        }
    }
}

/// As curl does with more than 1 MiB.
#[track_caller]
pub fn are_asked_for_if_the_client_waits_for_that(connect: impl Fn() -> Client) {
    for connection in ["", UPGRADE] {
        for length in [5, 2_000] {
            let body = "x".repeat(length);
            let mut client = connect();
            let headers = format!("{connection}Content-Length: {length}\r\nExpect: 100-continue\r\n");
            client.send(&request(&headers, ""));
            assert!(client.reads_head().status().starts_with("HTTP/1.1 100 "));
            client.send(&body);
            responds(&mut client, 200, &body, connection);
        }
    }
}
