//! The example hub: channels, statistics, and many clients.

use std::collections::BTreeSet;
use std::thread;

use super::*;
use crate::common::http::Client;
use crate::common::{eventually, free_address};

#[test]
fn hub_publishes_to_channels() {
    let hub = Example::start("hub");
    assert!(get(&hub.url).1.contains("<!doctype html>"));
    let mut builds = Watcher::new(&hub, "/builds");
    let mut both = Watcher::new(&hub, "/builds,caf%C3%A9%20news");
    let url = |path: &str| format!("{}{path}", hub.url);

    assert_eq!(post(&url("/builds"), "two\nlines"), (204, String::new()));
    assert_eq!(post(&url("/caf%C3%A9%20news?event=flash&retry=1500"), ""), (204, String::new()));
    assert_eq!(post(&url("/builds,caf%C3%A9%20news?event=a%26b"), "once").0, 204);
    builds.gets("data: two\ndata: lines\n\n");
    builds.gets("event: a&b\ndata: once\n\n");
    both.gets("data: two\ndata: lines\n\n");
    both.gets("event: flash\nretry: 1500\ndata: \n\n");
    both.gets("event: a&b\ndata: once\n\n");

    let mut comma = Watcher::new(&hub, "/a%2Cb");
    assert_eq!(post(&url("/a,b"), "to two others").0, 204);
    assert_eq!(post(&url("/a%2Cb"), "to the one with a comma").0, 204);
    comma.gets("data: to the one with a comma\n\n");
}

#[test]
fn hub_rejects_a_bad_request_with_the_reason_and_publishes_nothing() {
    let hub = Example::start("hub");
    let mut watcher = Watcher::new(&hub, "/c");
    let url = |path: &str| format!("{}{path}", hub.url);
    let refused = |(status, text): (u16, String), expected_status: u16, expected: &str| {
        assert_eq!((status, text.trim_end()), (expected_status, expected));
    };
    let mebibyte = vec![b'x'; 1024 * 1024 + 1];

    refused(
        post(&url("/c"), &b"\xff"[..]),
        400,
        "the body is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0",
    );
    refused(post(&url("/c"), &mebibyte[..]), 413, "the body is larger than this server allows");
    let text = "invalid character '\\n' at byte 1 of the event type: remove CR, LF and NUL";
    refused(post(&url("/c?event=a%0Adata:b"), "x"), 400, text);
    refused(post(&url("/c?retry=soon"), "x"), 400, "retry=soon is not a number of ms");
    let text = "retry time too long (2147483648 ms): use at most 2147483647 ms";
    refused(post(&url("/c?retry=2147483648"), "x"), 400, text);
    refused(post(&url("/c?kind=x"), "x"), 400, "\"kind\" is unknown: `event` and `retry` are allowed");
    refused(post(&url("/"), "x"), 400, "a channel's name is empty: /CHANNEL or /A,B");
    refused(post(&url("/c,"), "x"), 400, "a channel's name is empty: /CHANNEL or /A,B");
    let many = format!("/{}", vec!["c"; 65].join(","));
    refused(post(&url(&many), "x"), 400, "65 channels are named: at most 64 are allowed");
    refused(post(&url("/%ff"), "x"), 400, "the path is not UTF-8");
    let long = "x".repeat(257);
    let text = "a channel's name is 257 bytes long: at most 256 are allowed";
    refused(post(&url(&format!("/{long}")), "x"), 400, text);
    refused(get(&url(&format!("/{long}"))), 400, text);
    let many = (0..65).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let text = "65 channels are named: at most 64 are allowed";
    refused(get(&url(&format!("/{many}"))), 400, text);
    let text = "no channel can have the name `stats`: the hub itself answers GET /stats";
    refused(post(&url("/stats"), "x"), 400, text);
    for path in ["/c,stats", "/%73tats", "/stats,"] {
        refused(get(&url(path)), 400, text);
    }
    let put = answer(agent().put(url("/c")).send("x"));
    refused(put, 405, "GET watches a channel, POST publishes to it");

    let exactly = &mebibyte[1..];
    assert_eq!(post(&url("/c"), exactly).0, 204);
    assert_eq!(watcher.next_event().len(), "data: \n\n".len() + exactly.len());
}

