//! Measures what a store costs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use server_sent_events::store::{Sqlite, SyncPolicy};
use server_sent_events::{History, Publisher};

use crate::{middle_and_p99, publisher, timed};

const PATIENCE: Duration = Duration::from_secs(60);

/// A new folder below the build's target, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("store_{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Returns the size of everything in it.
    fn bytes(&self, name: &str) -> u64 {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(name));
        ours.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn data() -> String {
    "x".repeat(200)
}

/// Measures one publish at a pace of 1,000 per second, and the time until a reader has the event. Returns the medians
/// and the p99 of both.
fn paced(publisher: &Publisher) -> ((u64, u64), (u64, u64)) {
    let subscription = publisher.subscribe().expect("room");
    let start = Instant::now();
    let reader = thread::spawn(move || {
        let now = || start.elapsed().as_nanos() as u64;
        let stamps = subscription
            .filter_map(|frame| Some((frame.split_once("data: ")?.1.split_once(' ')?.0.parse::<u64>().ok()?, now())));
        stamps.take(3_000).map(|(sent, received)| received - sent).collect::<Vec<u64>>()
    });
    let mut times = Vec::new();
    for n in 0..3_000_u32 {
        let due = start + Duration::from_millis(1) * n;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let event = format!("{} {}", start.elapsed().as_nanos(), data());
        times.push(timed(|| drop(publisher.publish(event))));
    }
    (middle_and_p99(times), middle_and_p99(reader.join().expect("the reader")))
}

/// Returns how many events per second are stored and delivered, if all wait until there is room.
fn sustained(publisher: &Publisher) -> f64 {
    let (start, mut events) = (Instant::now(), 0_u32);
    while start.elapsed() < Duration::from_secs(3) {
        if publisher.publish(data()).is_refused() {
            thread::sleep(Duration::from_micros(200));
        } else {
            events += 1;
        }
    }
    publisher.flush(PATIENCE).expect("a store that works");
    f64::from(events) / start.elapsed().as_secs_f64()
}

pub fn measure() -> io::Result<()> {
    let folder = Folder::new()?;
    let with = |name: &str, sync| publisher(Some(History::new().store(Sqlite::at(folder.file(name)).sync(sync))));
    let every = SyncPolicy::Every(Duration::from_millis(50));

    eprintln!("... publish and delivery at 1,000 events per second");
    let (memory_publish, memory_delivery) = paced(&publisher(Some(History::new())));
    let (store_publish, store_delivery) = paced(&with("paced.db", every));
    eprintln!("... sustained");
    let [sustained_every, sustained_always] =
        [("every.db", every), ("always.db", SyncPolicy::Always)].map(|(name, sync)| sustained(&with(name, sync)));

    eprintln!("... start with 64 MiB");
    let full = || {
        let history = History::new().max_events_per_channel(usize::MAX).store(Sqlite::at(folder.file("full.db")));
        publisher(Some(history))
    };
    publish_all(&full(), 120_000);
    let begin = Instant::now();
    let restarted = full();
    let (started, history) = (begin.elapsed(), restarted.stats().history);
    drop(restarted);
    eprintln!("... 1,000,000 events through a history of 1,000");
    let history_of_1_000 = History::new().max_events_per_channel(1_000).store(Sqlite::at(folder.file("small.db")));
    let small = publisher(Some(history_of_1_000));
    publish_all(&small, 1_000_000);
    let open_bytes = folder.bytes("small.db");
    drop(small);
    let closed_bytes = folder.bytes("small.db");

    let us = |ns: u64| ns as f64 / 1e3;
    let allowed = us(memory_publish.0) * 1.5 + 3.0;
    println!("\n| what, in SQLite | median | p99 |\n|---|---:|---:|");
    println!(
        "| publish at 1,000 per second, in memory | {:.1} us | {:.1} us |",
        us(memory_publish.0),
        us(memory_publish.1)
    );
    println!(
        "| publish at 1,000 per second | {:.1} us ({allowed:.1}) | {:.1} us |",
        us(store_publish.0),
        us(store_publish.1)
    );
    println!(
        "| from publish to a reader, in memory | {:.0} us | {:.0} us |",
        us(memory_delivery.0),
        us(memory_delivery.1)
    );
    let added = |store: u64, memory: u64| us(store.saturating_sub(memory));
    println!(
        "| from publish to a reader | {:.0} us, {:.0} more (300) | {:.0} us, {:.0} more (2,000) |",
        us(store_delivery.0),
        added(store_delivery.0, memory_delivery.0),
        us(store_delivery.1),
        added(store_delivery.1, memory_delivery.1)
    );
    println!("\n| what, in SQLite | |\n|---|---:|");
    println!("| events per second, sync every 50 ms | {sustained_every:.0} |");
    println!("| events per second, sync always | {sustained_always:.0} |");
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    println!(
        "| start with {} events, {:.0} MiB | {:.2} s (0.5) |",
        history.events,
        mib(history.bytes as u64),
        started.as_secs_f64()
    );
    println!(
        "| files after 1,000,000 events through a history of 1,000, while open and closed | {:.1} and {:.1} MiB |",
        mib(open_bytes),
        mib(closed_bytes)
    );
    Ok(())
}

/// Publishes events, and waits while the store does not keep up.
fn publish_all(publisher: &Publisher, events: usize) {
    for _ in 0..events {
        while publisher.publish(data()).is_refused() {
            thread::sleep(Duration::from_micros(100));
        }
    }
    publisher.flush(PATIENCE).expect("a store that works");
}
