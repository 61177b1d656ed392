//! ekfac.
