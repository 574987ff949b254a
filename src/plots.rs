//! Plots of a run or of many, as SVG text: how it learned, which biases it changed, what more examples are worth.
//!
//! Plain elements and one style sheet, so that every viewer draws them; colours follow the viewer's light or
//! dark scheme. Numbers that are not finite are left out: no input makes an invalid file.

use crate::error::{Error, Result};
use crate::output;
use crate::params::{Role, Term};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

const STYLE: &str = "\
.bg{fill:#ffffff}.fg{fill:#1f2328}.dim{fill:#59636e}.grid{stroke:#d1d9e0;stroke-width:1}\
.line{fill:none;stroke:#d9730d;stroke-width:2}.dot{fill:#d9730d}.cell{fill:#f28e2b}\
.none{fill:none;stroke:#d1d9e0;stroke-width:1}.on{fill:#111111}\
.line.second{stroke:#0969da}.dot.second{fill:#0969da}\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:12px}\
.title{font-size:14px;font-weight:600}.small{font-size:11px}\
@media (prefers-color-scheme:dark){.bg{fill:#0d1117}.fg{fill:#f0f6fc}.dim{fill:#9198a1}\
.grid{stroke:#3d444d}.none{stroke:#3d444d}.line{stroke:#f0913c}.dot{fill:#f0913c}\
.line.second{stroke:#58a6ff}.dot.second{fill:#58a6ff}}";

/// More than the plots of one run and the tables beside them take, in bytes.
pub const ROOM: u64 = 256 << 10;

/// Writes a plot, or the text beside it, whole, or leaves what stands at `path`.
pub fn write(path: &Path, text: &str) -> Result<()> {
    output::replace_file(path, |file| file.write_all(text.as_bytes()).map_err(Error::io(path)))
}

/// SVG text in the making.
struct Svg {
    body: String,
}

impl Svg {
    fn new() -> Svg {
        Svg { body: String::new() }
    }

    fn push(&mut self, element: std::fmt::Arguments) {
        self.body.write_fmt(element).expect("writing to a string");
        self.body.push('\n');
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let (x, y, text) = (at(x), at(y), escape(text));
        self.push(format_args!(
            r#"<text x="{x}" y="{y}" text-anchor="{anchor}" class="{class}">{text}</text>"#
        ));
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64)) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(at);
        self.push(format_args!(r#"<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="grid"/>"#));
    }

    /// The whole file; `title` is for readers that cannot see it.
    fn finish(self, width: f64, height: f64, title: &str) -> String {
        let (w, h, title) = (at(width), at(height), escape(title));
        let body = self.body;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
             role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect width=\"{w}\" height=\"{h}\" class=\"bg\"/>\n{body}</svg>\n"
        )
    }
}

