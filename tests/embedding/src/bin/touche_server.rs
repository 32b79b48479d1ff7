use std::error::Error;
use std::{io, thread, time::Duration};

use server_sent_events::{History, Publisher, http};
use touche::{Body, Request, Response, Server};

fn answer(publisher: &Publisher, request: &Request<Body>) -> Result<Response<Body>, Box<dyn Error + Send + Sync>> {
    let header = request.headers().get("Last-Event-ID").and_then(|id| id.to_str().ok());
    let id = http::last_event_id(header, &request.uri().to_string());
    let body = match publisher.subscription(()).last_event_id(id).open() {
        Ok(subscription) => Body::from_iter(subscription),
        Err(_full) => Body::from(String::from(http::retry_later(Duration::from_secs(5)))),
    };
    let response =
        http::response_headers().fold(Response::builder(), |response, (name, value)| response.header(name, value));
    Ok(response.body(body)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:5000".into());
    let publisher = Publisher::builder().history(History::new()).max_subscribers(200).build()?;
    // A stream occupies a thread, so there are more threads than streams.
    let server = Server::builder().max_threads(250).nodelay(true).try_bind(address)?;
    let streams = publisher.clone();
    thread::spawn(move || io::stdin().lines().map_while(Result::ok).for_each(|line| drop(publisher.publish(line))));
    server.serve(move |request| answer(&streams, &request))?;
    Ok(())
}
