use super::*;
use crate::detect::fake::normals;
use crate::evidence::KnownLab;
use crate::progress::Silent;
use delta_guard_contract::ImageConfig;
use tch::Kind;

/// Two groups around 0 and `apart` on the first axis, in `width` dimensions.
fn groups(large: usize, small: usize, apart: f64, width: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..large + small)
        .map(|i| {
            let mut row = normals(width, &mut rng);
            row[0] += if i >= large { apart } else { 0.0 };
            row
        })
        .collect()
}

fn detect(keys: &Keys, rows: &[Vec<f64>], labels: &[u32], wrong_label: usize) -> Detection {
    let flat: Vec<f64> = rows.concat();
    let mut lab = KnownLab {
        features: Some(Tensor::from_slice(&flat).view([rows.len() as i64, -1])),
        ..KnownLab::default()
    };
    let case = DetectCase {
        anomalies: &[Tensor::zeros([3, 4, 4], (Kind::Float, tch::Device::Cpu))],
        wrong_label,
        classes: 3,
        labels,
        placebos: &[],
        seed: 5,
        image: &ImageConfig::default(),
    };
    keys.detect(&mut lab, &case, &mut Silent).unwrap()
}

fn positions(found: &Detection) -> Vec<usize> {
    let mut all: Vec<usize> = found.flagged.iter().map(|f| f.position).collect();
    all.sort_unstable();
    all
}

/// Class 1 has a small group apart, class 0 a larger one, class 2 none.
fn scene() -> (Vec<Vec<f64>>, Vec<u32>) {
    let parts = [groups(60, 40, 12.0, 14, 1), groups(70, 10, 12.0, 14, 2), groups(200, 0, 0.0, 14, 3)];
    let labels = parts.iter().zip(0..).flat_map(|(part, label)| vec![label; part.len()]).collect();
    (parts.concat(), labels)
}

#[test]
fn a_small_group_apart_is_flagged_and_a_large_one_is_not() {
    let (rows, labels) = scene();
    let found = detect(&Keys::default(), &rows, &labels, 1);
    assert_eq!(positions(&found), (170..180).collect::<Vec<_>>());
    assert!(found.flagged.is_sorted_by(|a, b| a.score >= b.score) && found.flagged.iter().all(|f| f.score > 0.5));
    let share = |class: usize| found.details[class]["share"].as_f64().unwrap();
    assert_eq!((share(0), share(1)), (0.4, 0.125));
    // Two normal groups 12 apart in 14 dimensions: the centres' distance, and a class without groups fits badly.
    assert!((found.details[1]["distance"].as_f64().unwrap() - 12.0).abs() < 1.5);
    assert!(found.details[2]["silhouette"].as_f64().unwrap() < 0.1);
}

#[test]
fn the_other_forms_flag_what_they_say() {
    let (rows, labels) = scene();
    let flagged = |keys: Keys, wrong| positions(&detect(&keys, &rows, &labels, wrong));
    let predicted = Keys {
        classes: Classes::Predicted,
        ..Keys::default()
    };
    assert_eq!(flagged(predicted.clone(), 1), (170..180).collect::<Vec<_>>());
    assert!(flagged(predicted, 0).is_empty());
    let wide = Keys {
        max_share: 0.45,
        ..Keys::default()
    };
    assert_eq!(flagged(wide, 1), (60..100).chain(170..180).collect::<Vec<_>>());
    let strict = Keys {
        min_silhouette: 0.99,
        ..Keys::default()
    };
    let none = detect(&strict, &rows, &labels, 1);
    assert!(matches!(&none.verdict, TraceVerdict::Undecided { why } if why.code() == "no-small-part" && why.sentence().contains("0.99")));
    // By size alone the fit has no say. A share that is the limit is not below it.
    let (by_size, limit) = (
        |max_share| Keys {
            decision: SplitRule::Size,
            max_share,
            ..strict.clone()
        },
        0.125,
    );
    assert_eq!(
        positions(&detect(&by_size(limit + 1e-9), &rows, &labels, 1)),
        (170..180).collect::<Vec<_>>()
    );
    assert!(!positions(&detect(&by_size(limit), &rows, &labels, 1)).contains(&170));
}

#[test]
fn the_order_of_the_training_set_has_no_say() {
    let (rows, labels) = scene();
    let turned = |i: usize| (i * 97 + 31) % rows.len(); // 97 and 380 have no common divisor
    let order: Vec<usize> = (0..rows.len()).map(turned).collect();
    let there = detect(&Keys::default(), &rows, &labels, 1);
    let (moved, moved_labels): (Vec<_>, Vec<_>) = order.iter().map(|&i| (rows[i].clone(), labels[i])).unzip();
    let here = detect(&Keys::default(), &moved, &moved_labels, 1);
    let mut back: Vec<(usize, f64)> = here.flagged.iter().map(|f| (order[f.position], f.score)).collect();
    let mut expected: Vec<(usize, f64)> = there.flagged.iter().map(|f| (f.position, f.score)).collect();
    back.sort_by_key(|f| f.0);
    expected.sort_by_key(|f| f.0);
    assert_eq!((back, here.details), (expected, there.details), "to the last bit");
}

