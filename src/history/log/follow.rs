//! How the log follows another one: with its IDs and sequences, from wherever that log begins.

use std::sync::Arc;

use super::EventLog;
use crate::follow::Begin;
use crate::history::ids::{Era, Ids, Place};

impl<T: Clone> EventLog<T> {
    /// Makes the log one that follows another. It is empty until [`restart`](Self::restart).
    pub(crate) fn follow(&mut self) {
        self.follows = true;
    }

    /// Returns whether the followed log, in this state, has everything that this one has, and has lost nothing after it
    /// but what its floors show.
    pub(crate) fn is_continued_by(&self, begin: &Begin) -> bool {
        let place = ids(begin).place(&self.id(self.sequence), begin.newest);
        let skips_nothing = begin.cursor <= self.sequence || begin.floors.iter().all(|floor| *floor >= begin.cursor);
        let is_known = match place {
            Place::Exact(sequence) => sequence == self.sequence,
            // A log that follows others itself may be behind this one, and knows it.
            Place::Ahead(sequence) => sequence == self.sequence && sequence == begin.cursor,
            Place::Lost(_) | Place::Unknown => false,
        };
        is_known && begin.last_loss <= self.sequence && skips_nothing
    }

    /// Takes over the eras of the followed log, and what these channels have lost after this log's newest event.
    /// Returns those channels, each with its new floor. What was known to be lost is not lost again.
    pub(crate) fn continue_with(
        &mut self,
        begin: &Begin,
        channels: &[Arc<str>],
        evicted: &mut Vec<T>,
    ) -> Vec<(Arc<str>, u64)> {
        self.ids = Arc::new(ids(begin));
        let is_new = |channel: &str, floor: u64| floor > self.sequence.max(self.floor(channel));
        let lost = channels.iter().zip(&begin.floors).filter(|(channel, floor)| is_new(channel, **floor));
        let lost: Vec<(Arc<str>, u64)> = lost.map(|(channel, floor)| (Arc::clone(channel), *floor)).collect();
        for (channel, floor) in &lost {
            self.raise_floor(channel, *floor, evicted);
        }
        self.sequence = self.sequence.max(begin.cursor);
        lost
    }

    /// Forgets everything, and begins where the stream of the followed log does.
    pub(crate) fn restart(&mut self, begin: &Begin, channels: &[Arc<str>], evicted: &mut Vec<T>) {
        for entry in std::mem::take(&mut self.entries).into_values() {
            evicted.push(entry.payload);
        }
        self.rings.clear();
        self.tombstones.clear();
        self.lowest_tombstones.clear();
        (self.bytes, self.tombstone_bytes) = (0, 0);
        self.ids = Arc::new(ids(begin));
        self.sequence = begin.cursor;
        self.last_loss = begin.last_loss;
        // Nothing is known of other channels. Without channels, all are followed.
        self.horizon = if channels.is_empty() { begin.cursor } else { begin.newest };
        for (channel, floor) in channels.iter().zip(&begin.floors) {
            // What the stream leaves out is missing here.
            self.set_tombstone(channel, if begin.is_whole { *floor } else { begin.cursor.max(*floor) });
        }
    }

    /// Takes the ID of a lost event that a client has sent.
    pub(crate) fn take_lost_id(&mut self) -> Option<String> {
        self.lost_id.take()
    }

    /// Goes on to this sequence, up to which no further event comes.
    pub(crate) fn advance(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// Evicts everything up to this sequence from these channels, because events are missing there.
    pub(crate) fn lose(&mut self, sequence: u64, channels: &[Arc<str>], evicted: &mut Vec<T>) {
        for channel in channels {
            self.raise_floor(channel, sequence, evicted);
        }
        self.advance(sequence);
    }

    fn raise_floor(&mut self, channel: &Arc<str>, floor: u64, evicted: &mut Vec<T>) {
        self.evict_up_to(channel, floor, evicted);
        match self.rings.get_mut(channel) {
            Some(ring) => ring.floor = ring.floor.max(floor),
            None => self.set_tombstone(channel, floor.max(self.floor(channel))),
        }
    }

    /// Returns what a follower of these channels must know of the log, for a stream that begins after `cursor`.
    pub(crate) fn begin(&self, channels: &[Arc<str>], cursor: u64, is_whole: bool) -> Begin {
        let newest = |channel: &Arc<str>| self.rings.get(channel).and_then(|ring| ring.sequences.back().copied());
        Begin {
            name: self.ids.name().to_owned(),
            newest: self.sequence,
            cursor,
            fill: channels.iter().filter_map(newest).max().unwrap_or(0),
            last_loss: self.last_loss,
            eras: self.ids.eras().collect(),
            floors: channels.iter().map(|channel| self.floor(channel)).collect(),
            is_whole,
        }
    }

    /// Returns which of these channels an event in the log was published to, by their positions, and its key. Returns
    /// `None` if the log does not hold the event.
    pub(crate) fn event(&self, sequence: u64, channels: &[Arc<str>]) -> Option<(Vec<usize>, Option<String>)> {
        let entry = self.entries.get(&sequence)?;
        let positions = channels.iter().enumerate().filter(|(_, channel)| entry.channels.contains(channel));
        Some((positions.map(|(position, _)| position).collect(), entry.key.as_ref().map(|key| key.to_string())))
    }
}

fn ids(begin: &Begin) -> Ids {
    let eras = begin.eras.iter().map(|&(number, first)| Era { number, first }).collect();
    Ids::of_another(begin.name.clone(), eras)
}
