//! Servers that send garbage.

use server_sent_events::client::ConnectionError;

use super::{gets_data, loses, runs, watched};
use crate::common::foreign_server::{CHUNKED, ForeignServer, STREAM};
use crate::common::seed;

/// Checks that the client reports a lost connection after this response, and then receives from a proper one.
#[track_caller]
fn survives(response: impl AsRef<[u8]>) -> ConnectionError {
    let server = ForeignServer::start();
    let (builder, lost) = watched(&server);
    let mut events = runs(builder.max_line_len(64 * 1024));
    let (mut connection, _) = server.gets_request();
    connection.sends_if_it_can(&response);
    connection.shuts_down_writing();
    let error = loses(&lost);
    let mut connection = server.answers(STREAM);
    connection.send("data: alive\n\n");
    gets_data(&mut events, "alive");
    error
}

#[test]
fn a_response_that_is_not_http_is_an_error() {
    let long_head = "HTTP/1.1 200 OK\r\nX: ".to_owned() + &"x".repeat(100_000);
    let many_headers = "HTTP/1.1 200 OK\r\n".to_owned() + &"X: y\r\n".repeat(1_000) + "\r\n";
    for response in [
        "",
        "\r\n\r\n",
        "garbage\r\n\r\n",
        "HTTP/1.1",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\0\0\0\0\0\0\0\0",
        &long_head,
        &many_headers,
    ] {
        let error = survives(response);
        let shown = &response[..response.len().min(50)];
        assert!(matches!(error, ConnectionError::Response { .. } | ConnectionError::Io { .. }), "{shown:?}: {error:?}");
    }
}

#[test]
fn a_body_whose_framing_is_broken_is_an_error() {
    let endless_size = format!("{CHUNKED}{}", "1".repeat(100_000));
    let endless_extension = format!("{CHUNKED}1;{}", "x".repeat(100_000));
    for body in
        ["xyz\r\n", "-1\r\nx\r\n", "ffffffffffffffffff\r\n", "1\r\nxx", "1\r\nx\n2\r\n", "\r\n", "0\r\n: \r\n\r\n"]
    {
        survives(format!("{CHUNKED}{body}"));
    }
    survives(endless_size);
    survives(endless_extension);
}

#[test]
fn a_body_of_garbage_is_a_lost_connection() {
    survives(format!("{STREAM}{}", "\r\n".repeat(10_000)));
    survives([STREAM.as_bytes(), &[0xff; 10_000]].concat());
    survives(format!("{STREAM}{}", "x".repeat(1_000_000)));
}

#[test]
fn random_bytes_never_end_the_client() {
    let mut random = fastrand::Rng::with_seed(seed("random bytes for the client"));
    for round in 0..30 {
        let count = random.usize(0..2_000);
        let garbage: Vec<u8> = (0..count).map(|_| random.u8(..)).collect();
        let beginning = [&b""[..], b"HTTP/1.1 200 OK\r\n", STREAM.as_bytes(), CHUNKED.as_bytes()][round % 4];
        let response = [beginning, &garbage].concat();
        // The second one may be a whole head without a type. Its end may begin in the first line.
        if round % 4 == 1 && response.windows(2).any(|pair| pair == b"\n\n" || pair == b"\n\r") {
            continue;
        }
        survives(response);
    }
}
