//! Ambiguous requests through nginx and HAProxy: EventServer's handler gets only what the proxy has seen, and once.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use real_parts::common::http::Client;
use real_parts::common::server::{reads_response, send};
use real_parts::common::{eventually, free_address};
use server_sent_events::server::{EventServer, Request, Response, RunningServer};
use tempfile::TempDir;

/// Each request is marked with a number of its own and with what the proxy takes it for. Connections to the server are
/// reused as much as possible: a request that is left in one meets the next client's.
const NGINX: &str = "\
events { worker_connections 768; }
pid nginx.pid;
error_log error.log;
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_header_timeout 1s;
    client_body_timeout 1s;
    keepalive_timeout 1s;
    underscores_in_headers on;
    ignore_invalid_headers off;
    upstream server { server SERVER; keepalive 2; }
    server {
        listen PROXY;
        location / {
            proxy_pass http://server;
            proxy_http_version 1.1;
            proxy_request_buffering BUFFERING;
            proxy_set_header Host localhost;
            proxy_set_header Connection \"\";
            proxy_set_header X-Seen $request_id;
            proxy_set_header X-Method $request_method;
        }
    }
}
";

const HAPROXY: &str = "\
global
    maxconn 500
defaults
    mode http
    timeout connect 30s
    timeout queue 30s
    timeout client 1s
    timeout http-request 1s
    timeout http-keep-alive 1s
    timeout server 30s
    http-reuse always
    option accept-invalid-http-request
frontend clients
    bind PROXY
    http-request set-header X-Seen %[uuid]
    http-request set-header X-Method %[method]
    http-request set-header Host localhost
    default_backend server
backend server
    server one SERVER maxconn 2
";

/// A proxy, and the server behind it.
struct Setup {
    proxy: Child,
    address: SocketAddr,
    server: RunningServer,
    requests: Arc<Mutex<Vec<Request>>>,
    _folder: TempDir,
}

