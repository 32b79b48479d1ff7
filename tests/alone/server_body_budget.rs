//! Bodies of many clients at once: their total memory has a limit, and they leave threads for other requests.

use std::io::{self, Read};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::allocated::allocated;
use crate::common::echo::{get, post, post_whole, rejects, rejects_for_now, responds, with_bodies};
use crate::common::eventually;
use crate::common::http::{Client, FIRST_CHUNK};
use crate::common::pace::are_mostly_below;
use crate::common::server::send;
use crate::no_harm::{has_few_threads, leaves_nothing};
use crate::own_process::own_process;
use server_sent_events::server::{EventServerBuilder, Response};

const MAX_BODY: usize = 60_000;
const BUDGET: usize = 100_000;

/// Returns a server whose budget is less than two bodies, and whose clients may take their time.
fn settings() -> EventServerBuilder {
    let settings = with_bodies(MAX_BODY).max_body_memory(BUDGET);
    settings.body_read_timeout(Duration::from_secs(600)).header_read_timeout(Duration::from_secs(600))
}

fn body(size: usize) -> String {
    "x".repeat(size)
}

/// Returns a `POST` that sends this much of a body of the largest size.
fn begun(size: usize) -> String {
    post("/", &format!("Content-Length: {MAX_BODY}"), &body(size))
}

#[test]
fn if_the_memory_is_used_up_the_slowest_body_is_rejected() {
    own_process!();
    leaves_nothing(settings(), |server| {
        let mut slow = server.send(begun(10_000));
        // The server has read its bytes once a later client has its response.
        responds(&mut server.send(get("/")), 200, "");
        let mut quicker = server.send(begun(50_000));
        responds(&mut server.send(get("/")), 200, "");
        responds(&mut server.send(post_whole("/", &body(45_000))), 200, &body(45_000));
        rejects_for_now(&mut slow, 408);
        // The other one could stay.
        quicker.send(&body(10_000));
        responds(&mut quicker, 200, &body(MAX_BODY));
    });
}

#[test]
fn if_no_other_body_can_be_rejected_the_last_one_is_rejected() {
    own_process!();
    leaves_nothing(settings(), |server| {
        let mut first = server.send(post_whole("/wait", &body(MAX_BODY)));
        server.waits(1);
        // A body counts until the handler has responded, however long ago it arrived.
        for _ in 0..3 {
            rejects_for_now(&mut server.send(post_whole("/", &body(50_000))), 503);
        }
        responds(&mut server.send(post_whole("/", &body(40_000))), 200, &body(40_000));
        server.open();
        responds(&mut first, 200, &body(MAX_BODY));
        eventually("there is room again", || {
            let mut client = server.send(post_whole("/", &body(50_000)));
            client.reads_head().status() == "HTTP/1.1 200 OK"
        });
    });
}

#[test]
fn a_chunked_body_counts_as_one_with_a_length() {
    own_process!();
    leaves_nothing(settings(), |server| {
        let chunks = |size| format!("{:x}\r\n{}\r\n0\r\n\r\n", size, body(size));
        let mut first = server.send(post("/wait", "Transfer-Encoding: chunked", &chunks(MAX_BODY)));
        server.waits(1);
        rejects(&mut server.send(post("/", "Transfer-Encoding: chunked", &chunks(50_000))), 503);
        server.open();
        responds(&mut first, 200, &body(MAX_BODY));
    });
}

#[test]
fn a_client_that_leaves_gives_its_memory_back() {
    own_process!();
    leaves_nothing(settings().handler_threads(2), |server| {
        let mut running = server.send(post_whole("/wait", "hello"));
        server.waits(1);
        // One waits for the handler of posts, the other for the rest of its body.
        for request in [post_whole("/", &body(MAX_BODY)), begun(MAX_BODY - 1)] {
            let client = server.send(request);
            responds(&mut server.send(get("/")), 200, "");
            client.resets();
            eventually("there is room again", || {
                let client = server.send(begun(MAX_BODY - 1));
                responds(&mut server.send(get("/")), 200, "");
                !client.has_something()
            });
        }
        server.open();
        responds(&mut running, 200, "hello");
    });
}

/// Neither their number nor their size adds another thread.
#[test]
fn the_memory_of_all_bodies_has_a_limit() {
    own_process!();
    const CLIENTS: usize = 200;
    const LARGE: usize = 1 << 20;
    let settings = with_bodies(LARGE).max_body_memory(4 * LARGE).body_read_timeout(Duration::from_secs(600));
    leaves_nothing(settings, |server| {
        let (head, piece) = (post("/wait", &format!("Content-Length: {LARGE}"), ""), body(64 * 1024));
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.send(&head)).collect();
        responds(&mut server.send(get("/")), 200, "");
        let before = allocated();
        let mut most = 0;
        for _ in 0..LARGE / piece.len() - 1 {
            for client in &mut clients {
                client.sends_if_it_can(&piece);
                most = most.max(allocated().saturating_sub(before));
            }
        }
        println!("at most {} KiB for {CLIENTS} bodies", most / 1024);
        assert!(most < 2 * 4 * LARGE + LARGE, "{most}");
        assert_eq!(server.requests().len(), 1, "only the GET was whole");
        drop(clients);
    });
}

