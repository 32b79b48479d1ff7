use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::{Router, body::Body, routing::get};
use server_sent_events::{History, Publisher, http};
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

/// Passes what a writer thread writes to the response's body. A client that reads nothing blocks the thread for 10 s.
struct ToBody(Sender<Vec<u8>>, Handle);

impl Write for ToBody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.1.block_on(self.0.send_timeout(bytes.to_vec(), Duration::from_secs(10)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn events(State(publisher): State<Publisher>, headers: HeaderMap, uri: Uri) -> Response {
    let header = headers.get("Last-Event-ID").and_then(|id| id.to_str().ok());
    let id = http::last_event_id(header, &uri.to_string());
    let body = match publisher.subscription(()).last_event_id(id).open() {
        Ok(subscription) => {
            let (sender, receiver) = channel(16);
            // If no thread can be started, the body is empty, and the client reconnects.
            let _ = subscription.write_in_background(ToBody(sender, Handle::current()));
            Body::from_stream(ReceiverStream::new(receiver).map(Ok::<_, Infallible>))
        }
        Err(_full) => Body::from(String::from(http::retry_later(Duration::from_secs(5)))),
    };
    let response =
        http::response_headers().fold(Response::builder(), |response, (name, value)| response.header(name, value));
    response.body(body).expect("plain headers")
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:5000".into());
    let publisher = Publisher::builder().history(History::new()).max_subscribers(200).build()?;
    let router = Router::new().route("/", get(events)).with_state(publisher.clone());
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind(address))?;
    runtime.spawn(async move { axum::serve(listener, router).await });
    for line in io::stdin().lines() {
        publisher.publish(line?);
    }
    Ok(())
}
