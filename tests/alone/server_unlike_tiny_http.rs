//! What fails in tiny_http 0.12 works in EventServer, and leaves no thread and no descriptor behind. In the comments,
//! "there" is tiny_http. For a process without a free descriptor, see `tests/it/server/few_descriptors.rs`: that limit
//! applies to a whole process.

use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::common::http::{Client, FIRST_CHUNK, GET, LAST_CHUNK};
use crate::common::pace::{Pace, keeping_pace};
use crate::common::process::held;
use crate::common::server::{opened, response_to, send, serve, stalled, streams};
use crate::common::{PATIENCE, eventually};
use crate::no_harm::{does_no_harm, has_few_threads, patient};
use crate::own_process::own_process;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use server_sent_events::Publisher;
use server_sent_events::server::{EventServer, EventServerBuilder};
use socket2::SockRef;

const HELLO: &str = "0000000d\r\ndata: hello\n\n\r\n";

#[track_caller]
fn holds(test: impl FnOnce(SocketAddr, &Publisher)) {
    does_no_harm(EventServer::builder(), test);
}

/// More than any kernel buffers for a client that does not read.
fn publish_megabytes(publisher: &Publisher, megabytes: usize) {
    for _ in 0..megabytes * 1_000 {
        publisher.publish("x".repeat(992));
    }
}

/// There, an event waits in a buffer until that is full, for over a minute.
#[test]
fn an_event_comes_at_once() {
    own_process!();
    holds(|address, publisher| {
        let mut client = opened(address);
        for _ in 0..20 {
            publisher.publish("hello");
            client.reads(HELLO);
        }
    });
}

