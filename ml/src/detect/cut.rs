//! The cut of step 3: median + z·1.4826·MAD with z = Φ⁻¹(1 − α/n).

use statrs::distribution::{ContinuousCDF, Normal};

/// 1 / Φ⁻¹(¾): MAD times this is the standard deviation of normal values.
const MAD_TO_SIGMA: f64 = 1.4826;

/// Where a set of values is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// Median of the values.
    pub median: f64,
    /// Median absolute deviation from it.
    pub mad: f64,
    /// z = Φ⁻¹(1 − α/n).
    pub z: f64,
}

impl Cut {
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
        let cut = Cut::of(&[2.0, -2.0, 0.0, 1.0, -1.0], 0.05).unwrap();
        assert_eq!((cut.median, cut.mad), (0.0, 1.0));
        assert!((cut.z - 2.326_347_874_0).abs() < 1e-9, "{}", cut.z);
        assert!((cut.value() - 2.326_347_874_0 * 1.4826).abs() < 1e-9);
        // α/n = 0.01/5000 = 2e-6: Φ⁻¹(1 − 2e-6) = 4.6113824.
        let many: Vec<f64> = (0..5000).map(f64::from).collect();
        let cut = Cut::of(&many, 0.01).unwrap();
        assert!((cut.z - 4.611_382_4).abs() < 1e-6, "{}", cut.z);
        assert_eq!((cut.median, cut.mad), (2499.5, 1250.0));
    }

    #[test]
    fn values_that_do_not_vary_flag_nothing() {
        let cut = Cut::of(&[1.0, 1.0, 1.0, 1.0, 9.0], 0.01).unwrap();
        assert_eq!((cut.mad, cut.value()), (0.0, f64::INFINITY));
        assert!(Cut::of(&[1.0, f64::INFINITY], 0.01).is_none());
        assert!(Cut::of(&[1.0], 0.0).is_none());
        assert!(Cut::of(&[1.0], f64::NAN).is_none());
        assert!(Cut::of(&[], 0.01).is_none());
    }

    proptest! {
        #[test]
        fn any_values_any_alpha_no_panic(values in prop::collection::vec(any::<f64>(), 0..60), alpha in any::<f64>()) {
            if let Some(cut) = Cut::of(&values, alpha) {
                prop_assert!(!cut.value().is_nan() || !cut.mad.is_finite());
            }
            let _ = median(&values);
        }

        #[test]
        fn at_most_half_is_above_the_cut_and_order_does_not_matter(
            mut values in prop::collection::vec(prop_oneof![-1e3f64..1e3, Just(0.0), Just(1.0)], 1..80),
            alpha in 1e-9f64..0.5,
        ) {
            let cut = Cut::of(&values, alpha).expect("finite values, α in (0, 1)");
            prop_assert!(values.iter().filter(|v| **v > cut.value()).count() * 2 <= values.len());
            let below = values.iter().filter(|v| **v < cut.median).count();
            let above = values.iter().filter(|v| **v > cut.median).count();
            prop_assert!(below * 2 <= values.len() && above * 2 <= values.len());
            values.reverse();
            prop_assert_eq!(Cut::of(&values, alpha), Some(cut));
        }
    }
}
