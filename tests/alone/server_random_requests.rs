//! Random requests to EventServer, valid and broken, over many connections at once and in random pieces. It does what
//! `src/server/connection/random_tests.rs` does, but with sockets and threads. `SEED` repeats a run.

use std::thread;

use crate::common::echo::{Echo, get, post, post_whole, with_bodies};
use crate::common::http::Client;
use crate::common::seed;
use crate::common::server::reads_response;
use crate::no_harm::leaves_nothing;
use crate::own_process::own_process;
use fastrand::Rng;

const MAX_BODY: usize = 50_000;

/// A request, and the response it must get.
struct Exchange {
    request: String,
    is_head: bool,
    /// The status and the body; `None` if any rejection is right.
    response: Option<(u16, String)>,
    closes: bool,
}

fn body(random: &mut Rng) -> String {
    match random.u8(0..8) {
        0 => String::new(),
        1 => "x".repeat(random.usize(0..MAX_BODY)),
        2 => get("/smuggled"),
        3 => "0\r\n\r\n".to_owned(),
        _ => (0..random.usize(0..30)).map(|_| random.char('\0'..='\u{ff}')).collect(),
    }
}

fn chunked(random: &mut Rng, body: &str) -> String {
    let (mut chunks, mut rest) = (String::new(), body);
    while !rest.is_empty() {
        let mut size = random.usize(1..=rest.len());
        while !rest.is_char_boundary(size) {
            size += 1;
        }
        chunks += &format!("{size:x}\r\n{}\r\n", &rest[..size]);
        rest = &rest[size..];
    }
    chunks + "0\r\n\r\n"
}

fn valid(random: &mut Rng) -> Exchange {
    let body = body(random);
    let closes = random.u8(0..20) == 0;
    let lines = if closes { "Connection: close" } else { "X: y" };
    let with_lines = |request: String| request.replacen("X: y", lines, 1);
    let (request, is_head, response) = match random.u8(0..5) {
        0 => (get("/").replacen("Host", "X: y\r\nHost", 1), false, (200, String::new())),
        1 => (get("/").replacen("Host", "X: y\r\nHost", 1).replacen("GET", "HEAD", 1), true, (200, String::new())),
        2 => (post("/none", &format!("X: y\r\nContent-Length: {}", body.len()), &body), false, (204, String::new())),
        3 => (post("/", &format!("Content-Length: {}\r\nX: y", body.len()), &body), false, (200, body)),
        _ => (post("/", "X: y\r\nTransfer-Encoding: chunked", &chunked(random, &body)), false, (200, body)),
    };
    Exchange { request: with_lines(request), is_head, response: Some(response), closes }
}

/// Returns a request that is rejected, whatever follows.
fn broken(random: &mut Rng) -> Exchange {
    let request = match random.u8(0..10) {
        0 => post("/", "Content-Length: 5\r\nContent-Length: 5", "hello"),
        1 => post("/", "Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        2 => post("/", "Transfer-Encoding: chunked", "5\r\nhello!\r\n"),
        3 => post("/", "Transfer-Encoding: chunked", "five\r\n"),
        4 => post("/", "Transfer-Encoding: gzip", ""),
        5 => post("/", &format!("Content-Length: {}", MAX_BODY + 1), ""),
        6 => post("/", "Expect: x", ""),
        7 => post_whole("/", "hello").replacen("\r\nHost", "\nHost", 1),
        8 => "garbage\r\n\r\n".to_owned(),
        _ => get("/").replacen("localhost", "example.org", 1).replacen("Host", "Content-Length: 1\r\nHost", 1),
    };
    Exchange { request, is_head: false, response: None, closes: true }
}

/// Sends some requests over one connection, in pieces, while another thread reads the responses.
fn talk(server: &Echo, random: &mut Rng) {
    let mut exchanges: Vec<Exchange> = Vec::new();
    for _ in 0..random.usize(1..12) {
        exchanges.push(if random.u8(0..12) == 0 { broken(random) } else { valid(random) });
    }
    let all: String = exchanges.iter().map(|exchange| &*exchange.request).collect();
    let expected = exchanges.iter().position(|exchange| exchange.closes).map_or(exchanges.len(), |at| at + 1);
    let mut client = server.connect();
    thread::scope(|threads| {
        let mut sender = Client::on(client.socket().try_clone().unwrap());
        let mut random = random.fork();
        threads.spawn(move || {
            let mut rest = all.as_bytes();
            while !rest.is_empty() {
                let size = random.usize(1..=rest.len().min(5_000));
                // The server may have closed the connection.
                sender.sends_if_it_can(&rest[..size]);
                rest = &rest[size..];
            }
        });
        for (n, exchange) in exchanges[..expected].iter().enumerate() {
            let response = reads_response(&mut client, exchange.is_head);
            // A request without a body is rejected itself if invalid data has arrived together with it.
            let is_followed = exchanges.get(n + 1).is_some_and(|next| next.response.is_none());
            if is_followed && response.status == 400 {
                assert_eq!(response.header("Connection"), Some("close"), "{response:?}");
                return;
            }
            match &exchange.response {
                Some((status, body)) => {
                    assert!(
                        (response.status, &response.body) == (*status, body),
                        "{response:?} for {:?}",
                        exchange.request
                    )
                }
                None => assert!((400..500).contains(&response.status), "{response:?} for {:?}", exchange.request),
            }
            assert_eq!(response.header("Connection").is_some(), exchange.closes, "{:?}", exchange.request);
        }
    });
}

#[test]
fn random_requests_get_their_responses_in_order() {
    own_process!();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000) / 20;
    let seed = seed("random requests");
    leaves_nothing(with_bodies(MAX_BODY), |server| {
        thread::scope(|threads| {
            for thread in 0..4 {
                threads.spawn(move || {
                    let mut random = Rng::with_seed(seed.wrapping_add(thread));
                    for _ in 0..cases {
                        talk(server, &mut random);
                    }
                });
            }
        });
    });
}
