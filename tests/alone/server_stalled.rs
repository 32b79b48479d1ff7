//! EventServer and clients that do not read: they occupy no thread, lose nothing if they read later, and are
//! disconnected at their timeout.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::http::Client;
use crate::common::pace::{Pace, is_soon, keeping_pace};
use crate::common::process::{held, is_back_at};
use crate::common::server::{opened, serve, stalled};
use crate::common::{Watchdog, eventually, seed};
use crate::no_harm::has_few_threads;
use crate::own_process::own_process;
use server_sent_events::server::{EventServer, EventServerBuilder, Response, RunningServer};
use server_sent_events::{Publisher, PublisherBuilder};

/// Makes the kernel buffer as little as possible.
fn small() -> EventServerBuilder {
    EventServer::builder().send_buffer_size(4_096).notsent_lowat(4_096)
}

fn patient() -> PublisherBuilder<()> {
    Publisher::builder().max_queued_events(1_000_000).max_queued_bytes(1 << 30).heartbeat(None)
}

/// A timeout that is not over before the test is.
const NEVER: Duration = Duration::from_secs(600);

/// More than any kernel buffers for a client that does not read.
fn publish_megabytes(publisher: &Publisher, megabytes: usize) -> String {
    let mut text = String::new();
    for n in 0..megabytes * 1_000 {
        let event = format!("{n} {}", char::from(b'a' + (n % 26) as u8).to_string().repeat(990));
        text += &format!("data: {event}\n\n");
        publisher.publish(event);
    }
    text
}

/// Returns what the chunks hold, up to the last one.
fn unchunked(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).unwrap();
    let (mut body, mut rest) = (String::new(), text.split_once("\r\n\r\n").unwrap().1);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        body.push_str(&after[..size]);
        rest = after[size..].strip_prefix("\r\n").expect("a chunk's end");
        if size == 0 {
            break;
        }
    }
    assert_eq!(rest, "", "something follows the last chunk");
    body
}

#[test]
fn a_client_that_reads_on_after_a_while_misses_no_byte() {
    own_process!();
    let mut random = fastrand::Rng::with_seed(seed("a_client_that_reads_on_after_a_while_misses_no_byte"));
    let publisher = patient().build().unwrap();
    let server = serve(small(), &publisher);
    let mut client = stalled(server.local_addr());
    let mut fast = opened(server.local_addr());
    eventually("both are subscribed", || publisher.stats().subscribers == 2);
    let published = publish_megabytes(&publisher, 4);
    publisher.close();
    // Meanwhile, the client that reads gets everything.
    fast.reads_until("\r\n0\r\n\r\n");
    has_few_threads();
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        // Pieces of very different sizes: the kernel's buffer gets room anywhere within a chunk.
        let most = if random.bool() { random.usize(1..200) } else { random.usize(1..buffer.len()) };
        let read = client.read(&mut buffer[..most]).unwrap();
        if read == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..read]);
    }
    let body = unchunked(&bytes);
    let body = body.strip_prefix(":\n").unwrap();
    assert!(body == published, "{} bytes came, {} were published", body.len(), published.len());
}

#[test]
fn stalled_clients_hold_no_thread() {
    own_process!();
    let publisher = patient().build().unwrap();
    let server = serve(small(), &publisher);
    let clients: Vec<TcpStream> = (0..100).map(|_| stalled(server.local_addr())).collect();
    eventually("all are subscribed", || publisher.stats().subscribers == 100);
    let mut healthy = opened(server.local_addr());
    publish_megabytes(&publisher, 1);
    healthy.reads_until(&format!("999 {}\n\n\r\n", "l".repeat(990)));
    has_few_threads();
    drop(clients);
    eventually("they are gone", || publisher.stats().subscribers == 1);
    publisher.publish("hello");
    healthy.reads("0000000d\r\ndata: hello\n\n\r\n");
}

