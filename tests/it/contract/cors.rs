//! A page of another origin that may read a stream may read every refusal too: if a browser hides that, the page never
//! reconnects. No cache gives a response to a page of another origin.

use super::servers::{ORIGIN, Site, Start};
use server_sent_events::Publisher;

promises! {
    [tiny_http rouille event_server] {
        a_page_that_may_read_the_stream_may_read_every_refusal,
    }
}

fn a_page_that_may_read_the_stream_may_read_every_refusal(start: Start) {
    let server = start(Site::with(Publisher::builder().max_subscribers(1).max_channel_name_len(9)).cors());
    // None is closed, so that the first stream keeps the only place.
    let mut clients = Vec::new();
    for (method, path, status, text) in [
        ("HEAD", "/too/long/for/it", 400, ""),
        ("GET", "/too/long/for/it", 400, "channel name too long (16 bytes): use at most 9"),
        ("GET", "/stream", 200, ":\n"),
        ("GET", "/stream", 200, ": busy\nretry: "),
        ("HEAD", "/busy", 200, ""),
        ("GET", "/busy", 200, ": busy\nretry: "),
    ] {
        let mut client = server.ask(method, path, &format!("Origin: {ORIGIN}\r\n"));
        let head = client.reads_head();
        assert!(head.status().starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {}", head.0);
        for (name, value) in [
            ("Access-Control-Allow-Origin", ORIGIN),
            ("Access-Control-Allow-Credentials", "true"),
            ("Vary", "Origin"),
            (
                "Content-Type",
                if status == 200 { "text/event-stream; charset=utf-8" } else { "text/plain; charset=utf-8" },
            ),
        ] {
            let values = head.values(name);
            assert!(values.len() == 1 && values[0].eq_ignore_ascii_case(value), "{method} {path} {name}: {values:?}");
        }
        client.reads_until(text);
        clients.push(client);
    }
}
