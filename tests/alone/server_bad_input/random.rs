//! Random input gets one well-formed response.

use super::*;
use crate::common::http::Client;
use crate::common::server::well_formed;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Generates request headers, valid and invalid, from the parts of real ones.
fn mutated_head() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => Just("Host: localhost".to_owned()),
        1 => Just("Content-Length: 0".to_owned()),
        1 => Just("Last-Event-ID: 7-1".to_owned()),
        1 => "[a-zA-Z-]{1,10}: ?[ -~]{0,20}",
        1 => "[ -~]{0,10}",
    ];
    let first = prop_oneof![
        6 => Just("GET / HTTP/1.1".to_owned()),
        1 => "(GET|HEAD|POST|OPTIONS|PRI) (/[a-z%?=&]{0,10}|\\*|http://[a-z/]{1,9}) HTTP/[0-3]\\.[0-3]",
        1 => "[ -~]{0,20}",
    ];
    let change =
        (0..4_u8, any::<prop::sample::Index>(), prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), any::<u8>()]);
    let parts = (first, prop::collection::vec(line, 0..5), prop::collection::vec(change, 0..3));
    parts.prop_map(|(first, lines, changes)| {
        let mut bytes = format!("{first}\r\n").into_bytes();
        for line in &lines {
            bytes.extend_from_slice(format!("{line}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        for (what, at, byte) in changes {
            let at = at.index(bytes.len());
            match what {
                0 => bytes.insert(at, byte),
                1 => drop(bytes.remove(at)),
                2 => bytes[at] = byte,
                _ => bytes.insert(at, bytes[at]),
            }
            if bytes.is_empty() {
                break;
            }
        }
        bytes
    })
}

/// Each input gets one well-formed response and the end of the connection.
#[test]
fn random_heads_get_one_well_formed_answer_each() {
    own_process!();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000) / 10;
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    leaves_nothing(|address| {
        let heads = prop::collection::vec(mutated_head(), 1..10);
        let result = TestRunner::new(config).run(&heads, |heads| {
            let mut clients: Vec<(Client, &Vec<u8>)> = heads.iter().map(|head| (send(address, head), head)).collect();
            for (client, head) in &mut clients {
                // The server would wait for the rest of an incomplete request.
                client.shuts_down_writing();
                let text = String::from_utf8(client.reads_all_there_is()).unwrap();
                let is_head = head.starts_with(b"HEAD ");
                if !text.is_empty() && !text.contains("text/event-stream") {
                    let response = well_formed(&text, is_head);
                    prop_assert!(response.status >= 204, "{:?}", String::from_utf8_lossy(head));
                }
            }
            Ok(())
        });
        result.unwrap();
    });
}
