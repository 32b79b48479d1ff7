//! Writers that stand in for connections.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};

use super::eventually;

/// A writer that stores what is written, for the test to check.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    #[track_caller]
    pub fn becomes(&self, text: &str) {
        eventually(text, || self.text() == text);
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that is blocked until it is opened, and stores what is written.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<Written>, Condvar)>);

#[derive(Default)]
struct Written {
    is_open: bool,
    has_begun: bool,
    bytes: Vec<u8>,
}

impl Gate {
    pub fn open(&self) {
        self.0.0.lock().unwrap().is_open = true;
        self.0.1.notify_all();
    }

    pub fn has_begun(&self) -> bool {
        self.0.0.lock().unwrap().has_begun
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().bytes.clone()).unwrap()
    }

    pub fn is_dropped_by_the_stream(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.0.lock().unwrap();
        written.has_begun = true;
        while !written.is_open {
            written = self.0.1.wait(written).unwrap();
        }
        written.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
