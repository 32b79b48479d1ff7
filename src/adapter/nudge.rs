//! Keeps the connections of `tiny_http` from starving in its thread pool.
//!
//! The pool counts idle threads, but a thread lowers the counter only after it wakes up. So of several connections that
//! arrive together, the pool may queue some behind others that never end, and never serve them. Any later connection
//! makes the pool take up one that waits. So for a while after the first request of each connection a thread connects to
//! the server, and closes the connection. Further requests of a connection arrive without the pool.
//!
//! A connection that was reset before its request was read makes a thread of the pool panic and end, also with others
//! queued behind it. No request of theirs arrives here. So the thread connects now and then without a request too, ever
//! more seldom.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use socket2::{SockAddr, Socket, Type};

/// The thread that nudges a server. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Nudger {
    known: Mutex<KnownClients>,
    /// Holds at most one token: new connections have sent requests since the thread looked last.
    arrived: Option<Sender<()>>,
    /// Carries no messages; the thread sees it close.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Nudger {
    /// The longest pause between two nudges of a series. The pause doubles with each nudge without a request; beyond this,
    /// the series ends.
    const LONGEST_PAUSE: Duration = Duration::from_millis(512);

    /// The time without a request after a series until the next one.
    const SHORTEST_SILENCE: Duration = Duration::from_secs(1);

    /// The longest time until the next series. The time doubles with each series without a request, since a series takes
    /// 3 ms of processor time.
    const LONGEST_SILENCE: Duration = Duration::from_secs(8);

    /// Starts the thread for this server.
    pub(crate) fn start(target: Target) -> io::Result<Self> {
        let (arrived, requests) = bounded(1);
        let (stop, stopped) = bounded(0);
        let thread = thread::Builder::new().name("tiny_http nudge".into()).stack_size(128 * 1024);
        let thread = thread.spawn(move || Self::run(&target, &requests, &stopped))?;
        let known = Mutex::new(KnownClients { addresses: HashSet::new(), since: Instant::now() });
        Ok(Self { known, arrived: Some(arrived), stop: Some(stop), thread: Some(thread) })
    }

    /// Notes a request of the connection from this address, which is unknown for a Unix socket.
    pub(crate) fn request_arrived(&self, client: Option<SocketAddr>) {
        if client.is_some_and(|client| !self.known.lock().insert(client, Instant::now())) {
            return;
        }
        // A full channel has a token already.
        let _ = self.arrived.as_ref().map(|arrived| arrived.try_send(()));
    }

    fn run(target: &Target, requests: &Receiver<()>, stopped: &Receiver<()>) {
        let mut silence = Self::SHORTEST_SILENCE;
        loop {
            match requests.recv_timeout(silence) {
                Ok(()) => silence = Self::SHORTEST_SILENCE,
                Err(RecvTimeoutError::Timeout) => silence = (silence * 2).min(Self::LONGEST_SILENCE),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let mut pause = target.shortest_pause();
            while pause <= Self::LONGEST_PAUSE {
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                // An error means that no descriptor is left, or that the server is busy; a later nudge may succeed.
                let _ = target.nudge();
                pause *= 2;
                if requests.try_recv().is_ok() {
                    (pause, silence) = (target.shortest_pause(), Self::SHORTEST_SILENCE);
                }
            }
        }
    }
}

impl Drop for Nudger {
    fn drop(&mut self) {
        self.arrived = None;
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// The addresses of connections that have sent a request lately.
#[derive(Debug)]
struct KnownClients {
    addresses: HashSet<SocketAddr>,
    since: Instant,
}

impl KnownClients {
    /// How long addresses are known. A new connection can have the address of one that has ended.
    const KNOWN_FOR: Duration = Duration::from_secs(10);

    /// The limit of known addresses.
    const MAX_KNOWN: usize = 4_096;

    /// Adds an address. Returns whether it was new.
    fn insert(&mut self, client: SocketAddr, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) > Self::KNOWN_FOR || self.addresses.len() == Self::MAX_KNOWN {
            self.addresses.clear();
            self.since = now;
        }
        self.addresses.insert(client)
    }
}

/// How the thread reaches its server.
#[derive(Debug)]
pub(crate) struct Target {
    address: SockAddr,
    /// Set for a server that counts a connection only after its TLS handshake.
    #[cfg(feature = "tiny_http_openssl")]
    tls: Option<openssl::ssl::SslContext>,
}

impl Target {
    /// Returns the target of a server that listens on this TCP address.
    pub(crate) fn tcp(server: SocketAddr) -> Self {
        let address: SocketAddr = match server {
            SocketAddr::V4(address) if address.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
            SocketAddr::V6(address) if address.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
            address => address,
        };
        Self::new(address.into())
    }

    /// Returns the target of a server that listens on the Unix socket with this path.
    #[cfg(all(unix, feature = "tiny_http"))]
    pub(crate) fn unix(path: &std::path::Path) -> io::Result<Self> {
        Ok(Self::new(SockAddr::unix(path)?))
    }

    fn new(address: SockAddr) -> Self {
        Self {
            address,
            #[cfg(feature = "tiny_http_openssl")]
            tls: None,
        }
    }

