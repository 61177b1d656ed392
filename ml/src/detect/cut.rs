//! The cut of step 3: above which κ is an example kin?
//!
//! κ of clean examples is not normal: it is skewed, with a tail of pictures that naturally resemble a trigger, so that median + z·MAD flags some of
//! them. The tail is measured instead where that is possible: on clean validation pictures of the same class, whose κ is that of clean training pictures
//! (algorithm §3, step 3).

use statrs::distribution::{ContinuousCDF, Normal};

/// 1 / Φ⁻¹(¾): MAD times this is the standard deviation of normal values.
const MAD_TO_SIGMA: f64 = 1.4826;

/// Fewer null pictures than this say too little about a tail.
pub const FEWEST_NULL: usize = 50;
/// Share of the null that is its tail.
const TAIL: f64 = 0.1;
/// A gap of so many mean excesses stands in an exponential tail once in e⁵ = 148 times.
const GAP: f64 = 5.0;
/// Members of a group that lie so many of its own widths below its middle are outliers. Groups of poisons are skewed: the last of 500 lay 6.2 below, where clean ones began at 6.6.
const OUTLYING: f64 = 5.0;
/// Below the middle by one width of a normal group: its 16th percentile.
const ONE_WIDTH_BELOW: f64 = 0.16;

/// How many errors are allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Family-wise error rate of the cut by spread: normal values exceed it so rarely that a small one costs nothing.
    pub alpha: f64,
    /// Expected number of clean examples above the cut by the null. Measured tails are wide: each tenth of it costs poisons, and a clean example
    /// that is removed costs next to nothing.
    pub chance: f64,
    /// Share of clean ones among examples at the generous cut (see [`Tail::generous`]); 0: there is none.
    pub collect: f64,
}

/// Where κ is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    /// By the tail of the null.
    Null(Tail),
    /// By the spread of the class itself: there are too few null pictures, or they do not vary.
    Spread(Spread),
}

impl Cut {
    /// The cut of `values`: so that `rates.chance` of them may be expected above it by `null`, if that is large enough, else at `rates.alpha` by their
    /// own spread. None where there is none: no value, one that is not finite, or α outside (0, 1).
    pub fn of(values: &[f64], null: &[f64], rates: Rates) -> Option<Self> {
        let spread = Spread::of(values, rates.alpha)?;
        Some(Tail::of(null, values.len(), rates.chance).map_or(Self::Spread(spread), Self::Null))
    }

    /// Null pictures that it was drawn from.
    pub fn null_pictures(&self) -> usize {
        match self {
            Self::Null(tail) => tail.pictures,
            Self::Spread(_) => 0,
        }
    }

    /// The value above which an example is flagged.
    pub fn value(&self) -> f64 {
        match self {
            Self::Null(tail) => tail.value(),
            Self::Spread(spread) => spread.value(),
        }
    }

    /// The value from which on the examples of a group that has been found belong to it: the generous cut, the upper side of a gap, or the last that is no outlier of the group. None
    /// where the cut itself says it; the spread of a class says too little about its tail.
    pub fn end(&self, values: &[f64], collect: f64) -> Option<f64> {
        let Self::Null(tail) = self else { return None };
        if collect <= 0.0 {
            return None;
        }
        let generous = tail.generous(values, collect).filter(|cut| *cut <= self.value());
        let end = tail.gap(values, generous.unwrap_or(self.value()), self.value()).or(generous);
        let mut group: Vec<f64> = values
            .iter()
            .copied()
            .filter(|v| end.map_or(*v > self.value(), |end| *v >= end))
            .collect();
        tail.inliers(&mut group).or(end)
    }
}

/// The upper tail of a null: exponential above u (peaks over a threshold), P(κ > x) = share · exp(−(x − u) / excess).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    /// u, the largest value that does not belong to the tail.
    pub threshold: f64,
    /// Mean excess over u.
    pub excess: f64,
    /// Values that it was drawn from.
    pub pictures: usize,
    /// Natural logarithm of share · n / chance.
    log_ratio: f64,
    /// Values of n that are expected above u: share · n.
    expected: f64,
}

