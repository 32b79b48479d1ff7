//! Bodies that clients send to EventServer: each one reaches the handler whole, or is rejected with a status and the
//! end of the connection. A rejected body leaves nothing behind.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::echo::{Echo, get, post, post_whole, rejects, responds, with_bodies};
use crate::common::pace::{Pace, keeping_pace};
use crate::common::server::{reads_response, well_formed};
use crate::common::{PATIENCE, eventually};
use crate::no_harm::leaves_nothing;
use crate::own_process::own_process;
use server_sent_events::server::{EventServer, EventServerBuilder};

const MAX_BODY: usize = 16 * 1024;

/// The time that a client has for its body where the test waits for it to be over.
const BODY_READ_TIMEOUT: Duration = Duration::from_millis(300);

fn settings() -> EventServerBuilder {
    with_bodies(MAX_BODY).body_read_timeout(Duration::from_secs(600))
}

fn impatient() -> EventServerBuilder {
    with_bodies(MAX_BODY).body_read_timeout(BODY_READ_TIMEOUT)
}

/// Returns a `POST` with these header lines and this body.
fn sent(lines: &str, body: &str) -> String {
    post("/", lines, body)
}

/// Returns a `POST` of this chunked body.
fn chunked(body: &str) -> String {
    sent("Transfer-Encoding: chunked", body)
}

#[track_caller]
fn is_rejected_with(status: u16, request: &str, ends: bool) {
    leaves_nothing(if status == 408 { impatient() } else { settings() }, |server| {
        let mut client = server.send(request);
        if ends {
            client.shuts_down_writing();
        }
        rejects(&mut client, status);
        assert_eq!(server.requests(), [""; 0], "the handler was called");
    });
}

#[track_caller]
fn is_given_to_the_handler(request: &str, body: &str) {
    leaves_nothing(settings(), |server| {
        let mut client = server.send(request);
        responds(&mut client, 200, body);
        assert_eq!(server.requests(), [format!("POST / {body}")]);
    });
}

/// Makes a test of each row: its name, the status, and what is sent. After `then the end` the client sends nothing
/// more.
macro_rules! are_rejected {
    ($($name:ident: $status:literal, $request:expr $(, then the $end:ident)?;)*) => {$(
        #[test]
        fn $name() {
            own_process!();
            let ends = [$(stringify!($end))?] as [&str; _];
            is_rejected_with($status, &$request, ends.len() == 1);
        }
    )*};
}

/// Makes a test of each row: its name, what is sent, and the body that the handler gets.
macro_rules! are_given_to_the_handler {
    ($($name:ident: $request:expr, $body:expr;)*) => {$(
        #[test]
        fn $name() {
            own_process!();
            is_given_to_the_handler(&$request, &$body);
        }
    )*};
}

