//! `docs/performance/growth.json`, and the tables and plots that are made from it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use testkit::workspace_root;

/// The file with the figures, in the folder of the report.
const FIGURES: &str = "growth.json";
const TABLES: &str = "growth.md";

/// Size of a plot, and its margins, in pixels.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;
/// Part of a bar's place that it fills.
const BAR: f64 = 0.6;
/// Colours of the parts of a bar that are told apart without colour vision, too.
const COLOURS: [&str; 4] = ["#0072b2", "#e69f00", "#56b4e9", "#999999"];

/// The measured axes, by their names.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures(BTreeMap<String, Axis>);

/// One axis: what grows, and the figures at each value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Axis {
    pub(super) title: String,
    /// The cargo profile of the measured programs.
    pub(super) profile: String,
    /// Names of the figures, with their units.
    pub(super) columns: Vec<String>,
    /// The first columns that add up to the height of a bar.
    pub(super) stacked: usize,
    pub(super) points: Vec<Point>,
}

/// The figures at one value of an axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) at: String,
    pub(super) figures: Vec<f64>,
}

impl Figures {
    /// Reads the figures of earlier runs.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(FIGURES);
        if !file.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&file)?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not what `bench growth` writes", file.display()))
    }

    /// Replaces one axis.
    pub(super) fn set(&mut self, name: String, axis: Axis) {
        self.0.insert(name, axis);
    }

    /// Writes figures, tables and plots.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join(FIGURES), serde_json::to_string_pretty(self)? + "\n")?;
        fs::write(folder.join(TABLES), self.tables())?;
        self.0.iter().try_for_each(|(name, axis)| Ok(fs::write(folder.join(plot_file(name)), axis.plot())?))
    }

    /// The tables, as Markdown.
    fn tables(&self) -> String {
        let mut text = String::from(
            "# Growth\n\nCost of a purchase while one thing grows and all else stays. `cargo xtask bench growth` measures \
             all axes and writes this file. The command at an axis measures that one again. CPU time is in bare handlers: \
             divided by the CPU time that a bare axum handler used for a request in the same round, on the same \
             machine; `bare us` is that time. Each figure is a median of the rounds. Unless the axis says otherwise: \
             12 shards on 3 primaries with a replica each, one node, 256 connections, as many purchases as it answers.\n",
        );
        for (name, axis) in &self.0 {
            let _ = write!(
                text,
                "\n## {}\n\n`cargo xtask bench growth --axis {name} --profile {}`\n\n{}",
                axis.title,
                axis.profile,
                axis.table()
            );
            let _ = write!(text, "\n![{}]({})\n", axis.title, plot_file(name));
        }
        text
    }
}

fn plot_file(name: &str) -> String {
    format!("growth-{name}.svg")
}

impl Axis {
    /// The table, as Markdown.
    pub(super) fn table(&self) -> String {
        let mut text =
            format!("| | {} |\n|---|{}\n", self.columns.join(" | "), "---:|".repeat(self.columns.len()));
        for Point { at, figures } in &self.points {
            let figures: Vec<String> = figures.iter().map(|&figure| number(figure)).collect();
            let _ = writeln!(text, "| {at} | {} |", figures.join(" | "));
        }
        text
    }

    /// A bar for each point, as SVG.
    fn plot(&self) -> String {
        let heights: Vec<f64> = self.points.iter().map(|point| self.parts(point).sum()).collect();
        let highest = heights.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let scale = (HEIGHT - TOP - BOTTOM) / highest;
        let place = (WIDTH - LEFT) / self.points.len().max(1) as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
        );
        for (column, (name, colour)) in self.columns.iter().take(self.stacked).zip(COLOURS).enumerate() {
            let x = LEFT + 140.0 * column as f64;
            let _ = writeln!(svg, "<rect x=\"{x}\" y=\"10\" width=\"10\" height=\"10\" fill=\"{colour}\"/>");
            let _ = writeln!(svg, "<text x=\"{}\" y=\"19\">{name}</text>", x + 14.0);
        }
        for (index, (point, height)) in self.points.iter().zip(heights).enumerate() {
            let left = LEFT + place * (index as f64 + (1.0 - BAR) / 2.0);
            let middle = LEFT + place * (index as f64 + 0.5);
            let mut bottom = HEIGHT - BOTTOM;
            for (part, colour) in self.parts(point).zip(COLOURS) {
                bottom -= part * scale;
                let _ = writeln!(
                    svg,
                    "<rect x=\"{left:.1}\" y=\"{bottom:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
                    place * BAR,
                    part * scale
                );
            }
            let text = |y: f64, text: &str| {
                format!("<text x=\"{middle:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{text}</text>\n")
            };
            svg += &text(bottom - 4.0, &number(height));
            svg += &text(HEIGHT - BOTTOM + 18.0, &point.at);
        }
        svg + "</svg>\n"
    }

    fn parts<'a>(&'a self, point: &'a Point) -> impl Iterator<Item = f64> + 'a {
        point.figures.iter().copied().take(self.stacked)
    }
}

/// A figure with three significant digits.
fn number(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".into(),
        100.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        1.0.. => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

/// The folder of the tracked report.
pub(super) fn folder() -> PathBuf {
    workspace_root().join("docs/performance")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis() -> Axis {
        let point = |at: &str, figures: [f64; 3]| Point { at: at.into(), figures: figures.into() };
        Axis {
            title: "Shards".into(),
            profile: "release".into(),
            columns: ["node", "Redis", "calls"].map(String::from).into(),
            stacked: 2,
            points: vec![point("1", [2.0, 1.0, 0.016]), point("192", [2.5, 3.5, 0.25])],
        }
    }

    #[test]
    fn table_has_a_line_for_each_value() {
        let expected = "| | node | Redis | calls |\n|---|---:|---:|---:|\n| 1 | 2.00 | 1.00 | 0.016 |\n| 192 | 2.50 | 3.50 | 0.250 |\n";
        assert_eq!(axis().table(), expected);
    }

    #[test]
    fn highest_bar_fills_the_plot() {
        let svg = axis().plot();
        assert_eq!(svg.matches("<rect").count(), 1 + 2 + 4);
        assert!(svg.contains(&format!("y=\"{TOP:.1}\"")), "{svg}");
        assert!(svg.contains(">6.00</text>") && svg.contains(">192</text>"), "{svg}");
    }

    #[test]
    fn tracked_report_is_made_from_its_figures() {
        let figures = Figures::read(&folder()).unwrap();
        let made = testkit::Folder::temporary().unwrap();
        figures.write(made.path()).unwrap();
        for file in fs::read_dir(made.path()).unwrap().map(|file| file.unwrap().file_name()) {
            let tracked = fs::read_to_string(folder().join(&file)).unwrap();
            assert_eq!(fs::read_to_string(made.path().join(&file)).unwrap(), tracked, "{}", file.display());
        }
    }
}
