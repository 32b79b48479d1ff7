//! Judges what one client receives: each event of its channels once and in order, or a gap exactly where it is missing.

use std::time::SystemTime;

use serde_json::Value;
use server_sent_events::client::Message;

/// The text of the last event of all.
pub const END: &str = "end";

/// Returns the sequence in an ID, which is its last part.
pub fn sequence(id: &str) -> Result<u64, String> {
    let number = id.rsplit_once('-').and_then(|(_, number)| number.parse().ok());
    number.ok_or_else(|| format!("{id:?} is no ID"))
}

/// What a message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Event,
    /// The last event of all.
    End,
    Gap,
}

/// Returns the system's time, in milliseconds since 1970. All processes share it.
pub fn now() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("BUG: it is before 1970");
    u64::try_from(time.as_millis()).expect("BUG: it is long after 1970")
}

/// One channel of the client.
struct Channel {
    name: String,
    /// The number and the sequence of the newest event that the client was sent.
    newest: Option<(u64, u64)>,
    /// A gap, until nothing can be missing because of it.
    gap: Option<Gap>,
}

#[derive(Clone, Copy)]
struct Gap {
    /// When it arrived. What was published later is not missing because of it.
    time: u64,
    /// The sequence up to which events of a single channel are missing.
    to: u64,
}

pub struct Oracle {
    channels: Vec<Channel>,
    /// The newest sequence that the client was sent, in an event or a gap. The first is where it started.
    newest: Option<u64>,
    start: u64,
    /// A gap has been reported, and nothing is missing so far.
    is_unproven: bool,
    /// The number of events that the queue of this connection has dropped before the next one.
    dropped: Option<u64>,
    /// The last gap has reported nothing.
    is_false_gap: bool,
}

impl Oracle {
    pub fn new(channels: &[&str]) -> Self {
        let channel = |name: &&str| Channel { name: (*name).to_owned(), newest: None, gap: None };
        Self {
            channels: channels.iter().map(channel).collect(),
            newest: None,
            start: 0,
            is_unproven: false,
            dropped: None,
            is_false_gap: false,
        }
    }

    /// Returns whether the last gap has just turned out to report nothing.
    pub fn take_false_gap(&mut self) -> bool {
        std::mem::take(&mut self.is_false_gap)
    }

    /// Notes that the client resumes on a new connection, after this ID.
    pub fn resume_after(&mut self, id: &str) -> Result<(), String> {
        self.reconnected();
        if !id.is_empty() {
            let sequence = sequence(id)?;
            self.starts_at(sequence);
            if Some(sequence) < self.newest {
                return Err(format!("the last event ID {id:?} is older than what came before"));
            }
        }
        Ok(())
    }

    /// Notes that the client has reconnected by itself.
    pub fn reconnected(&mut self) {
        // What was dropped is replayed.
        self.dropped = None;
    }

    fn starts_at(&mut self, sequence: u64) {
        if self.newest.is_none() {
            (self.newest, self.start) = (Some(sequence), sequence);
        }
    }

    /// Judges a message. `may_drop` allows a gap for events that the queue has dropped.
    pub fn judge(&mut self, message: &Message, may_drop: bool) -> Result<Kind, String> {
        let judged = if message.is_gap() { self.judge_gap(message, may_drop) } else { self.judge_event(message) };
        judged.map_err(|error| {
            let data: String = message.data.chars().take(80).collect();
            format!("{error}: {:?} with the ID {:?}, after {:?}", data, message.id, self.newest)
        })
    }

    fn judge_gap(&mut self, message: &Message, may_drop: bool) -> Result<Kind, String> {
        let data: Value = serde_json::from_str(&message.data).map_err(|error| error.to_string())?;
        if let Some(lost) = data["lost"].as_u64() {
            if !may_drop || self.dropped.is_some() {
                return Err("a gap of a queue that drops nothing".into());
            }
            self.dropped = Some(lost);
            return Ok(Kind::Gap);
        }
        let id = |name: &str| data[name].as_str().ok_or("a gap without IDs".to_owned()).and_then(sequence);
        let (from, to, own) = (id("from")?, id("to")?, sequence(&message.id)?);
        self.starts_at(from);
        if Some(from) < self.newest || own < from || to < own {
            return Err("a gap for what was received".into());
        }
        self.newest = Some(own);
        self.is_unproven = true;
        for channel in &mut self.channels {
            channel.gap = Some(Gap { time: now(), to });
        }
        Ok(Kind::Gap)
    }

