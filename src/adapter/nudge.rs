//! What keeps the connections of tiny_http from starving in its pool.
//!
//! The pool trusts a counter of idle threads that they lower only after waking. Of connections that come together some
//! are put behind others that never end, and get no byte, ever. Whatever comes later makes the pool take up one that waits:
//! so for a while after each request a thread connects, and hangs up.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// The thread that knocks at a server's door. The knocking has ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Nudger {
    /// Holds one token at most: requests have come since the thread looked last.
    came: Option<Sender<()>>,
    /// Carries nothing; the thread sees it close.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Nudger {
    /// The time between two knocks while requests come: each frees one connection at the most, and 1,000 that
    /// come together must have their answers within 2 s though hundreds of them starve.
    const SHORTEST: Duration = Duration::from_millis(2);

    /// The pause grows fourfold with each knock that no request followed; past this it stops until one comes.
    const LONGEST: Duration = Duration::from_millis(512);

    /// Of the server that listens on this address.
    pub(crate) fn start(server: SocketAddr) -> io::Result<Self> {
        let door = match server {
            SocketAddr::V4(address) if address.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
            SocketAddr::V6(address) if address.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
            address => address,
        };
        let (came, requests) = bounded(1);
        let (stop, stopped) = bounded(0);
        let thread = thread::Builder::new().name("tiny_http nudger".into()).stack_size(128 * 1024);
        let thread = thread.spawn(move || Self::run(door, &requests, &stopped))?;
        Ok(Self { came: Some(came), stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn request_arrived(&self) {
        // A full channel says it already.
        let _ = self.came.as_ref().map(|came| came.try_send(()));
    }

    fn run(door: SocketAddr, requests: &Receiver<()>, stopped: &Receiver<()>) {
        while requests.recv().is_ok() {
            let mut pause = Self::SHORTEST;
            while pause <= Self::LONGEST {
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                knock(door);
                pause = if requests.try_recv().is_ok() { Self::SHORTEST } else { pause * 4 };
            }
        }
    }
}

/// Connects and hangs up. It fails when there is no descriptor left, and then the next one may not.
fn knock(door: SocketAddr) {
    let Ok(_socket) = TcpStream::connect_timeout(&door, Nudger::LONGEST) else { return };
    // Hung up with a reset: otherwise each knock would hold a port for a minute, in TIME_WAIT. Only where a reset
    // connection does not make `accept` fail, which would end the server.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(&_socket).set_linger(Some(Duration::ZERO));
}

impl Drop for Nudger {
    fn drop(&mut self) {
        self.came = None;
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It panicked, if it did, on its own account, and said so.
            let _ = thread.join();
        }
    }
}
