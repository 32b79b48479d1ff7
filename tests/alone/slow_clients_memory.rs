//! Clients that do not read occupy a limited amount of memory, however large the events and however long the replay.
//!
//! The tests measure the resident memory of their whole process. The clients run in a process of their own: this program
//! again, with an address in its environment. `SLOW_CLIENTS` is their number; if it is set, all limits have their
//! defaults, otherwise an eighth of those.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use self::clients::{ADDRESS, CLIENTS, OBEYS, READY, count};
use crate::common::{eventually, raise_open_files};
use crate::own_process::{alone, own_process};
use server_sent_events::server::{EventServer, RunningServer};
use server_sent_events::{History, Overflow, Publisher};

const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;

/// The maximum MiB of the history, which is also its number of 1 MB events, and the maximum MiB of slow streams in
/// addition. With `SLOW_CLIENTS` all of them are the defaults.
fn size() -> usize {
    if std::env::var_os(CLIENTS).is_some() { 64 } else { 8 }
}

struct Scene {
    publisher: Publisher,
    _server: RunningServer,
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    events: usize,
}

impl Scene {
    fn start(overflow: Overflow) -> Self {
        // The server's end of each stream.
        raise_open_files();
        let bytes = size() * MIB;
        let builder = Publisher::builder().history(History::new().max_bytes(bytes)).max_retained_bytes(bytes);
        let publisher = builder.overflow(overflow).heartbeat(None).build().unwrap();
        let server = EventServer::builder()
            .max_streams_per_ip(10_000)
            .send_buffer_size(256 * KIB)
            .write_timeout(Duration::from_secs(600))
            .bind("127.0.0.1:0")
            .unwrap();
        let streams = publisher.clone();
        let server = server.spawn(move |request: &server_sent_events::server::Request| {
            let id = request.last_event_id().map(String::from);
            streams.subscription(()).last_event_id(id).open()
        });
        let server = server.unwrap();
        let mut process = alone(OBEYS)
            .env(ADDRESS, server.local_addr().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let mut answers = BufReader::new(process.stdout.take().unwrap());
        // After the test harness's own output.
        while answers.by_ref().lines().next().unwrap().unwrap() != READY {}
        Self { publisher, _server: server, process, commands, answers, events: 0 }
    }

    /// Sends the clients a command, and waits until it is done.
    #[track_caller]
    fn command(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
        self.is_done();
    }

    #[track_caller]
    fn is_done(&mut self) {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "the clients failed");
    }

    /// Publishes an event whose data has this length, which no other event has. Returns its ID.
    fn publish(&mut self, len: usize) -> String {
        self.events += 1;
        let receipt = self.publisher.publish(format!("{}{:08}", "x".repeat(len - 8), self.events));
        receipt.id().unwrap().to_owned()
    }

    /// Publishes as much as the history holds, in events of 1 MB. Returns their IDs.
    fn fill_history(&mut self) -> Vec<String> {
        (0..size()).map(|_| self.publish(1_000_000)).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns a line of `/proc/self/status`, in bytes.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * KIB
}

/// Makes the kernel measure the peak of the resident memory from here on. Returns the current value.
fn start_measuring() -> usize {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    status("VmRSS")
}

#[track_caller]
fn has_grown_by_at_most(limit: usize, since: usize) {
    let grown = status("VmHWM").saturating_sub(since);
    println!("    {} MiB of {} MiB", grown / MIB, limit / MIB);
    assert!(grown <= limit, "{} MiB were allowed, it is {} MiB more", limit / MIB, grown / MIB);
}

#[test]
fn one_large_event_and_one_long_resume_are_in_memory_once() {
    own_process!();
    let mut scene = Scene::start(Overflow::Disconnect);
    let start = scene.publisher.last_event_id().unwrap();
    scene.command(&format!("open {start}"));
    let streams = count();
    eventually("all are subscribed", || scene.publisher.stats().subscribers == streams);
    let per_stream = streams * 128 * KIB;

    let before = start_measuring();
    let large = 7 * MIB;
    scene.publish(large);
    scene.command(&format!("read 1 {large}"));
    has_grown_by_at_most(scene.publisher.stats().history.bytes + large + per_stream, before);

    let start = scene.publisher.last_event_id().unwrap();
    scene.fill_history();
    scene.command(&format!("open {start}"));
    eventually("the first streams have gone", || scene.publisher.stats().subscribers == streams);
    let disconnected = scene.publisher.stats().ended.queue_full;
    scene.command(&format!("read {} {}", size(), size() * 1_000_000));
    assert_eq!(scene.publisher.stats().ended.queue_full, disconnected, "another stream was too slow");
    let history = scene.publisher.stats().history.bytes;
    scene.fill_history();
    has_grown_by_at_most(history + large + per_stream, before);
}

#[test]
fn memory_that_only_slow_clients_keep_is_limited() {
    own_process!();
    only_slow_clients_keep(Overflow::Disconnect);
}

/// Each slow stream has the newest event in its queue.
#[test]
fn memory_that_only_slow_clients_keep_is_limited_if_their_queues_drop_the_oldest() {
    own_process!();
    only_slow_clients_keep(Overflow::DropOldest);
}

fn only_slow_clients_keep(overflow: Overflow) {
    const ROUNDS: usize = 6;
    let mut scene = Scene::start(overflow);
    let before = start_measuring();
    for _ in 0..ROUNDS {
        let start = scene.publisher.last_event_id().unwrap();
        let ids = scene.fill_history();
        // Each resumes before a different event, and holds that one.
        let resume_after = std::iter::once(&start).chain(&ids[..size() - 1]);
        scene.command(&resume_after.fold("stall".to_owned(), |command, id| command + " " + id));
    }
    scene.fill_history();
    let history = scene.publisher.stats().history.bytes;
    let limit = size() * MIB;
    has_grown_by_at_most(history + limit + ROUNDS * size() * 128 * KIB + 8 * MIB, before);
    assert!(scene.publisher.stats().ended.queue_full > 0, "no stream was disconnected");
    // A new client is served as usual.
    let start = scene.publisher.last_event_id().unwrap();
    scene.command(&format!("open {start}"));
    scene.publish(1_000_000);
    scene.command("read 1 1000000");
}

/// The process of the clients, which obeys one command per line.
mod clients {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::mpsc;
    use std::thread;

