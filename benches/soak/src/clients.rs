//! The process of the clients, a thread for each.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::child;
use crate::client::{Client, Counts, Shared};

/// What is watched. Hardly anything comes to the last one.
const WATCHED: [&[&str]; 8] = [&["a"], &["a", "b"], &["b", "c"], &["d"], &["e"], &["f"], &["d", "g", "h"], &["h"]];

pub fn run(clients: usize, seed: u64, urls: &[String]) -> Result<(), Box<dyn Error>> {
    let shared = Arc::new(Shared {
        urls: urls.to_vec(),
        counts: Counts::default(),
        is_over: AtomicBool::new(false),
        resets: AtomicU64::new(0),
    });
    // The first connections start what is started once.
    visit_each(urls);
    println!("ready");
    let left = Arc::new(AtomicUsize::new(clients));
    child::obey(|command, _| {
        match command {
            "start" => start(&shared, clients, seed, &left),
            "reset" => drop(shared.resets.fetch_add(1, SeqCst)),
            "end" => {
                shared.is_over.store(true, SeqCst);
                shared.resets.fetch_add(1, SeqCst);
            }
            "counts" => println!("counts {}", counts(&shared.counts)),
            "left" => println!("left {}", left.load(SeqCst)),
            _ => return false,
        }
        true
    });
    Ok(())
}

fn visit_each(urls: &[String]) {
    let shared = Shared {
        urls: urls.to_vec(),
        counts: Counts::default(),
        is_over: AtomicBool::new(false),
        resets: AtomicU64::new(0),
    };
    thread::scope(|threads| {
        for seed in 0..60 {
            let mut client = Client::new(&shared, WATCHED[0], Rng::with_seed(seed));
            threads.spawn(move || client.visit_once(Duration::from_millis(500)));
        }
    });
}

fn start(shared: &Arc<Shared>, clients: usize, seed: u64, left: &Arc<AtomicUsize>) {
    let mut random = Rng::with_seed(seed);
    for number in 0..clients {
        let (shared, left, random) = (Arc::clone(shared), Arc::clone(left), random.fork());
        let channels = WATCHED[number % WATCHED.len()];
        thread::spawn(move || {
            if let Err(fault) = Client::new(&shared, channels, random).run() {
                println!("fault client {number} of {channels:?}: {fault}");
            }
            left.fetch_sub(1, SeqCst);
        });
    }
}

fn counts(counts: &Counts) -> String {
    let Counts { deliveries, connections, refused, hops, stalls, resets, gaps, false_gaps, allowed_gaps } = counts;
    let all = [deliveries, connections, refused, hops, stalls, resets, gaps, false_gaps, allowed_gaps];
    all.map(|count| count.load(Relaxed).to_string()).join(" ")
}
