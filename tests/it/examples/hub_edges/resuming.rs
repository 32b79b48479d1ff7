//! Where clients of an edge can resume, and when they get a gap.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use super::*;

#[test]
fn a_client_resumes_at_every_hub_after_an_event_of_any_other() {
    let _watchdog = watchdog("clients resume anywhere");
    let folder = Folder::new("edges_resume");
    for origin in [Hub::in_memory(), Hub::with_file(&folder)] {
        let edges = [(); 2].map(|()| Hub::edge(&origin, &["a", "b"]));
        let hubs = [&edges[0], &origin, &edges[1], &edges[0], &edges[1], &origin];
        for path in ["/a", "/b,a"] {
            let mut client = Client::after(&edges[0].watch("/a").last_event_id);
            let mut expected = Vec::new();
            for (n, hub) in hubs.iter().enumerate() {
                // On two channels, each event that is posted to both comes once.
                for posted in ["/a", "/b", "/b,a"] {
                    let data = format!("{posted} {n}");
                    let id = origin.post(posted, &data);
                    expected.extend((posted != "/b" || path == "/b,a").then_some((id, data)));
                }
                client.reads_until(&hub.at(path), &format!("/b,a {n}"));
            }
            assert_eq!(client.events(), expected, "{path}");
            assert_eq!(client.gaps(), 0, "{path}");
        }
    }
}

#[test]
fn an_edge_that_restarts_has_what_its_origin_holds() {
    let _watchdog = watchdog("an edge restarts");
    let origin = Hub::new(["--history-events", "50"]);
    let mut edge = Hub::edge(&origin, &["busy", "quiet"]);
    let start = origin.watch("/quiet").last_event_id;
    let quiet = origin.post("/quiet", "seldom");
    let busy: Vec<String> = (0..200).map(|n| origin.post("/busy", &n.to_string())).collect();
    edge.kill();
    edge.start();
    edge.is_healthy();
    let resume = |path: &str, id: &str, last: &str| {
        let mut client = Client::after(id);
        client.reads_until(&edge.at(path), last);
        (client.gaps(), client.data())
    };
    let numbers = |range: std::ops::Range<i32>| range.map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(resume("/busy", &busy[149], "199"), (0, numbers(150..200)), "held");
    assert_eq!(resume("/busy", &busy[180], "199"), (0, numbers(181..200)), "held");
    assert_eq!(resume("/busy", &busy[100], "199"), (1, numbers(150..200)), "evicted");
    assert_eq!(resume("/quiet", &start, "seldom"), (0, vec!["seldom".into()]), "nothing of the quiet channel is lost");
    let after = origin.post("/quiet", "after");
    for id in [&quiet, &busy[3]] {
        assert_eq!(resume("/quiet", id, "after"), (0, vec!["after".into()]), "nothing of the quiet channel is lost");
    }
    assert_eq!(resume("/quiet,busy", &quiet, "after").0, 1, "evicted from one of both");
    let mut live = edge.watch("/quiet");
    assert_eq!(live.last_event_id, after);
    origin.post("/quiet", "live");
    live.gets("data: live\n\n");
}

/// The time after which a forged ID must have led to a gap. An edge waits for five seconds, and looks every second.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_client_with_a_forged_id_gets_a_gap_soon_and_the_events_after_it() {
    let _watchdog = watchdog("forged IDs");
    let folder = Folder::new("edges_forged");
    for (origin, separator) in [(Hub::in_memory(), '-'), (Hub::with_file(&folder), '.')] {
        let edge = Hub::edge(&origin, &["a"]);
        let id = origin.post("/a", "before");
        let name = id.split(separator).next().unwrap();
        let (history, number) = id.rsplit_once('-').unwrap();
        let mut forged = vec![
            format!("{history}-{}", number.parse::<u64>().unwrap() + 1_000_000),
            format!("{history}-{}", u64::MAX - 1),
            format!("{history}-{}", u64::MAX),
            format!("{history}-99999999999999999999999"),
            format!("another{id}"),
            format!("{name}.7-1"),
            format!("{name}.18446744073709551615-1"),
            "a-1".into(),
            "-".into(),
            ".".into(),
            "garbage".into(),
            "x".repeat(1_000),
        ];
        forged.extend((separator == '-').then(|| format!("{history}.1-1")));
        let is_over = AtomicBool::new(false);
        thread::scope(|threads| {
            threads.spawn(|| {
                while !is_over.load(SeqCst) {
                    origin.post("/a", "live");
                    thread::sleep(Duration::from_millis(100));
                }
            });
            let hubs = [&edge, &origin].into_iter().flat_map(|hub| forged.iter().map(move |id| (hub, id)));
            let clients: Vec<_> = hubs
                .map(|(hub, id)| threads.spawn(move || (id, gets_a_gap_and_what_is_newer(&hub.at("/a"), id))))
                .collect();
            let clients: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
            is_over.store(true, SeqCst);
            let deaf: Vec<_> = clients.iter().filter(|(_, is_well)| !is_well).collect();
            assert!(deaf.is_empty(), "{deaf:?}");
        });
    }
}

/// Returns whether a client with this ID is sent a gap, and live events after it.
fn gets_a_gap_and_what_is_newer(url: &str, id: &str) -> bool {
    let has_gap = Cell::new(false);
    Client::after(id).read(url, SOON, |block| match block {
        Block::Event { .. } => has_gap.get(),
        Block::Gap { .. } => {
            has_gap.set(true);
            false
        }
        Block::Id(_) => false,
    })
}
