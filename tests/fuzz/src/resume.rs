//! Resuming with any ID: events come once and in order, and either all of them or after a gap.

use arbitrary::Unstructured;
use server_sent_events::client::Parser;
use server_sent_events::{Event, History, Publisher, Resumption};

const CHANNELS: [&str; 3] = ["a", "b", "c"];

/// An event that was published.
struct Published {
    id: String,
    /// The places of its channels.
    channels: Vec<usize>,
}

/// The input is the history's limit, what is published, the channels of the client, and its ID.
pub fn check(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let limit = usize::from(input.arbitrary().unwrap_or(0_u8)) % 8 + 1;
    let publisher =
        Publisher::builder().history(History::new().max_events_per_channel(limit)).build().expect("valid settings");
    let published = publish(&publisher, &mut input);
    let mask = input.arbitrary().unwrap_or(0_u8);
    let channels = some_channels(mask);
    let id = id(&publisher, &published, input);

    let names: Vec<&str> = channels.iter().map(|n| CHANNELS[*n]).collect();
    let stream = publisher.subscription(()).channels(&names).heartbeat(None).last_event_id(id.as_str());
    let mut subscription = stream.open().expect("there is no limit");
    let (mut parser, mut received, mut gaps) = (Parser::new(), Vec::new(), 0);
    publisher.close();
    let resumption = subscription.resumption();
    while let Some(frame) = subscription.recv() {
        for message in parser.push(frame.as_bytes()).expect("a valid stream") {
            if message.is_gap() {
                gaps += 1;
                assert!(received.is_empty(), "the gap comes first");
            } else {
                let number: usize = message.data.parse().expect("the number of an event");
                assert_eq!(*message.id, published[number].id, "an event with the ID of another one");
                received.push(number);
            }
        }
    }
    assert!(received.is_sorted_by(|a, b| a < b), "twice, or out of order: {received:?} after {id:?}");
    let mine = |number: &usize| published[*number].channels.iter().any(|channel| channels.contains(channel));
    assert!(received.iter().all(mine), "an event of other channels: {received:?}");
    assert_eq!(gaps, usize::from(resumption == Resumption::Gap), "{id:?}");
    if resumption == Resumption::Complete {
        let start = start(&id, &publisher, &published);
        let expected: Vec<usize> = (start..published.len()).filter(mine).collect();
        assert_eq!(received, expected, "events are missing without a gap, after {id:?}");
    }
}

/// Returns the places of one to three channels.
fn some_channels(choice: u8) -> Vec<usize> {
    let bits = choice % 7 + 1;
    (0..CHANNELS.len()).filter(|place| (bits >> place) & 1 == 1).collect()
}

/// Publishes events to one or more channels, some with IDs of their own.
fn publish(publisher: &Publisher, input: &mut Unstructured<'_>) -> Vec<Published> {
    let mut published = Vec::new();
    for number in 0..usize::from(input.arbitrary().unwrap_or(0_u8)) % 24 {
        let kind = input.arbitrary().unwrap_or(0_u8);
        let channels = some_channels(kind);
        let mut event = Event::new(number.to_string());
        if kind >= 200 {
            event = event.id(format!("own-{number}")).expect("a valid ID");
        }
        let names: Vec<&str> = channels.iter().map(|n| CHANNELS[*n]).collect();
        let receipt = publisher.publish_to(&names, event);
        published.push(Published { id: receipt.id().expect("there is a history").to_owned(), channels });
    }
    published
}

/// Returns any text, or an ID that was published and then perhaps changed.
fn id(publisher: &Publisher, published: &[Published], mut input: Unstructured<'_>) -> String {
    let kind = input.arbitrary().unwrap_or(0_u8);
    let which = usize::from(input.arbitrary().unwrap_or(0_u8));
    let rest = String::from_utf8_lossy(input.take_rest()).into_owned();
    let newest = publisher.last_event_id().unwrap_or_default();
    let own = published.get(which % published.len().max(1)).map_or(&*newest, |event| &event.id);
    match kind % 5 {
        0 => rest,
        1 | 2 => own.to_owned(),
        3 => format!("{own}{rest}"),
        // The name of the log, and another number.
        _ => format!("{}-{rest}", newest.rsplit_once('-').map_or("", |(name, _)| name)),
    }
}

/// Returns how many events a client with this ID has seen. Nothing is complete after an ID that was never sent.
fn start(id: &str, publisher: &Publisher, published: &[Published]) -> usize {
    if let Some(number) = published.iter().position(|event| event.id == id) {
        return number + 1;
    }
    let newest = publisher.last_event_id().expect("there is a history");
    let name = newest.rsplit_once('-').expect("an ID has a number").0;
    // The IDs of the log itself: that of an event with an own ID, and the one before the first event.
    let number = id.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).and_then(|rest| rest.parse().ok());
    let number: usize = number.unwrap_or_else(|| panic!("complete after the unknown ID {id:?}"));
    assert!(number <= published.len(), "complete after the ID {id:?} of no event");
    number
}
