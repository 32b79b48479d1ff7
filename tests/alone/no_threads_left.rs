//! If a thread cannot be started, the caller gets an error or the publisher goes on; the process never aborts.
//! The test takes the address space away from its whole process.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{Watchdog, eventually};
use crate::own_process::own_process;
use rlimit::Resource;
use server_sent_events::Publisher;

/// Returns how many bytes of address space the process has.
fn address_space() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

/// The stack of a writer thread: far more than anything else needs, so that only a writer thread lacks the address
/// space.
const STACK: usize = 1 << 30;

/// Leaves too little for the stack of another writer thread.
fn no_more_threads() {
    let (_, hard) = Resource::AS.get().unwrap();
    Resource::AS.set(address_space() + STACK as u64 / 2, hard).unwrap();
}

fn threads_again() {
    let (_, hard) = Resource::AS.get().unwrap();
    Resource::AS.set(hard, hard).unwrap();
}

/// A writer that records its drop, and is blocked in a write as long as the test holds its gate.
struct Gate(Arc<()>);

impl io::Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        eventually("the gate is open", || Arc::strong_count(&self.0) <= 5);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_thread_that_cannot_be_started_is_an_error_or_survived() {
    own_process!();
    let _watchdog = Watchdog::new("no more threads");
    let publisher = Publisher::builder().writer_stack_size(STACK).build().unwrap();
    let dropped = Arc::new(());
    let subscription = publisher.subscribe().unwrap();

    no_more_threads();
    let refused = subscription.write_in_background(Gate(Arc::clone(&dropped)));
    threads_again();
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!((publisher.stats().subscribers, Arc::strong_count(&dropped)), (0, 1));

    // Once there are threads, the publisher works, and goes on if it cannot start another one.
    let open = || publisher.subscription(()).initial_data(["x"]).open().unwrap();
    open().write_in_background(io::sink()).unwrap();
    eventually("both are started", || publisher.stats().subscribers == 1);
    let gate = Arc::new(());
    let mut held: Vec<Arc<()>> = (0..10).map(|_| Arc::clone(&gate)).collect();
    no_more_threads();
    for _ in 0..4 {
        open().write_in_background(Gate(Arc::clone(&gate))).unwrap();
    }
    // Ten rounds of the supervisor, each of which needs one more thread.
    std::thread::sleep(Duration::from_millis(100));
    held.clear();
    publisher.close();
    eventually("all have ended though no thread could be added", || Arc::strong_count(&gate) == 1);
    threads_again();
}
