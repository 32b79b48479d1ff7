//! `hub watch`: prints the messages of an event stream, of a hub or of any other server.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use serde_json::json;
use server_sent_events::client::{EndCause, EventSource, Message};

use crate::options::Watch;
use crate::output;

const CYAN: &str = "\x1b[36m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// How messages are printed.
enum Style {
    /// One JSON object per message.
    Json,
    /// The data, each line after the type if that is not `message`.
    Text,
    /// As text, in colors, and with nothing that a terminal would obey.
    Terminal,
}

/// Prints messages until the server ends the stream for good, or the output is closed.
pub fn run(options: Watch) -> Result<(), Box<dyn Error>> {
    let mut builder = EventSource::builder(options.url)
        .last_event_id(options.last_event_id)
        .retry_server_errors(true)
        .on_connection_lost(|lost| {
            let seconds = lost.delay.as_secs_f64();
            output::log(format_args!("hub: connection lost: {}; reconnecting in {seconds:.1} s", lost.error));
        });
    for (name, value) in options.headers {
        builder = builder.header(name, value);
    }
    let mut output = io::stdout();
    let style = match output.is_terminal() {
        _ if options.json => Style::Json,
        true => Style::Terminal,
        false => Style::Text,
    };
    let mut events = builder.connect()?;
    for message in events.by_ref() {
        let written = output.write_all(style.print(&message).as_bytes()).and_then(|()| output.flush());
        match written {
            // The reader of a pipe has what it wanted.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    match events.end_cause() {
        Some(EndCause::NoContent | EndCause::Stopped) | None => Ok(()),
        Some(cause) => Err(cause.to_string().into()),
    }
}

impl Style {
    fn print(&self, message: &Message) -> String {
        let Message { event_type, data, id, .. } = message;
        let mut text = String::new();
        match self {
            Self::Json => text = json!({ "type": event_type, "data": data, "id": &**id }).to_string() + "\n",
            Self::Text => {
                for line in data.split('\n') {
                    text += &prefixed(event_type, line, "", "");
                }
            }
            Self::Terminal => {
                let color = if message.is_gap() { RED } else { CYAN };
                for line in data.split('\n') {
                    text += &prefixed(&harmless(event_type), &harmless(line), color, PLAIN);
                }
                if !id.is_empty() {
                    text.pop();
                    text += &format!("  {DIM}{}{PLAIN}\n", harmless(id));
                }
            }
        }
        text
    }
}

/// Returns a line of data, after its type if that is not the default.
fn prefixed(event_type: &str, line: &str, color: &str, plain: &str) -> String {
    if event_type == "message" { format!("{line}\n") } else { format!("{color}{event_type}:{plain} {line}\n") }
}

/// Replaces control characters, which could move the cursor or rename the window.
fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            let _ = write!(harmless, "{}", character.escape_default());
        } else {
            harmless.push(character);
        }
    }
    harmless
}
