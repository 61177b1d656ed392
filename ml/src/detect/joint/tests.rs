use super::*;
use crate::detect::fake::{normals, random_vectors};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::Kind;

fn matrix(rows: i64, columns: i64, seed: u64) -> Tensor {
    let values = normals((rows * columns) as usize, &mut ChaCha8Rng::seed_from_u64(seed));
    // Columns of unlike sizes, and a middle that is not 0.
    let scale: Vec<f64> = (0..columns).map(|j| 10f64.powf((j % 5) as f64 / 2.0 - 1.0)).collect();
    Tensor::from_slice(&values).view([rows, columns]) * Tensor::from_slice(&scale) + 3.0
}

/// (S + a)⁻¹ of clean rows without their mean, as a dense matrix; and that mean.
fn inverse(clean: &Tensor, a: f64) -> (Tensor, Tensor) {
    let middle = clean.mean_dim(&[0i64][..], true, None::<Kind>);
    let seen = clean - &middle;
    let s = seen.tr().matmul(&seen) / clean.size()[0] as f64;
    let d = clean.size()[1];
    ((s + a * Tensor::eye(d, (Kind::Double, tch::Device::Cpu))).inverse(), middle)
}

fn mean_variance(clean: &Tensor) -> f64 {
    let seen = clean - clean.mean_dim(&[0i64][..], true, None::<Kind>);
    f64::try_from(seen.square().sum(None::<Kind>)).unwrap() / (clean.size()[0] * clean.size()[1]) as f64
}

fn cosine(x: &Tensor, y: &Tensor, inverse: &Tensor) -> f64 {
    let inner = |a: &Tensor, b: &Tensor| f64::try_from(a.matmul(inverse).dot(b)).unwrap();
    inner(x, y) / (inner(x, x) * inner(y, y)).sqrt()
}

/// Against the dense inverse, with more pictures than features and with fewer.
#[test]
fn units_have_the_cosines_of_the_damped_inverse() {
    for (pictures, features) in [(60, 12), (20, 40)] {
        let (clean, rows) = (matrix(pictures, features, 1), matrix(7, features, 2));
        let whitening = Whitening::of(&clean, 0.1).unwrap().unwrap();
        let (inverse, middle) = inverse(&clean, 0.1 * mean_variance(&clean));
        let units = whitening.units(&rows).unwrap();
        let seen = &rows - &middle;
        for i in 0..7 {
            let x = seen.get(i);
            let leverage = f64::try_from(x.matmul(&inverse).dot(&x)).unwrap();
            assert!((units.leverage.double_value(&[i, 0]) - leverage).abs() < 1e-9 * leverage);
            for j in 0..7 {
                let ours = f64::try_from(units.rows.get(i).dot(&units.rows.get(j))).unwrap();
                assert!((ours - cosine(&x, &seen.get(j), &inverse)).abs() < 1e-9, "{pictures} {i} {j}");
            }
        }
    }
    assert!(
        Whitening::of(&Tensor::ones([60, 4], (Kind::Double, tch::Device::Cpu)), 0.1)
            .unwrap()
            .is_none()
    );
}

/// A null picture's cosine is that under the inverse without it (the mean stays: it moves by a part in the number of pictures).
#[test]
fn null_pictures_are_measured_as_if_they_had_set_no_measure() {
    let (clean, examples) = (matrix(30, 12, 3), matrix(9, 12, 4));
    let a = 0.1 * mean_variance(&clean);
    let whitening = Whitening::of(&clean, 0.1).unwrap().unwrap();
    let view = ClassView::new(0.5, &whitening, &examples, &clean).unwrap();
    let middle = clean.mean_dim(&[0i64][..], true, None::<Kind>);
    let (seen, seeds) = (&clean - &middle, &examples - &middle);
    let eye = Tensor::eye(12, (Kind::Double, tch::Device::Cpu));
    let weights = [(2, 0.5), (7, 2.0)];
    let ours = view.of_null(&weights).unwrap();
    for v in 0..30 {
        let x = seen.get(v);
        let without = (seen.tr().matmul(&seen) - x.unsqueeze(1).matmul(&x.unsqueeze(0))) / 30.0;
        let inverse = (without + a * &eye).inverse();
        let theirs: f64 = weights
            .iter()
            .map(|&(s, weight)| weight * cosine(&x, &seeds.get(s as i64), &inverse))
            .sum();
        assert!((ours[v as usize] - theirs).abs() < 1e-9, "{v}: {} {theirs}", ours[v as usize]);
    }
}

/// κ is the mean of both cosines, an example's own with itself taken out, whatever the scale of gradients and features.
#[test]
fn kinship_is_the_weighted_mean_of_both_cosines() {
    let mut vectors = random_vectors(40, 9, 5);
    vectors.null = (0..6).map(|i| normals(9, &mut ChaCha8Rng::seed_from_u64(i))).collect();
    let positions: Vec<usize> = (0..40).step_by(2).collect();
    let root: Vec<f64> = positions.iter().map(|&i| vectors.inner(i, i).sqrt()).collect();
    let (clean, examples) = (matrix(30, 12, 6), matrix(20, 12, 7));
    let whitening = Whitening::of(&clean, 0.1).unwrap().unwrap();
    let null = clean.narrow(0, 0, 6);
    let (inverse, middle) = inverse(&clean, 0.1 * mean_variance(&clean));
    let seen = &examples - &middle;
    for weight in [0.3, 1.0] {
        let plain = {
            let groups = [vec![(positions[1], 1.0 / root[1]), (positions[4], 1.0 / root[4])]];
            let mut joint = Joint {
                evidence: &mut vectors,
                view: Some(ClassView::new(weight, &whitening, &examples, &null).unwrap()),
                positions: &positions,
                root: &root,
            };
            joint.kin("kin", &groups, &positions).unwrap()
        };
        let kappa = crate::detect::kin::kappa(&plain.rows[0], &root, &[1, 4]);
        for i in 0..20 {
            let others: Vec<usize> = [1, 4].into_iter().filter(|s| *s != i).collect();
            let both = |s: &usize| {
                let gradients = vectors.inner(positions[*s], positions[i]) / root[*s] / root[i];
                (1.0 - weight) * gradients + weight * cosine(&seen.get(*s as i64), &seen.get(i as i64), &inverse)
            };
            let expected = others.iter().map(both).sum::<f64>() / others.len() as f64;
            assert!((kappa[i] - expected).abs() < 1e-9, "{i}: {} {expected}", kappa[i]);
        }
        assert_eq!(plain.null[0].len(), 6);
    }
    // Without a view nothing is changed.
    let groups = [vec![(positions[1], 1.0 / root[1])]];
    let own = vectors.kin("kin", &groups, &positions).unwrap();
    let mut joint = Joint {
        evidence: &mut vectors,
        view: None,
        positions: &positions,
        root: &root,
    };
    assert_eq!(joint.kin("kin", &groups, &positions).unwrap(), own);
    // Other examples than features are known of.
    joint.view = Some(ClassView::new(0.5, &whitening, &examples, &null).unwrap());
    assert!(joint.kin("kin", &groups, &positions[1..]).is_err());
}
