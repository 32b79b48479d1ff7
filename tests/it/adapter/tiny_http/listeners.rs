//! The adapter's `Server` on listeners of the application: TCP, Unix sockets, and with TLS.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::common::http::{Client, GET};
use crate::common::{PATIENCE, Watchdog, eventually};
use server_sent_events::Publisher;
use server_sent_events::adapter::tiny_http::Server;
use socket2::SockRef;

/// Answers all requests to this server with streams while the test runs.
fn streams(server: &Server, test: impl FnOnce(&Publisher)) {
    let _watchdog = Watchdog::new("a test of a listener");
    let publisher = Publisher::new();
    thread::scope(|scope| {
        scope.spawn(|| server.serve(2, |request| publisher.respond(request)).unwrap());
        test(&publisher);
        publisher.close();
        server.stop_handle().stop();
    });
}

/// Reads until the text contains this.
#[track_caller]
fn reads_until(client: &mut impl Read, end: &str) {
    let mut text = String::new();
    while !text.contains(end) {
        let mut bytes = [0; 4096];
        match client.read(&mut bytes) {
            Ok(read) if read > 0 => text.push_str(std::str::from_utf8(&bytes[..read]).unwrap()),
            other => panic!("{other:?} before {end:?}, after {text:?}"),
        }
    }
}

/// Opens streams at once, several times. A starved one gets its first byte only when another one ends.
fn none_starves<C: Read + Write>(server: &Server, streams_at_once: usize, connect: impl Fn() -> C) {
    crate::common::raise_open_files();
    streams(server, |publisher| {
        for _ in 0..3 {
            let mut clients: Vec<C> = (0..streams_at_once).map(|_| connect()).collect();
            for client in &mut clients {
                client.write_all(GET.as_bytes()).unwrap();
            }
            for client in &mut clients {
                reads_until(client, ":\n");
            }
            publisher.publish("hello");
            for client in &mut clients {
                reads_until(client, "data: hello\n\n");
            }
            publisher.close();
            for client in &mut clients {
                reads_until(client, "0\r\n\r\n");
            }
        }
    });
}

fn connect(server: &Server) -> Client {
    let mut client = Client::connect(server.local_addr().unwrap());
    client.send(GET);
    client
}

/// systemd may pass a socket that does not block, and tiny_http would end at the first `accept` without a connection.
#[test]
fn a_listener_that_does_not_block_serves_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = Server::from_listener(listener).unwrap();
    streams(&server, |publisher| {
        let mut client = connect(&server);
        client.reads_until(":\n");
        publisher.publish("hello");
        client.reads_until("data: hello\n\n");
    });
}

