//! Hosts and origins: which ones are accepted, and what a page of another origin may read.

use super::*;
use crate::common::server::{ParsedResponse, opened};

fn host(host: &str) -> String {
    format!("HEAD / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn an_allowed_host_is_answered_in_addition_to_our_own() {
    own_process!();
    set(EventServer::builder().allow_host("example.org").allow_host("example.net"), |address| {
        for (name, status) in [
            ("example.org", 200),
            ("EXAMPLE.net:8080", 200),
            ("localhost:1", 200),
            ("example.com", 403),
            ("a.example.org", 403),
        ] {
            assert_eq!(response_to(address, host(name)).status, status, "{name}");
        }
    });
}

#[test]
fn any_host_may_be_allowed() {
    own_process!();
    set(EventServer::builder().allow_any_host(), |address| {
        assert_eq!(response_to(address, host("example.org")).status, 200);
        let mut client = send(address, "GET / HTTP/1.0\r\n\r\n");
        client.reads_head();
        client.reads(":\n");
    });
}

fn of_origin(method: &str, origin: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n")
}

fn allowed(response: &ParsedResponse) -> [Option<&str>; 3] {
    ["Access-Control-Allow-Origin", "Vary", "Access-Control-Allow-Credentials"].map(|name| response.header(name))
}

#[test]
fn without_cors_an_origin_changes_nothing() {
    own_process!();
    leaves_nothing(|address| {
        let response = response_to(address, of_origin("HEAD", "https://example.org"));
        assert_eq!((response.status, allowed(&response)), (200, [None, None, None]));
    });
}

#[test]
fn an_origin_that_is_allowed_is_named_and_others_are_refused() {
    own_process!();
    let settings = EventServer::builder().allow_origin("https://example.org").allow_origin("http://localhost:8000");
    set(settings, |address| {
        for origin in ["https://example.org", "http://localhost:8000"] {
            let response = response_to(address, of_origin("HEAD", origin));
            assert_eq!((response.status, allowed(&response)), (200, [Some(origin), Some("Origin"), None]));
        }
        for origin in [
            "https://example.com",
            "http://example.org",
            "https://example.org:8443",
            "https://example.org.example.com",
            "https://a.example.org",
            "null",
            "*",
            "",
        ] {
            for method in ["GET", "HEAD", "OPTIONS", "POST"] {
                let response = response_to(address, of_origin(method, origin));
                assert_eq!(
                    (response.status, allowed(&response)),
                    (403, [None, Some("Origin"), None]),
                    "{method} {origin}"
                );
            }
        }
        // A request that comes from no page.
        let response = response_to(address, host("localhost"));
        assert_eq!((response.status, response.header("Access-Control-Allow-Origin")), (200, None));
    });
}

#[test]
fn credentials_are_allowed_only_when_asked_for() {
    own_process!();
    let settings = EventServer::builder().allow_origin("https://example.org").allow_credentials();
    set(settings, |address| {
        for method in ["HEAD", "OPTIONS"] {
            let response = response_to(address, of_origin(method, "https://example.org"));
            assert_eq!(allowed(&response), [Some("https://example.org"), Some("Origin"), Some("true")]);
        }
    });
}

#[test]
fn a_preflight_is_answered() {
    own_process!();
    set(EventServer::builder().allow_origin("https://example.org"), |address| {
        let request = "OPTIONS /a HTTP/1.1\r\nHost: localhost\r\nOrigin: https://example.org\r\n\
            Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: last-event-id\r\n\r\n";
        let response = response_to(address, request);
        assert_eq!((response.status, allowed(&response)), (204, [Some("https://example.org"), Some("Origin"), None]));
        assert_eq!(response.header("Access-Control-Allow-Methods"), Some("GET, HEAD"));
        assert_eq!(response.header("Access-Control-Allow-Headers"), Some("Last-Event-ID, Cache-Control"));
    });
    set(EventServer::builder().allow_origin("https://example.org"), |address| {
        let response = response_to(address, "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(
            (response.status, response.header("Allow"), allowed(&response)),
            (204, Some("GET, HEAD, OPTIONS"), [None, Some("Origin"), None])
        );
    });
}

#[test]
fn every_answer_to_an_allowed_page_can_be_read_by_it() {
    own_process!();
    let settings = EventServer::builder().allow_origin("https://example.org").max_streams(1);
    set(settings, |address| {
        let _full = opened(address);
        let busy = response_to(address, of_origin("GET", "https://example.org"));
        assert_eq!(busy.header("Access-Control-Allow-Origin"), Some("https://example.org"));
        assert!(busy.body.starts_with(": busy"));
    });
}
