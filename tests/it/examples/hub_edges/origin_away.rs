//! What clients of an edge see while its origin is away, and afterwards.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;

use super::*;

#[test]
fn streams_of_an_edge_stay_open_while_its_origin_restarts_with_its_file() {
    let _watchdog = watchdog("an origin restarts");
    let folder = Folder::new("origin_restarts");
    let mut origin = Hub::with_file(&folder);
    let edge = Hub::edge(&origin, &["a", "b"]);
    let (mut one, mut both) = (edge.watch("/a"), edge.watch("/b,a"));
    let mut client = Client::after(&one.last_event_id);
    for round in 1..=3 {
        let [before, after] = ["before", "after"].map(|text| format!("{text} {round}"));
        origin.post("/a", &before);
        one.gets(&format!("data: {before}\n\n"));
        both.gets(&format!("data: {before}\n\n"));
        origin.kill();
        edge.has_figure("sse_store_connected 0");
        edge.is_healthy();
        // The edge answers from what it has.
        client.reads_until(&edge.at("/a"), &before);
        origin.start();
        origin.post("/a,b", &after);
        one.gets(&format!("data: {after}\n\n"));
        both.gets(&format!("data: {after}\n\n"));
        client.reads_until(&edge.at("/a"), &after);
        edge.has_figure("sse_store_connected 1");
        edge.has_figure(&format!("sse_store_connections_lost_total {round}"));
    }
    assert_eq!(client.gaps(), 0);
    assert_eq!(client.events(), origin.events("/a", "after 3"));
}

#[test]
fn clients_of_an_edge_get_a_gap_if_its_origin_restarts_without_a_file() {
    let _watchdog = watchdog("an origin forgets");
    let mut origin = Hub::in_memory();
    let edge = Hub::edge(&origin, &["a"]);
    let mut client = Client::after(&edge.watch("/a").last_event_id);
    origin.post("/a", "before");
    client.reads_until(&edge.at("/a"), "before");
    let mut stream = edge.watch("/a").events;
    origin.kill();
    origin.start();
    // The stream ends, so that the client resumes.
    while stream.next_frame().is_some() {}
    edge.is_healthy();
    origin.post("/a", "after");
    client.reads_until(&edge.at("/a"), "after");
    assert_eq!((client.gaps(), client.data()), (1, vec!["before".to_owned(), "after".to_owned()]));
    client.reads_until(&origin.at("/a"), {
        origin.post("/a", "at the origin");
        "at the origin"
    });
    assert_eq!(client.gaps(), 1, "the gap comes once");
}

#[test]
fn an_edge_that_starts_without_its_origin_refuses_streams_until_it_has_the_events() {
    let _watchdog = watchdog("an edge starts first");
    let mut origin = Hub::stopped([""; 0]);
    let edge = Hub::new(Hub::upstream(&origin, &["a"]));
    eventually("the reason is known", || {
        let (status, text) = edge.get("/healthz");
        assert_eq!(status, 503);
        text.starts_with("the events of the origin have not arrived yet: ")
    });
    let (status, text) = edge.get("/a");
    assert!(status == 200 && text.contains("\nretry: "), "reconnect later: {text}");
    edge.has_figure("sse_store_connected 0");
    origin.start();
    edge.is_healthy();
    let mut watcher = edge.watch("/a");
    origin.post("/a", "arrives");
    watcher.gets("data: arrives\n\n");
}

#[test]
fn an_edge_logs_once_that_its_origin_is_away_and_once_that_it_follows_it_again() {
    let _watchdog = watchdog("an edge logs");
    let mut origin = Hub::in_memory();
    let mut edge = Command::new(built_examples().join("hub"));
    edge.arg("127.0.0.1:0").args(Hub::upstream(&origin, &["a"])).stderr(Stdio::piped());
    let mut edge = Example::run_as_it_is(edge);
    let mut log = BufReader::new(edge.process.stderr.take().unwrap()).lines();
    eventually("the edge is healthy", || get(&format!("{}/healthz", edge.url)).0 == 200);
    for _ in 0..2 {
        origin.kill();
        let line = log.next().unwrap().unwrap();
        assert!(line.starts_with("the origin is away, streams stay open: "), "{line}");
        // Longer than the edge needs to look again, which must not lead to another line.
        thread::sleep(Duration::from_millis(1_500));
        origin.start();
        assert_eq!(log.next().unwrap().unwrap(), "connected to the origin again");
    }
}
