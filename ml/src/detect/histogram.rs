//! Two groups over common bins (the paper's Figure 2).

/// Counts of two groups over common bins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bins {
    /// `n + 1` bin edges.
    pub edges: Vec<f64>,
    /// Flagged examples per bin.
    pub flagged: Vec<u64>,
    /// Others per bin.
    pub others: Vec<u64>,
}

/// Bins of equal width.
const BINS: usize = 40;

/// Histogram of `flagged` and `others` over common bins from the smallest to the largest finite value. Values that are not finite are left out;
/// without any value the histogram is empty.
pub fn histogram(flagged: &[f64], others: &[f64]) -> Bins {
    let finite = || flagged.iter().chain(others).copied().filter(|v| v.is_finite());
    let Some(low) = finite().min_by(f64::total_cmp) else {
        return Bins::default();
    };
    let high = finite().max_by(f64::total_cmp).unwrap_or(low);
    // Equal values get bins of width one around them.
    let (low, width) = if high > low {
        (low, high / BINS as f64 - low / BINS as f64)
    } else {
        (low - 0.5, 1.0 / BINS as f64)
    };
    let count = |values: &[f64]| {
        let mut bins = vec![0; BINS];
        for value in values.iter().filter(|v| v.is_finite()) {
            // The largest value belongs to the last bin.
            bins[(((value - low) / width) as usize).min(BINS - 1)] += 1;
        }
        bins
    };
    Bins {
        edges: (0..=BINS).map(|i| low + width * i as f64).collect(),
        flagged: count(flagged),
        others: count(others),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_value_falls_between_its_edges() {
        let h = histogram(&[-4.0, -3.9], &[-1.0, 0.0, 0.0]);
        assert_eq!((h.edges[0], h.edges[40]), (-4.0, 0.0));
        assert_eq!((h.flagged[0], h.flagged[1]), (1, 1));
        assert_eq!((h.others[30], h.others[39]), (1, 2));
        assert_eq!(histogram(&[], &[]), Bins::default());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_panics(flagged in prop::collection::vec(any::<f64>(), 0..30), others in prop::collection::vec(any::<f64>(), 0..30)) {
            let h = histogram(&flagged, &others);
            let finite = |v: &[f64]| v.iter().filter(|x| x.is_finite()).count() as u64;
            prop_assert_eq!(h.flagged.iter().sum::<u64>(), finite(&flagged));
            prop_assert_eq!(h.others.iter().sum::<u64>(), finite(&others));
        }
    }
}