/// A coordinate: a tenth of a pixel is enough.
fn at(x: f64) -> String {
    let x = if x.is_finite() { x } else { 0.0 };
    let text = format!("{x:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Text as XML content; control characters, which XML forbids, become U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Loss and accuracy by epoch, one panel each; the second only where there is an accuracy.
///
/// `points`: epoch, mean training loss, and accuracy on dev where it was measured.
pub fn learning_curve(points: &[(f64, f64, Option<f64>)]) -> String {
    let finite = |series: Vec<(f64, f64)>| -> Vec<(f64, f64)> {
        series.into_iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let loss = finite(points.iter().map(|p| (p.0, p.1)).collect());
    let accuracy = finite(points.iter().filter_map(|p| Some((p.0, p.2?))).collect());
    let mut panels = vec![("Training loss", loss)];
    if !accuracy.is_empty() {
        panels.push(("Accuracy on dev", accuracy));
    }
    let mut svg = Svg::new();
    let width = PANEL.0 * panels.len() as f64;
    for (i, (name, series)) in panels.iter().enumerate() {
        panel(&mut svg, PANEL.0 * i as f64, name, series);
    }
    svg.finish(width, PANEL.1, "Learning curve")
}

/// Width and height of a panel of the learning curve.
const PANEL: (f64, f64) = (380.0, 280.0);

/// Room between a panel's edges and its first and last point, for their numbers.
const INSET: f64 = 26.0;

fn panel(svg: &mut Svg, left: f64, name: &str, series: &[(f64, f64)]) {
    let (x0, x1, y0, y1) = (left + 56.0, left + PANEL.0 - 24.0, PANEL.1 - 48.0, 48.0);
    svg.text(x0, 26.0, "start", "fg title", name);
    svg.text((x0 + x1) / 2.0, PANEL.1 - 12.0, "middle", "dim", "epoch");
    if series.is_empty() {
        svg.text((x0 + x1) / 2.0, (y0 + y1) / 2.0, "middle", "dim", "no data");
        return;
    }
    let (first, last) = range(series.iter().map(|p| p.0));
    let ticks = ticks(range(series.iter().map(|p| p.1)));
    let (low, high) = (ticks.values[0], ticks.values[ticks.values.len() - 1]);
    let x_of = |x: f64| match last > first {
        true => x0 + INSET + (x - first) / (last - first) * (x1 - x0 - 2.0 * INSET),
        false => (x0 + x1) / 2.0,
    };
    let y_of = |y: f64| y0 + (y - low) / (high - low) * (y1 - y0);

    grid(svg, &ticks, (x0, x1), y_of);
    // At most ten numbers on the x axis, and the last one among them.
    let step = series.len().div_ceil(10);
    for (x, _) in series.iter().rev().step_by(step) {
        svg.text(x_of(*x), y0 + 18.0, "middle", "dim", &format!("{x}"));
    }
    let path: Vec<String> =
        series.iter().map(|(x, y)| format!("{},{}", at(x_of(*x)), at(y_of(*y)))).collect();
    svg.push(format_args!(r#"<polyline points="{}" class="line"/>"#, path.join(" ")));
    for (i, (x, y)) in series.iter().enumerate() {
        let (cx, cy) = (at(x_of(*x)), at(y_of(*y)));
        svg.push(format_args!(
            r#"<circle cx="{cx}" cy="{cy}" r="3.5" class="dot"><title>epoch {x}: {y:.4}</title></circle>"#
        ));
        // Where the line is not: above it and to the side that it slopes away from, or below a valley.
        let before = i.checked_sub(1).map_or(*y, |j| series[j].1);
        let after = series.get(i + 1).map_or(*y, |p| p.1);
        let (dx, dy) = match (before > *y, after > *y) {
            (true, true) => (0.0, 18.0),
            (true, false) => (14.0, -9.0),
            (false, true) => (-14.0, -9.0),
            (false, false) if i == 0 && after < *y => (14.0, -9.0),
            (false, false) => (0.0, -9.0),
        };
        if (series.len() - 1 - i).is_multiple_of(step) {
            svg.text(x_of(*x) + dx, y_of(*y) + dy, "middle", "fg small", &format!("{y:.3}"));
        }
    }
}

/// A line and a number at every tick of the y axis.
fn grid(svg: &mut Svg, ticks: &Ticks, (x0, x1): (f64, f64), y_of: impl Fn(f64) -> f64) {
    for v in &ticks.values {
        svg.line((x0, y_of(*v)), (x1, y_of(*v)));
        svg.text(x0 - 8.0, y_of(*v) + 4.0, "end", "dim", &format!("{v:.*}", ticks.decimals));
    }
}

/// A score at some numbers of examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizePoint {
    /// Number of examples, 1 or more.
    pub examples: usize,
    /// Mean of the score.
    pub score: f64,
    /// Its standard deviation; 0 for none.
    pub deviation: f64,
}

/// A score by the number of training examples, as figure 2 of the BitFit paper; each doubling takes the same width.
///
/// `lines`: one or two, each a name and its points; the bars are a standard deviation up and down.
pub fn score_by_size(score: &str, lines: &[(String, Vec<SizePoint>)]) -> String {
    const SIZE: (f64, f64) = (560.0, 340.0);
    const TITLE: &str = "Score by number of training examples";
    let (x0, x1, y0, y1) = (64.0, SIZE.0 - 24.0, SIZE.1 - 56.0, 72.0);
    let is_finite = |p: &&SizePoint| p.examples > 0 && p.score.is_finite() && p.deviation.is_finite();
    let points = || lines.iter().flat_map(|(_, points)| points.iter().filter(is_finite));
    let mut sizes: Vec<usize> = points().map(|p| p.examples).collect();
    sizes.sort_unstable();
    sizes.dedup();

    let mut svg = Svg::new();
    svg.text(x0, 26.0, "start", "fg title", score);
    svg.text((x0 + x1) / 2.0, SIZE.1 - 14.0, "middle", "dim", "training examples");
    let (Some(first), Some(last)) = (sizes.first(), sizes.last()) else {
        svg.text((x0 + x1) / 2.0, (y0 + y1) / 2.0, "middle", "dim", "no data");
        return svg.finish(SIZE.0, SIZE.1, TITLE);
    };
    let ticks = ticks(range(points().flat_map(|p| [p.score - p.deviation, p.score + p.deviation])));
    let (low, high) = (ticks.values[0], ticks.values[ticks.values.len() - 1]);
    let doublings = |n: usize| (n as f64 / *first as f64).log2();
    let x_of = |n: usize| match last > first {
        true => x0 + INSET + doublings(n) / doublings(*last) * (x1 - x0 - 2.0 * INSET),
        false => (x0 + x1) / 2.0,
    };
    let y_of = |y: f64| y0 + (y - low) / (high - low) * (y1 - y0);
    grid(&mut svg, &ticks, (x0, x1), y_of);
    // From the right, for that is the whole of the data: numbers that have room.
    let mut free = f64::INFINITY;
    for n in sizes.iter().rev().filter(|n| doublings(**n).is_finite()) {
        let room = 8.0 * n.to_string().len() as f64 + 8.0;
        if x_of(*n) + room / 2.0 <= free {
            svg.text(x_of(*n), y0 + 18.0, "middle", "dim", &n.to_string());
            free = x_of(*n) - room / 2.0;
        }
    }
    for (i, (name, points)) in lines.iter().enumerate() {
        let second = if i % 2 == 1 { " second" } else { "" };
        let points: Vec<&SizePoint> = points.iter().filter(is_finite).collect();
        let place = |p: &SizePoint| (x_of(p.examples), y_of(p.score));
        let path: Vec<String> =
            points.iter().map(|p| place(p)).map(|(x, y)| format!("{},{}", at(x), at(y))).collect();
        svg.push(format_args!(r#"<polyline points="{}" class="line{second}"/>"#, path.join(" ")));
        for p in &points {
            let ((x, y), [top, end]) = (place(p), [p.score + p.deviation, p.score - p.deviation].map(y_of));
            let [x, y, top, end] = [x, y, top, end].map(at);
            svg.push(format_args!(r#"<line x1="{x}" y1="{top}" x2="{x}" y2="{end}" class="line{second}"/>"#));
            svg.push(format_args!(
                r#"<circle cx="{x}" cy="{y}" r="3.5" class="dot{second}"><title>{}, {} examples: {:.1} ± {:.1}</title></circle>"#,
                escape(name), p.examples, p.score, p.deviation
            ));
        }
        let x = x0 + 170.0 * i as f64;
        svg.push(format_args!(r#"<circle cx="{}" cy="46" r="4" class="dot{second}"/>"#, at(x + 4.0)));
        svg.text(x + 14.0, 50.0, "start", "fg", name);
    }
    svg.finish(SIZE.0, SIZE.1, TITLE)
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)))
}

/// Round numbers on an axis.
struct Ticks {
    /// Two or more, rising, around the data.
    values: Vec<f64>,
    /// Digits after the point that tell them apart.
    decimals: usize,
}

/// About four steps of 1, 2 or 5 times a power of ten around `low..=high`; a constant gets room around it.
fn ticks((low, high): (f64, f64)) -> Ticks {
    // Beyond these nothing sensible can be drawn, but nothing may overflow either.
    let (mut low, mut high) = (low.clamp(-1e15, 1e15), high.clamp(-1e15, 1e15));
    let room = (low.abs().max(high.abs()) * 0.05).max(1e-9);
    if high - low < room * 0.02 {
        (low, high) = (low - room, high + room);
    }
    let rough = (high - low) / 4.0;
    let power = rough.log10().floor();
    let unit = 10f64.powf(power);
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * unit).find(|s| *s >= rough * 0.999).unwrap_or(rough);
    let first = (low / step + 1e-9).floor();
    let count = ((high / step - 1e-9).ceil() - first).clamp(1.0, 12.0) as usize;
    let values = (0..=count).map(|i| (first + i as f64) * step).collect();
    // A step of ten units needs a digit less, which `power + 1` says.
    let power = if step > 9.0 * unit { power + 1.0 } else { power };
    Ticks { values, decimals: (-power).clamp(0.0, 12.0) as usize }
}

/// The rows of [`bias_change`]: of each term what changed in each of `layers` layers. What belongs to the embeddings stands
/// in the first, the pooler in the last.
pub fn by_term(layers: usize, change: &[(Role, f64)]) -> Vec<(String, Vec<Option<f64>>)> {
    let mut rows: Vec<_> = Term::ALL.iter().map(|t| (t.symbol().to_owned(), vec![None; layers])).collect();
    for (role, change) in change {
        if let Role::Bias(term, layer) = role {
            let at = layer.unwrap_or(if *term == Term::Pooler { layers.saturating_sub(1) } else { 0 });
            let row = Term::ALL.iter().position(|t| t == term).expect("a term");
            rows[row].1[at] = Some(*change);
        }
    }
    rows.retain(|(_, values)| values.iter().any(Option::is_some));
    rows
}

/// Mean |b - b0| by layer and term, as figure 1 of the BitFit paper (Ben Zaken et al. 2022).
///
/// `rows`: a term's symbol and its value in each of `layers` layers, `None` where it has none or was not
/// trained. The numbers in the cells share one power of ten, named below; the tips hold them in full.
pub fn bias_change(layers: usize, rows: &[(String, Vec<Option<f64>>)]) -> String {
    const CELL: (f64, f64) = (46.0, 28.0);
    const TOP: f64 = 48.0;
    const TITLE: &str = "Change of the biases, mean |b − b₀|";
    let symbol_width = rows.iter().map(|(s, _)| s.chars().count()).max().unwrap_or(0) as f64 * 7.5;
    let left = 36.0 + symbol_width.max(20.0);
    let bottom = TOP + CELL.1 * rows.len() as f64;
    let width = (left + CELL.0 * layers as f64 + 24.0).max(320.0);
    let value = |row: &[Option<f64>], l: usize| row.get(l).copied().flatten().filter(|v| v.is_finite());
    let all = rows.iter().flat_map(|(_, row)| (0..layers).filter_map(|l| value(row, l)));
    let largest = all.fold(0.0, |m: f64, v| m.max(v.abs()));
    let exponent = if largest > 0.0 { largest.log10().floor().clamp(-30.0, 30.0) } else { 0.0 };
    let unit = 10f64.powf(exponent);

    let mut svg = Svg::new();
    svg.text(16.0, 26.0, "start", "fg title", TITLE);
    for (r, (symbol, row)) in rows.iter().enumerate() {
        let y = TOP + CELL.1 * r as f64;
        svg.text(left - 8.0, y + CELL.1 / 2.0 + 4.0, "end", "fg", symbol);
        for l in 0..layers {
            let x = left + CELL.0 * l as f64;
            let [cx, cy, w, h] = [x + 1.0, y + 1.0, CELL.0 - 2.0, CELL.1 - 2.0].map(at);
            let Some(v) = value(row, l) else {
                svg.push(format_args!(
                    r#"<rect x="{cx}" y="{cy}" width="{w}" height="{h}" rx="3" class="none"/>"#
                ));
                continue;
            };
            let strength = if largest > 0.0 { (v.abs() / largest).clamp(0.0, 1.0) } else { 0.0 };
            svg.push(format_args!(
                "<rect x=\"{cx}\" y=\"{cy}\" width=\"{w}\" height=\"{h}\" rx=\"3\" class=\"cell\" \
                 fill-opacity=\"{:.3}\"><title>{} in layer {l}: {v:.3e}</title></rect>",
                0.06 + 0.94 * strength,
                escape(symbol)
            ));
            // Cells are half transparent: only a strong one needs dark letters on a dark page.
            let class = if strength > 0.75 { "on small" } else { "fg small" };
            let shown = format!("{:.2}", v / unit);
            svg.text(x + CELL.0 / 2.0, y + CELL.1 / 2.0 + 4.0, "middle", class, &shown);
        }
    }
    for l in 0..layers {
        let x = left + CELL.0 * (l as f64 + 0.5);
        svg.text(x, bottom + 18.0, "middle", "dim", &l.to_string());
    }
    let middle = left + CELL.0 * layers as f64 / 2.0;
    svg.text(middle, bottom + 38.0, "middle", "dim", "layer");
    let (x, y) = (at(20.0), at((TOP + bottom) / 2.0));
    svg.push(format_args!(
        r#"<text x="{x}" y="{y}" text-anchor="middle" transform="rotate(-90 {x} {y})" class="dim">term</text>"#
    ));
    if exponent != 0.0 {
        svg.text(
            width - 24.0,
            bottom + 58.0,
            "end",
            "dim small",
            &format!("numbers × {}", power_of_ten(exponent)),
        );
    }
    svg.finish(width, bottom + 72.0, TITLE)
}

/// `10⁻³` and the like.
fn power_of_ten(exponent: f64) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let digits = format!("{exponent:.0}");
    let raised = digits.chars().map(|c| c.to_digit(10).map_or('⁻', |d| DIGITS[d as usize]));
    format!("10{}", raised.collect::<String>())
}

#[cfg(test)]
#[path = "plots_tests.rs"]
mod tests;
