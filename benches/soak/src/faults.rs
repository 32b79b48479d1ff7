//! The faults that are injected, one at a time.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::child::Child;
use crate::samples::Sample;

/// The processes.
pub struct Parts {
    pub origin: Child,
    pub edge: Child,
    pub clients: Child,
}

impl Parts {
    pub fn all(&mut self) -> [&mut Child; 3] {
        [&mut self.origin, &mut self.edge, &mut self.clients]
    }
}

/// How a fault ends.
enum Remedy {
    Resume(usize),
    Restore(usize, Option<u64>),
}

pub struct Faults {
    random: Rng,
    next: Instant,
    remedy: Option<Remedy>,
    counts: BTreeMap<String, u64>,
}

impl Faults {
    pub fn new(random: Rng) -> Self {
        Self { random, next: Instant::now() + Duration::from_secs(2), remedy: None, counts: BTreeMap::new() }
    }

    /// Returns how often each fault was injected.
    pub fn counts(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
        counts.join(", ")
    }

    /// Begins or ends a fault if it is time.
    pub fn step(&mut self, parts: &mut Parts) -> Result<(), Box<dyn Error>> {
        if Instant::now() < self.next {
            return Ok(());
        }
        let time = if self.remedy.is_some() {
            self.end(parts)?;
            self.random.u64(300..2_000)
        } else {
            self.begin(parts)?;
            self.random.u64(200..2_500)
        };
        self.next = Instant::now() + Duration::from_millis(time);
        Ok(())
    }

    /// Ends the current fault.
    pub fn end(&mut self, parts: &mut Parts) -> Result<(), Box<dyn Error>> {
        match self.remedy.take() {
            Some(Remedy::Resume(part)) => parts.all()[part].resume()?,
            Some(Remedy::Restore(part, limit)) => drop(parts.all()[part].limit_descriptors(limit)?),
            None => {}
        }
        Ok(())
    }

    fn begin(&mut self, parts: &mut Parts) -> Result<(), Box<dyn Error>> {
        let (what, part) = match self.random.u32(..8) {
            0 | 1 => ("stopped", self.random.usize(..3)),
            // tiny_http accepts no more connections once it had no descriptor, so the origin has enough.
            2 | 3 => ("without descriptors", self.random.usize(1..3)),
            4 => ("clock of", self.random.usize(..2)),
            5 => ("disconnect", self.random.usize(..2)),
            6 => ("unsubscribe", self.random.usize(..2)),
            _ => ("reset", 2),
        };
        let percent = self.random.u64(1..100);
        let child = &mut *parts.all()[part];
        *self.counts.entry(format!("{what} {}", child.name())).or_default() += 1;
        match what {
            "stopped" => {
                child.stop()?;
                self.remedy = Some(Remedy::Resume(part));
            }
            "without descriptors" => {
                let now = Sample::take(child.pid(), Duration::ZERO)?.descriptors as u64;
                let few = Some(now + self.random.u64(..8));
                let before = child.limit_descriptors(few)?;
                self.remedy = Some(Remedy::Restore(part, before));
            }
            "clock of" => child.send(&format!("clock {}", self.random.u64(1..90)))?,
            "reset" => child.send("reset")?,
            command => child.send(&format!("{command} {percent}"))?,
        }
        Ok(())
    }
}
