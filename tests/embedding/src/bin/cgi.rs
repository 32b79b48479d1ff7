use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::{env, thread, time::Duration};

use server_sent_events::{Event, Overflow, Publisher, http};

/// Publishes each line of the file from this position on. Its ID is where the next line begins.
fn follow(publisher: &Publisher, mut file: BufReader<File>, mut position: u64) -> Result<(), Box<dyn Error>> {
    file.seek(SeekFrom::Start(position))?;
    let mut line = String::new();
    loop {
        let read = file.read_line(&mut line)? as u64;
        if !line.ends_with('\n') {
            // The end so far, perhaps within a line.
            thread::sleep(Duration::from_millis(100));
            position += read;
            continue;
        }
        position += read;
        publisher.publish(Event::new(line.trim_end()).id(position.to_string())?);
        line.clear();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = BufReader::new(File::open(env::var("LOG_FILE")?)?);
    let (header, query) = (env::var("HTTP_LAST_EVENT_ID").ok(), env::var("QUERY_STRING").unwrap_or_default());
    let id = http::last_event_id(header.as_deref(), &format!("?{query}"));
    let position = id.and_then(|id| id.parse().ok()).unwrap_or(0);

    let publisher = Publisher::new();
    // Reading waits for a slow client, so that no line is lost.
    let overflow = Overflow::Block(Duration::from_secs(30));
    let subscription = publisher.subscription(()).overflow(overflow).open()?;
    thread::spawn(move || follow(&publisher, file, position).map_err(|error| error.to_string()));

    let mut output = io::stdout();
    for (name, value) in http::response_headers() {
        write!(output, "{name}: {value}\r\n")?;
    }
    write!(output, "\r\n")?;
    subscription.write_to(output)?;
    Ok(())
}
