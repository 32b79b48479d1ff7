//! Every viewer of the page sees each new visit: `cargo run --example visits [ADDRESS]`.

use std::error::Error;

use server_sent_events::{Publisher, adapter::tiny_http as sse};
use tiny_http::{Header, Response};

#[path = "../common/output.rs"]
mod output;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:5000".into());
    let server = sse::Server::bind(address)?;
    output::say(format_args!("listening on http://{}", server.local_addr()?));

    // The server needs two descriptors per subscriber, and the usual limit is 1,024.
    let publisher = Publisher::builder().max_subscribers(400).build()?;
    let mut visits = 0;
    for request in server.incoming_requests() {
        let answered = match request.url().split('?').next().unwrap_or_default() {
            "/" => {
                visits += 1;
                publisher.publish(format!("visit number {visits}"));
                let html = Header::from_bytes("Content-Type", "text/html; charset=utf-8").expect("two plain texts");
                request.respond(Response::from_string(include_str!("page.html")).with_header(html))
            }
            "/visits" => publisher.subscription(()).initial_data([format!("{visits} visits so far")]).respond(request),
            _ => request.respond(Response::empty(404)),
        };
        if let Err(error) = answered {
            output::log(format_args!("a request got no answer: {error}"));
        }
    }
    Ok(())
}
