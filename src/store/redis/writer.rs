//! The thread that sends events to Redis.

use std::sync::Arc;

use redis::{Connection, RedisError, Value};

use super::Redis;
use super::attach::attach;
use super::connect::{BackOff, Server, describe};
use super::entry::{Field, text};
use super::window::{Next, Window};

/// The thread that sends events to Redis.
pub(super) struct Writer {
    settings: Redis,
    server: Server,
    window: Arc<Window>,
}

impl Writer {
    pub(super) fn new(settings: Redis, server: Server, window: Arc<Window>) -> Self {
        Self { settings, server, window }
    }

    pub(super) fn run(self) {
        let mut back_off = BackOff::new();
        loop {
            match self.write(&mut back_off) {
                Ok(()) => return,
                Err(error) => self.window.fail(describe(&error)),
            }
            if self.window.wait(back_off.next()) {
                return;
            }
        }
    }

    /// Connects, and sends what Redis has not acknowledged. Returns once the window is stopped.
    fn write(&self, back_off: &mut BackOff) -> Result<(), RedisError> {
        let mut connection = self.server.connect()?;
        loop {
            let log = attach(&mut connection, &self.settings, None)?;
            let era = log.newest_era();
            self.window.begin(&log.lineage, era);
            loop {
                match self.window.next() {
                    Next::Send(first, group) => {
                        let sequences = self.send(&mut connection, era, first, &group)?;
                        self.window.acknowledge(first, &sequences);
                        back_off.reset();
                    }
                    Next::Attach => break,
                    Next::Stop => return Ok(()),
                }
            }
        }
    }

    /// Sends these events, and returns their sequences.
    fn send(
        &self,
        connection: &mut Connection,
        era: u64,
        first: u64,
        group: &[Arc<[Field]>],
    ) -> Result<Vec<u64>, RedisError> {
        let mut pipeline = redis::pipe();
        for (number, fields) in (first..).zip(group) {
            let command = pipeline.cmd("XADD").arg(&self.settings.stream).arg("NOMKSTREAM");
            command.arg("MAXLEN").arg("~").arg(self.settings.max_events);
            // Redis counts the sequence of the era, and refuses an era that has ended.
            command.arg(format!("{era}-*")).arg("by").arg(self.window.origin(number));
            for (name, value) in fields.iter() {
                command.arg(*name).arg(&**value);
            }
        }
        let replies: Vec<Value> = pipeline.query(connection)?;
        let sequences: Option<Vec<u64>> = replies.into_iter().map(sequence).collect();
        sequences.ok_or_else(|| (redis::ErrorKind::Client, "the stream has been deleted").into())
    }
}

/// Returns the sequence in the ID of an entry.
fn sequence(id: Value) -> Option<u64> {
    text(id)?.rsplit_once('-')?.1.parse().ok()
}
