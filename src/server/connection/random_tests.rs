//! Random requests, valid and broken, on the state machine of a connection, in random pieces.

use fastrand::Rng;
use proptest::prelude::*;
use proptest::sample::Index;

use super::oracle::{MAX_BODY, check};

/// Generates bodies: bytes, some of which look like requests and chunks.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        2 => Just(b"HEAD /smuggled HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        1 => Just(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        1 => (0..6_000_usize).prop_map(|length| vec![b'x'; length]),
    ]
}

/// Generates the header that announces a body, and the body, as bytes.
fn framed() -> impl Strategy<Value = (String, Vec<u8>)> {
    let chunk = (bodies(), "(;[a-z]{1,5}(=(\"[a-z ;]{0,5}\"|[a-z]{1,5}))?){0,2}", "0{0,3}");
    let chunks = (prop::collection::vec(chunk, 0..4), "([A-Z]{1,5}: ?[a-z]{0,5}\r\n){0,2}", any::<bool>());
    prop_oneof![
        2 => Just((String::new(), Vec::new())),
        3 => bodies().prop_map(|body| (format!("Content-Length: {}\r\n", body.len()), body)),
        3 => chunks.prop_map(|(chunks, trailer, is_upper)| {
            let mut bytes = Vec::new();
            // All together must stay within the limit.
            for (body, extension, zeros) in chunks.into_iter().map(|(body, extension, zeros)| {
                (body.into_iter().take(MAX_BODY / 4).collect::<Vec<u8>>(), extension, zeros)
            }) {
                if !body.is_empty() {
                    let size = format!("{:x}", body.len());
                    let size = if is_upper { size.to_uppercase() } else { size };
                    bytes.extend_from_slice(format!("{zeros}{size}{extension}\r\n").as_bytes());
                    bytes.extend_from_slice(&body);
                    bytes.extend_from_slice(b"\r\n");
                }
            }
            bytes.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
            ("Transfer-Encoding: chunked\r\n".to_owned(), bytes)
        }),
    ]
}

/// Generates valid requests.
fn valid() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        6 => "X-[a-z]{1,5}: ?[ -~]{0,12}\r\n",
        1 => Just("Expect: 100-continue\r\n".to_owned()),
        1 => Just("Connection: Upgrade\r\nUpgrade: h2c\r\n".to_owned()),
    ];
    let lines = prop::collection::vec(line, 0..4).prop_map(|lines| lines.concat());
    let end = prop_oneof![20 => Just("1.1\r\n"), 1 => Just("1.1\r\nConnection: close\r\n"), 1 => Just("1.0\r\n")];
    let target = "(http://x)?(/[a-z.]{0,4}){1,3}(\\?[a-z=&/:]{0,6})?";
    let methods = ("GET|HEAD|OPTIONS|DELETE", "POST|PUT|PATCH|DELETE|BREW");
    (methods, target, end, lines, framed(), any::<bool>()).prop_map(
        |((plain, method), target, end, lines, (framing, body), is_plain)| {
            let is_plain = is_plain && framing.is_empty();
            // HTTP/1.0 has no chunks.
            let end = if framing.starts_with('T') { end.replace("1.0", "1.1") } else { end.to_owned() };
            let method = if is_plain { plain } else { method };
            [format!("{method} {target} HTTP/{end}Host: x\r\n{lines}{framing}\r\n").as_bytes(), &*body].concat()
        },
    )
}

/// A change that breaks a request, mostly: headers that it gets in addition, or bytes that change.
#[derive(Clone, Debug)]
enum Damage {
    Line(String),
    Byte(u8, Index, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let byte = prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b'0'), Just(b';'), Just(0), any::<u8>()];
    let line = prop_oneof![
        "(Content-Length|content-length ?): ?[0-9+,x -]{0,4}\r\n",
        "(Transfer-Encoding|transfer_encoding|Transfer-encoding ): ?(chunked|xchunked|identity|gzip, chunked|)\r\n",
        "(Host|Expect|Connection): ?[a-z0-9-]{0,5}\r\n",
        " [a-z: ]{0,6}\r\n",
    ];
    let change = (0..5_u8, any::<Index>(), byte).prop_map(|(what, at, byte)| Damage::Byte(what, at, byte));
    prop_oneof![1 => line.prop_map(Damage::Line), 2 => change]
}

impl Damage {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Line(line) => {
                let at = bytes.windows(2).position(|window| window == b"\r\n").map_or(bytes.len(), |at| at + 2);
                bytes.splice(at..at, line.bytes());
            }
            Self::Byte(what, at, byte) => {
                let at = at.index(bytes.len());
                match what {
                    0 => bytes.insert(at, byte),
                    1 if bytes.len() > 1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, bytes[at]),
                    3 if at > 0 => bytes.truncate(at),
                    _ => bytes[at] = byte,
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        // A case has several requests.
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1_000) / 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn valid_requests_are_handled_as_another_parser_reads_them(
        requests in prop::collection::vec(valid(), 1..9),
        largest in prop_oneof![Just(1_usize), 2..40_usize, Just(usize::MAX)],
        seed in any::<u64>(),
    ) {
        let mut random = Rng::with_seed(seed);
        check(&requests.concat(), largest, |below| random.usize(..below), true);
    }

    #[test]
    fn of_broken_requests_none_is_handled_that_another_parser_reads_differently(
        mut requests in prop::collection::vec(valid(), 1..5),
        damages in prop::collection::vec((any::<Index>(), damage()), 1..4),
        largest in prop_oneof![Just(1_usize), 2..40_usize, Just(usize::MAX)],
        seed in any::<u64>(),
    ) {
        for (at, damage) in damages {
            let at = at.index(requests.len());
            damage.apply(&mut requests[at]);
        }
        let mut random = Rng::with_seed(seed);
        check(&requests.concat(), largest, |below| random.usize(..below), false);
    }
}
