//! Requests that no client should send to EventServer: each gets its status and the end of the connection, and leaves
//! nothing behind.

mod connections;
mod hosts_and_origins;
mod random;

use std::net::SocketAddr;
use std::time::Duration;

use crate::common::http::GET;
use crate::common::server::{response_to, send, serve};
use crate::no_harm::does_no_harm;
use crate::own_process::own_process;
use server_sent_events::server::{EventServer, EventServerBuilder};

/// The time that a client has for its request where the test waits for it to be over.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs `test` with a server of its own. Checks that another stream of it goes on, and that nothing is left.
#[track_caller]
fn leaves_nothing<T>(test: impl FnOnce(SocketAddr) -> T) -> T {
    does_no_harm(EventServer::builder(), |address, _| test(address))
}

/// Runs `test` with a server that soon gives up on clients whose request is not whole.
#[track_caller]
fn leaves_nothing_in_time<T>(test: impl FnOnce(SocketAddr) -> T) -> T {
    does_no_harm(EventServer::builder().header_read_timeout(HEADER_READ_TIMEOUT), |address, _| test(address))
}

/// Returns a server with these settings in addition.
#[track_caller]
fn set(settings: EventServerBuilder, test: impl FnOnce(SocketAddr)) {
    does_no_harm(EventServer::builder(), |_, publisher| {
        let server = serve(settings, publisher);
        test(server.local_addr());
    });
}

#[track_caller]
fn is_answered_with(status: u16, request: impl AsRef<[u8]>) {
    let test = |address| {
        assert_eq!(response_to(address, &request).status, status, "{:?}", String::from_utf8_lossy(request.as_ref()));
    };
    if status == 408 { leaves_nothing_in_time(test) } else { leaves_nothing(test) }
}

/// Returns a GET with a valid Host and these other header lines.
fn with(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n")
}