impl Tail {
    /// The tail of `null` for n examples and an expected number of them above the cut. None for fewer than [`FEWEST_NULL`] values, one that is not finite, or a tail without width.
    pub fn of(null: &[f64], n: usize, chance: f64) -> Option<Self> {
        if null.len() < FEWEST_NULL || null.iter().any(|v| !v.is_finite()) || !(chance > 0.0 && chance.is_finite()) || n == 0 {
            return None;
        }
        let mut sorted = null.to_vec();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let count = (TAIL * null.len() as f64) as usize; // at least 5
        let threshold = sorted[count];
        let excess = sorted[..count].iter().map(|v| v - threshold).sum::<f64>() / count as f64;
        let expected = count as f64 / null.len() as f64 * n as f64;
        (excess > 0.0 && excess.is_finite()).then_some(Self {
            threshold,
            excess,
            pictures: null.len(),
            log_ratio: (expected / chance).ln(),
            expected,
        })
    }

    /// How many of n values of the null are expected above it.
    pub fn value(&self) -> f64 {
        self.threshold + self.excess * self.log_ratio.max(0.0)
    }

    /// Where a group stands apart by a gap it ends there, however the null is: clean training examples, which the network was fitted to, may reach a little further than clean
    /// validation pictures do. Among the values from `from` on, the upper side of the lowest gap wider than [`GAP`] mean excesses that leaves at least half of those above `strict`
    /// above it. None: there is no such gap.
    fn gap(&self, values: &[f64], from: f64, strict: f64) -> Option<f64> {
        let mut descending: Vec<f64> = values.iter().copied().filter(|v| *v >= from).collect();
        descending.sort_unstable_by(|a, b| b.total_cmp(a));
        let founders = descending.iter().filter(|v| **v > strict).count();
        let wide = descending
            .windows(2)
            .enumerate()
            .filter(|(_, pair)| pair[0] - pair[1] > GAP * self.excess);
        wide.filter(|(above, _)| 2 * (above + 1) >= founders).map(|(_, pair)| pair[0]).next_back()
    }

    /// The lowest of a group that is no outlier of it, where there are outliers. In a large class even a tail as thin as the null's holds some clean examples, too few and too far
    /// apart to be a gap; of a group that lies close together they are no part. A width is never less than a mean excess, so that a group of equal examples has one.
    fn inliers(&self, group: &mut [f64]) -> Option<f64> {
        group.sort_unstable_by(f64::total_cmp);
        let last = group.len().checked_sub(1)?;
        let middle = median(group)?;
        let below = group[(ONE_WIDTH_BELOW * last as f64).round() as usize];
        let width = (middle - below).max(self.excess);
        let place = group.partition_point(|v| *v < middle - OUTLYING * width);
        (place > 0).then(|| group[place])
    }

    /// The smallest of `values` that is worth its price: each one is worth 1, and each clean one that must be expected beside it costs 1 / `collect`. So the cut lies where
    /// one in 1 / `collect` of the values is clean (a local false discovery rate), and in the gap where a group stands apart from the null, however large it is. Never below
    /// u, where the tail begins. None where no value is worth it, or `collect` is 0.
    pub fn generous(&self, values: &[f64], collect: f64) -> Option<f64> {
        if !(collect > 0.0 && collect <= 1.0) {
            return None;
        }
        let mut descending: Vec<f64> = values.iter().copied().filter(|v| *v > self.threshold).collect();
        descending.sort_unstable_by(|a, b| b.total_cmp(a));
        let clean = |x: f64| self.expected * (-(x - self.threshold) / self.excess).exp();
        let worth = (1..).zip(&descending).map(|(above, &x)| (f64::from(above) - clean(x) / collect, x));
        let best = worth.fold((0.0, None), |best, (worth, x)| if worth > best.0 { (worth, Some(x)) } else { best });
        best.1
    }
}

/// Median and spread of a set of values: the cut is median + z·1.4826·MAD.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Median of the values.
    pub median: f64,
    /// Median absolute deviation from it.
    pub mad: f64,
    /// z = Φ⁻¹(1 − α/n).
    pub z: f64,
}

impl Spread {
    /// The cut of `values` at α. None where there is none: no value, one that is not finite, or α outside (0, 1).
    pub fn of(values: &[f64], alpha: f64) -> Option<Self> {
        if !(alpha > 0.0 && alpha < 1.0) || values.iter().any(|v| !v.is_finite()) {
            return None;
        }
        let median = median(values)?;
        let mad = self::median(&values.iter().map(|v| (v - median).abs()).collect::<Vec<_>>())?;
        // By symmetry −Φ⁻¹(α/n): 1 − α/n would lose its digits to rounding for large n.
        let z = -Normal::standard().inverse_cdf(alpha / values.len() as f64);
        Some(Self { median, mad, z })
    }

