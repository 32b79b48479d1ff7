//! Listening sockets with the options that event streams need.
//!
//! Accepted connections inherit them, at least on Linux.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// The socket options that differ between servers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// The size of the kernel's send buffer; `None` leaves it to the kernel.
    pub(crate) send_buffer_size: Option<usize>,
    /// The limit of unsent bytes in the send buffer (Linux).
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
    pub(crate) notsent_lowat: u32,
    /// The time for which sent data may stay unacknowledged (Linux).
    ///
    /// This is for servers that write from a thread that may block. A server that watches its sockets must not set it.
    /// If the client's window is below one segment, Linux counts from the first such moment on, even if the client
    /// acknowledges data meanwhile. So it resets a client that reads slowly but steadily.
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
    pub(crate) user_timeout: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self { send_buffer_size: None, notsent_lowat: 64 * 1024, user_timeout: Some(Duration::from_secs(30)) }
    }
}

impl Options {
    /// Makes the kernel hold little for a slow client, so that what waits is in the queue, where newer values replace
    /// older ones. The first size bounds what a slow link has under way, the second one what waits before it.
    pub(crate) fn keep_fresh(&mut self) {
        self.send_buffer_size = Some(8 * 1024);
        self.notsent_lowat = 4 * 1024;
    }
}

/// Binds a listener to the first of these addresses that can be bound.
pub(crate) fn listen_on(address: impl ToSocketAddrs, options: Options) -> io::Result<TcpListener> {
    let mut result = Err(io::Error::new(io::ErrorKind::InvalidInput, "the address resolves to nothing"));
    for address in address.to_socket_addrs()? {
        result = listen(address, options);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn listen(address: SocketAddr, options: Options) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // As std does. On Windows the option means something else: another program could steal the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    set_options(SockRef::from(&socket), options)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Sets the options of a listener. Its backlog stays as it is.
pub(crate) fn set_options(socket: SockRef<'_>, options: Options) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60));
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows))]
    let keepalive = keepalive.with_interval(Duration::from_secs(15));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        if let Some(timeout) = options.user_timeout {
            socket.set_tcp_user_timeout(Some(timeout))?;
        }
        socket.set_tcp_notsent_lowat(options.notsent_lowat)?;
    }
    if let Some(bytes) = options.send_buffer_size {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[track_caller]
    fn has_the_options(socket: SockRef<'_>) {
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(15));
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), 64 * 1024);
        }
    }

    #[test]
    fn the_listener_has_its_options_and_hands_them_down() {
        let listener = listen(([127, 0, 0, 1], 0).into(), Options::default()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        has_the_options(SockRef::from(&listener));
        has_the_options(SockRef::from(&listener.accept().unwrap().0));
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn without_a_user_timeout_the_kernel_resets_no_slow_reader() {
        let options = Options { user_timeout: None, ..Options::default() };
        let listener = listen(([127, 0, 0, 1], 0).into(), options).unwrap();
        assert_eq!(SockRef::from(&listener).tcp_user_timeout().unwrap(), None);
    }

    #[test]
    fn more_connections_may_wait_than_with_a_listener_of_std() {
        let listener = listen(([127, 0, 0, 1], 0).into(), Options::default()).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(5));
        assert!((0..300).map(connect).collect::<io::Result<Vec<_>>>().is_ok());
    }
}
