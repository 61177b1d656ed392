//! The charts of a report, as inline SVG. Colours come from the page's style sheet, so that they follow light and dark.

use delta_guard_contract::finding::{Histogram, Points, Row, Scatter, Strip};
use maud::{Markup, html};

/// Size of the drawing area of the histogram.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 44.0;
const BOTTOM: f64 = 34.0;
/// Height of a scatter.
const TALL: f64 = 400.0;
/// Series that have a colour of their own; further ones share the last.
const COLOURS: usize = 4;

/// The class that colours a series, on charts and in legends: the first is that of the flagged.
pub fn colour(series: usize) -> String {
    format!("s{}", series.min(COLOURS - 1))
}

/// Round numbers that divide `low..=high` into about `n` parts.
fn ticks(low: f64, high: f64, n: f64) -> Vec<f64> {
    let span = high - low;
    if !(span.is_finite() && span > 0.0) {
        return vec![low];
    }
    let raw = span / n;
    let magnitude = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * magnitude)
        .find(|step| *step >= raw)
        .unwrap_or(raw);
    let first = (low / step).ceil();
    (0..32)
        .map(|i| (first + f64::from(i)) * step)
        .take_while(|tick| *tick <= high + step * 1e-9)
        .collect()
}

/// A tick's text: as many digits as its neighbours need.
fn tick_text(value: f64, span: f64) -> String {
    let digits = if span >= 20.0 {
        0
    } else if span >= 2.0 {
        1
    } else if span >= 0.2 {
        2
    } else {
        4
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    if text == "-0" { "0".into() } else { text.replace('-', "−") }
}

/// Distributions over common bins, each as shares of itself, so that a few flagged examples stay visible beside thousands of others. None where there is nothing to
/// see: no bins, or of several series only one that counts anything, so that there is no other to tell it from.
pub fn histogram(histogram: &Histogram) -> Option<Markup> {
    let series = &histogram.series;
    let bins = histogram.edges.len().checked_sub(1).filter(|bins| *bins > 0)?;
    let totals: Vec<u64> = series.iter().map(|series| series.counts.iter().sum()).collect();
    let full = totals.iter().filter(|total| **total > 0).count();
    if full == 0 || full < series.len().min(2) || series.iter().any(|series| series.counts.len() != bins) {
        return None;
    }
    let (low, high) = (histogram.edges[0], histogram.edges[bins]);
    if high <= low || histogram.edges.iter().any(|edge| !edge.is_finite()) {
        return None;
    }
    let share = |of: usize, bin: usize| series[of].counts[bin] as f64 / totals[of].max(1) as f64;
    let all = || (0..bins).flat_map(|bin| (0..series.len()).map(move |of| (of, bin)));
    let top = all().map(|(of, bin)| share(of, bin)).fold(0.01f64, f64::max) * 1.08;
    let x = |value: f64| LEFT + (value - low) / (high - low) * (WIDTH - LEFT - 8.0);
    let y = |share: f64| HEIGHT - BOTTOM - share / top * (HEIGHT - BOTTOM - 10.0);
    let bar = |of: usize, bin: usize| {
        let (left, right) = (x(histogram.edges[bin]), x(histogram.edges[bin + 1]));
        let (share, count) = (share(of, bin), series[of].counts[bin]);
        html! {
            @if share > 0.0 {
                rect class=(format!("bin {}", colour(of))) x=(format!("{:.1}", left + 0.5)) y=(format!("{:.1}", y(share)))
                    width=(format!("{:.1}", (right - left - 1.0).max(0.8))) height=(format!("{:.1}", y(0.0) - y(share))) {
                    title { (format!("{count} {}, {:.3} to {:.3}", series[of].name, histogram.edges[bin], histogram.edges[bin + 1])) }
                }
            }
        }
    };
    let counted = series.iter().zip(&totals).map(|(series, total)| format!("{total} {}", series.name));
    let summary = format!("Histogram of the {}: {}", histogram.axis, counted.collect::<Vec<_>>().join(", "));
    Some(html! {
        svg class="chart" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(summary) {
            @for tick in ticks(0.0, top, 4.0) {
                line class="grid" x1=(LEFT) x2=(WIDTH - 8.0) y1=(format!("{:.1}", y(tick))) y2=(format!("{:.1}", y(tick))) {}
                text class="tick" x=(LEFT - 6.0) y=(format!("{:.1}", y(tick) + 4.0)) text-anchor="end" { (format!("{:.0} %", 100.0 * tick)) }
            }
            // The first series lies over the others.
            @for of in (0..series.len()).rev() { @for bin in 0..bins { (bar(of, bin)) } }
            @if low < 0.0 && high > 0.0 {
                line class="zero" x1=(format!("{:.1}", x(0.0))) x2=(format!("{:.1}", x(0.0))) y1="6" y2=(HEIGHT - BOTTOM) {}
            }
            line class="axis" x1=(LEFT) x2=(WIDTH - 8.0) y1=(HEIGHT - BOTTOM) y2=(HEIGHT - BOTTOM) {}
            @for tick in ticks(low, high, 6.0) {
                text class="tick" x=(format!("{:.1}", x(tick))) y=(HEIGHT - BOTTOM + 16.0) text-anchor="middle" { (tick_text(tick, high - low)) }
            }
            text class="label" x=((LEFT + WIDTH) / 2.0) y=(HEIGHT - 3.0) text-anchor="middle" { (histogram.axis) }
        }
    })
}

/// The case's measures (large marks) against those of the others (dots). None where the case has none of them: there is nothing to draw.
pub fn strip(strip: &Strip) -> Option<Markup> {
    let measured = strip.rows.iter().any(|row| row.own.is_some_and(f64::is_finite));
    measured.then(|| html! { @for row in &strip.rows { (one_strip(row, &strip.others)) } })
}

fn one_strip(row: &Row, called: &str) -> Markup {
    let own = row.own.filter(|own| own.is_finite());
    let mut others: Vec<f64> = row.others.iter().copied().filter(|value| value.is_finite()).collect();
    others.sort_by(f64::total_cmp);
    let values = || others.iter().copied().chain(own);
    let low = values().fold(0.0f64, f64::min);
    let high = values().fold(low + 1.0, f64::max) * 1.06;
    let x = |value: f64| 12.0 + (value - low) / (high - low) * (WIDTH - 24.0);
    // Dots at nearly the same place are set above each other.
    let mut stack = 0.0;
    let mut last = f64::NEG_INFINITY;
    let dots: Vec<(f64, f64)> = others
        .iter()
        .map(|value| {
            stack = if x(*value) - last < 7.0 { (stack + 7.0) % 28.0 } else { 0.0 };
            last = x(*value);
            (last, 40.0 - stack)
        })
        .collect();
    html! {
        div class="strip" {
            div class="strip-head" {
                b { (row.name) } " " span class="soft" { (row.meaning) }
                @if !row.remark.is_empty() { span class="soft right" { (row.remark) } }
            }
            svg class="chart" viewBox=(format!("0 0 {WIDTH} 72")) role="img" aria-label=(format!("{} of this case against {} {called}", row.name, others.len())) {
                line class="axis" x1="8" x2=(WIDTH - 8.0) y1="48" y2="48" {}
                @for tick in ticks(low, high, 6.0) {
                    line class="axis" x1=(format!("{:.1}", x(tick))) x2=(format!("{:.1}", x(tick))) y1="48" y2="52" {}
                    text class="tick" x=(format!("{:.1}", x(tick))) y="65" text-anchor="middle" { (tick_text(tick, high - low)) }
                }
                @for (x, y) in &dots { circle class="dot s1" cx=(format!("{x:.1}")) cy=(format!("{y:.1}")) r="3.2" {} }
                @if let Some(own) = own { (own_mark(own, x(own))) }
            }
        }
    }
}

/// The case's own value, its number on the side where there is room.
fn own_mark(own: f64, x: f64) -> Markup {
    let (place, anchor) = if x < 60.0 { (x + 11.0, "start") } else { (x - 11.0, "end") };
    html! {
        line class="own" x1=(format!("{x:.1}")) x2=(format!("{x:.1}")) y1="14" y2="48" {}
        circle class="own-dot" cx=(format!("{x:.1}")) cy="14" r="6" { title { (format!("this case: {own:.2}")) } }
        text class="own-text" x=(format!("{place:.1}")) y="18" text-anchor=(anchor) { (format!("{own:.1}").replace('-', "−")) }
    }
}

/// Examples in two dimensions. None where no point can be drawn.
pub fn scatter(scatter: &Scatter) -> Option<Markup> {
    let shown: Vec<(usize, &Points)> = scatter.series.iter().enumerate().collect();
    let finite = || {
        shown
            .iter()
            .flat_map(|(_, series)| &series.points)
            .filter(|p| p.x.is_finite() && p.y.is_finite())
    };
    let (x_low, x_high) = range(finite().map(|point| point.x))?;
    let (y_low, y_high) = range(finite().map(|point| point.y))?;
    let x = |value: f64| LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - 8.0);
    let y = |value: f64| TALL - BOTTOM - (value - y_low) / (y_high - y_low) * (TALL - BOTTOM - 26.0);
    let counted = scatter.series.iter().map(|series| format!("{} {}", series.points.len(), series.name));
    let summary = format!("{} against {}: {}", scatter.y, scatter.x, counted.collect::<Vec<_>>().join(", "));
    // Each series has a shape, too: colours alone are not for everybody.
    let mark = |of: usize, x: f64, y: f64| match of.min(COLOURS - 1) {
        0 => format!("M{x:.1} {:.1}l4.2 4.2l-4.2 4.2l-4.2 -4.2z", y - 4.2),
        1 => format!("M{:.1} {y:.1}a2.9 2.9 0 1 0 5.8 0a2.9 2.9 0 1 0 -5.8 0z", x - 2.9),
        2 => format!("M{:.1} {:.1}h5.2v5.2h-5.2z", x - 2.6, y - 2.6),
        _ => format!("M{x:.1} {:.1}l3.6 6.2h-7.2z", y - 3.6),
    };
    Some(html! {
        svg class="chart" viewBox=(format!("0 0 {WIDTH} {TALL}")) role="img" aria-label=(summary) {
            @for tick in ticks(y_low, y_high, 6.0) {
                line class="grid" x1=(LEFT) x2=(WIDTH - 8.0) y1=(format!("{:.1}", y(tick))) y2=(format!("{:.1}", y(tick))) {}
                text class="tick" x=(LEFT - 6.0) y=(format!("{:.1}", y(tick) + 4.0)) text-anchor="end" { (tick_text(tick, y_high - y_low)) }
            }
            @for tick in ticks(x_low, x_high, 6.0) {
                line class="grid" x1=(format!("{:.1}", x(tick))) x2=(format!("{:.1}", x(tick))) y1="22" y2=(TALL - BOTTOM) {}
                text class="tick" x=(format!("{:.1}", x(tick))) y=(TALL - BOTTOM + 16.0) text-anchor="middle" { (tick_text(tick, x_high - x_low)) }
            }
            // Of one that was not thinned only as many are drawn; the first series lies over the others.
            @for (of, series) in shown.iter().rev() {
                @for point in series.points.iter().take(Scatter::<()>::MOST).filter(|p| p.x.is_finite() && p.y.is_finite()) {
                    path class=(format!("dot {}", colour(*of))) d=(mark(*of, x(point.x), y(point.y))) {
                        @if let Some(id) = &point.id { title { (id) } } @else { title { (series.name) } }
                    }
                }
            }
            text class="label" x="2" y="12" { (scatter.y) }
            text class="label" x=((LEFT + WIDTH) / 2.0) y=(TALL - 3.0) text-anchor="middle" { (scatter.x) }
        }
    })
}

