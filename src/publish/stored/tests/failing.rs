//! Stores that fail, panic, or do not end, and events that they do not take.

use parking_lot::Mutex;

use super::*;
use crate::publish::stored::CLOSING_PATIENCE;

/// Notes the name of the thread that drops it.
struct Watched(Arc<Mutex<Option<String>>>);

impl Drop for Watched {
    fn drop(&mut self) {
        *self.0.lock() = Some(thread::current().name().unwrap_or_default().to_owned());
    }
}

#[test]
fn a_store_that_does_not_end_is_waited_for_once_and_drops_no_closure_of_the_application() {
    let disk = Disk::new(100);
    let publisher = Publisher::builder().history(History::new().store(disk.clone())).on_end(|_| {}).build().unwrap();
    let subscriptions: Vec<_> = (0..4).map(|_| publisher.subscribe_to("a").unwrap()).collect();
    let dropped_by = Arc::default();
    let captured = Watched(Arc::clone(&dropped_by));
    publisher.publish_with("b", move |_| {
        let _ = &captured;
        None
    });
    publisher.flush(LONG).unwrap();
    disk.block(true);
    publisher.publish_to("a", "never stored");
    let started = Instant::now();
    drop(publisher);
    drop(subscriptions);
    let waited = started.elapsed();
    disk.block(false);
    // Not once for each of the five that were dropped.
    assert!(waited < 4 * CLOSING_PATIENCE, "{waited:?}");
    wait_until("the history is dropped", || dropped_by.lock().is_some());
    assert_eq!(dropped_by.lock().as_deref(), Some("sse writer"));
}

#[test]
fn a_panic_of_the_store_breaks_it_as_an_error_does() {
    let disk = Disk::new(100);
    let publisher = on(&disk);
    let seen = confirmed(&publisher, "a", "stored");
    let mut subscription = publisher.subscribe_to("a").unwrap();
    disk.panic_next();
    assert_eq!(publisher.publish_confirmed("a", "1", LONG), Err(PublishError::Broken));
    assert!(matches!(publisher.store_state(), Some(StoreState::Broken { reason }) if reason.contains("panicked")));
    assert!(!publisher.publish_to("a", "2").is_refused());
    assert_eq!(publisher.flush(LONG), Err(PublishError::Broken));
    assert_eq!(data(&mut subscription), ["1", "2"]);
    publisher.close();
    assert_eq!(subscription.next(), None);
    drop(publisher);
    assert_eq!(resumption(&on(&disk), &seen), Resumption::Gap);
}

#[test]
fn a_store_that_fails_while_no_event_comes_is_broken_at_once() {
    let disk = Disk::new(100);
    let publisher = on(&disk);
    confirmed(&publisher, "a", "stored");
    let mut subscription = publisher.subscribe_to("a").unwrap();
    disk.fail_in_the_background();
    let is_broken =
        || matches!(publisher.store_state(), Some(StoreState::Broken { reason }) if reason.contains("space"));
    wait_until("it is broken", is_broken);
    publisher.publish_to("a", "live only");
    assert_eq!(publisher.flush(LONG), Err(PublishError::Broken));
    assert_eq!(data(&mut subscription), ["live only"]);
    assert_eq!((disk.events(), publisher.stats().store.events_not_stored), (1, 1));
}

#[test]
fn an_event_that_is_too_large_for_the_store_is_refused_alone() {
    let disk = Disk::new(100);
    let publisher = on(&disk);
    let large = "x".repeat(Disk::MAX_EVENT_BYTES);
    assert!(publisher.publish_to("a", large.as_str()).is_refused());
    assert_eq!(publisher.publish_confirmed("a", large.as_str(), LONG), Err(PublishError::TooLarge));
    let with_key = Event::new("small").key(large.as_str());
    assert_eq!(publisher.publish_confirmed("a", with_key, LONG), Err(PublishError::TooLarge));
    assert_eq!(publisher.publish_confirmed(large.as_str(), "small", LONG), Err(PublishError::TooLarge));
    confirmed(&publisher, "a", "small");
    let stats = publisher.stats().store;
    assert_eq!((stats.events_refused, stats.events_stored), (4, 1));
    assert_eq!(publisher.store_state(), Some(StoreState::Running { pending: 0 }));
}
