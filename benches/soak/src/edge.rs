//! The edge: it follows the origin, and serves its events.

use std::error::Error;
use std::thread;
use std::time::Duration;

use server_sent_events::client::Upstream;

use crate::CHANNELS;
use crate::{child, site};

pub fn run(upstream: &str) -> Result<(), Box<dyn Error>> {
    let jumps = site::Jumps::default();
    let history = jumps.history().follow(Upstream::at(upstream).channels(CHANNELS));
    let publisher = site::publisher(history).build()?;
    while publisher.last_event_id().is_none() {
        thread::sleep(Duration::from_millis(10));
    }
    let server = site::serve(&publisher)?;
    println!("serves http://{}", server.local_addr());
    child::obey(|command, value| site::obey(&publisher, &jumps, command, value));
    Ok(())
}
