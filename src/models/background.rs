//! Streams in the background: Schedule, Queue and the passes of a writer thread.

use std::sync::Arc;

use super::{Recorder, Written, explore, frames, publish, publisher};
use crate::deliver::WriterPool;
use crate::sync::thread;
use crate::{EndCause, Publisher, Subscription};

/// A publisher with a subscriber, and its pool with one writer thread.
pub(super) fn start() -> (Publisher, Subscription, Arc<WriterPool>) {
    let publisher = publisher();
    let subscription = publisher.subscribe().unwrap();
    let pool = subscription.pool();
    pool.start_unsupervised();
    (publisher, subscription, pool)
}

/// Runs this on another thread of the model.
pub(super) fn meanwhile<T: 'static>(
    publisher: &Publisher,
    call: impl FnOnce(&Publisher) -> T + 'static,
) -> thread::JoinHandle<T> {
    let publisher = publisher.clone();
    thread::spawn(move || call(&publisher))
}

#[test]
fn a_stream_that_is_handed_over_while_events_are_published_gets_each_of_them_once_in_order() {
    explore(|| {
        let (publisher, subscription, pool) = start();
        let publishing = meanwhile(&publisher, |publisher| publish(publisher, &["1", "2"]));
        let written = Written::default();
        let end = written.write(subscription, Recorder(written.clone()));
        assert_eq!(publishing.join().unwrap(), 2);
        publisher.close();
        end.recv().unwrap();
        assert_eq!((written.end_cause(), written.text()), (EndCause::Closed, frames(&["1", "2"])));
        pool.end_unsupervised();
    });
}

#[test]
fn a_stream_that_is_handed_over_while_it_is_closed_gets_what_was_queued() {
    explore(|| {
        let (publisher, subscription, pool) = start();
        publish(&publisher, &["1"]);
        let closing = meanwhile(&publisher, Publisher::close);
        let written = Written::default();
        let end = written.write(subscription, Recorder(written.clone()));
        closing.join().unwrap();
        end.recv().unwrap();
        assert_eq!((written.end_cause(), written.text()), (EndCause::Closed, frames(&["1"])));
        pool.end_unsupervised();
    });
}

#[test]
fn a_stream_that_is_handed_over_while_it_is_disconnected_ends_once() {
    explore(|| {
        let (publisher, subscription, pool) = start();
        publish(&publisher, &["1"]);
        let handle = subscription.handle();
        let disconnecting = meanwhile(&publisher, move |_| handle.disconnect());
        let written = Written::default();
        let end = written.write(subscription, Recorder(written.clone()));
        end.recv().unwrap();
        assert!(disconnecting.join().unwrap());
        assert_eq!(written.end_cause(), EndCause::Disconnected);
        assert!(["", &frames(&["1"])].contains(&&*written.text()));
        pool.end_unsupervised();
    });
}

#[test]
fn a_stream_that_is_closed_while_events_are_published_gets_those_before_the_close() {
    explore(|| {
        let (publisher, subscription, pool) = start();
        let written = Written::default();
        let end = written.write(subscription, Recorder(written.clone()));
        let publishing = meanwhile(&publisher, |publisher| publish(publisher, &["1"]));
        publisher.close();
        end.recv().unwrap();
        let accepted = publishing.join().unwrap();
        assert_eq!((written.end_cause(), written.text()), (EndCause::Closed, frames(&["1"][..accepted])));
        pool.end_unsupervised();
    });
}

#[test]
fn a_stream_that_is_disconnected_while_events_are_published_ends_once() {
    explore(|| {
        let (publisher, subscription, pool) = start();
        let handle = subscription.handle();
        let written = Written::default();
        let end = written.write(subscription, Recorder(written.clone()));
        let publishing = meanwhile(&publisher, |publisher| publish(publisher, &["1"]));
        assert!(handle.disconnect());
        end.recv().unwrap();
        let accepted = publishing.join().unwrap();
        assert_eq!(written.end_cause(), EndCause::Disconnected);
        assert!(["", &frames(&["1"][..accepted])].contains(&&*written.text()));
        pool.end_unsupervised();
    });
}