/// Against every way to part ten points in two, and silhouettes by their definition.
#[test]
fn the_split_is_the_tightest_of_all_and_silhouettes_are_by_definition() {
    for seed in 0..20 {
        let points = groups(6, 4, 4.0, 3, seed);
        let means = two_means(&points, 50, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
        let spread = |second: &dyn Fn(usize) -> bool| -> f64 {
            let side = |s: bool| -> f64 {
                let own: Vec<&Vec<f64>> = (0..10).filter(|&i| second(i) == s).map(|i| &points[i]).collect();
                let mean = |d: usize| own.iter().map(|p| p[d]).sum::<f64>() / own.len() as f64;
                own.iter().map(|p| (0..3).map(|d| (p[d] - mean(d)).powi(2)).sum::<f64>()).sum()
            };
            side(false) + side(true)
        };
        let best = (1..512)
            .map(|mask: usize| spread(&|i| i < 9 && mask >> i & 1 == 1))
            .fold(f64::INFINITY, f64::min);
        assert!((means.spread - best).abs() < 1e-9 * best, "seed {seed}: {} is not {best}", means.spread);
        assert!((spread(&|i| means.second[i]) - best).abs() < 1e-9 * best);
        let found = silhouettes(&points, &means.second);
        for i in 0..10 {
            let mean = |same: bool| {
                let others: Vec<f64> = (0..10)
                    .filter(|&j| j != i && (means.second[j] == means.second[i]) == same)
                    .map(|j| (0..3).map(|d| (points[i][d] - points[j][d]).powi(2)).sum::<f64>().sqrt())
                    .collect();
                others.iter().sum::<f64>() / others.len() as f64
            };
            let (a, b) = (mean(true), mean(false));
            let expected = if a.is_nan() { 0.0 } else { (b - a) / a.max(b) };
            assert!((found[i] - expected).abs() < 1e-12, "{} is not {expected}", found[i]);
        }
    }
}

/// PCA keeps all distances where it keeps all dimensions, and the greatest variance where it does not; more dimensions than rows are the same.
#[test]
fn the_reduction_keeps_what_varies_most() {
    let squared_distances = |rows: &[Vec<f64>]| -> Vec<f64> {
        (0..rows.len())
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| squared(&rows[i], &rows[j]))
            .collect()
    };
    for (n, width) in [(12, 5), (5, 12)] {
        let rows: Vec<(i64, Vec<f64>)> = (0..).zip(groups(n, 0, 0.0, width, 7)).collect();
        let whole = reduced(&rows, 100).unwrap();
        let plain: Vec<Vec<f64>> = rows.iter().map(|(_, row)| row.clone()).collect();
        for (found, expected) in squared_distances(&whole).iter().zip(squared_distances(&plain)) {
            assert!((found - expected).abs() < 1e-9);
        }
        // Along an axis that was stretched there is the most: the first component is that axis.
        let stretched: Vec<(i64, Vec<f64>)> = (0..).zip(&plain).map(|(i, row)| (i, [&[1000.0 * row[0]], &row[1..]].concat())).collect();
        let first = reduced(&stretched, 1).unwrap();
        let mean = stretched.iter().map(|(_, row)| row[0]).sum::<f64>() / n as f64;
        let sign = first[0][0].signum() * (stretched[0].1[0] - mean).signum();
        assert!(
            first
                .iter()
                .zip(&stretched)
                .all(|(f, (_, row))| f.len() == 1 && (sign * f[0] - (row[0] - mean)).abs() < 1.0)
        );
    }
}

#[test]
fn classes_that_cannot_be_split_are_left_alone() {
    // No example, one, and equal ones; then two different.
    let rows = vec![vec![1.0, 2.0], vec![3.0, 4.0], vec![3.0, 4.0], vec![3.0, 4.0]];
    let found = detect(&Keys::default(), &rows, &[0, 1, 1, 1], 1);
    assert!(found.flagged.is_empty() && found.exhibits.is_empty());
    assert!(matches!(&found.verdict, TraceVerdict::Undecided { why } if why.sentence() == "no class has two different activations"));
    let rows = vec![vec![1.0, 2.0], vec![1.0, 2.0], vec![3.0, 4.0], vec![1.0, 2.0]];
    let found = detect(&Keys::default(), &rows, &[1, 1, 1, 1], 1);
    assert_eq!(positions(&found), [2], "one that is alone, of four");
    assert!(found.flagged[0].score == 0.0 && found.details[0]["silhouette"] == 0.75);
    let written = serde_json::to_string(&found.details).unwrap();
    assert!(!written.contains("null"), "{written}");
}

#[test]
fn what_was_found_is_shown() {
    let (rows, labels) = scene();
    let found = detect(&Keys::default(), &rows, &labels, 1);
    let [Exhibit::Scatter(scatter), Exhibit::Strip(strip), Exhibit::Table(table)] = &found.exhibits[..] else {
        panic!("{:?}", found.exhibits);
    };
    let ids: Vec<usize> = scatter.series[0].points.iter().filter_map(|p| p.id).collect();
    assert_eq!(
        (ids.len(), scatter.series[1].points.len(), scatter.series[0].name.as_str()),
        (10, 70, "flagged")
    );
    assert!(ids.iter().all(|id| positions(&found).contains(id)));
    assert_eq!((strip.rows[0].own, strip.rows[0].others.len()), (Some(0.125), 2));
    assert_eq!((table.rows.len(), table.rows[0].len(), table.columns.len()), (10, 4, 4));
    assert_eq!(table.rows[0][0], Cell::Whole(10));
}
