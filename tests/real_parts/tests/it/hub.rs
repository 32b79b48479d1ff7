//! hub in operation: after a restart its clients reconnect spread over time, and other programs read its statistics.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use real_parts::common::example::Example;
use real_parts::common::{eventually, free_address};
use real_parts::installed::{node, python, spawn};
use serde_json::Value;

/// Many clients in one process, killed when they are dropped.
struct Herd {
    process: Child,
    opened: Receiver<(usize, u64)>,
    /// The time at which each has last opened its stream, in ms since 1970.
    last: BTreeMap<usize, u64>,
}

impl Herd {
    fn start(url: &str, count: usize) -> Self {
        let mut process = spawn(node(include_str!("../../clients/herd.mjs")).arg(url).arg(count.to_string()));
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, opened) = channel();
        thread::spawn(move || {
            for line in output.lines() {
                let line = line.unwrap();
                let (number, time) = line.split_once(' ').unwrap();
                let _ = sender.send((number.parse().unwrap(), time.parse().unwrap()));
            }
        });
        Self { process, opened, last: BTreeMap::new() }
    }

    /// Returns which of them have opened their streams since then, and when.
    #[track_caller]
    fn opened_since(&mut self, time: u64) -> Vec<u64> {
        assert_eq!(self.process.try_wait().unwrap(), None, "the clients have ended: see their output above");
        self.last.extend(self.opened.try_iter());
        self.last.values().copied().filter(|last| *last >= time).collect()
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn watchers(hub: &Example) -> usize {
    let response = ureq::post(format!("{}/c", hub.url)).send("x").unwrap();
    response.headers()["x-watchers"].to_str().unwrap().parse().unwrap()
}

#[test]
fn after_a_restart_2000_clients_reconnect_spread_over_the_time_that_hub_gives_them() {
    const CLIENTS: usize = 2_000;
    /// The reconnection times that hub sends them, in ms: the earliest, and the spread.
    const EARLIEST: u64 = 1_000;
    const SPREAD: u64 = 10_000;
    let start = Instant::now();
    let address = free_address();
    let mut hub = Example::start_at("hub", address);
    let mut herd = Herd::start(&format!("{}/c", hub.url), CLIENTS);
    eventually("all are subscribed", || herd.opened_since(0).len() == CLIENTS);
    assert_eq!(watchers(&hub), CLIENTS);
    println!("all are subscribed after {:?}", start.elapsed());

    let signalled = now();
    assert!(Command::new("kill").args(["-TERM", &hub.process.id().to_string()]).status().unwrap().success());
    assert!(hub.process.wait().unwrap().success());
    let ended = now();
    let hub = Example::start_at("hub", address);
    println!("hub ended {} ms after the signal, and runs again after {} ms", ended - signalled, now() - signalled);
    let mut back = Vec::new();
    while back.len() < CLIENTS {
        let before = back.len();
        eventually("another one has reconnected", || {
            back = herd.opened_since(ended);
            back.len() > before
        });
    }
    let mut buckets = BTreeMap::from_iter((0..(EARLIEST + SPREAD) / 500).map(|n| (n, 0)));
    for time in &back {
        *buckets.entry((time - signalled) / 500).or_insert(0) += 1;
    }
    for (n, clients) in &buckets {
        println!("{:>5.1} s {clients:>5} {}", *n as f64 / 2.0, "#".repeat(clients / 4));
    }
    println!(
        "all have reconnected after {} ms; the test took {:?}",
        back.iter().max().unwrap() - signalled,
        start.elapsed()
    );
    assert!(buckets.values().all(|clients| *clients <= CLIENTS / 3), "{buckets:?}");
    // The timers of two programs: one rounds to a millisecond.
    assert!(back.iter().all(|time| time - signalled >= EARLIEST - 10), "{buckets:?}");
    assert_eq!(watchers(&hub), CLIENTS);
}

#[test]
fn the_parser_of_prometheus_accepts_the_statistics_of_hub() {
    let hub = Example::start("hub");
    let mut watcher = hub.events("/a\"b{},c");
    assert_eq!(ureq::post(format!("{}/a\"b{{}}", hub.url)).send("x").unwrap().status(), 204);
    while !watcher.next_frame().unwrap().starts_with("data: x\n") {}
    eventually("the delivery is counted", || {
        let mut statistics = ureq::get(format!("{}/stats", hub.url)).call().unwrap();
        statistics.body_mut().read_to_string().unwrap().contains("\nsse_delivered_events_total 1\n")
    });

    let output = spawn(python("statistics.py").arg(format!("{}/stats", hub.url))).wait_with_output().unwrap();
    assert!(output.status.success(), "see its output above; tests/run installs what it needs");
    let samples: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    let value = |name: &str, of_type: &str| {
        let found: Vec<&Value> = samples.iter().filter(|sample| sample["name"] == name).collect();
        assert!(found.iter().all(|sample| sample["type"] == of_type), "{found:?}");
        found.iter().map(|sample| sample["value"].as_f64().unwrap()).collect::<Vec<f64>>()
    };
    for (name, number) in [("subscribers", 1.0), ("channels", 2.0), ("history_events", 1.0), ("history_channels", 1.0)]
    {
        assert_eq!(value(&format!("sse_{name}"), "gauge"), [number], "{name}");
    }
    assert!(value("sse_history_bytes", "gauge")[0] > 1.0);
    for (name, number) in [("published", 1.0), ("queued", 1.0), ("delivered", 1.0), ("skipped", 0.0), ("dropped", 0.0)]
    {
        assert_eq!(value(&format!("sse_{name}_events_total"), "counter"), [number], "{name}");
    }
    assert_eq!(value("sse_refused_streams_total", "counter"), [0.0]);
    assert_eq!(value("sse_ended_streams_total", "counter"), [0.0; 9]);
    // No text of a client becomes a label.
    for sample in &samples {
        let labels: Vec<&String> = sample["labels"].as_object().unwrap().keys().collect();
        assert_eq!(labels, if sample["name"] == "sse_ended_streams_total" { vec!["cause"] } else { vec![] });
    }
}
