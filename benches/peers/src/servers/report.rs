//! The report: tables as Markdown, and two plots beside it.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use plotters::prelude::*;

use crate::peer::Peer;
use crate::{Figures, LOADS, POSTERS, Results, Rounds, SATURATED};

/// Writes the report to this file, and the plots beside it.
pub fn write(results: &Results, file: &Path) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    for (name, title, top, figure) in [
        ("cpu.svg", "CPU per delivery in µs", 25.0, cpu as fn(&Figures) -> f64),
        ("memory.svg", "Memory per stream in KiB", 50.0, memory),
    ] {
        plot(&folder.join(name), title, top, results, figure).map_err(|error| io::Error::other(error.to_string()))?;
    }
    std::fs::write(file, text(results))
}

fn cpu(figures: &Figures) -> f64 {
    figures.cpu
}

fn memory(figures: &Figures) -> f64 {
    figures.memory
}

fn posts(figures: &Figures) -> f64 {
    figures.received.posts as f64 / figures.received.seconds
}

fn deliveries(figures: &Figures) -> f64 {
    figures.received.deliveries as f64 / figures.received.seconds
}

fn text(results: &Results) -> String {
    let machine = std::env::var("MACHINE").unwrap_or_default();
    let (streams, connections) = SATURATED;
    let paced = |figure: &dyn Fn(&Rounds) -> Option<String>| {
        let columns = LOADS.iter().zip(&results.paced);
        table(columns.map(|(&(streams, rate), peers)| (format!("{streams} × {rate}/s"), cells(peers, figure))))
    };
    let posted = POSTERS.iter().zip(&results.posts);
    let posted = table(posted.map(|(connections, peers)| {
        (format!("connections: {connections}"), cells(peers, &|rounds| spread(rounds, 0, posts)))
    }));
    let saturated = table([
        ("deliveries/s".into(), cells(&results.saturated, &|rounds| spread(rounds, 0, deliveries))),
        ("posts/s".into(), cells(&results.saturated, &|rounds| spread(rounds, 0, posts))),
        ("µs per delivery".into(), cells(&results.saturated, &|rounds| spread(rounds, 2, cpu))),
    ]);
    format!(
        "# Peers\n\n`benches/peers/run` measures this in one run, and writes this page.\n\n{machine}\n\
         Columns are streams × events per second. Each figure is the median of the rounds, with the least and the most in \
         parentheses. A dash means that the server has not delivered everything in time: see [the end](#not-measured).\n\n\
         ## CPU per delivery\n\n![CPU per delivery over the number of streams](cpu.svg)\n\n\
         Microseconds of the server's processor time, with that of the posts:\n\n{}\n\
         As a multiple of the best foreign server, and of the plain write loop:\n\n{}\n\
         ## Latency\n\nMilliseconds from a post to its arrival in a client, p50 and p99:\n\n{}\n\
         ## Memory\n\n![Memory per stream over the number of streams](memory.svg)\n\n\
         KiB of the server's resident memory per stream, after the load:\n\n{}\n\
         ## Saturated\n\n{connections} connections post to {streams} streams as fast as posts are answered. A server may drop \
         events that a client does not read in time.\n\n{saturated}\n\
         ## Posts\n\nWithout streams, posts of one event each per second:\n\n{posted}\n\
         ## Not measured\n\n{}",
        paced(&|rounds| spread(rounds, 2, cpu)),
        ratios(results),
        paced(&|rounds| {
            let p50 = median(rounds, |figures| figures.received.p50)?;
            Some(format!("{p50:.1}, {:.1}", median(rounds, |figures| figures.received.p99)?))
        }),
        paced(&|rounds| spread(rounds, 1, memory)),
        failures(results),
    )
}

fn cells(peers: &[Rounds], figure: &dyn Fn(&Rounds) -> Option<String>) -> Vec<Option<String>> {
    peers.iter().map(figure).collect()
}

/// Returns a table with a row per peer, from its columns.
fn table(columns: impl IntoIterator<Item = (String, Vec<Option<String>>)>) -> String {
    let mut rows: Vec<String> = Peer::ALL.iter().map(|peer| format!("| {} |", peer.name())).collect();
    let (mut head, mut line) = (String::from("| |"), String::from("|---|"));
    for (name, cells) in columns {
        let _ = write!(head, " {name} |");
        line += "---:|";
        for (row, cell) in rows.iter_mut().zip(cells) {
            let _ = write!(row, " {} |", cell.as_deref().unwrap_or("–"));
        }
    }
    format!("{head}\n{line}\n{}\n", rows.join("\n"))
}

