//! A stream with a minimum interval is sent at most one batch per interval.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::writers::Kept;
use crate::common::{PATIENCE, ends, eventually, gets, gets_data, gets_nothing};
use server_sent_events::{
    BackgroundOptions, EndCause, Event, History, Overflow, Publisher, PublisherBuilder, QuotaPolicy, RecvTimeoutError,
};

/// An interval that does not end during a test.
const HOUR: Duration = Duration::from_secs(3_600);

/// The settings of a publisher whose subscribers get the newest event of each key.
fn newest_each(interval: Duration) -> PublisherBuilder {
    // Without a heartbeat, which would wake the stream too.
    Publisher::builder().overflow(Overflow::LatestPerKey).min_interval(interval).heartbeat(None)
}

fn publish(publisher: &Publisher, data: &str) {
    publisher.publish(Event::new(data).key("k"));
}

/// A writer that stores each write with its time.
#[derive(Clone, Default)]
struct Writes(Arc<Mutex<Vec<(Instant, String)>>>);

impl Write for Writes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push((Instant::now(), String::from_utf8(bytes.to_vec()).unwrap()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_queued_is_sent_together_and_then_nothing_until_the_interval_is_over() {
    let publisher = Publisher::builder().min_interval(HOUR).build().unwrap();
    let mut subscription = publisher.subscribe().unwrap();
    for data in ["1", "2", "3"] {
        publisher.publish(data);
    }
    gets_data(&mut subscription, "1");
    publisher.publish("4");
    gets_data(&mut subscription, "2");
    gets_data(&mut subscription, "3");
    gets_nothing(&mut subscription);
    assert_eq!(subscription.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
    publisher.close();
    // Nothing waits at the end of a stream.
    gets_data(&mut subscription, "4");
    ends(&mut subscription, EndCause::Closed);
}

#[test]
fn the_newest_event_of_a_key_is_sent_after_the_interval() {
    let publisher = newest_each(Duration::from_millis(20)).build().unwrap();
    let mut subscription = publisher.subscribe().unwrap();
    publish(&publisher, "1");
    gets_data(&mut subscription, "1");
    for data in ["2", "3", "4"] {
        publish(&publisher, data);
    }
    gets_data(&mut subscription, "4");
    gets_nothing(&mut subscription);
}

#[test]
fn a_waiting_reader_gets_an_event_as_soon_as_the_interval_allows() {
    let publisher = newest_each(Duration::from_millis(20)).build().unwrap();
    let mut subscription = publisher.subscribe().unwrap();
    let reader = thread::spawn(move || [(); 3].map(|()| subscription.next().unwrap()));
    for data in ["1", "2", "3"] {
        publish(&publisher, data);
        let delivered: u64 = data.parse().unwrap();
        eventually("it is delivered", || publisher.stats().events_delivered == delivered);
    }
    assert_eq!(reader.join().unwrap(), ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"]);
}

#[test]
fn the_end_wakes_a_reader_that_waits_for_the_interval() {
    for at_once in [false, true] {
        let publisher = Publisher::builder().min_interval(HOUR).heartbeat(None).build().unwrap();
        let mut subscription = publisher.subscribe().unwrap();
        let handle = subscription.handle();
        publisher.publish("1");
        gets_data(&mut subscription, "1");
        publisher.publish("2");
        let (sender, received) = channel();
        let reader = thread::spawn(move || {
            sender.send(None).unwrap();
            sender.send(subscription.next()).unwrap();
            subscription.end_cause()
        });
        received.recv().unwrap();
        thread::yield_now();
        assert!(if at_once { handle.disconnect() } else { handle.close() });
        let expected = (!at_once).then(|| "data: 2\n\n".to_owned());
        assert_eq!(received.recv_timeout(PATIENCE), Ok(expected));
        assert_eq!(reader.join().unwrap(), at_once.then_some(EndCause::Disconnected));
    }
}

#[test]
fn a_stream_in_the_background_is_written_once_per_interval() {
    let interval = Duration::from_millis(30);
    let publisher = newest_each(interval).build().unwrap();
    let writes = Writes::default();
    let began = Instant::now();
    publisher.subscribe().unwrap().write_in_background(writes.clone()).unwrap();
    let mut last = 0;
    while began.elapsed() < 10 * interval || writes.0.lock().unwrap().is_empty() {
        last += 1;
        publish(&publisher, &last.to_string());
        thread::sleep(Duration::from_micros(100));
    }
    // Another one after the first write.
    last += 1;
    publish(&publisher, &last.to_string());
    let newest = format!("data: {last}\n\n");
    eventually("the newest is written", || writes.0.lock().unwrap().last().is_some_and(|(_, text)| *text == newest));
    let writes = writes.0.lock().unwrap();
    let most = (began.elapsed().as_millis() / interval.as_millis()) as usize + 1;
    assert!((2..=most).contains(&writes.len()), "{} writes, at most {most} expected", writes.len());
    assert!(writes.iter().all(|(_, text)| text.matches("data: ").count() == 1), "{writes:?}");
}

#[test]
fn a_paused_stream_in_the_background_ends_without_waiting() {
    let publisher = Publisher::builder().min_interval(HOUR).build().unwrap();
    let (kept, (ended, end)) = (Kept::default(), channel());
    let options = BackgroundOptions::new().on_end(move |cause| ended.send(cause).unwrap());
    publisher.subscribe().unwrap().write_in_background_with_options(kept.clone(), options).unwrap();
    publisher.publish("1");
    kept.becomes("data: 1\n\n");
    publisher.publish("2");
    publisher.publish("3");
    assert_eq!(publisher.shutdown(PATIENCE), 0);
    assert_eq!(end.recv_timeout(PATIENCE), Ok(EndCause::Closed));
    assert!(kept.text().starts_with("data: 1\n\ndata: 2\n\ndata: 3\n\nretry: "), "{}", kept.text());
}

#[test]
fn a_paused_stream_is_disconnected_and_replaced_at_once() {
    let settings = Publisher::builder().min_interval(HOUR).max_subscribers_per_quota_key(1);
    let publisher = settings.quota_policy(QuotaPolicy::DisconnectOldest).build().unwrap();
    let (ended, end) = channel();
    let open = |kept: &Kept| {
        let ended = ended.clone();
        let options = BackgroundOptions::new().on_end(move |cause| ended.send(cause).unwrap());
        let subscription = publisher.subscription(()).quota_key("Ada").open().unwrap();
        let handle = subscription.handle();
        subscription.write_in_background_with_options(kept.clone(), options).unwrap();
        handle
    };
    let (first, second) = (Kept::default(), Kept::default());
    open(&first);
    publisher.publish("1");
    first.becomes("data: 1\n\n");
    publisher.publish("dropped");
    let handle = open(&second);
    assert_eq!(end.recv_timeout(PATIENCE), Ok(EndCause::Replaced));
    assert!(first.text().starts_with("data: 1\n\nretry: "));
    publisher.publish("2");
    second.becomes("data: 2\n\n");
    publisher.publish("dropped");
    assert!(handle.disconnect());
    assert_eq!(end.recv_timeout(PATIENCE), Ok(EndCause::Disconnected));
    assert_eq!(second.text(), "data: 2\n\n");
}

#[test]
fn a_pause_that_is_longer_than_the_heartbeat_has_heartbeats_without_an_id() {
    let heartbeat = Duration::from_millis(10);
    let publisher = Publisher::builder().min_interval(HOUR).heartbeat(heartbeat).history(History::new());
    let publisher = publisher.build().unwrap();
    let mut subscription = publisher.subscribe().unwrap();
    assert!(subscription.next().unwrap().starts_with("id: "));
    publisher.publish("1");
    assert!(subscription.next().unwrap().starts_with("data: 1\n"));
    publisher.publish("2");
    // With the ID of "2" the client would never get it.
    gets(&mut subscription, ":\n");
    gets(&mut subscription, ":\n");

    let kept = Kept::default();
    publisher.subscribe().unwrap().write_in_background(kept.clone()).unwrap();
    publisher.publish("3");
    eventually("an event", || kept.text().contains("data: 3\n"));
    publisher.publish("4");
    let written = kept.text();
    eventually("heartbeats", || kept.text().len() > written.len() + ":\n:\n".len());
    assert!(kept.text()[written.len()..].lines().all(|line| line == ":"), "{}", kept.text());
}

#[test]
fn initial_data_and_a_replay_do_not_wait() {
    let publisher = Publisher::builder().min_interval(HOUR).history(History::new()).build().unwrap();
    let start = publisher.last_event_id();
    for n in 0..1_000 {
        publisher.publish(n.to_string());
    }
    let resumed = publisher.subscription(()).last_event_id(start).initial_data(["initial"]);
    let mut resumed = resumed.open().unwrap();
    let frames: Vec<String> = resumed.by_ref().take(1_001).collect();
    assert!(frames[0].starts_with("data: initial\n") && frames[1_000].starts_with("data: 999\n"));
    publisher.publish("live");
    assert!(resumed.next().unwrap().starts_with("data: live\n"), "the first batch does not wait either");
    publisher.publish("later");
    gets_nothing(&mut resumed);
}

#[test]
fn write_to_and_a_reader_keep_the_interval() {
    let interval = Duration::from_millis(30);
    let publisher = newest_each(interval).build().unwrap();
    let (to, mut reader) = (publisher.subscribe().unwrap(), publisher.subscribe().unwrap().into_reader());
    let (writes, reads) = (Writes::default(), Arc::new(AtomicUsize::new(0)));
    let (writer, counts) = (writes.clone(), Arc::clone(&reads));
    let threads = [
        thread::spawn(move || assert_eq!(to.write_to(writer).unwrap(), EndCause::Closed)),
        thread::spawn(move || {
            while matches!(reader.read(&mut [0; 1_000]), Ok(1..)) {
                counts.fetch_add(1, SeqCst);
            }
        }),
    ];
    let began = Instant::now();
    let mut last = 0;
    // The threads may not run at once.
    let have_begun = || reads.load(SeqCst) > 0 && !writes.0.lock().unwrap().is_empty();
    while began.elapsed() < 10 * interval || !have_begun() {
        last += 1;
        publish(&publisher, &last.to_string());
        thread::sleep(Duration::from_micros(100));
    }
    last += 1;
    publish(&publisher, &last.to_string());
    publisher.close();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(reads.load(SeqCst) > 1);
    let writes = writes.0.lock().unwrap();
    // What was queued at the end did not wait.
    let most = (began.elapsed().as_millis() / interval.as_millis()) as usize + 2;
    let events = writes.iter().filter(|(_, text)| !text.is_empty()).count();
    assert!((2..=most).contains(&events), "{events} writes, at most {most} expected");
    assert_eq!(writes.iter().rfind(|(_, text)| !text.is_empty()).unwrap().1, format!("data: {last}\n\n"));
}

#[test]
fn an_interval_of_zero_is_rejected() {
    let error = Publisher::builder().min_interval(Duration::ZERO).build().unwrap_err();
    assert_eq!(error.to_string(), "`min_interval` must be greater than 0, or None");
    let publisher = Publisher::builder().min_interval(HOUR).build().unwrap();
    assert!(publisher.subscription(()).min_interval(Duration::ZERO).open().is_err());
    let mut unlimited = publisher.subscription(()).min_interval(None).open().unwrap();
    for data in ["1", "2"] {
        publisher.publish(data);
        gets_data(&mut unlimited, data);
    }
}
