//! `StalledClient`.

use server_sent_events::test_util::{StalledClient, wait_for_subscribers};
use server_sent_events::{BackgroundOptions, EndCause, Publisher};

use crate::common::{PATIENCE, eventually};

#[test]
fn a_client_takes_nothing_until_it_reads() {
    let publisher = Publisher::new();
    let client = StalledClient::new();
    publisher.subscribe().unwrap().write_in_background(client.writer()).unwrap();
    assert!(!client.is_blocked());
    publisher.publish("one");
    client.wait_until_blocked();
    publisher.publish("two");
    assert_eq!(client.messages(), []);
    client.resume();
    publisher.publish("three");
    eventually("all arrive", || client.messages().len() == 3);
    assert_eq!(client.text(), "data: one\n\ndata: two\n\ndata: three\n\n");
    publisher.close();
    client.wait_until_closed();
}

#[test]
fn dropping_the_client_breaks_the_connection() {
    let publisher = Publisher::new();
    let client = StalledClient::new();
    let (sender, cause) = std::sync::mpsc::channel();
    let options = BackgroundOptions::new().on_end(move |cause| sender.send(cause).unwrap());
    publisher.subscribe().unwrap().write_in_background_with_options(client.writer(), options).unwrap();
    publisher.publish("one");
    client.wait_until_blocked();
    drop(client);
    let cause = cause.recv_timeout(PATIENCE).unwrap();
    assert_eq!(cause, EndCause::ConnectionLost(std::io::ErrorKind::BrokenPipe));
    wait_for_subscribers(&publisher, 0);
}
