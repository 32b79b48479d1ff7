//! The pool with its supervisor: several writer threads, blocked writes, calls, and the pool's end.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Recorder, Written, explore, frames, publish, settings};
use crate::deliver::WriterPool;
use crate::sync::channel::{Receiver, bounded};
use crate::sync::thread;
use crate::{EndCause, Publisher, Subscription};

/// A writer that is only ever in one thread's hands. It can be blocked until it receives a message.
struct Exclusive {
    recorder: Recorder,
    is_writing: AtomicBool,
    blocked_until: Option<Receiver<()>>,
}

impl Exclusive {
    fn new(written: &Written) -> Self {
        Self { recorder: Recorder(written.clone()), is_writing: AtomicBool::new(false), blocked_until: None }
    }
}

impl Write for Exclusive {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.is_writing.swap(true, SeqCst), "two threads write");
        thread::yield_now();
        if let Some(release) = self.blocked_until.take() {
            release.recv().unwrap();
        }
        self.is_writing.store(false, SeqCst);
        self.recorder.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends the publisher, and waits until its writer threads and the supervisor have ended.
fn end(publisher: Publisher, pool: &Weak<WriterPool>) {
    drop(publisher);
    while pool.strong_count() > 0 {
        thread::yield_now();
    }
}

/// Writes the stream to this writer. Returns what receives a message when the stream has ended.
fn write(subscription: Subscription, writer: Exclusive) -> Receiver<()> {
    writer.recorder.0.clone().write(subscription, writer)
}

#[test]
fn several_streams_get_each_event_once_and_in_one_order_and_then_all_threads_end() {
    explore(|| {
        let publisher = settings().max_writer_threads(4).build().unwrap();
        let streams = [(); 2].map(|()| (publisher.subscribe().unwrap(), Written::default()));
        let pool = Arc::downgrade(&streams[0].0.pool());
        let publishing = publisher.clone();
        let publishing = thread::spawn(move || publish(&publishing, &["1"]));
        let streams = streams.map(|(subscription, written)| (write(subscription, Exclusive::new(&written)), written));
        publish(&publisher, &["2"]);
        publishing.join().unwrap();
        publisher.close();
        let texts = streams.map(|(ended, written)| {
            ended.recv().unwrap();
            assert_eq!(written.end_cause(), EndCause::Closed);
            written.text()
        });
        assert_eq!(texts[0], texts[1]);
        assert!([frames(&["1", "2"]), frames(&["2", "1"])].contains(&texts[0]), "wrote {:?}", texts[0]);
        end(publisher, &pool);
    });
}

#[test]
fn a_blocked_write_does_not_hold_up_another_stream() {
    explore(|| {
        let publisher = settings().max_writer_threads(8).build().unwrap();
        let [blocked, free] = [(); 2].map(|()| (publisher.subscribe().unwrap(), Written::default()));
        let pool = Arc::downgrade(&free.0.pool());
        let (release, released) = bounded(1);
        let mut writer = Exclusive::new(&blocked.1);
        writer.blocked_until = Some(released);
        publish(&publisher, &["1"]);
        let blocked_end = write(blocked.0, writer);
        let free_end = write(free.0, Exclusive::new(&free.1));
        publisher.close();
        free_end.recv().unwrap();
        assert_eq!(free.1.text(), frames(&["1"]));
        release.try_send(()).unwrap();
        blocked_end.recv().unwrap();
        assert_eq!(blocked.1.text(), frames(&["1"]));
        end(publisher, &pool);
    });
}

