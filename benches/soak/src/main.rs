//! Streams come and go, stall, resume and hop between servers while faults are injected, for as long as is wanted:
//! `cd benches/soak && cargo run --release -- --seconds 3600`.
//!
//! An origin, an edge that follows it, and the clients are processes of their own. A client checks each message: every
//! event of its channels arrives once and in order, or a gap is reported exactly where it is missing. This process injects
//! the faults, and samples the memory, the threads and the descriptors of the others.
//!
//! It fails if an event is missing without a gap, comes twice or out of order, or if the origin reports a gap where nothing
//! is missing. It also fails if memory grows in the second half of the time, or if threads or descriptors are left at the end.

mod child;
mod client;
mod clients;
mod connection;
mod edge;
mod faults;
mod oracle;
mod origin;
mod plot;
mod press;
mod run;
mod samples;
mod site;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The channels of all publishers. Hardly anything is published to the last one.
const CHANNELS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Soaks the servers of the crate, and checks what each client receives.
#[derive(Clone, Debug, Parser)]
struct Settings {
    /// How long faults are injected.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// The number of clients.
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// The number of events per second.
    #[arg(long, default_value_t = 250)]
    rate: u32,
    /// The seed of everything random. Defaults to a random one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// The file for the plot, in SVG.
    #[arg(long, default_value = "soak.svg")]
    plot: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

/// A process of the soak.
#[derive(Clone, Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Origin { rate: u32, seed: u64 },
    #[command(hide = true)]
    Edge { upstream: String },
    #[command(hide = true)]
    Clients { clients: usize, seed: u64, urls: Vec<String> },
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let settings = Settings::parse();
    match &settings.part {
        None => run::run(&settings),
        Some(part) => {
            child::exit_on_panic();
            match part {
                Part::Origin { rate, seed } => origin::run(*rate, *seed)?,
                Part::Edge { upstream } => edge::run(upstream)?,
                Part::Clients { clients, seed, urls } => clients::run(*clients, *seed, urls)?,
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
