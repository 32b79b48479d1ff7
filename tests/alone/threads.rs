//! The number of threads: none before the first background write, then few, one more per blocked writer, none at the
//! end.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::process::{alone, threads};
use crate::common::writers::Gate;
use crate::common::{Watchdog, eventually};
use server_sent_events::{BackgroundOptions, Publisher};

#[test]
fn threads_come_and_go_with_the_streams() {
    let _alone = alone();
    let _watchdog = Watchdog::new("threads that come and go", Duration::from_secs(60));
    let processors = thread::available_parallelism().unwrap().get();
    let none = || threads("sse ") == 0;

    let publisher = Publisher::new();
    let subscription = publisher.subscribe().unwrap();
    publisher.publish("x");
    assert!(none(), "a thread before the first background write");

    // A thousand streams share a few threads.
    subscription.write_in_background(io::sink()).unwrap();
    for _ in 0..1_000 {
        publisher.subscribe().unwrap().write_in_background(io::sink()).unwrap();
    }
    for _ in 0..100 {
        publisher.publish("x");
    }
    assert!(threads("sse writer") <= processors + 1, "{} threads", threads("sse writer"));

    // One more for each blocked writer, so that the others go on.
    let gate = Gate::default();
    for _ in 0..20 {
        let subscription = publisher.subscription(()).initial_data(["x"]).open().unwrap();
        subscription.write_in_background(gate.clone()).unwrap();
    }
    let healthy = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&healthy);
    publisher.subscribe().unwrap().write_in_background(Counts(counted)).unwrap();
    eventually("a healthy stream gets its events behind 20 blocked ones", || {
        publisher.publish("x");
        *healthy.lock().unwrap() > 20
    });
    assert!(threads("sse writer") > 20, "{} threads", threads("sse writer"));
    gate.open();
    eventually("the surplus threads end", || threads("sse writer") <= processors);

    // A sleeping supervisor is woken when every thread becomes blocked.
    let quiet = Publisher::builder().heartbeat(None).build().unwrap();
    let gate = Gate::default();
    for _ in 0..processors {
        quiet.subscribe_to("blocked").unwrap().write_in_background(gate.clone()).unwrap();
    }
    let healthy = Arc::new(Mutex::new(0));
    quiet.subscribe().unwrap().write_in_background(Counts(Arc::clone(&healthy))).unwrap();
    // Ten rounds, after which an idle supervisor would sleep.
    thread::sleep(Duration::from_millis(100));
    quiet.publish_to("blocked", "x");
    quiet.publish("x");
    eventually("a healthy stream gets its event", || *healthy.lock().unwrap() == 1);
    gate.open();
    drop(quiet);

    // All end once the last handle is dropped and the streams have ended.
    let blocked = Gate::default();
    let subscription = publisher.subscription(()).initial_data(["x"]).open().unwrap();
    subscription.write_in_background(blocked.clone()).unwrap();
    drop(publisher);
    assert!(threads("sse writer") >= 1, "a stream has not ended, and no thread is left to write it");
    blocked.open();
    eventually("no thread is left", none);

    // At the limit, the sockets that have been blocked the longest are shut down.
    let publisher = Publisher::builder().max_writer_threads(3).max_queued_events(1_000_000).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let clients: Vec<TcpStream> = (0..10)
        .map(|_| {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let subscription = publisher.subscription(()).initial_data(["x".repeat(20_000_000)]).open().unwrap();
            let options = BackgroundOptions::new().write_timeout(None);
            subscription.write_in_background_with_options(listener.accept().unwrap().0, options).unwrap();
            client
        })
        .collect();
    let healthy = Arc::new(Mutex::new(0));
    publisher.subscribe().unwrap().write_in_background(Counts(Arc::clone(&healthy))).unwrap();
    eventually("a healthy stream gets its events behind 10 blocked sockets, with 3 threads", || {
        publisher.publish("x");
        assert!(threads("sse writer") <= 3);
        *healthy.lock().unwrap() > 10
    });
    assert!(publisher.stats().ended.write_timed_out >= 1, "{:?}", publisher.stats());
    drop(clients);
    drop(publisher);
    eventually("no thread is left", none);
}

/// A writer that counts the writes.
struct Counts(Arc<Mutex<usize>>);

impl Write for Counts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        *self.0.lock().unwrap() += 1;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