impl Setup {
    #[track_caller]
    fn start(program: &str, config: &str) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let server = EventServer::builder()
            .max_body(100_000)
            .body_read_timeout(Duration::from_secs(1))
            .bind("127.0.0.1:0")
            .unwrap();
        let server = server.spawn(move |request: &Request| {
            seen.lock().unwrap().push(request.clone());
            Response::text(request.target().to_owned())
        });
        let server = server.unwrap();
        let folder = tempfile::tempdir().unwrap();
        // The port is free when it is chosen; another process can still take it before the proxy does.
        for _ in 0..5 {
            let address = free_address();
            let config = config.replace("SERVER", &server.local_addr().to_string());
            fs::write(folder.path().join("proxy.conf"), config.replace("PROXY", &address.to_string())).unwrap();
            let mut command = Command::new(program);
            match program {
                "nginx" => command
                    .arg("-p")
                    .arg(folder.path())
                    .args(["-c", "proxy.conf", "-e", "error.log"])
                    .args(["-g", "daemon off; master_process off;"]),
                _ => command.args(["-db", "-f"]).arg(folder.path().join("proxy.conf")),
            };
            // Debian has them here, which is missing in an ordinary user's PATH.
            command.env("PATH", format!("{}:/usr/local/sbin:/usr/sbin", std::env::var("PATH").unwrap()));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut proxy = command.spawn().unwrap_or_else(|error| match error.kind() {
                ErrorKind::NotFound => panic!("{program} is missing: tests/run installs it"),
                _ => panic!("{command:?}: {error}"),
            });
            let (mut listens, mut ended) = (false, false);
            eventually("the proxy listens or gives up", || {
                listens = TcpStream::connect(address).is_ok();
                ended = proxy.try_wait().unwrap().is_some();
                listens || ended
            });
            if !ended {
                return Self { proxy, address, server, requests, _folder: folder };
            }
        }
        panic!("{program} does not start");
    }

    /// Sends these bytes on connections of their own, and other clients' requests meanwhile and afterwards.
    #[track_caller]
    fn attack(&self, attacks: &[Vec<u8>]) {
        for attacks in attacks.chunks(8) {
            let mut clients: Vec<Client> = attacks.iter().map(|attack| send(self.address, attack)).collect();
            for n in 0..8 {
                self.victim(&format!("/victim/{n}"));
            }
            for client in &mut clients {
                // Any response: the proxy ends a connection that it does not understand, or waits for.
                client.reads_all_there_is();
            }
        }
        for n in 0..8 {
            self.victim(&format!("/victim/again/{n}"));
        }
    }

    /// Checks that a well-behaved client gets the response to its own request.
    #[track_caller]
    fn victim(&self, path: &str) {
        let mut client =
            send(self.address, format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"));
        let head = client.reads_head();
        assert_eq!(head.status(), "HTTP/1.1 200 OK", "{path}");
        assert_eq!(client.reads_bytes(path.len()), path);
    }

    /// Checks every request that the handler got.
    #[track_caller]
    fn got_only_what_the_proxy_has_seen(&self) {
        let (requests, mut seen) = (self.requests.lock().unwrap(), HashSet::new());
        for request in &*requests {
            let values = |name: &str| -> Vec<&str> {
                request.headers().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
            };
            assert_eq!(values("X-Method"), [request.method()], "{request:?}");
            let [number] = values("X-Seen")[..] else { panic!("not of the proxy: {request:?}") };
            assert!(seen.insert(number.to_owned()), "twice: {request:?}");
        }
        let attacks = requests.iter().filter(|request| !request.path().starts_with("/victim")).count();
        println!("{} requests, of which {attacks} came from attacks that the proxy accepted", requests.len());
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

/// A request that must not be handled unless the proxy sees it as one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\nX-Ignore: x\r\n\r\n";

/// Returns a post with these header lines, and this body.
fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /attack HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n{body}").into_bytes()
}

/// Requests that some pair of servers reads, or used to read, differently.
fn attacks() -> Vec<Vec<u8>> {
    let length = SMUGGLED.len();
    let last_first = format!("0\r\n\r\n{SMUGGLED}");
    let chunk = format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n");
    let mut attacks = Vec::new();
    // CL.TE and TE.CL.
    for (lines, body) in [
        (format!("Content-Length: {}\r\nTransfer-Encoding: chunked", last_first.len()), &last_first),
        (format!("Transfer-Encoding: chunked\r\nContent-Length: {}", last_first.len()), &last_first),
        ("Content-Length: 4\r\nTransfer-Encoding: chunked".to_owned(), &chunk),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0".to_owned(), &chunk),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3".to_owned(), &last_first),
    ] {
        attacks.push(post(&lines, body));
        attacks.push(post(&lines.replace("HTTP/1.1", "HTTP/1.0"), body));
    }
    // TE.TE: one of the two must not understand it.
    for coding in [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: chunked\x0b",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked;x=y",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: chun\u{212a}ed",
        "Transfer_Encoding: chunked",
        "TRANSFER-ENCODING: CHUNKED",
        "Transfer-Encoding: chunked\0",
    ] {
        attacks.push(post(&format!("Content-Length: {}\r\n{coding}", last_first.len()), &last_first));
        attacks.push(post(&format!("{coding}\r\nContent-Length: 4"), &chunk));
        attacks.push(post(coding, &last_first));
    }
    // Lengths.
    for lengths in [
        format!("Content-Length: 0\r\nContent-Length: {length}"),
        format!("Content-Length: {length}\r\nContent-Length: 0"),
        format!("Content-Length: 0, {length}"),
        format!("Content-Length: {length}\r\nContent-Length: {length}"),
        format!("Content-Length: +{length}"),
        format!("Content-Length: -{length}"),
        format!("Content-Length: 0x{length:x}"),
        format!("Content-Length: 00{length}"),
        format!("Content-Length: {length} "),
        format!("Content-Length : {length}"),
        format!("Content-Length:\r\n {length}"),
        format!("Content-Length: 0\r\n {length}"),
        format!("Content_Length: {length}"),
        format!("Content-Length: {length}\x0b"),
        format!("X: y\nContent-Length: {length}"),
        format!("Content-Length: 0\nContent-Length: {length}"),
        "Content-Length: 18446744073709551616".to_owned(),
        "Content-Length: 0".to_owned(),
        "X: y".to_owned(),
    ] {
        attacks.push(post(&lengths, SMUGGLED));
        attacks.push(String::from_utf8(post(&lengths, SMUGGLED)).unwrap().replace("POST", "GET").into_bytes());
    }
    // Chunks.
    for body in [
        format!("0;\n\r\n\r\n{SMUGGLED}"),
        format!("5;a=\"\r\nhello\r\n0\r\n\r\n{SMUGGLED}\"\r\n"),
        format!("5;a\nhello\r\n0\r\n\r\n{SMUGGLED}"),
        format!("5;a\rhello\r\n0\r\n\r\n{SMUGGLED}"),
        format!("5 ;a\r\nhello\r\n0\r\n\r\n{SMUGGLED}"),
        format!("0x5\r\nhello\r\n0\r\n\r\n{SMUGGLED}"),
        format!("+5\r\nhello\r\n0\r\n\r\n{SMUGGLED}"),
        format!("10000000000000005\r\nhello\r\n0\r\n\r\n{SMUGGLED}"),
        format!("00000000000000000000005\r\nhello\r\n0\r\n\r\n{SMUGGLED}"),
        format!("5\nhello\n0\n\n{SMUGGLED}"),
        format!("5\r\nhelloXX0\r\n\r\n{SMUGGLED}"),
        format!("5\r\nhello\n0\r\n\r\n{SMUGGLED}"),
        format!("5\r\nhello\r\n0\r\nContent-Length: 0\r\nX: y\r\n\r\n{SMUGGLED}"),
        format!("5\r\nhello\r\n0\r\nX: y\n\r\n{SMUGGLED}"),
        format!("5\r\nhello\r\n0\r\n\n{SMUGGLED}"),
        format!("5\r\nhello\r\n0\r\nHost: x\r\n\r\n{SMUGGLED}"),
        format!("\r\n0\r\n\r\n{SMUGGLED}"),
        chunk.clone(),
    ] {
        attacks.push(post("Transfer-Encoding: chunked", &body));
    }
    // Leading bytes, and the request line.
    for first in [
        "GET http://example.org/attack HTTP/1.1\r\nHost: localhost",
        "GET http://localhost/attack HTTP/1.1\r\nHost: example.org",
        "GET /attack HTTP/1.1\r\nHost: localhost\r\nHost: example.org",
        "GET /attack HTTP/1.1\r\nHost: localhost, example.org",
        "GET /attack HTTP/1.1\r\nHost: localhost\r\n example.org",
        "GET /attack HTTP/1.1\nHost: localhost",
        "GET /attack\tHTTP/1.1\r\nHost: localhost",
        "GET /attack HTTP/1.1 HTTP/1.1\r\nHost: localhost",
        "GET /attack%20HTTP/1.1%0d%0aHost:%20x HTTP/1.1\r\nHost: localhost",
        "GET /attack#x HTTP/1.1\r\nHost: localhost",
        "GET /attack HTTP/1.1\r\nHost: localhost\r\nConnection: Content-Length, X-Seen, X-Method",
        "GET /attack HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c",
        "GET /attack HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket",
        "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80",
        "CONNECT / HTTP/1.1\r\nHost: localhost",
        "HEAD /attack HTTP/1.1\r\nHost: localhost",
        "OPTIONS * HTTP/1.1\r\nHost: localhost",
        "GET /attack HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive",
        "GET /attack HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue",
        "POST /attack HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 65",
        "get /attack HTTP/1.1\r\nHost: localhost",
        "\r\n\r\nGET /attack HTTP/1.1\r\nHost: localhost",
    ] {
        attacks.push(format!("{first}\r\n\r\n{SMUGGLED}").into_bytes());
    }
    attacks
}