    /// Adds a TLS handshake to each nudge.
    #[cfg(feature = "tiny_http_openssl")]
    pub(crate) fn with_tls(self) -> io::Result<Self> {
        // It sends nothing, and trusts nothing that it receives. So it loads no root certificates.
        let context = openssl::ssl::SslContext::builder(openssl::ssl::SslMethod::tls_client())?;
        Ok(Self { tls: Some(context.build()), ..self })
    }

    /// Returns the pause between two nudges while requests arrive.
    ///
    /// Each nudge frees at most one connection, so a long pause would let a burst of connections wait too long. With
    /// TLS, handshakes keep connections apart, so bursts are small; and each nudge costs a handshake.
    fn shortest_pause(&self) -> Duration {
        #[cfg(feature = "tiny_http_openssl")]
        if self.tls.is_some() {
            return Duration::from_millis(32);
        }
        Duration::from_millis(2)
    }

    /// Connects, and closes the connection.
    fn nudge(&self) -> io::Result<()> {
        let socket = Socket::new(self.address.domain(), Type::STREAM, None)?;
        socket.connect_timeout(&self.address, Nudger::LONGEST_PAUSE)?;
        // Closed by a reset, since a normal close would occupy a port in TIME_WAIT. On other systems a reset connection
        // can make `accept` fail, which would end the server.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        socket.set_linger(Some(Duration::ZERO))?;
        #[cfg(feature = "tiny_http_openssl")]
        if let Some(tls) = &self.tls {
            // The server may be busy with the handshake of another client.
            socket.set_read_timeout(Some(Nudger::LONGEST_PAUSE))?;
            openssl::ssl::Ssl::new(tls)?.connect(socket).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    /// Checks that a request leads to nudges of this target, and the next one to more.
    fn nudges(target: Target, mut accept: impl FnMut() -> Box<dyn Read>) {
        let nudger = Nudger::start(target).unwrap();
        for port in 1..4 {
            nudger.request_arrived(Some((Ipv4Addr::LOCALHOST, port).into()));
            // The end of a nudge is a reset, or an end of file.
            let read = accept().read(&mut [0]);
            assert!(read.as_ref().map_or(true, |read| *read == 0), "{read:?}");
        }
    }

    #[test]
    fn a_client_is_known_after_its_first_request_for_10_s_and_few_are_remembered() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut known = KnownClients { addresses: HashSet::new(), since: start };
        let client = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert!(known.insert(client(1), start));
        assert!(!known.insert(client(1), start + 10 * second));
        assert!(known.insert(client(1), start + 11 * second));
        assert!((2..10_000).all(|port| known.insert(client(port), start + 11 * second)));
        assert!(known.addresses.len() <= KnownClients::MAX_KNOWN);
    }

    #[test]
    fn further_requests_of_a_connection_lead_to_no_nudge() {
        let (arrived, requests) = bounded(1);
        let known = Mutex::new(KnownClients { addresses: HashSet::new(), since: Instant::now() });
        let nudger = Nudger { known, arrived: Some(arrived), stop: None, thread: None };
        let client = |port: u16| Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        // A Unix socket gives no address, so each of its requests counts as the first.
        for (client, is_first) in
            [(client(1), true), (client(1), false), (client(2), true), (client(1), false), (None, true), (None, true)]
        {
            nudger.request_arrived(client);
            assert_eq!(requests.try_recv().is_ok(), is_first, "{client:?}");
        }
    }

    #[test]
    fn a_nudge_of_tcp_is_a_connection_that_ends() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        nudges(Target::tcp(listener.local_addr().unwrap()), || Box::new(listener.accept().unwrap().0));
    }

    #[test]
    #[cfg(all(unix, feature = "tiny_http"))]
    fn a_nudge_of_a_unix_socket_is_a_connection_that_ends() {
        let path = std::env::temp_dir().join(format!("sse-{}-nudge.sock", std::process::id()));
        // An earlier process may have had the same ID.
        let _ = std::fs::remove_file(&path);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        nudges(Target::unix(&path).unwrap(), || Box::new(listener.accept().unwrap().0));
        std::fs::remove_file(&path).unwrap();
    }

    /// tiny_http passes a connection to its pool after the handshake.
    #[test]
    #[cfg(feature = "tiny_http_openssl")]
    fn a_nudge_with_tls_completes_its_handshake() {
        use openssl::ssl::{SslAcceptor, SslMethod};

        let key = openssl::rsa::Rsa::generate(2048).unwrap();
        let key = openssl::pkey::PKey::from_rsa(key).unwrap();
        let mut certificate = openssl::x509::X509::builder().unwrap();
        certificate.set_pubkey(&key).unwrap();
        certificate.set_not_before(&openssl::asn1::Asn1Time::days_from_now(0).unwrap()).unwrap();
        certificate.set_not_after(&openssl::asn1::Asn1Time::days_from_now(1).unwrap()).unwrap();
        certificate.sign(&key, openssl::hash::MessageDigest::sha256()).unwrap();
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        acceptor.set_private_key(&key).unwrap();
        acceptor.set_certificate(&certificate.build()).unwrap();
        let acceptor = acceptor.build();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::tcp(listener.local_addr().unwrap()).with_tls().unwrap();
        nudges(target, || {
            let (socket, _) = listener.accept().unwrap();
            Box::new(acceptor.accept(socket).expect("a whole handshake"))
        });
    }
}
