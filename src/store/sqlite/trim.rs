//! What the history has evicted, until the store deletes it.

// Deleting touches other pages than appending does, so it is done for many events at once. Until then the file is as it
// was before these evictions. A start from it evicts them again.

use rusqlite::Connection;

use super::fault::Fault;
use super::rows;
use super::state::State;
use crate::store::{Content, Record, Trim};

/// The evictions that the file does not contain yet.
#[derive(Default)]
pub(super) struct PendingTrim {
    trim: Trim,
    /// The bytes that were appended since the file was trimmed.
    appended: usize,
}

impl PendingTrim {
    /// Deletes are due with this many rows to change, or when a share of `max_bytes` was appended.
    const MAX_ROWS: usize = 64;
    const SHARE: usize = 32;

    /// Adds the evictions that come with these events.
    pub(super) fn add(&mut self, trim: Trim, records: &[Record<'_>]) {
        let Trim { evicted, floors, horizon, ambiguous, last_loss } = trim;
        self.trim.evicted.extend(evicted);
        self.trim.floors.extend(floors);
        self.trim.horizon = self.trim.horizon.max(horizon);
        self.trim.ambiguous.extend(ambiguous);
        self.trim.last_loss = self.trim.last_loss.max(last_loss);
        self.appended += records.iter().map(size).sum::<usize>();
    }

    /// Returns whether the file is to be trimmed.
    pub(super) fn is_due(&self, max_bytes: usize) -> bool {
        let rows = self.trim.evicted.len() + self.trim.floors.len() + self.trim.ambiguous.len();
        self.trim.last_loss > 0 || rows >= Self::MAX_ROWS || rows > 0 && self.appended >= max_bytes / Self::SHARE
    }

    /// Deletes what is evicted, in a transaction of the caller's.
    pub(super) fn apply(self, connection: &Connection, state: &mut State) -> Result<(), Fault> {
        let Trim { evicted, floors, horizon, ambiguous, last_loss } = self.trim;
        for sequence in evicted {
            state.events.remove(rows::delete_event(connection, sequence)?);
        }
        for sequence in ambiguous {
            if let Some(mut record) = rows::event(connection, sequence)? {
                record.finds_own_id = false;
                state.events.remove(rows::delete_event(connection, sequence)?);
                state.events.add(rows::insert_event(connection, &record)?);
            }
        }
        for (channel, floor) in floors {
            rows::set_floor(connection, &channel, floor, &mut state.floors)?;
        }
        state.horizon = state.horizon.max(horizon);
        state.last_loss = state.last_loss.max(last_loss);
        Ok(())
    }
}

/// Returns about how many bytes an event takes in the file.
fn size(record: &Record<'_>) -> usize {
    let content = match &record.content {
        Content::Fields(fields) => fields.len(),
        Content::Transform { name, argument, fields } => name.len() + argument.len() + fields.len(),
        Content::Closure => 0,
    };
    let channels: usize = record.channels.iter().map(|channel| channel.len()).sum();
    content + channels + record.key.as_ref().map_or(0, |key| key.len()) + size_of::<Record<'_>>()
}
