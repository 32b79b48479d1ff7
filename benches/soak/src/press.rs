//! The threads that publish, each at its pace.
//!
//! An event's data is `CHANNEL:NUMBER:BEFORE:TIME ...|TEXT`: for each of its channels, the number of the event in it, and the
//! sequence and the time of the event before it there. So a client can judge by itself whether an event is missing.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use server_sent_events::Publisher;

use crate::CHANNELS;
use crate::oracle::{END, now, sequence};

const THREADS: u32 = 2;

/// What is published to: the places of channels, in their order.
const SETS: [&[usize]; 11] = [&[0], &[0], &[1], &[2], &[3], &[4], &[5], &[6], &[0, 1], &[2, 3, 4], &[4, 5]];
const QUIET: &[usize] = &[7];

/// The newest event of a channel.
#[derive(Default)]
struct Newest {
    number: u64,
    sequence: u64,
    time: u64,
}

pub struct Press {
    publisher: Publisher<u64>,
    /// Locked while an event is published to the channel, so that its numbers rise.
    newest: [Mutex<Newest>; CHANNELS.len()],
    published: AtomicU64,
    is_over: AtomicBool,
}

impl Press {
    pub fn new(publisher: Publisher<u64>) -> Self {
        Self { publisher, newest: Default::default(), published: AtomicU64::new(0), is_over: AtomicBool::new(false) }
    }

    pub fn published(&self) -> u64 {
        self.published.load(SeqCst)
    }

    /// Starts the threads.
    pub fn start(self: &Arc<Self>, rate: u32, seed: u64) {
        for number in 0..THREADS {
            let (press, random) = (Arc::clone(self), Rng::with_seed(seed ^ u64::from(number)));
            thread::spawn(move || press.publish_at_pace(Duration::from_secs(1) * THREADS / rate, random));
        }
    }

    /// Publishes an event to all channels again and again, which is the last one for a client.
    pub fn end(self: &Arc<Self>) {
        self.is_over.store(true, SeqCst);
        let press = Arc::clone(self);
        thread::spawn(move || {
            loop {
                press.publish(&Vec::from_iter(0..CHANNELS.len()), END);
                thread::sleep(Duration::from_millis(200));
            }
        });
    }

    fn publish_at_pace(&self, pause: Duration, mut random: Rng) {
        let mut due = Instant::now();
        while !self.is_over.load(SeqCst) {
            let length = match random.u32(..1_000) {
                0 => 300_000,
                1..10 => random.usize(16_000..64_000),
                _ => random.usize(50..400),
            };
            let set = if random.u32(..500) == 0 { QUIET } else { SETS[random.usize(..SETS.len())] };
            self.publish(set, &"x".repeat(length));
            // After a stop, the events that were due meanwhile are not published at once.
            due = (due + pause).max(Instant::now() - Duration::from_millis(500));
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    fn publish(&self, set: &[usize], text: &str) {
        let mut newest: Vec<MutexGuard<'_, Newest>> =
            set.iter().map(|place| self.newest[*place].lock().unwrap_or_else(PoisonError::into_inner)).collect();
        let mut data = String::new();
        for (place, newest) in set.iter().zip(&mut newest) {
            newest.number += 1;
            let _ = write!(data, "{}:{}:{}:{} ", CHANNELS[*place], newest.number, newest.sequence, newest.time);
        }
        data.pop();
        let data = format!("{data}|{text}");
        let receipt = self.publisher.publish_to(set.iter().map(|place| CHANNELS[*place]).collect::<Vec<_>>(), data);
        let sequence = sequence(receipt.id().expect("BUG: there is a history")).expect("BUG: it is an ID");
        for newest in &mut newest {
            (newest.sequence, newest.time) = (sequence, now());
        }
        self.published.fetch_add(1, SeqCst);
    }
}
