//! The example `socket_activation`, started as systemd starts it: with a listening socket as its descriptor 3.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};

use crate::common::PATIENCE;
use crate::common::example::built_examples;
use crate::common::http::GET;

/// The program, killed when it is dropped.
struct Activated(Child);

impl Activated {
    fn start(socket: impl Into<OwnedFd>) -> Self {
        // The shell moves the socket to descriptor 3, and its process becomes the program's.
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" 3<&0 </dev/null"#]);
        shell.arg(built_examples().join("socket_activation")).stdin(Stdio::from(socket.into()));
        Self(shell.spawn().unwrap())
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[track_caller]
fn shows_an_event(mut client: impl Read + Write) {
    client.write_all(GET.as_bytes()).unwrap();
    let mut lines = BufReader::new(client).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "data: somebody asked for /"), "the stream ended");
}

/// The first client connects before the program runs, as with systemd, and the next one while another program takes over.
#[test]
fn clients_of_a_socket_wait_for_the_program_and_for_its_successor() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // systemd's sockets may be passed with this flag.
    listener.set_nonblocking(true).unwrap();
    for _ in 0..2 {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let _program = Activated::start(listener.try_clone().unwrap());
        shows_an_event(client);
    }
}

#[test]
fn a_unix_socket_of_systemd_is_served_and_its_file_stays() {
    let path = std::env::temp_dir().join(format!("sse-{}-activated.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        let client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let _program = Activated::start(listener.try_clone().unwrap());
        shows_an_event(client);
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn without_a_socket_it_names_the_remedy() {
    let output = Command::new(built_examples().join("socket_activation")).output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("no socket: let systemd start this program"), "{error}");
}
