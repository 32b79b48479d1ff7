//! A proxy in front of a program, set up with the exact configuration in docs/deployment.md, and curl as its client.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::example::{Example, built_examples};
use crate::common::http::Client;
use crate::common::{eventually, free_address};

/// The rest of nginx.conf around that configuration: Debian's, kept within one folder.
const AROUND_NGINX: &str = "\
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

/// Much longer than a response takes, and shorter than nginx waits for a client (10 s).
const AT_ONCE: Duration = Duration::from_secs(5);

/// Returns the command of the program, which tests/run installs.
#[track_caller]
pub fn spawn(command: &mut Command) -> Child {
    // Debian has nginx and HAProxy here, which is missing in an ordinary user's PATH.
    command.env("PATH", format!("{}:/usr/local/sbin:/usr/sbin", std::env::var("PATH").unwrap()));
    command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| match error.kind() {
        ErrorKind::NotFound => panic!("{:?} is missing: tests/run installs it", command.get_program()),
        _ => panic!("{command:?}: {error}"),
    })
}

/// Returns what it printed.
#[track_caller]
fn run(command: &mut Command) -> (String, Option<i32>) {
    let output = spawn(command.stdout(Stdio::piped())).wait_with_output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

/// The protocol between a client and the proxy.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    Http1,
    Http2,
}

pub const WAYS: [Way; 2] = [Way::Http1, Way::Http2];

/// The program behind the proxy. Both have the same channels.
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// hub, on an `EventServer`.
    Hub,
    /// The same channels on tiny_http.
    TinyHttp,
}

pub const PROGRAMS: [Program; 2] = [Program::Hub, Program::TinyHttp];

impl Program {
    #[track_caller]
    fn start(self, address: &str, arguments: &[&str]) -> Example {
        let mut command = Command::new(match self {
            Self::Hub => built_examples().join("hub"),
            // cargo builds it with the tests, into their parent folder.
            Self::TinyHttp => std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("tiny_http_hub"),
        });
        command.arg(address).args(arguments);
        Example::run_as_it_is(command)
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Proxy {
    Nginx,
    HaProxy,
    /// Whether it works over TLS only.
    Caddy,
}

impl Proxy {
    /// Returns the file with the configuration that docs/deployment.md shows.
    fn file(self) -> &'static str {
        match self {
            Self::Nginx => "nginx.conf",
            Self::HaProxy => "haproxy.cfg",
            Self::Caddy => "Caddyfile",
        }
    }

    /// Returns this configuration.
    pub fn lines(self) -> String {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        fs::read_to_string(examples.join(self.file())).unwrap()
    }

    /// Returns what the test writes instead of the addresses and paths in this configuration.
    fn replacements(self, ports: Ports, program: &str, folder: &Path) -> Vec<(&'static str, String)> {
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let Ports { http, https } = ports;
        let address = program.strip_prefix("http://").unwrap();
        match self {
            Self::Nginx => vec![
                ("listen 80;", format!("listen {http};")),
                ("listen 443 ssl http2;", format!("listen {https} ssl http2;")),
                ("ssl_certificate /etc/ssl/events.pem;", format!("ssl_certificate {};", path("events.pem"))),
                ("ssl_certificate_key /etc/ssl/events.key;", format!("ssl_certificate_key {};", path("events.key"))),
                ("proxy_pass http://127.0.0.1:5000;", format!("proxy_pass {program};")),
            ],
            Self::HaProxy => vec![
                ("bind :80\n", format!("bind {http}\n")),
                ("bind :443 ", format!("bind {https} ")),
                ("/etc/haproxy/events.pem", path("both.pem")),
                ("127.0.0.1:5000", address.to_owned()),
            ],
            Self::Caddy => vec![
                (
                    "events.example.org {\n",
                    format!("https://{https} {{\n    tls {} {}\n", path("events.pem"), path("events.key")),
                ),
                ("127.0.0.1:5000", address.to_owned()),
            ],
        }
    }

    /// Writes its configuration. Returns the command that starts it in the foreground, as one process.
    fn configure(self, folder: &Path, lines: String, more: &str) -> Command {
        let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
        let mut command;
        match self {
            Self::Nginx => {
                write("nginx.conf", AROUND_NGINX.replace("MORE", more));
                write("site.conf", lines);
                command = Command::new("nginx");
                command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "error.log"]);
                command.args(["-g", "daemon off; master_process off;"]);
            }
            Self::HaProxy => {
                write("haproxy.cfg", lines);
                let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
                write("both.pem", read("events.pem") + &read("events.key"));
                command = Command::new("haproxy");
                command.args(["-db", "-f"]).arg(folder.join("haproxy.cfg"));
            }
            Self::Caddy => {
                write("Caddyfile", format!("{{\n    admin off\n    auto_https off\n}}\n{lines}"));
                command = Command::new("caddy");
                command.args(["run", "--adapter", "caddyfile", "--config"]).arg(folder.join("Caddyfile"));
                command.env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
            }
        }
        command
    }
}

/// The address on which the proxy listens.
#[derive(Clone, Copy)]
struct Ports {
    http: SocketAddr,
    https: SocketAddr,
}

/// A program behind a proxy. The proxy is one process, so killing it leaves nothing behind.
pub struct Site {
    pub kind: Proxy,
    proxy: Child,
    program: Program,
    pub hub: Example,
    folder: TempDir,
    ports: Ports,
}

