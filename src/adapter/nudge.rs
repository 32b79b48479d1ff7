//! Keeps the connections of `tiny_http` from starving in its thread pool.
//!
//! The pool counts idle threads, but a thread lowers the counter only after it wakes up. So of several connections that
//! arrive together, the pool may queue some behind others that never end, and never serve them. Any later connection
//! makes the pool take up one that waits. So for a while after each request a thread connects to the server, and closes
//! the connection.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// The thread that nudges a server. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Nudger {
    /// Holds at most one token: requests have arrived since the thread looked last.
    arrived: Option<Sender<()>>,
    /// Carries no messages; the thread sees it close.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Nudger {
    /// The pause between two nudges while requests arrive. Each nudge frees at most one connection, so a long pause
    /// would let a burst of connections wait too long.
    const SHORTEST_PAUSE: Duration = Duration::from_millis(2);

    /// The longest pause. The pause grows fourfold with each nudge without a request; beyond this, the thread waits for
    /// a request.
    const LONGEST_PAUSE: Duration = Duration::from_millis(512);

    /// Starts the thread for the server that listens on this address.
    pub(crate) fn start(server: SocketAddr) -> io::Result<Self> {
        let target = match server {
            SocketAddr::V4(address) if address.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
            SocketAddr::V6(address) if address.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
            address => address,
        };
        let (arrived, requests) = bounded(1);
        let (stop, stopped) = bounded(0);
        let thread = thread::Builder::new().name("tiny_http nudge".into()).stack_size(128 * 1024);
        let thread = thread.spawn(move || Self::run(target, &requests, &stopped))?;
        Ok(Self { arrived: Some(arrived), stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn request_arrived(&self) {
        // A full channel has a token already.
        let _ = self.arrived.as_ref().map(|arrived| arrived.try_send(()));
    }

    fn run(target: SocketAddr, requests: &Receiver<()>, stopped: &Receiver<()>) {
        while requests.recv().is_ok() {
            let mut pause = Self::SHORTEST_PAUSE;
            while pause <= Self::LONGEST_PAUSE {
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                nudge(target);
                pause = if requests.try_recv().is_ok() { Self::SHORTEST_PAUSE } else { pause * 4 };
            }
        }
    }
}

/// Connects, and closes the connection. An error means that no descriptor is left; a later nudge may succeed.
fn nudge(target: SocketAddr) {
    let Ok(_socket) = TcpStream::connect_timeout(&target, Nudger::LONGEST_PAUSE) else { return };
    // Closed by a reset, since a normal close would occupy a port in TIME_WAIT. On other systems a reset connection can
    // make `accept` fail, which would end the server.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(&_socket).set_linger(Some(Duration::ZERO));
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
