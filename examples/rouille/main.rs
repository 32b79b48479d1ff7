//! The visits page on rouille: `cargo run --features rouille --example rouille [ADDRESS]`.

use std::error::Error;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use rouille::Response;
use server_sent_events::Publisher;
use server_sent_events::adapter::rouille::server;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:5000".into());
    // The server needs two threads and two descriptors per stream, and the usual limit is 1,024 descriptors.
    let publisher = Publisher::builder().max_subscribers(400).build()?;
    let visits = AtomicU64::new(0);

    let server = server(address, move |request| match (request.method(), &*request.url()) {
        ("GET" | "HEAD", "/") => {
            let number = visits.fetch_add(1, SeqCst) + 1;
            publisher.publish(format!("visit number {number}"));
            Response::html(include_str!("../visits/page.html"))
        }
        ("GET" | "HEAD", "/visits") => {
            let so_far = format!("{} visits so far", visits.load(SeqCst));
            publisher.subscription(()).initial_data([so_far]).respond_to(request)
        }
        _ => Response::empty_404(),
    })?;
    // Not `println!`: it panics if standard output cannot be written.
    let _ = writeln!(io::stdout(), "listening on http://{}", server.server_addr());
    server.run();
    Ok(())
}
