//! The tests of an application that publishes the progress of jobs, one channel each.

use std::time::Duration;

use server_sent_events::test_util::{StalledClient, TestClient, TestClock, wait_for_subscribers};
use server_sent_events::{BuildError, Event, EventError, History, Publisher};

fn jobs(clock: TestClock) -> Result<Publisher, BuildError> {
    let history = History::new().max_age(Duration::from_secs(600));
    Publisher::builder().history(history).max_queued_events(2).clock(clock).build()
}

fn report(jobs: &Publisher, job: &str, percent: u8) -> Result<(), EventError> {
    let event_type = if percent == 100 { "done" } else { "progress" };
    jobs.publish_to(job, Event::new(percent.to_string()).event(event_type)?);
    Ok(())
}

#[test]
fn a_watcher_sees_its_own_job() {
    let jobs = jobs(TestClock::new()).unwrap();
    let mut watcher = TestClient::new(jobs.subscribe_to("job 1").unwrap());
    report(&jobs, "job 1", 50).unwrap();
    report(&jobs, "job 2", 70).unwrap();
    report(&jobs, "job 1", 100).unwrap();
    assert_eq!(watcher.next_message().data, "50");
    assert_eq!(watcher.next_message().event_type, "done");
    watcher.assert_nothing();
}

#[test]
fn a_watcher_that_returns_late_gets_a_gap() {
    let clock = TestClock::new();
    let jobs = jobs(clock).unwrap();
    let mut watcher = TestClient::new(jobs.subscribe_to("job 1").unwrap());
    report(&jobs, "job 1", 10).unwrap();
    let id = watcher.next_message().id;
    drop(watcher);
    report(&jobs, "job 1", 20).unwrap();
    clock.advance(Duration::from_secs(601));
    let again = jobs.subscription(()).channels("job 1").last_event_id(id).open().unwrap();
    assert!(TestClient::new(again).next_message().is_gap());
}

#[test]
fn a_watcher_that_does_not_read_is_disconnected() {
    let jobs = jobs(TestClock::new()).unwrap();
    let stalled = StalledClient::new();
    jobs.subscribe_to("job 1").unwrap().write_in_background(stalled.writer()).unwrap();
    stalled.wait_until_blocked();
    for percent in 1..=3 {
        report(&jobs, "job 1", percent).unwrap();
    }
    assert_eq!(jobs.stats().ended.queue_full, 1);
    drop(stalled);
    wait_for_subscribers(&jobs, 0);
}
