//! Streams whose non-blocking socket takes no more: Readiness, between a writer thread and the event loop.

use std::io;
use std::sync::Arc;

use super::background::{meanwhile, start};
use super::{Written, explore, frames, publish};
use crate::deliver::{Output, Writer};
use crate::queue::{NonBlockingWrite, Readiness};
use crate::sync::Mutex;
use crate::sync::channel::Receiver;
use crate::{EndCause, Subscription};

/// A socket that takes so many bytes, until its client reads them.
struct Narrow {
    room: Mutex<usize>,
    written: Written,
    readiness: Readiness,
}

impl Narrow {
    fn new(room: usize, written: &Written) -> Arc<Self> {
        Arc::new(Self { room: Mutex::new(room), written: written.clone(), readiness: Readiness::new() })
    }

    /// Does what the event loop does once the client has read.
    fn make_room(&self) {
        *self.room.lock() = usize::MAX;
        self.readiness.set_ready();
    }
}

impl NonBlockingWrite for Narrow {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut room = self.room.lock();
        let some = bytes.len().min(*room);
        if some == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        *room -= some;
        drop(room);
        self.written.text.lock().unwrap().push_str(std::str::from_utf8(&bytes[..some]).unwrap());
        Ok(some)
    }

    fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    fn finished(&self, _: bool) {}
}

/// Writes the stream to this socket. Returns what receives a message when the stream has ended.
fn write(subscription: Subscription, socket: &Arc<Narrow>) -> Receiver<()> {
    let (hook, end) = socket.written.hook();
    let output = Output {
        writer: Writer::Parks(Arc::clone(socket) as Arc<dyn NonBlockingWrite>),
        write_timeout: None,
        head: Vec::new(),
        chunked: false,
        can_refuse: false,
        on_end: Some(Box::new(hook)),
    };
    subscription.write(output).unwrap();
    end
}

#[test]
fn a_stream_whose_socket_is_full_continues_once_it_takes_more() {
    explore(|| {
        let (publisher, subscription, pool) = start();
        let socket = Narrow::new(3, &Written::default());
        publish(&publisher, &["1"]);
        let end = write(subscription, &socket);
        let reading = Arc::clone(&socket);
        let reading = meanwhile(&publisher, move |_| reading.make_room());
        publish(&publisher, &["2"]);
        publisher.close();
        end.recv().unwrap();
        reading.join().unwrap();
        assert_eq!((socket.written.end_cause(), socket.written.text()), (EndCause::Closed, frames(&["1", "2"])));
        pool.end_unsupervised();
    });
}

#[test]
fn a_stream_that_is_disconnected_while_its_socket_is_full_ends() {
    explore(|| {
        let (publisher, subscription, pool) = start();
        let (socket, handle) = (Narrow::new(3, &Written::default()), subscription.handle());
        publish(&publisher, &["1"]);
        let end = write(subscription, &socket);
        assert!(handle.disconnect());
        end.recv().unwrap();
        assert_eq!(socket.written.end_cause(), EndCause::Disconnected);
        assert!(frames(&["1"]).starts_with(&socket.written.text()), "wrote {:?}", socket.written.text());
        pool.end_unsupervised();
    });
}

#[test]
fn a_stream_whose_socket_takes_more_while_it_is_disconnected_ends_once() {
    explore(|| {
        let (publisher, subscription, pool) = start();
        let (socket, handle) = (Narrow::new(3, &Written::default()), subscription.handle());
        publish(&publisher, &["1"]);
        let end = write(subscription, &socket);
        let reading = Arc::clone(&socket);
        let reading = meanwhile(&publisher, move |_| reading.make_room());
        assert!(handle.disconnect());
        end.recv().unwrap();
        reading.join().unwrap();
        assert_eq!(socket.written.end_cause(), EndCause::Disconnected);
        assert!(frames(&["1"]).starts_with(&socket.written.text()), "wrote {:?}", socket.written.text());
        pool.end_unsupervised();
    });
}