/// Makes a test of each row: its name, the status, and what is sent.
macro_rules! are_answered {
    ($($(#[$comment:meta])* $name:ident: $status:literal, $request:expr;)*) => {$(
        $(#[$comment])*
        #[test]
        fn $name() {
            own_process!();
            is_answered_with($status, $request);
        }
    )*};
}

are_answered! {
    a_post: 405, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc";
    a_post_whose_body_does_not_come: 405, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n";
    a_post_in_chunks: 405, "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    a_put: 405, "PUT / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    a_delete: 405, "DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    a_trace: 405, "TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    options_without_cors: 405, "OPTIONS / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    a_method_that_nobody_knows: 405, "BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    /// A method is case-sensitive (RFC 9110 9.1).
    get_in_small_letters: 405, "get / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    a_connect: 400, "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    a_large_post: 405, format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));

    a_body_on_a_get: 400, format!("{}abc", with("Content-Length: 3"));
    a_body_that_does_not_come: 400, with("Content-Length: 3");
    a_body_of_64_gibibytes: 400, with("Content-Length: 68719476736");
    a_body_on_a_head: 400, "HEAD / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n";
    chunks_on_a_get: 400, format!("{}0\r\n\r\n", with("Transfer-Encoding: chunked"));
    a_transfer_encoding_of_nothing: 400, with("Transfer-Encoding: identity");
    an_empty_transfer_encoding: 400, with("Transfer-Encoding:");
    chunks_and_a_length: 400, with("Content-Length: 0\r\nTransfer-Encoding: chunked");
    two_lengths: 400, with("Content-Length: 0\r\nContent-Length: 3");
    twice_the_same_length: 400, with("Content-Length: 0\r\nContent-Length: 0");
    two_lengths_in_one: 400, with("Content-Length: 0, 0");
    a_negative_length: 400, with("Content-Length: -0");
    a_length_with_a_sign: 400, with("Content-Length: +0");
    a_length_in_hexadecimal: 400, with("Content-Length: 0x0");
    a_length_beyond_all_numbers: 400, with("Content-Length: 99999999999999999999999999");
    an_empty_length: 400, with("Content-Length:");
    a_length_that_is_none_on_a_post: 400, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: abc\r\n\r\n";

    a_bare_lf: 400, "GET / HTTP/1.1\r\nHost: localhost\n\r\n";
    only_bare_lfs: 400, "GET / HTTP/1.1\nHost: localhost\n\n";
    a_bare_cr_in_a_value: 400, with("X: a\rb");
    a_bare_cr_behind_a_line: 400, "GET / HTTP/1.1\r\r\nHost: localhost\r\n\r\n";
    a_crlf_before_the_request: 400, format!("\r\n{GET}");
    an_lf_before_the_request: 400, format!("\n{GET}");
    a_space_before_the_request: 400, format!(" {GET}");
    a_space_before_a_colon: 400, with("X : a");
    a_tab_before_a_colon: 400, with("X\t: a");
    a_space_before_a_name: 400, "GET / HTTP/1.1\r\n Host: localhost\r\n\r\n";
    a_folded_line: 400, with("X: a\r\n b");
    a_folded_line_with_a_tab: 400, with("X: a\r\n\tb");
    a_nul_in_a_value: 400, with("X: a\0b");
    a_nul_in_the_target: 400, "GET /a\0b HTTP/1.1\r\nHost: localhost\r\n\r\n";
    a_control_character_in_a_value: 400, with("X: a\x07b");
    a_delete_character_in_a_value: 400, with("X: a\x7fb");
    a_name_that_is_not_ascii: 400, with("X\u{e4}: a");
    a_name_with_a_space: 400, with("X Y: a");
    an_empty_name: 400, with(": a");
    a_line_without_a_colon: 400, with("X");
    a_target_that_is_not_ascii: 400, "GET /\u{e4} HTTP/1.1\r\nHost: localhost\r\n\r\n";
    a_target_with_a_fragment: 400, "GET /#a HTTP/1.1\r\nHost: localhost\r\n\r\n";
    a_target_without_a_slash: 400, "GET news HTTP/1.1\r\nHost: localhost\r\n\r\n";
    a_star_for_a_target: 400, "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n";
    a_path_that_is_not_utf_8: 400, "GET /%ff HTTP/1.1\r\nHost: localhost\r\n\r\n";
    two_spaces_in_the_request_line: 400, "GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    a_tab_in_the_request_line: 400, "GET\t/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    a_space_behind_the_version: 400, "GET / HTTP/1.1 \r\nHost: localhost\r\n\r\n";
    a_space_in_the_target: 400, "GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n";
    an_absolute_target_of_another_host: 400, "GET http://example.org/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    an_absolute_target_with_a_user: 400, "GET http://a@localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    an_absolute_target_of_another_protocol: 400, "GET ftp://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n";

    no_host: 400, "GET / HTTP/1.1\r\n\r\n";
    two_hosts: 400, with("Host: localhost");
    two_hosts_in_http_1_0: 400, "GET / HTTP/1.0\r\nHost: localhost\r\nHost: localhost\r\n\r\n";
    an_empty_host: 400, "GET / HTTP/1.1\r\nHost:\r\n\r\n";
    two_hosts_in_one: 400, "GET / HTTP/1.1\r\nHost: localhost, localhost\r\n\r\n";
    a_host_with_a_path: 400, "GET / HTTP/1.1\r\nHost: localhost/a\r\n\r\n";
    another_host: 403, "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
    another_host_that_begins_the_same: 403, "GET / HTTP/1.1\r\nHost: localhost.example.org\r\n\r\n";
    a_host_with_a_port_that_is_none: 403, "GET / HTTP/1.1\r\nHost: localhost:http\r\n\r\n";
    /// A browser always sends a Host, so this client is none. It must still name one.
    http_1_0_without_a_host: 403, "GET / HTTP/1.0\r\n\r\n";

    a_head_over_8_kib: 431, with(&format!("X: {}", "x".repeat(8_192)));
    a_head_without_an_end: 431, format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(20_000));
    a_target_over_8_kib: 431, format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(8_192));
    a_method_without_an_end: 431, "G".repeat(20_000);
    sixty_five_fields: 431, with("X: y\r\n".repeat(64).trim_end());
    a_thousand_fields: 431, with("X: y\r\n".repeat(1_000).trim_end());

    http_2_0: 505, "GET / HTTP/2.0\r\nHost: localhost\r\n\r\n";
    http_2_with_prior_knowledge: 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    http_1_2: 505, "GET / HTTP/1.2\r\nHost: localhost\r\n\r\n";
    http_in_small_letters: 400, "GET / http/1.1\r\nHost: localhost\r\n\r\n";
    http_0_9: 400, "GET /\r\n\r\n";
    another_protocol: 400, "OPTIONS rtsp://localhost/ RTSP/1.0\r\n\r\n";
    garbage_of_letters: 400, "hello\r\n\r\n";
    garbage: 400, (0..=255).collect::<Vec<u8>>();
    a_tls_hello: 400, b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03";
    a_socks_hello: 400, b"\x05\x01\x00";

    a_second_request_with_the_first: 400, GET.repeat(2);
    a_byte_behind_the_request: 400, format!("{GET}x");
    a_line_end_behind_the_request: 400, format!("{GET}\r\n");

    half_a_head: 408, "GET / HTTP/1.1\r\nHost: localhost\r\n";
    nothing_at_all: 408, "";
    one_byte: 408, "G";
}

#[test]
fn a_request_just_within_the_limits_is_accepted() {
    own_process!();
    leaves_nothing(|address| {
        let rest = 8 * 1_024 - with("X: ").len();
        let heads = [
            with(&format!("X: {}", "x".repeat(rest))),
            with("X: y\r\n".repeat(63).trim_end()),
            with("Content-Length: 0"),
            with("X:"),
            with("X: \u{e4}\ta"),
            "GET / HTTP/1.1\r\nHost: LOCALHOST:12345\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n".to_owned(),
            "GET /?a=b HTTP/1.1\r\nhost:localhost\r\n\r\n".to_owned(),
            "GET http://localhost/a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        ];
        for head in heads {
            let status = send(address, &head).reads_head().status().to_owned();
            assert_eq!(status, "HTTP/1.1 200 OK", "{head:?}");
        }
    });
}

#[test]
fn a_405_names_the_allowed_methods() {
    own_process!();
    leaves_nothing(|address| {
        let response = response_to(address, "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!((response.status, response.header("Allow")), (405, Some("GET, HEAD")));
    });
}