/// From the least to the greatest value, with a margin. None without values.
fn range(values: impl Iterator<Item = f64> + Clone) -> Option<(f64, f64)> {
    let low = values.clone().min_by(f64::total_cmp)?;
    let high = values.max_by(f64::total_cmp)?;
    let margin = if high > low { 0.04 * (high - low) } else { 0.5 };
    (margin.is_finite()).then_some((low - margin, high + margin))
}

/// A horizontal bar, 0 to 1.
pub fn bar(share: f64, class: &str) -> Markup {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    html! { span class="bar" { span class=(class) style=(format!("width:{:.1}%", 100.0 * share)) {} } }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use delta_guard_contract::finding::{Point, Series};

    fn two(edges: &[f64], flagged: &[u64], others: &[u64]) -> Histogram {
        let series = |name: &str, counts: &[u64]| Series {
            name: name.into(),
            counts: counts.to_vec(),
        };
        Histogram {
            axis: "change".into(),
            edges: edges.to_vec(),
            series: vec![series("flagged", flagged), series("others", others)],
            ..Histogram::default()
        }
    }

    #[test]
    fn bars_stand_for_their_counts() {
        let svg = histogram(&two(&[-2.0, -1.0, 0.0, 1.0], &[8, 2, 0], &[0, 10, 30])).unwrap().into_string();
        assert_eq!(svg.matches("class=\"bin s0\"").count(), 2);
        assert_eq!(svg.matches("class=\"bin s1\"").count(), 2);
        // 80 % of the flagged and 75 % of the others: the heights are in that ratio.
        let heights = |class: &str| -> Vec<f64> {
            svg.split(&format!("class=\"{class}\""))
                .skip(1)
                .filter_map(|part| part.split("height=\"").nth(1)?.split('"').next()?.parse().ok())
                .collect()
        };
        let (flagged, others) = (heights("bin s0"), heights("bin s1"));
        assert!((flagged[0] / flagged[1] - 4.0).abs() < 0.1, "{flagged:?}");
        assert!((others[1] / flagged[0] - 0.75 / 0.8).abs() < 0.02, "{flagged:?} {others:?}");
        assert!(svg.find("bin s1") < svg.find("bin s0"), "the flagged lie over the others");
        assert!(svg.contains("8 flagged, -2.000 to -1.000") && svg.contains("Histogram of the change: 10 flagged, 40 others"));
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let no = |edges: &[f64], counts: &[u64]| histogram(&two(edges, counts, counts)).is_none();
        assert!(no(&[], &[]));
        assert!(no(&[0.0, 1.0], &[1, 2]));
        assert!(no(&[0.0, f64::NAN], &[1]));
        assert!(no(&[1.0, 1.0], &[1]));
        assert!(histogram(&two(&[0.0, 1.0], &[3], &[0])).is_none(), "one group alone shows nothing");
        let mut alone = two(&[0.0, 1.0], &[3], &[0]);
        alone.series.truncate(1);
        assert!(histogram(&alone).is_some(), "unless it was meant alone");
        let row = |own: Option<f64>| Row {
            own,
            others: vec![f64::NAN, 1.0],
            ..Row::default()
        };
        let strip_of = |own: &[Option<f64>]| {
            strip(&Strip {
                rows: own.iter().map(|own| row(*own)).collect(),
                ..Strip::default()
            })
        };
        assert!(strip_of(&[]).is_none() && strip_of(&[None, Some(f64::NAN)]).is_none());
        let svg = strip_of(&[None, Some(2.0)]).unwrap().into_string();
        assert_eq!((svg.matches("own-dot").count(), svg.matches("dot s1").count()), (1, 2));
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn points_stand_where_they_are() {
        let points = |name: &str, at: &[(f64, f64)]| Points {
            name: name.into(),
            points: at.iter().map(|&(x, y)| Point { x, y, id: None }).collect(),
        };
        let of = |series: Vec<Points>| Scatter {
            title: String::new(),
            caption: String::new(),
            x: "to the right".into(),
            y: "upwards".into(),
            series,
        };
        let svg = scatter(&of(vec![
            points("a", &[(0.0, 0.0), (10.0, 5.0)]),
            points("b", &[(5.0, 2.5), (f64::NAN, 1.0)]),
        ]))
        .unwrap()
        .into_string();
        let place = |part: &str| -> (f64, f64) {
            let mut numbers = part.split(" d=\"M").nth(1).unwrap().split([' ', 'l', 'a']).map(|n| n.parse().unwrap());
            (numbers.next().unwrap(), numbers.next().unwrap())
        };
        let marks: Vec<(f64, f64)> = svg.split("class=\"dot s0\"").skip(1).map(place).collect();
        let other: Vec<(f64, f64)> = svg.split("class=\"dot s1\"").skip(1).take(1).map(place).collect();
        assert_eq!(
            (marks.len(), svg.matches("class=\"dot s1\"").count()),
            (2, 1),
            "what has no place is left out"
        );
        // A diamond begins at its top, a circle at its left: 4.2 up, 2.9 to the left of the place.
        let middle = ((marks[0].0 + marks[1].0) / 2.0, (marks[0].1 + marks[1].1) / 2.0 + 4.2);
        assert!(
            (other[0].0 + 2.9 - middle.0).abs() < 0.2 && (other[0].1 - middle.1).abs() < 0.2,
            "{marks:?} {other:?}"
        );
        assert!(marks[1].0 > marks[0].0 && marks[1].1 < marks[0].1, "right and up");
        assert!(svg.contains("to the right") && svg.contains("upwards") && !svg.contains("NaN"));
        assert!(scatter(&of(vec![])).is_none() && scatter(&of(vec![points("a", &[(f64::INFINITY, 0.0)])])).is_none());
        assert!(scatter(&of(vec![points("a", &[(1.0, 1.0)])])).is_some(), "a single point");
        let many: Vec<(f64, f64)> = (0..5000).map(|i| (f64::from(i), 0.0)).collect();
        assert_eq!(
            scatter(&of(vec![points("a", &many)])).unwrap().into_string().matches("<path").count(),
            2000
        );
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(-0.3, 1.1, 5.0), vec![0.0, 0.5, 1.0]);
        assert_eq!(ticks(0.0, 0.0, 5.0), vec![0.0]);
        assert_eq!(tick_text(-0.5, 1.4), "−0.5");
        assert_eq!(tick_text(-1e-17, 1.4), "0");
    }
}
