//! What a publisher logs of its Redis. A process has one logger, so this test has one of its own.

use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record};
use real_parts::common::{PATIENCE, eventually};
use real_parts::redis::Redis as Server;
use server_sent_events::store::{Redis, StoreState};
use server_sent_events::{DEFAULT_CHANNEL, History, Publisher};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps the lines about the store.
struct Keeps;

impl Log for Keeps {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        let text = record.args().to_string();
        if text.contains("the shared store") {
            LINES.lock().unwrap().push(format!("{}: {text}", record.level()));
        }
    }

    fn flush(&self) {}
}

#[track_caller]
fn logs(line: &str, lines: usize) {
    eventually(line, || LINES.lock().unwrap().last().is_some_and(|last| last.contains(line)));
    assert_eq!(LINES.lock().unwrap().len(), lines, "{:?}", LINES.lock().unwrap());
}

#[test]
fn each_time_that_redis_is_away_and_back_is_one_line() {
    log::set_logger(&Keeps).unwrap();
    log::set_max_level(LevelFilter::Debug);
    let mut server = Server::durable();
    let history = History::new().store(Redis::at(server.url()));
    let publisher = Publisher::builder().history(history).build().unwrap();
    publisher.publish_confirmed(DEFAULT_CHANNEL, "x", PATIENCE).unwrap();
    assert!(LINES.lock().unwrap().is_empty(), "nothing is unusual");
    for lines in [1, 3] {
        server.kill();
        logs("WARN: the shared store is away: ", lines);
        // It has tried again.
        eventually("no connection is possible", || match publisher.store_state() {
            Some(StoreState::Away { reason, .. }) => reason.contains("refused"),
            _ => false,
        });
        server.run();
        publisher.publish_confirmed(DEFAULT_CHANNEL, "x", PATIENCE).unwrap();
        logs("INFO: the shared store is back", lines + 1);
    }
    // The connection works, and events are refused.
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    publisher.publish("x");
    logs("memory", 5);
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    logs("INFO: the shared store is back", 6);
}
