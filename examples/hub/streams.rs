//! The same channels on a second address, through an `EventServer`: one descriptor per stream, and no thread.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};

use server_sent_events::Publisher;
use server_sent_events::server::{EventServer, Request, Response, RunningServer};

/// Serves the channels, also to the hub's own page, which has another origin.
pub fn serve(address: &str, page: SocketAddr, publisher: &Publisher) -> Result<RunningServer, Box<dyn Error>> {
    let page_host = match page.ip().to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    // As browsers write an origin: without the default port.
    let port = if page.port() == 80 { String::new() } else { format!(":{}", page.port()) };
    let mut server = EventServer::builder();
    for host in [&*page_host, "localhost", "127.0.0.1"] {
        server = server.allow_origin(format!("http://{host}{port}"));
    }
    let publisher = publisher.clone();
    Ok(server.bind(address)?.spawn(move |request| answer(&publisher, request))?)
}

fn answer(publisher: &Publisher, request: &Request) -> Response {
    // The path is not decoded yet: a comma within a name is written `%2C`.
    let path = request.target().split('?').next().unwrap_or_default();
    match super::channels(path) {
        Ok(channels) => {
            publisher.subscription(()).channels(&channels).last_event_id(request.last_event_id()).open().into()
        }
        Err(reason) => Response::status(400, reason),
    }
}