    fn judge_event(&mut self, message: &Message) -> Result<Kind, String> {
        let (header, text) = message.data.split_once('|').ok_or("a foreign event")?;
        let sequence = sequence(&message.id)?;
        if Some(sequence) <= self.newest {
            return Err("a repetition, or not in order".into());
        }
        let is_first = self.newest.is_none();
        self.starts_at(sequence);
        let dropped = self.dropped.take();
        let mut mine = Vec::new();
        for place in header.split(' ') {
            let mut parts = place.split(':');
            let name = parts.next().unwrap_or_default();
            let mut part = || parts.next().and_then(|part| part.parse().ok()).ok_or("a foreign event");
            let (number, before) = (part()?, Before { sequence: part()?, time: part()? });
            let Some(n) = self.channels.iter().position(|channel| channel.name == name) else { continue };
            mine.push(n);
            if !is_first {
                self.judge_place(n, number, before, dropped)?;
            }
            self.channels[n].newest = Some((number, sequence));
        }
        match mine[..] {
            [] => return Err("an event of other channels".into()),
            // The channel has this event, and so every later one.
            [n] => self.channels[n].gap = None,
            // One of the channels has it. Another one may have evicted it, and some later ones.
            _ => {}
        }
        self.newest = Some(sequence);
        if self.is_unproven && self.channels.iter().all(|channel| channel.gap.is_none()) {
            self.is_unproven = false;
            self.is_false_gap = true;
        }
        Ok(if text == END { Kind::End } else { Kind::Event })
    }

    /// Checks that no event of a channel is missing before this one, without a gap that reports it.
    fn judge_place(&mut self, n: usize, number: u64, before: Before, dropped: Option<u64>) -> Result<(), String> {
        let Channel { newest, gap, .. } = &self.channels[n];
        let (is_missing, missing) = match newest {
            Some((newest, _)) if number <= *newest => return Err("a repetition in its channel".into()),
            Some((newest, sequence)) => (number > newest + 1 || before.sequence != *sequence, number - newest - 1),
            None => (before.sequence > self.start, 1),
        };
        // The gap says where the replay begins, which is where events of the only channel are missing no more.
        let is_single = self.channels.len() == 1;
        let is_excused = gap.is_some_and(|gap| before.time <= gap.time && (!is_single || before.sequence <= gap.to));
        match dropped {
            // Part of what is missing may have been reported before, or have come before the client's start.
            Some(_) if newest.is_none() || gap.is_some() => self.is_unproven = false,
            Some(dropped) if dropped != missing => {
                return Err(format!("{dropped} dropped events are reported, not {missing}"));
            }
            None if is_missing && is_excused => self.is_unproven = false,
            None if is_missing => return Err("events are missing without a gap".into()),
            _ => {}
        }
        Ok(())
    }
}

/// The event before another one in a channel.
struct Before {
    sequence: u64,
    time: u64,
}

#[cfg(test)]
mod tests {
    use server_sent_events::client::Parser;

    use super::*;

    /// Judges a stream of `ID DATA`, `gap FROM TO`, `lost NUMBER` and `resume ID`. Returns whether the last gap was a false one.
    fn judge(channels: &[&str], stream: &[&str]) -> Result<bool, String> {
        judge_at(0, channels, stream)
    }

