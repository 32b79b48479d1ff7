use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::{thread, time::Duration};

use server_sent_events::{History, Publisher, ResponseHeaders, http};

fn answer(publisher: &Publisher, mut connection: TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (mut target, mut last_event_id) = (String::new(), None);
    for line in BufReader::new((&connection).take(8 * 1024)).lines() {
        let line = line?;
        match line.split_once(':') {
            _ if line.is_empty() => break, // the end of the request's head
            _ if target.is_empty() => target = line.split(' ').nth(1).unwrap_or("/").to_owned(),
            Some((name, id)) if name.eq_ignore_ascii_case("Last-Event-ID") => {
                last_event_id = Some(id.trim().to_owned())
            }
            _ => {}
        }
    }
    connection.write_all(http::response_head(&ResponseHeaders::new()).as_bytes())?;
    let last_event_id = http::last_event_id(last_event_id.as_deref(), &target);
    match publisher.subscription(()).last_event_id(last_event_id).open() {
        Ok(subscription) => subscription.write_in_background(connection),
        Err(_full) => connection.write_all(http::retry_later(Duration::from_secs(5)).as_bytes()),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:5000"))?;
    let publisher = Publisher::builder().history(History::new()).max_subscribers(200).build()?;
    let streams = publisher.clone();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let streams = streams.clone();
            thread::spawn(move || answer(&streams, connection));
        }
    });
    for line in io::stdin().lines() {
        publisher.publish(line?);
    }
    Ok(())
}
