//! The script with which each connection begins.

use redis::{Connection, RedisError, Value};

use super::Redis;
use super::entry::{array, text};
use crate::spread;
use crate::store::SharedLog;

const SCRIPT: &str = include_str!("attach.lua");

/// The position in an era of a history that clients have seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    lineage: String,
    era: u64,
    sequence: u64,
}

impl Seen {
    /// Reads the position from an ID.
    pub(super) fn parse(id: &str) -> Option<Self> {
        let (log, sequence) = id.rsplit_once('-')?;
        let (lineage, era) = log.rsplit_once('.')?;
        Some(Self { lineage: lineage.to_owned(), era: era.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

/// Attaches to the history, and begins one if there is none. If more was seen of it than it has, it gets a `loss` entry.
pub(super) fn attach(
    connection: &mut Connection,
    settings: &Redis,
    seen: Option<&Seen>,
) -> Result<SharedLog, RedisError> {
    let mut command = redis::cmd("EVAL");
    command.arg(SCRIPT).arg(2).arg(&settings.stream).arg(settings.meta_key());
    command.arg(format!("{:016x}", spread::random()));
    match seen {
        Some(Seen { lineage, era, sequence }) => command.arg(lineage).arg(era).arg(sequence),
        None => command.arg("").arg("").arg(""),
    };
    let reply: Value = command.query(connection)?;
    log(reply).ok_or_else(|| (redis::ErrorKind::UnexpectedReturnType, "the history's state has another form").into())
}

fn log(reply: Value) -> Option<SharedLog> {
    let [lineage, eras, oldest, newest] = array(reply)?.try_into().ok()?;
    let eras = text(eras)?;
    let eras: Option<Vec<(u64, u64)>> = eras.split_whitespace().map(era).collect();
    let eras = eras.filter(|eras| !eras.is_empty() && eras.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1))?;
    let (oldest, newest) = (text(oldest)?.parse().ok()?, text(newest)?.parse().ok()?);
    Some(SharedLog { lineage: text(lineage)?, eras, oldest, newest })
}

fn era(era: &str) -> Option<(u64, u64)> {
    let (number, first) = era.split_once(':')?;
    Some((number.parse().ok()?, first.parse().ok()?))
}
