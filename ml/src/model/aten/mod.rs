//! The operators that a node may name: PyTorch's ATen, without what draws at random, opens files or changes what it is given.
//!
//! A stranger's file can name these and nothing else, so it does arithmetic and nothing else. They are tch's typed functions, one line each: what fails is an error with
//! libtorch's text. Names are ATen's, with the overload where there is one (`add.Tensor`); arguments have the names of ATen's schema.

mod arithmetic;
mod layers;
mod shape;

use super::value::{Args, Datum};
use crate::error::Result;

/// An operator: arguments in, value out.
pub type Operator = fn(&Args<'_>) -> Result<Datum>;

/// A table of operators: name, and what it does.
macro_rules! operators {
    ($($name:literal => $run:expr;)*) => {
        /// Names of these operators.
        pub const NAMES: &[&str] = &[$($name),*];

        /// The operator of a name.
        pub fn find(name: &str) -> Option<super::Operator> {
            match name {
                $($name => Some($run as super::Operator),)*
                _ => None,
            }
        }
    };
}
use operators;
pub use shape::is_float;

/// The operator of a name.
pub fn find(name: &str) -> Option<Operator> {
    arithmetic::find(name).or_else(|| shape::find(name)).or_else(|| layers::find(name))
}

/// Names of all operators.
pub fn names() -> Vec<&'static str> {
    let mut all = [arithmetic::NAMES, shape::NAMES, layers::NAMES].concat();
    all.sort_unstable();
    all
}

/// Can what it yields share memory with its first argument?
pub fn may_share(name: &str) -> bool {
    shape::SHARING.contains(&name)
}

/// Does it look only at shape and kind of its first argument, not at its numbers?
pub fn ignores_numbers(name: &str) -> bool {
    name.starts_with("sym_size")
        || matches!(
            name,
            "new_zeros" | "new_ones" | "new_full" | "zeros_like" | "ones_like" | "full_like" | "fill.Tensor" | "fill.Scalar" | "zero"
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_found() {
        let all = names();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(all.iter().all(|name| find(name).is_some()) && find("random_").is_none());
        assert!(shape::SHARING.iter().all(|name| find(name).is_some()), "{:?}", shape::SHARING);
    }

    /// As a network in float64 calls them that was exported in float32.
    fn called(target: &str, given: &[(&'static str, Datum)]) -> tch::Tensor {
        let given = given.iter().map(|(name, datum)| (*name, datum.share())).collect();
        let args = Args::new(tch::Device::Cpu, tch::Kind::Double, given);
        match find(target).unwrap()(&args).unwrap() {
            Datum::Tensor(tensor) => tensor,
            other => panic!("{target} yields {other:?}"),
        }
    }

    #[test]
    fn what_is_made_is_of_the_kind_that_is_computed_in() {
        use tch::{Kind, Tensor};
        let float = ("dtype", Datum::Kind(Kind::Float));
        assert_eq!(called("zeros", &[("size", Datum::Ints(vec![2])), float]).kind(), Kind::Double);
        assert_eq!(called("zeros", &[("size", Datum::Ints(vec![2]))]).kind(), Kind::Double);
        assert_eq!(called("arange", &[("end", Datum::Int(3))]).kind(), Kind::Int64);
        assert_eq!(
            called("arange", &[("end", Datum::Int(3)), ("dtype", Datum::Kind(Kind::Float))]).kind(),
            Kind::Double
        );
        let mask = Tensor::from_slice(&[true, false]);
        assert_eq!(
            called("to.dtype", &[("self", mask.shallow_clone().into()), ("dtype", Datum::Kind(Kind::Float))]).kind(),
            Kind::Double
        );
        for target in ["clone", "lift_fresh_copy"] {
            let copy = called(target, &[("self", mask.shallow_clone().into())]);
            assert!(
                copy.kind() == Kind::Bool && copy.equal(&mask) && copy.data_ptr() != mask.data_ptr(),
                "{target}"
            );
        }
    }
}