are_rejected! {
    a_body_whose_length_is_over_the_limit: 413, sent("Content-Length: 16385", "");
    a_body_over_the_limit_that_arrives: 413, post_whole("/", &"x".repeat(MAX_BODY + 1));
    a_large_body_over_the_limit_that_arrives: 413, post_whole("/", &"x".repeat(1 << 20));
    a_length_beyond_all_numbers: 413, sent("Content-Length: 99999999999999999999999999", "");
    a_chunk_over_the_limit: 413, chunked("4001\r\n");
    a_chunk_of_the_largest_size: 413, chunked("ffffffffffffffff\r\n");
    chunks_over_the_limit_together: 413, chunked(&format!("4000\r\n{}\r\n1\r\n", "x".repeat(MAX_BODY)));

    a_body_that_is_too_short: 400, sent("Content-Length: 5", "hell"), then the end;
    a_body_that_never_begins: 400, sent("Content-Length: 5", ""), then the end;
    a_body_cut_inside_a_size: 400, chunked("1"), then the end;
    a_body_cut_inside_a_chunk: 400, chunked("5\r\nhel"), then the end;
    a_body_cut_at_the_end_of_a_chunk: 400, chunked("5\r\nhello"), then the end;
    a_body_cut_between_chunks: 400, chunked("5\r\nhello\r\n"), then the end;
    a_body_cut_inside_the_last_chunk: 400, chunked("5\r\nhello\r\n0\r\n"), then the end;
    a_body_cut_inside_the_trailer: 400, chunked("5\r\nhello\r\n0\r\nX: y\r\n"), then the end;
    a_body_that_stops: 408, sent("Content-Length: 5", "hell");
    a_body_that_does_not_begin: 408, sent("Content-Length: 5", "");
    a_body_that_stops_inside_a_chunk: 408, chunked("5\r\nhel");
    a_body_that_stops_between_chunks: 408, chunked("5\r\nhello\r\n");
    a_body_that_stops_before_its_empty_line: 408, chunked("5\r\nhello\r\n0\r\n");

    two_lengths: 400, sent("Content-Length: 5\r\nContent-Length: 6", "hello");
    twice_the_same_length: 400, sent("Content-Length: 5\r\nContent-Length: 5", "hello");
    two_lengths_in_one_header: 400, sent("Content-Length: 5, 5", "hello");
    a_length_and_chunks: 400, sent("Content-Length: 5\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n");
    chunks_and_a_length: 400, sent("Transfer-Encoding: chunked\r\nContent-Length: 15", "5\r\nhello\r\n0\r\n\r\n");
    a_length_with_a_sign: 400, sent("Content-Length: +5", "hello");
    a_length_in_hexadecimal: 400, sent("Content-Length: 0x5", "hello");
    a_length_in_words: 400, sent("Content-Length: five", "hello");
    an_empty_length: 400, sent("Content-Length:", "hello");
    a_length_with_a_space_before_its_colon: 400, sent("Content-Length : 5", "hello");
    another_coding: 400, sent("Transfer-Encoding: gzip", "");
    another_coding_and_chunks: 400, sent("Transfer-Encoding: gzip, chunked", "0\r\n\r\n");
    chunks_twice: 400, sent("Transfer-Encoding: chunked, chunked", "0\r\n\r\n");
    chunks_in_two_headers: 400, sent("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n");
    no_coding: 400, sent("Transfer-Encoding: identity", "");
    an_empty_coding: 400, sent("Transfer-Encoding:", "");
    a_quoted_coding: 400, sent("Transfer-Encoding: \"chunked\"", "0\r\n\r\n");
    a_coding_with_a_parameter: 400, sent("Transfer-Encoding: chunked;q=1", "0\r\n\r\n");
    a_folded_coding: 400, sent("Transfer-Encoding:\r\n chunked", "0\r\n\r\n");
    chunks_of_http_1_0: 411, "POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    a_body_on_a_get: 400, "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    chunks_on_a_get: 400, "GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    a_body_on_options: 400, "OPTIONS / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";

    a_size_of_nothing: 400, chunked("\r\nhello\r\n0\r\n\r\n");
    a_size_that_is_no_number: 400, chunked("five\r\nhello\r\n0\r\n\r\n");
    a_size_with_a_sign: 400, chunked("+5\r\nhello\r\n0\r\n\r\n");
    a_negative_size: 400, chunked("-5\r\nhello\r\n0\r\n\r\n");
    a_size_with_a_prefix: 400, chunked("0x5\r\nhello\r\n0\r\n\r\n");
    a_size_with_a_space_before_it: 400, chunked(" 5\r\nhello\r\n0\r\n\r\n");
    a_size_with_a_space_behind_it: 400, chunked("5 \r\nhello\r\n0\r\n\r\n");
    a_size_of_17_digits: 400, chunked("00000000000000005\r\nhello\r\n0\r\n\r\n");
    a_size_that_ends_with_a_bare_lf: 400, chunked("5\nhello\r\n0\r\n\r\n");
    a_size_that_ends_with_a_bare_cr: 400, chunked("5\rhello\r\n0\r\n\r\n");
    a_chunk_that_is_longer_than_its_size: 400, chunked("5\r\nhello!\r\n0\r\n\r\n");
    a_chunk_that_is_shorter_than_its_size: 400, chunked("6\r\nhello\r\n0\r\n\r\n");
    a_chunk_that_ends_with_a_bare_lf: 400, chunked("5\r\nhello\n0\r\n\r\n");
    a_body_that_is_not_chunked: 400, chunked("hello\r\n");
    a_body_that_looks_like_a_head_request: 400, chunked("HEAD / HTTP/1.1\r\n\r\n");
    an_extension_with_a_control_character: 400, chunked("5;a\0\r\nhello\r\n0\r\n\r\n");
    an_extension_with_a_bare_lf: 400, chunked("5;a\nhello\r\n0\r\n\r\n");
    an_extension_that_is_too_long: 400, chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(256)));
    a_trailer_without_a_colon: 400, chunked("0\r\nX\r\n\r\n");
    a_folded_trailer: 400, chunked("0\r\nX: y\r\n z\r\n\r\n");
    a_trailer_with_a_bare_lf: 400, chunked("0\r\nX: y\n\r\n");
    a_trailer_over_4_kib: 431, chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(700)));
}

