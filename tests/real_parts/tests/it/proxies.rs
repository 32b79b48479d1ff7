//! Event streams through nginx, HAProxy and Caddy: of the example `hub`, and of tiny_http through nginx.

use std::time::{Duration, Instant};

use real_parts::common::eventually;
use real_parts::common::http::Client;
use real_parts::curl::Stream;
use real_parts::proxy::{PROGRAMS, Program, Proxy, Site, WAYS, Way};

/// Every program behind nginx, and hub behind the other proxies.
fn sites() -> impl Iterator<Item = Site> {
    let others = [Proxy::HaProxy, Proxy::Caddy].map(|proxy| (proxy, Program::Hub));
    let all = PROGRAMS.map(|program| (Proxy::Nginx, program)).into_iter().chain(others);
    all.map(|(proxy, program)| Site::with(proxy, program, ""))
}

/// For the tests of what only nginx keeps from the program.
fn behind_nginx() -> impl Iterator<Item = Site> {
    PROGRAMS.into_iter().map(|program| Site::with(Proxy::Nginx, program, ""))
}

#[track_caller]
fn are_at_once(what: &str, times: Vec<Duration>) {
    println!("{what}: {times:.1?}");
    // On a busy machine some are late. A proxy that holds events back delays them all.
    let quickest = times.iter().min().unwrap();
    assert!(*quickest < Duration::from_secs(1), "{what}: each takes {quickest:?} or more");
}

/// The times include curl's start, and a handshake with HTTP/2.
#[track_caller]
fn everything_comes_at_once(site: &Site, way: Way, arguments: &[&str], encoding: Option<&str>) {
    let starts = (0..5).map(|_| {
        let start = Instant::now();
        let (_stream, head, first) = Stream::open(site, way, "/first", arguments);
        let found = head.lines().find_map(|line| line.strip_prefix("content-encoding: "));
        assert_eq!(found, encoding, "{head}");
        first - start
    });
    are_at_once(&format!("{site:?}, {way:?}, first byte"), starts.collect());

    let path = format!("/{way:?}");
    let (mut stream, ..) = Stream::open(site, way, &path, arguments);
    let events = (0..20).map(|n| {
        let data = n.to_string();
        let start = Instant::now();
        assert_eq!(site.post(way, &path, &data), 1);
        stream.gets(&data).0 - start
    });
    are_at_once(&format!("{site:?}, {way:?}, events"), events.collect());
}

#[test]
fn streams_begin_and_events_come_at_once_to_a_client_that_takes_gzip() {
    for site in sites() {
        for way in WAYS {
            everything_comes_at_once(&site, way, &["--header", "Accept-Encoding: gzip"], None);
        }
    }
}

#[test]
fn streams_and_events_come_as_quickly_where_nginx_compresses_everything() {
    for program in PROGRAMS {
        let site = Site::with(Proxy::Nginx, program, "gzip_types *; gzip_proxied any;");
        for way in WAYS {
            everything_comes_at_once(&site, way, &["--compressed"], Some("gzip"));
        }
    }
}

#[test]
fn nginx_and_haproxy_wait_longer_than_a_silent_stream_takes_for_its_heartbeat() {
    for (proxy, settings) in
        [(Proxy::Nginx, &["proxy_read_timeout "][..]), (Proxy::HaProxy, &["timeout client ", "timeout server "])]
    {
        let lines = proxy.lines();
        for setting in settings {
            let (_, rest) = lines.split_once(setting).unwrap();
            let seconds: u64 = rest.split_once('s').unwrap().0.parse().unwrap();
            assert!(seconds >= 2 * 15, "{setting}{seconds}s");
        }
    }
}