    use crate::common::raise_open_files;

    /// The test that obeys, and its first line.
    pub const OBEYS: &str = "slow_clients_memory::clients::obey";
    pub const READY: &str = "ready";
    pub const ADDRESS: &str = "SLOW_CLIENTS_OF";
    pub const CLIENTS: &str = "SLOW_CLIENTS";

    /// The number of clients; one in ten reads.
    pub fn count() -> usize {
        std::env::var(CLIENTS).map_or(100, |clients| clients.parse().unwrap())
    }

    /// Does nothing except in the process that `Scene` starts.
    #[test]
    fn obey() {
        let Ok(address) = std::env::var(ADDRESS) else { return };
        raise_open_files();
        println!("\n{READY}");
        run(address.parse().unwrap());
    }

    fn run(address: SocketAddr) {
        let mut stalled = Vec::new();
        let mut readers = Vec::new();
        for line in std::io::stdin().lines() {
            let line = line.unwrap();
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["open", id] => {
                    stalled.clear();
                    readers.clear();
                    let reads = count() / 10;
                    stalled.extend((reads..count()).map(|_| connect(address, id, false)));
                    readers.extend((0..reads).map(|_| Reader::start(connect(address, id, true))));
                }
                ["read", events, bytes] => {
                    let (events, bytes) = (events.parse().unwrap(), bytes.parse().unwrap());
                    for reader in &readers {
                        reader.wanted.send((events, bytes)).unwrap();
                    }
                    for reader in &readers {
                        reader.done.recv().expect("a reader lost an event");
                    }
                }
                ["stall", ref ids @ ..] => {
                    let mut clients: Vec<TcpStream> = ids.iter().map(|id| connect(address, id, false)).collect();
                    for client in &mut clients {
                        // Its event has begun.
                        client.read_exact(&mut [0; 4_096]).unwrap();
                    }
                    stalled.append(&mut clients);
                }
                _ => panic!("unknown command: {line}"),
            }
            println!("done");
        }
    }

    /// A client that reads as fast as it can.
    struct Reader {
        /// The number of events that it must read, and the bytes of data in each.
        wanted: mpsc::Sender<(usize, usize)>,
        done: mpsc::Receiver<()>,
    }

    impl Reader {
        fn start(socket: TcpStream) -> Self {
            let (wanted, orders) = mpsc::channel::<(usize, usize)>();
            let (done, is_done) = mpsc::channel();
            thread::spawn(move || {
                let mut stream = BufReader::with_capacity(64 * 1024, socket);
                for (events, bytes) in orders {
                    let mut last = None;
                    let mut read = 0;
                    for _ in 0..events {
                        let (number, len) = next_data(&mut stream);
                        assert!(last.is_none_or(|last| last + 1 == number), "{last:?}, then {number}");
                        last = Some(number);
                        read += len;
                    }
                    assert_eq!(read, bytes);
                    done.send(()).unwrap();
                }
            });
            Self { wanted, done: is_done }
        }
    }

    /// Requests a stream without chunks, on a connection for which the kernel buffers little unless it is read.
    fn connect(address: SocketAddr, id: &str, reads: bool) -> TcpStream {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        if !reads {
            socket.set_recv_buffer_size(16 * 1_024).unwrap();
        }
        socket.connect(&address.into()).unwrap();
        let mut socket: TcpStream = socket.into();
        write!(socket, "GET / HTTP/1.0\r\nHost: localhost\r\nLast-Event-ID: {id}\r\n\r\n").unwrap();
        socket
    }

    /// Reads the next event's data. Returns its number and its length.
    fn next_data(stream: &mut impl BufRead) -> (u64, usize) {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(stream.read_line(&mut line).unwrap() > 0, "the stream has ended");
            if let Some(data) = line.trim_end().strip_prefix("data: ") {
                return (data[data.len() - 8..].parse().unwrap_or_else(|_| panic!("{data:.100}")), data.len());
            }
        }
    }
}
