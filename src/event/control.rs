//! Frames that the crate itself sends: heartbeats, gaps, and IDs without an event.

use std::sync::LazyLock;

use super::{Event, Frame, MAX_ID};
use crate::follow::{self, Line};

/// The form of a heartbeat, and of the comment at the start of a response.
///
/// The form matters only to clients that do not follow the standard. By the standard, neither fires an event (WHATWG
/// HTML 9.2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeartbeatStyle {
    /// One comment line: `:` and a line feed. The default.
    ///
    /// Several client libraries fire an empty message per blank line, among them `@microsoft/fetch-event-source`,
    /// `httpx-sse`, and the Python libraries `openai` and `anthropic`.
    #[default]
    Line,
    /// A comment line and a blank line, for gateways and old clients that forward nothing before a blank line.
    Block,
}

/// Returns the shortest comment of this style, one frame for the whole program.
///
/// It is the heartbeat of a silent stream. A response begins with it, because some proxies hold back the response's
/// head until its body begins.
pub(crate) fn heartbeat(style: HeartbeatStyle) -> Frame {
    static LINE: LazyLock<Frame> = LazyLock::new(|| Frame::new(":\n".into()));
    static BLOCK: LazyLock<Frame> = LazyLock::new(|| Frame::new(":\n\n".into()));
    match style {
        HeartbeatStyle::Line => LINE.clone(),
        HeartbeatStyle::Block => BLOCK.clone(),
    }
}

/// Returns the `gap` event that replaces an event whose closure panicked. It has the ID of that event.
pub(crate) fn gap_in_place(id: Option<&str>) -> Event {
    Event { id: id.map(str::to_owned), ..gap_event("{\"lost\":1}".into()) }
}

/// Returns the `gap` event for evicted events between these IDs.
pub(crate) fn gap_between(from: &str, to: &str) -> Event {
    // A client can send any text. Only a text that could be an ID is sent back.
    let could_be_one = (1..=MAX_ID).contains(&from.len()) && from.bytes().all(|byte| byte.is_ascii_graphic());
    let escaped = from.replace('\\', "\\\\").replace('"', "\\\"");
    let from = if could_be_one { format!("\"{escaped}\"") } else { "null".into() };
    gap_event(format!("{{\"from\":{from},\"to\":\"{to}\"}}"))
}

/// Returns the `gap` frame that reports how many events a queue has dropped before the next one.
pub(crate) fn gap_of(lost: u64) -> Frame {
    gap_event(format!("{{\"lost\":{lost}}}")).encode()
}

fn gap_event(data: String) -> Event {
    Event { data: Some(data), event: Some("gap".into()), ..Event::EMPTY }
}

/// Returns a block with an ID and no data. A browser resumes after this ID, and fires no event.
pub(crate) fn id_alone(id: &str) -> Frame {
    Frame::new(format!("id: {id}\n\n"))
}

/// Returns the block of an event with the extra line for a follower.
pub(crate) fn followed(line: &Line, frame: &Frame) -> Frame {
    let mut followed = Frame::new(format!("{}: {line}\n{}", follow::FIELD, &**frame));
    followed.seal_as(frame.sequence());
    followed
}

/// Returns a block for a follower that carries no event. It has this sequence; 0 if it is none of an event.
pub(crate) fn follow_alone(line: &Line, id: Option<&str>, sequence: u64) -> Frame {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    let mut alone = Frame::new(format!("{}: {line}\n{id}\n", follow::FIELD));
    alone.seal_as(sequence);
    alone
}
