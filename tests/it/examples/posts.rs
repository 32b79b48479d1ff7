//! The bodies that clients send to hub, chat and progress: read whole, and with any headers, or not published.

use std::process::Command;

use super::*;
use crate::common::example::built_examples;
use crate::common::http::Client;

/// For hub, chat and progress: the stream, where to post, and a body with the text that the stream's clients then
/// receive.
const POSTS: &[(&str, &str, &str, &str, &str)] = &[
    #[cfg(all(feature = "server", feature = "client"))]
    ("hub", "/c", "/c", "hello", "data: hello\n"),
    ("chat", "/subscribe?username=Bob", "/publish", "username=Ada&message=hello", "\"message\":\"hello\""),
    ("progress", "/events", "/jobs", "name=hello", "\"name\":\"hello\",\"percent\":0,\"state\":\"queued\""),
];

/// Opens a stream and reads the response headers and its beginning.
fn watches(example: &Example, path: &str) -> Client {
    let mut watcher = example.connect();
    watcher.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    watcher.reads_until(":\nid: ");
    watcher
}

/// Returns the status and the text of the response to a post with these headers.
fn post_from(example: &Example, path: &str, body: &str, host: &str, origin: &str) -> (u16, String) {
    let request = agent().post(format!("{}{path}", example.url)).header("Host", host).header("Origin", origin);
    answer(request.send(body))
}

#[test]
fn a_post_of_a_foreign_page_is_refused_and_publishes_nothing() {
    for (name, stream, path, body, seen) in POSTS.iter().filter(|(name, ..)| *name != "hub") {
        let mut command = Command::new(built_examples().join(name));
        command.args(["127.0.0.1:0", "events.example.org"]);
        let example = Example::run_as_it_is(command);
        let mut watcher = watches(&example, stream);
        let own = example.url.strip_prefix("http://").unwrap().to_owned();
        for origin in ["https://evil.example", "http://127.0.0.1:1", "tauri://localhost", "null"] {
            let allowed = format!("only pages of {own} and events.example.org are allowed");
            let refused = (403, format!("foreign origin {origin:?}: {allowed}\n"));
            assert_eq!(post_from(&example, path, &body.replace("hello", "evil"), &own, origin), refused, "{name}");
        }
        // By DNS rebinding, this page has the origin of `Host`.
        let rebound = post_from(&example, path, &body.replace("hello", "evil"), "evil.example", "http://evil.example");
        assert_eq!(rebound.0, 403, "{name}: {}", rebound.1);

        for (host, origin) in [(&*own, &*example.url), ("localhost", "https://events.example.org")] {
            assert!(matches!(post_from(&example, path, body, host, origin).0, 201 | 204), "{name}: {origin} at {host}");
            let stream = watcher.reads_until(seen);
            assert!(!stream.contains("evil"), "{name}: {stream}");
        }
    }
}

/// curl and Java's HttpClient send this if they may use HTTP/2. The body must not last as long as the connection.
#[test]
fn a_post_that_offers_an_upgrade_is_answered_at_once_and_published_once() {
    for (name, stream, path, body, seen) in POSTS.iter().copied() {
        let example = Example::start(name);
        let mut watcher = watches(&example, stream);
        // One more than there are handler threads.
        let mut clients: Vec<Client> = (0..5).map(|_| example.connect()).collect();
        for client in &mut clients {
            client.send(&format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"));
            client.send("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n");
            client.send(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        }
        for client in &mut clients {
            let status = client.reads_head().status().to_owned();
            assert!(status.starts_with("HTTP/1.1 20"), "{name}: {status}");
        }
        let mut stream = String::new();
        for _ in &clients {
            stream += &watcher.reads_until(seen);
        }
        drop(clients);
        // Anything that the end of a connection publishes arrives before this.
        let last = body.replace("hello", "the last");
        assert!(matches!(post(&format!("{}{path}", example.url), &last).0, 201 | 204), "{name}");
        let until_last = watcher.reads_until(&seen.replace("hello", "the last"));
        assert!(!until_last.contains(seen), "{name}: {until_last}");
        assert_eq!(stream.matches(seen).count(), 5, "{name}");
    }
}

#[test]
fn a_post_of_curl_that_may_use_http_2_is_answered_at_once() {
    if Command::new("curl").arg("--version").output().is_err() {
        return println!("skipped: there is no curl");
    }
    for (name, stream, path, body, seen) in POSTS.iter().copied() {
        let example = Example::start(name);
        let mut watcher = watches(&example, stream);
        let mut curl = Command::new("curl");
        curl.args(["--http2", "--silent", "--show-error", "--fail", "--max-time", "20", "-d", body]);
        let output = curl.arg(format!("{}{path}", example.url)).output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        watcher.reads_until(seen);
    }
}

#[test]
fn half_a_body_is_not_published() {
    for (name, stream, path, body, seen) in POSTS.iter().copied() {
        let example = Example::start(name);
        let mut watcher = watches(&example, stream);
        let half = format!("{}{}", body.replace("hello", "half"), "+".repeat(2_000));
        for head in [
            "Content-Length: 5000\r\n",
            "Content-Length: 5000\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
            "Content-Length: 5000\r\nExpect: 100-continue\r\n",
            "Transfer-Encoding: chunked\r\n",
        ] {
            let mut client = example.connect();
            let chunk = if head.starts_with("Transfer") { "1388\r\n" } else { "" };
            client.send(&format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n{chunk}{half}"));
            client.shuts_down_writing();
            let response = String::from_utf8(client.reads_all_there_is()).unwrap();
            // tiny_http does not report whether a chunked body is whole.
            let is_unknown = head.starts_with("Transfer") && name != "hub";
            let status = if is_unknown { "HTTP/1.1 411 " } else { "HTTP/1.1 400 " };
            assert!(response.contains(status), "{name}, {head:?}: {response}");
        }
        assert!(matches!(post(&format!("{}{path}", example.url), body).0, 201 | 204), "{name}");
        let stream = watcher.reads_until(seen);
        assert!(!stream.contains("half"), "{name}: {stream}");
    }
}