/// There, the stream of a client without chunked encoding is collected to its end, which never comes.
#[test]
fn http_1_0_gets_no_chunks_and_ends_by_close() {
    own_process!();
    holds(|address, _| {
        let publisher = Publisher::new();
        let server = streams(&publisher);
        let mut client = send(server.local_addr(), "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
        let head = client.reads_head();
        assert_eq!((head.values("Transfer-Encoding"), head.values("Connection")), (vec![], vec!["close"]));
        client.reads(":\n");
        publisher.publish("hello");
        client.reads("data: hello\n\n");
        publisher.close();
        client.reads_the_end();

        let mut client = send(address, "GET / HTTP/1.1\r\nHost: localhost\r\nTE: identity\r\n\r\n");
        assert_eq!(client.reads_head().values("Transfer-Encoding"), ["chunked"]);
        client.reads(FIRST_CHUNK);
    });
}

/// There, a body follows the headers.
#[test]
fn head_gets_the_head_alone_and_its_subscription_ends() {
    own_process!();
    holds(|address, _| {
        let response = response_to(address, "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!((response.status, response.header("Content-Type")), (200, Some("text/event-stream; charset=utf-8")));
    });
}

/// There, 64 GiB are allocated and the program aborts; from 1,025 bytes on, a thread waits for them.
#[test]
fn an_announced_body_is_rejected_and_not_waited_for() {
    own_process!();
    holds(|address, _| {
        for length in ["68719476736", "1025"] {
            for (method, status) in [("GET", 400), ("HEAD", 400), ("POST", 405), ("DELETE", 405)] {
                let request = format!("{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
                assert_eq!(response_to(address, request).status, status, "{method} {length}");
            }
        }
    });
}

/// There, a thread that answers a second request on a stream's connection waits for the stream's end.
#[test]
fn a_second_request_ends_the_stream_and_holds_up_nobody() {
    own_process!();
    holds(|address, _| {
        let mut clients: Vec<Client> = (0..20).map(|_| opened(address)).collect();
        for client in &mut clients {
            client.send(GET);
        }
        drop(opened(address));
        for client in &mut clients {
            client.reads_all_there_is();
        }
        // The same in one write with the first request.
        assert_eq!(response_to(address, GET.repeat(2)).status, 400);
    });
}

/// There, each of them occupies a thread and two descriptors forever.
#[test]
fn a_request_for_http_2_is_rejected_and_leaves_nothing_behind() {
    own_process!();
    holds(|address, _| {
        for _ in 0..50 {
            assert_eq!(response_to(address, "GET / HTTP/2.0\r\nHost: localhost\r\n\r\n").status, 505);
        }
    });
}

/// There, up to a fifth of the streams that are opened together never get a byte.
#[test]
fn of_streams_that_open_at_once_none_starves() {
    own_process!();
    holds(|address, publisher| {
        for round in 0..3 {
            let mut clients: Vec<Client> = (0..300).map(|_| Client::connect(address)).collect();
            for client in &mut clients {
                client.send(GET);
            }
            for client in &mut clients {
                client.reads_until(FIRST_CHUNK);
            }
            assert_eq!(publisher.publish("hello").subscribers(), 301, "round {round}");
            for client in &mut clients {
                client.reads(HELLO);
            }
            drop(clients);
            eventually("they have left", || publisher.stats().subscribers == 1);
        }
    });
}

/// There, half a request occupies a thread for as long as the client likes.
#[test]
fn half_requests_occupy_no_thread_and_are_disconnected() {
    own_process!();
    does_no_harm(EventServer::builder().header_read_timeout(Duration::from_secs(1)), |address, _| {
        let mut half: Vec<Client> = (0..300).map(|_| send(address, "GET / HTTP/1.1\r\n")).collect();
        // While they wait. With a thread for each, there would be hundreds.
        assert!(held().0 < half.len() / 2, "{} threads", held().0);
        drop(opened(address));
        has_few_threads();
        for client in &mut half {
            assert!(client.reads_all_there_is().starts_with(b"HTTP/1.1 408 "));
        }
    });
}

/// There, no socket option can be set.
#[test]
fn sockets_have_the_options_that_event_streams_need() {
    own_process!();
    does_no_harm(EventServer::builder().send_buffer_size(20_000).notsent_lowat(5_000), |address, _| {
        let client = opened(address);
        let socket = others_end(client.address());
        let socket = SockRef::from(&socket);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        // It would reset a client that reads slowly through a small window.
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 5_000);
        assert_eq!(socket.send_buffer_size().unwrap(), 40_000, "Linux doubles it");
    });
}

/// Duplicates the server's descriptor of the connection from this address.
fn others_end(peer: SocketAddr) -> OwnedFd {
    let ourselves = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name());
    let sockets = numbers
        .filter_map(|number| pidfd_getfd(&ourselves, number.to_str()?.parse().ok()?, PidfdGetfdFlags::empty()).ok());
    let mut ours = sockets
        .filter(|socket| SockRef::from(socket).peer_addr().is_ok_and(|address| address.as_socket() == Some(peer)));
    ours.next().expect("the server's end of the connection")
}

/// There, with a timeout of the socket, a client that reads slowly is disconnected, and one that does not read stays
/// for up to six times as long.
#[test]
fn a_client_that_reads_slowly_stays_and_one_that_does_not_read_is_disconnected_in_time() {
    own_process!();
    let (subscribers, timed_out) = keeping_pace(Duration::from_millis(500), |timeout| {
        let settings = EventServer::builder().send_buffer_size(4_096).notsent_lowat(4_096).write_timeout(timeout);
        does_no_harm(EventServer::builder(), |_, _| {
            let publisher = patient();
            let server = serve(settings, &publisher);
            let (mut slow, stalled) = (stalled(server.local_addr()), stalled(server.local_addr()));
            eventually("both are subscribed", || publisher.stats().subscribers == 2);
            let mut pace = Pace::start();
            publish_megabytes(&publisher, 1);

            let start = Instant::now();
            let has_timed_out = || publisher.stats().ended.write_timed_out > 0;
            // Some kilobytes twenty times in each timeout, for several timeouts.
            while start.elapsed() < 3 * timeout || !has_timed_out() && start.elapsed() < PATIENCE {
                // It fails once the slow one is disconnected too.
                let _ = slow.read_exact(&mut [0; 2_000]);
                pace.step();
                std::thread::park_timeout(timeout / 20);
            }
            let stats = publisher.stats();
            drop((slow, stalled));
            ((stats.subscribers, stats.ended.write_timed_out), pace.longest())
        })
    });
    assert_eq!((subscribers, timed_out), (1, 1));
}

/// There, the kernel buffers four megabytes for a client that does not read, so the client reads stale events later.
#[test]
fn the_kernel_buffers_little_for_a_client_that_does_not_read() {
    own_process!();
    // Publishes to a client that does not read, until the kernel has taken more than this, or takes no more. Returns how
    // many KB it has taken.
    let taken = |settings: EventServerBuilder, more_than: Option<usize>| {
        does_no_harm(EventServer::builder(), |_, _| {
            let publisher = patient();
            let server = serve(settings, &publisher);
            let stalled = send(server.local_addr(), GET);
            eventually("it is subscribed", || publisher.stats().subscribers == 1);
            publish_megabytes(&publisher, 8);
            let taken = || 8_000 - publisher.channel_stats("default channel").queued;
            eventually("the kernel has buffered that", || {
                let before = taken();
                std::thread::park_timeout(Duration::from_millis(200));
                more_than.map_or(taken() == before && before > 0, |kilobytes| taken() > kilobytes)
            });
            let taken = taken();
            drop(stalled);
            taken
        })
    };
    let little = taken(EventServer::builder(), None);
    assert!(little < 1_000, "{little} KB by default");
    let much = taken(EventServer::builder().notsent_lowat(u32::MAX), Some(2 * little));
    println!("{little} KB by default, more than {much} KB without the option");
}

/// There, the program notices a client that has closed only after two writes to it have failed.
#[test]
fn a_client_that_closes_is_gone_before_anything_is_written() {
    own_process!();
    holds(|address, publisher| {
        let (closes, resets) = (opened(address), opened(address));
        drop(closes);
        eventually("it is out of the registry", || publisher.stats().subscribers == 2);
        resets.resets();
        eventually("it is out of the registry", || publisher.stats().subscribers == 1);
        assert_eq!(publisher.stats().ended.connection_lost, 2);
    });
}

/// There, the connection stays open after a response, and a client that reads to its end waits forever.
#[test]
fn the_end_of_an_answer_is_the_end_of_its_connection() {
    own_process!();
    holds(|address, _| {
        // Reads to the end.
        assert_eq!(response_to(address, "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 405);
        let publisher = Publisher::new();
        let server = streams(&publisher);
        let mut client = opened(server.local_addr());
        publisher.close();
        client.reads(LAST_CHUNK);
        client.reads_the_end();
    });
}

/// There, a header may contain line ends, and so forge other headers.
#[test]
fn no_setting_and_no_request_forges_a_header() {
    own_process!();
    let bind = |origin: &str| EventServer::builder().allow_origin(origin).bind("127.0.0.1:0");
    for origin in ["https://example.org\r\nX: y", "https://example.org\n", "https://exa\0mple.org"] {
        assert_eq!(bind(origin).unwrap_err().kind(), std::io::ErrorKind::InvalidInput, "{origin:?}");
    }
    does_no_harm(EventServer::builder().allow_origin("https://example.org"), |address, _| {
        for (origin, status) in [("https://example.org\rX: y", 400), ("https://example.org\nX: y", 400), ("x", 403)] {
            let response =
                response_to(address, format!("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n"));
            assert_eq!(
                (response.status, response.header("X"), response.header("Access-Control-Allow-Origin")),
                (status, None, None)
            );
        }
    });
}

/// There, a header that is not ASCII closes the connection without a response.
#[test]
fn a_header_that_is_not_ascii_is_read() {
    own_process!();
    holds(|address, _| {
        for value in ["Last-Event-ID: \u{e4}".as_bytes(), b"X: \xff"] {
            let request = [b"GET / HTTP/1.1\r\nHost: localhost\r\n", value, b"\r\n\r\n"].concat();
            send(address, request).reads_until(FIRST_CHUNK);
        }
    });
}

/// There, a chunk of more than 65,535 bytes panics.
#[test]
fn an_event_of_any_size_is_one_chunk() {
    own_process!();
    holds(|address, publisher| {
        let mut client = opened(address);
        for size in [65_535, 65_536, 1_000_000] {
            let data = "x".repeat(size);
            publisher.publish(&data);
            client.reads(&format!("{:08x}\r\ndata: {data}\n\n\r\n", size + "data: \n\n".len()));
        }
    });
}

/// There, and with the standard library, 128 connections may wait to be accepted.
#[test]
fn a_thousand_connections_may_wait_to_be_accepted() {
    own_process!();
    holds(|_, publisher| {
        let server = EventServer::bind("127.0.0.1:0").unwrap();
        let mut clients: Vec<Client> = (0..300).map(|_| send(server.local_addr(), GET)).collect();
        let streams = publisher.clone();
        let server = server.spawn(move |_| streams.subscribe()).unwrap();
        for client in &mut clients {
            client.reads_until(FIRST_CHUNK);
        }
        drop(clients);
        eventually("they have left", || publisher.stats().subscribers == 1);
        server.stop().unwrap();
    });
}
