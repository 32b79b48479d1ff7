//! Responses of EventServer that are not streams, as an independent parser reads them.

use std::sync::Arc;

use crate::common::echo::{get, with_bodies};
use crate::common::http::Client;
use crate::common::server::{ParsedResponse, reads_response, send};
use server_sent_events::server::{EventServer, HandlerError, Request, Response, RunningServer};

const PAGE: &str = "<h1>grüße</h1>";

fn answer(request: &Request) -> Result<Response, HandlerError> {
    let icon: Arc<[u8]> = Arc::from(*b"GIF89a\0");
    Ok(match request.path() {
        "/text" => Response::text("hello"),
        "/page" => Response::html(PAGE).header("Content-Security-Policy", "default-src 'self'")?,
        "/icon" => Response::bytes("image/gif", icon)?.header("cache-control", "max-age=60")?,
        "/tagged" => Response::text("hello").header("ETag", "\"mine\"")?,
        "/empty" => Response::text(""),
        "/created" => Response::text("made").with_status(201)?.header("Location", "/page")?,
        "/redirect" => Response::redirect("/page?a=b#c")?,
        "/none" => Response::status(204)?.header("X-A", "1")?.header("x-a", "2")?,
        "/missing" => Response::status(404)?,
        "/teapot" => Response::status(418)?,
        "/unchanged" => Response::status(304)?,
        "/later" => Response::retry_later().header("X-A", "1")?,
        "/stop" => Response::do_not_reconnect(),
        "/split" => Response::text("x").header("X", "a\r\nSet-Cookie: b")?,
        "/invalid" => Response::status(99)?,
        "/panic" => panic!("as it should"),
        _ => return Err(HandlerError::new(422, "no such thing")),
    })
}

fn server() -> RunningServer {
    with_bodies(1_000).bind("127.0.0.1:0").unwrap().spawn(answer).unwrap()
}

/// Returns the response to a request with this method and these header lines, after which another request is answered.
#[track_caller]
fn asked(client: &mut Client, method: &str, path: &str, lines: &str) -> ParsedResponse {
    client.send(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"));
    let response = reads_response(client, method == "HEAD");
    if response.header("Connection").is_none() {
        client.send(&get("/text"));
        assert_eq!(reads_response(client, false).body, "hello", "after {method} {path}");
    }
    response
}

#[test]
fn each_response_has_its_status_its_type_and_its_length() {
    let server = server();
    let mut client = Client::connect(server.local_addr());
    for (path, status, content_type, body) in [
        ("/text", 200, "text/plain; charset=utf-8", "hello"),
        ("/page", 200, "text/html; charset=utf-8", PAGE),
        ("/icon", 200, "image/gif", "GIF89a\0"),
        ("/empty", 200, "text/plain; charset=utf-8", ""),
        ("/created", 201, "text/plain; charset=utf-8", "made"),
        ("/redirect", 303, "text/plain; charset=utf-8", ""),
        ("/missing", 404, "text/plain; charset=utf-8", "Not Found\n"),
        ("/teapot", 418, "text/plain; charset=utf-8", ""),
        ("/elsewhere", 422, "text/plain; charset=utf-8", "no such thing\n"),
        ("/panic", 500, "text/plain; charset=utf-8", "the handler panicked\n"),
    ] {
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            let response = asked(&mut client, method, path, "");
            let body = if method == "HEAD" { "" } else { body };
            assert_eq!((response.status, &*response.body), (status, body), "{method} {path}");
            assert_eq!(response.header("Content-Type"), Some(content_type), "{method} {path}");
            assert!(response.header("Content-Length").is_some(), "{method} {path}");
        }
    }
}

/// A length of 0 with a 204 has made clients wait (RFC 9110 8.6).
#[test]
fn a_response_that_cannot_have_a_body_has_no_length() {
    let server = server();
    let mut client = Client::connect(server.local_addr());
    for (path, status) in [("/none", 204), ("/stop", 204), ("/unchanged", 304)] {
        for method in ["GET", "HEAD", "POST"] {
            let response = asked(&mut client, method, path, "");
            assert_eq!(
                (response.status, &*response.body, response.header("Content-Length")),
                (status, "", None),
                "{path}"
            );
            assert!(status != 204 || response.header("Content-Type").is_none());
        }
    }
}

#[test]
fn headers_of_the_handler_are_sent_and_cannot_be_forged() {
    let server = server();
    let mut client = Client::connect(server.local_addr());
    assert_eq!(asked(&mut client, "GET", "/page", "").header("content-security-policy"), Some("default-src 'self'"));
    assert_eq!(asked(&mut client, "GET", "/redirect", "").header("Location"), Some("/page?a=b#c"));
    assert_eq!(asked(&mut client, "GET", "/created", "").header("Location"), Some("/page"));
    let both = asked(&mut client, "GET", "/none", "").headers;
    assert_eq!(both.iter().filter(|(name, _)| name.eq_ignore_ascii_case("X-A")).count(), 2);
    for path in ["/split", "/invalid"] {
        let response = asked(&mut client, "GET", path, "");
        assert_eq!((response.status, response.header("Set-Cookie")), (500, None), "{path}");
    }
    for name in ["Content-Length", "transfer-encoding", "Connection", "Date", "Content-Type", "Upgrade"] {
        assert!(Response::text("x").header(name, "5").is_err(), "{name}");
    }
    assert!(Response::redirect("/\r\nSet-Cookie: a=b").is_err());
    assert!(Response::bytes("a/b\r\nX: y", *b"x").is_err());
}

