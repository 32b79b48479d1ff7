//! Tests of delivery, through the pool.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Output, Writer};
use crate::queue::{NonBlockingWrite, Readiness};
use crate::{EndCause, Event, Publisher};

/// Takes so many bytes, then fails for ever, and says whether it was asked again.
struct Breaks {
    taken: Arc<Mutex<Vec<u8>>>,
    after: usize,
    asked_again: Arc<AtomicBool>,
    broken: bool,
}

impl Write for Breaks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.asked_again.fetch_or(self.broken, SeqCst);
        let mut taken = self.taken.lock();
        let room = self.after - taken.len();
        if room == 0 {
            self.broken = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let some = bytes.len().min(room).min(7);
        taken.extend_from_slice(&bytes[..some]);
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.asked_again.fetch_or(self.broken, SeqCst);
        Ok(())
    }
}

/// What is written of a chunked stream with a head, when the writer breaks after so many bytes.
fn written(after: usize) -> Vec<u8> {
    let publisher = Publisher::new();
    let subscription = publisher.subscription(()).initial_data(["one", "two"]).open().unwrap();
    let (ended, end) = std::sync::mpsc::channel();
    let (taken, asked_again) = (Arc::default(), Arc::default());
    let writer = Breaks { taken: Arc::clone(&taken), after, asked_again: Arc::clone(&asked_again), broken: false };
    let to = Output {
        writer: Writer::Blocks(Box::new(writer), None),
        write_timeout: None,
        head: b"HEAD".to_vec(),
        chunked: true,
        can_refuse: false,
        on_end: Some(Box::new(move |cause| ended.send(cause).unwrap())),
    };
    subscription.write(to).unwrap();
    publisher.publish(Event::new("three"));
    publisher.close();
    end.recv().unwrap();
    assert!(!asked_again.load(SeqCst), "written to again after an error");
    assert_eq!(publisher.stats().subscribers, 0);
    Arc::try_unwrap(taken).expect("the writer was not dropped before the hook").into_inner()
}

#[test]
fn a_broken_chunk_is_never_followed_by_more() {
    let chunks = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).unwrap().strip_prefix("HEAD").unwrap().to_owned();
        let (mut body, mut rest) = (String::new(), &*text);
        while let Some((size, after)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).unwrap();
            body.push_str(&after[..size]);
            rest = after[size..].strip_prefix("\r\n").unwrap();
        }
        assert_eq!(rest, "");
        body
    };
    let whole = written(usize::MAX);
    assert_eq!(chunks(&whole), "data: one\n\ndata: two\n\ndata: three\n\n");
    for after in 4..40 {
        let part = written(after);
        assert_eq!(part.len(), after);
        // What was queued together may differ, and so where chunks begin and their sizes, but not the text between.
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).replace(|c: char| c.is_ascii_hexdigit() || c.is_whitespace(), "")
        };
        assert!(text(&whole).starts_with(&text(&part)), "{part:?}");
    }
}

#[test]
fn a_stream_that_is_aborted_while_it_is_filled_does_not_park() {
    let publisher = Publisher::new();
    let subscription = publisher.subscribe().unwrap();
    let handle = subscription.handle();
    let (ended, end) = std::sync::mpsc::channel();
    let (is_in, inside) = std::sync::mpsc::channel();
    let (goes_on, go_on) = std::sync::mpsc::channel();
    let (is_in, go_on) = (Mutex::new(is_in), Mutex::new(go_on));
    publisher.publish_with("default channel", move |()| {
        is_in.lock().send(()).unwrap();
        go_on.lock().recv().unwrap();
        Some(Event::new("one"))
    });
    let to = Output {
        writer: Writer::Parks(Narrow::new(0)),
        write_timeout: None,
        head: Vec::new(),
        chunked: true,
        can_refuse: false,
        on_end: Some(Box::new(move |cause| ended.send(cause).unwrap())),
    };
    subscription.write(to).unwrap();
    inside.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(handle.disconnect());
    goes_on.send(()).unwrap();
    assert_eq!(end.recv_timeout(Duration::from_secs(20)), Ok(EndCause::Disconnected));
}

/// Takes so many bytes and then no more until it may take all, and counts how often that was asked for in vain.
struct Narrow {
    taken: Mutex<Vec<u8>>,
    room: AtomicUsize,
    refused: AtomicUsize,
    readiness: Readiness,
}

impl Narrow {
    fn new(room: usize) -> Arc<Self> {
        let (taken, refused) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self { taken, room: room.into(), refused, readiness: Readiness::new() })
    }
}

impl NonBlockingWrite for Narrow {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = self.taken.lock();
        let some = bytes.len().min(self.room.load(SeqCst) - taken.len());
        if some == 0 {
            self.refused.fetch_add(1, SeqCst);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        taken.extend_from_slice(&bytes[..some]);
        Ok(some)
    }

    fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    fn finished(&self, _: bool) {}
}

#[test]
fn events_queued_for_a_parked_stream_follow_its_unwritten_rest() {
    let eventually = |condition: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(20));
            thread::yield_now();
        }
    };
    for room in 0..11 {
        let publisher = Publisher::builder().heartbeat(None).build().unwrap();
        let narrow = Narrow::new(room);
        let to = Output {
            writer: Writer::Parks(Arc::clone(&narrow) as Arc<dyn NonBlockingWrite>),
            write_timeout: None,
            head: Vec::new(),
            chunked: false,
            can_refuse: false,
            on_end: None,
        };
        let subscription = publisher.subscribe().unwrap();
        subscription.write(to).unwrap();
        publisher.publish("one");
        // It has seen its queue empty behind that.
        eventually(&|| narrow.refused.load(SeqCst) > 0);
        publisher.publish("two");
        narrow.room.store(usize::MAX, SeqCst);
        narrow.readiness.set_ready();
        eventually(&|| *narrow.taken.lock() == b"data: one\n\ndata: two\n\n");
    }
}
