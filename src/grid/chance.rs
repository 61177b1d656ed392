//! Means over seeds, and how far they can be trusted.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// Number of values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Half of the 95 % interval of the mean by Student's t (values taken as normal). None for one value.
    pub half: Option<f64>,
    /// The smallest.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

impl Mean {
    /// Of these values; None of no value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let spread = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let quantile = (n > 1).then(|| StudentsT::new(0.0, 1.0, (n - 1) as f64).ok()).flatten();
        Some(Self {
            n,
            mean,
            half: quantile.map(|t| t.inverse_cdf(0.975) * (spread / (n - 1) as f64 / n as f64).sqrt()),
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }

    /// Shares as percent: `99.2 ± 0.4`; of one value only itself.
    pub fn percent(&self) -> String {
        match self.half {
            Some(half) => format!("{:.1} ± {:.1}", 100.0 * self.mean, 100.0 * half),
            None => format!("{:.1}", 100.0 * self.mean),
        }
    }
}

/// Defence effectiveness rating: (max(0, ΔASR) − max(0, ΔACC) + 1) / 2, with what the attack's success and the accuracy have lost (BackdoorBench v2).
pub fn der(success: (f64, f64), accuracy: (f64, f64)) -> f64 {
    let lost = |(before, after): (f64, f64)| (before - after).max(0.0);
    (lost(success) - lost(accuracy) + 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_students() {
        assert_eq!(Mean::of(&[]), None);
        let one = Mean::of(&[0.5]).unwrap();
        assert_eq!((one.mean, one.half, one.percent()), (0.5, None, "50.0".into()));
        // t(0.975; 4) = 2.776445, standard deviation of 1 … 5 is √2.5.
        let five = Mean::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!((five.half.unwrap() - 2.776_445_105 * (2.5f64 / 5.0).sqrt()).abs() < 1e-8, "{five:?}");
        assert_eq!((five.mean, five.low, five.high), (3.0, 1.0, 5.0));
        assert_eq!(Mean::of(&[0.99, 1.0]).unwrap().percent(), "99.5 ± 6.4");
    }

    #[test]
    fn der_rewards_what_is_lost_of_the_attack_and_not_gains_of_accuracy() {
        assert!((der((1.0, 0.0), (0.9, 0.9)) - 1.0).abs() < 1e-15);
        assert!((der((1.0, 0.0), (0.9, 0.95)) - 1.0).abs() < 1e-15);
        assert!((der((0.8, 0.3), (0.9, 0.8)) - 0.7).abs() < 1e-15);
        assert!((der((0.2, 0.6), (0.5, 0.5)) - 0.5).abs() < 1e-15);
    }
}
