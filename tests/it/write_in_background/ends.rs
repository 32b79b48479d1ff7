//! Each way in which a stream in the background ends.

use std::io::{ErrorKind, Read};
use std::time::Duration;

use super::*;
use server_sent_events::InvalidSetting;

#[test]
fn a_socket_is_closed_at_the_end() {
    let publisher = Publisher::new();
    let (mut client, connection) = connection();
    publisher.subscribe().unwrap().write_in_background(connection).unwrap();
    publisher.publish("bye");
    publisher.close();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "data: bye\n\n");
}

#[test]
fn closing_ends_the_stream_with_its_cause() {
    let publisher = Publisher::new();
    let (options, end) = with_end_hook();
    publisher.subscribe().unwrap().write_in_background_with_options(Kept::default(), options).unwrap();
    publisher.close();
    ended(&end, EndCause::Closed);
}

#[test]
fn dropping_the_last_handle_ends_the_stream_after_its_queued_events() {
    let publisher = Publisher::new();
    let (options, end) = with_end_hook();
    let kept = Kept::default();
    publisher.subscribe().unwrap().write_in_background_with_options(kept.clone(), options).unwrap();
    publisher.publish("the last word");
    drop(publisher);
    ended(&end, EndCause::Closed);
    assert_eq!(kept.text(), "data: the last word\n\n");
}

#[test]
fn a_stream_handed_over_after_the_publisher_has_gone_is_written_to_its_end() {
    let publisher = Publisher::new();
    let (options, end) = with_end_hook();
    let kept = Kept::default();
    let subscription = publisher.subscribe().unwrap();
    publisher.publish("the last word");
    drop(publisher);
    subscription.write_in_background_with_options(kept.clone(), options).unwrap();
    ended(&end, EndCause::Closed);
    assert_eq!(kept.text(), "data: the last word\n\n");
}

#[test]
fn unsubscribing_ends_the_stream_with_its_cause() {
    let publisher = Publisher::new();
    let (options, end) = with_end_hook();
    publisher.subscribe().unwrap().write_in_background_with_options(Kept::default(), options).unwrap();
    publisher.unsubscribe_if("default channel", |()| true);
    ended(&end, EndCause::Unsubscribed);
    assert_eq!(publisher.stats().ended.unsubscribed, 1);
}

#[test]
fn a_lost_connection_ends_the_stream_with_its_cause() {
    let publisher = Publisher::new();
    let (options, end) = with_end_hook();
    let (client, connection) = connection();
    publisher.subscribe().unwrap().write_in_background_with_options(connection, options).unwrap();
    drop(client);
    eventually("a write fails", || {
        publisher.publish("x");
        publisher.stats().subscribers == 0
    });
    let cause = end.recv_timeout(PATIENCE).unwrap();
    let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].map(EndCause::ConnectionLost);
    assert!(kinds.contains(&cause), "{cause:?}");
    assert_eq!(publisher.stats().ended.connection_lost, 1);
}

#[test]
fn a_full_queue_ends_a_blocked_write() {
    let publisher = Publisher::builder().max_queued_events(4).build().unwrap();
    let (options, end) = with_end_hook();
    let (_client, connection) = connection();
    let options = options.write_timeout(None);
    publisher.subscribe().unwrap().write_in_background_with_options(connection, options).unwrap();
    let large = "x".repeat(1_000_000);
    eventually("the client's stream is ended", || {
        publisher.publish(&large);
        publisher.stats().ended.queue_full == 1
    });
    // It was blocked in a write without a timeout; the end of its stream releases it all the same.
    ended(&end, EndCause::QueueFull);
}

#[test]
fn a_write_beyond_its_timeout_ends_the_stream() {
    let publisher = Publisher::new();
    let (options, end) = with_end_hook();
    let (mut client, connection) = connection();
    let options = options.write_timeout(Duration::from_millis(50));
    publisher.subscribe().unwrap().write_in_background_with_options(connection, options).unwrap();
    publisher.publish("x".repeat(20_000_000));
    ended(&end, EndCause::WriteTimedOut);
    assert_eq!(publisher.stats().ended.write_timed_out, 1);
    assert_eq!(publisher.stats().subscribers, 0);
    // What the kernel has buffered is still delivered, and then the client sees the end.
    let taken = client.read_to_end(&mut Vec::new()).unwrap_or(0);
    assert!(taken < 20_000_000);
}

#[test]
fn a_write_timeout_of_zero_is_rejected() {
    let publisher = Publisher::new();
    let options = BackgroundOptions::new().write_timeout(Duration::ZERO);
    let error = publisher.subscribe().unwrap().write_in_background_with_options(Kept::default(), options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "`write_timeout` must be greater than 0, or None");
    let setting = error.get_ref().and_then(|error| error.downcast_ref::<InvalidSetting>()).map(InvalidSetting::setting);
    assert_eq!(setting, Some("write_timeout"));
    assert_eq!(publisher.stats().subscribers, 0);
}
