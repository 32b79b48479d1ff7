//! Which responses are event streams, which end the client, and how redirects are followed.

use server_sent_events::client::{ConnectionError, EndCause};

use super::{ends, gets_data, loses, runs, soon, watched};
use crate::common::foreign_server::{CHUNKED, ForeignServer, STREAM, header};

/// Returns the cause with which the client ends after this response.
#[track_caller]
fn ends_after(response: &str) -> EndCause {
    let server = ForeignServer::start();
    let mut events = runs(soon(&server));
    let _connection = server.answers(response);
    let cause = ends(&mut events);
    assert!(server.try_accept().is_none(), "the client reconnected");
    cause
}

#[test]
fn the_request_is_that_of_an_event_source() {
    let server = ForeignServer::start();
    let _events =
        soon(&server).header("Authorization", "Bearer secret").header("X-A", "1").header("X-A", "2").connect();
    let (_connection, head) = server.gets_request();
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "Host"), [server.address().to_string()]);
    assert_eq!(header(&head, "Accept"), ["text/event-stream"]);
    assert_eq!(header(&head, "Cache-Control"), ["no-cache"]);
    assert_eq!(header(&head, "Authorization"), ["Bearer secret"]);
    assert_eq!(header(&head, "X-A"), ["1", "2"]);
    for absent in ["Last-Event-ID", "Accept-Encoding", "Content-Length"] {
        assert_eq!(header(&head, absent), [""; 0], "{absent}");
    }
}

#[test]
fn status_204_ends_the_client() {
    assert_eq!(ends_after("HTTP/1.1 204 No Content\r\n\r\n"), EndCause::NoContent);
}

#[test]
fn every_status_but_200_ends_the_client() {
    for status in [205, 210, 299, 304, 400, 401, 404, 410, 429, 500, 503] {
        let response = format!("HTTP/1.1 {status} X\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n");
        assert_eq!(ends_after(&response), EndCause::Status(status));
    }
}

#[test]
fn a_server_that_fails_is_tried_again_if_that_is_wanted() {
    let server = ForeignServer::start();
    let (builder, lost) = watched(&server);
    let mut events = runs(builder.retry_server_errors(true));
    for status in [500, 502, 503, 429] {
        server.answers(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(loses(&lost), ConnectionError::Status(status));
        // The delay of a failure doubles: a success begins anew.
        let mut connection = server.answers(STREAM);
        connection.send("data: x\n\n");
        gets_data(&mut events, "x");
        drop(connection);
        assert_eq!(loses(&lost), ConnectionError::Ended);
    }
    server.answers("HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(ends(&mut events), EndCause::Status(404));
}

#[test]
fn only_the_type_of_event_streams_is_accepted() {
    for content_type in [
        "text/event-stream",
        "Text/Event-Stream",
        "text/event-stream;",
        "text/event-stream; charset=utf-8",
        "text/event-stream;charset=windows-1251",
        "text/event-stream ; x=y; z",
        "text/plain\r\nContent-Type: text/event-stream",
    ] {
        let server = ForeignServer::start();
        let mut events = runs(soon(&server));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n");
        let _connection = server.answers(head + "data: ok\u{2026}\n\n");
        gets_data(&mut events, "ok\u{2026}");
    }
    for content_type in ["text/x-bogus", "x bogus", "text/event-streams", "text/event", "text/event-stream,x", ""] {
        let response = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\ndata: x\n\n");
        assert_eq!(ends_after(&response), EndCause::ContentType(Some(content_type.into())));
    }
    assert_eq!(ends_after("HTTP/1.1 200 OK\r\n\r\ndata: x\n\n"), EndCause::ContentType(None));
}

#[test]
fn every_kind_of_body_is_read() {
    let length = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\n";
    let http_1_0 = STREAM.replace("1.1", "1.0");
    let chunked = format!("{CHUNKED}3\r\ndat\r\n6;x=y\r\na: x\n\n\r\n");
    for stream in [length.to_owned() + "data: x\n\n", http_1_0 + "data: x\n\n", chunked] {
        let server = ForeignServer::start();
        let mut events = runs(soon(&server));
        let _connection = server.answers(stream);
        gets_data(&mut events, "x");
    }
}

#[test]
fn redirects_are_followed_each_time() {
    for status in [301, 302, 303, 307, 308] {
        let server = ForeignServer::start();
        let mut events = runs(soon(&server).header("Authorization", "Bearer secret"));
        for round in 0..2 {
            // The client begins at the first URL again, whatever the status.
            let (mut connection, head) = server.gets_request();
            assert!(head.starts_with("GET / "), "{status}: {head}");
            connection.send(&format!("HTTP/1.1 {status} X\r\nLocation: /b?c=d\r\nContent-Length: 0\r\n\r\n"));
            let (mut connection, head) = server.gets_request();
            assert!(head.starts_with("GET /b?c=d "), "{status}: {head}");
            assert_eq!(header(&head, "Accept"), ["text/event-stream"]);
            assert_eq!(header(&head, "Authorization"), ["Bearer secret"]);
            let ids: &[&str] = if round == 0 { &[] } else { &["7"] };
            assert_eq!(header(&head, "Last-Event-ID"), ids);
            connection.send(&format!("{STREAM}id: 7\ndata: x\n\n"));
            gets_data(&mut events, "x");
        }
    }
}

#[test]
fn a_redirect_to_another_origin_gets_no_authorization() {
    // Another port, and another host.
    for host in ["127.0.0.1", "localhost"] {
        let (server, other) = (ForeignServer::start(), ForeignServer::start());
        let _events = runs(soon(&server).header("Authorization", "Bearer secret"));
        let location = format!("http://{host}:{}/", other.address().port());
        server.answers(format!("HTTP/1.1 302 X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"));
        let (_connection, head) = other.gets_request();
        assert_eq!(header(&head, "Authorization"), [""; 0], "{host}");
    }
}

#[test]
fn endless_redirects_are_an_error() {
    let server = ForeignServer::start();
    let (builder, lost) = watched(&server);
    let _events = runs(builder);
    for _ in 0..=20 {
        server.answers("HTTP/1.1 302 X\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
    }
    assert!(matches!(loses(&lost), ConnectionError::Response { .. }));
}

#[test]
fn a_redirect_to_an_invalid_url_is_an_error() {
    let server = ForeignServer::start();
    let (builder, lost) = watched(&server);
    let _events = runs(builder);
    server.answers("HTTP/1.1 302 X\r\nLocation: ftp://x/\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(loses(&lost).to_string(), "the server redirects to an invalid URL: \"ftp://x/\"");
}

#[test]
fn a_redirect_without_a_location_ends_the_client() {
    for status in [301, 302, 303, 307, 308] {
        let response = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(ends_after(&response), EndCause::Status(status));
    }
}
