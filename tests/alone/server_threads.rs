//! EventServer's threads: what the application's code can do to them, and what they skip for clients that have gone.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::eventually;
use crate::common::http::{Client, FIRST_CHUNK, GET};
use crate::common::process::{held, is_back_at};
use crate::common::server::{opened, response_to, send, serve};
use crate::own_process::own_process;
use server_sent_events::server::{EventServer, Request, Response, RunningServer};
use server_sent_events::{EndCause, Publisher};

/// A gate that opens at the latest when the test ends, so that no thread waits forever.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn open(&self) {
        self.0.store(true, SeqCst);
    }

    fn wait(&self) {
        while !self.0.load(SeqCst) {
            thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// Opens a gate when it is dropped, even if a test fails.
struct OpensAtEnd(Gate);

impl Drop for OpensAtEnd {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Properties whose `Drop` panics.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        panic!("as it should");
    }
}

/// Starts a server whose streams have such properties. Its hook takes a while, so that the last reference is dropped
/// after it.
fn fragile_streams(publisher: &Publisher<Fragile>) -> RunningServer {
    let streams = publisher.clone();
    let open = move |_: &_| streams.subscription(Fragile).open();
    EventServer::bind("127.0.0.1:0").unwrap().spawn(open).unwrap()
}

#[test]
fn properties_that_panic_when_they_are_dropped_end_no_server() {
    own_process!();
    let ends = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&ends);
    let publisher = Publisher::builder_for::<Fragile>().on_end(move |_| {
        thread::sleep(Duration::from_millis(20));
        counts.fetch_add(1, SeqCst);
    });
    let publisher = publisher.build().unwrap();
    let server = fragile_streams(&publisher);
    for round in 1..=3 {
        let client = opened(server.local_addr());
        if round % 2 == 0 {
            client.resets()
        } else {
            drop(client)
        }
        eventually("the hook was called", || ends.load(SeqCst) == round);
    }
    assert!(server.is_running());
    drop(opened(server.local_addr()));
    server.stop().unwrap();
}

#[test]
fn properties_that_panic_when_they_are_dropped_make_no_publish_panic() {
    own_process!();
    let (ends, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counts, others) = (Arc::clone(&ends), Arc::clone(&dropped));
    let publisher = Publisher::builder_for::<Fragile>().max_queued_events(1).on_end(move |_| {
        // So that the last reference is dropped after this hook.
        eventually("no subscription is left", || others.load(SeqCst) == 4);
        counts.fetch_add(1, SeqCst);
    });
    let publisher = publisher.build().unwrap();
    thread::scope(|threads| {
        for _ in 0..4 {
            let subscription = publisher.subscription(Fragile).open().unwrap();
            let (publisher, dropped) = (&publisher, &dropped);
            threads.spawn(move || {
                eventually("all have ended", || publisher.stats().ended.queue_full == 4);
                drop(subscription);
                dropped.fetch_add(1, SeqCst);
            });
        }
        publisher.publish("one");
        publisher.publish("two");
    });
    assert_eq!(ends.load(SeqCst), 4);
}

/// Properties that record on which thread they are dropped.
struct Notes(Arc<Mutex<Vec<String>>>);

impl Drop for Notes {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(thread::current().name().unwrap_or_default().to_owned());
    }
}