#[track_caller]
fn smuggles_nothing(program: &str, config: &str) {
    let setup = Setup::start(program, config);
    let attacks = attacks();
    println!("{program}: {} attacks", attacks.len());
    setup.attack(&attacks);
    setup.got_only_what_the_proxy_has_seen();
    // The server still answers.
    let own = send(setup.server.local_addr(), "GET /own HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(reads_response(&mut { own }, false).body, "/own");
}

#[test]
fn through_nginx_nothing_is_smuggled() {
    smuggles_nothing("nginx", &NGINX.replace("BUFFERING", "on"));
}

#[test]
fn through_nginx_that_passes_bodies_on_as_they_arrive_nothing_is_smuggled() {
    smuggles_nothing("nginx", &NGINX.replace("BUFFERING", "off"));
}

#[test]
fn through_haproxy_nothing_is_smuggled() {
    smuggles_nothing("haproxy", &HAPROXY.replace("    option accept-invalid-http-request\n", ""));
}

#[test]
fn through_haproxy_that_accepts_what_is_invalid_nothing_is_smuggled() {
    smuggles_nothing("haproxy", HAPROXY);
}

/// The test would detect a server that reads bodies in another way than its proxy.
#[test]
fn a_request_without_the_proxys_mark_is_noticed() {
    let setup = Setup::start("haproxy", HAPROXY);
    send(setup.server.local_addr(), SMUGGLED).reads_until("/smuggled");
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| setup.got_only_what_the_proxy_has_seen()));
    assert!(checked.is_err());
}