    /// The value above which an example is flagged. Infinite where the MAD is 0: then over half of the values are equal, every other one would
    /// be beyond any multiple of it, and nothing can be said to stand apart.
    pub fn value(&self) -> f64 {
        if self.mad > 0.0 {
            self.median + self.z * MAD_TO_SIGMA * self.mad
        } else {
            f64::INFINITY
        }
    }
}

/// Median; the mean of the middle two for an even number. None for no values or where a NaN is among them.
pub fn median(values: &[f64]) -> Option<f64> {
    if values.iter().any(|v| v.is_nan()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = sorted[sorted.len() / 2 - 1];
    // Halves first: the sum of two huge values would overflow. Equal ones (infinite, for example) as they are.
    Some(if lower == upper { upper } else { lower / 2.0 + upper / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn median_of_odd_even_and_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn cut_against_tabulated_quantiles() {
        // Values −2 … 2: median 0, MAD 1; α/n = 0.05/5 = 0.01, Φ⁻¹(0.99) = 2.3263478740.
        let cut = Spread::of(&[2.0, -2.0, 0.0, 1.0, -1.0], 0.05).unwrap();
        assert_eq!((cut.median, cut.mad), (0.0, 1.0));
        assert!((cut.z - 2.326_347_874_0).abs() < 1e-9, "{}", cut.z);
        assert!((cut.value() - 2.326_347_874_0 * 1.4826).abs() < 1e-9);
        // α/n = 0.01/5000 = 2e-6: Φ⁻¹(1 − 2e-6) = 4.6113824.
        let many: Vec<f64> = (0..5000).map(f64::from).collect();
        let cut = Spread::of(&many, 0.01).unwrap();
        assert!((cut.z - 4.611_382_4).abs() < 1e-6, "{}", cut.z);
        assert_eq!((cut.median, cut.mad), (2499.5, 1250.0));
    }

    #[test]
    fn values_that_do_not_vary_flag_nothing() {
        let cut = Spread::of(&[1.0, 1.0, 1.0, 1.0, 9.0], 0.01).unwrap();
        assert_eq!((cut.mad, cut.value()), (0.0, f64::INFINITY));
        assert!(Spread::of(&[1.0, f64::INFINITY], 0.01).is_none());
        assert!(Spread::of(&[1.0], 0.0).is_none());
        assert!(Spread::of(&[1.0], f64::NAN).is_none());
        assert!(Spread::of(&[], 0.01).is_none());
    }

    /// Ten of a hundred are the tail: u = 0.90, excesses 0.01 … 0.10, mean 0.055; n = 1000, chance 0.01: ln(0.1 · 1000 / 0.01) = 9.2103404.
    #[test]
    fn the_tail_of_the_null_against_numbers_by_hand() {
        let null: Vec<f64> = (1..=100).map(|i| f64::from(i) / 100.0).collect();
        let tail = Tail::of(&null, 1000, 0.01).unwrap();
        assert!((tail.threshold - 0.90).abs() < 1e-12 && (tail.excess - 0.055).abs() < 1e-12);
        assert!((tail.value() - (0.90 + 0.055 * 9.210_340_4)).abs() < 1e-8);
        // Fewer tests than the tail's share can tell apart: never below the tail's own beginning.
        assert_eq!(Tail::of(&null, 1, 0.9).unwrap().value(), tail.threshold);
        assert_eq!(Tail::of(&null[..FEWEST_NULL - 1], 1000, 0.01), None);
        assert_eq!(Tail::of(&[0.3; 80], 1000, 0.01), None, "no width");
        assert_eq!(Tail::of(&[&null[..], &[f64::NAN]].concat(), 1000, 0.01), None);
    }

    /// Exponential values exceed it as often as asked.
    #[test]
    fn the_tail_holds_its_error_rate() {
        let quantile = |i: u32, n: u32| -(1.0 - (f64::from(i) + 0.5) / f64::from(n)).ln();
        let null: Vec<f64> = (0..400).map(|i| quantile(i, 400)).collect();
        let cut = Tail::of(&null, 500, 0.05).unwrap().value();
        let exact = (500.0f64 / 0.05).ln();
        assert!((cut - exact).abs() < 0.05 * exact, "{cut} {exact}");
    }

    /// The generous cut against the plain definition, on values by hand: u = 0.9, excess 0.055, 100 of 1,000 expected above u.
    #[test]
    fn the_generous_cut_lies_where_the_price_is_met() {
        let null: Vec<f64> = (1..=100).map(|i| f64::from(i) / 100.0).collect();
        let tail = Tail::of(&null, 1000, 0.1).unwrap();
        // Expected above 1.2: 100 · exp(−0.3 / 0.055) = 0.43, at a fifth 2.1; above 1.1: 2.63, 13.2; above 1.0: 16.2, 81.
        let group = |at: f64, n: usize| vec![at; n];
        let values = |parts: &[(f64, usize)]| parts.iter().flat_map(|&(at, n)| group(at, n)).collect::<Vec<f64>>();
        assert_eq!(tail.generous(&values(&[(1.2, 2)]), 0.2), None, "two are not worth 2.1");
        assert_eq!(tail.generous(&values(&[(1.2, 3), (0.5, 900)]), 0.2), Some(1.2));
        assert_eq!(
            tail.generous(&values(&[(1.2, 3), (1.1, 11)]), 0.2),
            Some(1.2),
            "eleven more cost 11.1 more"
        );
        assert_eq!(tail.generous(&values(&[(1.2, 3), (1.1, 12)]), 0.2), Some(1.1), "twelve more are worth it");
        assert_eq!(tail.generous(&values(&[(1.2, 3), (1.1, 12)]), 0.1), None, "at a tenth nothing is");
        assert_eq!(tail.generous(&values(&[(0.9, 1000)]), 0.2), None, "never below the tail");
        assert_eq!(tail.generous(&values(&[(1.2, 30)]), 0.0), None);
        // A group that stands apart is cut in its gap, however generous.
        assert_eq!(tail.generous(&values(&[(3.0, 300), (1.0, 10)]), 0.5), Some(3.0));
        let cut = Cut::of(&values(&[(3.0, 300), (1.0, 10)]), &null, RATES).unwrap();
        assert!(
            cut.value() < 3.0 && cut.end(&values(&[(3.0, 300), (1.0, 10)]), 0.2).is_none(),
            "the strict cut lies in the gap"
        );
        let spread = Cut::of(&[0.0, 1.0, 2.0, 3.0, 50.0], &[], RATES).unwrap();
        assert_eq!(spread.end(&[0.0, 1.0, 2.0, 3.0, 50.0], 0.2), None);
    }

    /// u = 0.9, excess 0.055, of 1,000 values; the strict cut at a chance of 0.1 is 0.9 + 0.055 · ln 1,000 = 1.28.
    #[test]
    fn a_group_ends_at_a_gap() {
        let null: Vec<f64> = (1..=100).map(|i| f64::from(i) / 100.0).collect();
        let end = |parts: &[(f64, usize)], collect: f64| {
            let values: Vec<f64> = parts.iter().flat_map(|&(at, n)| vec![at; n]).collect();
            Tail::of(&null, 1000, 0.1).map(Cut::Null).unwrap().end(&values, collect)
        };
        // 1.25 is worth its price; 2.0 lies 13 excesses above the next.
        assert_eq!(end(&[(2.0, 20), (1.3, 1), (1.25, 5)], 0.2), Some(2.0), "one above the strict cut, too");
        assert_eq!(end(&[(1.5, 20), (1.3, 1), (1.25, 5)], 0.2), Some(1.25), "3.6 excesses are no gap");
        assert_eq!(
            end(&[(2.0, 4), (1.5, 6), (1.25, 5)], 0.2),
            Some(1.25),
            "a few that stand out of the group are not the group"
        );
        assert_eq!(end(&[(2.0, 20), (1.3, 1)], 0.2), Some(2.0), "where nothing is collected, too");
        assert_eq!(
            end(&[(2.0, 20), (1.3, 1), (1.25, 5)], 0.0),
            None,
            "nothing but the strict cut was asked for"
        );
    }

    /// u = 0.9, excess 0.055, strict cut 1.28. A group of 100 at 2.0, 1.9 and 1.8, then single ones closer to each other than a gap.
    #[test]
    fn outliers_of_a_group_are_no_part_of_it() {
        let null: Vec<f64> = (1..=100).map(|i| f64::from(i) / 100.0).collect();
        let end = |parts: &[(f64, usize)]| {
            let values: Vec<f64> = parts.iter().flat_map(|&(at, n)| vec![at; n]).collect();
            Tail::of(&null, 1000, 0.1).map(Cut::Null).unwrap().end(&values, 0.2)
        };
        // Middle 1.9, width 0.1: outliers lie below 1.4.
        let group = [(2.0, 25), (1.9, 50), (1.8, 25)];
        assert_eq!(end(&[&group[..], &[(1.6, 1), (1.45, 1), (1.3, 1)]].concat()), Some(1.45));
        assert_eq!(end(&[&group[..], &[(1.6, 1)]].concat()), None, "no outliers");
        // A wider group has a wider place for them: 1.9 ± 0.2, from 0.9 on.
        let wide = [(2.1, 25), (1.9, 50), (1.7, 25)];
        assert_eq!(end(&[&wide[..], &[(1.6, 1), (1.45, 1), (1.3, 1)]].concat()), None);
        // Equal ones have the width of the tail: 2.0 − 5 · 0.055 = 1.725.
        assert_eq!(end(&[(2.0, 50), (1.8, 1), (1.7, 1)]), Some(1.8));
        // As many as a quarter are a part of the group, whatever they are.
        assert_eq!(end(&[(2.0, 75), (1.8, 1), (1.6, 1), (1.4, 24)]), None);
    }

    const RATES: Rates = Rates {
        alpha: 0.01,
        chance: 0.1,
        collect: 0.2,
    };

    #[test]
    fn the_null_decides_where_it_can() {
        let values = [0.0, 1.0, 2.0, 3.0, 50.0];
        let null: Vec<f64> = (0..60).map(f64::from).collect();
        assert!(matches!(Cut::of(&values, &null, RATES), Some(Cut::Null(_))));
        assert!(matches!(Cut::of(&values, &null[..20], RATES), Some(Cut::Spread(_))));
        assert!(matches!(Cut::of(&values, &[], RATES), Some(Cut::Spread(_))));
        assert_eq!(Cut::of(&[], &null, RATES), None);
    }

    /// κ of clean examples skewed as on CIFAR-10: log-normal. The spread takes its tail for kin, the null does not; neither misses the group.
    #[test]
    fn a_skewed_class_is_cut_right_by_its_null() {
        let clean = |n: u32| {
            let at = move |i: u32| Normal::standard().inverse_cdf((f64::from(i) + 0.5) / f64::from(n));
            (0..n).map(move |i| (-5.0 + 0.75 * at(i)).exp())
        };
        let values: Vec<f64> = clean(500).chain((0..150).map(|i| 0.2 + 0.001 * f64::from(i))).collect();
        let null: Vec<f64> = clean(180).collect();
        let above = |cut: Cut| values.iter().filter(|v| **v > cut.value()).count();
        assert_eq!(above(Cut::of(&values, &null, RATES).unwrap()), 150);
        assert!(above(Cut::of(&values, &[], RATES).unwrap()) > 152);
    }

    proptest! {
        #[test]
        fn any_values_any_alpha_no_panic(values in prop::collection::vec(any::<f64>(), 0..60), alpha in any::<f64>()) {
            if let Some(cut) = Spread::of(&values, alpha) {
                prop_assert!(!cut.value().is_nan() || !cut.mad.is_finite());
            }
            let _ = median(&values);
        }

        #[test]
        fn at_most_half_is_above_the_cut_and_order_does_not_matter(
            mut values in prop::collection::vec(prop_oneof![-1e3f64..1e3, Just(0.0), Just(1.0)], 1..80),
            alpha in 1e-9f64..0.5,
        ) {
            let cut = Spread::of(&values, alpha).expect("finite values, α in (0, 1)");
            prop_assert!(values.iter().filter(|v| **v > cut.value()).count() * 2 <= values.len());
            let below = values.iter().filter(|v| **v < cut.median).count();
            let above = values.iter().filter(|v| **v > cut.median).count();
            prop_assert!(below * 2 <= values.len() && above * 2 <= values.len());
            values.reverse();
            prop_assert_eq!(Spread::of(&values, alpha), Some(cut));
        }
    }
}
