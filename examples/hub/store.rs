//! Where the hub's history is kept, and what its state means for clients and operators.

#[cfg(feature = "sqlite")]
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "redis")]
use server_sent_events::store::Redis;
#[cfg(feature = "sqlite")]
use server_sent_events::store::Sqlite;
use server_sent_events::store::StoreState;
use server_sent_events::{History, Publisher};

use crate::edge::Edge;

/// A hub whose origin or Redis is away for longer is not healthy.
const MAX_AWAY: Duration = Duration::from_secs(30);

/// Where the history is kept.
pub enum Store {
    Memory,
    #[cfg(feature = "sqlite")]
    File(PathBuf),
    #[cfg(feature = "redis")]
    Redis(Redis),
    /// Another hub has it, and this one follows.
    Origin(Edge),
}

impl Store {
    pub fn edge(&self) -> Option<&Edge> {
        match self {
            Self::Origin(edge) => Some(edge),
            _ => None,
        }
    }

    /// Returns whether there is a connection to it, which can be lost.
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Origin(_) => true,
            #[cfg(feature = "redis")]
            Self::Redis(_) => true,
            _ => false,
        }
    }

    /// Returns its name in texts.
    fn name(&self) -> &'static str {
        match self {
            Self::Origin(_) => "the origin",
            #[cfg(feature = "redis")]
            Self::Redis(_) => "Redis",
            _ => "this hub",
        }
    }

    /// Returns the history with its store.
    pub fn history(&self, history: History) -> History {
        match self {
            Self::Memory => history,
            #[cfg(feature = "sqlite")]
            Self::File(file) => history.store(Sqlite::at(file)),
            #[cfg(feature = "redis")]
            Self::Redis(redis) => history.store(redis.clone()),
            Self::Origin(edge) => history.follow(edge.upstream()),
        }
    }

    /// Returns the reason if this hub should get no clients.
    pub fn illness(&self, publisher: &Publisher) -> Option<String> {
        let name = self.name();
        match publisher.store_state()? {
            StoreState::Broken { reason, .. } => Some(format!("events are no longer stored: {reason}")),
            StoreState::Starting { reason, .. } => Some(not_arrived(name, reason)),
            StoreState::Away { since, reason, .. } if since.elapsed() > MAX_AWAY => {
                Some(format!("{name} has been away for {} s: {reason}", since.elapsed().as_secs()))
            }
            _ => None,
        }
    }

    /// Returns the reason if no event can be stored now, so that a post need not wait.
    pub fn refusal(&self, publisher: &Publisher) -> Option<String> {
        let name = self.name();
        match publisher.store_state()? {
            StoreState::Starting { reason, .. } => Some(not_arrived(name, reason)),
            StoreState::Away { reason, .. } => Some(format!("{name} is away: {reason}")),
            _ => None,
        }
    }

    /// Returns a line for the operator if the history is not stored, or cannot be reached.
    pub fn trouble(&self, publisher: &Publisher) -> Option<String> {
        let name = self.name();
        match publisher.store_state()? {
            StoreState::Broken { reason, .. } => {
                Some(format!("posts are refused until a restart, events are no longer stored: {reason}"))
            }
            StoreState::Starting { reason: Some(reason), .. } => {
                Some(format!("streams are refused until {name} can be reached: {reason}"))
            }
            StoreState::Away { reason, .. } => Some(format!("{name} is away, streams stay open: {reason}")),
            _ => None,
        }
    }

    /// Returns the line for the operator after the trouble has ended.
    pub fn end_of_trouble(&self) -> String {
        format!("connected to {} again", self.name())
    }
}

fn not_arrived(name: &str, reason: Option<String>) -> String {
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("the events of {name} have not arrived yet{reason}")
}
