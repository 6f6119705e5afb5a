//! Plots latency by percentile, as is usual for HDR histograms: each further nine of the percentile has the same width.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 34.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;
/// Points of a curve per nine.
const POINTS: u32 = 40;
const PERCENTILES: [(&str, f64); 6] =
    [("0 %", 0.0), ("90 %", 1.0), ("99 %", 2.0), ("99.9 %", 3.0), ("99.99 %", 4.0), ("99.999 %", 5.0)];

/// A histogram in microseconds, with its label and color.
pub(super) struct Curve<'a> {
    pub(super) label: &'static str,
    pub(super) color: &'static str,
    pub(super) histogram: &'a Histogram<u64>,
}

/// Returns the plot as SVG.
pub(super) fn svg(curves: &[Curve<'_>]) -> String {
    let axes = Axes::of(curves);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    svg += &axes.drawn();
    for (number, curve) in curves.iter().enumerate() {
        svg += &axes.curve(curve, number);
    }
    svg + "</svg>\n"
}

/// Ranges of the axes.
struct Axes {
    nines_max: f64,
    ms_max: f64,
}

impl Axes {
    fn of(curves: &[Curve<'_>]) -> Self {
        let most = |part: fn(&Histogram<u64>) -> f64| {
            curves.iter().map(|curve| part(curve.histogram)).fold(1.0, f64::max)
        };
        let nines_max = most(|histogram| nines_of(histogram.len())).ceil().min(5.0);
        Self { nines_max, ms_max: round_up(most(|histogram| histogram.max() as f64 / 1e3)) }
    }

    fn x(&self, nines: f64) -> f64 {
        LEFT + nines / self.nines_max * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, ms: f64) -> f64 {
        HEIGHT - BOTTOM - ms / self.ms_max * (HEIGHT - TOP - BOTTOM)
    }

    fn drawn(&self) -> String {
        let (bottom, right, mut svg) = (HEIGHT - BOTTOM, WIDTH - RIGHT, String::new());
        for (label, nines) in PERCENTILES.iter().filter(|(_, nines)| *nines <= self.nines_max) {
            let (x, below) = (self.x(*nines), bottom + 18.0);
            svg += &line((x, TOP), (x, bottom));
            svg += &text((x, below), "middle", "#333", label);
        }
        for fifth in 0..=5 {
            let ms = self.ms_max * f64::from(fifth) / 5.0;
            let y = self.y(ms);
            svg += &line((LEFT, y), (right, y));
            svg += &text((LEFT - 8.0, y + 4.0), "end", "#333", &format!("{ms} ms"));
        }
        svg + &text(((LEFT + right) / 2.0, HEIGHT - 8.0), "middle", "#333", "percentile of buyers")
    }

    fn curve(&self, curve: &Curve<'_>, number: usize) -> String {
        let Curve { label, color, histogram } = curve;
        let mut svg = format!("<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" points=\"");
        for (nines, ms) in points(histogram) {
            write!(svg, "{:.1},{:.1} ", self.x(nines), self.y(ms)).expect("writing to a String cannot fail");
        }
        svg += "\"/>\n";
        svg + &text((LEFT + 4.0 + 300.0 * number as f64, TOP - 14.0), "start", color, label)
    }
}

/// Returns the points of a curve in nines and milliseconds, up to the last nine that the number of buyers supports.
fn points(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let last = nines_of(histogram.len());
    let steps = (last * f64::from(POINTS)).floor() as u32;
    let nines = (0..=steps).map(|step| f64::from(step) / f64::from(POINTS)).chain([last]);
    let ms = |nines: f64| histogram.value_at_quantile(1.0 - 10.0_f64.powf(-nines)) as f64 / 1e3;
    nines.map(|nines| (nines, ms(nines))).collect()
}

/// Returns the number of nines that `count` values support: three for a thousand.
fn nines_of(count: u64) -> f64 {
    (count.max(1) as f64).log10()
}

/// Rounds up to the next of 1, 2, 5, 10, 20, 50, …
fn round_up(value: f64) -> f64 {
    let power = 10.0_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= value).unwrap_or(value)
}

fn line(from: (f64, f64), to: (f64, f64)) -> String {
    let ((x1, y1), (x2, y2)) = (from, to);
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>\n")
}

fn text((x, y): (f64, f64), anchor: &str, color: &str, words: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{color}\">{words}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::histogram;

    fn thousand() -> Histogram<u64> {
        let mut histogram = histogram();
        (1..=1000).for_each(|ms| histogram.record(ms * 1000).unwrap());
        histogram
    }

    #[test]
    fn curve_ends_with_the_slowest_buyer() {
        let points = points(&thousand());
        let at = |wanted: f64| points.iter().find(|(nines, _)| (nines - wanted).abs() < 1e-9).unwrap().1;
        assert!((899.0..902.0).contains(&at(1.0)), "the 90th percentile");
        assert!((989.0..992.0).contains(&at(2.0)), "the 99th percentile");
        assert!(points.last().is_some_and(|(nines, ms)| *nines == 3.0 && (998.0..1002.0).contains(ms)));
        assert!(points.windows(2).all(|pair| pair[0].1 <= pair[1].1), "it never falls");
    }

    #[test]
    fn plot_is_complete_and_within_its_frame() {
        let histogram = thousand();
        let svg = svg(&[Curve { label: "one", color: "blue", histogram: &histogram }]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains(">99.9 %<") && !svg.contains(">99.99 %<"), "a thousand have three nines");
        let points = svg.split_once("points=\"").unwrap().1.split_once('"').unwrap().0;
        for point in points.split_whitespace() {
            let (x, y) = point.split_once(',').unwrap();
            assert!((LEFT..=WIDTH - RIGHT).contains(&x.parse().unwrap()), "{point}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y.parse().unwrap()), "{point}");
        }
    }

    #[test]
    fn empty_histogram_can_be_plotted() {
        let empty = histogram();
        let svg = svg(&[Curve { label: "empty", color: "blue", histogram: &empty }]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn scales_are_rounded_up() {
        let round = [0.4, 1.0, 1.1, 33.0, 51.0, 999.0].map(round_up);
        assert_eq!(round, [0.5, 1.0, 2.0, 50.0, 100.0, 1000.0]);
    }
}
