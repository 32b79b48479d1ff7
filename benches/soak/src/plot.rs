//! The plot: memory, threads and descriptors of each process over time, in SVG.

use std::fmt::Write;

use crate::samples::{Sample, Samples};

const COLORS: [&str; 3] = ["#0b6e99", "#c2571a", "#5b8c2a"];
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 160.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
/// From one panel to the next.
const STEP: f64 = HEIGHT + 60.0;
/// A plot has at most this many points per line.
const POINTS: usize = 1_000;

/// The title of a panel, and the value that it shows.
type Panel = (&'static str, fn(&Sample) -> f64);

const PANELS: [Panel; 3] = [
    ("resident memory, MiB", |sample| sample.memory),
    ("threads", |sample| sample.threads as f64),
    ("descriptors", |sample| sample.descriptors as f64),
];

pub fn svg(title: &str, processes: &[Samples]) -> String {
    let (width, height) = (WIDTH + LEFT + 20.0, TOP + STEP * PANELS.len() as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"14\">{title}</text>\n"
    );
    for (n, (process, color)) in processes.iter().zip(COLORS).enumerate() {
        let x = LEFT + WIDTH - 240.0 + 80.0 * n as f64;
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"18\" fill=\"{color}\">{}</text>", process.name);
    }
    let end = processes.iter().filter_map(|process| process.all.last()).map(|sample| sample.time.as_secs_f64());
    let end = end.fold(1.0, f64::max);
    for (n, panel) in PANELS.iter().enumerate() {
        write_panel(&mut svg, panel, processes, TOP + STEP * n as f64, end);
    }
    svg + "</svg>\n"
}

fn write_panel(svg: &mut String, (title, value): &Panel, processes: &[Samples], top: f64, end: f64) {
    let highest = processes.iter().flat_map(|process| &process.all).map(value).fold(1.0, f64::max);
    let bottom = top + 20.0 + HEIGHT;
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\">{title}</text>", top + 12.0);
    for part in 0..=4 {
        let part = f64::from(part) / 4.0;
        let (y, shown) = (bottom - part * HEIGHT, part * highest);
        let _ = writeln!(svg, "<path d=\"M{LEFT} {y}h{WIDTH}\" stroke=\"#ddd\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{shown:.0}</text>", LEFT - 6.0, y + 4.0);
        let (x, seconds) = (LEFT + part * WIDTH, part * end);
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{seconds:.0} s</text>", bottom + 16.0);
    }
    for (process, color) in processes.iter().zip(COLORS) {
        let step = process.all.len().div_ceil(POINTS).max(1);
        let mut points = String::new();
        for sample in process.all.iter().step_by(step) {
            let x = LEFT + sample.time.as_secs_f64() / end * WIDTH;
            let _ = write!(points, "{x:.1},{:.1} ", bottom - value(sample) / highest * HEIGHT);
        }
        let _ = writeln!(svg, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>");
    }
}
