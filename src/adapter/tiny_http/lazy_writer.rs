//! The connection of a request, taken over at the first write.

use std::io::{self, Write};
use std::net::SocketAddr;

use tiny_http::Request;

use super::refusal::RunningStream;
use super::{RETRY, refuse};
use crate::http::ResponseHeaders;

/// Takes the connection over from the request at the first write, on a writer thread.
///
/// Taking it over waits for the request's body, and the write waits for the responses to earlier requests. If the
/// writer is dropped before the first write, the request is refused.
pub(super) struct LazyWriter {
    request: Option<(Request, ResponseHeaders)>,
    peer: Option<SocketAddr>,
    connection: Option<Box<dyn Write + Send>>,
    /// Dropped after the connection, because it holds back the requests behind the stream.
    running: Option<RunningStream>,
}

impl LazyWriter {
    pub(super) fn new(request: Request, headers: &ResponseHeaders) -> Self {
        let peer = request.remote_addr().copied();
        Self { request: Some((request, headers.clone())), peer, connection: None, running: None }
    }

    fn connection(&mut self) -> &mut dyn Write {
        self.connection.get_or_insert_with(|| {
            let (request, _) = self.request.take().expect("BUG: a request was taken twice");
            request.into_writer()
        })
    }
}

impl Write for LazyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.connection().write(bytes)?;
        if self.running.is_none() {
            self.running = self.peer.map(RunningStream::begin);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.connection().flush()
    }
}

impl Drop for LazyWriter {
    fn drop(&mut self) {
        if let Some((request, headers)) = self.request.take() {
            refuse(request, RETRY, &headers);
        }
    }
}
