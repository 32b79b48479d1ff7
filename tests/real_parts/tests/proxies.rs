//! Event streams of the example `hub` through nginx.
#![cfg(target_os = "linux")] // counts hub's threads in /proc

use std::time::{Duration, Instant};

use real_parts::common::eventually;
use real_parts::common::http::Client;
use real_parts::nginx::{FROM, Site, Stream, WAYS, Way, site};

fn ways_and_servers() -> impl Iterator<Item = (Way, &'static str)> {
    WAYS.into_iter().flat_map(|way| FROM.map(|from| (way, from)))
}

#[track_caller]
fn are_at_once(what: &str, mut times: Vec<Duration>) {
    println!("{what}: {times:.1?}");
    times.sort();
    let median = times[times.len() / 2];
    assert!(median < Duration::from_millis(100), "{what}: the median is {median:?}");
}

/// The times include curl's start, and for HTTP/2 a handshake.
#[track_caller]
fn everything_comes_at_once(site: &Site, (way, from): (Way, &str), arguments: &[&str], encoding: Option<&str>) {
    let starts = (0..5).map(|_| {
        let start = Instant::now();
        let (_stream, head, first) = Stream::open(site, way, &format!("{from}/first"), arguments);
        let found = head.lines().find_map(|line| line.strip_prefix("content-encoding: "));
        assert_eq!(found, encoding, "{head}");
        first - start
    });
    are_at_once(&format!("{way:?} {from}, first byte"), starts.collect());

    // Who watched it the other way may not be gone yet.
    let path = format!("/{way:?}{}", from.replace('/', "-"));
    let (mut stream, ..) = Stream::open(site, way, &format!("{from}{path}"), arguments);
    let events = (0..20).map(|n| {
        let data = n.to_string();
        let start = Instant::now();
        assert_eq!(site.post(way, &path, &data), 1);
        stream.gets(&data).0 - start
    });
    are_at_once(&format!("{way:?} {from}, events"), events.collect());
}

#[test]
fn streams_begin_and_events_come_within_100_ms_to_a_client_that_takes_gzip() {
    let site = Site::start();
    for case in ways_and_servers() {
        everything_comes_at_once(&site, case, &["--header", "Accept-Encoding: gzip"], None);
    }
}

#[test]
fn streams_and_events_come_as_quickly_where_nginx_compresses_everything() {
    let site = Site::start_with("gzip_types *; gzip_proxied any;");
    for case in ways_and_servers() {
        everything_comes_at_once(&site, case, &["--compressed"], Some("gzip"));
    }
}

#[test]
fn nginx_waits_longer_than_a_silent_stream_takes_for_its_heartbeat() {
    let site = site();
    let waits = site.split("proxy_read_timeout ").skip(1).map(|rest| rest.split_once("s;").unwrap().0);
    let waits: Vec<u64> = waits.map(|seconds| seconds.parse().unwrap()).collect();
    assert_eq!(waits.len(), FROM.len(), "{site}");
    assert!(waits.iter().all(|seconds| *seconds >= 2 * 15), "{waits:?}");
}

#[test]
fn fifty_streams_run_over_one_http_2_connection() {
    let mut site = Site::start();
    let mut curl = site.curl(Way::Http2, "/all,0");
    curl.args((1..50).map(|n| site.url(Way::Http2, &format!("/all,{n}"))));
    curl.args(["--parallel", "--parallel-max", "50", "--write-out", "\nconnections: %{num_connects}\n\n"]);
    let mut streams = Stream::run(&mut curl);
    eventually("fifty watch", || site.post(Way::Http2, "/all", "again") == 50);
    assert_eq!(site.post(Way::Http2, "/all", "to all"), 50);
    let mut got = 0;
    while got < 50 {
        let (_, frame) = streams.next_frame().expect("an event for each stream");
        got += usize::from(frame.starts_with("data: to all\n"));
    }

    // curl tells when the streams have ended.
    site.hub.process.kill().unwrap();
    let mut connections = Vec::new();
    while let Some((_, frame)) = streams.next_frame() {
        connections.extend(frame.lines().filter_map(|line| line.strip_prefix("connections: ")?.parse::<u32>().ok()));
    }
    assert_eq!((connections.len(), connections.iter().sum::<u32>()), (50, 1), "{connections:?}");
}

#[test]
fn a_client_that_sends_its_last_event_id_gets_the_events_it_missed() {
    let site = Site::start();
    for (way, from) in ways_and_servers() {
        let channel = format!("/{way:?}");
        let path = format!("{from}{channel}");
        let (mut stream, ..) = Stream::open(&site, way, &path, &[]);
        site.post(way, &channel, "one");
        let (_, id) = stream.gets("one");
        drop(stream);
        site.post(way, &channel, "two");
        site.post(way, &channel, "three");
        let (mut stream, ..) = Stream::open(&site, way, &path, &["--header", &format!("Last-Event-ID: {id}")]);
        stream.gets("two");
        stream.gets("three");
    }
}

