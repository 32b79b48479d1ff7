//! EventServer in a process that can start few threads: it runs with all of its threads, or returns the error.
//!
//! The limit applies to a whole process, so the server runs in one of its own: this program again, with one test.

use std::io;
use std::process::Command;

use crate::common::http::GET;
use crate::common::process::threads;
use crate::common::server::response_to;
use crate::common::{eventually, free_address};
use rlimit::Resource;
use server_sent_events::server::{EventServer, Response};

const FEW_THREADS: &str = "STARTS_WITH_FEW_THREADS";

/// The stack of each thread: far more than anything else needs, so that a limit of the address space limits threads.
const STACK: u64 = 1 << 30;

fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

/// Does nothing except in the process that the other test starts.
#[test]
fn starts_with_few_threads() {
    if std::env::var_os(FEW_THREADS).is_none() {
        return;
    }
    let (_, hard) = Resource::AS.get().unwrap();
    // The event loop, two handlers, and the thread that ends streams.
    let needed = 4;
    for available in 0..=needed {
        let address = free_address();
        let server = EventServer::builder().handler_threads(2).bind(address).unwrap();
        Resource::AS.set(address_space() + available * STACK + STACK * 2 / 3, hard).unwrap();
        let spawned = server.spawn(|_| Response::do_not_reconnect());
        Resource::AS.set(hard, hard).unwrap();
        match spawned {
            Ok(server) => {
                assert_eq!(available, needed, "it started with {available} threads");
                assert_eq!(response_to(address, GET).status, 204);
                server.stop().unwrap();
            }
            Err(error) => {
                assert!(available < needed, "{error}");
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                // The port is free, too.
                EventServer::bind(address).unwrap();
            }
        }
        eventually("no thread is left", || threads("sse ") == 0);
    }
}

#[test]
fn a_server_that_cannot_start_all_its_threads_is_an_error() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["server::few_threads::starts_with_few_threads", "--exact", "--nocapture"]).env(FEW_THREADS, "1");
    let output = command.env("RUST_MIN_STACK", STACK.to_string()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
