use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use oxhttp::Server;
use oxhttp::model::{Body, Request, Response};
use server_sent_events::{History, Publisher, http};

fn answer(publisher: &Publisher, request: &Request<Body>) -> Response<Body> {
    let header = request.headers().get("Last-Event-ID").and_then(|id| id.to_str().ok());
    let id = http::last_event_id(header, &request.uri().to_string());
    let body = match publisher.subscription(()).last_event_id(id).open() {
        // The server collects 16 KiB before it sends them.
        Ok(subscription) => Body::from_read(subscription.into_reader().pad_to(16384)),
        Err(_full) => Body::from(String::from(http::retry_later(Duration::from_secs(5)))),
    };
    let response =
        http::response_headers().fold(Response::builder(), |response, (name, value)| response.header(name, value));
    response.body(body).expect("plain headers")
}

fn main() -> Result<(), Box<dyn Error>> {
    let address: SocketAddr = std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:5000").parse()?;
    let publisher = Publisher::builder().history(History::new()).max_subscribers(200).build()?;
    let streams = publisher.clone();
    let _server = Server::new(move |request| answer(&streams, request)).bind(address).spawn()?;
    for line in io::stdin().lines() {
        publisher.publish(line?);
    }
    Ok(())
}
