//! A client that reconnects with its last event ID, each time wherever it wants.

use std::io::{BufRead, BufReader};

use super::*;

/// What a client is sent, with the ID that it then holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    Event {
        id: String,
        data: String,
    },
    /// An ID without an event.
    Id(String),
    Gap {
        id: String,
        data: String,
    },
}

pub struct Client {
    agent: ureq::Agent,
    pub last_event_id: String,
    /// Everything that arrived, over all connections.
    pub blocks: Vec<Block>,
}

impl Client {
    pub fn new() -> Self {
        Self::after("")
    }

    pub fn after(id: &str) -> Self {
        Self { agent: agent(), last_event_id: id.into(), blocks: Vec::new() }
    }

    /// Reads one response until it ends, the time is over, or this block is the last that is wanted. Returns whether it is.
    pub fn read(&mut self, url: &str, time: Duration, is_last: impl Fn(&Block) -> bool) -> bool {
        let request = self.agent.get(url).config().timeout_recv_response(Some(PATIENCE)).timeout_recv_body(Some(time));
        let mut request = request.build();
        if !self.last_event_id.is_empty() {
            request = request.header("Last-Event-ID", &self.last_event_id);
        }
        let Ok(response) = request.call() else { return false };
        assert_eq!(response.status(), 200, "{url}");
        let (mut data, mut id, mut is_gap) = (None, None, false);
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let Ok(line) = line else { return false };
            match line.split_once(": ") {
                Some(("data", text)) => data = Some(text.to_owned()),
                Some(("id", text)) => id = Some(text.to_owned()),
                Some(("event", kind)) => is_gap = kind == "gap",
                None if line.is_empty() => {
                    let block = self.block(id.take(), data.take(), std::mem::take(&mut is_gap));
                    self.blocks.extend(block.clone());
                    if block.is_some_and(|block| is_last(&block)) {
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }

    fn block(&mut self, id: Option<String>, data: Option<String>, is_gap: bool) -> Option<Block> {
        let is_id = id.is_some();
        self.last_event_id = id.unwrap_or(std::mem::take(&mut self.last_event_id));
        let id = self.last_event_id.clone();
        match data {
            Some(data) if is_gap => Some(Block::Gap { id, data }),
            Some(data) => Some(Block::Event { id, data }),
            None => is_id.then_some(Block::Id(id)),
        }
    }

    /// Reads one response until the event with this data.
    #[track_caller]
    pub fn reads_until(&mut self, url: &str, last: &str) {
        let is_last = |block: &Block| matches!(block, Block::Event { data, .. } if data == last);
        assert!(self.read(url, PATIENCE, is_last), "no {last:?} after {:?}", self.blocks.last());
    }

    /// Returns the events, each with its ID.
    pub fn events(&self) -> Vec<(String, String)> {
        let event = |block: &Block| match block {
            Block::Event { id, data } => Some((id.clone(), data.clone())),
            _ => None,
        };
        self.blocks.iter().filter_map(event).collect()
    }

    pub fn data(&self) -> Vec<String> {
        self.events().into_iter().map(|(_, data)| data).collect()
    }

    pub fn gaps(&self) -> usize {
        self.blocks.iter().filter(|block| matches!(block, Block::Gap { .. })).count()
    }
}
