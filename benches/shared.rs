//! Measures publishers that share a history in Redis: `cargo bench --features redis --bench shared`.
//!
//! Starts `redis-server` on a free port, without persistence, with its folder below `target/`, and stops it at the end.
//! Three publishers of this process are the nodes. Prints how long an event takes from its publisher to a subscriber of
//! another one, what Redis needs for it, and how fast a node opens. Takes about a minute.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use server_sent_events::store::Redis;
use server_sent_events::{History, Publisher, RecvTimeoutError, Subscription};

const NODES: usize = 3;
const SECONDS: u64 = 8;
/// The bytes of an event besides the time when it was published.
const FILLER: usize = 180;
const ENTRIES: usize = 100_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// A `redis-server`, which ends when this is dropped.
struct Server {
    port: u16,
    folder: PathBuf,
    process: Child,
}

impl Server {
    fn start() -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free").port();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/bench_redis_{port}"));
        fs::create_dir_all(&folder).expect("the folder can be created");
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(&folder);
        let process = command.stdout(Stdio::null()).spawn().expect("redis-server is installed");
        let server = Self { port, folder, process };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < PATIENCE, "redis-server does not start");
            thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// Returns a figure of `INFO`.
    fn figure(&self, section: &str, name: &str) -> f64 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("Redis answers");
        stream.write_all(format!("INFO {section}\r\nQUIT\r\n").as_bytes()).expect("Redis answers");
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        let found = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.parse().ok()).next();
        found.unwrap_or_else(|| panic!("Redis has no figure {name}"))
    }

    /// Returns the processor time that it has used, in seconds.
    fn cpu(&self) -> f64 {
        self.figure("cpu", "used_cpu_user") + self.figure("cpu", "used_cpu_sys")
    }

    fn node(&self, stream: &str, pause: Duration) -> Publisher {
        let redis = Redis::at(format!("redis://127.0.0.1:{}", self.port)).stream(stream).read_pause(pause);
        // A benchmark of the store, so no subscriber may be too slow.
        let builder = Publisher::builder().heartbeat(None).max_queued_events(1_000_000).max_queued_bytes(1 << 30);
        let publisher = builder.history(History::new().store(redis)).build().expect("the settings are valid");
        let start = Instant::now();
        while publisher.subscribe().is_err() {
            assert!(start.elapsed() < PATIENCE, "a node does not open: {:?}", publisher.store_state());
            thread::sleep(Duration::from_millis(1));
        }
        publisher
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn main() {
    let server = Server::start();
    println!(
        "{:>12} {:>8} {:>8} {:>9} {:>9} {:>10} {:>18}",
        "events/s", "pause", "refused", "p50", "p99", "in time", "Redis per event"
    );
    for (rate, pause) in [(1_000, 1_000), (1_000, 0), (20_000, 1_000)] {
        measure(&server, rate, Duration::from_micros(pause));
    }
    opens(&server);
}

/// Publishes at this rate through all nodes, and prints what came of it.
fn measure(server: &Server, rate: u64, pause: Duration) {
    let stream = format!("events {rate} {pause:?}");
    let nodes: Vec<Publisher> = (0..NODES).map(|_| server.node(&stream, pause)).collect();
    let start = Instant::now();
    let readers: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(node, publisher)| {
            let subscription = publisher.subscribe().expect("it has begun");
            thread::spawn(move || ages(subscription, node, start))
        })
        .collect();
    let (before, total) = (server.cpu(), rate * SECONDS);
    let (mut published, mut refused) = (0, 0);
    while published < total {
        let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
        while published < due.min(total) {
            let node = published as usize % NODES;
            let event = format!("{node} {:020} {}", start.elapsed().as_nanos(), "x".repeat(FILLER));
            refused += u64::from(nodes[node].publish(event).is_refused());
            published += 1;
        }
        thread::sleep(Duration::from_micros(500));
    }
    nodes.iter().for_each(|node| node.flush(PATIENCE).expect("everything is stored"));
    // Each node has its own events now, and perhaps not yet those of the others.
    let newest = nodes.iter().filter_map(Publisher::last_event_id).max_by_key(|id| sequence(id));
    while !nodes.iter().all(|node| node.last_event_id() == newest) {
        assert!(start.elapsed() < Duration::from_secs(SECONDS) + PATIENCE, "a node does not keep up");
        thread::sleep(Duration::from_millis(1));
    }
    let took = start.elapsed().as_secs_f64();
    let cpu = server.cpu() - before;
    nodes.iter().for_each(Publisher::close);
    let mut all: Vec<Duration> = Vec::new();
    for reader in readers {
        let (read, ages) = reader.join().expect("a reader failed");
        assert_eq!(read as u64, total - refused, "each node has each event");
        all.extend(ages);
    }
    all.sort();
    let share = |share: usize| format!("{:.2} ms", all[(all.len() - 1) * share / 100].as_secs_f64() * 1e3);
    let in_time = format!("{:.0} %", 100.0 * SECONDS as f64 / took);
    let per_event = format!("{:.1} us", cpu * 1e6 / total as f64);
    println!("{rate:>12} {pause:>8.0?} {refused:>8} {:>9} {:>9} {in_time:>10} {per_event:>18}", share(50), share(99));
}

/// Returns the sequence in the ID of an event.
fn sequence(id: &str) -> u64 {
    id.rsplit('-').next().and_then(|sequence| sequence.parse().ok()).expect("an ID ends with its sequence")
}

/// Reads until the end. Returns the number of events, and the ages of those of the other nodes.
fn ages(mut subscription: Subscription, own: usize, start: Instant) -> (usize, Vec<Duration>) {
    let (mut read, mut ages) = (0, Vec::new());
    loop {
        match subscription.recv_timeout(PATIENCE) {
            Ok(frame) => {
                let Some((_, data)) = frame.split_once("data: ") else { continue };
                let mut parts = data.split(' ').map(|part| part.parse::<u64>());
                let (Some(Ok(node)), Some(Ok(at))) = (parts.next(), parts.next()) else {
                    panic!("another event: {data}")
                };
                read += 1;
                if node as usize != own {
                    ages.push(start.elapsed().saturating_sub(Duration::from_nanos(at)));
                }
            }
            Err(RecvTimeoutError::Timeout) => panic!("an event is missing"),
            Err(_) => return (read, ages),
        }
    }
}

/// Fills a stream, and prints how long a new node takes to open.
fn opens(server: &Server) {
    let writer = server.node("many", Duration::from_millis(1));
    let event = "x".repeat(FILLER + 20);
    for _ in 0..ENTRIES {
        while writer.publish(&event).is_refused() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    writer.flush(PATIENCE).expect("everything is stored");
    let start = Instant::now();
    let node = server.node("many", Duration::from_millis(1));
    let (took, history) = (start.elapsed(), node.stats().history);
    println!(
        "\na node with {ENTRIES} entries opens in {:.2} s, and keeps {} of them",
        took.as_secs_f64(),
        history.events
    );
}