#[test]
fn hub_reports_its_statistics_to_prometheus() {
    let hub = Example::start("hub");
    let url = |path: &str| format!("{}{path}", hub.url);
    let mut watcher = Watcher::new(&hub, "/a,b");
    assert_eq!(post(&url("/a"), "x"), (204, String::new()));
    assert_eq!(post(&url("/nobody's"), "x"), (204, String::new()));
    watcher.gets("data: x\n\n");
    // After the write.
    eventually("the delivery is counted", || get(&url("/stats")).1.contains("\nsse_delivered_events_total 1\n"));

    let mut response = agent().get(url("/stats")).call().unwrap();
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &content_type.parse().unwrap())
    );
    let text = response.body_mut().read_to_string().unwrap();

    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.pop(), Some("# EOF"));
    let (about, samples): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| line.starts_with("# "));
    let bytes: u64 = samples.iter().find_map(|line| line.strip_prefix("sse_history_bytes ")).unwrap().parse().unwrap();
    assert!((100..10_000).contains(&bytes), "{bytes}");
    let bytes = format!("sse_history_bytes {bytes}");
    let expected = [
        "sse_subscribers 1",
        "sse_channels 2",
        "sse_published_events_total 2",
        "sse_queued_events_total 1",
        "sse_delivered_events_total 1",
        "sse_skipped_events_total 0",
        "sse_panicked_events_total 0",
        "sse_dropped_events_total 0",
        "sse_refused_streams_total 0",
        "sse_pending_events 0",
        "sse_stored_events_total 0",
        "sse_unstored_events_total 0",
        "sse_refused_events_total 0",
        "sse_losses_found_total 0",
        "sse_ended_streams_total{cause=\"closed\"} 0",
        "sse_ended_streams_total{cause=\"unsubscribed\"} 0",
        "sse_ended_streams_total{cause=\"queue_full\"} 0",
        "sse_ended_streams_total{cause=\"connection_lost\"} 0",
        "sse_ended_streams_total{cause=\"write_timed_out\"} 0",
        "sse_ended_streams_total{cause=\"dropped\"} 0",
        "sse_ended_streams_total{cause=\"disconnected\"} 0",
        "sse_ended_streams_total{cause=\"expired\"} 0",
        "sse_ended_streams_total{cause=\"replaced\"} 0",
        "sse_history_events 2",
        &bytes,
        "sse_history_channels 2",
    ];
    assert_eq!(samples.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from(expected));
    assert_eq!(samples.len(), expected.len(), "{text}");
    for sample in &samples {
        let name = sample.split(['{', ' ']).next().unwrap();
        let of_type = name.strip_suffix("_total").map_or(format!("{name} gauge"), |name| format!("{name} counter"));
        assert!(about.contains(&&*format!("# TYPE {of_type}")), "{text}");
    }

    drop(watcher);
    let left = "\nsse_ended_streams_total{cause=\"connection_lost\"} 1\n";
    eventually("the lost connection is counted", || {
        post(&url("/a"), "x");
        get(&url("/stats")).1.contains(left)
    });
}

#[test]
fn hub_serves_300_streams_that_open_at_once() {
    let hub = Example::start("hub");
    let mut clients: Vec<Client> = (0..300).map(|_| hub.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&format!("GET /all,{n} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
    for client in &mut clients {
        client.reads_head();
        client.reads_until(":\nid: ");
    }
    assert_eq!(post(&format!("{}/all", hub.url), "hello").0, 204);
    for client in &mut clients {
        client.reads_until("data: hello\n");
    }
}

/// Returns the numbers of hub's own threads, of descriptors and of the channel's subscribers, and the number of all
/// threads in steps of 32.
#[cfg(target_os = "linux")]
fn held(hub: &Example, channel: &str) -> [usize; 4] {
    let of = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", hub.process.id())).unwrap();
    let names = of("task").filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let ours = names.filter(|name| name.starts_with("sse ")).count();
    let response = agent().post(format!("{}/{channel}", hub.url)).header("connection", "close").send("x").unwrap();
    let watchers = response.headers()["x-watchers"].to_str().unwrap().parse().unwrap();
    [ours, of("fd").count(), watchers, of("task").count() / 32]
}

#[cfg(target_os = "linux")]
#[test]
fn hub_keeps_nothing_of_10_000_clients_that_connect_and_reset() {
    let hub = Example::start("hub");
    drop(hub.events("/c"));
    eventually("the first watcher has gone", || held(&hub, "c")[2] == 0);
    let before = held(&hub, "c");
    thread::scope(|threads| {
        for thread in 0..20 {
            let hub = &hub;
            threads.spawn(move || {
                for n in 0..500 {
                    let mut client = hub.connect();
                    client.send("GET /c HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    if (thread + n) % 2 == 0 {
                        client.reads_head();
                    }
                    client.resets();
                }
            });
        }
    });
    // If all are needed, there is a writer thread per processor.
    let processors = thread::available_parallelism().unwrap().get();
    let before = [before[0] + processors, before[1] + 4, before[2], before[3]];
    eventually("threads, descriptors and watchers are where they were", || {
        let now = held(&hub, "c");
        println!("hub's threads, descriptors, subscribers, all threads / 32: {now:?}, and {before:?} before");
        now.iter().zip(before).all(|(now, before)| *now <= before)
    });
}

#[test]
fn hub_reports_a_gap_once_after_a_restart() {
    let address = free_address();
    let mut before = Example::start_at("hub", address);
    let mut client = before.events("/c");
    let start = client.next_frame().unwrap();
    post(&format!("{}/c", before.url), "one");
    let id = client.next_frame().unwrap().strip_prefix("data: one\nid: ").unwrap().trim().to_owned();
    assert_ne!(start.trim(), format!("id: {id}"));
    before.process.kill().unwrap();
    before.process.wait().unwrap();

    let after = Example::start_at("hub", address);
    post(&format!("{}/c", after.url), "two");
    let reconnect = |id: &str| Events::get(&format!("{}/c?lastEventId={id}", after.url));
    let mut client = reconnect(&id);
    client.gets(":\n");
    let gap = client.next_frame().unwrap();
    assert!(gap.starts_with("event: gap\n"), "{gap}");
    let id = gap.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    assert!(client.next_frame().unwrap().starts_with("data: two\n"));
    drop(client);

    let mut client = reconnect(&id);
    client.gets(":\n");
    client.gets(&format!("id: {id}\n\n"));
    assert!(client.next_frame().unwrap().starts_with("data: two\n"), "the gap comes once");
    post(&format!("{}/c", after.url), "three");
    assert!(client.next_frame().unwrap().starts_with("data: three\n"));
}

#[test]
fn hub_serves_many_publishers_at_once() {
    let hub = Example::start("hub");
    let mut watcher = Watcher::new(&hub, "/c");
    thread::scope(|threads| {
        for thread in 0..8 {
            let hub = &hub;
            threads.spawn(move || {
                for n in 0..50 {
                    assert_eq!(post(&format!("{}/c", hub.url), format!("{thread} {n}")).0, 204);
                }
            });
        }
    });
    let frames: BTreeSet<String> = (0..400).map(|_| watcher.next_event()).collect();
    assert_eq!(frames.len(), 400);
}
