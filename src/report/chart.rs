//! The charts of a report, as inline SVG. Colours come from the page's style sheet, so that they follow light and dark.

use delta_guard_contract::evidence::{Histogram, StandOut};
use maud::{Markup, html};

/// Size of the drawing area of the histogram.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 44.0;
const BOTTOM: f64 = 34.0;

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

/// The distribution of mean scaled Δ of flagged and other examples with the wrong label: the paper's Figure 2. Each group is drawn as shares of
/// itself, so that a few flagged examples stay visible beside thousands of others.
pub fn histogram(histogram: &Histogram) -> Option<Markup> {
    let bins = histogram.flagged.len().min(histogram.others.len());
    // One group alone shows nothing: there is no other to tell it from.
    if histogram.flagged.iter().sum::<u64>() == 0 || histogram.others.iter().sum::<u64>() == 0 {
        return None;
    }
    if bins == 0 || histogram.edges.len() != bins + 1 || histogram.edges.iter().any(|edge| !edge.is_finite()) {
        return None;
    }
    let (low, high) = (histogram.edges[0], histogram.edges[bins]);
    if high <= low {
        return None;
    }
    let total = |counts: &[u64]| counts.iter().sum::<u64>().max(1) as f64;
    let (flagged_total, others_total) = (total(&histogram.flagged), total(&histogram.others));
    let share = |bin: usize| (histogram.flagged[bin] as f64 / flagged_total, histogram.others[bin] as f64 / others_total);
    let top = (0..bins).map(share).fold(0.01f64, |top, (a, b)| top.max(a).max(b)) * 1.08;
    let x = |value: f64| LEFT + (value - low) / (high - low) * (WIDTH - LEFT - 8.0);
    let y = |share: f64| HEIGHT - BOTTOM - share / top * (HEIGHT - BOTTOM - 10.0);
    let bar = |bin: usize, share: f64, class: &'static str, count: u64, what: &str| {
        let (left, right) = (x(histogram.edges[bin]), x(histogram.edges[bin + 1]));
        html! {
            @if share > 0.0 {
                rect class=(class) x=(format!("{:.1}", left + 0.5)) y=(format!("{:.1}", y(share))) width=(format!("{:.1}", (right - left - 1.0).max(0.8)))
                    height=(format!("{:.1}", y(0.0) - y(share))) {
                    title { (format!("{count} {what}, Δ {:.3} to {:.3}", histogram.edges[bin], histogram.edges[bin + 1])) }
                }
            }
        }
    };
    let summary = format!(
        "Histogram of the mean scaled influence change: {} flagged and {} other examples",
        histogram.flagged.iter().sum::<u64>(),
        histogram.others.iter().sum::<u64>()
    );
    Some(html! {
        svg class="chart" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(summary) {
            @for tick in ticks(0.0, top, 4.0) {
                line class="grid" x1=(LEFT) x2=(WIDTH - 8.0) y1=(format!("{:.1}", y(tick))) y2=(format!("{:.1}", y(tick))) {}
                text class="tick" x=(LEFT - 6.0) y=(format!("{:.1}", y(tick) + 4.0)) text-anchor="end" { (format!("{:.0} %", 100.0 * tick)) }
            }
            @for bin in 0..bins { (bar(bin, share(bin).1, "others", histogram.others[bin], "others")) }
            @for bin in 0..bins { (bar(bin, share(bin).0, "flagged", histogram.flagged[bin], "flagged")) }
            @if low < 0.0 && high > 0.0 {
                line class="zero" x1=(format!("{:.1}", x(0.0))) x2=(format!("{:.1}", x(0.0))) y1="6" y2=(HEIGHT - BOTTOM) {}
            }
            line class="axis" x1=(LEFT) x2=(WIDTH - 8.0) y1=(HEIGHT - BOTTOM) y2=(HEIGHT - BOTTOM) {}
            @for tick in ticks(low, high, 6.0) {
                text class="tick" x=(format!("{:.1}", x(tick))) y=(HEIGHT - BOTTOM + 16.0) text-anchor="middle" { (tick_text(tick, high - low)) }
            }
            text class="label" x=((LEFT + WIDTH) / 2.0) y=(HEIGHT - 3.0) text-anchor="middle" { "mean change of influence Δ, scaled by the example’s own influence" }
        }
    })
}

/// How the flagged group stands out: its d′ and z (large marks) against those of the placebos (dots). None without placebos, or where no group was found: there is nothing to draw.
pub fn stand_out(stand_out: &StandOut) -> Option<Markup> {
    let measured = |value: Option<f64>| value.is_some_and(f64::is_finite);
    if stand_out.placebos.is_empty() || !measured(stand_out.d_prime) && !measured(stand_out.z) {
        return None;
    }
    let d: Vec<f64> = stand_out
        .placebos
        .iter()
        .filter_map(|placebo| placebo.d_prime)
        .filter(|d| d.is_finite())
        .collect();
    let z: Vec<f64> = stand_out
        .placebos
        .iter()
        .filter_map(|placebo| placebo.z)
        .filter(|z| z.is_finite())
        .collect();
    Some(html! {
        (strip("d′", "how far the group stands apart from its class", stand_out.d_prime, &d, stand_out.placebos.len()))
        (strip("z", "how strongly it acts on this very picture", stand_out.z, &z, stand_out.placebos.len()))
    })
}

