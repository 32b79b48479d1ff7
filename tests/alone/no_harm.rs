//! Checks that what a test does to a server disturbs none of its other streams, and leaves nothing behind.

use std::net::SocketAddr;

use crate::common::eventually;
use crate::common::process::{alone, held};
use crate::common::server::{opened, serve};
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

/// Runs `test` alone with a server of these settings. Checks that another stream of it goes on, and that nothing is
/// left.
#[track_caller]
pub fn does_no_harm<T>(settings: EventServerBuilder, test: impl FnOnce(SocketAddr, &Publisher) -> T) -> T {
    let _alone = alone();
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
