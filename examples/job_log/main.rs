//! The output of a job, whole for each viewer, however late: `make 2>&1 | cargo run --example job_log [ADDRESS]`.

use std::error::Error;
use std::io::{self, BufRead};
use std::thread;

use server_sent_events::{Event, History, Publisher, adapter::tiny_http as sse};
use tiny_http::{Header, Response};

#[path = "../common/output.rs"]
mod output;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:5000".into());
    let server = sse::Server::bind(address)?;
    output::say(format_args!("listening on http://{}", server.local_addr()?));

    // The log is the history: beyond these limits the oldest lines go, and each viewer is sent a `gap` event instead.
    let history = History::new().max_events_per_channel(100_000).max_bytes(64 * 1024 * 1024);
    let publisher = Publisher::builder().history(history).max_subscribers(400).build()?;
    let end = Event::new("").event("end")?;
    let job = publisher.clone();
    thread::spawn(move || {
        for line in io::stdin().lock().split(b'\n').map_while(Result::ok) {
            job.publish(String::from_utf8_lossy(&line).trim_end());
        }
        job.publish(end);
    });

    for request in server.incoming_requests() {
        let answered = match request.url().split('?').next().unwrap_or_default() {
            "/" => {
                let html = Header::from_bytes("Content-Type", "text/html; charset=utf-8").expect("two plain texts");
                request.respond(Response::from_string(include_str!("page.html")).with_header(html))
            }
            // A newcomer gets all lines. A viewer that reconnects gets those that it missed.
            "/log" => publisher.subscription(()).replay_last(usize::MAX).respond(request),
            _ => request.respond(Response::empty(404)),
        };
        if let Err(error) = answered {
            output::log(format_args!("a request got no answer: {error}"));
        }
    }
    Ok(())
}
