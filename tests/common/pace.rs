//! Times in tests. On a busy machine, any thread may stand still for a while.

use std::time::{Duration, Instant};

use super::PATIENCE;

/// How often something is tried that a busy machine can delay.
const ATTEMPTS: usize = 5;

/// Checks that one of several attempts takes less than this. A busy machine delays some of them, and a fault delays them
/// all.
#[track_caller]
pub fn is_soon(what: &str, limit: Duration, mut attempt: impl FnMut() -> Duration) {
    let mut times = Vec::new();
    while times.len() < ATTEMPTS {
        let time = attempt();
        println!("{what}: after {time:?}");
        if time < limit {
            return;
        }
        times.push(time);
    }
    panic!("{what}: not within {limit:?}, but after {times:?}");
}

/// Checks that at least half of these times are below the limit. A busy machine delays some, and a fault delays most.
#[track_caller]
pub fn are_mostly_below(what: &str, limit: Duration, mut times: Vec<Duration>) {
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: usually {median:?}, at most {longest:?}");
    assert!(median < limit, "{what}: usually {median:?}");
}

/// The pace of a thread that must not stand still for longer than a scenario allows.
pub struct Pace {
    last: Instant,
    longest: Duration,
}

impl Pace {
    pub fn start() -> Self {
        Self { last: Instant::now(), longest: Duration::ZERO }
    }

    /// Notes that the thread is here.
    pub fn step(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
    }

    /// Returns the longest time between two steps.
    pub fn longest(&self) -> Duration {
        self.longest
    }
}

/// Runs a scenario whose threads must not stand still for as long as this, and returns what it has seen.
///
/// The scenario returns the longest time that one of them stood still too. If that is half of the time or more, a busy
/// machine may be the reason for what was seen, so the scenario runs again with twice the time.
pub fn keeping_pace<T>(mut time: Duration, mut scenario: impl FnMut(Duration) -> (T, Duration)) -> T {
    loop {
        let (seen, longest) = scenario(time);
        if longest < time / 2 || time > PATIENCE {
            return seen;
        }
        println!("a thread of the test stood still for {longest:?}, which shows nothing about {time:?}");
        time *= 2;
    }
}