#[test]
fn retry_later_is_a_stream_that_ends() {
    let server = server();
    let mut client = Client::connect(server.local_addr());
    let response = asked(&mut client, "GET", "/later", "");
    assert_eq!(
        (response.status, response.header("X-A"), response.header("Connection")),
        (200, Some("1"), Some("close"))
    );
    assert_eq!(response.header("Content-Type"), Some("text/event-stream; charset=utf-8"));
    assert!(response.body.starts_with(": busy\nretry: "), "{}", response.body);
    let mut client = Client::connect(server.local_addr());
    assert_eq!(asked(&mut client, "HEAD", "/later", "").body, "");
}

#[test]
fn an_unchanged_page_is_answered_with_304() {
    let server = server();
    let mut client = Client::connect(server.local_addr());
    for path in ["/page", "/icon", "/text", "/empty"] {
        let first = asked(&mut client, "GET", path, "");
        let tag = first.header("ETag").expect("a tag").to_owned();
        assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        assert_eq!(asked(&mut client, "HEAD", path, "").header("ETag"), Some(&*tag));
        for tags in [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"a\", {tag}"),
            format!("W/\"a\",W/{tag} , \"b\""),
            "*".to_owned(),
            format!("\"a\"\r\nIf-None-Match: {tag}"),
        ] {
            for method in ["GET", "HEAD"] {
                let response = asked(&mut client, method, path, &format!("If-None-Match: {tags}\r\n"));
                assert_eq!((response.status, &*response.body), (304, ""), "{path} {tags}");
                // What a cache needs to keep using its copy (RFC 9110 15.4.5).
                assert_eq!((response.header("ETag"), response.header("Content-Length")), (Some(&*tag), None));
                assert_eq!(response.header("Cache-Control"), first.header("Cache-Control"));
            }
        }
        for tags in ["\"a\"", "", tag.trim_matches('"'), "\"*\"", &tag.to_uppercase().replace('-', "_")] {
            let response = asked(&mut client, "GET", path, &format!("If-None-Match: {tags}\r\n"));
            assert_eq!((response.status, response.body), (200, first.body.clone()), "{path} {tags}");
        }
        // A request that changes something is carried out, whatever copy the client has.
        let response = asked(&mut client, "POST", path, &format!("If-None-Match: {tag}\r\n"));
        assert_eq!((response.status, response.header("ETag")), (200, None));
    }
    let [page, text] = ["/page", "/text"].map(|path| asked(&mut client, "GET", path, ""));
    assert_ne!(page.header("ETag"), text.header("ETag"));
    assert_eq!(page.header("Cache-Control"), Some("no-cache"));
}

#[test]
fn a_tag_of_the_handler_stays_and_errors_have_none() {
    let server = server();
    let mut client = Client::connect(server.local_addr());
    assert_eq!(asked(&mut client, "GET", "/tagged", "").header("ETag"), Some("\"mine\""));
    for path in ["/missing", "/elsewhere", "/created", "/redirect", "/none"] {
        assert_eq!(asked(&mut client, "GET", path, "If-None-Match: *\r\n").header("ETag"), None, "{path}");
    }
}

#[test]
fn once_an_origin_is_allowed_every_response_varies_by_it() {
    let settings = with_bodies(1_000).allow_origin("https://example.org");
    let server = settings.bind("127.0.0.1:0").unwrap().spawn(answer).unwrap();
    let origin = "Origin: https://example.org\r\n";
    for (request, status) in [
        (get("/text"), 200),
        (get("/none"), 204),
        (get("/later"), 200),
        (get("/elsewhere"), 422),
        ("garbage\r\n\r\n".to_owned(), 400),
        (get("/").replace("localhost", "example.net"), 403),
        (get("/text").replace("\r\n\r\n", "\r\nOrigin: https://example.net\r\n\r\n"), 403),
        (get("/text").replace("\r\n\r\n", "\r\nExpect: x\r\n\r\n"), 417),
    ] {
        for lines in ["", origin] {
            let request = if request.contains("Origin:") {
                request.clone()
            } else {
                request.replacen("\r\n", &format!("\r\n{lines}"), 1)
            };
            let response = reads_response(&mut send(server.local_addr(), &request), false);
            assert_eq!((response.status, response.header("Vary")), (status, Some("Origin")), "{request:?}");
        }
    }
}

#[test]
fn a_server_without_bodies_still_answers_pages_over_one_connection() {
    let server = EventServer::bind("127.0.0.1:0").unwrap().spawn(answer).unwrap();
    let mut client = Client::connect(server.local_addr());
    for path in ["/page", "/text", "/none", "/missing"] {
        asked(&mut client, "GET", path, "");
    }
    assert_eq!(asked(&mut client, "POST", "/text", "").status, 405);
}
