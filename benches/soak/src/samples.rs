//! Samples of a process: its resident memory, threads and descriptors.

use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

/// How much the memory may grow from the third to the last quarter: 2 MiB or a tenth, whichever is more. The allocator keeps
/// some of what was freed, so memory varies by as much without a leak.
const GROWTH: f64 = 2.0;
const GROWTH_PART: f64 = 0.1;

#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub time: Duration,
    /// In MiB.
    pub memory: f64,
    pub threads: usize,
    pub descriptors: usize,
}

impl Sample {
    pub fn take(pid: Pid, time: Duration) -> io::Result<Self> {
        let folder = format!("/proc/{}", pid.as_raw_nonzero());
        let pages = fs::read_to_string(format!("{folder}/statm"))?;
        let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
        let pages = pages.ok_or_else(|| io::Error::other("the kernel shows no memory"))?;
        Ok(Self {
            time,
            memory: pages * rustix::param::page_size() as f64 / 1024.0 / 1024.0,
            threads: fs::read_dir(format!("{folder}/task"))?.count(),
            descriptors: fs::read_dir(format!("{folder}/fd"))?.count(),
        })
    }
}

/// The samples of one process while faults are injected.
pub struct Samples {
    pub name: &'static str,
    pub all: Vec<Sample>,
    /// Before the clients come.
    pub before: Sample,
    /// How many threads may stay: those before, and of writer threads one per processor.
    pub may_stay: usize,
}

impl Samples {
    /// Begins with the sample before the clients come.
    pub fn new(name: &'static str, pid: Pid) -> io::Result<Self> {
        let before = Sample::take(pid, Duration::ZERO)?;
        let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()))?;
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        let writers = names.filter(|name| name.trim() == "sse writer").count();
        // Without a writer thread, there is no publisher.
        let processors = if writers > 0 { thread::available_parallelism()?.get() } else { 0 };
        let may_stay = before.threads - writers + writers.max(processors);
        Ok(Self { name, all: Vec::new(), before, may_stay })
    }

    /// Returns the median memory of the third and of the last quarter.
    pub fn quarters(&self) -> [f64; 2] {
        let quarter = self.all.len() / 4;
        [&self.all[2 * quarter..3 * quarter], &self.all[3 * quarter..]].map(|samples| {
            let mut memory: Vec<f64> = samples.iter().map(|sample| sample.memory).collect();
            memory.sort_by(f64::total_cmp);
            memory.get(memory.len() / 2).copied().unwrap_or_default()
        })
    }

    /// Fails if the memory grows in the second half, from its third to its last quarter.
    pub fn check_memory(&self) -> Result<(), String> {
        let [third, last] = self.quarters();
        if last <= third + GROWTH.max(GROWTH_PART * third) {
            return Ok(());
        }
        Err(format!(
            "the memory of the {} grows: {third:.1} MiB in the third quarter, {last:.1} in the last",
            self.name
        ))
    }

    /// Checks that neither threads nor descriptors are left when the clients have gone.
    pub fn check_end(&self, end: Sample) -> Result<(), String> {
        let Self { name, before, may_stay, .. } = self;
        if end.threads > *may_stay {
            return Err(format!("threads of the {name} are left: {} instead of {may_stay}", end.threads));
        }
        if end.descriptors > before.descriptors {
            let (before, now) = (before.descriptors, end.descriptors);
            return Err(format!("descriptors of the {name} are left: {before} before, {now} now"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(memory: impl Fn(usize) -> f64) -> Samples {
        let sample = |n| Sample { time: Duration::ZERO, memory: memory(n), threads: 5, descriptors: 9 };
        Samples { name: "origin", all: (0..400).map(sample).collect(), before: sample(0), may_stay: 6 }
    }

    #[test]
    fn memory_is_flat_if_it_stops_growing_in_the_first_half() {
        assert!(samples(|n| 10.0 + n.min(200) as f64).check_memory().is_ok());
        assert!(samples(|n| if n % 10 == 0 { 90.0 } else { 10.0 }).check_memory().is_ok(), "peaks are no growth");
        assert!(samples(|n| 10.0 + n as f64 / 10.0).check_memory().is_err());
    }

    #[test]
    fn a_thread_or_a_descriptor_that_is_left_is_noticed() {
        let samples = samples(|_| 10.0);
        assert!(samples.check_end(samples.before).is_ok());
        assert!(samples.check_end(Sample { threads: 7, ..samples.before }).is_err());
        assert!(samples.check_end(Sample { descriptors: 10, ..samples.before }).is_err());
    }
}
