//! The same channels on a second address, through an `EventServer`: no thread and one descriptor for each stream.

use std::error::Error;
use std::net::SocketAddr;

use server_sent_events::Publisher;
use server_sent_events::server::{Answer, EventServer, Request, RunningServer};

/// Serves them to who asks, and to the hub's own page, which comes from another address.
pub fn serve(address: &str, page: SocketAddr, publisher: &Publisher) -> Result<RunningServer, Box<dyn Error>> {
    let mut server = EventServer::builder();
    for host in [page.ip().to_string(), "localhost".into(), "127.0.0.1".into()] {
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        server = server.allow_origin(format!("http://{host}:{}", page.port()));
    }
    let publisher = publisher.clone();
    Ok(server.bind(address)?.spawn(move |request| answer(&publisher, request))?)
}

fn answer(publisher: &Publisher, request: &Request) -> Answer {
    // Not the decoded path: a comma within a name is written `%2C`.
    let path = request.target().split('?').next().unwrap_or_default();
    match super::channels(path) {
        Ok(channels) => {
            let id = request.last_event_id().map(String::from);
            publisher.subscription(()).channels(&channels).last_event_id(id).open().into()
        }
        Err(reason) => Answer::Status(400, reason),
    }
}