#[test]
fn streams_that_wait_for_a_start_slot_all_begin() {
    explore(|| {
        // One slot: the first passes run one after the other.
        let publisher = settings().max_writer_threads(2).build().unwrap();
        let streams = [(); 3].map(|()| (publisher.subscribe().unwrap(), Written::default()));
        let pool = Arc::downgrade(&streams[0].0.pool());
        let publishing = publisher.clone();
        let publishing = thread::spawn(move || publish(&publishing, &["1"]));
        let streams = streams.map(|(subscription, written)| (write(subscription, Exclusive::new(&written)), written));
        publishing.join().unwrap();
        publisher.close();
        for (ended, written) in streams {
            ended.recv().unwrap();
            assert_eq!((written.end_cause(), &*written.text()), (EndCause::Closed, &*frames(&["1"])));
        }
        end(publisher, &pool);
    });
}

#[test]
fn a_stream_that_is_disconnected_ends_once_and_the_pool_goes_on() {
    explore(|| {
        let publisher = settings().max_writer_threads(4).build().unwrap();
        let [leaving, staying] = [(); 2].map(|()| (publisher.subscribe().unwrap(), Written::default()));
        let (pool, handle) = (Arc::downgrade(&staying.0.pool()), leaving.0.handle());
        let leaving_end = write(leaving.0, Exclusive::new(&leaving.1));
        let staying_end = write(staying.0, Exclusive::new(&staying.1));
        let disconnecting = thread::spawn(move || handle.disconnect());
        publish(&publisher, &["1", "2"]);
        assert!(disconnecting.join().unwrap());
        publisher.close();
        leaving_end.recv().unwrap();
        staying_end.recv().unwrap();
        assert_eq!(leaving.1.end_cause(), EndCause::Disconnected);
        assert!(frames(&["1", "2"]).starts_with(&leaving.1.text()), "wrote {:?}", leaving.1.text());
        assert_eq!((staying.1.end_cause(), staying.1.text()), (EndCause::Closed, frames(&["1", "2"])));
        end(publisher, &pool);
    });
}

#[test]
fn a_stream_with_a_minimum_interval_loses_nothing() {
    loses_nothing_with_a_minimum_interval(None);
}

#[test]
fn a_stream_with_a_minimum_interval_and_heartbeats_loses_nothing() {
    loses_nothing_with_a_minimum_interval(Some(Duration::from_secs(1)));
}

fn loses_nothing_with_a_minimum_interval(heartbeat: Option<Duration>) {
    explore(move || {
        let interval = Duration::from_secs(1);
        let publisher = settings().heartbeat(heartbeat).min_interval(interval).max_writer_threads(4).build().unwrap();
        let (subscription, written) = (publisher.subscribe().unwrap(), Written::default());
        let pool = Arc::downgrade(&subscription.pool());
        let ended = write(subscription, Exclusive::new(&written));
        let publishing = publisher.clone();
        let publishing = thread::spawn(move || publish(&publishing, &["1"]));
        publish(&publisher, &["2"]);
        publishing.join().unwrap();
        // Its end would wake the stream.
        while written.text().matches("data").count() < 2 {
            thread::yield_now();
        }
        publisher.close();
        ended.recv().unwrap();
        let text: String = written.text().split_inclusive('\n').filter(|line| *line != ":\n").collect();
        assert!([frames(&["1", "2"]), frames(&["2", "1"])].contains(&text), "wrote {text:?}");
        end(publisher, &pool);
    });
}

#[test]
fn every_call_runs_once_and_then_all_threads_end() {
    explore(|| {
        let publisher = settings().max_writer_threads(2).build().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let pool = publisher.subscribe().unwrap().pool();
        let callers = [(); 2].map(|()| {
            let (pool, calls) = (Arc::clone(&pool), Arc::clone(&calls));
            thread::spawn(move || {
                for _ in 0..2 {
                    let calls = Arc::clone(&calls);
                    pool.call(move || {
                        calls.fetch_add(1, SeqCst);
                    });
                }
            })
        });
        let weak = Arc::downgrade(&pool);
        drop(pool);
        end(publisher, &weak);
        for caller in callers {
            caller.join().unwrap();
        }
        assert_eq!(calls.load(SeqCst), 4);
    });
}
