//! The example hub ends all of its streams in good order when a signal ends it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::common::example::{Example, broken_pipe, built_examples};
use crate::common::http::Client;
use crate::common::{PATIENCE, eventually};

/// The grace of hub's shutdown, and how long it waits for requests after that.
const GRACE: Duration = Duration::from_secs(5);
const LAST_REQUESTS: Duration = Duration::from_secs(1);

fn is_signalled(hub: &Example, signal: &str) {
    signals(hub.process.id(), signal);
}

fn signals(process: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

/// Repeats a test that sends an example a second signal while it ends. A busy machine can delay that until the example has
/// ended by itself; then the test returns `None`.
#[track_caller]
fn in_time(mut test: impl FnMut() -> Option<ExitStatus>) -> ExitStatus {
    (0..5).find_map(|_| test()).expect("the second signal was never in time")
}

/// Sends a second signal, and waits for the end. Returns `None` if the example may have ended by itself: this long after
/// the first signal.
#[track_caller]
fn is_signalled_again(
    example: &mut Example,
    process: u32,
    signal: &str,
    first: Instant,
    ends_after: Duration,
) -> Option<ExitStatus> {
    let sent = Command::new("kill").args([signal, &process.to_string()]).stderr(Stdio::null()).status().unwrap();
    let is_in_time = first.elapsed() < ends_after;
    assert!(sent.success() || !is_in_time, "it has ended after {:?}", first.elapsed());
    let status = has_ended(example);
    is_in_time.then_some(status)
}

fn has_ended(hub: &mut Example) -> ExitStatus {
    let mut status = None;
    eventually("the hub ends", || {
        status = hub.process.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// A client that never reads, and is sent more than the kernels buffer: hub is blocked in a write to it.
fn blocked_client(hub: &Example) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let address: SocketAddr = hub.url.strip_prefix("http://").unwrap().parse().unwrap();
    socket.connect(&address.into()).unwrap();
    let mut client = TcpStream::from(socket);
    client.write_all(b"GET /stuck HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let publish = || ureq::post(format!("{}/stuck", hub.url)).send(&vec![b'x'; 1024 * 1024][..]).unwrap();
    eventually("the client watches", || watchers(&publish()) == 1);
    client
}

fn watchers(response: &ureq::http::Response<ureq::Body>) -> usize {
    response.headers()["x-watchers"].to_str().unwrap().parse().unwrap()
}

/// Returns the reconnection time that the stream sends to its `EventSource`, in ms, if it sends one.
fn retry(stream: &str) -> Option<u64> {
    stream.lines().find_map(|line| line.strip_prefix("retry: ")).map(|retry| retry.parse().unwrap())
}

#[test]
fn hub_ends_2000_streams_within_its_grace_each_with_its_own_retry_time() {
    const STREAMS: usize = 2_000;
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    // hub has the same limit.
    assert!(descriptors >= 2 * STREAMS as u64, "{descriptors} files may be open: too few for this test");
    let mut hub = Example::start("hub");
    // Each sends its request at once: hub does not wait for it as long as all of them take to connect.
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..STREAMS {
        let mut client = hub.connect();
        client.send("GET /c HTTP/1.1\r\nHost: localhost\r\n\r\n");
        clients.push(client);
    }
    for client in &mut clients {
        client.reads_until(":\nid: ");
    }
    let last_words = ureq::post(format!("{}/c", hub.url)).send("the last words").unwrap();
    assert_eq!(watchers(&last_words), STREAMS);

    is_signalled(&hub, "-TERM");
    let signalled = Instant::now();
    let status = has_ended(&mut hub);
    let took = signalled.elapsed();
    assert!(status.success(), "{status}");
    // A stream that had not ended within the grace would be cut off.
    let mut retries: Vec<u64> = Vec::new();
    for client in &mut clients {
        let stream = client.reads_until("\r\n0\r\n\r\n");
        client.reads_the_end();
        let words = stream.find("data: the last words\n").expect(&stream);
        let farewell = stream.find("event: shutdown\ndata: the hub ends\n\n").expect(&stream);
        assert!(words < farewell, "{stream}");
        retries.push(retry(&stream[farewell..]).expect(&stream));
    }
    let distinct = BTreeSet::from_iter(&retries).len();
    let mut of_each_second = [0; 10];
    for retry in &retries {
        assert!((1_000..=11_000).contains(retry), "{retry} ms");
        of_each_second[(*retry as usize / 1_000 - 1).min(9)] += 1;
    }
    println!("{took:?} until the end, {distinct} times of {STREAMS}, in each second {of_each_second:?}");
    assert!(distinct > STREAMS / 2, "{distinct}");
    assert!(of_each_second.iter().all(|clients| (STREAMS / 20..=STREAMS / 5).contains(clients)), "{of_each_second:?}");
}

#[test]
fn hub_refuses_new_clients_while_it_ends_and_ends_at_once_on_a_second_signal() {
    let status = in_time(|| {
        let mut hub = Example::start("hub");
        let mut watcher = hub.connect();
        watcher.send("GET /c HTTP/1.1\r\nHost: localhost\r\n\r\n");
        watcher.reads_until(":\nid: ");
        let _blocked = blocked_client(&hub);
        let first = Instant::now();
        is_signalled(&hub, "-INT");
        watcher.reads_until("\r\n0\r\n\r\n");

        // The status is 200, since an EventSource would give up otherwise.
        let late = ureq::get(format!("{}/c", hub.url)).call();
        let stream = late.and_then(|mut late| {
            assert_eq!(late.headers()["content-type"], "text/event-stream; charset=utf-8");
            late.body_mut().read_to_string()
        });
        let Ok(stream) = stream else {
            assert!(first.elapsed() >= GRACE, "{stream:?}");
            return None;
        };
        assert!(retry(&stream).is_some_and(|retry| (5_000..=10_000).contains(&retry)), "{stream}");
        assert!(!stream.contains("id: ") && !stream.contains("data: "), "{stream}");

        let process = hub.process.id();
        is_signalled_again(&mut hub, process, "-TERM", first, GRACE)
    });
    assert_eq!(status.code(), Some(143), "{status}");
}

const UNSHARE: [&str; 3] = ["--pid", "--fork", "--kill-child"];

/// Returns whether the system allows a namespace of its own for a process.
fn has_namespaces() -> bool {
    match Command::new("unshare").args(UNSHARE).arg("true").output() {
        Ok(output) if output.status.success() => true,
        other => {
            println!("skipped: no namespace of its own for a process: {other:?}");
            false
        }
    }
}

/// An example as the first process of a container, which ignores the default action of a signal. It is a child process
/// of `unshare`, which passes on its exit code.
fn as_process_1(name: &str) -> (Example, u32) {
    let mut command = Command::new("unshare");
    command.args(UNSHARE).arg(built_examples().join(name));
    let example = Example::run(command);
    let unshare = example.process.id();
    let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    let process_1 = children.trim().parse().unwrap();
    (example, process_1)
}

#[test]
fn hub_as_process_1_ends_with_the_code_of_the_second_signal() {
    for (second, code) in [("-TERM", 143), ("-INT", 130)] {
        if !has_namespaces() {
            return;
        }
        let status = in_time(|| {
            let (mut hub, process_1) = as_process_1("hub");
            let mut watcher = hub.connect();
            watcher.send("GET /c HTTP/1.1\r\nHost: localhost\r\n\r\n");
            watcher.reads_until(":\nid: ");
            let _blocked = blocked_client(&hub);
            let first = Instant::now();
            signals(process_1, "-TERM");
            watcher.reads_until("\r\n0\r\n\r\n");
            is_signalled_again(&mut hub, process_1, second, first, GRACE)
        });
        assert_eq!(status.code(), Some(code), "{second}: {status}");
    }
}

#[test]
fn chat_and_progress_as_process_1_end_with_the_code_of_the_second_signal() {
    for (name, stream, post) in [("chat", "/subscribe?username=Bob", "/publish"), ("progress", "/events", "/jobs")] {
        if !has_namespaces() {
            return;
        }
        let status = in_time(|| {
            let (mut example, process_1) = as_process_1(name);
            let mut watcher = example.connect();
            watcher.send(&format!("GET {stream} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            watcher.reads_until(":\nid: ");
            // Its body keeps the program running for a second longer than its streams.
            let mut sends_forever = example.connect();
            let lines = "Host: localhost\r\nContent-Length: 10000\r\nExpect: 100-continue";
            sends_forever.send(&format!("POST {post} HTTP/1.1\r\n{lines}\r\n\r\n"));
            // The handler has begun to read it.
            assert!(sends_forever.reads_head().status().starts_with("HTTP/1.1 100 "));
            let first = Instant::now();
            signals(process_1, "-TERM");
            watcher.reads_until("\r\n0\r\n\r\n");
            is_signalled_again(&mut example, process_1, "-TERM", first, LAST_REQUESTS)
        });
        assert_eq!(status.code(), Some(143), "{name}: {status}");
    }
}

#[test]
fn hub_waits_for_blocked_clients_no_longer_than_its_grace() {
    let mut hub = Example::start("hub");
    let mut blocked = blocked_client(&hub);
    let mut sends_forever = hub.connect();
    sends_forever.send("POST /c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\nx");
    let signalled = Instant::now();
    is_signalled(&hub, "-TERM");
    let status = has_ended(&mut hub);
    assert!(status.success(), "{status}");
    assert!(signalled.elapsed() >= GRACE, "{:?}", signalled.elapsed());
    // The response is cut off.
    blocked.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = Vec::new();
    let _ = blocked.read_to_end(&mut stream);
    assert!(stream.len() < 1024 * 1024 && !stream.ends_with(b"0\r\n\r\n"), "{}", stream.len());
}

/// A failure to log is no reason to end badly.
#[test]
fn hub_ends_in_good_order_when_its_log_cannot_be_written() {
    let mut command = Command::new(built_examples().join("hub"));
    command.stderr(broken_pipe());
    let mut hub = Example::run(command);
    let _blocked = blocked_client(&hub);
    is_signalled(&hub, "-TERM");
    let status = has_ended(&mut hub);
    assert!(status.success(), "{status}");
}
