//! curl as the client of a proxy.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use crate::common::PATIENCE;
use crate::proxy::{Site, Way, spawn};

/// A running curl, and the lines that it prints, with the time of each.
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

    /// Opens a stream. Returns its response headers too, in lower case, and the time of its first comment.
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

    /// Returns everything up to the next blank line, and its time; `None` at the end.
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

    /// Returns the next line, without trailing white space, and its time; `None` at the end.
    #[track_caller]
    pub fn next_line(&mut self) -> Option<(Instant, String)> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok((moment, line)) => Some((moment, line.trim_end().to_owned())),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing within {PATIENCE:?}"),
        }
    }

    /// Checks the data of the next event. Returns its time, and its ID.
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