/// Each of them makes a thread of tiny_http panic and end, with the next ones still in its queue.
#[test]
fn connections_that_were_reset_before_they_were_read_hold_up_no_later_one_for_good() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = || Client::connect(listener.local_addr().unwrap());
    let send = |mut client: Client| {
        client.send(GET);
        client
    };
    // They wait until the server begins, which then has them all at once.
    for _ in 0..20 {
        send(connect()).resets();
    }
    let mut later = send(connect());
    let server = Server::from_listener(listener.try_clone().unwrap()).unwrap();
    streams(&server, |_| {
        later.reads_until(":\n");
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_listener_of_the_application_gets_the_options_of_the_builder() {
    let options = |server: &TcpListener| {
        let socket = SockRef::from(server);
        let (buffer, unsent) = (socket.send_buffer_size().unwrap(), socket.tcp_notsent_lowat().unwrap());
        (buffer, unsent, socket.tcp_nodelay().unwrap(), socket.tcp_user_timeout().unwrap())
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let shared = listener.try_clone().unwrap();
    let (default_buffer, ..) = options(&shared);
    let timeout = Some(std::time::Duration::from_secs(30));

    let _server = Server::from_listener(listener.try_clone().unwrap()).unwrap();
    assert_eq!(options(&shared), (default_buffer, 64 * 1024, true, timeout));

    let settings = Server::builder().send_buffer_size(32 * 1024).notsent_lowat(4096);
    let _server = settings.from_listener(listener).unwrap();
    assert_eq!(options(&shared), (64 * 1024, 4096, true, timeout));
}

#[test]
fn a_bound_server_takes_the_options_of_the_builder() {
    // Returns how many bytes the kernel takes of what no client reads: all, or the first that are more than this.
    let sent_unread = |settings: server_sent_events::adapter::tiny_http::ServerBuilder, more_than: Option<usize>| {
        let server = settings.bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        client.write_all(GET.as_bytes()).unwrap();
        let mut writer = server.recv().unwrap().into_writer();
        // Writes until the kernel takes no more: the thread that writes is then blocked.
        let (sent, total) = crossbeam_channel::unbounded();
        let writing =
            thread::spawn(move || while writer.write_all(&[b'x'; 1024]).is_ok_and(|()| sent.send(()).is_ok()) {});
        let mut bytes = 0;
        while more_than.is_none_or(|most| bytes <= most) {
            let patience = if more_than.is_some() { PATIENCE } else { std::time::Duration::from_millis(500) };
            if total.recv_timeout(patience).is_err() {
                break;
            }
            bytes += 1024;
        }
        drop((total, client));
        writing.join().unwrap();
        bytes
    };
    let small = sent_unread(Server::builder().send_buffer_size(8 * 1024).notsent_lowat(4096), None);
    let large = Server::builder().send_buffer_size(1024 * 1024).notsent_lowat(1024 * 1024);
    let large = sent_unread(large, Some(2 * small));
    assert!(2 * small < large, "{small} and {large} bytes");
}

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;

    use super::*;

    /// A path for a socket, which is free.
    struct Path(PathBuf);

    impl Path {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sse-{}-{name}.sock", std::process::id()));
            let _ = fs::remove_file(&path);
            Self(path)
        }

        fn server(&self) -> Server {
            Server::from_listener(UnixListener::bind(&self.0).unwrap()).unwrap()
        }

        fn connect(&self) -> UnixStream {
            let client = UnixStream::connect(&self.0).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client
        }
    }

    impl Drop for Path {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_unix_socket_carries_streams_and_its_file_goes_with_the_server() {
        let path = Path::new("streams");
        let server = path.server();
        let error = server.local_addr().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("Unix socket"), "{error}");
        assert!(format!("{server:?}").contains("sse-"), "{server:?}");
        streams(&server, |publisher| {
            let mut client = path.connect();
            client.write_all(GET.as_bytes()).unwrap();
            reads_until(&mut client, "\r\n\r\n00000002\r\n:\n\r\n");
            publisher.publish("hello");
            reads_until(&mut client, "data: hello\n\n");
        });
        drop(server);
        assert!(!path.0.exists());
        eventually("it accepts no more connections", || UnixStream::connect(&path.0).is_err());
    }

    #[test]
    fn of_streams_that_open_at_once_on_a_unix_socket_none_starves() {
        let path = Path::new("starving");
        // Below the backlog of std, which is 128: a further `connect` would block.
        none_starves(&path.server(), 100, || path.connect());
    }

    #[test]
    fn a_client_that_leaves_a_unix_socket_is_noticed() {
        let path = Path::new("leaves");
        let server = path.server();
        streams(&server, |publisher| {
            let mut client = path.connect();
            client.write_all(GET.as_bytes()).unwrap();
            reads_until(&mut client, ":\n");
            drop(client);
            eventually("its end is noticed", || {
                publisher.publish("hello");
                publisher.stats().ended.connection_lost == 1
            });
        });
    }

    /// tiny_http would panic when it is dropped.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_unix_socket_without_a_path_is_rejected_with_the_remedy() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::SocketAddr;

        let name = format!("sse {}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        let error = Server::from_listener(listener).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "unsupported Unix socket: bind it to a path");
    }
}

#[cfg(feature = "tiny_http_openssl")]
mod tls {
    use openssl::asn1::Asn1Time;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::PKey;
    use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream};
    use openssl::x509::{X509, X509NameBuilder};
    use tiny_http::SslConfig;

    use super::*;

    /// Makes a certificate and its key.
    fn certificate() -> SslConfig {
        let key = EcKey::generate(&EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap()).unwrap();
        let key = PKey::from_ec_key(key).unwrap();
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_text("CN", "localhost").unwrap();
        let name = name.build();
        let mut certificate = X509::builder().unwrap();
        certificate.set_subject_name(&name).unwrap();
        certificate.set_issuer_name(&name).unwrap();
        certificate.set_pubkey(&key).unwrap();
        certificate.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        certificate.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        certificate.sign(&key, MessageDigest::sha256()).unwrap();
        let certificate = certificate.build().to_pem().unwrap();
        SslConfig { certificate, private_key: key.private_key_to_pem_pkcs8().unwrap() }
    }

    fn server() -> Server {
        Server::https("127.0.0.1:0", certificate()).unwrap()
    }

    fn connect(server: &Server) -> SslStream<TcpStream> {
        let socket = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let context = SslContext::builder(SslMethod::tls_client()).unwrap().build();
        Ssl::new(&context).unwrap().connect(socket).unwrap()
    }

    #[test]
    fn a_stream_over_tls_gets_each_event_at_once_and_its_connection_goes_on() {
        let server = server();
        streams(&server, |publisher| {
            let mut client = connect(&server);
            for _ in 0..3 {
                client.write_all(GET.as_bytes()).unwrap();
                reads_until(&mut client, ":\n");
                for n in 0..10 {
                    publisher.publish(n.to_string());
                    reads_until(&mut client, &format!("data: {n}\n\n"));
                }
                publisher.close();
                reads_until(&mut client, "0\r\n\r\n");
            }
        });
    }

    #[test]
    fn of_streams_that_open_at_once_over_tls_none_starves() {
        let server = server();
        none_starves(&server, 60, || connect(&server));
    }

    #[test]
    fn a_client_that_leaves_a_stream_over_tls_is_noticed() {
        let server = server();
        streams(&server, |publisher| {
            let mut client = connect(&server);
            client.write_all(GET.as_bytes()).unwrap();
            reads_until(&mut client, ":\n");
            drop(client);
            eventually("its end is noticed", || {
                publisher.publish("hello");
                publisher.stats().ended.connection_lost == 1
            });
        });
    }

    #[test]
    fn a_client_without_tls_costs_nobody_else() {
        let server = server();
        streams(&server, |_| {
            for _ in 0..10 {
                let mut plain = Client::connect(server.local_addr().unwrap());
                plain.send(GET);
                plain.reads_all_there_is();
            }
            let mut client = connect(&server);
            client.write_all(GET.as_bytes()).unwrap();
            reads_until(&mut client, ":\n");
        });
    }

    #[test]
    #[cfg(unix)]
    fn tls_works_on_a_listener_of_the_application() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::builder().tls(certificate()).from_listener(listener).unwrap();
        streams(&server, |_| {
            let mut client = connect(&server);
            client.write_all(GET.as_bytes()).unwrap();
            reads_until(&mut client, ":\n");
        });
    }

    #[test]
    fn a_bad_certificate_or_key_is_an_error_with_the_reason() {
        let (one, other) = (certificate(), certificate());
        let bind = |certificate: &[u8], private_key: &[u8]| {
            let config = SslConfig { certificate: certificate.into(), private_key: private_key.into() };
            Server::https("127.0.0.1:0", config).unwrap_err().to_string()
        };
        assert!(bind(b"", &one.private_key).contains("certificate"));
        assert!(bind(&one.certificate, b"nonsense").contains("PEM"), "{}", bind(&one.certificate, b"nonsense"));
        let error = bind(&one.certificate, &other.private_key);
        assert!(error.contains("key values mismatch"), "{error}");
    }

    #[test]
    fn the_settings_keep_the_private_key_to_themselves() {
        let text = format!("{:?}", Server::builder().tls(certificate()));
        assert!(text.starts_with("ServerBuilder") && !text.contains("private_key"), "{text}");
    }
}
