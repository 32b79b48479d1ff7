//! Clients that are slow, leave, or keep sending.

use std::time::Instant;

use super::*;
use crate::common::http::{Client, FIRST_CHUNK};
use crate::common::process::descriptors;
use crate::common::server::{opened, well_formed};
use crate::common::{PATIENCE, eventually};

#[test]
fn a_head_that_trickles_has_no_more_time_than_others() {
    own_process!();
    leaves_nothing_in_time(|address| {
        let start = Instant::now();
        let mut client = Client::connect(address);
        let mut sent = GET.bytes().cycle();
        // Until the response arrives: from then on, the server discards what it reads.
        while !client.has_something() {
            assert!(start.elapsed() < PATIENCE, "each byte gives it more time");
            client.send(&[sent.next().filter(|byte| byte.is_ascii_alphabetic()).unwrap_or(b'x')]);
            std::thread::park_timeout(Duration::from_millis(20));
        }
        assert_eq!(well_formed(&client.reads_all(), false).status, 408);
        assert!(start.elapsed() >= HEADER_READ_TIMEOUT, "{:?}", start.elapsed());
    });
}

#[test]
fn a_head_that_comes_byte_by_byte_in_time_is_a_request() {
    own_process!();
    leaves_nothing(|address| {
        let mut client = Client::connect(address);
        for byte in GET.bytes() {
            client.send(&[byte]);
        }
        client.reads_until(FIRST_CHUNK);
    });
}

#[test]
fn a_second_request_on_a_running_stream_ends_it() {
    own_process!();
    does_no_harm(EventServer::builder(), |address, publisher| {
        let mut client = opened(address);
        client.send(GET);
        client.reads_all_there_is();
        eventually("it has left", || publisher.stats().subscribers == 1);
    });
}

#[test]
fn a_byte_on_a_running_stream_ends_it() {
    own_process!();
    leaves_nothing(|address| {
        let mut client = opened(address);
        client.send("\n");
        client.reads_all_there_is();
    });
}

#[test]
fn a_client_that_closes_within_a_head_leaves_nothing_behind() {
    own_process!();
    leaves_nothing(|address| {
        for n in 0..GET.len() {
            let client = send(address, &GET[..n]);
            if n % 2 == 0 { drop(client) } else { client.resets() }
        }
    });
}

#[test]
fn a_client_that_neither_reads_its_answer_nor_closes_is_disconnected() {
    own_process!();
    leaves_nothing(|address| {
        let before = descriptors();
        let clients: Vec<Client> = (0..20).map(|_| send(address, "garbage\r\n\r\n")).collect();
        eventually("only the clients' own descriptors are left", || descriptors() <= before + 20);
        drop(clients);
    });
}

#[test]
fn a_client_that_sends_forever_is_disconnected() {
    own_process!();
    use std::io::Write;
    leaves_nothing(|address| {
        let mut client = std::net::TcpStream::connect(address).unwrap();
        let start = Instant::now();
        while client.write_all(&[b'x'; 64 * 1024]).is_ok() {
            assert!(start.elapsed() < PATIENCE);
        }
    });
}

/// Incomplete request headers keep no other client out.
#[test]
fn behind_half_requests_a_good_one_is_answered_though_there_is_room_for_few() {
    own_process!();
    let settings = EventServer::builder().max_streams(5).header_read_timeout(Duration::from_secs(600));
    set(settings, |address| {
        let half: Vec<Client> = (0..200).map(|_| send(address, "GET / HTTP/1.1\r\n")).collect();
        opened(address);
        drop(half);
    });
}
