//! Settings that are invalid.

use std::io;
use std::time::Duration;

use server_sent_events::client::{ConnectError, ConnectionLost, EventSource, EventSourceBuilder};

#[track_caller]
fn is_rejected(builder: EventSourceBuilder, text: &str) {
    assert_eq!(builder.connect().unwrap_err().to_string(), text);
}

fn builder() -> EventSourceBuilder {
    EventSource::builder("http://127.0.0.1:1/")
}

#[test]
fn a_url_without_scheme_or_host_is_rejected() {
    for url in
        ["", "/", "x", "127.0.0.1:80", "ftp://x/", "http://", "http:///x", "http://a b/", "http://[::1/", "file:///etc"]
    {
        is_rejected(
            EventSource::builder(url),
            &format!("invalid URL {url:?}: expected http://HOST/PATH or https://HOST/PATH"),
        );
    }
}

#[test]
fn headers_that_http_or_the_client_forbids_are_rejected() {
    let text = |name: &str| {
        format!("invalid header {name:?}: the client sets it itself, or its name or value is not allowed in HTTP")
    };
    for name in ["", "a b", "a:", "\u{e9}", "Last-Event-ID", "last-event-id", "Content-Length", "Transfer-Encoding"] {
        is_rejected(builder().header(name, "x"), &text(name));
    }
    for value in ["a\r\nb: c", "a\nb", "\0"] {
        is_rejected(builder().header("X-A", value), &text("X-A"));
    }
}

#[test]
fn settings_of_zero_are_rejected() {
    is_rejected(builder().connect_timeout(Duration::ZERO), "`connect_timeout` must be greater than 0");
    is_rejected(builder().read_timeout(Duration::ZERO), "`read_timeout` must be greater than 0, or None");
    is_rejected(builder().max_line_len(0), "`max_line_len` must be greater than 0");
    is_rejected(builder().max_event_len(0), "`max_event_len` must be greater than 0");
}

#[test]
fn certificates_that_are_none_are_rejected() {
    let text = "no certificate found: expected one or more in PEM format";
    for pem in ["", "x", "-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n"]
    {
        is_rejected(builder().root_certificates(pem), text);
    }
}

#[test]
fn errors_convert_into_io_errors() {
    let error = io::Error::from(ConnectError::Url { url: "x".into() });
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(io::Error::from(ConnectError::Thread(io::ErrorKind::OutOfMemory)).kind(), io::ErrorKind::OutOfMemory);
}

#[test]
fn extreme_times_are_allowed() {
    let server = crate::common::foreign_server::ForeignServer::start();
    let (sender, lost) = std::sync::mpsc::channel();
    let builder = EventSource::builder(server.url()).connect_timeout(Duration::MAX).read_timeout(Duration::MAX);
    let builder = builder.reconnection_time(Duration::MAX).max_reconnection_delay(Duration::MAX);
    let hook = move |lost: &ConnectionLost| sender.send(lost.delay).unwrap();
    let program = super::runs(builder.on_connection_lost(hook));
    drop(server.answers(crate::common::foreign_server::STREAM));
    assert_eq!(lost.recv_timeout(crate::common::PATIENCE), Ok(Duration::MAX));
    drop(program);
}

#[test]
fn the_debug_text_holds_no_header() {
    assert!(!format!("{:?}", builder().header("Authorization", "secret")).contains("secret"));
}
