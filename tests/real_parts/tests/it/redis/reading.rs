//! How a publisher reads the stream.

use super::*;

#[test]
fn attempts_become_rare_while_the_stream_cannot_be_read() {
    let server = Server::start(&[]);
    let node = node(&server);
    confirm(&node, 0..3);
    let failures = || node.stats().store.connections_lost;
    server.cli(&["XADD", "events", "9-1", "by", "x:1", "at", "0", "to", "a", "fields", "data: x"]);
    eventually("the first attempt fails", || failures() > 0);
    // Each one connects and attaches. The pauses between the next ones are at least 25, 50, 100, 200, 400 and 800 ms.
    let (first, start) = (failures(), Instant::now());
    eventually("more attempts fail", || failures() >= first + 6);
    assert!(start.elapsed() >= Duration::from_millis(1_500), "{:?}", start.elapsed());
    server.cli(&["DEL", "events"]);
    eventually("it begins anew", || matches!(node.store_state(), Some(StoreState::Running { .. })));
    confirm(&node, 3..6);
}

#[test]
fn a_stored_event_that_is_dropped_before_it_is_read_is_confirmed() {
    let server = Server::start(&[]);
    let node = publisher(Redis::at(server.url()).read_pause(Duration::from_secs(3)));
    let mut live = Client::new(&node, None);
    confirm(&node, 0..1);
    live.reads(0..1);
    // The publisher pauses now.
    let before = server.cli(&["XLEN", "events"]);
    thread::scope(|scope| {
        let confirmed = scope.spawn(|| node.publish_confirmed(DEFAULT_CHANNEL, "1", PATIENCE));
        eventually("it is stored", || server.cli(&["XLEN", "events"]) != before);
        let newest = server.cli(&["XREVRANGE", "events", "+", "-", "COUNT", "1"]);
        let id = newest.lines().next().unwrap();
        server.cli(&["XDEL", "events", id]);
        confirm_elsewhere(&server, 2);
        let receipt = confirmed.join().unwrap().expect("it was stored");
        assert!(receipt.id().unwrap().ends_with(&format!(".{id}")), "{receipt:?} {id}");
    });
    assert_eq!(live.next(), "GAP");
    live.reads(2..3);
    assert_eq!(node.stats().store.pending, 0);
}

#[test]
fn what_is_read_together_is_bounded_also_if_small_events_are_followed_by_large_ones() {
    // Redis ends a connection for which more waits.
    let limit = ["--client-output-buffer-limit", "normal", "160mb", "0", "0"];
    let server = Server::start(&limit);
    let writer = publisher(Redis::at(server.url()).max_pending_bytes(300 << 20));
    let reader = node(&server);
    let before = reader.last_event_id();
    let link = Link::to(server.address());
    let behind = publisher(Redis::at(link.url()));
    link.goes_down();
    confirm(&writer, 0..2_000);
    // 240 MiB, of which 128 MiB can be read together.
    for _ in 0..60 {
        assert!(!writer.publish("x".repeat(4 << 20)).is_refused());
    }
    writer.flush(6 * PATIENCE).unwrap();
    confirm(&writer, 2_000..2_001);
    link.comes_up();
    let newest = writer.last_event_id();
    let fresh = node(&server);
    for node in [&reader, &behind, &fresh] {
        eventually("it has read everything", || node.last_event_id() == newest);
    }
    assert_ne!(before, newest);
    assert_eq!(fresh.stats().store.connections_lost, 0);
}