fn strip(name: &str, meaning: &str, own: Option<f64>, placebos: &[f64], all: usize) -> Markup {
    let own = own.filter(|own| own.is_finite());
    let values = || placebos.iter().copied().chain(own);
    let low = values().fold(0.0f64, f64::min);
    let high = values().fold(low + 1.0, f64::max) * 1.06;
    let x = |value: f64| 12.0 + (value - low) / (high - low) * (WIDTH - 24.0);
    // Dots at nearly the same place are set above each other.
    let mut sorted = placebos.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut stack = 0.0;
    let mut last = f64::NEG_INFINITY;
    let dots: Vec<(f64, f64)> = sorted
        .iter()
        .map(|value| {
            stack = if x(*value) - last < 7.0 { (stack + 7.0) % 28.0 } else { 0.0 };
            last = x(*value);
            (last, 40.0 - stack)
        })
        .collect();
    let silent = all.saturating_sub(placebos.len());
    html! {
        div class="strip" {
            div class="strip-head" {
                b { (name) } " " span class="soft" { (meaning) }
                @if silent > 0 { span class="soft right" { (silent) " of " (all) " placebos flagged nothing" } }
            }
            svg class="chart" viewBox=(format!("0 0 {WIDTH} 72")) role="img" aria-label=(format!("{name} of this case against {} placebos", placebos.len())) {
                line class="axis" x1="8" x2=(WIDTH - 8.0) y1="48" y2="48" {}
                @for tick in ticks(low, high, 6.0) {
                    line class="axis" x1=(format!("{:.1}", x(tick))) x2=(format!("{:.1}", x(tick))) y1="48" y2="52" {}
                    text class="tick" x=(format!("{:.1}", x(tick))) y="65" text-anchor="middle" { (tick_text(tick, high - low)) }
                }
                @for (x, y) in &dots { circle class="placebo" cx=(format!("{x:.1}")) cy=(format!("{y:.1}")) r="3.2" {} }
                @if let Some(own) = own {
                    line class="own" x1=(format!("{:.1}", x(own))) x2=(format!("{:.1}", x(own))) y1="14" y2="48" {}
                    circle class="own-dot" cx=(format!("{:.1}", x(own))) cy="14" r="6" { title { (format!("this case: {own:.2}")) } }
                    text class="own-text" x=(format!("{:.1}", x(own) - 11.0)) y="18" text-anchor="end" { (format!("{own:.1}")) }
                }
            }
        }
    }
}

/// A horizontal bar, 0 to 1.
pub fn bar(share: f64, class: &str) -> Markup {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    html! { span class="bar" { span class=(class) style=(format!("width:{:.1}%", 100.0 * share)) {} } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_for_their_counts() {
        let data = Histogram {
            edges: vec![-2.0, -1.0, 0.0, 1.0],
            flagged: vec![8, 2, 0],
            others: vec![0, 10, 30],
        };
        let svg = histogram(&data).map(maud::Markup::into_string).unwrap_or_default();
        assert_eq!(svg.matches("class=\"flagged\"").count(), 2);
        assert_eq!(svg.matches("class=\"others\"").count(), 2);
        // 80 % of the flagged and 75 % of the others: the heights are in that ratio.
        let heights = |class: &str| -> Vec<f64> {
            svg.split(&format!("class=\"{class}\""))
                .skip(1)
                .filter_map(|part| part.split("height=\"").nth(1)?.split('"').next()?.parse().ok())
                .collect()
        };
        let (flagged, others) = (heights("flagged"), heights("others"));
        assert!((flagged[0] / flagged[1] - 4.0).abs() < 0.1, "{flagged:?}");
        assert!((others[1] / flagged[0] - 0.75 / 0.8).abs() < 0.02, "{flagged:?} {others:?}");
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let no = |edges: &[f64], counts: &[u64]| {
            histogram(&Histogram {
                edges: edges.to_vec(),
                flagged: counts.to_vec(),
                others: counts.to_vec(),
            })
            .is_none()
        };
        assert!(no(&[], &[]));
        assert!(no(&[0.0, 1.0], &[1, 2]));
        assert!(no(&[0.0, f64::NAN], &[1]));
        assert!(no(&[1.0, 1.0], &[1]));
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(-0.3, 1.1, 5.0), vec![0.0, 0.5, 1.0]);
        assert_eq!(ticks(0.0, 0.0, 5.0), vec![0.0]);
        assert_eq!(tick_text(-0.5, 1.4), "−0.5");
        assert_eq!(tick_text(-1e-17, 1.4), "0");
    }
}