#[test]
fn a_full_queue_closes_the_socket_at_once() {
    own_process!();
    let publisher = Publisher::builder().heartbeat(None).build().unwrap();
    let server = serve(small().write_timeout(NEVER), &publisher);
    let mut healthy = opened(server.local_addr());
    let before = held().1;
    let client = stalled(server.local_addr());
    eventually("it is subscribed", || publisher.stats().subscribers == 2);
    let start = Instant::now();
    for n in 0.. {
        publisher.publish(format!("{n} {}", "x".repeat(1_000)));
        healthy.reads_until("\n\n\r\n");
        if publisher.stats().ended.queue_full == 1 {
            println!("ended after {n} events, {:?}", start.elapsed());
            break;
        }
    }
    // Nothing else would close the socket.
    eventually("only the client's own descriptor is left", || held().1 <= before + 1);
    drop(client);
}

#[test]
fn a_stalled_stream_ends_as_timed_out_after_its_write_timeout() {
    own_process!();
    let publisher = patient().build().unwrap();
    let timeout = Duration::from_millis(500);
    let server = serve(small().write_timeout(timeout), &publisher);
    let quiet = opened(server.local_addr());
    let before = held().1;
    let client = stalled(server.local_addr());
    eventually("it is subscribed", || publisher.stats().subscribers == 2);
    drop(quiet);
    eventually("one is left", || publisher.stats().subscribers == 1);
    let start = Instant::now();
    publish_megabytes(&publisher, 1);
    eventually("it has timed out", || publisher.stats().ended.write_timed_out == 1);
    println!("timed out after {:?}", start.elapsed());
    assert!(start.elapsed() > timeout.mul_f32(0.9), "{:?}", start.elapsed());
    assert_eq!(publisher.stats().subscribers, 0);
    eventually("only the client's own descriptor is left", || held().1 < before);
    drop(client);
}

#[test]
fn a_quiet_stream_is_not_timed_out() {
    own_process!();
    let publisher = Publisher::builder().heartbeat(None).build().unwrap();
    let server = serve(small().write_timeout(Duration::from_millis(1)), &publisher);
    let mut quiet = opened(server.local_addr());
    // As long as it takes for another stream to time out.
    let other = stalled(server.local_addr());
    eventually("it has timed out", || {
        publisher.publish("x".repeat(1_000));
        quiet.reads_until("\n\n\r\n");
        publisher.stats().ended.write_timed_out + publisher.stats().ended.queue_full == 1
    });
    publisher.publish("hello");
    quiet.reads("0000000d\r\ndata: hello\n\n\r\n");
    drop(other);
}

#[test]
fn a_stalled_client_that_leaves_is_gone_at_once() {
    own_process!();
    let publisher = patient().build().unwrap();
    let server = serve(small().write_timeout(NEVER), &publisher);
    let mut healthy = opened(server.local_addr());
    let before = held().1;
    let (resets, closes) = (stalled(server.local_addr()), stalled(server.local_addr()));
    eventually("both are subscribed", || publisher.stats().subscribers == 3);
    publish_megabytes(&publisher, 1);
    healthy.reads_until(&format!("999 {}\n\n\r\n", "l".repeat(990)));
    socket2::SockRef::from(&resets).set_linger(Some(Duration::ZERO)).unwrap();
    drop((resets, closes));
    // Nothing else would end their streams.
    eventually("both are gone", || publisher.stats().subscribers == 1);
    eventually("their descriptors are back", || held().1 <= before);
}

#[test]
fn a_server_that_stops_disconnects_stalled_clients_and_leaves_nothing_behind() {
    own_process!();
    let _watchdog = Watchdog::new("a server with a stalled client stops");
    let before = held();
    let publisher = patient().build().unwrap();
    let server = serve(small().write_timeout(NEVER), &publisher);
    let client = stalled(server.local_addr());
    eventually("it is subscribed", || publisher.stats().subscribers == 1);
    publish_megabytes(&publisher, 1);
    let start = Instant::now();
    server.stop().unwrap();
    println!("stopped after {:?}", start.elapsed());
    drop(client);
    drop(publisher);
    eventually("threads and descriptors are where they were", || is_back_at(before));
}

