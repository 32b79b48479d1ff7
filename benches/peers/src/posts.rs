//! Measures how many posts per second `EventServer` and axum handle over connections that stay open, in turn in one
//! run: `cd benches/peers && cargo run --release --bin posts`.
//!
//! Both run the same handler, which publishes the body, in a process of their own. One thread of this process owns all
//! connections, and sends the next post on each as soon as it has read the response to the last one.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use server_sent_events::Publisher;
use server_sent_events::server::{EventServer, HandlerError, Request, Response};

/// An odd number of pairs, of which the median counts.
const PAIRS: usize = 21;
const WINDOW: Duration = Duration::from_millis(500);
const POST: &[u8] = b"POST /news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 48\r\n\r\n\
    {\"user\":\"Ada\",\"text\":\"the build is green again\"}";

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("event-server") => serve_event_server(),
        Some("axum") => serve_axum(),
        _ => compare(),
    }
}

fn serve_event_server() -> Result<(), Box<dyn Error>> {
    let publisher = Publisher::new();
    let server =
        EventServer::builder().max_body(64 * 1024).max_requests_per_connection(usize::MAX).bind("127.0.0.1:0")?;
    println!("{}", server.local_addr());
    server.serve(move |request: &Request| -> Result<Response, HandlerError> {
        match (request.method(), request.path()) {
            ("POST", "/news") => {
                publisher.publish(request.body_text()?);
                Response::status(204)
            }
            _ => Response::status(404),
        }
    })?;
    Ok(())
}

fn serve_axum() -> Result<(), Box<dyn Error>> {
    use axum::http::StatusCode;
    use axum::{Router, extract::State, routing::post};

    async fn publish(State(publisher): State<Publisher>, body: String) -> StatusCode {
        publisher.publish(body);
        StatusCode::NO_CONTENT
    }

    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let router = Router::new().route("/news", post(publish)).with_state(Publisher::new());
        axum::serve(listener, router).await
    })?;
    Ok(())
}

/// A server in its own process.
struct Server {
    process: Child,
    clients: Clients,
}

impl Server {
    fn start(name: &str, connections: usize) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = command.arg(name).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(process.stdout.take().expect("it is piped")).read_line(&mut address)?;
        let address = address.trim().parse().map_err(io::Error::other)?;
        Ok(Self { process, clients: Clients::connect(address, connections)? })
    }

    /// Returns the processor time that the process has used, in microseconds.
    fn cpu(&self) -> io::Result<f64> {
        let mut spent = 0.0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            spent += text.split(' ').next().and_then(|spent| spent.parse::<f64>().ok()).unwrap_or(0.0);
        }
        Ok(spent / 1e3)
    }

    /// Posts for a while. Returns the posts per second, and the server's processor time per post.
    fn measure(&mut self) -> io::Result<(f64, f64)> {
        let (before, start) = (self.cpu()?, Instant::now());
        let answered = self.clients.post_for(WINDOW)?;
        let (seconds, spent) = (start.elapsed().as_secs_f64(), self.cpu()? - before);
        Ok((answered as f64 / seconds, spent / answered as f64))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Clients {
    poll: Poll,
    sockets: Vec<TcpStream>,
}

impl Clients {
    fn connect(address: SocketAddr, connections: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut sockets = Vec::new();
        for token in 0..connections {
            let socket = std::net::TcpStream::connect(address)?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            poll.registry().register(&mut socket, Token(token), Interest::READABLE)?;
            sockets.push(socket);
        }
        Ok(Self { poll, sockets })
    }

    fn post_for(&mut self, window: Duration) -> io::Result<u64> {
        let end = Instant::now() + window;
        let mut events = Events::with_capacity(64);
        let (mut answered, mut open) = (0, self.sockets.len());
        for socket in &mut self.sockets {
            socket.write_all(POST)?;
        }
        while open > 0 {
            self.poll.poll(&mut events, Some(Duration::from_secs(10)))?;
            if events.is_empty() {
                return Err(io::Error::other("no answer for 10 s"));
            }
            for event in &events {
                let socket = &mut self.sockets[event.token().0];
                if !reads_answer(socket)? {
                    continue;
                }
                answered += 1;
                if Instant::now() < end {
                    socket.write_all(POST)?;
                } else {
                    open -= 1;
                }
            }
        }
        Ok(answered)
    }
}

/// Reads a response, which arrives whole, until the socket would block.
fn reads_answer(socket: &mut TcpStream) -> io::Result<bool> {
    let (mut buffer, mut length) = ([0; 4_096], 0);
    loop {
        match socket.read(&mut buffer[length..]) {
            Ok(0) => return Err(io::Error::other("the server closed a connection")),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    let is_answer = buffer[..length].starts_with(b"HTTP/1.1 204 ") && buffer[..length].ends_with(b"\r\n\r\n");
    if length > 0 && !is_answer {
        return Err(io::Error::other(String::from_utf8_lossy(&buffer[..length])));
    }
    Ok(length > 0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn compare() -> Result<(), Box<dyn Error>> {
    println!("| connections | server | posts per second | CPU per post | posts / axum's | CPU / axum's |");
    println!("|---:|---|---:|---:|---:|---:|");
    for connections in [1, 16] {
        let mut servers = [Server::start("event-server", connections)?, Server::start("axum", connections)?];
        let mut rates = [Vec::new(), Vec::new()];
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..PAIRS {
            for (which, server) in servers.iter_mut().enumerate() {
                let (rate, cost) = server.measure()?;
                rates[which].push(rate);
                costs[which].push(cost);
            }
        }
        let ratio =
            |[own, other]: &[Vec<f64>; 2]| median(own.iter().zip(other).map(|(own, other)| own / other).collect());
        let (rate, cost) = (ratio(&rates), ratio(&costs));
        for (which, name) in ["EventServer", "axum"].into_iter().enumerate() {
            let ratios = if which == 0 { format!("{rate:.2} (0.8) | {cost:.2}") } else { "| ".into() };
            let [rate, cost] = [&rates, &costs].map(|values| median(values[which].clone()));
            println!("| {connections} | {name} | {rate:.0} | {cost:.1} us | {ratios} |");
        }
    }
    Ok(())
}
