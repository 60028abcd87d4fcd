//! Colours and strokes of the drawings: an SVG that is written from top to bottom over one axis of time.

use std::fmt::Write as _;

/// Of a whole drawing.
pub(super) const WIDTH: f64 = 1160.0;
/// Where names stand.
pub(super) const LEFT: f64 = 128.0;
const RIGHT: f64 = 18.0;

pub(super) const INK: &str = "#1d2733";
pub(super) const FAINT: &str = "#6b7785";
pub(super) const GRID: &str = "#e3e8ee";
pub(super) const GOOD: &str = "#2f8f5b";
pub(super) const BAD: &str = "#c8372d";
pub(super) const DOUBT: &str = "#b7791f";
pub(super) const ADMITTED: &str = "#3b7dd8";
pub(super) const DENIED: &str = "#c9d3df";
pub(super) const LOSS: &str = "#e0a13a";

/// Of a node, by its number from 1.
pub(super) fn of_node(name: &str) -> &'static str {
    const NODES: [&str; 10] = [
        "#3b7dd8", "#e07b39", "#2f9e77", "#b455a8", "#c9a227", "#5c6bc0", "#8d6e63", "#26a3b5", "#d0487a",
        "#7a8793",
    ];
    let number: usize = name.strip_prefix('n').and_then(|number| number.parse().ok()).unwrap_or(1);
    NODES[(number.max(1) - 1) % NODES.len()]
}

/// For text between tags and in attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A drawing that grows downwards.
#[derive(Debug)]
pub(super) struct Sheet {
    pub(super) body: String,
    /// Where the next panel begins.
    pub(super) y: f64,
    /// Seconds on the axis.
    length: f64,
}

impl Sheet {
    pub(super) fn new(length: f64) -> Self {
        Self { body: String::new(), y: 0.0, length: length.max(1.0) }
    }

    /// Where a second is.
    pub(super) fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (seconds / self.length).clamp(0.0, 1.0)
    }

    pub(super) fn text(&mut self, x: f64, y: f64, style: &str, text: &str) {
        let text = escape(text);
        let _ = writeln!(self.body, r#"<text x="{x:.1}" y="{y:.1}" {style}>{text}</text>"#);
    }

    /// A box from one second to another, with what it says when it is pointed at.
    pub(super) fn span(&mut self, from: f64, to: f64, y: f64, height: f64, style: &str, title: &str) {
        let (x, end) = (self.x(from), self.x(to));
        let width = (end - x).max(1.0);
        let title =
            if title.is_empty() { String::new() } else { format!("<title>{}</title>", escape(title)) };
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" {style}>{title}</rect>"#
        );
    }

    /// A line through these points of seconds and heights.
    pub(super) fn line(&mut self, points: &[(f64, f64)], style: &str) {
        let mut path = String::new();
        for (place, (seconds, y)) in points.iter().enumerate() {
            let step = if place == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{step}{:.1} {y:.1}", self.x(*seconds));
        }
        let _ = writeln!(self.body, r#"<path d="{path}" fill="none" {style}/>"#);
    }

    /// The area between two lines over the same seconds.
    pub(super) fn area(&mut self, seconds: &[f64], low: &[f64], high: &[f64], style: &str) {
        let mut path = String::new();
        let up = seconds.iter().zip(high);
        let down = seconds.iter().zip(low).rev();
        for (place, (seconds, y)) in up.chain(down).enumerate() {
            let step = if place == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{step}{:.1} {y:.1}", self.x(*seconds));
        }
        let _ = writeln!(self.body, r#"<path d="{path}Z" {style}/>"#);
    }

    /// The title of a panel, and room for it.
    pub(super) fn title(&mut self, title: &str, legend: &[(&str, &str)]) {
        self.y += 26.0;
        let y = self.y;
        self.text(LEFT, y, &format!(r#"font-size="12" font-weight="bold" fill="{INK}""#), title);
        // From the right end, so that it never meets the title.
        let mut x = WIDTH - RIGHT;
        for (name, colour) in legend.iter().rev() {
            x -= 6.4 * name.len() as f64 + 4.0;
            self.text(x, y, &format!(r#"font-size="11" fill="{FAINT}""#), name);
            x -= 15.0;
            let _ = writeln!(
                self.body,
                r#"<rect x="{x:.1}" y="{:.1}" width="11" height="9" rx="2" fill="{colour}"/>"#,
                y - 9.0
            );
            x -= 12.0;
        }
        self.y += 8.0;
    }

    /// The name of a row.
    pub(super) fn row(&mut self, name: &str, height: f64) {
        let y = self.y + height / 2.0 + 4.0;
        let style = format!(r#"font-size="11" text-anchor="end" fill="{FAINT}""#);
        self.text(LEFT - 10.0, y, &style, name);
    }

    /// The axis of a panel: a line for each of these values, named.
    pub(super) fn scale(&mut self, lines: &[(f64, String)]) {
        for (y, name) in lines {
            let end = WIDTH - RIGHT;
            let _ = writeln!(
                self.body,
                r#"<path d="M{LEFT} {y:.1}H{end}" stroke="{GRID}" stroke-width="1" fill="none"/>"#
            );
            let style = format!(r#"font-size="10" text-anchor="end" fill="{FAINT}""#);
            self.text(LEFT - 10.0, y + 3.5, &style, name);
        }
    }

    /// Seconds or minutes, below all.
    pub(super) fn seconds(&mut self) {
        self.y += 20.0;
        let steps = [5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0];
        let step = steps.into_iter().find(|step| self.length / step <= 14.0).unwrap_or(1800.0);
        let mut at = 0.0;
        while at <= self.length {
            let text = if step < 60.0 { format!("{at:.0} s") } else { format!("{:.0} min", at / 60.0) };
            let (x, y) = (self.x(at), self.y);
            self.text(x, y, &format!(r#"font-size="10" text-anchor="middle" fill="{FAINT}""#), &text);
            at += step;
        }
        self.y += 12.0;
    }

    /// The whole drawing; `behind` is drawn first.
    pub(super) fn finish(self, behind: &str) -> String {
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}" font-family="'DejaVu Sans', system-ui, sans-serif" role="img"><rect width="{WIDTH}" height="{height:.0}" fill="#ffffff"/>
{behind}{body}</svg>"##,
            height = self.y + 8.0,
            body = self.body
        )
    }
}
