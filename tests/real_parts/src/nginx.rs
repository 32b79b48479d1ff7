//! nginx in front of the example `hub`, set up by the very lines that docs/deployment.md shows, and curl as its client.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::example::{Example, built_examples};
use crate::common::http::Client;
use crate::common::{PATIENCE, eventually};

/// What nginx.conf says around those lines: what Debian's does, kept within one folder.
const AROUND: &str = "\
events { worker_connections 768; }
pid nginx.pid;
error_log error.log;
http {
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    gzip on;
    MORE
    include site.conf;
}
";

/// Much more than an answer takes, and less than nginx waits for a client (10 s).
const AT_ONCE: Duration = Duration::from_secs(3);

/// The lines for nginx, and among them those for an `EventServer`.
pub fn site() -> String {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let read = |name: &str| fs::read_to_string(examples.join(name)).unwrap();
    let (before, away) = ("\n    location @away", read("nginx.conf"));
    assert_eq!(away.matches(before).count(), 1, "{away}");
    away.replace(before, &format!("{}{before}", read("nginx-streams.conf")))
}

/// The program, which tests/run installs.
#[track_caller]
fn spawn(command: &mut Command) -> Child {
    // Where Debian has nginx, and an ordinary user's PATH ends too early.
    command.env("PATH", format!("{}:/usr/local/sbin:/usr/sbin", std::env::var("PATH").unwrap()));
    command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| match error.kind() {
        ErrorKind::NotFound => panic!("{:?} is missing: tests/run installs it", command.get_program()),
        _ => panic!("{command:?}: {error}"),
    })
}

/// What it printed.
#[track_caller]
fn run(command: &mut Command) -> (String, Option<i32>) {
    let output = spawn(command.stdout(Stdio::piped())).wait_with_output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

/// How a client speaks with nginx.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    Http1,
    Http2,
}

pub const WAYS: [Way; 2] = [Way::Http1, Way::Http2];

/// What the paths of streams begin with, which comes from tiny_http or from the `EventServer`.
pub const FROM: [&str; 2] = ["", "/streams"];

/// Hub, and nginx before it. nginx is one process, so that killing it leaves nothing behind.
pub struct Site {
    nginx: Child,
    pub hub: Example,
    streams: String,
    folder: TempDir,
    http: SocketAddr,
    https: SocketAddr,
}

impl Site {
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With more lines at the level of `http`.
    #[track_caller]
    pub fn start_with(more: &str) -> Self {
        let mut hub = Command::new(built_examples().join("hub"));
        hub.args(["127.0.0.1:0", "127.0.0.1:0"]);
        let mut hub = Example::run_as_it_is(hub);
        let streams = hub.says("streams on ");
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]);
        openssl.args(["-keyout", &path("events.key"), "-out", &path("events.pem")]).stderr(Stdio::null());
        assert_eq!(run(&mut openssl).1, Some(0), "{openssl:?}");
        fs::write(path("nginx.conf"), AROUND.replace("MORE", more)).unwrap();

        // The ports are free when they are taken; somebody else may be faster than nginx.
        for _ in 0..5 {
            let free = || TcpListener::bind("127.0.0.1:0").unwrap();
            let (one, other) = (free(), free());
            let (http, https) = (one.local_addr().unwrap(), other.local_addr().unwrap());
            let mut site = site();
            for (line, ours) in [
                ("listen 80;", format!("listen {http};")),
                ("listen 443 ssl http2;", format!("listen {https} ssl http2;")),
                ("ssl_certificate /etc/ssl/events.pem;", format!("ssl_certificate {};", path("events.pem"))),
                ("ssl_certificate_key /etc/ssl/events.key;", format!("ssl_certificate_key {};", path("events.key"))),
                ("proxy_pass http://127.0.0.1:5000;", format!("proxy_pass {};", hub.url)),
                ("proxy_pass http://127.0.0.1:5001/;", format!("proxy_pass {streams}/;")),
            ] {
                assert_eq!(site.matches(line).count(), 1, "examples/nginx.conf: {line}");
                site = site.replace(line, &ours);
            }
            fs::write(path("site.conf"), site).unwrap();
            drop((one, other));

            let mut command = Command::new("nginx");
            command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
            command.args(["-g", "daemon off; master_process off;"]).stderr(Stdio::null());
            let mut nginx = Killed(Some(spawn(&mut command)));
            let log = || fs::read_to_string(folder.path().join("error.log")).unwrap_or_default();
            let mut runs = false;
            eventually("nginx listens or gives up", || {
                // Written when all ports are open.
                runs = fs::read_to_string(folder.path().join("nginx.pid")).is_ok_and(|pid| !pid.is_empty());
                runs || nginx.0.as_mut().unwrap().try_wait().unwrap().is_some()
            });
            if runs {
                let nginx = nginx.0.take().unwrap();
                return Self { nginx, hub, streams, folder, http, https };
            }
            assert!(log().contains("bind() to"), "nginx did not start: {}", log());
        }
        panic!("nginx found no free port");
    }

    /// Starts hub once more, where it was.
    #[track_caller]
    pub fn starts_hub_again(&mut self) {
        self.hub.process.wait().unwrap();
        let mut hub = Command::new(built_examples().join("hub"));
        hub.args([&self.hub.url, &self.streams].map(|url| url.strip_prefix("http://").unwrap()));
        self.hub = Example::run_as_it_is(hub);
    }

    /// A connection to nginx, to say to it what curl would not.
    pub fn connect(&self) -> Client {
        Client::connect(self.http)
    }

    pub fn curl(&self, way: Way, path: &str) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-q", "--silent", "--no-buffer", "--noproxy", "*", "--cacert"]);
        curl.arg(self.folder.path().join("events.pem"));
        curl.arg(match way {
            Way::Http1 => "--http1.1",
            Way::Http2 => "--http2",
        });
        curl.arg(self.url(way, path));
        curl
    }

    pub fn url(&self, way: Way, path: &str) -> String {
        match way {
            Way::Http1 => format!("http://{}{path}", self.http),
            Way::Http2 => format!("https://{}{path}", self.https),
        }
    }

    /// The status of an answer to these arguments of curl's, 0 when there is none.
    pub fn status(&self, way: Way, path: &str, arguments: &[&str]) -> u16 {
        let mut curl = self.curl(way, path);
        curl.args(arguments).args(["--output", "/dev/null", "--max-time", "20", "--write-out", "%{http_code}"]);
        run(&mut curl).0.parse().unwrap()
    }

    /// Publishes to a channel, and says to how many.
    #[track_caller]
    pub fn post(&self, way: Way, path: &str, data: &str) -> usize {
        let mut curl = self.curl(way, path);
        curl.args(["--data-binary", data, "--include", "--max-time", "20"]);
        let (answer, code) = run(&mut curl);
        assert_eq!(code, Some(0), "{curl:?}: {answer}");
        let answer = answer.to_ascii_lowercase();
        assert_eq!(answer.split_whitespace().nth(1), Some("204"), "{answer}");
        let watchers = answer.lines().find_map(|line| line.strip_prefix("x-watchers: "));
        watchers.expect(&answer).trim().parse().unwrap()
    }

    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.hub.process.id())).unwrap().count()
    }

    /// Hub lives and answers at once.
    #[track_caller]
    fn is_well(&mut self) {
        assert_eq!(self.hub.process.try_wait().unwrap(), None, "hub has died");
        for way in WAYS {
            let start = Instant::now();
            // More than hub has threads that answer.
            for _ in 0..8 {
                self.post(way, "/well", "x");
            }
            assert!(start.elapsed() < AT_ONCE, "answers took {:?}", start.elapsed());
        }
    }

    /// How many threads hub has after it has answered some requests.
    #[track_caller]
    pub fn threads_at_rest(&mut self) -> usize {
        self.is_well();
        self.threads()
    }

    /// Hub is well, and has no more threads than this, but for a few of tiny_http's that come and go.
    #[track_caller]
    pub fn is_as_well_as_with(&mut self, threads: usize) {
        self.is_well();
        let mut now = 0;
        eventually(&format!("no more threads than {threads} and a few"), || {
            now = self.threads();
            now <= threads + 8
        });
        println!("{threads} threads before, {now} now");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.nginx.kill());
        drop(self.nginx.wait());
    }
}

