//! What a stream says to a publisher that follows it: the extra line of each block.

// A client ignores a field that it does not know (WHATWG HTML 9.2.6), so such a stream is an event stream like any other.
// The line comes first in its block. It is one of:
//
//     follow: begin NAME NEWEST CURSOR FILL LOSS ERAS FLOORS PART    at the start of each connection
//     follow: event SEQUENCE CHANNELS [KEY]                          the rest of the block is the event
//     follow: hole SEQUENCE CHANNELS                                 an event that cannot travel
//     follow: at SEQUENCE                                            everything up to here has been sent
//
// PART is `whole` if the stream has every event that the log holds, and `rest` if it begins after an ID.
//
// Channels are positions in the list of channels of the request, separated by commas. So names need no escape, and the
// follower learns of no other channel.

use std::fmt;

/// The name of the field.
pub(crate) const FIELD: &str = "follow";

/// The extra line of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Begin(Begin),
    Event { sequence: u64, channels: Vec<usize>, key: Option<String> },
    Hole { sequence: u64, channels: Vec<usize> },
    At { sequence: u64 },
}

/// The state of the followed log at the start of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begin {
    /// The name of the log in its IDs.
    pub(crate) name: String,
    /// The newest sequence.
    pub(crate) newest: u64,
    /// The sequence after which the stream begins. It exceeds the newest if that log is behind the follower.
    pub(crate) cursor: u64,
    /// The newest sequence in the followed channels.
    pub(crate) fill: u64,
    /// The sequence before which events are missing that the log has lost; 0 if none are.
    pub(crate) last_loss: u64,
    /// The number and the first sequence of each era.
    pub(crate) eras: Vec<(u64, u64)>,
    /// The highest sequence that each channel has evicted, in the order of the channels.
    pub(crate) floors: Vec<u64>,
    /// `true` if the stream has every event that the log holds.
    pub(crate) is_whole: bool,
}

impl Line {
    /// Parses the value of the field.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let (kind, rest) = value.split_once(' ')?;
        let mut words = rest.splitn(if kind == "begin" { 9 } else { 3 }, ' ');
        let line = match kind {
            "begin" => Self::Begin(Begin {
                name: words.next().filter(|name| !name.is_empty())?.to_owned(),
                newest: number(words.next()?)?,
                cursor: number(words.next()?)?,
                fill: number(words.next()?)?,
                last_loss: number(words.next()?)?,
                eras: list(words.next()?, |era| {
                    let (number_of_era, first) = era.split_once(':')?;
                    Some((number(number_of_era)?, number(first)?))
                })?,
                floors: list(words.next()?, number)?,
                is_whole: match words.next()? {
                    "whole" => true,
                    "rest" => false,
                    _ => return None,
                },
            }),
            "event" => Self::Event {
                sequence: number(words.next()?)?,
                channels: list(words.next()?, position)?,
                // A key may contain spaces.
                key: words.next().map(str::to_owned),
            },
            "hole" => Self::Hole { sequence: number(words.next()?)?, channels: list(words.next()?, position)? },
            "at" => Self::At { sequence: number(words.next()?)? },
            _ => return None,
        };
        (words.next().is_none() && line.is_possible()).then_some(line)
    }

    /// Returns whether a log can be in this state.
    fn is_possible(&self) -> bool {
        let Self::Begin(Begin { newest, fill, eras, floors, .. }) = self else { return true };
        let in_order = eras.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        in_order && floors.iter().chain([fill]).all(|sequence| sequence <= newest)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(Begin { name, newest, cursor, fill, last_loss, eras, floors, is_whole }) => {
                let eras: Vec<String> = eras.iter().map(|(number, first)| format!("{number}:{first}")).collect();
                let eras = or_none(eras.join(","));
                let (floors, part) = (joined(floors), if *is_whole { "whole" } else { "rest" });
                write!(f, "begin {name} {newest} {cursor} {fill} {last_loss} {eras} {floors} {part}")
            }
            Self::Event { sequence, channels, key } => {
                write!(f, "event {sequence} {}", joined(channels))?;
                key.as_ref().map_or(Ok(()), |key| write!(f, " {key}"))
            }
            Self::Hole { sequence, channels } => write!(f, "hole {sequence} {}", joined(channels)),
            Self::At { sequence } => write!(f, "at {sequence}"),
        }
    }
}

fn joined(numbers: &[impl ToString]) -> String {
    or_none(numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}

/// An empty list is written as a hyphen.
fn or_none(list: String) -> String {
    if list.is_empty() { "-".into() } else { list }
}

fn list<T>(word: &str, item: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    if word == "-" { Some(Vec::new()) } else { word.split(',').map(item).collect() }
}

fn number(digits: &str) -> Option<u64> {
    // One less than the largest number, so that the next sequence always exists.
    digits.parse().ok().filter(|number| *number < u64::MAX)
}

fn position(digits: &str) -> Option<usize> {
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_parsed_as_it_was_written() {
        let begin = Begin {
            name: "log".into(),
            newest: 9,
            cursor: 3,
            fill: 8,
            last_loss: 0,
            eras: vec![(1, 1), (4, 7)],
            floors: vec![3, 0],
            is_whole: true,
        };
        let without_lists = Begin { eras: Vec::new(), floors: Vec::new(), is_whole: false, ..begin.clone() };
        for line in [
            Line::Begin(begin),
            Line::Begin(without_lists),
            Line::Event { sequence: 5, channels: vec![0, 7], key: None },
            Line::Event { sequence: 5, channels: vec![2], key: Some("a key, with  spaces ".into()) },
            Line::Event { sequence: 5, channels: vec![2], key: Some(String::new()) },
            Line::Hole { sequence: 6, channels: Vec::new() },
            Line::At { sequence: 0 },
        ] {
            assert_eq!(Line::parse(&line.to_string()), Some(line));
        }
    }

    #[test]
    fn other_lines_are_not_parsed() {
        for value in [
            "",
            "at",
            "at ",
            "at x",
            "at -1",
            "at 1 2",
            "at 18446744073709551615",
            "at 18446744073709551616",
            "event 1",
            "event 1 a",
            "event x 1",
            "hole 1 ,",
            "hole 1 1 key",
            "begin",
            "begin  1 1 1 0 - - whole",
            "begin log 1 1 1 0 - -",
            "begin log 1 1 1 0 - - other",
            "begin log 1 1 1 0 1 - rest",
            "begin log 1 1 1 0 1:x - rest",
            "begin log 1 1 1 0 - - rest more",
            "begin log 1 1 2 0 - - rest",
            "begin log 1 1 1 0 - 2 rest",
            "begin log 1 1 1 0 2:1,1:1 - rest",
            "begin log 9 1 1 0 1:5,2:1 - rest",
            "other 1 2",
        ] {
            assert_eq!(Line::parse(value), None, "{value}");
        }
    }
}
