//! The entries of the stream.

// The fields of an event:
//
//     by         the publisher's random name, and the number that it gave the event: `NAME:NUMBER`
//     at         when it was published, in milliseconds since 1970
//     to         a channel; once for each
//     fields     the lines of its fields, without the ID
//     id, key    if it has them
//     through, with    a transform's name and argument, if it is published through one
//
// The fields of an entry that disconnects subscribers: `by`, `disconnect` with their quota key, and `skip`.
//
// An entry `era` is the first of an era. An entry `loss` reports that events before it are lost. Other entries come from
// a newer version: with a field `skip` they may be skipped, and otherwise something is missing there.

use std::borrow::Cow;
use std::sync::Arc;

use redis::Value;

use crate::store::{Content, Record};

/// A field of an entry.
pub(super) type Field = (&'static str, Box<[u8]>);

/// Which publisher an event is from, and its number there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) publisher: Arc<str>,
    pub(super) number: u64,
}

/// One entry of the stream.
#[derive(Debug)]
pub(super) enum Entry {
    Event {
        origin: Origin,
        record: Record<'static>,
    },
    /// Disconnects the subscribers of a quota key.
    Disconnect {
        origin: Origin,
        quota_key: String,
    },
    Era,
    Loss,
    /// Something that this version does not know, and may skip.
    Skippable,
    /// Something that this version does not know.
    Unknown,
}

impl Entry {
    /// Returns the bytes of an event's largest part.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Event { record: Record { content: Content::Fields(fields), .. }, .. } => fields.len(),
            Self::Event { record: Record { content: Content::Transform { argument, fields, .. }, .. }, .. } => {
                argument.len() + fields.len()
            }
            _ => 0,
        }
    }
}

/// Returns the fields of an event, besides its origin.
pub(super) fn fields(record: &Record<'_>) -> Vec<Field> {
    let mut fields: Vec<Field> = vec![("at", bytes(&record.at.to_string()))];
    fields.extend(record.channels.iter().map(|channel| ("to", bytes(channel))));
    let mut add = |name, text: &Option<Cow<'_, str>>| fields.extend(text.as_deref().map(|text| (name, bytes(text))));
    add("id", &record.own_id);
    add("key", &record.key);
    match &record.content {
        Content::Fields(text) => fields.push(("fields", bytes(text))),
        Content::Transform { name, argument, fields: text } => {
            fields.extend([("through", bytes(name)), ("with", bytes(argument)), ("fields", bytes(text))]);
        }
        // It is refused before.
        Content::Closure => {}
    }
    fields
}

/// Returns the fields of an entry that disconnects the subscribers of this quota key, besides its origin.
pub(super) fn disconnect_fields(quota_key: &str) -> Vec<Field> {
    vec![("disconnect", bytes(quota_key)), ("skip", bytes(""))]
}

fn bytes(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

/// An entry with its era and its sequence.
pub(super) type Numbered = (u64, u64, Entry);

/// Reads the reply to `XREAD`. Returns nothing if it has another form.
pub(super) fn entries(reply: Value) -> Option<Vec<Numbered>> {
    if reply == Value::Nil {
        return Some(Vec::new());
    }
    let [stream] = <[Value; 1]>::try_from(array(reply)?).ok()?;
    let [_, entries] = <[Value; 2]>::try_from(array(stream)?).ok()?;
    array(entries)?.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Option<Numbered> {
    let [id, fields] = <[Value; 2]>::try_from(array(value)?).ok()?;
    let id = text(id)?;
    let (era, sequence) = id.split_once('-')?;
    let (era, sequence) = (era.parse().ok()?, sequence.parse().ok()?);
    let mut values = array(fields)?.into_iter();
    let mut fields = Vec::new();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        // A text that is none is of something unknown.
        let (Some(name), Some(value)) = (text(name), text(value)) else { return Some((era, sequence, Entry::Unknown)) };
        fields.push((name, value));
    }
    let is_skippable = fields.iter().any(|(name, _)| name == "skip");
    let unknown = if is_skippable { Entry::Skippable } else { Entry::Unknown };
    Some((era, sequence, known(sequence, fields).unwrap_or(unknown)))
}

/// Returns the entry with these fields, if this version knows them all.
fn known(sequence: u64, fields: Vec<(String, String)>) -> Option<Entry> {
    let (mut origin, mut at, mut content) = (None, None, None);
    let (mut own_id, mut key, mut transform, mut argument) = (None, None, None, None);
    let mut quota_key = None;
    let mut channels: Vec<Arc<str>> = Vec::new();
    for (name, value) in fields {
        match &*name {
            "era" => return Some(Entry::Era),
            "loss" => return Some(Entry::Loss),
            "by" => origin = Some(origin_of(&value)?),
            "at" => at = Some(value.parse().ok()?),
            "to" => channels.push(value.into()),
            "fields" => content = Some(Cow::Owned(value)),
            "id" => own_id = Some(Cow::Owned(value)),
            "key" => key = Some(Cow::Owned(value)),
            "through" => transform = Some(Cow::Owned(value)),
            "with" => argument = Some(Cow::Owned(value)),
            "disconnect" => quota_key = Some(value),
            // Older versions need it.
            "skip" if quota_key.is_some() => {}
            _ => return None,
        }
    }
    if let Some(quota_key) = quota_key {
        return Some(Entry::Disconnect { origin: origin?, quota_key });
    }
    let content = match (transform, argument, content?) {
        (Some(name), Some(argument), fields) => Content::Transform { name, argument, fields },
        (None, None, fields) => Content::Fields(fields),
        _ => return None,
    };
    let channels = Cow::Owned(channels);
    let record = Record { sequence, at: at?, channels, own_id, finds_own_id: true, key, content };
    Some(Entry::Event { origin: origin?, record })
}

fn origin_of(value: &str) -> Option<Origin> {
    let (publisher, number) = value.rsplit_once(':')?;
    Some(Origin { publisher: publisher.into(), number: number.parse().ok()? })
}

pub(super) fn array(value: Value) -> Option<Vec<Value>> {
    if let Value::Array(values) = value { Some(values) } else { None }
}

pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}