    /// All events before others are of this time.
    fn judge_at(time: u64, channels: &[&str], stream: &[&str]) -> Result<bool, String> {
        let mut oracle = Oracle::new(channels);
        for line in stream {
            let block = match line.split(' ').collect::<Vec<_>>()[..] {
                ["resume", id] => {
                    oracle.resume_after(&format!("x-{id}"))?;
                    continue;
                }
                ["gap", from, to] => {
                    format!("event: gap\nid: x-{to}\ndata: {{\"from\":\"x-{from}\",\"to\":\"x-{to}\"}}\n\n")
                }
                ["lost", lost] => format!("event: gap\ndata: {{\"lost\":{lost}}}\n\n"),
                _ => {
                    let (id, data) = line.split_once(' ').unwrap();
                    let places: Vec<String> = data.split(' ').map(|place| format!("{place}:{time}")).collect();
                    format!("id: x-{id}\ndata: {}|\n\n", places.join(" "))
                }
            };
            oracle.judge(&Parser::new().push(block.as_bytes()).unwrap()[0], true)?;
        }
        Ok(oracle.take_false_gap())
    }

    #[test]
    fn events_in_order_pass() {
        assert_eq!(judge(&["a"], &["5 a:2:1", "6 a:3:5", "resume 7", "9 a:4:6 b:7:8"]), Ok(false));
        assert_eq!(judge(&["a", "b"], &["resume 4", "5 a:2:1", "6 b:3:2", "7 a:3:5 b:4:6"]), Ok(false));
    }

    #[test]
    fn a_missing_a_repeated_and_a_late_event_are_noticed() {
        assert!(judge(&["a"], &["5 a:2:1", "7 a:4:6"]).is_err(), "3 is missing");
        assert!(judge(&["a", "b"], &["resume 4", "7 b:3:5"]).is_err(), "the first is missing");
        assert!(judge(&["a"], &["5 a:2:1", "5 a:2:1"]).is_err(), "a repetition");
        assert!(judge(&["a"], &["5 a:2:1", "4 a:1:0"]).is_err(), "out of order");
        assert!(judge(&["a"], &["5 b:2:1"]).is_err(), "another channel");
        assert!(judge(&["a"], &["5 a:2:1", "resume 4"]).is_err(), "an older ID");
    }

    #[test]
    fn a_gap_excuses_exactly_what_is_missing() {
        assert_eq!(judge(&["a"], &["5 a:2:1", "gap 5 7", "8 a:5:7"]), Ok(false));
        assert!(judge(&["a"], &["5 a:2:1", "gap 5 6", "8 a:5:7"]).is_err(), "7 is not in the gap");
        assert!(judge(&["a"], &["5 a:2:1", "gap 4 7", "8 a:5:7"]).is_err(), "5 was received");
        assert!(judge(&["a"], &["5 a:2:1", "gap 5 7", "7 a:4:6"]).is_err(), "7 was reported");
        assert_eq!(judge(&["a"], &["5 a:2:1", "gap 5 7", "8 a:3:5"]), Ok(true), "nothing is missing");
        assert_eq!(
            judge(&["a", "b"], &["5 a:2:1 b:1:0", "gap 5 7", "8 a:3:5", "9 b:4:7"]),
            Ok(false),
            "it is missing in b"
        );
    }

    #[test]
    fn a_gap_of_several_channels_excuses_what_came_before_it() {
        let stream = ["5 a:2:1 b:2:1", "gap 5 5", "7 b:3:5", "9 a:4:8"];
        assert_eq!(judge(&["a", "b"], &stream), Ok(false), "8 is missing in a");
        assert_eq!(judge(&["a", "b"], &["5 a:2:1 b:2:1", "gap 5 5", "7 a:3:5 b:3:5", "9 a:5:8"]), Ok(false), "b had 7");
        assert!(judge_at(u64::MAX, &["a", "b"], &stream).is_err(), "8 was published after the gap");
        assert!(judge(&["a", "b"], &[&stream[..], &["11 a:6:10"]].concat()).is_err(), "10 is missing later");
    }

    #[test]
    fn a_queue_reports_how_many_it_has_dropped() {
        assert_eq!(judge(&["a"], &["5 a:2:1", "lost 2", "8 a:5:7"]), Ok(false));
        assert!(judge(&["a"], &["5 a:2:1", "lost 1", "8 a:5:7"]).is_err());
        assert!(judge(&["a"], &["5 a:2:1", "lost 1", "8 a:3:5"]).is_err());
        assert!(judge(&["a"], &["5 a:2:1", "lost 2", "resume 5", "8 a:5:7"]).is_err(), "the new connection lost them");
    }
}
