//! A real browser and the client's parser get the same messages from 200 random streams.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use fastrand::Rng;
use real_parts::browser::Browser;
use real_parts::common::seed;
use serde_json::{Value, json};
use server_sent_events::client::Parser;

const STREAMS: usize = 200;

/// A page sees only the types that it listens to. These are all that a stream can have.
const TYPES: [&str; 5] = ["message", "a", "b", " a", "end"];

/// Lines of a stream, without their ends.
const LINES: [&[u8]; 34] = [
    b"data: x",
    b"data:x",
    b"data:  x",
    b"data:",
    b"data",
    b"data: \xe2\x9c\x85",
    b"data: \xf0\x9f\xa6\x80",
    b"data: \xff\xfe",
    b"data: \xe2\x9c",
    b"data: \xed\xa0\x80",
    b"data: a\0b",
    b"data: a: b",
    b"data:\tx",
    b"",
    b"",
    b"",
    b"id: 1",
    b"id: 2\xc3\xa9",
    b"id",
    b"id:",
    b"id: \0",
    b"id:  3",
    b"event: a",
    b"event:b",
    b"event",
    b"event:",
    b"event:  a",
    b"retry: 50000",
    b": comment",
    b":",
    b"Data: x",
    b" data: x",
    b"\xef\xbb\xbfdata: x",
    b"xyz",
];

fn random_stream(random: &mut Rng) -> Vec<u8> {
    // Chromium ignores a line end right after a byte order mark, so that is followed by a line.
    let mut stream = if random.u8(..4) == 0 { b"\xef\xbb\xbfdata: first\n".to_vec() } else { Vec::new() };
    for _ in 0..random.usize(1..40) {
        stream.extend_from_slice(LINES[random.usize(..LINES.len())]);
        stream.extend_from_slice([&b"\n"[..], b"\r", b"\r\n"][random.usize(..3)]);
    }
    stream.extend_from_slice(b"\n\nevent: end\ndata\n\n");
    stream
}

/// Serves an empty page, and the streams in chunks of random sizes.
fn serve(streams: Arc<Vec<Vec<u8>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let random = Arc::new(Mutex::new(Rng::with_seed(fastrand::u64(..))));
    thread::spawn(move || {
        for connection in listener.incoming() {
            let (streams, random) = (Arc::clone(&streams), Arc::clone(&random));
            // The browser may leave at any time.
            thread::spawn(move || answer(connection?, &streams, &random));
        }
    });
    address
}

fn answer(mut connection: TcpStream, streams: &[Vec<u8>], random: &Mutex<Rng>) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let number = request.split(['/', ' ']).nth(2).and_then(|number| number.parse::<usize>().ok());
    let Some(stream) = number.and_then(|number| streams.get(number)) else {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<body>";
        return connection.write_all(head.as_bytes());
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.write_all(head.as_bytes())?;
    let mut rest = &stream[..];
    while !rest.is_empty() {
        let size = random.lock().unwrap().usize(1..=rest.len().min(30));
        let (chunk, after) = rest.split_at(size);
        connection.write_all(format!("{size:x}\r\n").as_bytes())?;
        connection.write_all(chunk)?;
        connection.write_all(b"\r\n")?;
        rest = after;
    }
    // The page closes the stream at its last message.
    lines_end(&connection)
}

/// Waits until the client closes the connection.
fn lines_end(mut connection: &TcpStream) -> std::io::Result<()> {
    std::io::copy(&mut connection, &mut std::io::sink()).map(drop)
}

#[test]
fn a_browser_and_the_parser_agree() {
    let mut random = Rng::with_seed(seed("streams for a browser"));
    let streams: Arc<Vec<_>> = Arc::new((0..STREAMS).map(|_| random_stream(&mut random)).collect());
    let address = serve(Arc::clone(&streams));
    let browser = Browser::new();
    let tab = browser.opens(&format!("http://{address}/"));
    tab.until("document.body !== null && location.protocol === 'http:'");
    tab.does(&format!(
        "window.heard = {{}}; window.missing = {STREAMS};
        const listen = number => {{
            if (number >= {STREAMS}) return;
            const source = new EventSource('/' + number), messages = [];
            for (const type of {types}) source.addEventListener(type, event => {{
                if (event.data === undefined) return;
                if (type !== 'end') return messages.push([type, event.data, event.lastEventId]);
                source.close();
                window.heard[number] = messages;
                window.missing -= 1;
                listen(number + 5);
            }});
        }};
        for (let first = 0; first < 5; first++) listen(first);",
        types = json!(TYPES),
    ));
    tab.until("window.missing === 0");
    let heard: HashMap<String, Value> = serde_json::from_value(tab.is("window.heard")).unwrap();
    let mut count = 0;
    for (number, stream) in streams.iter().enumerate() {
        let mut messages = Parser::new().push(stream).unwrap();
        assert_eq!(messages.pop().unwrap().event_type, "end");
        let own: Vec<_> =
            messages.iter().map(|message| json!([message.event_type, message.data, &*message.id])).collect();
        assert_eq!(Value::from(own), heard[&number.to_string()], "{:?}", String::from_utf8_lossy(stream));
        count += messages.len();
    }
    println!("{STREAMS} streams, {count} messages");
    assert!(count > STREAMS, "too few messages to compare: {count}");
}
