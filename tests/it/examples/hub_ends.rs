//! The example hub ends all of its streams in good order when a signal ends it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitStatus};
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
    let mut clients: Vec<Client> = (0..STREAMS).map(|_| hub.connect()).collect();
    for client in &mut clients {
        client.send("GET /c HTTP/1.1\r\nHost: localhost\r\n\r\n");
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
    assert!(took < GRACE + LAST_REQUESTS, "{took:?}");
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
    let mut hub = Example::start("hub");
    let mut watcher = hub.connect();
    watcher.send("GET /c HTTP/1.1\r\nHost: localhost\r\n\r\n");
    watcher.reads_until(":\nid: ");
    let _blocked = blocked_client(&hub);
    is_signalled(&hub, "-INT");
    watcher.reads_until("\r\n0\r\n\r\n");

    // The status is 200, since an EventSource would give up otherwise.
    let mut late = ureq::get(format!("{}/c", hub.url)).call().unwrap();
    assert_eq!(late.headers()["content-type"], "text/event-stream; charset=utf-8");
    let stream = late.body_mut().read_to_string().unwrap();
    assert!(retry(&stream).is_some_and(|retry| (5_000..=10_000).contains(&retry)), "{stream}");
    assert!(!stream.contains("id: ") && !stream.contains("data: "), "{stream}");

    is_signalled(&hub, "-TERM");
    let status = has_ended(&mut hub);
    assert_eq!(status.code(), Some(143), "{status}");
}

/// An example as the first process of a container, which ignores the default action of a signal. It is a child process
/// of `unshare`, which passes on its exit code. `None` if the system does not allow that.
fn as_process_1(name: &str) -> Option<(Example, u32)> {
    const UNSHARE: [&str; 3] = ["--pid", "--fork", "--kill-child"];
    match Command::new("unshare").args(UNSHARE).arg("true").output() {
        Ok(output) if output.status.success() => {}
        other => {
            println!("skipped: no namespace of its own for a process: {other:?}");
            return None;
        }
    }
    let mut command = Command::new("unshare");
    command.args(UNSHARE).arg(built_examples().join(name));
    let example = Example::run(command);
    let unshare = example.process.id();
    let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    let process_1 = children.trim().parse().unwrap();
    Some((example, process_1))
}

#[test]
fn hub_as_process_1_ends_with_the_code_of_the_second_signal() {
    for (second, code) in [("-TERM", 143), ("-INT", 130)] {
        let Some((mut hub, process_1)) = as_process_1("hub") else { return };
        let mut watcher = hub.connect();
        watcher.send("GET /c HTTP/1.1\r\nHost: localhost\r\n\r\n");
        watcher.reads_until(":\nid: ");
        let _blocked = blocked_client(&hub);
        signals(process_1, "-TERM");
        watcher.reads_until("\r\n0\r\n\r\n");
        signals(process_1, second);
        let status = has_ended(&mut hub);
        assert_eq!(status.code(), Some(code), "{second}: {status}");
    }
}

#[test]
fn chat_and_progress_as_process_1_end_with_the_code_of_the_second_signal() {
    for (name, stream, post) in [("chat", "/subscribe?username=Bob", "/publish"), ("progress", "/events", "/jobs")] {
        let Some((mut example, process_1)) = as_process_1(name) else { return };
        let mut watcher = example.connect();
        watcher.send(&format!("GET {stream} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        watcher.reads_until(":\nid: ");
        // Its body keeps the program running for a second longer than its streams.
        let mut sends_forever = example.connect();
        sends_forever.send(&format!("POST {post} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\nx"));
        signals(process_1, "-TERM");
        watcher.reads_until("\r\n0\r\n\r\n");
        signals(process_1, "-TERM");
        let status = has_ended(&mut example);
        assert_eq!(status.code(), Some(143), "{name}: {status}");
    }
}

#[test]
fn hub_waits_for_blocked_clients_no_longer_than_its_grace() {
    let mut hub = Example::start("hub");
    let mut blocked = blocked_client(&hub);
    let mut sends_forever = hub.connect();
    sends_forever.send("POST /c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\nx");
    is_signalled(&hub, "-TERM");
    let signalled = Instant::now();
    let status = has_ended(&mut hub);
    assert!(status.success(), "{status}");
    assert!(signalled.elapsed() > GRACE - Duration::from_millis(100), "{:?}", signalled.elapsed());
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
