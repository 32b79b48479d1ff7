//! IDs of the application's own.

use super::*;

#[test]
fn an_own_id_is_sent_and_found_again() {
    let publisher = with(History::new());
    let mut subscription = publisher.subscribe().unwrap();
    assert_eq!(publisher.publish(own("1", "x")).id(), Some("x"));
    assert!(text(&mut subscription).ends_with("data: 1\nid: x\n\n"));
    publisher.publish("2");
    assert_eq!(replay(&publisher, ["default channel"], "x"), ["2"]);
}

/// Of two equal IDs it is unknown which event a client saw: the events in between must not be skipped.
#[test]
fn of_equal_own_ids_the_oldest_counts_and_once_it_is_evicted_the_answer_is_a_gap() {
    let publisher = with(History::new().max_events_per_channel(3));
    for event in [own("1", "x"), own("2", "y"), own("3", "x")] {
        publisher.publish_to("a", event);
    }
    assert_eq!(replay(&publisher, ["a"], "x"), ["2", "3"]);
    publisher.publish_to("a", "4");
    assert_eq!(replay(&publisher, ["a"], "x"), ["GAP", "2", "3", "4"], "the first of the two was evicted");
    publisher.publish_to("a", own("5", "x"));
    publisher.publish_to("a", own("6", "y"));
    assert_eq!(replay(&publisher, ["a"], "x"), ["GAP", "4", "5", "6"], "it is equal to the second");
    assert_eq!(replay(&publisher, ["a"], "y"), [""; 0], "the only retained one, and the first was evicted long ago");
}

#[test]
fn an_own_id_counts_in_the_channels_of_the_subscriber_only() {
    let publisher = with(History::new());
    for (job, steps) in [("job 1", 6), ("job 2", 4)] {
        for step in 1..=steps {
            publisher.publish_to(job, own(&format!("{job}, step {step}"), &step.to_string()));
        }
    }
    assert_eq!(replay(&publisher, ["job 1"], "3"), ["job 1, step 4", "job 1, step 5", "job 1, step 6"]);
    assert_eq!(replay(&publisher, ["job 2"], "3"), ["job 2, step 4"]);
    assert_eq!(replay(&publisher, ["job 3"], "3"), ["GAP"], "it was not published there");
    let both = replay(&publisher, ["job 1", "job 2"], "3");
    assert_eq!(both.len(), 7, "from the older of the two on: {both:?}");
}

#[test]
fn an_own_id_that_looks_like_one_of_the_history_never_skips_an_event() {
    let (publisher, ids) = published(3);
    publisher.publish_to("a", own("4", &ids[0]));
    assert_eq!(replay(&publisher, ["a"], &ids[0]), ["data 2", "data 3", "4"]);
}
