//! Handlers and closures that block delay no stream but their own.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::common::http::{Client, FIRST_CHUNK, HELLO_CHUNK, LAST_CHUNK};
use crate::common::server::{opened, send};
use crate::common::{PATIENCE, eventually};
use server_sent_events::{Event, Publisher};

#[test]
fn closures_that_block_hold_up_no_stream() {
    let publisher = Publisher::new();
    let (streams, open) = (publisher.clone(), Arc::new(AtomicBool::new(false)));
    let gate = Arc::clone(&open);
    let server = answers(move |request| {
        if request.path() == "/slow" {
            eventually("the gate is open", || gate.load(SeqCst));
        }
        streams.subscription(()).open().into()
    });
    let mut healthy = opened(server.local_addr());
    let mut slow: Vec<Client> = (0..8).map(|_| send(server.local_addr(), get("/slow"))).collect();
    for _ in 0..20 {
        publisher.publish("hello");
        healthy.reads(HELLO_CHUNK);
    }
    // A request that needs no handler is still answered.
    assert_eq!(response_to(server.local_addr(), "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 405);
    open.store(true, SeqCst);
    for client in &mut slow {
        client.reads_until(FIRST_CHUNK);
    }
}

#[test]
fn a_closure_that_blocks_for_one_stream_holds_up_no_other() {
    let publisher = Publisher::builder().heartbeat(None).build().unwrap();
    let streams = publisher.clone();
    let server =
        answers(move |request| streams.subscription(()).channels(request.path().trim_start_matches('/')).open().into());
    let watch = |path| {
        let mut client = send(server.local_addr(), get(path));
        client.reads_until(FIRST_CHUNK);
        client
    };
    let (mut slow, mut others) = (watch("/slow"), (0..40).map(|_| watch("/others")).collect::<Vec<_>>());
    for round in 0..20 {
        let (opens, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        // The slow one is the newest, so a thread that writes to the others comes upon it among them.
        publisher.publish_to("others", "hello");
        publisher.publish_with("slow", move |()| {
            gate.lock().unwrap().recv_timeout(2 * PATIENCE).ok()?;
            Some(Event::new(round.to_string()))
        });
        for client in &mut others {
            client.reads(HELLO_CHUNK);
        }
        opens.send(()).unwrap();
        slow.reads_until(&format!("data: {round}\n\n\r\n"));
    }
}

#[test]
fn a_lifetime_that_is_over_while_a_closure_blocks_ends_all_the_same() {
    let publisher = Publisher::builder().heartbeat(None).max_writer_threads(1).build().unwrap();
    let streams = publisher.clone();
    let lifetime = Duration::from_millis(100);
    let server = answers(move |request| match request.path() {
        "/mortal" => streams.subscription(()).channels("mortal").max_lifetime(lifetime).open().into(),
        _ => streams.subscription(()).channels("slow").open().into(),
    });
    let open = |path| {
        let mut client = send(server.local_addr(), get(path));
        client.reads_until(FIRST_CHUNK);
        client
    };
    let (_slow, mut mortal) = (open("/slow"), open("/mortal"));
    // The only thread learns of the end while it is in here, and gets no request afterwards.
    publisher.publish_with("slow", move |()| {
        thread::sleep(3 * lifetime);
        None
    });
    mortal.reads(LAST_CHUNK);
    assert_eq!(publisher.stats().ended.expired, 1);
}

#[test]
fn a_client_that_leaves_while_the_closure_looks_at_it_is_no_subscriber() {
    let publisher = Publisher::builder().heartbeat(None).build().unwrap();
    let (streams, open) = (publisher.clone(), Arc::new(AtomicBool::new(false)));
    let (asks, asked) = channel();
    let (gate, asks) = (Arc::clone(&open), Mutex::new(asks));
    let server = answers(move |_| {
        asks.lock().unwrap().send(()).unwrap();
        eventually("the gate is open", || gate.load(SeqCst));
        streams.subscription(()).open().into()
    });
    let ask = || {
        let client = send(server.local_addr(), GET);
        asked.recv().unwrap();
        client
    };
    drop(ask());
    ask().resets();
    let mut sends_more = ask();
    sends_more.send("x");
    open.store(true, SeqCst);
    eventually("all have come and gone", || publisher.stats().ended.connection_lost == 3);
    assert_eq!(publisher.stats().subscribers, 0);
    sends_more.reads_all_there_is();
}
