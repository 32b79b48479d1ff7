//! The process that starts the others, injects faults, samples and judges.

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::{Pid, Signal};

use crate::Settings;
use crate::child::Child;
use crate::faults::{Faults, Parts};
use crate::plot;
use crate::samples::{Sample, Samples};

/// How long the clients and the servers may take at the end, and how long everything but the faults may take.
const PATIENCE: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(50);

/// What was noticed.
struct Findings {
    faults: Vec<String>,
    /// The counts that the clients have printed last.
    counts: Vec<u64>,
}

pub fn run(settings: &Settings) -> Result<ExitCode, Box<dyn Error>> {
    let seed = settings.seed.unwrap_or_else(|| fastrand::u64(..));
    println!(
        "soak: {} s, {} clients, {} events per second, --seed {seed}",
        settings.seconds, settings.clients, settings.rate
    );
    let mut random = Rng::with_seed(seed);
    let mut parts = start(settings, &mut random)?;
    watch(&mut parts, Duration::from_secs(settings.seconds) + 3 * PATIENCE, seed);
    let mut findings = Findings { faults: Vec::new(), counts: vec![0; 9] };
    let mut samples = Vec::new();
    thread::sleep(Duration::from_secs(2));
    for part in parts.all() {
        samples.push(Samples::new(part.name(), part.pid())?);
    }
    parts.clients.send("start")?;
    let mut faults = Faults::new(random.fork());
    inject(Duration::from_secs(settings.seconds), &mut parts, &mut faults, &mut samples, &mut findings)?;
    let published = finish(&mut parts, &mut findings)?;
    let ends = wait_until_all_is_back(&mut parts, &samples)?;
    report(settings, &faults, &findings, published, &samples, &ends);
    fs::write(&settings.plot, plot::svg(&format!("soak, {} s, seed {seed}", settings.seconds), &samples))?;
    println!("plot: {}", settings.plot.display());
    let mut failures = findings.faults;
    for (samples, end) in samples.iter().zip(ends) {
        failures.extend(samples.check_memory().err());
        failures.extend(samples.check_end(end).err());
    }
    if findings.counts[7] > 0 {
        failures.push(format!("{} gaps were reported though nothing was missing", findings.counts[7]));
    }
    if findings.counts[0] < published {
        failures.push("hardly anything was delivered".into());
    }
    failures.iter().for_each(|failure| println!("FAILED: {failure}"));
    println!("{}, --seed {seed}", if failures.is_empty() { "nothing lost untold, nothing leaked" } else { "failed" });
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start(settings: &Settings, random: &mut Rng) -> Result<Parts, Box<dyn Error>> {
    let origin = Child::start("origin", &[settings.rate.to_string(), random.u64(..).to_string()])?;
    let urls = origin.wait_for("serves")?;
    let url = urls.split(' ').next().unwrap_or_default();
    let edge = Child::start("edge", &[format!("{url}/follow")])?;
    let urls = format!("{urls} {}", edge.wait_for("serves")?);
    let mut arguments = vec![settings.clients.to_string(), random.u64(..).to_string()];
    arguments.extend(urls.split(' ').map(str::to_owned));
    let clients = Child::start("clients", &arguments)?;
    clients.wait_for("ready")?;
    Ok(Parts { origin, edge, clients })
}

/// Kills everything after a time: a deadlock must not block.
fn watch(parts: &mut Parts, limit: Duration, seed: u64) {
    let pids: Vec<Pid> = parts.all().iter().map(|part| part.pid()).collect();
    thread::spawn(move || {
        thread::sleep(limit);
        println!("FAILED: the watchdog ends the soak after {limit:?}, --seed {seed}");
        for pid in pids {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::process::exit(1);
    });
}

fn inject(
    time: Duration,
    parts: &mut Parts,
    faults: &mut Faults,
    samples: &mut [Samples],
    findings: &mut Findings,
) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    // At most 4,000 samples, however long it takes.
    let pause = (time / 4_000).max(Duration::from_millis(250));
    let mut due = start;
    while start.elapsed() < time && findings.faults.len() < 20 {
        faults.step(parts)?;
        if Instant::now() >= due {
            due = Instant::now() + pause;
            for (part, samples) in parts.all().into_iter().zip(&mut *samples) {
                samples.all.push(Sample::take(part.pid(), start.elapsed())?);
            }
            parts.clients.send("counts")?;
        }
        findings.note(parts)?;
        thread::sleep(TICK);
    }
    faults.end(parts)
}

/// Lets each client receive the last event. Returns the number of events.
fn finish(parts: &mut Parts, findings: &mut Findings) -> Result<u64, Box<dyn Error>> {
    parts.origin.send("end")?;
    let published = parts.origin.wait_for("published")?.parse()?;
    parts.clients.send("end")?;
    let start = Instant::now();
    loop {
        parts.clients.send("left")?;
        parts.clients.send("counts")?;
        thread::sleep(TICK);
        let left = findings.note(parts)?;
        if left == Some(0) {
            return Ok(published);
        }
        if start.elapsed() > PATIENCE {
            findings.faults.push(format!("{left:?} clients have not received the last event after {PATIENCE:?}"));
            return Ok(published);
        }
    }
}

impl Findings {
    /// Takes what the processes have printed. Returns the number of clients that are left, if it was printed.
    fn note(&mut self, parts: &mut Parts) -> Result<Option<usize>, Box<dyn Error>> {
        let mut left = None;
        for part in parts.all() {
            for line in part.lines()? {
                match line.split_once(' ') {
                    Some(("counts", rest)) => {
                        self.counts = rest.split(' ').map(str::parse).collect::<Result<_, _>>()?
                    }
                    Some(("left", rest)) => left = Some(rest.parse()?),
                    Some(("fault", rest)) => self.faults.push(rest.to_owned()),
                    _ => println!("{}: {line}", part.name()),
                }
            }
        }
        Ok(left)
    }
}

/// Waits until each process holds no more than before the clients came. Returns what each holds then, or in the end.
fn wait_until_all_is_back(parts: &mut Parts, samples: &[Samples]) -> Result<Vec<Sample>, Box<dyn Error>> {
    let start = Instant::now();
    loop {
        let mut ends = Vec::new();
        for part in parts.all() {
            ends.push(Sample::take(part.pid(), start.elapsed())?);
        }
        let is_back = samples.iter().zip(&ends).all(|(samples, end)| samples.check_end(*end).is_ok());
        if is_back || start.elapsed() > PATIENCE {
            return Ok(ends);
        }
        thread::sleep(TICK);
    }
}

fn report(
    settings: &Settings,
    faults: &Faults,
    findings: &Findings,
    published: u64,
    samples: &[Samples],
    ends: &[Sample],
) {
    let [deliveries, connections, refused, hops, stalls, resets, gaps, false_gaps, allowed_gaps] = findings.counts[..]
    else {
        return;
    };
    println!(
        "{deliveries} deliveries of {published} events to {} clients; {connections} connections, {refused} refused, \
         {hops} hops, {stalls} stalls, {resets} resets; {gaps} gaps, {false_gaps} of them false, and {allowed_gaps} as an edge may cause them; {} faults",
        settings.clients,
        findings.faults.len(),
    );
    println!("faults: {}", faults.counts());
    for (samples, end) in samples.iter().zip(ends) {
        let Samples { name, before, .. } = samples;
        let [third, last] = samples.quarters();
        let most = |value: fn(&Sample) -> usize| samples.all.iter().map(value).max().unwrap_or_default();
        println!(
            "{name}: memory {third:.1} MiB in the third quarter, {last:.1} in the last; threads {} before, at most {}, \
             {} after; descriptors {} before, at most {}, {} after",
            before.threads,
            most(|sample| sample.threads),
            end.threads,
            before.descriptors,
            most(|sample| sample.descriptors),
            end.descriptors,
        );
    }
}
