//! Features seen from the middle of clean pictures of a class, in units of their spread: x ↦ (S + a·1)^(−½) (x − m), with mean m and covariance S of the clean pictures and
//! a = `damping` times their mean variance.

use crate::error::Result;
use tch::{Kind, Tensor};

/// Features in units of their spread over clean pictures.
#[derive(Debug)]
pub struct Whitening {
    /// m, 1 × features.
    middle: Tensor,
    /// Directions in which the clean pictures vary, features × r.
    directions: Tensor,
    /// 1 − √(a / (λ + a)) of each: how much of it is taken away.
    shrink: Tensor,
    /// a.
    damping: f64,
    /// Number of clean pictures.
    pub(super) pictures: f64,
}

/// Rows in those units.
#[derive(Debug)]
pub struct Units {
    /// Rows of length 1; one that lies in the middle stays 0 and resembles nothing.
    pub rows: Tensor,
    /// xᵀ (S + a)⁻¹ x of each row, a column.
    pub leverage: Tensor,
}

impl Whitening {
    /// From clean pictures' features (one a row). None where they do not vary.
    ///
    /// # Errors
    /// libtorch's.
    pub fn of(clean: &Tensor, damping: f64) -> Result<Option<Self>> {
        let clean = clean.f_to_kind(Kind::Double)?;
        let (pictures, features) = clean.size2()?;
        let middle = clean.f_mean_dim(&[0i64][..], true, None::<Kind>)?;
        let (_, singular, directions) = clean.f_sub(&middle)?.f_svd(true, true)?;
        let variance = singular.f_square()?.f_div_scalar(pictures as f64)?;
        let damping = damping * f64::try_from(variance.f_sum(None::<Kind>)?)? / features as f64;
        if !(damping > 0.0 && damping.is_finite()) {
            return Ok(None);
        }
        // The same as applying (S + a)^(−½) up to the factor √a, which no cosine sees, without a matrix of features × features.
        let kept = variance.f_add_scalar(damping)?.f_reciprocal()?.f_mul_scalar(damping)?.f_sqrt()?;
        Ok(Some(Self {
            middle,
            directions,
            shrink: kept.f_neg()?.f_add_scalar(1.0)?,
            damping,
            pictures: pictures as f64,
        }))
    }

    /// Rows of features, seen so.
    ///
    /// # Errors
    /// libtorch's.
    pub fn units(&self, rows: &Tensor) -> Result<Units> {
        let seen = rows.f_to_kind(Kind::Double)?.f_sub(&self.middle)?;
        let along = seen.f_matmul(&self.directions)?.f_mul(&self.shrink)?;
        let white = seen.f_sub(&along.f_matmul(&self.directions.f_tr()?)?)?;
        let square = white.f_square()?.f_sum_dim_intlist(&[1i64][..], true, None::<Kind>)?;
        Ok(Units {
            rows: white.f_div(&square.f_sqrt()?.f_clamp_min(f64::MIN_POSITIVE)?)?,
            leverage: square.f_div_scalar(self.damping)?,
        })
    }
}
