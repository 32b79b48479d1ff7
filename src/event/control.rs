//! What a stream is sent besides events: heartbeats, gaps, and ids without an event.

use std::sync::LazyLock;

use super::{Event, Frame, MAX_ID};

/// How the comment looks that a silent stream is sent, and with which a response begins.
///
/// The choice concerns clients that do not follow the standard, in which both fire nothing (WHATWG HTML 9.2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeartbeatStyle {
    /// One comment line, `:` and a line feed. The default: several client libraries fire an empty message for each
    /// blank line, among them `@microsoft/fetch-event-source`, httpx-sse, and the Python clients of OpenAI and
    /// Anthropic.
    #[default]
    Line,
    /// A comment line and a blank line, for gateways and old clients that forward nothing before a blank line.
    Block,
}

/// Returns the shortest comment of this style. Each is shared by the whole program.
///
/// A silent stream is sent it, and a response begins with it, because some proxies hold back its head until the first
/// byte of the body.
pub(crate) fn heartbeat(style: HeartbeatStyle) -> Frame {
    static LINE: LazyLock<Frame> = LazyLock::new(|| Frame::new(":\n".into()));
    static BLOCK: LazyLock<Frame> = LazyLock::new(|| Frame::new(":\n\n".into()));
    match style {
        HeartbeatStyle::Line => LINE.clone(),
        HeartbeatStyle::Block => BLOCK.clone(),
    }
}

/// Returns the event that takes the place of one whose closure panicked, with the lost event's id.
pub(crate) fn gap_in_place(id: Option<&str>) -> Event {
    Event { id: id.map(str::to_owned), ..gap_event("{\"lost\":1}".into()) }
}

/// Returns the event that reports what the history no longer holds between these ids.
pub(crate) fn gap_between(from: &str, to: &str) -> Event {
    // What a client says may be anything; only what could be an id is told back.
    let could_be_one = (1..=MAX_ID).contains(&from.len()) && from.bytes().all(|byte| byte.is_ascii_graphic());
    let escaped = from.replace('\\', "\\\\").replace('"', "\\\"");
    let from = if could_be_one { format!("\"{escaped}\"") } else { "null".into() };
    gap_event(format!("{{\"from\":{from},\"to\":\"{to}\"}}"))
}

/// Returns the frame that reports how many events a queue has lost before the next one.
pub(crate) fn gap_of(lost: u64) -> Frame {
    gap_event(format!("{{\"lost\":{lost}}}")).encode()
}

fn gap_event(data: String) -> Event {
    Event { data: Some(data), event: Some("gap".into()), ..Event::EMPTY }
}

/// Returns a block with an id and no data: a browser resumes from there, and fires nothing.
pub(crate) fn id_alone(id: &str) -> Frame {
    Frame::new(format!("id: {id}\n\n"))
}
