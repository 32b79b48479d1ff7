//! Models of the crate's code: a model checker runs its threads in many orders.
//!
//! loom runs every order with at most three preemptions, also of the memory accesses that the atomics' orderings allow.
//! shuttle runs random orders of larger models: those with a supervisor, timeouts, and several writer threads.

#[cfg(sse_loom)]
mod background;
#[cfg(sse_shuttle)]
mod pool;
#[cfg(sse_loom)]
mod reader;
#[cfg(sse_shuttle)]
mod room;
#[cfg(sse_loom)]
mod socket;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::sync::channel::{Receiver, Sender, bounded};
use crate::{BackgroundOptions, EndCause, Publisher, PublisherBuilder, Receipt, Subscription};

/// Runs a model in every order of its threads' steps with at most three preemptions, and prints how many there are.
#[cfg(sse_loom)]
fn explore(model: impl Fn() + Send + Sync + 'static) {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    let (executions, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = Some(3);
    explorer.max_branches = 100_000;
    let count = Arc::clone(&executions);
    explorer.check(move || {
        count.fetch_add(1, SeqCst);
        model();
    });
    report(&format!("all {} orders with at most 3 preemptions", executions.load(SeqCst)), start);
}

/// Runs a model in random orders of its threads' steps, and prints how many there were. In one half of them each step is
/// drawn; in the other the threads have random priorities, which change twice, so that a thread can fall far behind. A
/// failure prints what `SHUTTLE_RANDOM_SEED` repeats.
#[cfg(sse_shuttle)]
fn explore(model: impl Fn() + Send + Sync + 'static) {
    use shuttle::Runner;
    use shuttle::scheduler::{PctScheduler, RandomScheduler};

    let executions = std::env::var("MODEL_EXECUTIONS").map_or(10_000, |number| number.parse().unwrap());
    let start = Instant::now();
    let mut config = shuttle::Config::new();
    // It warns that it knows no order but SeqCst: loom knows the others.
    config.silence_warnings = true;
    config.max_steps = shuttle::MaxSteps::FailAfter(100_000);
    let model = Arc::new(model);
    let drawn = Arc::clone(&model);
    let drawn = Runner::new(RandomScheduler::new(executions / 2), config.clone()).run(move || drawn());
    let with_priorities = Runner::new(PctScheduler::new(3, executions / 2), config).run(move || model());
    report(&format!("{} random orders", drawn + with_priorities), start);
}

fn report(explored: &str, start: Instant) {
    let model = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{model}: {explored}, {:.1} s", start.elapsed().as_secs_f64());
}

/// The settings of a publisher whose streams need no time.
fn settings() -> PublisherBuilder {
    Publisher::builder().heartbeat(None).writer_stack_size(64 * 1024)
}

#[cfg(sse_loom)]
fn publisher() -> Publisher {
    settings().build().unwrap()
}

/// Publishes these events, and returns how many of them the only subscriber is to get.
fn publish(publisher: &Publisher, events: &[&str]) -> usize {
    events.iter().map(|event| publisher.publish(*event)).map(|receipt: Receipt| receipt.subscribers()).sum()
}

fn frames(events: &[&str]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

/// What a stream in the background has written, and how it has ended. No step of a model: only the test looks at it.
#[derive(Clone, Default)]
struct Written {
    text: Arc<Mutex<String>>,
    causes: Arc<Mutex<Vec<EndCause>>>,
}

/// A writer that is never blocked.
struct Recorder(Written);

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.text.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Asserts that the stream has ended once, and returns why.
    fn end_cause(&self) -> EndCause {
        let causes = self.causes.lock().unwrap();
        assert_eq!(causes.len(), 1, "ended {} times", causes.len());
        causes[0]
    }

    /// Returns a hook of a stream's end, and what receives a message when the hook is called.
    fn hook(&self) -> (impl FnOnce(EndCause) + Send + 'static, Receiver<()>) {
        let (ended, end): (Sender<()>, _) = bounded(1);
        let causes = Arc::clone(&self.causes);
        let hook = move |cause| {
            causes.lock().unwrap().push(cause);
            ended.send(()).unwrap();
        };
        (hook, end)
    }

    /// Writes the stream in the background. Returns what receives a message when the stream has ended.
    fn write(&self, subscription: Subscription, writer: impl Write + Send + 'static) -> Receiver<()> {
        let (hook, end) = self.hook();
        let options = BackgroundOptions::new().on_end(hook);
        subscription.write_in_background_with_options(writer, options).unwrap();
        end
    }
}