#[test]
fn fifty_streams_run_over_one_http_2_connection() {
    for mut site in sites() {
        let mut curl = site.curl(Way::Http2, "/all,0");
        curl.args((1..50).map(|n| site.url(Way::Http2, &format!("/all,{n}"))));
        curl.args(["--parallel", "--parallel-max", "50", "--write-out", "\nconnections: %{num_connects}\n\n"]);
        let mut streams = Stream::run(&mut curl);
        eventually("fifty are subscribed", || site.post(Way::Http2, "/all", "again") == 50);
        assert_eq!(site.post(Way::Http2, "/all", "to all"), 50);
        let mut got = 0;
        while got < 50 {
            let (_, frame) = streams.next_frame().expect("an event for each stream");
            got += usize::from(frame.starts_with("data: to all\n"));
        }

        // curl reports it when the streams have ended.
        site.hub.process.kill().unwrap();
        let mut connections = Vec::new();
        while let Some((_, frame)) = streams.next_frame() {
            let counts = frame.lines().filter_map(|line| line.strip_prefix("connections: ")?.parse::<u32>().ok());
            connections.extend(counts);
        }
        assert_eq!((connections.len(), connections.iter().sum::<u32>()), (50, 1), "{site:?}: {connections:?}");
    }
}

#[test]
fn a_client_that_sends_its_last_event_id_gets_the_events_it_missed() {
    for site in sites() {
        for way in WAYS {
            let path = format!("/{way:?}");
            let (mut stream, ..) = Stream::open(&site, way, &path, &[]);
            site.post(way, &path, "one");
            let (_, id) = stream.gets("one");
            drop(stream);
            site.post(way, &path, "two");
            site.post(way, &path, "three");
            let (mut stream, ..) = Stream::open(&site, way, &path, &["--header", &format!("Last-Event-ID: {id}")]);
            stream.gets("two");
            stream.gets("three");
        }
    }
}

#[test]
fn the_program_drops_the_stream_of_a_client_that_leaves() {
    for site in sites() {
        for way in WAYS {
            let path = format!("/{way:?}");
            let (stream, ..) = Stream::open(&site, way, &path, &[]);
            assert_eq!(site.post(way, &path, "x"), 1);
            drop(stream);
            eventually(&format!("{site:?}: no stream is left"), || site.post(way, &path, "x") == 0);
        }
    }
}

/// The header that a browser's `EventSource` sends, and no other client does.
const EVENT_SOURCE: [&str; 2] = ["--header", "Accept: text/event-stream"];

#[test]
fn when_the_program_dies_streams_end_and_an_event_source_can_reconnect() {
    for mut site in sites() {
        let mut streams = WAYS.map(|way| Stream::open(&site, way, "/c", &EVENT_SOURCE).0);
        site.hub.process.kill().unwrap();
        site.hub.process.wait().unwrap();
        for (stream, way) in streams.iter_mut().zip(WAYS) {
            assert_eq!(stream.next_frame().map(|(_, frame)| frame), None, "{site:?}");
            let is_whole = stream.process.wait().unwrap().success();
            // HAProxy over HTTP/2 and Caddy end it as if it were whole. An `EventSource` reconnects in either case.
            assert!(
                !is_whole || !matches!(site.kind, Proxy::Nginx),
                "{site:?}, {way:?}: took an aborted stream for a whole one"
            );
        }
        // HAProxy closes every connection, the others only those of an `EventSource`.
        let other = if matches!(site.kind, Proxy::HaProxy) { 0 } else { 502 };
        for way in WAYS {
            assert_eq!(site.status(way, "/c", &EVENT_SOURCE), 0, "{site:?}: after a status it would not reconnect");
            assert_eq!(site.status(way, "/c", &[]), other, "{site:?}");
            assert_eq!(site.status(way, "/c", &["--data-binary", "x"]), other, "{site:?}");
        }

        site.starts_hub_again();
        for way in WAYS {
            let path = format!("/{way:?}");
            let (mut stream, ..) = Stream::open(&site, way, &path, &EVENT_SOURCE);
            site.post(way, &path, "again");
            stream.gets("again");
        }
    }
}

