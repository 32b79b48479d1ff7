//! The number of threads: none before the first background write, then few, one more per blocked writer, none at the
//! end.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::common::process::threads;
use crate::common::writers::Gate;
use crate::common::{Watchdog, eventually};
use crate::own_process::own_process;
use crate::stalled_clients::small_connection;
use server_sent_events::{BackgroundOptions, Publisher};

fn watchdog() -> Watchdog {
    Watchdog::new("threads that come and go")
}

fn processors() -> usize {
    thread::available_parallelism().unwrap().get()
}

/// Hands over a stream that is blocked in its first write until the gate opens.
fn blocks(publisher: &Publisher, gate: &Gate) {
    let subscription = publisher.subscription(()).initial_data(["x"]).open().unwrap();
    subscription.write_in_background(gate.clone()).unwrap();
}

#[test]
fn a_thousand_streams_share_a_few_threads() {
    own_process!();
    let _watchdog = watchdog();
    let publisher = Publisher::new();
    let subscription = publisher.subscribe().unwrap();
    publisher.publish("x");
    assert_eq!(threads("sse "), 0, "a thread before the first background write");
    subscription.write_in_background(io::sink()).unwrap();
    for _ in 0..1_000 {
        publisher.subscribe().unwrap().write_in_background(io::sink()).unwrap();
    }
    for _ in 0..100 {
        publisher.publish("x");
    }
    // On a busy machine, a thread that does not get to run looks like a blocked one, and another is added for a while.
    eventually("there are a few threads", || threads("sse writer") <= processors());
}

#[test]
fn each_blocked_writer_adds_a_thread_until_it_goes_on() {
    own_process!();
    let _watchdog = watchdog();
    let (publisher, gate) = (Publisher::new(), Gate::default());
    for _ in 0..20 {
        blocks(&publisher, &gate);
    }
    let healthy = Counts::of(&publisher);
    eventually("a healthy stream gets its events behind 20 blocked ones", || {
        publisher.publish("x");
        healthy.writes() > 20
    });
    eventually("each of them has a thread", || threads("sse writer") > 20);
    gate.open();
    eventually("the surplus threads end", || threads("sse writer") <= processors());
}

#[test]
fn a_sleeping_supervisor_is_woken_when_every_thread_becomes_blocked() {
    own_process!();
    let _watchdog = watchdog();
    let (publisher, gate) = (Publisher::builder().heartbeat(None).build().unwrap(), Gate::default());
    for _ in 0..processors() {
        publisher.subscribe_to("blocked").unwrap().write_in_background(gate.clone()).unwrap();
    }
    let healthy = Counts::of(&publisher);
    // Ten rounds, after which an idle supervisor would sleep.
    thread::sleep(Duration::from_millis(100));
    publisher.publish_to("blocked", "x");
    publisher.publish("x");
    eventually("a healthy stream gets its event", || healthy.writes() == 1);
    gate.open();
}

#[test]
fn all_threads_end_once_the_last_handle_is_dropped_and_the_streams_have_ended() {
    own_process!();
    let _watchdog = watchdog();
    let (publisher, gate) = (Publisher::new(), Gate::default());
    blocks(&publisher, &gate);
    eventually("the stream is blocked", || gate.has_begun());
    drop(publisher);
    assert!(threads("sse writer") >= 1, "a stream has not ended, and no thread is left to write it");
    gate.open();
    eventually("no thread is left", || threads("sse ") == 0);
}

#[test]
fn at_the_limit_of_threads_the_sockets_that_were_blocked_the_longest_are_shut_down() {
    own_process!();
    let _watchdog = watchdog();
    let publisher = Publisher::builder().max_writer_threads(3).max_queued_events(1_000_000).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let clients: Vec<TcpStream> = (0..10)
        .map(|_| {
            let (client, connection) = small_connection(&listener);
            // More than the kernel buffers.
            let subscription = publisher.subscription(()).initial_data(["x".repeat(1_000_000)]).open().unwrap();
            let options = BackgroundOptions::new().write_timeout(None);
            subscription.write_in_background_with_options(connection, options).unwrap();
            client
        })
        .collect();
    let healthy = Counts::of(&publisher);
    eventually("a healthy stream gets its events behind 10 blocked sockets, with 3 threads", || {
        publisher.publish("x");
        assert!(threads("sse writer") <= 3);
        healthy.writes() > 10
    });
    assert!(publisher.stats().ended.write_timed_out >= 1, "{:?}", publisher.stats());
    drop(clients);
    drop(publisher);
    eventually("no thread is left", || threads("sse ") == 0);
}

/// A writer that counts the writes.
#[derive(Clone, Default)]
struct Counts(Arc<AtomicUsize>);

impl Counts {
    /// Returns the writes of a new stream of this publisher.
    fn of(publisher: &Publisher) -> Self {
        let counts = Self::default();
        publisher.subscribe().unwrap().write_in_background(counts.clone()).unwrap();
        counts
    }

    fn writes(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Write for Counts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.fetch_add(1, SeqCst);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
