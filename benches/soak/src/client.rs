//! One client: it connects here and there, reads, stalls, leaves, and judges what it receives.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::connection::{Connection, Received};
use crate::oracle::{Kind, Oracle};

/// What the clients have done and received.
#[derive(Default)]
pub struct Counts {
    pub deliveries: AtomicU64,
    pub connections: AtomicU64,
    pub refused: AtomicU64,
    pub hops: AtomicU64,
    pub stalls: AtomicU64,
    pub resets: AtomicU64,
    pub gaps: AtomicU64,
    /// Gaps though nothing is missing, which no rule allows.
    pub false_gaps: AtomicU64,
    /// Those that a rule allows. An edge reports a gap to a client that has seen more, if it does not receive that soon.
    pub allowed_gaps: AtomicU64,
}

/// What the clients share.
pub struct Shared {
    /// Those of the origin, and that of the edge.
    pub urls: Vec<String>,
    pub counts: Counts,
    /// No more faults: each client reads up to the last event.
    pub is_over: AtomicBool,
    /// Raised to make all clients reset their connections.
    pub resets: AtomicU64,
}

/// An event is missing, or another fault of what was received.
pub type Fault = String;

pub struct Client<'a> {
    shared: &'a Shared,
    channels: &'static [&'static str],
    oracle: Oracle,
    random: Rng,
    last_event_id: String,
    url: usize,
    /// The place and the data of the last gap.
    gap: (usize, String),
}

impl<'a> Client<'a> {
    pub fn new(shared: &'a Shared, channels: &'static [&'static str], random: Rng) -> Self {
        Self {
            shared,
            channels,
            oracle: Oracle::new(channels),
            random,
            last_event_id: String::new(),
            url: 0,
            gap: (0, String::new()),
        }
    }

    /// Comes and goes until the end, and receives the last event.
    pub fn run(&mut self) -> Result<(), Fault> {
        while !self.shared.is_over.load(SeqCst) {
            let time = match self.random.u32(..10) {
                0..3 => self.random.u64(1..300),
                3..9 => self.random.u64(300..6_000),
                _ => self.random.u64(6_000..30_000),
            };
            self.visit(Duration::from_millis(time))?;
            let pause = match self.random.u32(..20) {
                0..16 => self.random.u64(..300),
                16..19 => self.random.u64(300..3_000),
                // So long that the history evicts something.
                _ => self.random.u64(8_000..25_000),
            };
            self.pause(Duration::from_millis(pause));
        }
        while !self.visit(Duration::from_secs(10))? {}
        Ok(())
    }

    /// Connects to one of the servers once.
    pub fn visit_once(&mut self, time: Duration) {
        // What a server answers is judged later.
        let _ = self.visit(time);
    }

    /// Waits, but not beyond the end.
    fn pause(&self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time && !self.shared.is_over.load(SeqCst) {
            thread::sleep((time.saturating_sub(start.elapsed())).min(Duration::from_millis(100)));
        }
    }

    /// Connects to one of the servers, and reads for a time. Returns whether the last event has arrived.
    fn visit(&mut self, time: Duration) -> Result<bool, Fault> {
        let counts = &self.shared.counts;
        let url = self.random.usize(..self.shared.urls.len());
        counts.hops.fetch_add(u64::from(url != self.url), Relaxed);
        self.url = url;
        // Of several channels, nobody could say in which one an event was dropped.
        let may_drop = self.channels.len() == 1 && self.random.bool();
        let target = format!("/{}{}", self.channels.join(","), if may_drop { "?drop" } else { "" });
        self.oracle.resume_after(&self.last_event_id)?;
        let connect = if self.random.bool() { Connection::plain } else { Connection::source };
        let Ok(mut connection) = connect(&self.shared.urls[url], &target, &self.last_event_id) else {
            counts.refused.fetch_add(1, Relaxed);
            self.pause(Duration::from_millis(50));
            return Ok(false);
        };
        counts.connections.fetch_add(1, Relaxed);
        let read = self.read(&mut connection, time, may_drop);
        self.last_event_id = connection.last_event_id().to_string();
        if self.random.u32(..4) == 0 {
            counts.resets.fetch_add(1, Relaxed);
            connection.reset();
        }
        read
    }

    fn note_false_gap(&self) {
        let (url, data) = &self.gap;
        let counts = &self.shared.counts;
        let is_of_edge = url + 1 == self.shared.urls.len();
        if is_of_edge { &counts.allowed_gaps } else { &counts.false_gaps }.fetch_add(1, Relaxed);
        println!("nothing is missing in {:?} for the gap {data} of {}", self.channels, self.shared.urls[*url]);
    }

    fn read(&mut self, connection: &mut Connection, time: Duration, may_drop: bool) -> Result<bool, Fault> {
        let (shared, start) = (self.shared, Instant::now());
        let resets = shared.resets.load(SeqCst);
        while start.elapsed() < time && shared.resets.load(SeqCst) == resets {
            let rest = time.saturating_sub(start.elapsed());
            match connection.receive(rest.clamp(Duration::from_millis(1), Duration::from_millis(500)))? {
                Received::Nothing => {}
                Received::End => break,
                Received::Message { message, is_new } => {
                    if is_new {
                        self.oracle.reconnected();
                    }
                    let kind = self.oracle.judge(&message, may_drop)?;
                    let count = if kind == Kind::Gap { &shared.counts.gaps } else { &shared.counts.deliveries };
                    count.fetch_add(1, Relaxed);
                    if kind == Kind::Gap {
                        self.gap = (self.url, message.data);
                    }
                    if self.oracle.take_false_gap() {
                        self.note_false_gap();
                    }
                    if kind == Kind::End {
                        return Ok(true);
                    }
                }
            }
            if !shared.is_over.load(SeqCst) && self.random.u32(..1_000) == 0 {
                shared.counts.stalls.fetch_add(1, Relaxed);
                let stall = self.random.u64(200..8_000);
                self.pause(Duration::from_millis(stall));
            }
        }
        Ok(false)
    }
}
