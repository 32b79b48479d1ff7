//! The end hook can do anything.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::*;

#[test]
fn the_hook_may_use_the_publisher_and_may_panic() {
    let publisher = Publisher::new();
    let (ended, end) = channel();
    let inside = publisher.clone();
    let options = BackgroundOptions::new().on_end(move |_| {
        inside.publish("x");
        inside.close();
        inside.unsubscribe_if("default channel", |()| true);
        ended.send((inside.stats().subscribers, inside.subscriber_properties("default channel").len())).unwrap();
        panic!("a panic that belongs to this test");
    });
    publisher.subscribe().unwrap().write_in_background_with_options(Kept::default(), options).unwrap();
    publisher.close();
    assert_eq!(end.recv_timeout(PATIENCE), Ok((0, 0)));
    // All threads still exist.
    let kept = Kept::default();
    publisher.subscribe().unwrap().write_in_background(kept.clone()).unwrap();
    publisher.publish("after");
    kept.becomes("data: after\n\n");
}

#[test]
fn queued_events_are_dropped_before_the_end_hook_is_called() {
    /// Fails once it may.
    struct Breaks(Sender<()>, Receiver<()>);
    impl Write for Breaks {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.0.send(()).unwrap();
            self.1.recv().unwrap();
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let publisher = Publisher::new();
    let ((is_in, inside), (breaks, broken), (ended, end)) = (channel(), channel(), channel());
    let captured = Arc::new(());
    let left = Arc::downgrade(&captured);
    let options = BackgroundOptions::new().on_end(move |_| ended.send(left.strong_count()).unwrap());
    publisher.subscribe().unwrap().write_in_background_with_options(Breaks(is_in, broken), options).unwrap();
    publisher.publish("one");
    inside.recv_timeout(PATIENCE).unwrap();
    publisher.publish_with("default channel", move |()| Some(Event::new(format!("{captured:?}"))));
    breaks.send(()).unwrap();
    assert_eq!(end.recv_timeout(PATIENCE), Ok(0));
}

#[test]
fn hooks_that_block_hold_up_no_other_stream() {
    let publisher = Publisher::new();
    let kept = Kept::default();
    publisher.subscribe().unwrap().write_in_background(kept.clone()).unwrap();
    // More than there are processors, and so idle threads.
    let hooks = std::thread::available_parallelism().map_or(1, usize::from) + 2;
    let (is_in, inside) = channel();
    let gates: Vec<Sender<()>> = (0..hooks)
        .map(|_| {
            let (gate, opens) = channel();
            let (is_in, subscription) = (is_in.clone(), publisher.subscribe().unwrap());
            let (handle, options) = (subscription.handle(), BackgroundOptions::new());
            let options = options.on_end(move |_| {
                is_in.send(()).unwrap();
                let _ = opens.recv();
            });
            subscription.write_in_background_with_options(io::sink(), options).unwrap();
            handle.close();
            inside.recv_timeout(PATIENCE).expect("a hook waits for another");
            gate
        })
        .collect();
    publisher.publish("meanwhile");
    kept.becomes("data: meanwhile\n\n");
    drop(gates);
}