#[test]
fn neither_the_event_loop_nor_the_supervisor_drops_the_properties_of_a_subscriber() {
    own_process!();
    let dropped = Arc::new(Mutex::new(Vec::new()));
    // Streams that are parked, with a heartbeat that the supervisor watches.
    let publisher = Publisher::builder_for::<Notes>().heartbeat(Duration::from_millis(1)).build().unwrap();
    let (streams, notes) = (publisher.clone(), Arc::clone(&dropped));
    let server = EventServer::builder().send_buffer_size(4_096).bind("127.0.0.1:0").unwrap();
    let server = server.spawn(move |_: &Request| streams.subscription(Notes(Arc::clone(&notes))).open()).unwrap();
    const ROUNDS: usize = 50;
    for round in 0..ROUNDS {
        let client = crate::common::server::stalled(server.local_addr());
        eventually("it is subscribed", || publisher.stats().subscribers == 1);
        match round % 3 {
            0 => drop(client),
            1 => {
                // More than the kernel buffers: the stream is parked.
                publisher.publish("x".repeat(1 << 20));
                publisher.disconnect_if(|_| true);
            }
            _ => {
                publisher.publish("a");
                publisher.disconnect_if(|_| true);
            }
        }
        eventually("it has gone", || publisher.stats().subscribers == 0);
    }
    server.stop().unwrap();
    drop(publisher);
    eventually("all are dropped", || dropped.lock().unwrap().len() == ROUNDS);
    let wrong: Vec<String> =
        dropped.lock().unwrap().iter().filter(|name| WATCHERS.contains(&&***name)).cloned().collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

const WATCHERS: [&str; 2] = ["sse event loop", "sse supervisor"];

#[test]
fn a_hook_that_blocks_stalls_no_connection() {
    own_process!();
    let (gate, called) = (Gate::default(), Arc::new(AtomicBool::new(false)));
    let (waits, calls) = (gate.clone(), Arc::clone(&called));
    let publisher = Publisher::builder().on_end(move |_| {
        calls.store(true, SeqCst);
        waits.wait();
    });
    let publisher = publisher.build().unwrap();
    let server = serve(EventServer::builder(), &publisher);
    let _opens = OpensAtEnd(gate);
    let mut healthy = opened(server.local_addr());
    drop(opened(server.local_addr()));
    eventually("the hook blocks", || called.load(SeqCst));
    opened(server.local_addr());
    assert_eq!(response_to(server.local_addr(), "garbage\r\n\r\n").status, 400);
    publisher.publish("hello");
    healthy.reads("0000000d\r\ndata: hello\n\n\r\n");
}

#[test]
fn timeouts_of_any_length_are_accepted() {
    own_process!();
    let publisher = Publisher::new();
    let settings = EventServer::builder().header_read_timeout(Duration::MAX).write_timeout(Duration::MAX);
    let server = serve(settings, &publisher);
    let mut client = opened(server.local_addr());
    assert_eq!(response_to(server.local_addr(), "garbage\r\n\r\n").status, 400);
    // The event loop goes to sleep, and must be woken.
    thread::sleep(Duration::from_millis(50));
    publisher.publish("hello");
    client.reads("0000000d\r\ndata: hello\n\n\r\n");
    assert!(server.is_running());
    drop(client);
    server.stop().unwrap();
}

#[test]
fn join_waits_for_the_stop() {
    own_process!();
    let server = serve(EventServer::builder(), &Publisher::new());
    let (address, stop_handle, is_stopped) = (server.local_addr(), server.stop_handle(), AtomicBool::new(false));
    assert!(server.is_running());
    thread::scope(|threads| {
        let joins = threads.spawn(|| {
            server.join().unwrap();
            assert!(is_stopped.load(SeqCst));
        });
        assert_eq!(response_to(address, "garbage\r\n\r\n").status, 400);
        is_stopped.store(true, SeqCst);
        stop_handle.stop();
        joins.join().unwrap();
    });
}

#[test]
fn a_server_that_was_stopped_is_not_running() {
    own_process!();
    let server = serve(EventServer::builder(), &Publisher::new());
    server.stop_handle().stop();
    eventually("it has ended", || !server.is_running());
    server.join().unwrap();
}

/// Starts a server whose four handler threads all wait for the gate, and a client for each. Returns the number of calls
/// too.
fn busy_server(gate: &Gate, publisher: &Publisher) -> (RunningServer, Vec<Client>, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let (counts, waits, streams) = (Arc::clone(&calls), gate.clone(), publisher.clone());
    let handler = move |_: &_| -> Response {
        counts.fetch_add(1, SeqCst);
        waits.wait();
        streams.subscribe().into()
    };
    let server = EventServer::builder().max_streams(5).bind("127.0.0.1:0").unwrap().spawn(handler).unwrap();
    let clients = (0..4).map(|_| send(server.local_addr(), GET)).collect();
    eventually("all handler threads are busy", || calls.load(SeqCst) == 4);
    (server, clients, calls)
}

#[test]
fn the_handler_is_not_called_for_clients_that_have_gone() {
    own_process!();
    let (gate, publisher) = (Gate::default(), Publisher::new());
    let (server, mut clients, calls) = busy_server(&gate, &publisher);
    let _opens = OpensAtEnd(gate.clone());
    // The event loop, the handlers, and the thread that ends streams: each has its name only once it runs.
    eventually("all threads of the server run", || held().0 == 1 + 4 + 1);
    let before = held();
    for round in 0..10 {
        let mut gone = send(server.local_addr(), GET);
        // The event loop has queued its request once it answers this one.
        assert_eq!(response_to(server.local_addr(), "garbage\r\n\r\n").status, 400, "round {round}");
        match round % 3 {
            0 => drop(gone),
            1 => gone.resets(),
            _ => {
                gone.shuts_down_writing();
                gone.reads_all_there_is();
                drop(gone);
            }
        }
        eventually("its descriptor is free", || is_back_at(before));
    }
    clients.push(send(server.local_addr(), GET));
    gate.open();
    for client in &mut clients {
        client.reads_until(FIRST_CHUNK);
    }
    assert_eq!((calls.load(SeqCst), publisher.stats().subscribers), (5, 5));
}

#[test]
fn a_stream_opened_for_a_client_that_has_gone_meanwhile_ends_with_the_reason() {
    own_process!();
    let causes = Arc::new(Mutex::new(Vec::new()));
    let ends = Arc::clone(&causes);
    let publisher = Publisher::builder().on_end(move |ended| ends.lock().unwrap().push(ended.cause));
    let (gate, publisher) = (Gate::default(), publisher.build().unwrap());
    let (server, clients, _) = busy_server(&gate, &publisher);
    let _opens = OpensAtEnd(gate.clone());
    for client in clients {
        client.resets();
    }
    // The event loop has seen the resets once it answers this request.
    assert_eq!(response_to(server.local_addr(), "garbage\r\n\r\n").status, 400);
    // All places are free although the handlers are still busy.
    let mut others: Vec<Client> = (0..5).map(|_| send(server.local_addr(), GET)).collect();
    gate.open();
    for client in &mut others {
        client.reads_until(FIRST_CHUNK);
    }
    let lost = [EndCause::ConnectionLost(std::io::ErrorKind::ConnectionReset); 4];
    eventually("all have ended", || causes.lock().unwrap().len() == 4);
    assert_eq!(*causes.lock().unwrap(), lost);
}
