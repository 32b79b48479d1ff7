//! A client that reconnects resumes after the last event it saw, whichever way it sends the ID.

use super::servers::{Site, Start};
use server_sent_events::{History, Publisher};

promises! {
    [tiny_http rouille event_server] {
        the_last_event_id_is_found_in_the_header_or_in_the_query,
        a_client_that_reconnects_gets_what_it_missed,
    }
}

fn the_last_event_id_is_found_in_the_header_or_in_the_query(start: Start) {
    const QUERY: &str = "?a=b&lastEventId=from%20query+x";
    let server = start(Site::new());
    for (query, header, id) in [
        ("", "", None),
        ("", "last-event-id: 7-1\r\n", Some("7-1")),
        ("", "Last-Event-ID:\r\n", None),
        (QUERY, "", Some("from query x")),
        // The header is the newer one.
        (QUERY, "Last-Event-ID: 7-1\r\n", Some("7-1")),
        (QUERY, "Last-Event-ID:\r\n", Some("from query x")),
        ("?a=b&lastEventId=7%2D1=&x", "", Some("7-1=")),
        ("?lastEventId=", "", None),
        ("?lastEventId=%ff", "", Some("\u{fffd}")),
    ] {
        let mut client =
            server.ask("GET", &format!("/last-event-id{query}"), &format!("{header}Connection: close\r\n"));
        client.reads_head();
        assert_eq!(client.reads_all().trim_end(), format!("{id:?}"), "{query:?} {header:?}");
    }
}

fn a_client_that_reconnects_gets_what_it_missed(start: Start) {
    let server = start(Site::with(Publisher::builder().heartbeat(None).history(History::new())));
    let mut before = server.begun("/");
    let begin = before.next_event().unwrap();
    assert!(begin.starts_with("id: "), "{begin}");
    server.publisher.publish_to("/", "seen");
    let seen = before.next_event().unwrap();
    let id = seen.strip_prefix("data: seen\nid: ").unwrap().trim();
    drop(before);
    server.publisher.publish_to("/", "missed");
    let missed = format!("data: missed\nid: {}\n\n", server.publisher.last_event_id().unwrap());

    let mut by_header = server.ask("GET", "/", &format!("Last-Event-ID: {id}\r\n"));
    by_header.reads_until(&format!(":\nid: {id}\n\n{missed}"));
    let mut by_query = server.begun(&format!("/?lastEventId={id}"));
    by_query.gets_event(&format!("id: {id}\n\n"));
    by_query.gets_event(&missed);
}
