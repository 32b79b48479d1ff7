//! The parser of requests and the state machine of a connection: bytes in any pieces, judged by another parser.

use arbitrary::Unstructured;
use fastrand::Rng;
use server_sent_events::server::check_connection;

/// The input is a seed, the length of the largest piece, and what the client sends.
pub fn check(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let seed = input.arbitrary().unwrap_or(0_u64);
    let largest = match input.arbitrary().unwrap_or(0_u8) {
        0 => usize::MAX,
        largest => usize::from(largest),
    };
    let mut random = Rng::with_seed(seed);
    check_connection(input.take_rest(), largest, |below| random.usize(..below), false);
}
