//! One-line helpers, so that each test reads as a row of a table.

#[cfg(feature = "tiny_http")]
pub mod blocked;
#[cfg(feature = "server")]
pub mod echo;
#[cfg(feature = "tiny_http")]
pub mod example;
#[cfg(feature = "client")]
pub mod foreign_server;
#[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server", feature = "client"))]
pub mod http;
#[cfg(all(feature = "tiny_http", feature = "server", feature = "client"))]
pub mod hub;
pub mod pace;
#[cfg(target_os = "linux")]
pub mod process;
#[cfg(feature = "server")]
pub mod server;
pub mod writers;

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use eventsource_stream::Eventsource;
use futures_util::StreamExt;
use server_sent_events::{EndCause, Publisher, Subscription, TryRecvError};

/// How long a condition may take before the test fails. A passing test never waits this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Returns a builder of a publisher whose subscribers have properties of this type.
pub fn publisher<P: Send + Sync + 'static>() -> Publisher<P> {
    Publisher::builder_for().build().unwrap()
}

/// Subscribes to these channels.
#[track_caller]
pub fn subscriber<const N: usize>(publisher: &Publisher, channels: [&str; N]) -> Subscription {
    publisher.subscribe_to(channels).unwrap()
}

/// Checks that this is the next frame, with no heartbeat before it.
#[track_caller]
pub fn gets(subscription: &mut Subscription, frame: &str) {
    assert_eq!(subscription.recv_timeout(PATIENCE).as_deref(), Ok(frame));
}

/// Checks that the next frame is an event with this data and nothing else.
#[track_caller]
pub fn gets_data(subscription: &mut Subscription, data: &str) {
    gets(subscription, &format!("data: {data}\n\n"));
}

/// Checks that the queue is empty.
#[track_caller]
pub fn gets_nothing(subscription: &mut Subscription) {
    assert_eq!(subscription.try_recv(), Err(TryRecvError::Empty));
}

/// Checks that the stream ends here, for this reason.
#[track_caller]
pub fn ends(subscription: &mut Subscription, cause: EndCause) {
    assert_eq!(subscription.next(), None);
    assert_eq!(subscription.end_cause(), Some(cause));
    assert_eq!(subscription.next(), None, "an ended stream continued");
}

/// Waits until the condition holds. Fails if it does not hold within a generous time.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let (start, mut pause) = (Instant::now(), Duration::from_micros(50));
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(pause);
        // Most conditions hold soon. The others must not occupy a processor.
        pause = (2 * pause).min(Duration::from_millis(1));
    }
}

/// Returns an address of the loopback whose port is free. The system gives this port to no client and to no server that
/// lets it choose, so nothing else takes it while the server of a test is away.
pub fn free_address() -> SocketAddr {
    let mut ports = std::iter::repeat_with(|| fastrand::u16(10_000..32_000));
    let port = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    ([127, 0, 0, 1], port.expect("a free port")).into()
}

/// Raises the limit on open files to what the system allows.
pub fn raise_open_files() {
    #[cfg(unix)]
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
}

/// Parses an event stream with an independent parser.
pub fn parsed(stream: &str) -> Vec<eventsource_stream::Event> {
    let bytes = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(stream.to_owned())]);
    futures_executor::block_on(bytes.eventsource().map(|event| event.expect("a broken event stream")).collect())
}

/// Aborts the process, and so the test, if it is not dropped in time: a deadlock must not block the suite.
pub struct Watchdog(#[allow(dead_code)] Sender<()>);

impl Watchdog {
    /// So long that a slow machine does not reach it.
    pub const LIMIT: Duration = Duration::from_secs(300);

    pub fn new(what: &str) -> Self {
        Self::with_limit(what, Self::LIMIT)
    }

    /// Creates one for a test that may take longer, or must not take as long.
    pub fn with_limit(what: &str, limit: Duration) -> Self {
        let (sender, receiver): (_, Receiver<()>) = channel();
        let what = what.to_owned();
        thread::spawn(move || {
            if receiver.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("watchdog: {what} took more than {limit:?}");
                std::process::abort();
            }
        });
        Self(sender)
    }
}

/// Returns the seed of a random test and prints it: a new one each time, or the one in `SEED`.
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("{test}: SEED={seed}");
    seed
}
