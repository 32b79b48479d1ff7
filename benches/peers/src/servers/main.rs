//! Compares servers of event streams, in turn in one run: processor time per delivery, latency, memory per stream, and
//! posts per second. The script `benches/peers/run` installs what is missing, and runs it.
//!
//! Each server is a process of its own, with all settings that matter for speed: `TCP_NODELAY`, a long backlog, no log
//! of requests. The clients are this process. They send each server the same events at the same pace, and check that
//! each stream receives each event, in order. A server's figures count only if it has delivered everything in time.

mod in_rust;
mod load;
mod peer;
mod posting;
mod report;

use std::error::Error;
use std::io;
use std::time::Duration;

use load::{Received, Streams};
use peer::{Peer, Running};
use posting::Posters;

/// Streams, and events per second.
const LOADS: [(usize, u64); 5] = [(100, 500), (1_000, 100), (5_000, 10), (10_000, 5), (18_000, 2)];
const WINDOW: Duration = Duration::from_secs(3);

/// The load with as many events as posts are answered: streams, and connections that post.
const SATURATED: (usize, usize) = (100, 16);

/// The numbers of connections for posts without streams.
const POSTERS: [usize; 2] = [1, 16];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &*arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        ["event-server", port] => in_rust::event_server(port.parse()?),
        ["tiny-http", port] => in_rust::tiny_http(port.parse()?),
        ["axum", port] => in_rust::axum(port.parse()?),
        ["write-loop", port] => in_rust::write_loop(port.parse()?),
        [rounds, file] => {
            let rounds = rounds.parse()?;
            let results = Results { paced: paced(rounds), saturated: saturated(rounds), posts: posts(rounds) };
            Ok(report::write(&results, file.as_ref())?)
        }
        _ => Err("usage: servers ROUNDS FILE.md".into()),
    }
}

/// What a peer came to in one round.
#[derive(Clone, Copy)]
struct Figures {
    /// Microseconds of processor time per delivery; of posts without streams, per post.
    cpu: f64,
    /// KiB per stream.
    memory: f64,
    received: Received,
}

/// The rounds of one peer with one load, until one fails.
type Rounds = Vec<io::Result<Figures>>;

struct Results {
    /// For each load, the rounds of each peer.
    paced: Vec<Vec<Rounds>>,
    saturated: Vec<Rounds>,
    /// For each number of connections, the rounds of each peer.
    posts: Vec<Vec<Rounds>>,
}

/// Runs all peers in turn, each round in another order. A peer that fails runs no further round.
fn in_turn(rounds: usize, what: &str, run: impl Fn(Peer) -> io::Result<Figures>) -> Vec<Rounds> {
    let mut results: Vec<Rounds> = Peer::ALL.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for place in 0..Peer::ALL.len() {
            // No step has a factor in common with the number of peers.
            let which = (place * [1, 2, 4][round % 3] + round) % Peer::ALL.len();
            if results[which].iter().any(Result::is_err) {
                continue;
            }
            let result = run(Peer::ALL[which]);
            match &result {
                Ok(figures) => eprintln!("{what}, {}: {:.2} us", Peer::ALL[which].name(), figures.cpu),
                Err(error) => eprintln!("{what}, {}: {error}", Peer::ALL[which].name()),
            }
            results[which].push(result);
        }
    }
    results
}

fn paced(rounds: usize) -> Vec<Vec<Rounds>> {
    let load = |(streams, rate): (usize, u64)| {
        in_turn(rounds, &format!("{streams} streams x {rate}/s"), |peer| {
            measure(peer, streams, |clients, server| clients.at_pace(server.address, PATH, rate, WINDOW))
        })
    };
    LOADS.map(load).into()
}

fn saturated(rounds: usize) -> Vec<Rounds> {
    let (streams, connections) = SATURATED;
    in_turn(rounds, "saturated", |peer| {
        measure(peer, streams, |clients, server| clients.saturated(server.address, PATH, connections, WINDOW))
    })
}

/// hub has a channel of this name, and the other servers serve nothing else.
const PATH: &str = "/events";

fn measure(
    peer: Peer,
    streams: usize,
    load: impl FnOnce(&mut Streams, &Running) -> io::Result<Received>,
) -> io::Result<Figures> {
    let server = Running::start(peer)?;
    let memory = server.memory()?;
    let mut clients = Streams::open(server.address, streams, PATH)?;
    let cpu = server.cpu()?;
    let received = load(&mut clients, &server)?;
    let cpu = (server.cpu()? - cpu) * 1e6 / received.deliveries.max(1) as f64;
    Ok(Figures { cpu, memory: (server.memory()? - memory) / streams as f64, received })
}

fn posts(rounds: usize) -> Vec<Vec<Rounds>> {
    let load = |connections: usize| {
        in_turn(rounds, &format!("posts on {connections} connections"), |peer| {
            let server = Running::start(peer)?;
            let mut posters = Posters::connect(server.address, connections)?;
            posters.post_for(WINDOW / 12, || load::post(0, PATH))?;
            let (cpu, window) = (server.cpu()?, WINDOW / 2);
            let posts = posters.post_for(window, || load::post(0, PATH))?;
            let cpu = (server.cpu()? - cpu) * 1e6 / posts as f64;
            let received = Received { posts, seconds: window.as_secs_f64(), ..Received::default() };
            Ok(Figures { cpu, memory: 0.0, received })
        })
    };
    POSTERS.map(load).into()
}
