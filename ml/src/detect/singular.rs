//! Rows laid along the directions in which they vary most.

use crate::error::Result;
use tch::{Kind, Tensor};

/// Rows on their right singular vectors.
#[derive(Debug)]
pub(super) struct Laid {
    /// n × kept, the strongest direction first; each direction's sign is arbitrary.
    pub rows: Tensor,
    /// Squared singular values, the largest first.
    pub squares: Tensor,
}

/// Rows without their mean.
pub(super) fn centred(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.f_sub(&rows.f_mean_dim(&[0i64][..], true, None::<Kind>)?)?)
}

/// Rows (float64) on at most `kept` of their right singular vectors; there are no more than rows or columns.
pub(super) fn laid(rows: &Tensor, kept: i64) -> Result<Laid> {
    let (n, width) = rows.size2()?;
    // The smaller of XᵀX, whose eigenvectors the rows are laid on, and XXᵀ, whose eigenvectors are the laid rows but for their length.
    let wide = width > n;
    let square = if wide {
        rows.f_matmul(&rows.f_tr()?)?
    } else {
        rows.f_tr()?.f_matmul(rows)?
    };
    let (values, vectors) = square.f_linalg_eigh("L")?;
    let kept = kept.min(width).min(n);
    let last = |t: &Tensor, dim: i64| -> Result<Tensor> { Ok(t.f_slice(dim, t.size()[dim as usize] - kept, None, 1)?.f_flip([dim])?) };
    let (squares, vectors) = (last(&values, 0)?.f_clamp_min(0.0)?, last(&vectors, 1)?);
    let rows = match wide {
        true => vectors.f_mul(&squares.f_sqrt()?)?,
        false => rows.f_matmul(&vectors)?,
    };
    Ok(Laid { rows, squares })
}
