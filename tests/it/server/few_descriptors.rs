//! EventServer in a process that has no descriptor left: it serves again once some are free.
//!
//! The limit applies to a whole process, so the server runs in one of its own: this program again, with one test. The
//! clients are in this process, since they need descriptors too.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::eventually;
use crate::common::http::{Client, GET};
use crate::common::process::descriptors;
use crate::common::server::{opened, send, serve};
use rlimit::Resource;
use server_sent_events::Publisher;
use server_sent_events::server::EventServer;

const SERVES: &str = "SERVES_WITH_FEW_DESCRIPTORS";

/// This program again, as the server, until its input ends.
struct Server(Child, SocketAddr);

impl Server {
    fn start(how: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["server::few_descriptors::serves_with_few_descriptors", "--exact", "--nocapture"])
            .env(SERVES, how);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
        let address = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("listening on ")?.parse().ok());
        Self(process, address.unwrap())
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0.id())).unwrap().count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let status = self.0.wait();
        if !std::thread::panicking() {
            assert!(status.unwrap().success());
        }
    }
}

/// Does nothing except in the process that `Server` starts.
#[test]
fn serves_with_few_descriptors() {
    let Ok(how) = std::env::var(SERVES) else { return };
    Resource::NOFILE.set(64, 64).unwrap();
    let publisher = Publisher::builder().heartbeat(None).build().unwrap();
    // So a client cannot be answered because a silent one was given up.
    let settings = EventServer::builder().header_read_timeout(Duration::from_secs(600));
    let server = match &*how {
        "as many as it can" => serve(settings, &publisher),
        // More than there are descriptors: accepting fails.
        _ => serve(settings.max_streams(1_000), &publisher),
    };
    // On a new line, after the test harness's output.
    println!("\nlistening on {}", server.local_addr());
    for line in std::io::stdin().lines() {
        line.unwrap();
    }
    drop(server);
    assert!(descriptors() < 20, "{}", descriptors());
}

/// Measures how long it takes until a stream opens, after 200 of these have come and gone.
#[track_caller]
fn serves_again(how: &str, client: impl Fn(SocketAddr) -> Client) {
    let server = Server::start(how);
    let before = server.descriptors();
    let clients: Vec<Client> = (0..200).map(|_| client(server.1)).collect();
    eventually("no descriptor is left, or no place", || server.descriptors() >= 48);
    drop(clients);
    let start = Instant::now();
    // Those that left last may still occupy their places.
    eventually("a stream opens", || {
        let mut client = send(server.1, GET);
        client.reads_head();
        !client.reads_until(":").is_empty() && client.reads_until("\n") == "\n"
    });
    println!("{how}: serves again after {:?}", start.elapsed());
    eventually("descriptors are where they were", || server.descriptors() <= before);
}

#[test]
fn after_200_streams_that_were_too_many_a_server_serves_again() {
    for how in ["as many as it can", "more than it can"] {
        serves_again(how, |address| send(address, GET));
    }
}

#[test]
fn after_200_silent_clients_a_server_serves_again() {
    for how in ["as many as it can", "more than it can"] {
        serves_again(how, Client::connect);
    }
}

#[test]
fn more_silent_clients_than_descriptors_keep_nobody_out() {
    for how in ["as many as it can", "more than it can"] {
        let server = Server::start(how);
        let silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(server.1).unwrap()).collect();
        let start = Instant::now();
        drop(opened(server.1));
        println!("{how}: answered after {:?}", start.elapsed());
        drop(silent);
    }
}
