//! Each event is a chunk, and a client without chunked encoding gets none.

use super::servers::{Site, Start};
use crate::common::http::{FIRST_CHUNK, HELLO_CHUNK, LAST_CHUNK};

promises! {
    [tiny_http event_server] {
        each_event_is_a_chunk_of_its_own,
        http_1_0_gets_no_chunks_and_ends_by_close,
    }
}

fn each_event_is_a_chunk_of_its_own(start: Start) {
    let server = start(Site::new());
    let mut client = server.get("/");
    client.reads_head();
    client.reads(FIRST_CHUNK);
    for _ in 0..20 {
        server.publisher.publish_to("/", "hello");
        client.reads(HELLO_CHUNK);
    }
    server.publisher.close();
    client.reads(LAST_CHUNK);
}

fn http_1_0_gets_no_chunks_and_ends_by_close(start: Start) {
    let server = start(Site::new());
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let head = client.reads_head();
    assert_eq!((head.values("Transfer-Encoding"), head.values("Connection")), (vec![], vec!["close"]));
    client.reads(":\n");
    server.publisher.publish_to("/", "hello");
    client.reads("data: hello\n\n");
    server.publisher.close();
    client.reads_the_end();
}
