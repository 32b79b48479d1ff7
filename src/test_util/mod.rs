//! Tools for the tests of programs that publish: clients in memory, and a clock that a test advances.
//!
//! They need no server and no socket. A tool that does not see what a test expects panics, with the line of the test.
//! The crate's cookbook (`docs/cookbook.md`) shows the tests of a small application.
//!
//! ```
//! use server_sent_events::Publisher;
//! use server_sent_events::test_util::TestClient;
//!
//! let publisher = Publisher::new();
//! let mut client = TestClient::new(publisher.subscribe_to("builds")?);
//! publisher.publish_to("builds", "all green");
//! assert_eq!(client.next_message().data, "all green");
//! client.assert_nothing();
//! # Ok::<(), server_sent_events::OpenError>(())
//! ```
//!
//! With the feature `server`, `server::Request::builder` makes the requests with which to test a handler.

mod client;
mod stalled;

use std::thread;
use std::time::{Duration, Instant};

use crate::publish::Publisher;

pub use crate::clock::TestClock;
pub use client::TestClient;
pub use stalled::{StalledClient, StalledWriter};

/// How long a tool waits for what a test expects.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the publisher has exactly this many subscribers.
///
/// A test that starts clients of a server calls it before it publishes, since a client is subscribed some time after it
/// has connected.
///
/// # Panics
///
/// Panics if the number is not reached within 20 seconds.
///
/// ```
/// use server_sent_events::{Publisher, test_util};
/// use std::thread;
///
/// let publisher = Publisher::new();
/// let page = publisher.clone();
/// let reader = thread::spawn(move || page.subscribe().unwrap().next());
/// test_util::wait_for_subscribers(&publisher, 1);
/// publisher.publish("hello");
/// assert_eq!(reader.join().unwrap().unwrap(), "data: hello\n\n");
/// ```
#[track_caller]
pub fn wait_for_subscribers<P: Send + Sync + 'static>(publisher: &Publisher<P>, subscribers: usize) {
    let start = Instant::now();
    loop {
        let current = publisher.stats().subscribers;
        if current == subscribers {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{current} subscribers instead of {subscribers} after {PATIENCE:?}");
        thread::sleep(TestClock::LOOK);
    }
}