are_given_to_the_handler! {
    a_body_of_the_largest_size: post_whole("/", &"x".repeat(MAX_BODY)), "x".repeat(MAX_BODY);
    a_chunk_of_the_largest_size_that_is_allowed:
        chunked(&format!("4000\r\n{}\r\n0\r\n\r\n", "x".repeat(MAX_BODY))), "x".repeat(MAX_BODY);
    many_chunks: chunked(&format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(5_000))), "x".repeat(5_000);
    a_size_with_leading_zeros: chunked("00005\r\nhello\r\n000\r\n\r\n"), "hello";
    sizes_in_both_cases: chunked(&format!("a\r\n{0}\r\nA\r\n{0}\r\n0\r\n\r\n", "x".repeat(10))), "x".repeat(20);
    extensions: chunked("5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n"), "hello";
    trailers: chunked("5\r\nhello\r\n0\r\nContent-Length: 7\r\nX: y\r\n\r\n"), "hello";
    a_body_of_line_ends: post_whole("/", "\r\n\r\n0\r\n\r\n"), "\r\n\r\n0\r\n\r\n";
    a_body_that_looks_like_a_request: post_whole("/", &get("/stream")), get("/stream");
    no_body: sent("X: y", ""), "";
    a_length_of_zero: sent("Content-Length: 0", ""), "";
    no_chunks: chunked("0\r\n\r\n"), "";
    a_length_with_leading_zeros: sent("Content-Length: 0005", "hello"), "hello";
    chunked_in_capitals: sent("Transfer-Encoding: CHUNKED", "5\r\nhello\r\n0\r\n\r\n"), "hello";
    a_body_of_http_1_0: "POST / HTTP/1.0\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", "hello";
    http_1_0_that_expects_to_be_asked:
        "POST / HTTP/1.0\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", "hello";
}

/// The choice of the handler does not depend on the method.
#[test]
fn other_methods_have_bodies_too() {
    own_process!();
    leaves_nothing(settings(), |server| {
        let mut client = server.connect();
        for method in ["PUT", "PATCH", "DELETE", "BREW"] {
            client.send(&format!("{method} /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"));
            responds(&mut client, 200, "hello");
            assert_eq!(server.requests(), [format!("{method} /a hello")]);
        }
    });
}

