//! The IDs that a history assigns, and what an ID says about a client's position.

use std::time::SystemTime;

use crate::spread;

/// The names in the IDs of one log: of the log, and of each era of it.
///
/// Without a store an ID is `NAME-SEQUENCE`: the log is as old as the process. With a store it is
/// `LINEAGE.ERA-SEQUENCE`. The lineage names the log for its whole life. An era begins with each opening of the store,
/// because the log may have lost its newest events, which clients may have seen. So no ID ever stands for two events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    name: String,
    /// The eras, the oldest first; empty without a store.
    eras: Vec<Era>,
}

/// One era of a log. It ends where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Era {
    pub(crate) number: u64,
    /// The sequence of its first event.
    pub(crate) first: u64,
}

/// What an ID says about a client's position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The client has seen everything up to this sequence.
    Exact(u64),
    /// The client has seen events of an era that the log has lost. Of that era, the log has everything up to this
    /// sequence.
    Lost(u64),
    /// The sequence is not assigned yet. In a log that follows another one, the client comes from a place that is
    /// further on; in any other log, the ID is forged.
    Ahead(u64),
    /// The ID is not one of this log: it has another name or another form.
    Unknown,
}

impl Ids {
    /// Creates the IDs of a log that ends with the process.
    pub(crate) fn of_this_run() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        // The time separates runs that start at different times, the random part all others.
        let random = spread::random() as u32;
        Self { name: format!("{since:x}{random:08x}"), eras: Vec::new() }
    }

    /// Creates the IDs of a log in a store. The eras must be in order, and there must be one.
    pub(crate) fn of_store(lineage: String, eras: Vec<Era>) -> Self {
        debug_assert!(eras.is_sorted_by(|a, b| a.number < b.number && a.first <= b.first) && !eras.is_empty());
        Self { name: lineage, eras }
    }

    /// Creates the IDs of a log that has another one's, with its name and its eras: none without a store.
    #[cfg_attr(not(feature = "client"), allow(dead_code))]
    pub(crate) fn of_another(name: String, eras: Vec<Era>) -> Self {
        if eras.is_empty() { Self { name, eras } } else { Self::of_store(name, eras) }
    }

    /// Returns the name of the log.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number and the first sequence of each era, the oldest first; none without a store.
    pub(crate) fn eras(&self) -> impl Iterator<Item = (u64, u64)> {
        self.eras.iter().map(|era| (era.number, era.first))
    }

    /// Returns the ID of the event with this sequence.
    pub(crate) fn id(&self, sequence: u64) -> String {
        let name = &self.name;
        if self.eras.is_empty() {
            return format!("{name}-{sequence}");
        }
        // Before the first event of all, the first era counts.
        let era = self.eras.partition_point(|era| era.first <= sequence).saturating_sub(1);
        format!("{name}.{}-{sequence}", self.eras[era].number)
    }

    /// Returns the position of a client that sends this ID, in a log that ends with this sequence.
    pub(crate) fn place(&self, id: &str, newest: u64) -> Place {
        match self.sequence(id, newest) {
            Some((sequence, end)) if sequence <= end.unwrap_or(newest) => Place::Exact(sequence),
            Some((_, Some(end))) => Place::Lost(end),
            Some((sequence, None)) if sequence < u64::MAX => Place::Ahead(sequence),
            _ => Place::Unknown,
        }
    }

    /// Returns the sequence in an ID of this log, which ends with `newest`, and the last sequence of its era if the era
    /// has ended.
    fn sequence(&self, id: &str, newest: u64) -> Option<(u64, Option<u64>)> {
        let (prefix, digits) = id.strip_prefix(&self.name)?.rsplit_once('-')?;
        let sequence = number(digits)?;
        if self.eras.is_empty() {
            return prefix.is_empty().then_some((sequence, None));
        }
        let era_number = number(prefix.strip_prefix('.')?)?;
        let (first, next) = match self.eras.binary_search_by_key(&era_number, |era| era.number) {
            // A stream that began before the first event of all was sent the sequence 0, in an era that may have had
            // no event.
            _ if sequence == 0 => (0, self.eras.first()),
            Ok(era) => (self.eras[era].first, self.eras.get(era + 1)),
            // An era between two others is missing if it had no events, and so no IDs, or if the log has lost them all.
            Err(next) if (1..self.eras.len()).contains(&next) => (self.eras[next].first, self.eras.get(next)),
            // A log that this one follows may have begun an era already. This one is behind it, if it has lost nothing.
            Err(next) if next > 0 => return (sequence > newest).then_some((sequence, None)),
            Err(_) => return None,
        };
        (sequence >= first).then_some((sequence, next.map(|next| next.first - 1)))
    }
}

