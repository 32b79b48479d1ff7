//! The origin: one publisher, behind an `EventServer` and behind tiny_http's adapter.

use std::error::Error;
use std::sync::Arc;
use std::thread;

use server_sent_events::Publisher;
use server_sent_events::adapter::tiny_http::Server;

use crate::press::Press;
use crate::{child, site};

pub fn run(rate: u32, seed: u64) -> Result<(), Box<dyn Error>> {
    let jumps = site::Jumps::default();
    let publisher = site::publisher(jumps.history()).build()?;
    let press = Arc::new(Press::new(publisher.clone()));
    press.start(rate, seed);
    let server = site::serve(&publisher)?;
    let other = serve_tiny_http(publisher.clone())?;
    println!("serves http://{} {other}", server.local_addr());
    child::obey(|command, value| match command {
        "end" => {
            press.end();
            println!("published {}", press.published());
            true
        }
        _ => site::obey(&publisher, &jumps, command, value),
    });
    Ok(())
}

/// Returns the URL.
fn serve_tiny_http(publisher: Publisher<u64>) -> Result<String, Box<dyn Error>> {
    let server = Server::builder().send_buffer_size(site::SEND_BUFFER).bind("127.0.0.1:0")?;
    let url = format!("http://{}", server.local_addr()?);
    thread::spawn(move || {
        let ended = server.serve(2, |request| {
            let target = request.url().to_owned();
            // The client may be away already.
            let _ = site::stream(&publisher, &target).last_event_id_from(&request).respond(request);
            Ok(())
        });
        panic!("tiny_http's server has ended: {ended:?}");
    });
    Ok(url)
}
