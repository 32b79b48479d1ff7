//! curl reads streams of the tiny_http adapter over a Unix socket, and over TLS.

use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;

use real_parts::curl::Stream;
use real_parts::proxy::make_certificates;
use server_sent_events::Publisher;
use server_sent_events::adapter::tiny_http::Server;
use tiny_http::SslConfig;

/// Answers curl's request for a stream on this server, and checks that each event arrives at once.
#[track_caller]
fn shows_events(server: Server, arguments: &[&str]) {
    let publisher = Publisher::new();
    let stop_handle = server.stop_handle();
    let streams = publisher.clone();
    let serving = thread::spawn(move || server.serve(2, |request| streams.respond(request)).unwrap());

    let mut curl = Command::new("curl");
    let mut stream = Stream::run(curl.args(["-q", "--silent", "--no-buffer", "--noproxy", "*"]).args(arguments));
    assert_eq!(stream.next_line().expect("the first comment").1, ":");
    for n in 0..10 {
        publisher.publish(n.to_string());
        assert_eq!(stream.next_frame().expect("an event").1.trim(), format!("data: {n}"));
    }
    publisher.close();
    assert_eq!(stream.next_frame(), None);
    assert!(stream.process.wait().unwrap().success(), "curl has seen no proper end");
    stop_handle.stop();
    serving.join().unwrap();
}

#[test]
fn over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.sock");
    let server = Server::from_listener(UnixListener::bind(&path).unwrap()).unwrap();
    shows_events(server, &["--unix-socket", path.to_str().unwrap(), "http://localhost/"]);
}

#[test]
fn over_tls() {
    let folder = tempfile::tempdir().unwrap();
    make_certificates(folder.path());
    let (certificate, key) = (folder.path().join("events.pem"), folder.path().join("events.key"));
    let read = |path| std::fs::read(path).unwrap();
    let trust = ["--cacert", certificate.to_str().unwrap()];
    for arguments in [&["-k"][..], &[trust[0], trust[1], "--tlsv1.3"], &[trust[0], trust[1], "--tls-max", "1.2"]] {
        let tls = SslConfig { certificate: read(&certificate), private_key: read(&key) };
        let server = Server::https("127.0.0.1:0", tls).unwrap();
        let url = format!("https://{}/", server.local_addr().unwrap());
        shows_events(server, &[arguments, &[&url]].concat());
    }
}