/// Returns the number that these digits are, unless it has another form, such as `+7` and `007`.
fn number(digits: &str) -> Option<u64> {
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Ids {
        let eras = [(3, 1), (7, 11), (8, 11), (20, 31)].map(|(number, first)| Era { number, first });
        Ids::of_store("log".into(), eras.into())
    }

    #[test]
    fn an_id_names_the_era_in_which_its_event_was_published() {
        let names = [0, 1, 10, 11, 30, 31, 99].map(|sequence| ids().id(sequence));
        assert_eq!(names, ["log.3-0", "log.3-1", "log.3-10", "log.8-11", "log.8-30", "log.20-31", "log.20-99"]);
    }

    #[test]
    fn every_assigned_id_is_placed_exactly() {
        for ids in [ids(), Ids::of_this_run()] {
            for sequence in 0..=40 {
                assert_eq!(ids.place(&ids.id(sequence), 40), Place::Exact(sequence));
            }
        }
    }

    #[test]
    fn the_position_before_the_first_event_is_exact_in_every_era() {
        for id in ["log.1-0", "log.3-0", "log.5-0", "log.20-0", "log.99-0"] {
            assert_eq!(ids().place(id, 40), Place::Exact(0), "{id}");
        }
    }

    #[test]
    fn an_id_beyond_the_end_of_its_era_was_lost() {
        // The last two are of eras that the log does not know.
        for (id, end) in [
            ("log.3-11", 10),
            ("log.3-40", 10),
            ("log.7-11", 10),
            ("log.8-31", 30),
            ("log.4-11", 10),
            ("log.19-99", 30),
        ] {
            for newest in [30, 40] {
                assert_eq!(ids().place(id, newest), Place::Lost(end), "{id}");
            }
        }
    }

    #[test]
    fn an_id_beyond_the_newest_is_ahead() {
        for id in ["log.20-41", "log.21-41"] {
            assert_eq!(ids().place(id, 40), Place::Ahead(41), "{id}");
        }
        assert_eq!(ids().place("log.20-18446744073709551614", 40), Place::Ahead(u64::MAX - 1));
        let of_this_run = Ids { name: "run".into(), eras: Vec::new() };
        assert_eq!(of_this_run.place("run-41", 40), Place::Ahead(41));
    }

    #[test]
    fn other_ids_are_unknown() {
        // Before the first event of their era, of unknown eras, of other forms.
        let of_store = "log.20-30 log.8-10 log.4-3 log.2-1 log.21-40 log-3 log.3-+3 log.3-03 log.03-3 log.3- log.3 \
            log..3-1 log log.3-1-1 log.3-18446744073709551616 log.20-18446744073709551615 3-1 lo.3-1";
        for id in of_store.split_whitespace().chain([""]) {
            assert_eq!(ids().place(id, 40), Place::Unknown, "{id}");
        }
        let of_this_run = Ids { name: "run".into(), eras: Vec::new() };
        for id in ["run.1-1", "run-01", "run--1", "run", "run-", "other-1"] {
            assert_eq!(of_this_run.place(id, 40), Place::Unknown, "{id}");
        }
    }
}
