//! Measures the processor time that a client spends on each event it receives: this crate's, `eventsource-client` and
//! `reqwest-eventsource`, in turn in one run: `cd benches/peers && cargo run --release --bin clients`. A plain loop that only
//! reads the socket and splits lines shows the least that is possible.
//!
//! Each client is a process of its own, which drops what it receives. A thread of this process sends the events: as
//! fast as the client takes them, or ten or one per millisecond.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use futures_util::StreamExt;

/// An odd number of runs of each client, of which the median counts.
const ROUNDS: usize = 11;
const CLIENTS: [&str; 4] = ["server-sent-events", "plain loop", "eventsource-client", "reqwest-eventsource"];

/// How the events are sent.
#[derive(Clone, Copy)]
enum Load {
    /// In writes of 16 KiB.
    Flood,
    /// One write per event and millisecond.
    Paced,
    /// One write per ten events and millisecond.
    PacedTens,
}

impl Load {
    fn events(self) -> usize {
        match self {
            Self::Flood => 200_000,
            Self::Paced => 2_000,
            Self::PacedTens => 20_000,
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [client, url, events] = &arguments[..] else { return compare() };
    let events = events.parse()?;
    let received = match &**client {
        "server-sent-events" => receive_blocking(url, events)?,
        "plain loop" => receive_plainly(url, events)?,
        "eventsource-client" => run(receive_eventsource_client(url, events))?,
        "reqwest-eventsource" => run(receive_reqwest_eventsource(url, events))?,
        other => return Err(format!("unknown client {other}").into()),
    };
    assert_eq!(received, events);
    println!("{}", cpu()?);
    Ok(())
}

fn receive_blocking(url: &str, events: usize) -> Result<usize, Box<dyn Error>> {
    use server_sent_events::client::EventSource;

    let source = EventSource::builder(url).connect()?;
    Ok(source.take(events).filter(|message| message.data.len() == DATA.len()).count())
}

/// The floor: reads the socket and counts the lines of data, without a timeout, a message or a check.
fn receive_plainly(url: &str, events: usize) -> Result<usize, Box<dyn Error>> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut socket = TcpStream::connect(address)?;
    socket.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut lines = BufReader::with_capacity(64 * 1024, socket);
    let (mut line, mut received) = (Vec::new(), 0);
    while received < events {
        line.clear();
        lines.read_until(b'\n', &mut line)?;
        received += usize::from(line.starts_with(b"data: ") && line.len() == "data: \n".len() + DATA.len());
    }
    Ok(received)
}

fn run<T>(future: impl Future<Output = Result<T, Box<dyn Error>>>) -> Result<T, Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

async fn receive_eventsource_client(url: &str, events: usize) -> Result<usize, Box<dyn Error>> {
    use eventsource_client::{Client, ClientBuilder, SSE};

    let transport = launchdarkly_sdk_transport::HyperTransport::new()?;
    let client = ClientBuilder::for_url(url)?.build_with_transport(transport);
    let mut stream = client.stream();
    let mut received = 0;
    while received < events {
        match stream.next().await.ok_or("the stream ended")? {
            Ok(SSE::Event(event)) => received += usize::from(event.data.len() == DATA.len()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string().into()),
        }
    }
    Ok(received)
}

async fn receive_reqwest_eventsource(url: &str, events: usize) -> Result<usize, Box<dyn Error>> {
    use reqwest_eventsource::{Event, EventSource};

    let mut source = EventSource::get(url);
    let mut received = 0;
    while received < events {
        match source.next().await.ok_or("the stream ended")?? {
            Event::Message(message) => received += usize::from(message.data.len() == DATA.len()),
            Event::Open => {}
        }
    }
    Ok(received)
}

/// Returns the processor time of this process, in nanoseconds.
fn cpu() -> io::Result<u64> {
    // Threads that have ended count only in the sum of the process.
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).map_err(io::Error::other)
}

const DATA: &str = "{\"user\":\"Ada\",\"text\":\"the build is green again\",\"tags\":[\"build\",\"green\"],\"time\":1700000000000,\
    \"more\":\"to make it 208 bytes with its fields and the blank line, as in the other benchmarks\"}";

fn event(number: usize) -> String {
    format!("id: {number:08}\nevent: build\ndata: {DATA}\n\n")
}

fn serve(listener: &TcpListener, load: Load) -> io::Result<()> {
    let (mut connection, _) = listener.accept()?;
    connection.set_nodelay(true)?;
    read_head(&connection)?;
    connection
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let mut batch = Vec::new();
    for number in 0..load.events() {
        let event = event(number);
        batch.extend_from_slice(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
        match load {
            Load::Flood if batch.len() < 16 * 1024 && number + 1 < load.events() => continue,
            Load::Flood => {}
            Load::PacedTens if !(number + 1).is_multiple_of(10) => continue,
            Load::Paced | Load::PacedTens => thread::sleep(Duration::from_millis(1)),
        }
        connection.write_all(&batch)?;
        batch.clear();
    }
    // The client leaves.
    io::copy(&mut connection, &mut io::sink()).map(drop)
}

fn read_head(connection: &TcpStream) -> io::Result<()> {
    for line in BufReader::new(connection).lines() {
        if line?.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Returns the processor time per event of one run of a client, in microseconds.
fn measure(client: &str, load: Load) -> Result<f64, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/", listener.local_addr()?);
    let server = thread::spawn(move || {
        // A client may reset the connection when it leaves.
        let _ = serve(&listener, load);
    });
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args([client, &url, &load.events().to_string()]).stderr(Stdio::inherit()).output()?;
    server.join().map_err(|_| "the server panicked")?;
    if !output.status.success() {
        return Err(format!("{client} failed").into());
    }
    let spent: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(spent / 1e3 / load.events() as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn compare() -> Result<(), Box<dyn Error>> {
    println!("| load | client | CPU per event | this crate's / its |");
    println!("|---|---|---:|---:|");
    for (name, load) in
        [("as fast as possible", Load::Flood), ("ten per ms", Load::PacedTens), ("one per ms", Load::Paced)]
    {
        let mut costs = CLIENTS.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for (client, costs) in CLIENTS.into_iter().zip(&mut costs) {
                costs.push(measure(client, load)?);
            }
        }
        for (client, other) in CLIENTS.into_iter().zip(&costs) {
            let mut ratios: Vec<f64> = costs[0].iter().zip(other).map(|(own, other)| own / other).collect();
            ratios.sort_by(f64::total_cmp);
            // The second and the last but one of 11: the median of all runs is between them in 98.8 % of all cases.
            let (low, high) = (ratios[1], ratios[ROUNDS - 2]);
            let (cost, ratio) = (median(other.clone()), median(ratios));
            println!("| {name} | {client} | {cost:.2} us | {ratio:.2} ({low:.2} to {high:.2}) |");
        }
    }
    Ok(())
}
