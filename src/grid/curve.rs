//! Curves over the dose, as inline SVG in the page's colours.

use maud::{Markup, html};

/// A line of a figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// (x, y, half of the interval of y): y and the interval are shares.
    pub points: Vec<(f64, f64, f64)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 38.0;

/// Shares over doses (logarithmic). None where no line has two points.
pub fn over_dose(lines: &[Line]) -> Option<Markup> {
    let doses: Vec<f64> = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
    let low = doses.iter().copied().fold(f64::INFINITY, f64::min);
    let high = doses.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !(low > 0.0 && high > low) {
        return None;
    }
    let mut marks = doses;
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    let x = |dose: f64| LEFT + 20.0 + (dose / low).ln() / (high / low).ln() * (WIDTH - LEFT - RIGHT - 40.0);
    let y = |share: f64| TOP + (1.0 - share.clamp(0.0, 1.0)) * (HEIGHT - TOP - BOTTOM);
    let at = |value: f64| format!("{value:.1}");
    let path = |line: &Line| {
        line.points
            .iter()
            .map(|(dose, share, _)| format!("{:.1},{:.1}", x(*dose), y(*share)))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let summary = lines.iter().map(|line| line.name.as_str()).collect::<Vec<_>>().join(", ");
    Some(html! {
        svg class="chart" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(format!("Over the dose: {summary}")) {
            @for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
                line class="grid" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(at(y(share))) y2=(at(y(share))) {}
                text class="tick" x=(LEFT - 6.0) y=(at(y(share) + 4.0)) text-anchor="end" { (format!("{:.0} %", 100.0 * share)) }
            }
            @for dose in &marks { text class="tick" x=(at(x(*dose))) y=(HEIGHT - BOTTOM + 16.0) text-anchor="middle" { (format!("{} %", tidy(100.0 * dose))) } }
            text class="label" x=((LEFT + WIDTH) / 2.0) y=(HEIGHT - 4.0) text-anchor="middle" { "poisons, share of the training set" }
            @for (n, line) in lines.iter().enumerate() {
                @let colour = crate::report::colour(n);
                polyline class=(format!("curve {colour}")) points=(path(line)) {}
                @for (dose, share, half) in &line.points {
                    line class=(format!("curve {colour}")) x1=(at(x(*dose))) x2=(at(x(*dose))) y1=(at(y(share - half))) y2=(at(y(share + half))) {}
                    circle class=(format!("dot {colour}")) cx=(at(x(*dose))) cy=(at(y(*share))) r="4" {
                        title { (format!("{}: {:.1} % at a dose of {} %", line.name, 100.0 * share, tidy(100.0 * dose))) }
                    }
                }
            }
        }
    })
}

/// A number without needless digits.
pub fn tidy(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_needs_two_doses_and_stays_inside() {
        let line = |points: &[(f64, f64, f64)]| Line {
            name: "<b>".into(),
            points: points.to_vec(),
        };
        assert!(over_dose(&[]).is_none());
        assert!(over_dose(&[line(&[(0.01, 1.0, 0.0)])]).is_none());
        let drawn = over_dose(&[line(&[(0.005, 0.5, 0.9), (0.03, 1.0, 0.0)])]).unwrap().into_string();
        assert!(drawn.contains("&lt;b&gt;") && !drawn.contains("<b>"), "{drawn}");
        assert!(drawn.contains("0.5 %") && drawn.contains("3 %"));
        assert!(!drawn.contains("NaN") && !drawn.contains("y2=\"-"), "{drawn}");
    }

    #[test]
    fn numbers_are_tidy() {
        assert_eq!([1.0, 0.5, 0.25, 10.0, 0.125].map(tidy), ["1", "0.5", "0.25", "10", "0.125"]);
    }
}
