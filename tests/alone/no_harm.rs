//! Checks that what a test does to a server disturbs none of its other streams, and leaves nothing behind.

use std::net::SocketAddr;

use crate::common::echo::{Echo, get, responds};
use crate::common::eventually;
use crate::common::process::{held, is_back_at};
use crate::common::server::{opened, serve};
use crate::own_process::is_alone;
use server_sent_events::Publisher;
use server_sent_events::server::EventServerBuilder;

/// Returns a publisher whose queues have room for everything the tests publish.
pub fn patient() -> Publisher {
    let publisher = Publisher::builder().heartbeat(None).max_queued_events(1_000_000).max_queued_bytes(1 << 30);
    publisher.build().unwrap()
}

/// Returns the maximum number of this crate's threads: the event loop, the handlers, the thread that ends streams, the
/// supervisor, and a writer thread per processor. There may be fewer at first, since a thread has its name only once it
/// runs.
pub fn threads_without_blocked_writes() -> usize {
    1 + 4 + 1 + 1 + std::thread::available_parallelism().unwrap().get()
}

/// Checks that blocked writes occupy no thread. On a busy machine, a thread that does not get to run looks like one in a
/// blocked write, and another is added for a while.
#[track_caller]
pub fn has_few_threads() {
    eventually("no thread is blocked", || held().0 <= threads_without_blocked_writes());
}

/// Runs `test` with a server of these settings. Checks that another stream of it goes on, and that nothing is
/// left.
#[track_caller]
pub fn does_no_harm<T>(settings: EventServerBuilder, test: impl FnOnce(SocketAddr, &Publisher) -> T) -> T {
    assert!(is_alone(), "the test lacks `own_process!`");
    let none = held().1;
    let publisher = patient();
    let server = serve(settings, &publisher);
    let mut healthy = opened(server.local_addr());
    let before = held().1;
    let result = test(server.local_addr(), &publisher);
    eventually("no other stream is left", || publisher.stats().subscribers == 1);
    eventually("threads and descriptors are where they were", || {
        let now = held();
        now.0 <= threads_without_blocked_writes() && now.1 <= before
    });
    publisher.publish("still here");
    healthy.reads_until("data: still here\n\n\r\n");
    drop((healthy, publisher));
    server.stop().unwrap();
    eventually("no thread and no descriptor is left", || held().0 == 0 && held().1 <= none);
    result
}

/// Runs `test` with an echo of these settings. Checks that it leaves no thread, no descriptor and no subscriber behind, and
/// that the server still answers.
#[track_caller]
pub fn leaves_nothing<T>(settings: EventServerBuilder, test: impl FnOnce(&Echo) -> T) -> T {
    assert!(is_alone(), "the test lacks `own_process!`");
    let before = held();
    let server = Echo::serve(settings);
    let descriptors = held().1;
    let result = test(&server);
    eventually("threads and descriptors are where they were", || {
        held().0 <= threads_without_blocked_writes() && held().1 <= descriptors
    });
    eventually("no stream is left", || server.publisher.stats().subscribers == 0);
    responds(&mut server.send(get("/alive")), 200, "");
    drop(server);
    eventually("the server has left nothing behind", || is_back_at(before));
    result
}
