//! EventServer: what it answers, which clients it refuses, and how it ends.

// Their processes have limits that only Linux enforces this way.
#[cfg(target_os = "linux")]
mod few_descriptors;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))] // it takes away address space
mod few_threads;
mod handler;
mod limits;
mod policy;
mod replaced;
mod request;
mod request_values;
mod response;
mod response_values;
mod stopping;

use std::time::Duration;

use crate::common::http::GET;
use crate::common::server::{ParsedResponse, response_to};
use server_sent_events::server::{EventServer, Request, Response, RunningServer};

/// Starts a server with this handler.
#[track_caller]
fn answers(closure: impl Fn(&Request) -> Response + Send + Sync + 'static) -> RunningServer {
    EventServer::bind("127.0.0.1:0").unwrap().spawn(closure).unwrap()
}

/// Returns the server's response to a GET if its handler returns this.
#[track_caller]
fn answered(closure: impl Fn() -> Response + Send + Sync + 'static) -> ParsedResponse {
    response_to(answers(move |_| closure()).local_addr(), GET)
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |settings: server_sent_events::server::EventServerBuilder| {
        let error = settings.bind("127.0.0.1:0").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        error.to_string()
    };
    let new = EventServer::builder;
    assert_eq!(refused(new().max_streams(0)), "`max_streams` must be greater than 0");
    refused(new().max_streams_per_ip(0));
    refused(new().handler_threads(0));
    refused(new().write_timeout(Duration::ZERO));
    refused(new().header_read_timeout(Duration::ZERO));
    refused(new().body_read_timeout(Duration::ZERO));
    refused(new().keep_alive_timeout(Duration::ZERO));
    refused(new().max_requests_per_connection(0));
    refused(new().max_body_memory(0));
    let error = refused(new().max_body(1_001).max_body_memory(1_000));
    assert_eq!(error, "`max_body_memory` must be at least `max_body`");
    for origin in ["*", "null", "", "example.org", "https://", "https://a/", "https://a b", "https://a\r\nX: y"] {
        assert!(refused(new().allow_origin(origin)).starts_with("invalid origin "), "{origin}");
    }
    for host in ["", "http://example.org", "example.org:8080", "example.org/", "exa mple.org", "::1", "[::1", "1.2.3"] {
        assert!(refused(new().allow_host(host)).starts_with("invalid host "), "{host}");
    }
    for host in ["Example.org", "127.0.0.1", "[::1]", "localhost", "my_host."] {
        assert!(new().allow_host(host).bind("127.0.0.1:0").is_ok(), "{host}");
    }
    assert!(EventServer::bind("300.0.0.1:0").is_err());
}
