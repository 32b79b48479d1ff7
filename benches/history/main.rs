//! Measures what a history costs: `cargo bench --features sqlite --bench history`. Ends by itself within a minute.
//! Without the feature `sqlite` it measures a history in memory only.

#[cfg(feature = "sqlite")]
mod store;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use server_sent_events::{History, Publisher};

/// Returns the median and the p99, in nanoseconds.
fn middle_and_p99(mut times: Vec<u64>) -> (u64, u64) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn timed(act: impl FnOnce()) -> u64 {
    let start = Instant::now();
    act();
    start.elapsed().as_nanos() as u64
}

fn publisher(history: Option<History>) -> Publisher {
    let builder = Publisher::builder().max_channels_per_subscriber(100).heartbeat(None);
    match history {
        Some(history) => builder.history(history).build().expect("settings that hold"),
        None => builder.build().expect("settings that hold"),
    }
}

/// Measures one publish to 1,000 subscribers, without a history and with one, in turn.
fn publish() -> (u64, u64) {
    let publishers = [None, Some(History::new())].map(publisher);
    let mut held = publishers
        .each_ref()
        .map(|publisher| (0..1_000).map(|_| publisher.subscribe().expect("room")).collect::<Vec<_>>());
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..2_000 {
        for which in 0..2 {
            let data = "x".repeat(200);
            times[which].push(timed(|| drop(publishers[which].publish(data))));
            for subscription in &mut held[which] {
                let _ = subscription.try_recv();
            }
        }
    }
    let [without, with] = times.map(|times| middle_and_p99(times).0);
    (without, with)
}

/// Measures the time from `open` to the first byte, with this many events to replay, in a history of 100 full channels.
fn resume(publisher: &Publisher, events: usize) -> (u64, u64) {
    let mut times = Vec::new();
    for _ in 0..500 {
        let id = publisher.last_event_id();
        for n in 0..events {
            publisher.publish_to("channel 7", n.to_string());
        }
        times.push(timed(|| {
            let builder = publisher.subscription(()).channels("channel 7").last_event_id(id);
            let mut subscription = builder.open().expect("room");
            subscription.try_recv().expect("a first frame");
        }));
    }
    middle_and_p99(times)
}

/// Measures one publish while other subscribers resume in 100 channels each, again and again, and while none does.
fn publish_during_resumes(publisher: &Publisher, resumes: bool) -> (u64, u64) {
    let over = AtomicBool::new(false);
    let channels: Vec<String> = (0..100).map(|n| format!("channel {n}")).collect();
    thread::scope(|threads| {
        if resumes {
            threads.spawn(|| {
                // The oldest ID: every retained event is newer.
                let id = publisher.last_event_id().map(|id| format!("{}-0", id.split('-').next().expect("an epoch")));
                for _ in 0..100 {
                    let builder = publisher.subscription(()).channels(&channels).last_event_id(id.clone());
                    let mut subscription = builder.open().expect("room");
                    // All of it: a replay is fetched batch by batch, as it is read.
                    while subscription.try_recv().is_ok() {}
                }
                over.store(true, SeqCst);
            });
        }
        let start = Instant::now();
        let mut times = Vec::new();
        while !over.load(SeqCst) && (resumes || start.elapsed() < Duration::from_secs(1)) {
            times.push(timed(|| drop(publisher.publish_to("channel 3", "x"))));
            thread::sleep(Duration::from_micros(200));
        }
        middle_and_p99(times)
    })
}

fn main() -> io::Result<()> {
    eprintln!("... publish");
    let (without, with) = publish();
    let full = publisher(Some(History::new()));
    eprintln!("... 100 full channels");
    for channel in 0..100 {
        for n in 0..2_000 {
            full.publish_to(format!("channel {channel}"), n.to_string());
        }
    }
    eprintln!("... resume");
    let (none, some) = (resume(&full, 0), resume(&full, 1_000));
    eprintln!("... publish during resumes");
    let (alone, during) = (publish_during_resumes(&full, false), publish_during_resumes(&full, true));
    let us = |ns: u64| ns as f64 / 1e3;
    let ratio = with as f64 / without as f64;
    println!("\n| what | median | p99 |\n|---|---:|---:|");
    println!("| publish to 1,000 subscribers, without a history | {:.1} us | |", us(without));
    println!("| publish to 1,000 subscribers, with one | {:.1} us, {ratio:.2} of it (1.3) | |", us(with));
    println!(
        "| resume with nothing to replay, of 200,000 retained events | {:.1} us | {:.1} us |",
        us(none.0),
        us(none.1)
    );
    println!("| resume with 1,000 events, to the first byte | {:.1} us (1,000) | {:.1} us |", us(some.0), us(some.1));
    println!("| publish to one channel | {:.1} us | {:.1} us |", us(alone.0), us(alone.1));
    println!(
        "| publish to one channel while 100 clients resume 100 channels each | {:.1} us | {:.1} us (1,000) |",
        us(during.0),
        us(during.1)
    );
    #[cfg(feature = "sqlite")]
    store::measure()?;
    Ok(())
}