fn ratios(results: &Results) -> String {
    table(LOADS.iter().zip(&results.paced).map(|(&(streams, rate), peers)| {
        let costs: Vec<Option<f64>> = peers.iter().map(|rounds| median(rounds, cpu)).collect();
        let of = |wanted: &dyn Fn(Peer) -> bool| {
            let costs = Peer::ALL.iter().zip(&costs).filter(|(peer, _)| wanted(**peer));
            costs.filter_map(|(_, cost)| *cost).reduce(f64::min)
        };
        let best = of(&|peer| !peer.is_own() && peer != Peer::WriteLoop);
        let limit = of(&|peer| peer == Peer::WriteLoop);
        let cells = costs.iter().map(|cost| Some(format!("{:.2}, {:.2}", (*cost)? / best?, (*cost)? / limit?)));
        (format!("{streams} × {rate}/s"), cells.collect())
    }))
}

fn failures(results: &Results) -> String {
    let mut text = String::new();
    let mut add = |load: String, peers: &[Rounds]| {
        for (peer, rounds) in Peer::ALL.iter().zip(peers) {
            if let Some(error) = rounds.iter().find_map(|result| result.as_ref().err()) {
                let _ = writeln!(text, "* {}, {load}: {error}", peer.name());
            }
        }
    };
    for (&(streams, rate), peers) in LOADS.iter().zip(&results.paced) {
        add(format!("{streams} × {rate}/s"), peers);
    }
    add("saturated".into(), &results.saturated);
    for (connections, peers) in POSTERS.iter().zip(&results.posts) {
        add(format!("posts on {connections} connections"), peers);
    }
    text += "* The Python library *server-sent-events*, which this crate continues, is on no package registry.\n";
    text
}

/// Returns the figure of each round, in order, if no round failed.
fn sorted(rounds: &Rounds, figure: impl Fn(&Figures) -> f64) -> Option<Vec<f64>> {
    let mut values: Vec<f64> = rounds.iter().map(|result| result.as_ref().ok().map(&figure)).collect::<Option<_>>()?;
    values.sort_by(f64::total_cmp);
    (!values.is_empty()).then_some(values)
}

fn median(rounds: &Rounds, figure: impl Fn(&Figures) -> f64) -> Option<f64> {
    sorted(rounds, figure).map(|values| values[values.len() / 2])
}

fn spread(rounds: &Rounds, decimals: usize, figure: impl Fn(&Figures) -> f64) -> Option<String> {
    let values = sorted(rounds, figure)?;
    let (least, most) = (values[0], values[values.len() - 1]);
    Some(format!("{:.decimals$} ({least:.decimals$} to {most:.decimals$})", values[values.len() / 2]))
}

/// Draws a line per peer over the number of streams. What is above the top is left out.
fn plot(
    file: &Path,
    title: &str,
    top: f64,
    results: &Results,
    figure: fn(&Figures) -> f64,
) -> Result<(), Box<dyn Error>> {
    const COLORS: [RGBColor; 9] = [
        RGBColor(200, 30, 40),
        RGBColor(240, 120, 40),
        RGBColor(160, 60, 160),
        RGBColor(0, 150, 190),
        RGBColor(0, 130, 70),
        RGBColor(50, 80, 190),
        RGBColor(150, 160, 30),
        RGBColor(120, 90, 60),
        RGBColor(130, 130, 130),
    ];
    let area = SVGBackend::new(file, (880, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let (least, most) = (LOADS[0].0 as f64, LOADS[LOADS.len() - 1].0 as f64);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .margin_right(240)
        .x_label_area_size(44)
        .y_label_area_size(48)
        .build_cartesian_2d((least..most).log_scale(), 0.0..top)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("streams").x_labels(8).x_label_formatter(&|streams| format!("{streams:.0}"));
    mesh.light_line_style(TRANSPARENT).label_style(("sans-serif", 14)).draw()?;
    // Where the next name stands, in pixels.
    let mut line = 70;
    for (which, peer) in Peer::ALL.iter().enumerate() {
        let points = LOADS.iter().zip(&results.paced);
        let points: Vec<(f64, f64)> = points
            .filter_map(|((streams, _), peers)| Some((*streams as f64, median(&peers[which], figure)?)))
            .filter(|(_, value)| *value <= top)
            .collect();
        if points.is_empty() {
            continue;
        }
        let style = COLORS[which].stroke_width(if peer.is_own() { 3 } else { 1 });
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, COLORS[which].filled())))?;
        chart.draw_series(LineSeries::new(points, style))?;
        area.draw(&PathElement::new([(660, line), (684, line)], style))?;
        area.draw(&Text::new(peer.name(), (692, line - 6), ("sans-serif", 13)))?;
        line += 24;
    }
    area.present()?;
    Ok(())
}
