//! The servers that are written in Rust: this crate's two, axum, and the plain write loop.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use server_sent_events::adapter::tiny_http::Server;
use server_sent_events::server::{EventServer, HandlerError, Request, Response};
use server_sent_events::{Overflow, Publisher};

/// A stream of any server holds this many events for a slow client, and then drops the oldest.
const QUEUED: usize = 1024;

pub fn event_server(port: u16) -> Result<(), Box<dyn Error>> {
    let publisher = publisher()?;
    let server = EventServer::builder()
        .max_body(64 * 1024)
        .max_streams(20_000)
        .max_requests_per_connection(usize::MAX)
        .bind((Ipv4Addr::LOCALHOST, port))?;
    server.serve(move |request: &Request| -> Result<Response, HandlerError> {
        match request.method() {
            "POST" => {
                publisher.publish(request.body_text()?);
                Response::status(204)
            }
            _ => Ok(Response::stream(publisher.subscribe()?)),
        }
    })?;
    Ok(())
}

pub fn tiny_http(port: u16) -> Result<(), Box<dyn Error>> {
    let publisher = publisher()?;
    let server = Server::bind((Ipv4Addr::LOCALHOST, port))?;
    server.serve(2, move |mut request| {
        if *request.method() != tiny_http::Method::Post {
            return publisher.respond(request).map(drop);
        }
        let mut body = String::new();
        request.as_reader().read_to_string(&mut body)?;
        publisher.publish(body);
        request.respond(tiny_http::Response::empty(204))
    })?;
    Ok(())
}

fn publisher() -> Result<Publisher, Box<dyn Error>> {
    let builder = Publisher::builder().overflow(Overflow::DropOldest).max_queued_events(QUEUED);
    Ok(builder.max_subscribers(20_000).build()?)
}

pub fn axum(port: u16) -> Result<(), Box<dyn Error>> {
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::response::sse::{Event, KeepAlive, Sse};
    use axum::serve::ListenerExt;
    use futures_util::StreamExt;
    use tokio::sync::broadcast::{Sender, channel};
    use tokio_stream::wrappers::BroadcastStream;

    async fn publish(State(events): State<Sender<Arc<str>>>, body: String) -> StatusCode {
        // Nobody may listen.
        let _ = events.send(body.into());
        StatusCode::NO_CONTENT
    }

    async fn subscribe(
        State(events): State<Sender<Arc<str>>>,
    ) -> Sse<impl futures_util::Stream<Item = Result<Event, axum::Error>>> {
        let events = BroadcastStream::new(events.subscribe());
        // A stream that was too slow goes on after the events that it has missed.
        let events = events.filter_map(async |event| Some(Ok(Event::default().data(event.ok()?))));
        Sse::new(events).keep_alive(KeepAlive::default())
    }

    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
        let (events, _) = channel::<Arc<str>>(QUEUED);
        let router = axum::Router::new().route("/events", axum::routing::get(subscribe).post(publish));
        axum::serve(listener, router.with_state(events)).await
    })?;
    Ok(())
}

/// The limit: a post's thread writes the event to one socket after the other, and knows no slow client.
pub fn write_loop(port: u16) -> Result<(), Box<dyn Error>> {
    let streams = Arc::new(Mutex::new(Vec::new()));
    for connection in TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.incoming() {
        let (connection, streams) = (connection?, Arc::clone(&streams));
        connection.set_nodelay(true)?;
        // The thread of a stream ends at once.
        thread::spawn(move || serve_loop(connection, &streams));
    }
    Ok(())
}

fn serve_loop(mut connection: TcpStream, streams: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    let mut requests = BufReader::new(connection.try_clone()?);
    loop {
        let (mut is_post, mut length, mut line) = (false, 0, String::new());
        while line != "\r\n" {
            line.clear();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            is_post |= line.starts_with("POST ");
            length = line.strip_prefix("Content-Length: ").map_or(length, |text| text.trim().parse().unwrap_or(0));
        }
        if !is_post {
            const HEAD: &[u8] =
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            connection.write_all(HEAD)?;
            streams.lock().expect("no thread panics").push(connection);
            return Ok(());
        }
        let mut body = vec![0; length];
        requests.read_exact(&mut body)?;
        let event = [b"data: ", &*body, b"\n\n"].concat();
        let chunk = [format!("{:x}\r\n", event.len()).as_bytes(), &event, b"\r\n"].concat();
        streams.lock().expect("no thread panics").retain_mut(|stream| stream.write_all(&chunk).is_ok());
        connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
}