impl Site {
    /// Starts hub behind nginx.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(Proxy::Nginx, Program::Hub, "")
    }

    /// Starts it with more lines at the level of nginx's `http`.
    #[track_caller]
    pub fn with(kind: Proxy, program: Program, more: &str) -> Self {
        Self::before(kind, program, program.start(&free_address().to_string(), &[]), more)
    }

    /// Starts it in front of hub with these arguments.
    #[track_caller]
    pub fn with_arguments(kind: Proxy, arguments: &[&str]) -> Self {
        Self::before(kind, Program::Hub, Program::Hub.start(&free_address().to_string(), arguments), "")
    }

    #[track_caller]
    fn before(kind: Proxy, program: Program, hub: Example, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_certificates(folder.path());
        // The ports are free when they are chosen; another process can still take one before the proxy does.
        for _ in 0..5 {
            let free = || TcpListener::bind("127.0.0.1:0").unwrap();
            let (one, other) = (free(), free());
            let ports = Ports { http: one.local_addr().unwrap(), https: other.local_addr().unwrap() };
            let mut lines = kind.lines();
            for (line, ours) in kind.replacements(ports, &hub.url, folder.path()) {
                assert_eq!(lines.matches(line).count(), 1, "examples/{}: {line}", kind.file());
                lines = lines.replace(line, &ours);
            }
            let mut command = kind.configure(folder.path(), lines, more);
            let log: PathBuf = folder.path().join("output");
            command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
            drop((one, other));
            let mut proxy = Killed(Some(spawn(&mut command)));
            let mut runs = false;
            eventually("the proxy listens or gives up", || {
                let ended = proxy.0.as_mut().unwrap().try_wait().unwrap().is_some();
                // It opens the plain port before the other.
                runs = !ended && TcpStream::connect(ports.https).is_ok();
                runs || ended
            });
            if runs {
                let proxy = proxy.0.take().unwrap();
                return Self { kind, proxy, program, hub, folder, ports };
            }
            let output = fs::read_to_string(log).unwrap();
            assert!(
                ["bind() to", "cannot bind", "in use"].iter().any(|text| output.contains(text)),
                "{kind:?}: {output}"
            );
        }
        panic!("{kind:?} found no free port");
    }

    /// Restarts the program on its address.
    #[track_caller]
    pub fn starts_hub_again(&mut self) {
        self.hub.process.wait().unwrap();
        self.hub = self.program.start(self.hub.url.strip_prefix("http://").unwrap(), &[]);
    }

    /// Returns the root certificate that has signed the proxy's.
    pub fn root_certificate(&self) -> String {
        fs::read_to_string(self.folder.path().join("root.pem")).unwrap()
    }

    /// Opens a connection to the proxy, to send what curl would not send.
    pub fn connect(&self) -> Client {
        Client::connect(self.ports.http)
    }

    pub fn curl(&self, way: Way, path: &str) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-q", "--silent", "--no-buffer", "--noproxy", "*", "--cacert"]);
        curl.arg(self.folder.path().join("root.pem"));
        curl.arg(match way {
            Way::Http1 => "--http1.1",
            Way::Http2 => "--http2",
        });
        curl.arg(self.url(way, path));
        curl
    }

    pub fn url(&self, way: Way, path: &str) -> String {
        match (way, self.kind) {
            (Way::Http1, Proxy::Nginx | Proxy::HaProxy) => format!("http://{}{path}", self.ports.http),
            _ => format!("https://{}{path}", self.ports.https),
        }
    }

    /// Returns the status of the response to curl with these arguments, or 0 if there is none.
    pub fn status(&self, way: Way, path: &str, arguments: &[&str]) -> u16 {
        let mut curl = self.curl(way, path);
        curl.args(arguments).args(["--output", "/dev/null", "--max-time", "20", "--write-out", "%{http_code}"]);
        run(&mut curl).0.parse().unwrap()
    }

    /// Publishes to a channel, and returns to how many subscribers.
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

    /// Checks that the program is alive and answers at once.
    #[track_caller]
    fn is_well(&mut self) {
        assert_eq!(self.hub.process.try_wait().unwrap(), None, "hub has died");
        for way in WAYS {
            // More than it has handler threads.
            for _ in 0..8 {
                let start = Instant::now();
                self.post(way, "/well", "x");
                assert!(start.elapsed() < AT_ONCE, "an answer took {:?}", start.elapsed());
            }
        }
    }

    /// Returns how many threads hub has after it has answered some requests.
    #[track_caller]
    pub fn threads_at_rest(&mut self) -> usize {
        self.is_well();
        self.threads()
    }

    /// Checks that hub answers, and has no more threads than this, except for a few of tiny_http's that come and go.
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

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} behind {:?}", self.program, self.kind)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.proxy.kill());
        drop(self.proxy.wait());
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

/// Creates a root certificate, and one for 127.0.0.1 that it has signed.
pub fn make_certificates(folder: &Path) {
    let make = |name: &str, more: &[&str]| {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
        openssl.args(more).current_dir(folder);
        assert_eq!(run(openssl.stderr(Stdio::null())).1, Some(0), "{openssl:?}");
    };
    make("root", &["-subj", "/CN=a root of this test"]);
    let signed =
        ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-CA", "root.pem", "-CAkey", "root.key"];
    make("events", &[&signed[..], &["-addext", "basicConstraints=critical,CA:FALSE"]].concat());
}
