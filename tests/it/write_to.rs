//! A thread that writes to a socket is freed, whatever its client does.

use std::io::{BufWriter, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::common::{PATIENCE, eventually};
use server_sent_events::{BackgroundOptions, EndCause, Publisher, QuotaPolicy};

/// More than the kernel buffers of a connection hold.
const LARGE: usize = 30_000_000;

/// Returns the two ends of a connection: the client's, and the one to write to.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Starts a thread that writes a stream to this writer.
fn written(publisher: &Publisher, writer: impl Write + Send + 'static) -> JoinHandle<Result<EndCause, ErrorKind>> {
    let subscription = publisher.subscription(()).quota_key("Ada").open().unwrap();
    thread::spawn(move || subscription.write_to(writer).map_err(|error| error.kind()))
}

/// Checks that the thread returns, and this.
#[track_caller]
fn returns(thread: JoinHandle<Result<EndCause, ErrorKind>>, expected: EndCause) {
    eventually("the thread returns", || thread.is_finished());
    assert_eq!(thread.join().unwrap(), Ok(expected));
}

/// Publishes an event that blocks the write to a client that does not read.
fn block_write(publisher: &Publisher) {
    publisher.publish("x".repeat(LARGE));
    eventually("its write has begun", || publisher.channel_stats("default channel").queued == 0);
}

#[test]
fn a_client_that_does_not_read_ends_its_stream_after_the_timeout_of_the_socket() {
    let publisher = Publisher::new();
    let (mut client, socket) = connection();
    socket.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let thread = written(&publisher, socket);
    block_write(&publisher);
    returns(thread, EndCause::WriteTimedOut);
    assert_eq!(publisher.stats().ended.write_timed_out, 1);
    // The socket is shut down after what its buffers held.
    let read = client.read_to_end(&mut Vec::new()).unwrap_or(0);
    assert!(read < LARGE);
}

#[test]
fn the_end_of_a_shutdown_frees_a_blocked_thread() {
    let publisher = Publisher::new();
    let (_client, socket) = connection();
    let thread = written(&publisher, socket);
    block_write(&publisher);
    assert_eq!(publisher.shutdown(Duration::from_millis(50)), 1);
    returns(thread, EndCause::Closed);
}

#[test]
fn an_end_at_once_frees_a_blocked_thread() {
    let publisher = Publisher::builder().max_queued_events(2).build().unwrap();
    let end_by = |end: &dyn Fn(), cause| {
        let (_client, socket) = connection();
        let thread = written(&publisher, socket);
        block_write(&publisher);
        end();
        returns(thread, cause);
    };
    end_by(&|| assert_eq!(publisher.disconnect_if(|()| true), 1), EndCause::Disconnected);
    let fill_queue = || {
        for _ in 0..3 {
            publisher.publish("x");
        }
    };
    end_by(&fill_queue, EndCause::QueueFull);
}

#[test]
fn other_sockets_and_buffered_ones_are_recognized() {
    let publisher = Publisher::new();
    let frees = |writer: Box<dyn FnOnce() -> JoinHandle<Result<EndCause, ErrorKind>>>| {
        let thread = writer();
        block_write(&publisher);
        assert_eq!(publisher.disconnect_if(|()| true), 1);
        returns(thread, EndCause::Disconnected);
    };
    let of = |publisher: &Publisher| publisher.clone();
    let (_client, socket) = connection();
    let own = of(&publisher);
    frees(Box::new(move || written(&own, BufWriter::new(socket))));
    #[cfg(unix)]
    {
        let (_client, socket) = std::os::unix::net::UnixStream::pair().unwrap();
        let own = of(&publisher);
        frees(Box::new(move || written(&own, socket)));
        let (_client, socket) = std::os::unix::net::UnixStream::pair().unwrap();
        let own = of(&publisher);
        frees(Box::new(move || written(&own, BufWriter::new(socket))));
    }
    let (_client, socket) = connection();
    let (ended, end) = std::sync::mpsc::channel();
    let options = BackgroundOptions::new().write_timeout(Duration::from_millis(50));
    let options = options.on_end(move |cause| ended.send(cause).unwrap());
    let subscription = publisher.subscribe().unwrap();
    subscription.write_in_background_with_options(BufWriter::new(socket), options).unwrap();
    block_write(&publisher);
    assert_eq!(end.recv_timeout(PATIENCE), Ok(EndCause::WriteTimedOut));
}

#[test]
fn what_a_buffered_socket_holds_comes_first() {
    for in_background in [false, true] {
        let publisher = Publisher::new();
        let (mut client, socket) = connection();
        let mut socket = BufWriter::new(socket);
        socket.write_all(b"the head\r\n\r\n").unwrap();
        let subscription = publisher.subscribe().unwrap();
        publisher.publish("hello");
        publisher.close();
        if in_background {
            subscription.write_in_background(socket).unwrap();
        } else {
            assert_eq!(subscription.write_to(socket).unwrap(), EndCause::Closed);
        }
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "the head\r\n\r\ndata: hello\n\n");
    }
}

#[test]
fn a_non_blocking_socket_is_made_blocking() {
    let publisher = Publisher::new();
    let (mut client, socket) = connection();
    socket.set_nonblocking(true).unwrap();
    let thread = written(&publisher, socket);
    publisher.publish("x".repeat(LARGE));
    publisher.close();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), "data: \n\n".len() + LARGE);
    returns(thread, EndCause::Closed);
}

#[test]
fn a_lost_connection_is_an_error() {
    let publisher = Publisher::new();
    let (client, socket) = connection();
    let thread = written(&publisher, socket);
    drop(client);
    eventually("a write fails", || {
        publisher.publish("x");
        thread.is_finished()
    });
    let error = thread.join().unwrap().unwrap_err();
    assert!([ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&error), "{error}");
    assert_eq!(publisher.stats().ended.connection_lost, 1);
}

#[test]
fn a_replaced_stream_is_sent_its_last_block() {
    let settings = Publisher::builder().max_subscribers_per_quota_key(1);
    let publisher = settings.quota_policy(QuotaPolicy::DisconnectOldest).build().unwrap();
    let mut before: Option<(TcpStream, JoinHandle<_>)> = None;
    for _ in 0..50 {
        let (client, socket) = connection();
        let thread = written(&publisher, socket);
        if let Some((mut client, thread)) = before.replace((client, thread)) {
            returns(thread, EndCause::Replaced);
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert!(text.starts_with("retry: ") && text.ends_with("\n\n"), "{text:?}");
        }
    }
}

#[test]
fn a_replaced_stream_that_is_blocked_is_freed() {
    let settings = Publisher::builder().max_subscribers_per_quota_key(1);
    let publisher = settings.quota_policy(QuotaPolicy::DisconnectOldest).build().unwrap();
    let (_client, socket) = connection();
    let thread = written(&publisher, socket);
    block_write(&publisher);
    let _newer = publisher.subscription(()).quota_key("Ada").open().unwrap();
    returns(thread, EndCause::Replaced);
}
