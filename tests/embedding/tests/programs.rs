//! Each program of `docs/embedding.md` sends events at once, resumes, and refuses clients for now at its limit.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Shorter than the heartbeat, which would push a held event through.
const AT_ONCE: Duration = Duration::from_secs(10);

/// How long a program may take to start, and to notice that its clients have left.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running program, killed when it is dropped. What is written to it is published.
struct Program {
    process: Child,
    address: SocketAddr,
}

impl Program {
    #[track_caller]
    fn start(path: &str) -> Self {
        // Not every server reports which port it has taken.
        let address = free_address();
        let process =
            Command::new(path).arg(address.to_string()).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        Self { process, address }
    }

    #[track_caller]
    fn publishes(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    #[track_caller]
    fn opens(&self, headers: &str) -> Stream {
        let start = Instant::now();
        let mut socket = loop {
            match TcpStream::connect(self.address) {
                Ok(socket) => break socket,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
            }
            thread::sleep(Duration::from_millis(10));
        };
        socket.set_read_timeout(Some(AT_ONCE)).unwrap();
        socket.write_all(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes()).unwrap();
        let mut stream = Stream { socket, text: String::new() };
        let head = stream.reads_until("\r\n\r\n").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
        for header in [
            "content-type: text/event-stream; charset=utf-8\r\n",
            "cache-control: no-cache, no-transform\r\n",
            "x-accel-buffering: no\r\n",
        ] {
            assert!(head.contains(header), "{header} is not in {head}");
        }
        stream
    }

    /// Opens a stream, and waits until it has begun.
    #[track_caller]
    fn opens_and_begins(&self) -> Stream {
        let mut stream = self.opens("");
        stream.reads_until("id: ");
        stream
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Returns an address of the loopback whose port is free, and not one of those that the system gives to clients: a client
/// could take it before the program does, and a connection to it could be one to itself.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 20_000) as u16;
    let mut addresses = std::iter::repeat_with(|| {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        SocketAddr::from(([127, 0, 0, 1], port))
    });
    addresses.find(|address| TcpListener::bind(address).is_ok()).unwrap()
}

struct Stream {
    socket: TcpStream,
    text: String,
}

impl Stream {
    /// Reads until the text contains this. Returns everything up to its end.
    #[track_caller]
    fn reads_until(&mut self, part: &str) -> String {
        loop {
            if let Some(at) = self.text.find(part) {
                let rest = self.text.split_off(at + part.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let mut bytes = [0; 4096];
            match self.socket.read(&mut bytes) {
                Ok(read) if read > 0 => self.text.push_str(std::str::from_utf8(&bytes[..read]).unwrap()),
                other => panic!("{other:?} before {part:?}, after {:?}", self.text),
            }
        }
    }

    /// Reads the next event, which has this data. Returns its ID.
    #[track_caller]
    fn gets(&mut self, data: &str) -> String {
        self.reads_until(&format!("data: {data}\n"));
        self.reads_until("id: ");
        self.reads_until("\n").trim().to_owned()
    }
}

/// Checks the promises that hold for every server.
#[track_caller]
fn keeps_its_promises(path: &str) {
    let mut program = Program::start(path);
    let mut stream = program.opens_and_begins();
    let mut last_id = String::new();
    for data in ["first", "second", &"long ".repeat(500)] {
        program.publishes(data);
        last_id = stream.gets(data.trim_end_matches('\n'));
    }
    drop(stream);
    program.publishes("missed");
    let mut resumed = program.opens(&format!("Last-Event-ID: {last_id}\r\n"));
    assert!(!resumed.reads_until("data: missed\n").contains("data: first"), "it has seen that");
    program.publishes("live");
    resumed.gets("live");
}

/// Opens as many streams as the program allows, 200, and one more.
#[track_caller]
fn refuses_the_201st(program: &mut Program) -> Vec<Stream> {
    let mut streams: Vec<Stream> = (0..200).map(|_| program.opens_and_begins()).collect();
    program.opens("").reads_until("retry: ");
    program.publishes("to all");
    for stream in &mut streams {
        stream.gets("to all");
    }
    streams
}

#[test]
fn a_program_on_the_standard_library() {
    let path = env!("CARGO_BIN_EXE_std_listener");
    keeps_its_promises(path);
    refuses_the_201st(&mut Program::start(path));
}

#[test]
fn a_program_on_axum_with_200_streams_on_8_threads() {
    let path = env!("CARGO_BIN_EXE_axum_server");
    keeps_its_promises(path);
    let mut program = Program::start(path);
    let _streams = refuses_the_201st(&mut program);
    #[cfg(target_os = "linux")]
    {
        let threads = std::fs::read_dir(format!("/proc/{}/task", program.process.id())).unwrap().count();
        assert!(threads <= 8, "{threads} threads");
    }
}

#[test]
fn a_program_on_oxhttp() {
    let path = env!("CARGO_BIN_EXE_oxhttp_server");
    keeps_its_promises(path);
    refuses_the_201st(&mut Program::start(path));
}

#[test]
fn a_program_on_touche() {
    let path = env!("CARGO_BIN_EXE_touche_server");
    keeps_its_promises(path);
    refuses_the_201st(&mut Program::start(path));
}

/// A client that leaves frees its place, at the latest after two events.
#[test]
fn a_client_that_leaves_is_noticed() {
    for path in [
        env!("CARGO_BIN_EXE_std_listener"),
        env!("CARGO_BIN_EXE_axum_server"),
        env!("CARGO_BIN_EXE_oxhttp_server"),
        env!("CARGO_BIN_EXE_touche_server"),
    ] {
        let mut program = Program::start(path);
        let streams: Vec<Stream> = (0..200).map(|_| program.opens_and_begins()).collect();
        drop(streams);
        let start = Instant::now();
        // A refused stream has no ID.
        let is_open = |program: &Program| {
            let (mut stream, mut text) = (program.opens(""), String::new());
            while !text.contains("id: ") && !text.contains("retry: ") {
                text += &stream.reads_until("\n");
            }
            text.contains("id: ")
        };
        while !is_open(&program) {
            assert!(start.elapsed() < PATIENCE, "{path}: no place is free");
            program.publishes("any");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_cgi_program_follows_a_file_from_its_beginning_or_from_the_last_event_id() {
    let file = std::env::temp_dir().join(format!("embedding-{}.log", std::process::id()));
    std::fs::write(&file, "one\ntwo\nhal").unwrap();
    let start = |variable: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cgi"));
        command.env_clear().env("LOG_FILE", &file).env(variable, value);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let reads = |program: &mut Child, expected: &str| {
        let mut bytes = vec![0; expected.len()];
        program.stdout.as_mut().unwrap().read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    };
    let head = "Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n\r\n";
    let mut whole = start("HTTP_LAST_EVENT_ID", "");
    reads(&mut whole, head);
    reads(&mut whole, "data: one\nid: 4\n\ndata: two\nid: 8\n\n");
    let mut log = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
    log.write_all(b"f\nlast\n").unwrap();
    reads(&mut whole, "data: half\nid: 13\n\ndata: last\nid: 18\n\n");
    for (variable, value) in [("HTTP_LAST_EVENT_ID", "8"), ("QUERY_STRING", "lastEventId=8")] {
        let mut resumed = start(variable, value);
        reads(&mut resumed, head);
        reads(&mut resumed, "data: half\nid: 13\n\n");
        resumed.kill().unwrap();
        resumed.wait().unwrap();
    }
    // A web server that closes its end of the pipe ends the program at the next line.
    drop(whole.stdout.take());
    log.write_all(b"for nobody\n").unwrap();
    whole.wait().unwrap();
    std::fs::remove_file(&file).unwrap();
}