/// A proxy would take a 2xx response to it for the start of a tunnel (RFC 9110 9.3.6).
#[test]
fn a_connect_never_reaches_the_handler() {
    own_process!();
    leaves_nothing(settings(), |server| {
        for target in ["/", "localhost:80", "http://localhost/"] {
            let mut client = server.send(format!("CONNECT {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let status = reads_response(&mut client, false).status;
            assert!((400..500).contains(&status), "{status} for {target}");
        }
        assert_eq!(server.requests(), [""; 0]);
    });
}

#[test]
fn a_body_that_is_reset_never_reaches_the_handler() {
    own_process!();
    leaves_nothing(settings(), |server| {
        for body in ["", "hell"] {
            server.send(sent("Content-Length: 5", body)).resets();
            server.send(chunked("5\r\nhello\r\n")).resets();
        }
        assert_eq!(server.requests(), [""; 0]);
    });
}

/// Sends the body in drops, one piece per interval, until the server responds. Returns the status, the time it took, and
/// the longest time between two pieces.
fn drips(server: &Echo, body: &str, piece: usize, interval: Duration) -> (u16, Duration, Duration) {
    let (start, mut pace) = (Instant::now(), Pace::start());
    let mut client = server.send(sent(&format!("Content-Length: {}", body.len()), ""));
    for piece in body.as_bytes().chunks(piece) {
        if client.has_something() {
            break;
        }
        client.sends_if_it_can(piece);
        pace.step();
        thread::park_timeout(interval);
    }
    (reads_response(&mut client, false).status, start.elapsed(), pace.longest())
}

#[test]
fn a_body_below_the_minimum_rate_has_no_more_time_than_none() {
    own_process!();
    leaves_nothing(impatient(), |server| {
        let (status, after, _) = drips(server, &"x".repeat(1_000), 1, Duration::from_millis(10));
        // The whole body would take at least 10 s.
        assert_eq!((status, server.requests().len()), (408, 0));
        assert!(after >= BODY_READ_TIMEOUT, "{after:?}");
    });
}

#[test]
fn a_body_above_the_minimum_rate_may_take_its_time() {
    own_process!();
    let (status, handled, beyond) = keeping_pace(BODY_READ_TIMEOUT, |timeout| {
        leaves_nothing(with_bodies(1 << 20).body_read_timeout(timeout), |server| {
            // 20 KB per second.
            let (pieces, interval) = (40, timeout / 15);
            let piece = interval.as_millis() as usize * 20;
            let (status, after, longest) = drips(server, &"x".repeat(pieces * piece), piece, interval);
            ((status, server.requests().len(), after > 2 * timeout), longest)
        })
    });
    assert_eq!((status, handled, beyond), (200, 1, true));
}

/// Bytes that are not part of the body, such as extensions, do not count as progress.
#[test]
fn a_body_that_consists_of_frames_alone_is_too_slow() {
    own_process!();
    leaves_nothing(impatient(), |server| {
        let start = Instant::now();
        let mut client = server.send(chunked(""));
        while !client.has_something() {
            assert!(start.elapsed() < PATIENCE, "they count as progress");
            client.sends_if_it_can(&format!("1;{}\r\nx\r\n", "y".repeat(200)));
            thread::park_timeout(Duration::from_millis(10));
        }
        assert_eq!(reads_response(&mut client, false).status, 408);
    });
}

#[test]
fn a_client_is_asked_for_its_body() {
    own_process!();
    leaves_nothing(settings(), |server| {
        let mut client = server.connect();
        for (lines, body) in [
            ("Content-Length: 5\r\nExpect: 100-continue", "hello"),
            ("Transfer-Encoding: chunked\r\nexpect: 100-Continue", "5\r\nhello\r\n0\r\n\r\n"),
        ] {
            client.send(&sent(lines, ""));
            client.reads("HTTP/1.1 100 Continue\r\n\r\n");
            client.send(body);
            responds(&mut client, 200, "hello");
        }
        // There is no body to ask for.
        client.send(&sent("Content-Length: 0\r\nExpect: 100-continue", ""));
        responds(&mut client, 200, "");
        // The body has already arrived.
        client.send(&sent("Content-Length: 5\r\nExpect: 100-continue", "hello"));
        responds(&mut client, 200, "hello");
    });
}

#[test]
fn a_client_is_not_asked_for_a_body_that_will_not_be_read() {
    own_process!();
    leaves_nothing(settings(), |server| {
        for (request, status) in [
            (sent("Content-Length: 16385\r\nExpect: 100-continue", ""), 413),
            (sent("Content-Length: 5\r\nExpect: 100-continue\r\nContent-Length: 5", ""), 400),
            (sent("Content-Length: 5\r\nExpect: 100-continue", "").replace("localhost", "example.org"), 403),
            (sent("Content-Length: 5\r\nExpect: 200-ok", ""), 417),
            (sent("Content-Length: 5\r\nExpect: 100-continue, 200-ok", ""), 417),
            (sent("Content-Length: 5\r\nExpect: 100-continue\r\nExpect: 200-ok", ""), 417),
        ] {
            // A 100 would be the first response.
            rejects(&mut server.send(&request), status);
        }
        assert_eq!(server.requests(), [""; 0]);
    });
    leaves_nothing(EventServer::builder(), |server| {
        rejects(&mut server.send(sent("Content-Length: 5\r\nExpect: 100-continue", "")), 405);
        assert_eq!(server.requests(), [""; 0]);
    });
}

#[test]
fn a_client_that_is_asked_and_sends_no_body_is_too_slow() {
    own_process!();
    leaves_nothing(impatient(), |server| {
        let mut client = server.send(sent("Content-Length: 5\r\nExpect: 100-continue", ""));
        client.reads("HTTP/1.1 100 Continue\r\n\r\n");
        rejects(&mut client, 408);
    });
}

#[test]
fn a_client_that_sends_no_more_after_a_whole_body_gets_its_response() {
    own_process!();
    leaves_nothing(settings(), |server| {
        let mut client = server.send(post_whole("/wait", "hello"));
        server.waits(1);
        client.shuts_down_writing();
        // The server has read the end once it has read a later client's request.
        responds(&mut server.send(get("/")), 200, "");
        server.open();
        responds(&mut client, 200, "hello");
        client.reads_the_end();
    });
}

#[test]
fn a_reset_after_a_whole_body_frees_the_connection_before_the_handler_returns() {
    own_process!();
    leaves_nothing(settings(), |server| {
        let before = crate::common::process::held().1;
        let client = server.send(post_whole("/wait", "hello"));
        server.waits(1);
        client.resets();
        // The call still holds the socket, but its connection is gone, so nothing is written to it.
        eventually("the client's descriptor is closed", || crate::common::process::held().1 <= before + 1);
        server.open();
    });
}

/// Node, Java and curl offer HTTP/2 and WebSocket this way.
#[test]
fn an_offered_upgrade_is_ignored_and_the_request_answered_at_once() {
    own_process!();
    leaves_nothing(settings(), |server| {
        let mut client = server.connect();
        for lines in [
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
            "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13",
            "Connection: upgrade",
        ] {
            client.send(&sent(&format!("Content-Length: 5\r\n{lines}"), "hello"));
            responds(&mut client, 200, "hello");
            client.send(&sent(&format!("Transfer-Encoding: chunked\r\n{lines}"), "5\r\nhello\r\n0\r\n\r\n"));
            responds(&mut client, 200, "hello");
            client.send(&post_whole("/none", "hello").replace("\r\n\r\n", &format!("\r\n{lines}\r\n\r\n")));
            assert_eq!(reads_response(&mut client, false).status, 204);
        }
        assert_eq!(server.requests().len(), 9);
    });
}

/// The byte after it must not add a body to the response.
#[test]
fn a_rejected_head_request_gets_no_body() {
    own_process!();
    leaves_nothing(settings(), |server| {
        for rest in ["\r\n x", "Content-Length: 5\r\n\r\nhello", "Expect: 200-ok\r\n\r\n", " x\r\n\r\n"] {
            let mut client = server.send(format!("HEAD / HTTP/1.1\r\nHost: localhost\r\n{rest}"));
            assert!(well_formed(&client.reads_all(), true).status >= 400, "{rest:?}");
        }
    });
}
