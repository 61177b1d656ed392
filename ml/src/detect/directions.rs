//! The directions along which the examples of a class differ most: leading eigenvectors of the matrix of their cosines, κ_ij = g_iᵀ P g_j / (root_i root_j) (or the same seen twice, [`super::joint`]),
//! by subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4, and the Rayleigh–Ritz step). The matrix is never formed: a product with it is what [`Evidence::kin`] answers.

use crate::error::{Error, Result};
use crate::evidence::Evidence;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// The `count` leading eigenvectors (fewer where there are fewer examples), the largest eigenvalue first: one value for each of `positions`, of length 1 together. Their sign means nothing.
///
/// # Errors
/// Of the passes; values that are no numbers.
pub fn leading(evidence: &mut dyn Evidence, positions: &[usize], root: &[f64], count: usize, rounds: u32, seed: u64) -> Result<Vec<Vec<f64>>> {
    let (n, k) = (positions.len(), count.min(positions.len()));
    if k == 0 {
        return Ok(Vec::new());
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let drawn: Vec<f64> = (0..n * k).map(|_| rng.random_range(-1.0..1.0)).collect();
    let mut basis = orthonormal(&Tensor::f_from_slice(&drawn)?.f_view([n as i64, k as i64])?)?;
    for _ in 0..rounds {
        basis = orthonormal(&times(evidence, positions, root, &basis)?)?;
    }
    let product = times(evidence, positions, root, &basis)?;
    let small = basis.f_tr()?.f_matmul(&product)?;
    let symmetric = small.f_add(&small.f_tr()?)?.f_mul_scalar(0.5)?;
    let (_, turned) = symmetric.f_linalg_eigh("L")?; // ascending
    let vectors = basis.f_matmul(&turned)?;
    (0..k as i64).rev().map(|j| column(&vectors, j)).collect()
}

/// κ · basis, n × k.
fn times(evidence: &mut dyn Evidence, positions: &[usize], root: &[f64], basis: &Tensor) -> Result<Tensor> {
    let k = basis.size2()?.1;
    let group = |j: i64| -> Result<Vec<(usize, f64)>> {
        let weights = column(basis, j)?.into_iter().zip(root);
        Ok(positions.iter().copied().zip(weights.map(|(v, root)| v / root)).collect())
    };
    let groups = (0..k).map(group).collect::<Result<Vec<_>>>()?;
    let rows = evidence.kin("directions", &groups, positions)?.rows;
    let all: Vec<f64> = rows.iter().flat_map(|row| row.iter().zip(root).map(|(v, root)| v / root)).collect();
    if rows.len() != groups.len() || all.len() != groups.len() * positions.len() {
        return Err(Error::internal("kin of directions came back in another shape"));
    }
    if let Some(value) = all.iter().find(|v| !v.is_finite()) {
        return Err(Error::numeric(
            format!("a product with the matrix of cosines holds {value}, not a number"),
            "look for NaN or huge weights in the checkpoint; detect.precision f64 tells overflow from NaN",
        ));
    }
    Ok(Tensor::f_from_slice(&all)?.f_view([k, positions.len() as i64])?.f_tr()?)
}

fn orthonormal(columns: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_linalg_qr(columns, "reduced")?.0)
}

fn column(matrix: &Tensor, j: i64) -> Result<Vec<f64>> {
    Ok(Vec::try_from(&matrix.f_select(1, j)?.f_contiguous()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::fake::Vectors;

    /// Against the eigenvectors of the whole matrix.
    #[test]
    fn they_are_the_leading_eigenvectors_of_the_matrix_of_cosines() {
        let mut evidence = Vectors::planted(120, 40, 15, 4);
        let positions: Vec<usize> = (0..120).filter(|i| i % 5 != 2).collect();
        let root: Vec<f64> = positions.iter().map(|&i| evidence.inner(i, i).sqrt()).collect();
        let cosines: Vec<f64> = (positions.iter().zip(&root))
            .flat_map(|(&a, ra)| {
                positions
                    .iter()
                    .zip(&root)
                    .map(|(&b, rb)| evidence.inner(a, b) / ra / rb)
                    .collect::<Vec<_>>()
            })
            .collect();
        let n = positions.len();
        let whole = Tensor::from_slice(&cosines).view([n as i64, n as i64]);
        let (values, vectors) = whole.linalg_eigh("L");
        let found = leading(&mut evidence, &positions, &root, 8, 40, 7).unwrap();
        assert_eq!(found.len(), 8);
        for (j, vector) in found.iter().take(3).enumerate() {
            let at = n as i64 - 1 - j as i64;
            let exact = column(&vectors, at).unwrap();
            let cosine: f64 = vector.iter().zip(&exact).map(|(a, b)| a * b).sum();
            assert!(
                (cosine.abs() - 1.0).abs() < 1e-6,
                "direction {j}: {cosine}, eigenvalue {}",
                values.double_value(&[at])
            );
        }
        assert!(leading(&mut evidence, &[], &[], 8, 3, 7).unwrap().is_empty());
        assert_eq!(leading(&mut evidence, &positions[..3], &root[..3], 8, 3, 7).unwrap().len(), 3);
        evidence.broken_kin = Some(f64::NAN);
        assert!(leading(&mut evidence, &positions, &root, 8, 3, 7).is_err());
    }
}