/// A process that is killed unless it is taken out.
struct Killed(Option<Child>);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(mut process) = self.0.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// A running curl, and the lines it prints, with the moment of each.
pub struct Stream {
    pub process: Child,
    lines: Receiver<(Instant, String)>,
}

impl Stream {
    pub fn run(command: &mut Command) -> Self {
        let mut process = spawn(command.stdout(Stdio::piped()));
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines() {
                if sender.send((Instant::now(), line.unwrap())).is_err() {
                    break;
                }
            }
        });
        Self { process, lines }
    }

    /// A stream that has begun; also its head, in lower case, and when its first comment came.
    #[track_caller]
    pub fn open(site: &Site, way: Way, path: &str, arguments: &[&str]) -> (Self, String, Instant) {
        let mut stream = Self::run(site.curl(way, path).arg("--include").args(arguments));
        let (_, head) = stream.next_frame().expect("a head");
        let status = match way {
            Way::Http1 => "http/1.1 200 ok\n",
            Way::Http2 => "http/2 200",
        };
        let head = head.to_ascii_lowercase();
        assert!(
            head.starts_with(status) && head.contains("content-type: text/event-stream; charset=utf-8\n"),
            "{head}"
        );
        let (moment, comment) = stream.next_line().expect("the first comment");
        assert_eq!(comment, ":");
        let (_, start) = stream.next_frame().expect("the start id");
        assert!(start.starts_with("id: "), "{start}");
        (stream, head, moment)
    }

    /// All up to the next blank line, and when that came; `None` at the end.
    #[track_caller]
    pub fn next_frame(&mut self) -> Option<(Instant, String)> {
        let mut frame = String::new();
        loop {
            let (moment, line) = self.next_line()?;
            if line.is_empty() {
                return Some((moment, frame));
            }
            frame += &format!("{line}\n");
        }
    }

    /// The next line, without white space at its end, and when it came; `None` at the end.
    #[track_caller]
    fn next_line(&mut self) -> Option<(Instant, String)> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok((moment, line)) => Some((moment, line.trim_end().to_owned())),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing within {PATIENCE:?}"),
        }
    }

    /// The next event's data is this. When it came, and its id.
    #[track_caller]
    pub fn gets(&mut self, data: &str) -> (Instant, String) {
        let (moment, frame) = self.next_frame().expect(data);
        let id = frame.strip_prefix(&format!("data: {data}\nid: ")).expect(&frame);
        (moment, id.trim().to_owned())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