#[test]
fn a_publisher_that_shuts_down_disconnects_stalled_clients() {
    own_process!();
    // A server waits five seconds for streams that have not ended.
    is_soon("a stop after a shutdown", Duration::from_secs(3), || {
        let before = held();
        let publisher = patient().build().unwrap();
        let server = serve(small(), &publisher);
        let client = stalled(server.local_addr());
        eventually("it is subscribed", || publisher.stats().subscribers == 1);
        publish_megabytes(&publisher, 1);
        assert_eq!(publisher.shutdown(Duration::from_millis(100)), 1);
        drop(publisher);
        let start = Instant::now();
        server.stop().unwrap();
        let stopped = start.elapsed();
        drop(client);
        eventually("threads and descriptors are where they were", || is_back_at(before));
        stopped
    });
}

#[test]
fn a_server_that_stops_leaves_no_thread_and_no_descriptor() {
    own_process!();
    let before = held();
    for _ in 0..3 {
        let publisher = Publisher::new();
        let server = serve(EventServer::builder(), &publisher);
        let mut clients: Vec<Client> = (0..20).map(|_| opened(server.local_addr())).collect();
        let half = Client::connect(server.local_addr());
        publisher.publish("bye");
        let stops = std::thread::spawn(move || server.stop());
        for client in &mut clients {
            client.reads_until("data: bye\n\n\r\n0\r\n\r\n");
        }
        drop((clients, half));
        stops.join().unwrap().unwrap();
        drop(publisher);
        eventually("threads and descriptors are where they were", || is_back_at(before));
    }
    drop(EventServer::bind("127.0.0.1:0").unwrap());
    assert!(is_back_at(before));
}

/// Returns a server that responds with a text of this many bytes.
fn text_of(bytes: usize, settings: EventServerBuilder) -> RunningServer {
    settings.bind("127.0.0.1:0").unwrap().spawn(move |_| Response::text("x".repeat(bytes))).unwrap()
}

#[test]
fn a_text_is_sent_to_its_end_as_long_as_the_client_reads() {
    own_process!();
    const SIZE: usize = 150_000;
    let (read, is_slow) = keeping_pace(Duration::from_millis(400), |timeout| {
        let server = text_of(SIZE, small().write_timeout(timeout));
        let mut client = stalled(server.local_addr());
        let (start, mut pace) = (Instant::now(), Pace::start());
        let (mut read, mut buffer) = (0, vec![0; 5_000]);
        while read < SIZE
            && let Ok(count @ 1..) = client.read(&mut buffer)
        {
            read += count;
            // A slow client; more than three times as long as the server waits without progress.
            std::thread::sleep(timeout * count as u32 / (SIZE as u32 / 4));
            pace.step();
        }
        ((read, start.elapsed() > 3 * timeout), pace.longest())
    });
    // After its head.
    assert!(read >= SIZE && is_slow, "disconnected after {read} bytes");
}

#[test]
fn a_client_that_takes_nothing_of_a_text_is_disconnected_in_time() {
    own_process!();
    let timeout = Duration::from_millis(500);
    let server = text_of(3_000_000, small().write_timeout(timeout));
    let (start, before) = (Instant::now(), held().1);
    let client = stalled(server.local_addr());
    // The response has begun.
    client.peek(&mut [0]).unwrap();
    eventually("only the client's own descriptor is left", || held().1 == before + 1);
    assert!(start.elapsed() >= timeout, "{:?}", start.elapsed());
    drop(client);
}

/// With `TCP_USER_TIMEOUT` the kernel resets it after 30 s, so this takes longer and runs with `HOSTILE=1` only.
#[test]
fn a_client_that_reads_slowly_and_steadily_is_never_disconnected() {
    own_process!();
    if std::env::var_os("HOSTILE").is_none() {
        return;
    }
    let publisher = patient().build().unwrap();
    let server = serve(EventServer::builder(), &publisher);
    let mut client = stalled(server.local_addr());
    eventually("it is subscribed", || publisher.stats().subscribers == 1);
    publish_megabytes(&publisher, 4);
    let (start, mut buffer) = (Instant::now(), vec![0; 1_000]);
    while start.elapsed() < Duration::from_secs(75) {
        let count = client.read(&mut buffer).unwrap();
        assert!(count > 0, "disconnected after {:?}", start.elapsed());
        // 20 KB/s.
        std::thread::sleep(Duration::from_micros(50 * count as u64));
    }
    assert_eq!(publisher.stats().subscribers, 1);
}
