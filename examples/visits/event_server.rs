//! `visits` on an `EventServer`: `cargo run --features server --example visits_event_server [ADDRESS]`.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use server_sent_events::Publisher;
use server_sent_events::server::{EventServer, Response};

#[path = "../common/output.rs"]
mod output;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:5000".into());
    let server = EventServer::bind(address)?;
    output::say(format_args!("listening on http://{}", server.local_addr()));

    let publisher = Publisher::new();
    let visits = AtomicU64::new(0);
    server.serve(move |request| match request.path() {
        "/" => {
            let visit = visits.fetch_add(1, Ordering::Relaxed) + 1;
            publisher.publish(format!("visit number {visit}"));
            Ok(Response::html(include_str!("page.html")))
        }
        "/visits" => {
            let so_far = format!("{} visits so far", visits.load(Ordering::Relaxed));
            Ok(publisher.subscription(()).initial_data([so_far]).open()?.into())
        }
        _ => Response::status(404),
    })?;
    Ok(())
}
