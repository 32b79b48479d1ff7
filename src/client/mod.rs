//! The receiving side: a parser of event streams, and the messages that it returns.

mod message;
mod parser;

pub use message::Message;
pub use parser::{Parser, ParserError};