#[test]
fn the_program_drops_the_stream_of_a_client_that_leaves() {
    let site = Site::start();
    for (way, from) in ways_and_servers() {
        let channel = format!("/{way:?}");
        let (stream, ..) = Stream::open(&site, way, &format!("{from}{channel}"), &[]);
        assert_eq!(site.post(way, &channel, "x"), 1);
        drop(stream);
        eventually("nobody watches", || site.post(way, &channel, "x") == 0);
    }
}

/// What a browser's `EventSource` says of itself, and nothing else does.
const EVENT_SOURCE: [&str; 2] = ["--header", "Accept: text/event-stream"];

#[test]
fn when_the_program_dies_streams_end_and_an_event_source_can_reconnect() {
    let mut site = Site::start();
    let streams = ways_and_servers().map(|(way, from)| Stream::open(&site, way, &format!("{from}/c"), &EVENT_SOURCE).0);
    let mut streams: Vec<Stream> = streams.collect();
    site.hub.process.kill().unwrap();
    site.hub.process.wait().unwrap();
    for stream in &mut streams {
        assert_eq!(stream.next_frame().map(|(_, frame)| frame), None);
        assert!(!stream.process.wait().unwrap().success(), "took a cut stream for a whole one");
    }
    for (way, from) in ways_and_servers() {
        let path = format!("{from}/c");
        assert_eq!(site.status(way, &path, &EVENT_SOURCE), 0, "a status would be the end");
        assert_eq!(site.status(way, &path, &[]), 502);
        assert_eq!(site.status(way, &path, &["--data-binary", "x"]), 502);
    }

    site.starts_hub_again();
    for (way, from) in ways_and_servers() {
        let channel = format!("/{way:?}");
        let (mut stream, ..) = Stream::open(&site, way, &format!("{from}{channel}"), &EVENT_SOURCE);
        site.post(way, &channel, "again");
        stream.gets("again");
    }
}

#[test]
fn a_stream_through_nginx_occupies_no_thread_of_the_program() {
    let mut site = Site::start();
    let before = site.threads_at_rest();
    let mut clients: Vec<Client> = (0..100).map(|_| site.connect()).collect();
    for client in &mut clients {
        client.send("GET /c HTTP/1.1\r\nHost: x\r\n\r\n");
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

#[test]
fn an_enormous_body_does_not_abort_the_program() {
    let mut site = Site::start();
    let before = site.threads_at_rest();
    for method in ["GET", "POST", "DELETE"] {
        let mut client = site.connect();
        client.send(&format!("{method} /c HTTP/1.1\r\nHost: x\r\nContent-Length: 68719476736\r\n\r\n"));
        assert_eq!(client.reads_head().status(), "HTTP/1.1 413 Request Entity Too Large");
        let length = ["--request", method, "--header", "Content-Length: 68719476736", "--data-binary", "x"];
        assert_eq!(site.status(Way::Http2, "/c", &length), 413);
    }
    site.is_as_well_as_with(before);
}

#[test]
fn bodies_that_do_not_come_block_nobody_and_are_disconnected() {
    let mut site = Site::start();
    let before = site.threads_at_rest();
    let mut clients: Vec<Client> = (0..8).map(|_| site.connect()).collect();
    for client in &mut clients {
        client.send("POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n");
    }
    site.is_as_well_as_with(before);
    for client in &mut clients {
        client.reads_the_end();
    }
}

#[test]
fn second_requests_on_a_running_streams_connection_block_nobody() {
    let mut site = Site::start();
    let before = site.threads_at_rest();
    let mut clients: Vec<Client> = (0..8).map(|_| site.connect()).collect();
    for client in &mut clients {
        client.send("GET /c HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
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

#[test]
fn a_request_line_that_ends_in_http_2_costs_no_thread() {
    let mut site = Site::start();
    let before = site.threads_at_rest();
    for _ in 0..64 {
        let mut client = site.connect();
        client.send("GET / HTTP/2.0\r\nHost: x\r\n\r\n");
        assert_eq!(client.reads_head().status(), "HTTP/1.1 505 HTTP Version Not Supported");
    }
    site.is_as_well_as_with(before);
}

#[test]
fn half_requests_cost_no_thread_and_are_disconnected() {
    let mut site = Site::start();
    let before = site.threads_at_rest();
    let mut clients: Vec<Client> = (0..500).map(|_| site.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n");
    }
    site.is_as_well_as_with(before);
    for client in &mut clients {
        client.reads_the_end();
    }
}