/// Bytes that a client sends after an unanswered request are not a body, and need a limit of their own.
#[test]
fn the_memory_of_what_is_read_ahead_has_a_limit() {
    own_process!();
    const CLIENTS: usize = 200;
    leaves_nothing(with_bodies(MAX_BODY), |server| {
        let request = post_whole("/wait", "x") + &post_whole("/", &body(MAX_BODY));
        let before = allocated();
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.send(&request)).collect();
        server.waits(3);
        responds(&mut server.send(get("/")), 200, "");
        let each = allocated().saturating_sub(before) / CLIENTS;
        // A client of the test has a buffer of 8 KiB.
        println!("{each} bytes per connection");
        assert!((8 * 1024..20 * 1024).contains(&each), "{each}");
        server.open();
        for client in &mut clients {
            responds(client, 200, "x");
            responds(client, 200, &body(MAX_BODY));
        }
    });
}

#[test]
fn what_follows_a_body_does_not_count_as_one() {
    own_process!();
    leaves_nothing(settings(), |server| {
        let request = post_whole("/wait", "x") + &post_whole("/", &body(MAX_BODY));
        let mut clients: Vec<Client> = (0..40).map(|_| server.send(&request)).collect();
        server.waits(3);
        responds(&mut server.send(get("/")), 200, "");
        server.open();
        for client in &mut clients {
            responds(client, 200, "x");
        }
    });
}

#[test]
fn while_posts_block_pages_and_streams_are_answered() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY).handler_threads(3), |server| {
        let mut posts: Vec<Client> = (0..10).map(|n| server.send(post_whole("/wait", &n.to_string()))).collect();
        server.waits(2);
        for _ in 0..20 {
            responds(&mut server.send(get("/")), 200, "");
        }
        let mut stream = server.send(get("/stream"));
        stream.reads_head();
        stream.reads(FIRST_CHUNK);
        let bodies = server.requests().iter().filter(|request| request.starts_with("POST")).count();
        assert_eq!((bodies, server.waiting()), (2, 2), "more posts run than threads minus one");
        server.open();
        for (n, client) in posts.iter_mut().enumerate() {
            responds(client, 200, &n.to_string());
        }
    });
}

#[test]
fn one_handler_thread_is_enough_for_posts() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY).handler_threads(1), |server| {
        let mut clients: Vec<Client> = (0..20).map(|n| server.send(post_whole("/", &n.to_string()))).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            responds(client, 200, &n.to_string());
        }
    });
}

/// A withdrawn call must not keep its place among the posts that run at the same time.
#[test]
fn posts_whose_clients_leave_free_their_threads() {
    own_process!();
    leaves_nothing(with_bodies(MAX_BODY).handler_threads(2), |server| {
        for _ in 0..50 {
            let client = server.send(post_whole("/", "hello"));
            client.resets();
        }
        for n in 0..20 {
            responds(&mut server.send(post_whole("/", &n.to_string())), 200, &n.to_string());
        }
    });
}

/// Among a thousand slow bodies, well-behaved clients notice nothing.
#[test]
fn among_a_thousand_slow_bodies_posts_and_streams_go_on() {
    own_process!();
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let settings = with_bodies(MAX_BODY).max_body_memory(1 << 20).body_read_timeout(Duration::from_secs(600));
    leaves_nothing(settings, |server| {
        let mut streams: Vec<Client> = (0..50).map(|_| server.send(get("/stream"))).collect();
        for stream in &mut streams {
            stream.reads_head();
            stream.reads(FIRST_CHUNK);
        }
        let before = allocated();
        let mut slow: Vec<Client> = (0..1_000).map(|_| server.send(begun(100))).collect();
        let mut times = Vec::new();
        for n in 0..100 {
            for client in &mut slow[n * 10..(n + 1) * 10] {
                client.sends_if_it_can("x");
            }
            let start = Instant::now();
            server.publisher.publish(n.to_string());
            responds(&mut server.send(post_whole("/", &body(20_000))), 200, &body(20_000));
            for stream in &mut streams {
                stream.reads_until(&format!("data: {n}\n\n\r\n"));
            }
            times.push(start.elapsed());
        }
        are_mostly_below("an event to 50 streams and a post", Duration::from_secs(2), times);
        has_few_threads();
        // A client of the test has a buffer of 8 KiB.
        let each = allocated().saturating_sub(before) / slow.len();
        println!("{each} bytes per slow body");
        assert!(each < 16 * 1024, "{each}");
        // None of them delayed another client.
        let mut first = slow.swap_remove(0);
        first.send(&body(MAX_BODY - 101));
        responds(&mut first, 200, &body(MAX_BODY));
    });
}

/// The event loop must not write to one client for as long as that client reads.
#[test]
fn a_large_response_holds_up_nobody() {
    own_process!();
    const LARGE: usize = 64 << 20;
    let page: Arc<[u8]> = vec![b'x'; LARGE].into();
    let server = with_bodies(MAX_BODY).bind("127.0.0.1:0").unwrap();
    let server = server.spawn(move |request| match request.path() {
        "/large" => Ok(Response::bytes("text/plain", page.clone())?),
        _ => Response::status(204),
    });
    let server = server.unwrap();
    let address = server.local_addr();
    let responses = || {
        thread::scope(|threads| {
            let reader = threads.spawn(move || {
                let mut client = send(address, get("/large"));
                client.reads_head();
                let read = io::copy(&mut client.into_reader().take(LARGE as u64), &mut io::sink()).unwrap();
                assert_eq!(read, LARGE as u64);
            });
            let (mut client, mut responses) = (Client::connect(address), 0);
            while !reader.is_finished() {
                client.send(&get("/"));
                client.reads_head();
                responses += 1;
            }
            reader.join().unwrap();
            println!("{responses} responses during a large one");
            responses
        })
    };
    // A busy machine can keep this thread from running. If the server wrote the large response at once, there would never
    // be more than two others.
    assert!((0..5).any(|_| responses() > 10));
}
