//! Takes its socket from systemd, which starts the program at the first connection. `docs/deployment.md` has the units.
//! `systemd-socket-activate -l 5000 target/debug/examples/socket_activation` tries it.

use std::error::Error;

use listenfd::ListenFd;
use server_sent_events::{Publisher, adapter::tiny_http::Server};

/// Returns a server on the socket, which may be one of TCP or of Unix.
fn server() -> Result<Server, Box<dyn Error>> {
    let mut sockets = ListenFd::from_env();
    #[cfg(unix)]
    if let Ok(Some(listener)) = sockets.take_unix_listener(0) {
        return Ok(Server::from_listener(listener)?);
    }
    let listener = sockets.take_tcp_listener(0)?.ok_or("no socket: let systemd start this program")?;
    Ok(Server::from_listener(listener)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let publisher = Publisher::new();
    for request in server()?.incoming_requests() {
        let news = format!("somebody asked for {}", request.url());
        if publisher.respond(request).is_ok() {
            publisher.publish(news);
        }
    }
    Ok(())
}
