//! The readers, and what they received.

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::plan::{Plan, Reads};
use fastrand::Rng;
use server_sent_events::{BackgroundOptions, EndCause, Subscription};

/// What a reader received.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Event(usize, usize, Option<String>),
    Gap(u64),
}

pub fn seen(stream: &str) -> Vec<Seen> {
    let frames = stream.split_terminator("\n\n").filter(|frame| frame.contains("data: "));
    frames
        .map(|frame| {
            let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name));
            let data = field("data: ").unwrap();
            if field("event: ") == Some("gap") {
                assert_eq!(field("id: "), None, "a gap that moves the client on");
                return Seen::Gap(data.strip_prefix("{\"lost\":").unwrap().strip_suffix("}").unwrap().parse().unwrap());
            }
            let mut words = data.split(' ').map(|word| word.parse().unwrap_or(0));
            Seen::Event(words.next().unwrap(), words.next().unwrap(), field("id: ").map(str::to_owned))
        })
        .collect()
}

/// Returns whether it rests now.
fn rests(rng: &mut Rng, time: Duration) {
    match rng.u32(..8) {
        _ if time.is_zero() => {}
        0 => thread::sleep(time),
        1..4 => thread::yield_now(),
        _ => {}
    }
}

/// A writer that is slow, splits some writes in two, and fails after this many, in the middle of one.
struct Slow {
    rng: Rng,
    rests: Duration,
    writes: usize,
    /// What was written since the last flush.
    written: Vec<u8>,
    /// What was flushed, and so is delivered.
    delivered: Arc<Mutex<Vec<u8>>>,
    failed: Arc<AtomicBool>,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.writes == 0 {
            self.failed.store(true, SeqCst);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        rests(&mut self.rng, self.rests);
        self.writes -= 1;
        let size = if self.rng.u32(..4) == 0 { bytes.len().div_ceil(2) } else { bytes.len() };
        self.written.extend_from_slice(&bytes[..size]);
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.delivered.lock().unwrap().append(&mut self.written);
        Ok(())
    }
}

/// Reads to the end. Returns what is known to be delivered, and why the stream ended.
pub fn reads(mut subscription: Subscription, plan: &Plan, mut rng: Rng, published: &AtomicBool) -> (String, EndCause) {
    let (delivered, failed) = (Arc::default(), Arc::default());
    let (handed_over, end) = channel();
    let options = BackgroundOptions::new().on_end(move |cause| handed_over.send(cause).unwrap());
    let mut writer = Slow {
        rng: rng.fork(),
        rests: plan.rests,
        writes: usize::MAX,
        written: Vec::new(),
        delivered: Arc::clone(&delivered),
        failed: Arc::clone(&failed),
    };
    let mut text = String::new();
    let cause = match plan.reads {
        Reads::Iterator | Reads::Late | Reads::Quits(_) => {
            let mut most = if let Reads::Quits(most) = plan.reads { most } else { usize::MAX };
            while plan.reads == Reads::Late && !published.load(SeqCst) {
                thread::yield_now();
            }
            while most > 0 {
                most -= 1;
                let Some(frame) = subscription.recv() else { break };
                text.push_str(&frame);
                rests(&mut rng, plan.rests);
            }
            subscription.end_cause().unwrap_or(EndCause::Dropped)
        }
        Reads::Reader => {
            let mut reader = subscription.into_reader();
            loop {
                let bytes = reader.fill_buf().unwrap();
                let size = bytes.len();
                if size == 0 {
                    break reader.get_ref().end_cause().unwrap();
                }
                text.push_str(std::str::from_utf8(bytes).unwrap());
                reader.consume(size);
                rests(&mut rng, plan.rests);
            }
        }
        Reads::WriteTo => subscription.write_to(writer).unwrap(),
        Reads::WriteToFails(writes) => {
            writer.writes = writes;
            subscription.write_to(writer).unwrap_or_else(|error| EndCause::ConnectionLost(error.kind()))
        }
        Reads::HandOver => {
            subscription.write_in_background_with_options(writer, options).unwrap();
            end.recv().unwrap()
        }
        Reads::HandOverFails(writes) => {
            writer.writes = writes;
            subscription.write_in_background_with_options(writer, options).unwrap();
            let cause = end.recv().unwrap();
            // It may fail when the stream is already closed; the cause stays then, but not everything is written.
            if failed.load(SeqCst) { EndCause::ConnectionLost(io::ErrorKind::BrokenPipe) } else { cause }
        }
    };
    text.push_str(std::str::from_utf8(&delivered.lock().unwrap()).unwrap());
    (text, cause)
}
