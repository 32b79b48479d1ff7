//! The driver for stable: it changes the inputs of a corpus at random, and counts the cases.

use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use fastrand::Rng;

/// How long a case may take.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_LEN: usize = 4_096;

/// The input of the current case.
static INPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static CASES: AtomicU64 = AtomicU64::new(0);

/// Runs a target: `PROGRAM SECONDS [SEED]`, `PROGRAM cases NUMBER [SEED]`, or `PROGRAM FILE` for one input.
pub fn run(name: &str, target: fn(&[u8])) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |n: usize| arguments.get(n).and_then(|text| text.parse::<u64>().ok());
    let is_counted = arguments.first().is_some_and(|word| word == "cases");
    let (seconds, cases, seed) = match number(0) {
        Some(seconds) => (seconds, u64::MAX, number(1)),
        None if is_counted => (u64::MAX, number(1).expect("usage: cases NUMBER [SEED]"), number(2)),
        None => {
            let file = arguments.first().expect("usage: SECONDS [SEED], cases NUMBER [SEED], or FILE");
            target(&fs::read(file).expect("the file of an input"));
            println!("{name}: {file} passes");
            return ExitCode::SUCCESS;
        }
    };
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{name}: seed {seed}");
    watch(name, seed);
    let (corpus, mut random, start) = (corpus(name), Rng::with_seed(seed), Instant::now());
    // The inputs of the corpus themselves come first.
    for case in 0..cases {
        let input = corpus.get(case as usize).cloned().unwrap_or_else(|| change(&corpus, &mut random));
        INPUT.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&input);
        if panic::catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            fail(name, seed, "the case panicked");
            return ExitCode::FAILURE;
        }
        CASES.store(case + 1, Relaxed);
        if case % 64 == 0 && start.elapsed().as_secs() >= seconds {
            break;
        }
    }
    let (cases, seconds) = (CASES.load(Relaxed), start.elapsed().as_secs_f64());
    println!("{name}: {cases} cases in {seconds:.0} s, from a corpus of {}, seed {seed}", corpus.len());
    ExitCode::SUCCESS
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("a corpus").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a file")).collect()
}

/// Returns an input of the corpus with some changes, or random bytes.
fn change(corpus: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    if corpus.is_empty() || random.u8(..16) == 0 {
        return (0..random.usize(..256)).map(|_| random.u8(..)).collect();
    }
    let mut input = corpus[random.usize(..corpus.len())].clone();
    for _ in 0..random.usize(..8) {
        let at = random.usize(..=input.len());
        let length = random.usize(..=(input.len() - at).min(32));
        match random.u8(..8) {
            0 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            1 if at < input.len() => input[at] = random.u8(..),
            2 => input.insert(at, random.u8(..)),
            3 => drop(input.drain(at..at + length)),
            4 => {
                let part = input[at..at + length].to_vec();
                input.splice(at..at, part);
            }
            5 => {
                let character = random.choice(*b"\r\n :;,-0x9").expect("there are some");
                input.insert(at, character);
            }
            6 => input.truncate(at),
            _ => {
                let other = &corpus[random.usize(..corpus.len())];
                let from = random.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input.truncate(MAX_LEN);
    input
}

/// Keeps the input, and shows where.
fn fail(name: &str, seed: u64, what: &str) {
    let input = INPUT.lock().unwrap_or_else(PoisonError::into_inner);
    let path = env::temp_dir().join(format!("fuzz-{name}-{seed}"));
    let is_kept = fs::File::create(&path).and_then(|mut file| file.write_all(&input)).is_ok();
    let path = if is_kept { path.display().to_string() } else { "nowhere".into() };
    println!("{name}: FAILED in case {}: {what}; seed {seed}", CASES.load(Relaxed));
    println!("{name}: the input is in {path}: {:?}", String::from_utf8_lossy(&input));
}

/// Ends the process if one case takes too long.
fn watch(name: &str, seed: u64) {
    let name = name.to_owned();
    thread::spawn(move || {
        loop {
            let before = CASES.load(Relaxed);
            thread::sleep(PATIENCE);
            if CASES.load(Relaxed) == before {
                fail(&name, seed, "the case does not end");
                std::process::exit(1);
            }
        }
    });
}
