//! The encoder of events: what the client's parser reads is what was published.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use server_sent_events::client::{Message, Parser};
use server_sent_events::{Event, EventError};

#[derive(Arbitrary, Debug)]
struct Fields {
    data: Option<String>,
    comment: String,
    event_type: Option<String>,
    id: Option<String>,
    retry: Option<u64>,
}

/// The input is a seed for the pieces, and events.
pub fn check(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let piece = usize::from(input.arbitrary().unwrap_or(0_u8)) + 1;
    let (mut wire, mut expected, mut id) = (String::new(), Vec::new(), String::new());
    while !input.is_empty() && expected.len() < 16 {
        let Ok(fields) = Fields::arbitrary(&mut input) else { break };
        let Some(event) = event(&fields) else { continue };
        if let Some(own) = event.event_id() {
            own.clone_into(&mut id);
        }
        if let Some(data) = event.data() {
            expected.push(Expected {
                event_type: event.event_type().filter(|name| !name.is_empty()).unwrap_or("message").to_owned(),
                data: data.replace("\r\n", "\n").replace('\r', "\n"),
                id: id.clone(),
                retry: event.retry_time(),
            });
        }
        wire.push_str(&event.encode());
    }
    let mut parser = Parser::new();
    let messages = wire.as_bytes().chunks(piece).map(|piece| parser.push(piece).expect("a valid stream"));
    let messages: Vec<Expected> = messages.flatten().map(Expected::from).collect();
    assert_eq!(messages, expected, "{wire:?}");
}

/// Returns an event of the fields that are allowed. Those that are not must be refused.
fn event(fields: &Fields) -> Option<Event> {
    let mut event = match &fields.data {
        Some(data) => Event::new(data),
        None => Event::comment(&fields.comment),
    };
    let mut set = |allowed: bool, change: &dyn Fn(Event) -> Result<Event, EventError>| {
        let changed = change(event.clone());
        assert_eq!(changed.is_ok(), allowed, "{fields:?}");
        changed.map(|changed| event = changed).is_ok()
    };
    if let Some(event_type) = &fields.event_type {
        set(!event_type.contains(['\r', '\n', '\0']), &|event| event.event(event_type));
    }
    if let Some(id) = &fields.id {
        let is_id = (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        set(is_id, &|event| event.id(id));
    }
    if let Some(retry) = fields.retry {
        // Half of all numbers are allowed.
        let retry = if retry % 2 == 0 { retry } else { retry % (1 << 31) };
        set(retry < 1 << 31, &|event| event.retry(Duration::from_millis(retry)));
    }
    Some(event)
}

/// What of a message is compared.
#[derive(Debug, PartialEq)]
struct Expected {
    event_type: String,
    data: String,
    id: String,
    retry: Option<Duration>,
}

impl From<Message> for Expected {
    fn from(message: Message) -> Self {
        let Message { event_type, data, id, retry, .. } = message;
        Self { event_type: event_type.into_owned(), data, id: id.to_string(), retry }
    }
}