#[test]
fn the_program_sees_the_host_and_the_address_of_the_client() {
    for proxy in [Proxy::Nginx, Proxy::HaProxy, Proxy::Caddy] {
        let arguments = ["--max-streams-per-ip", "1", "--trusted-proxy", "127.0.0.1"];
        let site = Site::with_arguments(proxy, &arguments);
        let from = |address| ["--interface", address, "--header", "X-Forwarded-For: 192.0.2.1"];
        let (_stream, ..) = Stream::open(&site, Way::Http2, "/c", &from("127.0.0.2"));
        // The proxy appends the address that the connection comes from, so the one before it is ignored.
        let mut second = Stream::run(site.curl(Way::Http2, "/c").args(from("127.0.0.2")));
        let (_, busy) = second.next_frame().unwrap();
        assert!(busy.starts_with(": busy\n"), "{site:?}: {busy}");
        let (_other, ..) = Stream::open(&site, Way::Http2, "/c", &from("127.0.0.3"));
        // A hub on the loopback refuses foreign hosts, so it sees the one that the client names. Caddy has a host of
        // its own.
        if matches!(proxy, Proxy::Caddy) {
            continue;
        }
        let host = ["--header", "Host: evil.example", "--data-binary", "x"];
        assert_eq!(site.status(Way::Http1, "/c", &host), 403, "{site:?}");
    }
}

#[test]
fn a_stream_through_nginx_occupies_no_thread_of_the_program() {
    for mut site in behind_nginx() {
        let before = site.threads_at_rest();
        let mut clients: Vec<Client> = (0..100).map(|_| site.connect()).collect();
        for client in &mut clients {
            client.send("GET /c HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        for client in &mut clients {
            client.reads_until("id: ");
        }
        eventually("no more threads than before", || site.threads() <= before + 8);
        assert_eq!(site.post(Way::Http1, "/c", "to all"), 100);
        for client in &mut clients {
            client.reads_until("data: to all\n");
        }
    }
}

#[test]
fn an_enormous_body_does_not_abort_the_program() {
    for mut site in behind_nginx() {
        let before = site.threads_at_rest();
        for method in ["GET", "POST", "DELETE"] {
            let mut client = site.connect();
            client.send(&format!("{method} /c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 68719476736\r\n\r\n"));
            assert_eq!(client.reads_head().status(), "HTTP/1.1 413 Request Entity Too Large");
            let length = ["--request", method, "--header", "Content-Length: 68719476736", "--data-binary", "x"];
            assert_eq!(site.status(Way::Http2, "/c", &length), 413);
        }
        site.is_as_well_as_with(before);
    }
}

#[test]
fn bodies_that_do_not_come_block_nobody_and_are_disconnected() {
    for mut site in behind_nginx() {
        let before = site.threads_at_rest();
        let mut clients: Vec<Client> = (0..8).map(|_| site.connect()).collect();
        for client in &mut clients {
            client.send("POST /c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n");
        }
        site.is_as_well_as_with(before);
        for client in &mut clients {
            client.reads_the_end();
        }
    }
}

#[test]
fn second_requests_on_a_running_streams_connection_block_nobody() {
    for mut site in behind_nginx() {
        let before = site.threads_at_rest();
        let mut clients: Vec<Client> = (0..8).map(|_| site.connect()).collect();
        for client in &mut clients {
            client.send("GET /c HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        for client in &mut clients {
            client.reads_until("id: ");
        }
        site.is_as_well_as_with(before);
        assert_eq!(site.post(Way::Http1, "/c", "to all"), 8);
        for client in &mut clients {
            client.reads_until("data: to all\n");
        }
    }
}

#[test]
fn a_request_line_that_ends_in_http_2_costs_no_thread() {
    for mut site in behind_nginx() {
        let before = site.threads_at_rest();
        for _ in 0..64 {
            let mut client = site.connect();
            client.send("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n");
            assert_eq!(client.reads_head().status(), "HTTP/1.1 505 HTTP Version Not Supported");
        }
        site.is_as_well_as_with(before);
    }
}

#[test]
fn half_requests_cost_no_thread_and_are_disconnected() {
    for mut site in behind_nginx() {
        let before = site.threads_at_rest();
        let mut clients: Vec<Client> = (0..500).map(|_| site.connect()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\n");
        }
        site.is_as_well_as_with(before);
        for client in &mut clients {
            client.reads_the_end();
        }
    }
}
